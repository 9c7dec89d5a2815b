//! What a metric of one instance was in the last minutes: the points that window functions read.
//!
//! Points come in the order of evaluation time. The newest 1,024 are kept one by one; older ones, where a window is
//! longer than these reach, go into buckets of a 1,024th of that window, with exact sum, count, least and greatest value.
//! So an instance's windows are bounded however often it reports, and cost nothing where no rule has one.

use std::{collections::VecDeque, time::Duration};

use crate::model::{EvidencePoint, Name, Timestamp};

/// Points that are kept one by one, and buckets of a window beyond them (CONTRACT §3).
pub(super) const MAX_EXACT: usize = 1_024;

/// A function of a window's points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Mean of the values.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// Sum of the values.
    Sum,
    /// Number of points.
    Count,
    /// Standard deviation of the population.
    Stddev,
    /// Increase per second of a counter, between the first and the last point.
    Rate,
    /// Increase of a counter: what it lost at a reset does not count.
    Increase,
    /// Last value less the first.
    Delta,
}

impl Function {
    /// Every function with its name.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("stddev", Self::Stddev),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
        ("delta", Self::Delta),
    ];

    /// Its name in rules.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// Whether one point says nothing: these compare points.
    pub(super) fn needs_two(self) -> bool {
        matches!(self, Self::Rate | Self::Increase | Self::Delta)
    }
}

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its evaluation time.
    pub at: Timestamp,
    /// Its value.
    pub value: f64,
}

/// What several readings in a row come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The first reading.
    pub first: Point,
    /// The last one.
    pub last: Point,
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squared distances from their mean.
    pub squares: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// What a counter gained between the first and the last.
    pub increase: f64,
}

impl From<Point> for Bucket {
    fn from(point: Point) -> Self {
        let value = point.value;
        Self { first: point, last: point, count: 1, sum: value, squares: 0.0, min: value, max: value, increase: 0.0 }
    }
}

impl Bucket {
    fn add(&mut self, point: Point) {
        let mean = self.sum / self.count as f64;
        self.count += 1;
        self.sum += point.value;
        // Welford's update.
        self.squares += (point.value - mean) * (point.value - self.sum / self.count as f64);
        self.min = self.min.min(point.value);
        self.max = self.max.max(point.value);
        self.increase += step(self.last.value, point.value);
        self.last = point;
    }
}

/// What a counter gained from one reading to the next. A lower value is a counter that began anew at 0, as Prometheus
/// has it (`increase`, promql/functions.go).
fn step(from: f64, to: f64) -> f64 {
    if to >= from { to - from } else { to.max(0.0) }
}

/// Readings older than the newest 1,024, for one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Coarse {
    /// How long the window is.
    pub span: Duration,
    /// What came before the points.
    pub buckets: VecDeque<Bucket>,
}

/// The readings of one metric, for all windows of it in rules of one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The metric.
    pub metric: Name,
    /// Rules that were changed at the same time share windows; one changed later begins its own anew.
    pub generation: u64,
    /// The newest readings, oldest first.
    pub points: VecDeque<Point>,
    /// The windows over it by their length, the shortest first, with what they need beyond the points.
    pub coarse: Vec<Coarse>,
    /// Readings taken since they were last journaled.
    pub n_unsaved: usize,
}

impl Series {
    /// No reading yet; for windows of these lengths.
    pub fn new(metric: Name, generation: u64, spans: &[Duration]) -> Self {
        let mut series = Self { metric, generation, points: VecDeque::new(), coarse: Vec::new(), n_unsaved: 0 };
        series.serve(spans);
        series
    }

    /// Serves windows of these lengths, and no others.
    pub fn serve(&mut self, spans: &[Duration]) {
        self.coarse.retain(|coarse| spans.contains(&coarse.span));
        for span in spans {
            if !self.coarse.iter().any(|coarse| coarse.span == *span) {
                self.coarse.push(Coarse { span: *span, buckets: VecDeque::new() });
            }
        }
        self.coarse.sort_unstable_by_key(|coarse| coarse.span);
    }

    /// Takes a reading, not before the last one in time.
    pub fn push(&mut self, point: Point) {
        let longest = self.coarse.last().map_or(Duration::ZERO, |coarse| coarse.span);
        let old = self.points.partition_point(|p| !within(p.at, longest, point.at));
        self.points.drain(..old);
        self.points.push_back(point);
        self.n_unsaved += 1;
        if self.points.len() > MAX_EXACT
            && let Some(oldest) = self.points.pop_front()
        {
            self.coarse.iter_mut().for_each(|coarse| coarse.take(oldest, point.at));
        }
        for coarse in &mut self.coarse {
            let old = coarse.buckets.partition_point(|bucket| !within(bucket.last.at, coarse.span, point.at));
            coarse.buckets.drain(..old);
        }
    }

    /// What the function comes to at `now`, with `current` as the newest point if there is one that was not pushed yet.
    /// `None`: there are too few points.
    pub fn value(&self, function: Function, span: Duration, now: Timestamp, current: Option<f64>) -> Option<f64> {
        let start = self.points.partition_point(|p| !within(p.at, span, now));
        let current = current.map(|value| Point { at: now, value });
        let buckets = self.buckets(span, now);
        let points = self.points.range(start..).copied().chain(current);
        compute(function, buckets, points)
    }

    /// What the function comes to when there is no point but the current one.
    pub(super) fn lone(function: Function, current: Option<f64>) -> Option<f64> {
        let current = current.map(|value| Point { at: Timestamp::default(), value });
        compute(function, std::iter::empty(), current.into_iter())
    }

