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
/// Metric names remembered for a stream; one with more is made to tell them anew. The last report may go past it.
const MAX_NAMES: usize = 16_384;
/// Metrics of a report up to which the instance's own order of them is remembered; of larger ones, the last report's.
const MAX_OWN_ORDER: usize = 32;

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
    /// Of the last report with more metrics than an instance's own order has.
    long_order: Order,
}

/// Over the keys' own hashes. Who makes names that collide in them has a slow stream, of no more instances than one may
/// have.
type Seed = foldhash::fast::RandomState;

/// What is remembered of an instance.
#[derive(Debug, Default)]
struct Known {
    /// The place of the instance whose report came after this one's, the last time.
    next: usize,
    address: Address,
    order: Order,
}

/// The metrics of a report, as the next one is likely to have them.
#[derive(Debug, Default)]
struct Order {
    /// Their numbers.
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
            long_order: Order::default(),
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
        let long_order = (report.n_metrics() > MAX_OWN_ORDER).then_some(&mut self.long_order);
        let this = match this.and_then(|this| Some((this, self.instances.get_index_mut(this)?))) {
            Some((this, (key, known))) => {
                let whose = Whose::Known(known.address);
                let order = long_order.unwrap_or(&mut known.order);
                let fill = |readings: &mut _, names: &mut _| order.read(report, message, readings, names);
                let packed = judged.and_then(|()| self.packer.put(whose, item, fill));
                packed.map_err(|why| Refused::Report(why, Some(key.clone())))?;
                this
            }
            None => {
                let key = Arc::new(named.key().ok_or(Refused::Report(Rejection::BadName, None))?);
                let room = if self.instances.len() < self.max_instances { Ok(()) } else { Err(Rejection::InstanceCap) };
                let mut known = Known::default();
                let order = long_order.unwrap_or(&mut known.order);
                let fill = |readings: &mut _, names: &mut _| order.read(report, message, readings, names);
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

    /// Whether names are to be forgotten before more reports come.
    pub(super) fn is_full(&self) -> bool {
        self.packer.n_names() > MAX_NAMES
    }

    /// Forgets names when they are too many, and the room of a report with too many metrics. Call between chunks, before
    /// waiting for more: a stream may be idle for long.
    pub(super) fn tidy(&mut self) {
        if self.is_full() {
            self.packer.forget_names();
            self.long_order = Order::default();
            self.instances.values_mut().for_each(|known| known.order = Order::default());
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

impl Order {
    /// Adds the readings of a report, each metric once.
    fn read(
        &mut self,
        report: &wire::Report,
        message: &[u8],
        readings: &mut Vec<Reading>,
        names: &mut Names,
    ) -> Result<(), Rejection> {
        let read = self.follow(report, message, readings, names);
        if read.is_err() {
            // Half of it is this report's, whose names have no numbers: nothing is guessed from it.
            *self = Self::default();
        }
        read
    }

    fn follow(
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

    /// Takes reports of these metrics, one after the other; what came of each, as lanes read it.
    fn taken(intake: &mut Intake, reports: &[&[(&str, f64)]]) -> Vec<Result<String, Rejection>> {
        let mut results = Vec::new();
        for metrics in reports {
            let metrics = metrics.iter().map(|(name, value)| v1::Metric { name: (*name).to_owned(), value: *value });
            let report = v1::MetricReport {
                service_name: "web".to_owned(),
                metrics: metrics.collect(),
                ..v1::MetricReport::default()
            };
            results.push(match intake.take(&report.encode_to_vec(), 0, NOW) {
                Ok(()) => Ok(read(intake)),
                Err(Refused::Report(why, _)) => Err(why),
                Err(Refused::Malformed(why)) => panic!("{why}"),
            });
        }
        results
    }

    fn read(intake: &mut Intake) -> String {
        let chunk = intake.packer().chunk(0, &Arc::default(), NOW, Instant::now()).expect("a report");
        chunk.told.names.learn(chunk.news.names.iter().cloned());
        let names = chunk.told.names.known();
        let readings = chunk.readings_of(&chunk.items[0]).iter();
        readings.map(|(number, value)| format!("{}={value}", names[*number as usize])).collect::<Vec<_>>().join(" ")
    }

    fn intake() -> Intake {
        Intake::new(Arc::new(State::new(1, 10)), None, None, None, 10)
    }

    /// The order of its metrics was remembered half, and without that one of them came twice.
    #[test]
    fn a_report_refused_half_way_leaves_nothing_behind() {
        let reports: [&[_]; 4] = [
            &[("cpu", 1.0), ("mem", 2.0)],
            &[("cpu", 1.0), ("cpu", 1.0), ("x", f64::NAN)],
            &[("cpu", 1.0), ("cpu", 95.0)],
            &[("cpu", 1.0), ("no name", 95.0)],
        ];
        let mut intake = intake();
        let seen = taken(&mut intake, &reports);
        let expected = [Ok("cpu=1 mem=2"), Err(Rejection::NotFinite), Ok("cpu=95"), Err(Rejection::BadName)];
        assert_eq!(seen, expected.map(|seen| seen.map(str::to_owned)));
        assert_eq!(intake.packer.n_names(), 2, "names of refused reports are not kept");
    }

    #[test]
    fn names_that_are_too_many_begin_anew_and_mean_what_they_say_before_and_after() {
        let mut intake = intake();
        let mut n_anew = 0;
        for round in 0..260 {
            let names: Vec<_> = (0..MAX_METRICS).map(|n| format!("m-{round}-{n}")).collect();
            // Long and short reports by turns: their order is remembered in different places.
            for n_metrics in [MAX_METRICS, 3, MAX_METRICS, 3] {
                let metrics: Vec<_> = names[..n_metrics].iter().map(|name| (name.as_str(), 0.5)).collect();
                let expected: Vec<_> = names[..n_metrics].iter().map(|name| format!("{name}=0.5")).collect();
                assert_eq!(taken(&mut intake, &[&metrics]), [Ok(expected.join(" "))]);
                n_anew += u32::from(intake.is_full());
                intake.tidy();
                assert!(intake.packer.n_names() <= MAX_NAMES);
            }
        }
        // 66,560 names: the 65th report is the first to go past 16,384, and every 65th from there.
        assert_eq!(n_anew, 4);
    }

    #[test]
    fn one_order_is_not_held_against_anothers_and_the_last_of_a_name_counts_in_the_place_of_the_first() {
        let reports: [&[_]; 6] = [
            &[("a", 1.0), ("b", 2.0), ("a", 3.0)],
            &[("a", 4.0), ("b", 5.0), ("a", 6.0)],
            &[("b", 7.0), ("a", 8.0)],
            &[("b", 9.0), ("b", 10.0)],
            &[],
            &[("a", 11.0), ("b", 12.0)],
        ];
        let seen = taken(&mut intake(), &reports).into_iter().map(|seen| seen.expect("valid")).collect::<Vec<_>>();
        assert_eq!(seen, ["a=3 b=2", "a=6 b=5", "b=7 a=8", "b=10", "", "a=11 b=12"]);
    }
}
