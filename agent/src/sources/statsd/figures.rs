//! What one service has sent, and what a tick makes of it.
//!
//! | sent | reported |
//! |---|---|
//! | counter `x` | `x_count`, the sum of all its values, and `x_rate`, per second since the last tick |
//! | gauge `x` | `x` |
//! | timer, histogram, distribution `x` | of the tick's values `x_p50`, `x_p95`, `x_p99` (nearest rank), `x_max`; how many, as a counter |
//! | set `x` | `x_unique`, how many different members the tick had |
//!
//! A count is 0 in its first report and has everything from its second one on: `increase()` needs a reading from before
//! the first value. A tick without a value has no percentiles, rather than those of another time.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use gopherwatch_proto::MAX_METRICS;
use gopherwatch_proto::v1::Metric;

use super::parse::{Change, Kind, Line};
use crate::sources::metric;

/// Values of one timer that percentiles are taken from. More are sampled: of 1,024 the p99 is still one of ten values.
const MAX_VALUES: usize = 1_024;
/// Different members of one set: the figure stays there.
const MAX_MEMBERS: usize = 4_096;

/// The figures of one instance of a service.
#[derive(Debug)]
pub(crate) struct Figures {
    timers: BTreeMap<String, Timer>,
    sets: BTreeMap<String, HashSet<u64>>,
    gauges: BTreeMap<String, f64>,
    counters: BTreeMap<String, Counter>,
    /// How many metrics of a report these are.
    n_reported: usize,
    members: RandomState,
}

/// What all instances together may still take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Names.
    pub(crate) names: usize,
    /// Timers' values and sets' members, until the tick.
    pub(crate) values: usize,
}

#[derive(Debug, Default)]
struct Counter {
    total: f64,
    /// Of the total, since the last tick.
    recent: f64,
    was_reported: bool,
}

#[derive(Debug, Default)]
struct Timer {
    counter: Counter,
    /// Of this tick; beyond [`MAX_VALUES`] each of them has the same chance to be among these.
    values: Vec<f64>,
    n_values: usize,
    max: Option<f64>,
}

/// Whether there was room for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Whole,
    /// Counted, but without its value among those that percentiles are taken from.
    Partly,
    No,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            timers: BTreeMap::new(),
            sets: BTreeMap::new(),
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
            n_reported: 0,
            members: RandomState::new(),
        }
    }

    pub(crate) fn n_names(&self) -> usize {
        self.timers.len() + self.sets.len() + self.gauges.len() + self.counters.len()
    }

    /// Adds a line, under the name given.
    pub(crate) fn take(&mut self, name: &str, line: &Line<'_>, room: &mut Room) -> Taken {
        match line.kind {
            Kind::Counter => {
                let Some(counter) = find(&mut self.counters, name, 2, &mut self.n_reported, room) else {
                    return Taken::No;
                };
                line.numbers().for_each(|number| counter.add(number * line.weight));
            }
            Kind::Gauge => {
                let Some(gauge) = find(&mut self.gauges, name, 1, &mut self.n_reported, room) else {
                    return Taken::No;
                };
                for change in line.gauge_changes() {
                    let value = match change {
                        Change::To(value) => value,
                        Change::By(step) => *gauge + step,
                    };
                    // What is beyond all numbers would stay there.
                    *gauge = if value.is_finite() { value } else { *gauge };
                }
            }
            Kind::Timer => {
                let Some(timer) = find(&mut self.timers, name, 6, &mut self.n_reported, room) else {
                    return Taken::No;
                };
                // Each is counted, also behind one that found no room.
                let n_without_room = line.numbers().filter(|value| !timer.add(*value, line.weight, room)).count();
                if n_without_room > 0 {
                    return Taken::Partly;
                }
            }
            Kind::Set => {
                let Some(set) = find(&mut self.sets, name, 1, &mut self.n_reported, room) else { return Taken::No };
                let member = self.members.hash_one(line.member());
                if set.contains(&member) {
                    return Taken::Whole;
                }
                if set.len() == MAX_MEMBERS || room.values == 0 {
                    return Taken::Partly;
                }
                room.values -= 1;
                set.insert(member);
            }
        }
        Taken::Whole
    }

    /// The metrics of a tick, `elapsed` after the last one.
    pub(crate) fn tick(&mut self, elapsed: Duration) -> Vec<Metric> {
        let mut metrics = Vec::with_capacity(self.n_reported);
        // Of metrics of one name the server takes the last: what a plain counter says comes after a timer's count.
        for (name, timer) in &mut self.timers {
            timer.tick(name, elapsed, &mut metrics);
        }
        for (name, set) in &mut self.sets {
            metrics.push(metric(format!("{name}_unique"), set.len() as f64));
            // Not `clear`: the memory of the largest tick would be kept.
            *set = HashSet::new();
        }
        for (name, gauge) in &self.gauges {
            metrics.push(metric(name, *gauge));
        }
        for (name, counter) in &mut self.counters {
            counter.tick(name, elapsed, &mut metrics);
        }
        metrics
    }
}

