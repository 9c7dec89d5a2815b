//! From the lines of one scrape to the metrics of a report.
//!
//! | the target's | is reported as |
//! |---|---|
//! | counter `x_total` | `x_count`, `x_rate`: summed over its label sets |
//! | gauge `x`, untyped `x` | `x`: summed over its label sets |
//! | histogram `x` | of what came since the last scrape `x_p50`, `x_p95`, `x_p99`; `x_count`, `x_rate` |
//! | summary `x` | its quantiles `x_p50`, `x_p99`, …, the largest of its label sets'; `x_count`, `x_rate` |
//!
//! A count is what the target says at first, and grows by what its series grow from then on: it does not fall when one of
//! them goes away or the target begins anew. Values that are no finite numbers are passed over.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use gopherwatch_client::mapping::{counter_stem, valid_name};
use gopherwatch_proto::v1::Metric;
use gopherwatch_proto::{MAX_METRICS, WELL_KNOWN_METRICS};

use super::histogram::Buckets;
use super::series::Series;
use super::text::{Kind, Line, Malformed, Sample, parse};
use crate::mapping::{Combine, Names, Take};
use crate::sources::metric;

/// Figures of one target, before those that a report has no room for are left out.
const MAX_FIGURES: usize = 4_096;
/// Different quantiles of a summary.
const MAX_QUANTILES: usize = 16;

/// What is remembered of a target from scrape to scrape.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    series: Series,
    /// Counts by the name that they are reported under.
    totals: HashMap<String, f64>,
    /// Figures that have their place among the metrics of a report.
    placed: HashSet<String>,
    n_metrics: usize,
}

/// One scrape.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    memory: &'a mut Memory,
    names: &'a Names,
    /// Of the last `# TYPE`.
    family: String,
    kind: Kind,
    /// In the target's order.
    figures: Vec<Figure>,
    index: HashMap<String, usize>,
    malformed: u64,
    beyond: u64,
}

/// What a scrape came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) metrics: Vec<Metric>,
    /// Lines that are not of the format.
    pub(crate) malformed: u64,
    /// Series or metrics that there was no room for.
    pub(crate) beyond: u64,
}

#[derive(Debug)]
struct Figure {
    name: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Count(Count),
    /// A histogram or summary.
    Spread {
        count: Option<Count>,
        buckets: Buckets,
        quantiles: Vec<(f64, f64)>,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    said: f64,
    grew: f64,
}

/// What a sample is of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Gauge,
    Count,
    SpreadCount,
    Bucket,
    Quantile,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(memory: &'a mut Memory, names: &'a Names) -> Self {
        memory.series.begin();
        let (family, kind) = (String::new(), Kind::Untyped);
        Self { memory, names, family, kind, figures: Vec::new(), index: HashMap::new(), malformed: 0, beyond: 0 }
    }

