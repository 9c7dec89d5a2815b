//! A service's counters and gauges: atomics that it changes, and their readings.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gopherwatch_proto::v1::Metric;
use gopherwatch_proto::{MAX_METRICS, is_valid_name};

use crate::client::locked;
use crate::mapping::counter_stem;

/// Counts what happens. Clones count together; none of them waits for anything.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// It happened `n` times more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// A value that goes up and down. Clones are the same gauge; none of them waits for anything.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<AtomicU64>);

impl Default for Gauge {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(f64::NAN.to_bits())))
    }
}

impl Gauge {
    /// It is `value` now. One that is not finite is not reported, as if there were none.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Why a metric cannot be reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The server would refuse the report.
    #[error("{0:?} is no name: 1 to 128 of A-Z a-z 0-9 _ . : / - that begin with a letter or digit")]
    Invalid(String),
    /// The server takes no more of one instance.
    #[error("the server takes {MAX_METRICS} metrics of an instance; a counter is two")]
    TooMany,
    /// A counter and a gauge would be reported under one name.
    #[error("{0:?} is already reported, by a counter or gauge of another name")]
    Taken(String),
}

/// All that a service reports of itself.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the name before `_count` and `_rate`.
    counters: BTreeMap<String, Counted>,
    gauges: BTreeMap<String, Gauge>,
    /// When they were read last.
    read: Option<Instant>,
}

#[derive(Debug, Default)]
struct Counted {
    counter: Counter,
    /// The total in the last report, and when that was.
    last: Option<(u64, Instant)>,
}

impl Metrics {
    pub(crate) fn counter(&self, name: &str) -> Result<Counter, NameError> {
        let mut known = locked(&self.known);
        let stem = counter_stem(name);
        if let Some(counted) = known.counters.get(stem) {
            return Ok(counted.counter.clone());
        }
        if !is_valid_name(name) {
            return Err(NameError::Invalid(name.to_owned()));
        }
        known.check(&count_of(stem))?;
        known.check(&rate_of(stem))?;
        known.room_for(2)?;
        let counter = Counter::default();
        known.counters.insert(stem.to_owned(), Counted { counter: counter.clone(), last: None });
        Ok(counter)
    }

    pub(crate) fn gauge(&self, name: &str) -> Result<Gauge, NameError> {
        let mut known = locked(&self.known);
        if let Some(gauge) = known.gauges.get(name) {
            return Ok(gauge.clone());
        }
        known.check(name)?;
        known.room_for(1)?;
        let gauge = Gauge::default();
        known.gauges.insert(name.to_owned(), gauge.clone());
        Ok(gauge)
    }

    /// The readings of now: totals, rates since the last time, and the gauges that are set. A counter is 0 in its first
    /// report, unless that is the last one: `increase()` needs a reading from before the first value.
    pub(crate) fn read(&self, now: Instant, is_last: bool) -> Vec<Metric> {
        let mut known = locked(&self.known);
        let mut metrics = Vec::with_capacity(known.n_reported());
        let before = known.read.replace(now);
        for (stem, counted) in &mut known.counters {
            let total = counted.counter.0.load(Ordering::Relaxed);
            let shown = if counted.last.is_some() || is_last { total } else { 0 };
            metrics.push(Metric { name: count_of(stem), value: shown as f64 });
            // One that was made since the last reading was at 0 then.
            let last = counted.last.or(before.map(|at| (0, at)));
            if let Some((last_total, at)) = last {
                let rate = total.wrapping_sub(last_total) as f64 / (now - at).as_secs_f64();
                metrics.push(Metric { name: rate_of(stem), value: rate });
            }
            // Without a rate so far, the next one has it all.
            counted.last = Some((if last.is_some() { total } else { 0 }, now));
        }
        metrics.extend(known.gauges.iter().map(|(name, gauge)| Metric { name: name.clone(), value: gauge.value() }));
        metrics.retain(|metric| metric.value.is_finite());
        metrics
    }
}

impl Known {
    fn n_reported(&self) -> usize {
        2 * self.counters.len() + self.gauges.len()
    }

    fn room_for(&self, n_metrics: usize) -> Result<(), NameError> {
        if self.n_reported() + n_metrics > MAX_METRICS { Err(NameError::TooMany) } else { Ok(()) }
    }

    /// Whether a metric may be reported as `name`.
    fn check(&self, name: &str) -> Result<(), NameError> {
        if !is_valid_name(name) {
            return Err(NameError::Invalid(name.to_owned()));
        }
        let mut stems = ["_count", "_rate"].into_iter().filter_map(|end| name.strip_suffix(end));
        if self.gauges.contains_key(name) || stems.any(|stem| self.counters.contains_key(stem)) {
            return Err(NameError::Taken(name.to_owned()));
        }
        Ok(())
    }
}

