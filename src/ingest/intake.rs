//! From the wire's reports to the pipeline's: validation, and names that are allocated once per stream.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use gopherwatch_proto::{DEFAULT_INSTANCE, MAX_METRICS, is_valid_name, v1};

use crate::{
    dispatch::{Item, Report},
    model::{InstanceKey, Metrics, Name, Rejection, Timestamp},
};

/// 2000-01-01: a reading before it is of a wrong unit, or of a clock that was never set.
const EPOCH_2000: Timestamp = Timestamp::from_nanos(946_684_800 * 1_000_000_000);
/// 2038: where the database's TIMESTAMP ends. A clock that is past it was set wrong, whatever the server's says.
const END_OF_TIMESTAMP: Timestamp = Timestamp::from_nanos(2_145_916_800 * 1_000_000_000);
/// How far a reading may lie ahead of the server's clock.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);
/// Metric names remembered for a stream; one with more is made to allocate them anew.
const MAX_NAMES: usize = 16_384;

/// Takes the reports of one stream.
pub(super) struct Intake {
    service_id: Option<String>,
    skew_nanos: i64,
    retention: Option<Duration>,
    max_instances: usize,
    n_instances: usize,
    instances: Names<Names<Arc<InstanceKey>>>,
    names: Names<Name>,
    /// The names of the last report that had so many: an agent repeats them in the same order.
    names_by_place: Vec<Name>,
}

/// By name. The seed is random, so that no sender can know which names collide.
type Names<T> = HashMap<String, T, foldhash::fast::RandomState>;

/// A refused report.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why.
    pub(super) why: Rejection,
    /// Whose it was: a sign of life, if it names somebody.
    pub(super) key: Option<Arc<InstanceKey>>,
}

impl Intake {
    pub(super) fn new(
        service_id: Option<String>,
        skew_nanos: Option<i64>,
        retention: Option<Duration>,
        max_instances: usize,
    ) -> Self {
        Self {
            service_id,
            skew_nanos: skew_nanos.unwrap_or(0),
            retention,
            max_instances,
            n_instances: 0,
            instances: Names::default(),
            names: Names::default(),
            names_by_place: Vec::new(),
        }
    }

