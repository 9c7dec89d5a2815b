//! From the wire's reports to the pipeline's: validation, and names that are allocated once per stream.
//!
//! Agents go through the same instances in the same order, each with the same metrics in the same order. So each name is
//! held against the one that came next last time, and looked up only where it is another one.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use gopherwatch_proto::{
    DEFAULT_INSTANCE, MAX_METRICS, is_valid_name,
    wire::{self, Malformed},
};
use indexmap::{Equivalent, IndexMap, IndexSet};
use smallvec::SmallVec;

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
    /// The report being taken.
    wire: wire::Report,
    /// Every instance that the stream has named in a valid report.
    instances: IndexMap<Arc<InstanceKey>, Known, Seed>,
    /// The place of the instance whose report came last.
    last: usize,
    names: IndexSet<Name, Seed>,
}

/// Random, so that no sender can know which names collide.
type Seed = foldhash::fast::RandomState;

/// What is remembered of an instance.
#[derive(Debug, Default)]
struct Known {
    /// The place of the instance whose report came after this one's, the last time.
    next: usize,
    /// The places of its last report's metrics among the names.
    metrics: SmallVec<[u32; 4]>,
    /// Whether there is a name among them that comes twice.
    repeats: bool,
}

/// Whose a report is, as its text says.
struct Named<'a> {
    service: &'a [u8],
    instance: &'a [u8],
}

impl Hash for Named<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(InstanceKey::hash_of(self.service, self.instance));
    }
}

impl Equivalent<Arc<InstanceKey>> for Named<'_> {
    fn equivalent(&self, key: &Arc<InstanceKey>) -> bool {
        self.service == key.service().as_bytes() && self.instance == key.instance().as_bytes()
    }
}

/// Why a report is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It breaks a rule; the key is whose it was: a sign of life, if it names somebody.
    Report(Rejection, Option<Arc<InstanceKey>>),
    /// It is no report: the stream ends.
    Malformed(Malformed),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
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
            wire: wire::Report::default(),
            instances: IndexMap::default(),
            last: 0,
            names: IndexSet::default(),
        }
    }

    /// Every instance that the stream has named in a valid report.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<InstanceKey>> {
        self.instances.keys()
    }

    /// Reads and validates the report at `place` of the stream, which was read at `now`.
    pub(super) fn take(&mut self, message: &[u8], place: u64, now: Timestamp) -> Result<Item, Refused> {
        let mut report = std::mem::take(&mut self.wire);
        let taken = report.read(message).map_err(Refused::from).and_then(|()| self.report(&report, message, place, now));
        // What is refused for anything else must still be a report: its sender would not see otherwise what is wrong.
        let taken = match taken {
            Err(Refused::Report(..)) => report.check_names(message).map_err(Refused::from).and(taken),
            taken => taken,
        };
        self.wire = report;
        taken
    }

    fn report(&mut self, report: &wire::Report, message: &[u8], place: u64, now: Timestamp) -> Result<Item, Refused> {
        let service = match (report.service(message), &self.service_id) {
            ([], None) => return Err(Refused::Report(Rejection::NoService, None)),
            ([], Some(service_id)) => service_id.as_bytes(),
            (service, _) => service,
        };
        let instance = match report.instance(message) {
            [] => DEFAULT_INSTANCE.as_bytes(),
            instance => instance,
        };
        let named = Named { service, instance };
        let guess = self.instances.get_index(self.last).map_or(0, |(_, known)| known.next);
        let known = match self.instances.get_index(guess) {
            Some((key, _)) if named.equivalent(key) => Some(guess),
            _ => self.instances.get_index_of(&named),
        };
        let key = match known.and_then(|known| self.instances.get_index(known)) {
            Some((key, _)) => key.clone(),
            None => Arc::new(named.key().ok_or(Refused::Report(Rejection::BadName, None))?),
        };
        let refuse = |why| Err(Refused::Report(why, Some(key.clone())));
        if report.n_metrics() > MAX_METRICS {
            return refuse(Rejection::TooManyMetrics);
        }
        let at = match self.reading_time(report.time_unix_nano, now) {
            Ok(at) => at,
            Err(why) => return refuse(why),
        };
        if known.is_none() && self.instances.len() >= self.max_instances {
            return refuse(Rejection::InstanceCap);
        }
        let mut fresh = Known::default();
        let before = known.and_then(|known| self.instances.get_index_mut(known)).map_or(&mut fresh, |(_, known)| known);
        let metrics = match metrics(&mut self.names, before, report, message) {
            Ok(metrics) => metrics,
            Err(why) => return refuse(why),
        };
        let this = known.unwrap_or_else(|| self.instances.insert_full(key.clone(), fresh).0);
        if let Some((_, last)) = self.instances.get_index_mut(self.last) {
            last.next = this;
        }
        self.last = this;
        let wire::Report { time_unix_nano: wire_time, sequence, leaving, .. } = *report;
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

    /// Drops remembered names when they are too many, and the room of a report with too many metrics. Call between
    /// reports.
    pub(super) fn tidy(&mut self) {
        if self.names.len() > MAX_NAMES {
            self.names.clear();
            self.instances.values_mut().for_each(|known| known.metrics.clear());
        }
        self.wire.shrink(MAX_METRICS);
    }
}