    /// Everything that the target says.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        for line in body.split(|byte| *byte == b'\n') {
            match std::str::from_utf8(line) {
                Ok(line) => self.line(line),
                Err(_) => self.malformed += 1,
            }
        }
        self
    }

    fn line(&mut self, line: &str) {
        match parse(line) {
            Ok(Some(Line::Type { family, kind })) => (self.family, self.kind) = (family.to_owned(), kind),
            Ok(Some(Line::Sample(sample))) if sample.value.is_finite() => self.sample(&sample),
            Ok(_) => {}
            Err(Malformed) => self.malformed += 1,
        }
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let Some((source, part)) = part(sample.name, &self.family, self.kind) else { return };
        let names = self.names;
        let name = names.name(source);
        let takes: Vec<&Take> = names
            .takes(source)
            .filter(|take| take.fits(|label| sample.labels.get(label).map(|it| it.into_owned())))
            .collect();
        if name.is_none() && takes.is_empty() {
            return;
        }
        // Asked once for a sample, whatever is made of it.
        let grew = match part {
            Part::Gauge | Part::Quantile => 0.0,
            Part::Count | Part::SpreadCount | Part::Bucket => {
                match self.memory.series.growth(sample.name, sample.labels.text(), sample.value) {
                    Some(grew) => grew,
                    None => return self.beyond += 1,
                }
            }
        };
        if let Some(name) = name {
            self.add(name, Combine::Sum, part, sample, grew);
        }
        for take in takes {
            self.add(&take.name, take.combine, part, sample, grew);
        }
    }

    fn add(&mut self, name: &str, combine: Combine, part: Part, sample: &Sample<'_>, grew: f64) {
        let Some(name) = valid_name(if part == Part::Count { counter_stem(name) } else { name }) else { return };
        let count = Count { said: sample.value, grew };
        let Some(at) = self.place(&name, part) else { return self.beyond += 1 };
        match (&mut self.figures[at].value, part) {
            (Value::Gauge(value), Part::Gauge) => {
                *value = match combine {
                    // What is not a number yet has no value so far.
                    _ if value.is_nan() => sample.value,
                    Combine::Sum => *value + sample.value,
                    Combine::Max => value.max(sample.value),
                    Combine::Min => value.min(sample.value),
                }
            }
            (Value::Count(sum), Part::Count) => sum.add(count),
            (Value::Spread { count: sum, .. }, Part::SpreadCount) => sum.get_or_insert_default().add(count),
            (Value::Spread { buckets, .. }, Part::Bucket) => {
                match sample.labels.get("le").and_then(|le| le.parse().ok()) {
                    Some(le) => buckets.add(le, grew),
                    None => self.malformed += 1,
                }
            }
            (Value::Spread { quantiles, .. }, Part::Quantile) => {
                let Some(quantile) = sample.labels.get("quantile").and_then(|it| it.parse().ok()) else {
                    return self.malformed += 1;
                };
                if let Some((_, value)) = quantiles.iter_mut().find(|(known, _)| *known == quantile) {
                    *value = value.max(sample.value);
                } else if quantiles.len() < MAX_QUANTILES {
                    quantiles.push((quantile, sample.value));
                } else {
                    self.beyond += 1;
                }
            }
            // Two figures of different kinds under one name: the first one has it.
            _ => self.beyond += 1,
        }
    }

    /// Where the figure of that name is; a new one, if there is room.
    fn place(&mut self, name: &str, part: Part) -> Option<usize> {
        if let Some(at) = self.index.get(name) {
            return Some(*at);
        }
        if self.figures.len() >= MAX_FIGURES {
            return None;
        }
        let value = match part {
            Part::Gauge => Value::Gauge(f64::NAN),
            Part::Count => Value::Count(Count::default()),
            Part::SpreadCount | Part::Bucket | Part::Quantile => {
                Value::Spread { count: None, buckets: Buckets::default(), quantiles: Vec::new() }
            }
        };
        self.figures.push(Figure { name: name.to_owned(), value });
        self.index.insert(name.to_owned(), self.figures.len() - 1);
        Some(self.figures.len() - 1)
    }

    /// The metrics, `elapsed` after the scrape before this one.
    pub(crate) fn end(self, elapsed: Option<Duration>) -> Outcome {
        let Self { memory, figures, malformed, mut beyond, .. } = self;
        // Behind the well-known ones, the target's order.
        let (first, others): (Vec<_>, Vec<_>) = figures.iter().partition(|figure| figure.is_well_known());
        beyond += first.into_iter().chain(others).filter(|figure| !memory.has_place(figure)).count() as u64;
        let mut metrics = Vec::new();
        for Figure { name, value } in figures {
            if !memory.placed.contains(&name) {
                continue;
            }
            match value {
                Value::Gauge(value) => metrics.push(metric(name, value)),
                Value::Count(count) => memory.count(&name, count, elapsed, &mut metrics),
                Value::Spread { count, buckets, quantiles } => {
                    let buckets = buckets.in_order();
                    for (end, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
                        let value = buckets.quantile(quantile);
                        metrics.extend(value.map(|value| metric(format!("{name}_{end}"), value)));
                    }
                    metrics.extend(quantiles.into_iter().filter_map(|(quantile, value)| {
                        Some(metric(format!("{name}_{}", quantile_name(quantile)?), value))
                    }));
                    if let Some(count) = count {
                        memory.count(&name, count, elapsed, &mut metrics);
                    }
                }
            }
        }
        Outcome { metrics, malformed, beyond }
    }
}