    /// The window's points as evidence, at most `most` of them, evenly thinned, the newest among them. Of a bucket it is
    /// the last reading.
    pub(super) fn evidence(
        &self,
        span: Duration,
        now: Timestamp,
        current: Option<f64>,
        most: usize,
    ) -> Vec<EvidencePoint> {
        let start = self.points.partition_point(|p| !within(p.at, span, now));
        let current = current.map(|value| Point { at: now, value });
        let all: Vec<Point> = self
            .buckets(span, now)
            .map(|bucket| bucket.last)
            .chain(self.points.range(start..).copied())
            .chain(current)
            .collect();
        let n = all.len();
        let kept = n.min(most);
        // The k-th of `kept` places, spread so that the last of all is the last kept.
        let place = |k: usize| (k + 1) * n / kept - 1;
        (0..kept).map(|k| all[place(k)]).map(|p| EvidencePoint { at: p.at, value: p.value }).collect()
    }

    fn buckets(&self, span: Duration, now: Timestamp) -> impl Iterator<Item = &Bucket> + Clone {
        let coarse = self.coarse.iter().find(|coarse| coarse.span == span);
        coarse.into_iter().flat_map(move |coarse| {
            let start = coarse.buckets.partition_point(|bucket| !within(bucket.last.at, span, now));
            coarse.buckets.range(start..)
        })
    }
}

impl Coarse {
    /// Takes a reading that the exact points have no room for, unless the window is past it.
    fn take(&mut self, point: Point, now: Timestamp) {
        if !within(point.at, self.span, now) {
            return;
        }
        let width = i64::try_from(self.span.as_nanos() / MAX_EXACT as u128).unwrap_or(i64::MAX).max(1);
        let slot = |at: Timestamp| at.as_nanos().div_euclid(width);
        match self.buckets.back_mut().filter(|bucket| slot(bucket.first.at) == slot(point.at)) {
            Some(bucket) => bucket.add(point),
            None => self.buckets.push_back(point.into()),
        }
    }
}

/// Whether `at` lies in (now − span, now].
fn within(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    at > now.minus(span)
}

/// The function over buckets and then points, from the oldest to the newest.
fn compute<'a>(
    function: Function,
    buckets: impl Iterator<Item = &'a Bucket> + Clone,
    points: impl Iterator<Item = Point> + Clone,
) -> Option<f64> {
    let values = || points.clone().map(|p| p.value);
    let least_or_greatest =
        |pick: fn(f64, f64) -> f64, of: fn(&Bucket) -> f64| buckets.clone().map(of).chain(values()).reduce(pick);
    match function {
        Function::Min => least_or_greatest(f64::min, |bucket| bucket.min),
        Function::Max => least_or_greatest(f64::max, |bucket| bucket.max),
        Function::Count => {
            let count = buckets.map(|bucket| bucket.count).sum::<u64>() + points.count() as u64;
            (count > 0).then_some(count as f64)
        }
        Function::Sum => Some(total(buckets, points)).filter(|(count, _)| *count > 0.0).map(|(_, sum)| sum),
        Function::Avg => Some(total(buckets, points)).filter(|(count, _)| *count > 0.0).map(|(n, sum)| sum / n),
        Function::Stddev => {
            let (count, sum) = total(buckets.clone(), points.clone());
            if count == 0.0 {
                return None;
            }
            let mean = sum / count;
            let distance = |value: f64| (value - mean) * (value - mean);
            let of_bucket = |b: &Bucket| b.squares + b.count as f64 * distance(b.sum / b.count as f64);
            let squares: f64 = buckets.map(of_bucket).chain(values().map(distance)).sum();
            Some((squares / count).sqrt())
        }
        Function::Rate | Function::Increase | Function::Delta => {
            let stretches = buckets.map(Stretch::from).chain(points.map(Stretch::from));
            stretches.reduce(Stretch::then)?.value(function)
        }
    }
}

/// Count and sum.
fn total<'a>(buckets: impl Iterator<Item = &'a Bucket>, points: impl Iterator<Item = Point>) -> (f64, f64) {
    let of_buckets = buckets.fold((0.0, 0.0), |(n, sum), bucket| (n + bucket.count as f64, sum + bucket.sum));
    points.fold(of_buckets, |(n, sum), point| (n + 1.0, sum + point.value))
}

/// What a counter did from one reading to another.
struct Stretch {
    first: Point,
    last: Point,
    count: u64,
    increase: f64,
}

impl From<&Bucket> for Stretch {
    fn from(bucket: &Bucket) -> Self {
        let Bucket { first, last, count, increase, .. } = *bucket;
        Self { first, last, count, increase }
    }
}

impl From<Point> for Stretch {
    fn from(point: Point) -> Self {
        Self { first: point, last: point, count: 1, increase: 0.0 }
    }
}

impl Stretch {
    /// This one and then the next.
    fn then(self, next: Self) -> Self {
        Self {
            first: self.first,
            last: next.last,
            count: self.count + next.count,
            increase: self.increase + step(self.last.value, next.first.value) + next.increase,
        }
    }

    fn value(&self, function: Function) -> Option<f64> {
        let (first, last) = (self.first, self.last);
        match function {
            _ if self.count < 2 => None,
            Function::Delta => Some(last.value - first.value),
            Function::Increase => Some(self.increase),
            // Two points of one time have no rate.
            _ => {
                let seconds = (last.at.as_nanos() - first.at.as_nanos()) as f64 / 1e9;
                (seconds > 0.0).then(|| self.increase / seconds)
            }
        }
    }
}
