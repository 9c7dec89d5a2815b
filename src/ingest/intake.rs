//! From the wire's reports to the pipeline's: validation, and names that are told once per stream.
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
use indexmap::{Equivalent, IndexMap};
use smallvec::SmallVec;

use crate::{
    dispatch::{Address, Item, Names, Packer, Reading, Whose},
    model::{InstanceKey, Rejection, Timestamp},
    state::State,
};

/// 2000-01-01: a reading before it is of a wrong unit, or of a clock that was never set.
const EPOCH_2000: Timestamp = Timestamp::from_nanos(946_684_800 * 1_000_000_000);
/// 2038: where the database's TIMESTAMP ends. A clock that is past it was set wrong, whatever the server's says.
const END_OF_TIMESTAMP: Timestamp = Timestamp::from_nanos(2_145_916_800 * 1_000_000_000);
/// How far a reading may lie ahead of the server's clock.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);
/// Metric names remembered for a stream; one with more is made to allocate them anew.
const MAX_NAMES: usize = 16_384;

/// Takes the reports of one stream, and packs them.
pub(super) struct Intake {
    state: Arc<State>,
    packer: Packer,
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
}

/// Random, so that no sender can know which names collide.
type Seed = foldhash::fast::RandomState;

/// What is remembered of an instance.
#[derive(Debug, Default)]
struct Known {
    /// The place of the instance whose report came after this one's, the last time.
    next: usize,
    address: Address,
    /// The numbers of its last report's metrics.
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
        state: Arc<State>,
        service_id: Option<String>,
        skew_nanos: Option<i64>,
        retention: Option<Duration>,
        max_instances: usize,
    ) -> Self {
        Self {
            packer: Packer::new(state.n_lanes()),
            state,
            service_id,
            skew_nanos: skew_nanos.unwrap_or(0),
            retention,
            max_instances,
            wire: wire::Report::default(),
            instances: IndexMap::default(),
            last: 0,
        }
    }

    /// Every instance that the stream has named in a valid report.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Arc<InstanceKey>> {
        self.instances.keys()
    }

    /// What it has packed.
    pub(super) fn packer(&mut self) -> &mut Packer {
        &mut self.packer
    }

    /// Reads, validates and packs the report at `place` of the stream, which was read at `now`.
    pub(super) fn take(&mut self, message: &[u8], place: u64, now: Timestamp) -> Result<(), Refused> {
        let mut report = std::mem::take(&mut self.wire);
        let taken =
            report.read(message).map_err(Refused::from).and_then(|()| self.report(&report, message, place, now));
        // What is refused for anything else must still be a report: its sender would not see otherwise what is wrong.
        let taken = match taken {
            Err(Refused::Report(..)) => report.check_names(message).map_err(Refused::from).and(taken),
            taken => taken,
        };
        self.wire = report;
        taken
    }

    fn report(&mut self, report: &wire::Report, message: &[u8], place: u64, now: Timestamp) -> Result<(), Refused> {
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
        let this = match self.instances.get_index(guess) {
            Some((key, _)) if named.equivalent(key) => Some(guess),
            _ => self.instances.get_index_of(&named),
        };
        let judged = self.judge(report, now);
        let wire::Report { time_unix_nano: wire_time, sequence, leaving, .. } = *report;
        let item = Item { leaving, place, wire_time, sequence, ..Item::default() };
        let this = match this.and_then(|this| Some((this, self.instances.get_index_mut(this)?))) {
            Some((this, (key, known))) => {
                let whose = Whose::Known(known.address);
                let fill = |readings: &mut _, names: &mut _| known.read(report, message, readings, names);
                let packed = judged.and_then(|()| self.packer.put(whose, item, fill));
                packed.map_err(|why| Refused::Report(why, Some(key.clone())))?;
                this
            }
            None => {
                let key = Arc::new(named.key().ok_or(Refused::Report(Rejection::BadName, None))?);
                let room = if self.instances.len() < self.max_instances { Ok(()) } else { Err(Rejection::InstanceCap) };
                let mut known = Known::default();
                let fill = |readings: &mut _, names: &mut _| known.read(report, message, readings, names);
                let whose = Whose::New(self.state.lane_of(&key), &key);
                let packed = judged.and(room).and_then(|()| self.packer.put(whose, item, fill));
                match packed {
                    Ok(address) => self.instances.insert_full(key, Known { address, ..known }).0,
                    Err(why) => return Err(Refused::Report(why, Some(key))),
                }
            }
        };
        if let Some((_, last)) = self.instances.get_index_mut(self.last) {
            last.next = this;
        }
        self.last = this;
        Ok(())
    }

    /// Whether a report may be taken whoever it is of.
    fn judge(&self, report: &wire::Report, now: Timestamp) -> Result<(), Rejection> {
        if report.n_metrics() > MAX_METRICS {
            return Err(Rejection::TooManyMetrics);
        }
        self.check_time(report.time_unix_nano, now)
    }

    fn check_time(&self, wire_time: u64, now: Timestamp) -> Result<(), Rejection> {
        if wire_time == 0 {
            return Ok(());
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
        Ok(())
    }

    /// Forgets names when they are too many, and the room of a report with too many metrics. Call between chunks.
    pub(super) fn tidy(&mut self) {
        if self.packer.n_names() > MAX_NAMES {
            self.packer.forget_names();
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

impl Known {
    /// Adds the readings of a report of this instance, each metric once.
    fn read(
        &mut self,
        report: &wire::Report,
        message: &[u8],
        readings: &mut Vec<Reading>,
        names: &mut Names,
    ) -> Result<(), Rejection> {
        let first = readings.len();
        let mut is_as_before = self.metrics.len() == report.n_metrics();
        for (place, (text, value)) in report.metrics(message).enumerate() {
            if !value.is_finite() {
                return Err(Rejection::NotFinite);
            }
            let guess = self.metrics.get(place).copied();
            let number = match guess {
                Some(guess) if names.get_index(guess as usize).is_some_and(|name| name.as_bytes() == text) => guess,
                _ => {
                    is_as_before = false;
                    let number = number_of(names, text).ok_or(Rejection::BadName)?;
                    match self.metrics.get_mut(place) {
                        Some(before) => *before = number,
                        None => self.metrics.push(number),
                    }
                    number
                }
            };
            readings.push((number, value));
        }
        if !is_as_before {
            self.metrics.truncate(report.n_metrics());
            self.repeats = has_repeats(&self.metrics);
        }
        if self.repeats {
            keep_last(readings, first);
        }
        Ok(())
    }
}

/// The number of this name; `None`: it is no name that we take.
fn number_of(names: &mut Names, text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    let place = match names.get_index_of(text) {
        Some(place) => place,
        None if is_valid_name(text) => names.insert_full(text.into()).0,
        None => return None,
    };
    u32::try_from(place).ok()
}

fn has_repeats(metrics: &[u32]) -> bool {
    let mut sorted: SmallVec<[u32; 16]> = metrics.into();
    sorted.sort_unstable();
    sorted.windows(2).any(|two| two[0] == two[1])
}

/// A metric that comes twice from `first` on: the last one counts, where the first one was.
fn keep_last(readings: &mut Vec<Reading>, first: usize) {
    let mut end = first;
    for place in first..readings.len() {
        let (number, value) = readings[place];
        match readings[first..end].iter_mut().find(|(have, _)| *have == number) {
            Some((_, have)) => *have = value,
            None => {
                readings[end] = (number, value);
                end += 1;
            }
        }
    }
    readings.truncate(end);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use gopherwatch_proto::v1;
    use prost::Message as _;

    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const DAY: i64 = 86_400 * 1_000_000_000;

    /// What becomes of a report of this time from an agent whose clock is ahead by `skew` nanoseconds.
    fn judged(time: i64, skew: i64) -> Result<Timestamp, Rejection> {
        let state = Arc::new(State::new(1, 10));
        let mut intake = Intake::new(state, None, Some(skew), Some(Duration::from_secs(90 * 86_400)), 10);
        let report = v1::MetricReport {
            service_name: "web".to_owned(),
            time_unix_nano: time.unsigned_abs(),
            ..v1::MetricReport::default()
        };
        match intake.take(&report.encode_to_vec(), 0, NOW) {
            Ok(()) => {
                let chunk = intake.packer().chunk(0, &Arc::default(), NOW, Instant::now()).expect("a report");
                Ok(chunk.time_of(&chunk.items[0]))
            }
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