/// The figure of that name, a new one if there is room for `n_metrics` more.
fn find<'a, T: Default>(
    entries: &'a mut BTreeMap<String, T>,
    name: &str,
    n_metrics: usize,
    n_reported: &mut usize,
    room: &mut Room,
) -> Option<&'a mut T> {
    if !entries.contains_key(name) {
        if room.names == 0 || *n_reported + n_metrics > MAX_METRICS {
            return None;
        }
        room.names -= 1;
        *n_reported += n_metrics;
        entries.insert(name.to_owned(), T::default());
    }
    entries.get_mut(name)
}

impl Counter {
    fn add(&mut self, value: f64) {
        // What is beyond all numbers would stay there.
        if (self.total + value).is_finite() && (self.recent + value).is_finite() {
            self.total += value;
            self.recent += value;
        }
    }

    fn tick(&mut self, name: &str, elapsed: Duration, metrics: &mut Vec<Metric>) {
        let shown = if self.was_reported { self.total } else { 0.0 };
        self.was_reported = true;
        metrics.push(metric(format!("{name}_count"), shown));
        metrics.push(metric(format!("{name}_rate"), std::mem::take(&mut self.recent) / elapsed.as_secs_f64()));
    }
}

impl Timer {
    /// Whether its value found room.
    fn add(&mut self, value: f64, weight: f64, room: &mut Room) -> bool {
        self.counter.add(weight);
        self.n_values += 1;
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        if self.values.len() < MAX_VALUES {
            if room.values == 0 {
                return false;
            }
            room.values -= 1;
            self.values.push(value);
            return true;
        }
        // Vitter's algorithm R.
        let at = rand::random_range(0..self.n_values);
        if let Some(place) = self.values.get_mut(at) {
            *place = value;
        }
        true
    }

    fn tick(&mut self, name: &str, elapsed: Duration, metrics: &mut Vec<Metric>) {
        let mut values = std::mem::take(&mut self.values);
        values.sort_unstable_by(f64::total_cmp);
        self.n_values = 0;
        for (end, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            if let Some(value) = nearest_rank(&values, quantile) {
                metrics.push(metric(format!("{name}_{end}"), value));
            }
        }
        if let Some(max) = self.max.take() {
            metrics.push(metric(format!("{name}_max"), max));
        }
        self.counter.tick(name, elapsed, metrics);
    }
}