impl Count {
    fn add(&mut self, other: Count) {
        self.said += other.said;
        self.grew += other.grew;
    }
}

impl Figure {
    fn is_well_known(&self) -> bool {
        let is_one = |name: &str| WELL_KNOWN_METRICS.contains(&name);
        match self.value {
            Value::Gauge(_) => is_one(&self.name),
            Value::Count(_) | Value::Spread { .. } => is_one(&format!("{}_count", self.name)),
        }
    }

    /// How many metrics it is at most: a first scrape has no rates and no percentiles yet.
    fn n_metrics(&self) -> usize {
        match &self.value {
            Value::Gauge(_) => 1,
            Value::Count(_) => 2,
            Value::Spread { quantiles, .. } if !quantiles.is_empty() => quantiles.len() + 2,
            Value::Spread { .. } => 5,
        }
    }
}

impl Memory {
    /// Whether the figure has a place; it gets one, for good, if there is room for all that it may become.
    fn has_place(&mut self, figure: &Figure) -> bool {
        if self.placed.contains(&figure.name) {
            return true;
        }
        if self.n_metrics + figure.n_metrics() > MAX_METRICS {
            return false;
        }
        self.n_metrics += figure.n_metrics();
        self.placed.insert(figure.name.clone())
    }

    fn count(&mut self, name: &str, count: Count, elapsed: Option<Duration>, metrics: &mut Vec<Metric>) {
        let total = if let Some(total) = self.totals.get_mut(name) {
            *total += count.grew;
            *total
        } else if self.totals.len() >= MAX_FIGURES {
            return;
        } else if self.series.is_first_scrape() {
            self.totals.insert(name.to_owned(), count.said);
            count.said
        } else {
            self.totals.insert(name.to_owned(), count.grew);
            // `increase()` needs a reading from before the first value.
            0.0
        };
        metrics.push(metric(format!("{name}_count"), total));
        if let Some(elapsed) = elapsed {
            metrics.push(metric(format!("{name}_rate"), count.grew / elapsed.as_secs_f64()));
        }
    }
}

/// The metric that a sample belongs to, and what it is of it; none for what is not reported.
fn part<'a>(sample: &'a str, family: &str, kind: Kind) -> Option<(&'a str, Part)> {
    let end = sample.strip_prefix(family).filter(|_| !family.is_empty());
    let of_family = &sample[..sample.len() - end.map_or(0, str::len)];
    match (end, kind) {
        (Some("" | "_total"), Kind::Counter) => Some((sample, Part::Count)),
        (Some("_bucket"), Kind::Histogram) => Some((of_family, Part::Bucket)),
        (Some("_count"), Kind::Histogram | Kind::Summary) => Some((of_family, Part::SpreadCount)),
        (Some(""), Kind::Summary) => Some((sample, Part::Quantile)),
        // Sums of what was measured say little without their counts; times of creation nothing of a service's state.
        (Some("_sum"), Kind::Histogram | Kind::Summary) => None,
        (Some("_created"), Kind::Counter | Kind::Histogram | Kind::Summary) => None,
        (Some("" | "_info" | "_bucket" | "_gcount" | "_gsum"), Kind::Other) => None,
        (Some(""), Kind::Gauge) => Some((sample, Part::Gauge)),
        // Untyped, or not of the family above it.
        _ if sample.ends_with("_total") => Some((sample, Part::Count)),
        _ => Some((sample, Part::Gauge)),
    }
}