impl Named<'_> {
    /// The key of this name; `None`: it is none that we take.
    fn key(&self) -> Option<InstanceKey> {
        let [service, instance] = [self.service, self.instance].map(|name| std::str::from_utf8(name).unwrap_or(""));
        (is_valid_name(service) && is_valid_name(instance)).then(|| InstanceKey::new(service, instance))
    }
}

/// The readings of a report, with the names of the stream. `before` is what its instance sent last, and becomes this.
fn metrics(
    names: &mut IndexSet<Name, Seed>,
    before: &mut Known,
    report: &wire::Report,
    message: &[u8],
) -> Result<Metrics, Rejection> {
    let mut metrics = Metrics::with_capacity(report.n_metrics());
    let mut is_as_before = before.metrics.len() == report.n_metrics();
    for (place, (text, value)) in report.metrics(message).enumerate() {
        if !value.is_finite() {
            return Err(Rejection::NotFinite);
        }
        let guess = before.metrics.get(place).and_then(|name| names.get_index(*name as usize));
        let name = match guess {
            Some(name) if name.as_bytes() == text => name.clone(),
            _ => {
                is_as_before = false;
                let (name_idx, name) = name_of(names, text).ok_or(Rejection::BadName)?;
                match before.metrics.get_mut(place) {
                    Some(before) => *before = name_idx,
                    None => before.metrics.push(name_idx),
                }
                name
            }
        };
        metrics.push((name, value));
    }
    if !is_as_before {
        before.metrics.truncate(report.n_metrics());
        before.repeats = has_repeats(&before.metrics);
    }
    if before.repeats {
        keep_last(&mut metrics);
    }
    Ok(metrics)
}

/// The stream's own copy of this name, and its place; `None`: it is no name that we take.
fn name_of(names: &mut IndexSet<Name, Seed>, text: &[u8]) -> Option<(u32, Name)> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some((name_idx, name)) = names.get_full(text) {
        return Some((name_idx as u32, name.clone()));
    }
    if !is_valid_name(text) {
        return None;
    }
    // Forgotten all at once, a stream of endless names is slow, not large. Not in the midst of a report: its names stay
    // equal by pointer.
    let name: Name = text.into();
    let (name_idx, _) = names.insert_full(name.clone());
    Some((name_idx as u32, name))
}

fn has_repeats(metrics: &[u32]) -> bool {
    let mut sorted: SmallVec<[u32; 16]> = metrics.into();
    sorted.sort_unstable();
    sorted.windows(2).any(|two| two[0] == two[1])
}

/// A metric that comes twice: the last one counts, where the first one was.
fn keep_last(metrics: &mut Metrics) {
    let mut kept = Metrics::new();
    for (name, value) in metrics.drain(..) {
        match kept.iter_mut().find(|(have, _)| Arc::ptr_eq(have, &name)) {
            Some((_, have)) => *have = value,
            None => kept.push((name, value)),
        }
    }
    *metrics = kept;
}

#[cfg(test)]
mod tests {
    use gopherwatch_proto::v1;
    use prost::Message as _;

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
        match intake.take(&report.encode_to_vec(), 0, NOW) {
            Ok(item) => Ok(item.report.expect("a report").at),
            Err(Refused::Report(why, _)) => Err(why),
            Err(Refused::Malformed(why)) => panic!("{why}"),
        }
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