fn count_of(stem: &str) -> String {
    format!("{stem}_count")
}

fn rate_of(stem: &str) -> String {
    format!("{stem}_rate")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(metrics: &Metrics, now: Instant) -> Vec<(String, f64)> {
        metrics.read(now, false).into_iter().map(|metric| (metric.name, metric.value)).collect()
    }

    fn pairs(readings: &[(&str, f64)]) -> Vec<(String, f64)> {
        readings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn a_counter_is_its_total_and_from_the_second_report_on_its_rate() {
        let metrics = Metrics::default();
        let requests = metrics.counter("requests").expect("a name");
        let began = Instant::now();
        assert_eq!(read(&metrics, began), pairs(&[("request_count", 0.0)]));
        requests.add(3);
        metrics.counter("http_requests_total").expect("the same counter").add(4);
        let readings = read(&metrics, began + Duration::from_secs(2));
        assert_eq!(readings, pairs(&[("request_count", 7.0), ("request_rate", 3.5)]));
        let readings = read(&metrics, began + Duration::from_secs(3));
        assert_eq!(readings, pairs(&[("request_count", 7.0), ("request_rate", 0.0)]));
    }

    #[test]
    fn a_gauge_is_reported_once_it_is_set_to_a_number() {
        let metrics = Metrics::default();
        let gauge = metrics.gauge("queue_length").expect("a name");
        for (value, readings) in [(None, &[][..]), (Some(17.0), &[("queue_length", 17.0)]), (Some(f64::NAN), &[])] {
            value.into_iter().for_each(|value| gauge.set(value));
            assert_eq!(read(&metrics, Instant::now()), pairs(readings), "{value:?}");
        }
    }

    #[test]
    fn names_that_the_server_would_refuse_are_refused() {
        let metrics = Metrics::default();
        let long = "x".repeat(124);
        for bad in ["", "a b", "_a", "é"] {
            assert_eq!(metrics.gauge(bad).err(), Some(NameError::Invalid(bad.into())));
            assert_eq!(metrics.counter(bad).err(), Some(NameError::Invalid(bad.into())));
        }
        assert!(metrics.gauge(&long).is_ok());
        assert!(matches!(metrics.counter(&long), Err(NameError::Invalid(_))), "with _count it is too long");
    }

    #[test]
    fn a_name_is_reported_once() {
        let metrics = Metrics::default();
        assert!(metrics.counter("orders").is_ok() && metrics.gauge("orders").is_ok());
        assert_eq!(metrics.gauge("orders_rate").err(), Some(NameError::Taken("orders_rate".into())));
        assert!(metrics.gauge("request_count").is_ok());
        assert_eq!(metrics.counter("requests").err(), Some(NameError::Taken("request_count".into())));
    }

    /// Its first events used to be in no rate and no increase.
    #[test]
    fn what_a_counter_that_is_made_late_counts_first_is_in_its_rate_and_in_the_increase() {
        let metrics = Metrics::default();
        let began = Instant::now();
        assert_eq!(read(&metrics, began), []);
        metrics.counter("errors").expect("a name").add(1);
        let second = |n| began + Duration::from_secs(n);
        assert_eq!(read(&metrics, second(1)), pairs(&[("error_count", 0.0), ("error_rate", 1.0)]));
        assert_eq!(read(&metrics, second(2)), pairs(&[("error_count", 1.0), ("error_rate", 0.0)]));
    }

    #[test]
    fn what_is_counted_before_the_first_report_is_in_the_second() {
        let metrics = Metrics::default();
        let began = Instant::now();
        metrics.counter("errors").expect("a name").add(1);
        assert_eq!(read(&metrics, began), pairs(&[("error_count", 0.0)]));
        let readings = read(&metrics, began + Duration::from_secs(2));
        assert_eq!(readings, pairs(&[("error_count", 1.0), ("error_rate", 0.5)]));
    }

    #[test]
    fn what_is_counted_before_an_early_end_is_in_the_only_report() {
        let metrics = Metrics::default();
        metrics.counter("orders").expect("a name").add(5);
        let only = metrics.read(Instant::now(), true).into_iter().map(|metric| (metric.name, metric.value));
        assert_eq!(only.collect::<Vec<_>>(), pairs(&[("orders_count", 5.0)]));
    }

    #[test]
    fn as_many_metrics_as_the_server_takes_and_no_more() {
        let metrics = Metrics::default();
        for n in 0..127 {
            assert!(metrics.counter(&format!("c{n}")).is_ok());
        }
        assert!(metrics.gauge("g0").is_ok());
        assert_eq!(metrics.counter("one_more").err(), Some(NameError::TooMany));
        assert!(metrics.gauge("g1").is_ok());
        assert_eq!(metrics.gauge("g2").err(), Some(NameError::TooMany));
        assert!(metrics.counter("c5").is_ok(), "those that are known stay known");
    }
}