/// 0.5 is p50, 0.999 is p99_9.
fn quantile_name(quantile: f64) -> Option<String> {
    let percent = (quantile * 1e4).round() / 100.0;
    (0.0..=100.0).contains(&percent).then(|| format!("p{percent}").replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;

    struct Target {
        memory: Memory,
        names: Names,
        was_scraped: bool,
    }

    impl Target {
        fn new() -> Self {
            Self::mapped("")
        }

        fn mapped(mapping: &str) -> Self {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), mapping).expect("written");
            let mapping =
                if mapping.is_empty() { Mapping::default() } else { crate::mapping::read(file.path()).expect("valid") };
            Self { memory: Memory::default(), names: mapping.of("web"), was_scraped: false }
        }

        fn outcome(&mut self, text: &str) -> Outcome {
            let elapsed = self.was_scraped.then_some(Duration::from_secs(2));
            self.was_scraped = true;
            Reading::new(&mut self.memory, &self.names).body(text.as_bytes()).end(elapsed)
        }

        fn scrape(&mut self, text: &str) -> String {
            let outcome = self.outcome(text);
            assert_eq!((outcome.malformed, outcome.beyond), (0, 0), "{text}");
            let shown = |metric: &Metric| format!("{}={}", metric.name, metric.value);
            outcome.metrics.iter().map(shown).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn a_counter_is_its_total_and_from_the_second_scrape_on_its_rate() {
        let mut target = Target::new();
        let text = |ok: u32, failed: u32| {
            format!(
                "# TYPE http_requests_total counter\nhttp_requests_total{{code=\"200\"}} {ok}\nhttp_requests_total{{code=\"500\"}} {failed}"
            )
        };
        assert_eq!(target.scrape(&text(100, 10)), "request_count=110");
        assert_eq!(target.scrape(&text(120, 14)), "request_count=134 request_rate=12");
        // Begun anew.
        assert_eq!(target.scrape(&text(6, 0)), "request_count=140 request_rate=3");
    }

    #[test]
    fn a_label_set_that_goes_away_takes_nothing_from_the_count() {
        let mut target = Target::new();
        let rx = |devices: &[(&str, u32)]| {
            let lines = devices.iter().map(|(device, n)| format!("rx_total{{device=\"{device}\"}} {n}\n"));
            format!("# TYPE rx_total counter\n{}", lines.collect::<String>())
        };
        assert_eq!(target.scrape(&rx(&[("a", 100), ("b", 900)])), "rx_count=1000");
        assert_eq!(target.scrape(&rx(&[("a", 102)])), "rx_count=1002 rx_rate=1");
    }

    #[test]
    fn a_counter_that_appears_later_begins_at_0() {
        let mut target = Target::new();
        assert_eq!(target.scrape("up 1"), "up=1");
        assert_eq!(target.scrape("up 1\nerrors_total 4"), "up=1 error_count=0 error_rate=2");
        assert_eq!(target.scrape("up 1\nerrors_total 4"), "up=1 error_count=4 error_rate=0");
    }

    #[test]
    fn gauges_are_summed_over_their_label_sets() {
        let text = "# TYPE queue gauge\nqueue{name=\"a\"} 3\nqueue{name=\"b\"} 4\nqueue{name=\"c\"} NaN\nplain -1 1395066363000";
        assert_eq!(Target::new().scrape(text), "queue=7 plain=-1");
    }

    #[test]
    fn a_histograms_quantiles_are_of_what_came_since_the_last_scrape() {
        let mut target = Target::new();
        let text = |low: u32, high: u32| {
            format!(
                "# TYPE latency_seconds histogram
                latency_seconds_bucket{{le=\"0.1\"}} {low}
                latency_seconds_bucket{{le=\"0.5\"}} {all}
                latency_seconds_bucket{{le=\"+Inf\"}} {all}
                latency_seconds_sum 12
                latency_seconds_count {all}",
                all = low + high
            )
        };
        assert_eq!(target.scrape(&text(1000, 0)), "latency_seconds_count=1000");
        assert_eq!(
            target.scrape(&text(1050, 50)),
            "latency_seconds_p50=0.1 latency_seconds_p95=0.45999999999999996 latency_seconds_p99=0.492 latency_seconds_count=1100 latency_seconds_rate=50"
        );
        assert_eq!(target.scrape(&text(1050, 50)), "latency_seconds_count=1100 latency_seconds_rate=0");
    }

    #[test]
    fn a_summary_has_its_own_quantiles() {
        let text = "# TYPE rpc summary
            rpc{method=\"a\",quantile=\"0.5\"} 1
            rpc{method=\"b\",quantile=\"0.5\"} 3
            rpc{method=\"a\",quantile=\"0.999\"} 9
            rpc{method=\"b\",quantile=\"0.999\"} NaN
            rpc_sum 5
            rpc_count{method=\"a\"} 20";
        assert_eq!(Target::new().scrape(text), "rpc_p50=3 rpc_p99_9=9 rpc_count=20");
    }

    #[test]
    fn openmetrics_is_understood_as_far_as_it_is_the_same() {
        let text = "# TYPE jobs counter
            # UNIT jobs jobs
            jobs_total 5 # {trace_id=\"a\"} 1 2
            jobs_created 1700000000
            # TYPE build info
            build_info{version=\"1\"} 1
            # TYPE state stateset
            state{state=\"on\"} 1
            # EOF";
        assert_eq!(Target::new().scrape(text), "jobs_count=5");
    }

    #[test]
    fn a_mapping_drops_renames_and_takes_label_values() {
        let mut target = Target::mapped(
            r#"
            [[mapping]]
            drop = ["go_*"]
            rename = { q = "queue" }
            take = [
                { from = "http_requests_total", labels = { code = "5??" }, as = "errors" },
                { from = "go_threads", as = "threads" },
                { from = "temp", as = "hottest", combine = "max" },
            ]
            "#,
        );
        let text = |failed: u32| {
            format!(
                "go_goroutines 7\ngo_threads 8\nq 1\ntemp{{a=\"1\"}} 40\ntemp{{a=\"2\"}} 50
                # TYPE http_requests_total counter
                http_requests_total{{code=\"200\"}} 100\nhttp_requests_total{{code=\"503\"}} {failed}"
            )
        };
        assert_eq!(target.scrape(&text(5)), "threads=8 queue=1 temp=90 hottest=50 request_count=105 error_count=5");
        assert_eq!(
            target.scrape(&text(9)),
            "threads=8 queue=1 temp=90 hottest=50 request_count=109 request_rate=2 error_count=9 error_rate=2"
        );
    }

    #[test]
    fn of_too_many_metrics_the_well_known_ones_and_the_first_stay() {
        let mut text: String = (0..300).map(|n| format!("m{n} {n}\n")).collect();
        text += "cpu_percent 50\n";
        let outcome = Target::new().outcome(&text);
        assert_eq!((outcome.metrics.len(), outcome.beyond), (MAX_METRICS, 45));
        assert_eq!(outcome.metrics[0].name, "m0");
        assert_eq!(outcome.metrics[MAX_METRICS - 1].name, "cpu_percent");
    }

    /// A first scrape has no rates: with 256 totals there would be no place for them later.
    #[test]
    fn rates_and_percentiles_have_their_place_from_the_first_scrape_on() {
        let mut target = Target::new();
        let text: String = (0..200).map(|n| format!("m{n}_total {n}\n")).collect();
        let names = |outcome: &Outcome| outcome.metrics.iter().map(|it| it.name.clone()).collect::<HashSet<_>>();
        let mut all = names(&target.outcome(&text));
        assert_eq!(all.len(), 128);
        all.extend(names(&target.outcome(&text)));
        all.extend(names(&target.outcome(&format!("new 1\n{text}"))));
        assert_eq!(all.len(), MAX_METRICS);
        assert!(all.contains("m127_rate") && !all.contains("new"));
    }

    #[test]
    fn what_is_not_of_the_format_is_counted() {
        let outcome = Target::new().outcome("<html>\nup 1\n# TYPE a histogram\na_bucket 5\na_bucket{le=\"x\"} 5");
        assert_eq!(outcome.malformed, 3);
        assert_eq!(outcome.metrics.len(), 1);
    }

    #[test]
    fn a_hostile_target_does_not_grow_the_memory() {
        let mut target = Target::new();
        for round in 0..3 {
            let text: String = (0..50_000).map(|n| format!("m{round}_{n}_total{{a=\"{n}\"}} {n}\n")).collect();
            let outcome = target.outcome(&text);
            assert!(outcome.beyond > 40_000, "{}", outcome.beyond);
            assert!(target.memory.totals.len() <= MAX_FIGURES);
        }
    }
}