    /// Every instance that the stream has named in a valid report.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<InstanceKey>> {
        self.instances.values().flat_map(HashMap::values)
    }

    /// Validates the report at `place` of the stream, which was read at `now`.
    pub(super) fn take(&mut self, report: v1::MetricReport, place: u64, now: Timestamp) -> Result<Item, Refused> {
        let refuse = |why, key| Err(Refused { why, key });
        let service = match (report.service_name.as_str(), &self.service_id) {
            ("", None) => return refuse(Rejection::NoService, None),
            ("", Some(service_id)) => service_id.as_str(),
            (service, _) => service,
        };
        let instance = if report.instance.is_empty() { DEFAULT_INSTANCE } else { report.instance.as_str() };
        let known = self.instances.get(service).and_then(|instances| instances.get(instance)).cloned();
        if known.is_none() && !(is_valid_name(service) && is_valid_name(instance)) {
            return refuse(Rejection::BadName, None);
        }
        let is_new = known.is_none();
        // Called once: each clone is a write to a count that lanes write as well.
        let key = || known.unwrap_or_else(|| Arc::new(InstanceKey::new(service, instance)));
        if report.metrics.len() > MAX_METRICS {
            return refuse(Rejection::TooManyMetrics, Some(key()));
        }
        let at = match self.reading_time(report.time_unix_nano, now) {
            Ok(at) => at,
            Err(why) => return refuse(why, Some(key())),
        };
        if is_new && self.n_instances >= self.max_instances {
            return refuse(Rejection::InstanceCap, Some(key()));
        }
        let key = key();
        let metrics = match self.metrics(report.metrics) {
            Ok(metrics) => metrics,
            Err(why) => return refuse(why, Some(key)),
        };
        if is_new {
            self.n_instances += 1;
            let instances = self.instances.entry(key.service().to_owned()).or_default();
            instances.insert(key.instance().to_owned(), key.clone());
        }
        let (wire_time, sequence, leaving) = (report.time_unix_nano, report.sequence, report.leaving);
        Ok(Item { key, place, report: Some(Report { metrics, at, wire_time, sequence, leaving }) })
    }

    fn reading_time(&self, wire_time: u64, now: Timestamp) -> Result<Timestamp, Rejection> {
        if wire_time == 0 {
            return Ok(now);
        }
        let bare = Timestamp::from_wire(wire_time).ok_or(Rejection::TooNew)?;
        if bare >= END_OF_TIMESTAMP {
            return Err(Rejection::TooNew);
        }
        if bare < EPOCH_2000 {
            return Err(Rejection::TooOld);
        }
        let ours = bare.shifted(self.skew_nanos.saturating_neg());
        if ours > now.plus(MAX_AHEAD) {
            return Err(Rejection::TooNew);
        }
        if self.retention.is_some_and(|retention| now.since(ours) > retention) {
            return Err(Rejection::TooOld);
        }
        Ok(bare)
    }

    fn metrics(&mut self, wire: Vec<v1::Metric>) -> Result<Metrics, Rejection> {
        let mut metrics = Metrics::with_capacity(wire.len());
        for (place, v1::Metric { name, value }) in wire.into_iter().enumerate() {
            if !value.is_finite() {
                return Err(Rejection::NotFinite);
            }
            let name = match self.names_by_place.get(place) {
                Some(last) if **last == *name => last.clone(),
                _ => self.name_at(place, name).ok_or(Rejection::BadName)?,
            };
            // A metric that comes twice: the last one counts. Equal names of one stream are one allocation.
            match metrics.iter_mut().find(|(have, _)| Arc::ptr_eq(have, &name)) {
                Some((_, have)) => *have = value,
                None => metrics.push((name, value)),
            }
        }
        Ok(metrics)
    }

    /// The shared name, remembered for the same place in the next report; `None`: it is none that we take.
    fn name_at(&mut self, place: usize, name: String) -> Option<Name> {
        let name = self.name(name)?;
        match self.names_by_place.get_mut(place) {
            Some(last) => *last = name.clone(),
            None => self.names_by_place.push(name.clone()),
        }
        Some(name)
    }

    fn name(&mut self, name: String) -> Option<Name> {
        match self.names.entry(name) {
            Entry::Occupied(known) => Some(known.get().clone()),
            Entry::Vacant(fresh) => {
                if !is_valid_name(fresh.key()) {
                    return None;
                }
                let name: Name = fresh.key().as_str().into();
                fresh.insert(name.clone());
                // Forgotten all at once, a stream of endless names is slow, not large. Not in the midst of a report:
                // its names stay equal by pointer.
                Some(name)
            }
        }
    }

    /// Drops remembered names when they are too many. Call between reports.
    pub(super) fn tidy(&mut self) {
        if self.names.len() > MAX_NAMES {
            self.names.clear();
            self.names_by_place.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const DAY: i64 = 86_400 * 1_000_000_000;

    /// What becomes of a report of this time from an agent whose clock is ahead by `skew` nanoseconds.
    fn judged(time: i64, skew: i64) -> Result<Timestamp, Rejection> {
        let mut intake = Intake::new(None, Some(skew), Some(Duration::from_secs(90 * 86_400)), 10);
        let report = v1::MetricReport {
            service_name: "web".to_owned(),
            time_unix_nano: time.unsigned_abs(),
            ..v1::MetricReport::default()
        };
        let taken = intake.take(report, 0, NOW).map_err(|refused| refused.why)?;
        Ok(taken.report.expect("a report").at)
    }

    #[test]
    fn a_reading_must_lie_between_the_retention_and_five_minutes_ahead_by_the_servers_clock() {
        let now = NOW.as_nanos();
        assert_eq!(judged(now, 0), Ok(NOW));
        assert_eq!(judged(0, 0), Ok(NOW), "no time: the server's");
        let minutes = |n: i64| n * 60 * 1_000_000_000;
        assert!(judged(now + minutes(5), 0).is_ok());
        assert_eq!(judged(now + minutes(6), 0), Err(Rejection::TooNew));
        assert!(judged(now + minutes(60), minutes(60)).is_ok(), "a clock that is ahead is known to be");
        assert!(judged(now - 89 * DAY, 0).is_ok());
        assert_eq!(judged(now - 91 * DAY, 0), Err(Rejection::TooOld));
        assert_eq!(judged(now / 1_000_000_000, 0), Err(Rejection::TooOld), "seconds for nanoseconds");
    }

    /// MySQL refused such a row, for ever, and every later one behind it.
    #[test]
    fn a_time_that_no_database_column_holds_is_refused_however_the_agents_clock_is_set() {
        let in_2050 = 2_524_608_000 * 1_000_000_000;
        assert_eq!(judged(in_2050, in_2050 - NOW.as_nanos()), Err(Rejection::TooNew));
    }
}