/// The least value that at least this part of the sorted values does not exceed.
fn nearest_rank(sorted: &[f64], quantile: f64) -> Option<f64> {
    let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::statsd::parse::{Parsed, parse};

    const SECOND: Duration = Duration::from_secs(1);

    struct Service(Figures, Room);

    impl Service {
        fn new() -> Self {
            Self(Figures::new(), Room { names: 10_000, values: 100_000 })
        }

        fn send(&mut self, lines: &str) -> Taken {
            let mut last = Taken::Whole;
            for text in lines.split_whitespace() {
                let Parsed::Figures(line) = parse(text.as_bytes()) else { panic!("{text}") };
                last = self.0.take(line.name, &line, &mut self.1);
            }
            last
        }

        fn tick(&mut self, elapsed: Duration) -> String {
            let shown = |metric: Metric| format!("{}={}", metric.name, metric.value);
            self.0.tick(elapsed).into_iter().map(shown).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn a_counter_is_its_total_from_0_on_and_its_rate() {
        let mut service = Service::new();
        service.send("a:3|c a:2|c");
        assert_eq!(service.tick(SECOND), "a_count=0 a_rate=5");
        service.send("a:1|c|@0.25");
        assert_eq!(service.tick(2 * SECOND), "a_count=9 a_rate=2");
        assert_eq!(service.tick(SECOND), "a_count=9 a_rate=0");
    }

    #[test]
    fn a_gauge_keeps_its_last_value_and_moves_by_what_has_a_sign() {
        let mut service = Service::new();
        service.send("a:3|g a:+4|g a:-2|g b:-2|g");
        assert_eq!(service.tick(SECOND), "a=5 b=-2");
        assert_eq!(service.tick(SECOND), "a=5 b=-2");
    }

    #[test]
    fn a_value_beyond_all_numbers_does_no_lasting_harm() {
        let mut service = Service::new();
        service.send("a:1e308|c a:1e308|c a:1e308|c|@0.001 b:1e308|g b:+1e308|g");
        service.tick(SECOND);
        service.send("a:-1e308|c b:2|g");
        assert_eq!(service.tick(SECOND), format!("b=2 a_count=0 a_rate={}", -1e308));
    }

    #[test]
    fn a_timers_percentiles_are_those_of_the_tick() {
        let mut service = Service::new();
        for value in 1..=100 {
            service.send(&format!("a:{value}|ms"));
        }
        assert_eq!(service.tick(SECOND), "a_p50=50 a_p95=95 a_p99=99 a_max=100 a_count=0 a_rate=100");
        service.send("a:7|h|@0.5");
        assert_eq!(service.tick(SECOND), "a_p50=7 a_p95=7 a_p99=7 a_max=7 a_count=102 a_rate=2");
        assert_eq!(service.tick(SECOND), "a_count=102 a_rate=0", "no values, no percentiles");
    }

    #[test]
    fn a_set_counts_different_members_of_the_tick() {
        let mut service = Service::new();
        service.send("a:x|s a:y|s a:x|s");
        assert_eq!(service.tick(SECOND), "a_unique=2");
        assert_eq!(service.tick(SECOND), "a_unique=0");
    }

    #[test]
    fn more_values_than_are_kept_are_sampled_evenly() {
        let mut service = Service::new();
        for value in 0..20_000 {
            assert_eq!(service.send(&format!("a:{value}|ms")), Taken::Whole);
        }
        assert_eq!(service.1.values, 100_000 - MAX_VALUES);
        let metrics = service.0.tick(SECOND);
        let value = |name: &str| metrics.iter().find(|metric| metric.name == name).expect(name).value;
        assert!((8_500.0..11_500.0).contains(&value("a_p50")), "{metrics:?}");
        assert_eq!((value("a_max"), value("a_rate")), (19_999.0, 20_000.0));
    }

    #[test]
    fn a_report_never_has_more_metrics_than_the_server_takes() {
        let mut service = Service::new();
        let taken = |kind: &str, service: &mut Service| {
            (0..300).filter(|n| service.send(&format!("{kind}{n}:1|{kind}")) == Taken::Whole).count()
        };
        assert_eq!(taken("ms", &mut service), 42);
        assert_eq!(taken("c", &mut service), 2);
        assert_eq!(service.0.tick(SECOND).len(), MAX_METRICS);
    }

    #[test]
    fn without_room_for_values_a_timer_still_counts() {
        let mut service = Service::new();
        service.1.values = 1;
        assert_eq!(service.send("a:1|ms"), Taken::Whole);
        assert_eq!(service.send("a:9|ms"), Taken::Partly);
        assert_eq!(service.send("b:x|s"), Taken::Partly);
        assert_eq!(service.tick(SECOND), "a_p50=1 a_p95=1 a_p99=1 a_max=9 a_count=0 a_rate=2 b_unique=0");
    }
}
