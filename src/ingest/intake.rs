//! From the wire's reports to the pipeline's: validation, and names that are told once per stream.
//!
//! Agents go through the same instances in the same order. So each report is held against the instance that came next
//! the last time, and looked up only where it is another's.

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

use super::layouts::Layouts;
use crate::{
    dispatch::{Address, Item, Packer, Whose},
    model::{InstanceKey, Rejection, Timestamp},
    state::State,
};

/// 2000-01-01: a reading before it is of a wrong unit, or of a clock that was never set.
const EPOCH_2000: Timestamp = Timestamp::from_nanos(946_684_800 * 1_000_000_000);
/// 2038: where the database's TIMESTAMP ends. A clock that is past it was set wrong, whatever the server's says.
const END_OF_TIMESTAMP: Timestamp = Timestamp::from_nanos(2_145_916_800 * 1_000_000_000);
/// How far a reading may lie ahead of the server's clock.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);
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
    layouts: Layouts,
    /// The values of the report being taken.
    values: Vec<f64>,
}

/// Over the keys' own hashes. Who makes names that collide in them has a slow stream, of no more instances than one may
/// have.
type Seed = foldhash::fast::RandomState;

/// What is remembered of an instance.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The place of the instance whose report came after this one's, the last time.
    next: u32,
    /// The number of its last report's layout.
    layout: u32,
    /// The number of the last metric of its last report that had none.
    last_loose: Option<u32>,
    address: Address,
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
            layouts: Layouts::default(),
            values: Vec::new(),
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
        self.wire.begin(message)?;
        let mut this = self.find(message);
        let before = this.map_or_else(|| self.known(self.last), |this| self.known(this)).layout;
        // A metric whose key is written at greater length than it need be has been read already.
        let expected = match self.wire.n_metrics() {
            0 => self.layouts.expected(before, self.wire.rest(message), &mut self.values),
            _ => None,
        };
        if expected.is_none() && self.wire.finish(message)? {
            this = self.find(message);
        }
        let taken = self.report(message, this, expected, place, now);
        // What is refused for anything else must still be a report: its sender would not see otherwise what is wrong.
        match taken {
            Err(Refused::Report(..)) => self.wire.check_names(message).map_err(Refused::from).and(taken),
            taken => taken,
        }
    }

    /// Whose the report is, as far as it has been read.
    fn named<'a>(&'a self, message: &'a [u8]) -> Option<Named<'a>> {
        let service = match (self.wire.service(message), &self.service_id) {
            ([], None) => return None,
            ([], Some(service_id)) => service_id.as_bytes(),
            (service, _) => service,
        };
        let instance = match self.wire.instance(message) {
            [] => DEFAULT_INSTANCE.as_bytes(),
            instance => instance,
        };
        Some(Named { service, instance })
    }

    /// The place of the instance whose the report is, if the stream has named it before.
    fn find(&self, message: &[u8]) -> Option<usize> {
        let named = self.named(message)?;
        let guess = self.known(self.last).next as usize;
        match self.instances.get_index(guess) {
            Some((key, _)) if named.equivalent(key) => Some(guess),
            _ => self.instances.get_index_of(&named),
        }
    }

    /// What is known of the instance at this place.
    fn known(&self, place: usize) -> Known {
        self.instances.get_index(place).map_or_else(Known::default, |(_, known)| *known)
    }

    /// Packs a report of the instance at the place `this`, or of a new one.
    fn report(
        &mut self,
        message: &[u8],
        this: Option<usize>,
        expected: Option<u32>,
        place: u64,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let wire::Report { time_unix_nano: wire_time, sequence, leaving, .. } = self.wire;
        let item = Item { leaving, place, wire_time, sequence, ..Item::default() };
        let judged = self.judge(now);
        let this = match this {
            Some(this) => {
                let before = self.known(this);
                let layout = judged.and_then(|()| self.layout(message, expected, before));
                let layout = layout.map_err(|why| Refused::Report(why, self.key(this)))?;
                self.packer.put(Whose::Known(before.address), item, self.layouts.which(layout), &self.values);
                let last_loose = if layout.is_none() { self.layouts.last_loose() } else { before.last_loose };
                let layout = layout.unwrap_or(before.layout);
                self.instances[this] = Known { layout, last_loose, ..before };
                this
            }
            None => {
                let named = self.named(message).ok_or(Refused::Report(Rejection::NoService, None))?;
                let key = Arc::new(named.key().ok_or(Refused::Report(Rejection::BadName, None))?);
                let room = if self.instances.len() < self.max_instances { Ok(()) } else { Err(Rejection::InstanceCap) };
                let layout = judged
                    .and(room)
                    .and_then(|()| self.layout(message, expected, Known { layout: u32::MAX, ..Known::default() }));
                let layout = layout.map_err(|why| Refused::Report(why, Some(key.clone())))?;
                let whose = Whose::New(self.state.lane_of(&key), &key);
                let address = self.packer.put(whose, item, self.layouts.which(layout), &self.values);
                self.instances.insert_full(key, Known { layout: layout.unwrap_or(0), address, ..Known::default() }).0
            }
        };
        if let Some((_, last)) = self.instances.get_index_mut(self.last) {
            last.next = u32::try_from(this).unwrap_or(0);
        }
        self.last = this;
        Ok(())
    }

    fn key(&self, place: usize) -> Option<Arc<InstanceKey>> {
        self.instances.get_index(place).map(|(key, _)| key.clone())
    }

    /// The number of the report's layout, `None` if it is loose, and its values in that order.
    fn layout(&mut self, message: &[u8], expected: Option<u32>, before: Known) -> Result<Option<u32>, Rejection> {
        let layout = match expected {
            Some(expected) => Some(expected),
            None => self.layouts.of(&self.wire, message, &mut self.values, &mut self.packer, before.last_loose)?,
        };
        if !self.values.iter().all(|value| value.is_finite()) {
            return Err(Rejection::NotFinite);
        }
        self.layouts.follows(before.layout, layout);
        self.layouts.keep_last(layout, &mut self.values);
        Ok(layout)
    }

    /// Whether a report may be taken whoever it is of.
    fn judge(&self, now: Timestamp) -> Result<(), Rejection> {
        if self.wire.n_metrics() > MAX_METRICS {
            return Err(Rejection::TooManyMetrics);
        }
        self.check_time(self.wire.time_unix_nano, now)
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
        self.layouts.is_full()
    }

    /// Forgets names when they are too many, and the room of a report with too many metrics. Call between chunks, before
    /// waiting for more: a stream may be idle for long.
    pub(super) fn tidy(&mut self) {
        if self.is_full() {
            self.packer.forget_names();
            // What is remembered of them elsewhere are guesses.
            self.layouts = Layouts::default();
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use gopherwatch_proto::v1;
    use prost::Message as _;

    use super::{super::layouts::MAX_NAMES, *};
    use crate::{dispatch::Metrics, model::Readings};

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
        chunk.told.layouts.learn(chunk.news.layouts.iter().cloned(), &Arc::default());
        chunk.told.names.learn(chunk.news.names.iter().cloned());
        let (layouts, names) = (chunk.told.layouts.known(), chunk.told.names.known());
        let loose: Vec<_> = chunk.loose.iter().map(|number| &names[*number as usize]).collect();
        let readings = match chunk.items[0].metrics {
            Metrics::Layout(number) => layouts[number as usize].readings(&chunk.values),
            Metrics::Loose { .. } => Readings::loose(&loose, &chunk.values),
        };
        readings.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    fn intake() -> Intake {
        Intake::new(Arc::new(State::new(1, 10)), None, None, None, 10)
    }

    /// The order of its metrics was remembered half, and without that one of them came twice.
    #[test]
    fn a_report_refused_half_way_leaves_nothing_behind() {
        let reports: [&[_]; 6] = [
            &[("cpu", 1.0), ("mem", 2.0)],
            &[("cpu", 1.0), ("cpu", 1.0), ("x", f64::NAN)],
            &[("cpu", 1.0), ("cpu", 95.0)],
            &[("cpu", 1.0), ("no name", 95.0)],
            &[("mem", 1.0), ("cpu", f64::INFINITY)],
            &[("cpu", 1.0), ("mem", f64::NAN)],
        ];
        let mut intake = intake();
        let seen = taken(&mut intake, &reports);
        let [first, third] = [Ok("cpu=1 mem=2"), Ok("cpu=95")];
        let [bad, infinite] = [Err(Rejection::BadName), Err(Rejection::NotFinite)];
        let expected = [first, infinite, third, bad, infinite, infinite];
        assert_eq!(seen, expected.map(|seen| seen.map(str::to_owned)));
        assert_eq!(intake.layouts.len(), 2, "nor their layouts");
        assert_eq!(intake.layouts.n_names(), 2, "names of refused reports are not kept");
    }

    /// The rest of the report was as expected, and what stood before it was passed over.
    #[test]
    fn a_metric_written_in_an_unusual_way_before_the_expected_ones_counts() {
        let mut intake = intake();
        assert_eq!(taken(&mut intake, &[&[("memory", 1.0)]]), [Ok("memory=1".to_owned())]);
        let metric = |name: &str, value| v1::Metric { name: name.to_owned(), value }.encode_to_vec();
        let (cpu, memory) = (metric("cpu", 99.0), metric("memory", 10.0));
        let length = |metric: &[u8]| u8::try_from(metric.len()).expect("short");
        // Field 5 by a key of two bytes, then as everybody writes it.
        let unusual = [&[0xaa, 0, length(&cpu)], &*cpu].concat();
        let message = [b"\x0a\x03web", &*unusual, &[0x2a, length(&memory)], &*memory].concat();
        assert!(intake.take(&message, 0, NOW).is_ok());
        assert_eq!(read(&mut intake), "cpu=99 memory=10");
    }

    #[test]
    fn a_stream_of_very_many_combinations_says_of_each_report_what_it_has() {
        let mut intake = intake();
        let names: Vec<_> = (0..40).map(|n| format!("m{n}")).collect();
        for (first, second) in (0..40).flat_map(|first| (0..40).map(move |second| (first, second))) {
            let metrics = [("cpu", 1.0), (&*names[first], 2.0), (&*names[second], 3.0)];
            let expected =
                if first == second { format!("cpu=1 m{first}=3") } else { format!("cpu=1 m{first}=2 m{second}=3") };
            assert_eq!(taken(&mut intake, &[&metrics]), [Ok(expected)]);
        }
        assert_eq!((intake.layouts.len(), intake.layouts.n_loose()), (256, 1_600 - 256));
    }

    #[test]
    fn names_that_are_too_many_begin_anew_and_mean_what_they_say_before_and_after() {
        let mut intake = intake();
        let mut n_anew = 0;
        for round in 0..260 {
            let names: Vec<_> = (0..MAX_METRICS).map(|n| format!("m-{round}-{n}")).collect();
            // Long and short reports by turns: each new combination is another one, and after the first ones loose.
            for n_metrics in [MAX_METRICS, 3, MAX_METRICS, 3] {
                let metrics: Vec<_> = names[..n_metrics].iter().map(|name| (name.as_str(), 0.5)).collect();
                let expected: Vec<_> = names[..n_metrics].iter().map(|name| format!("{name}=0.5")).collect();
                assert_eq!(taken(&mut intake, &[&metrics]), [Ok(expected.join(" "))]);
                n_anew += u32::from(intake.is_full());
                intake.tidy();
                assert!(intake.layouts.n_names() <= MAX_NAMES);
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
