//! The same reports give the same events: with restarts or without, one by one or in batches, in one lane or several.
//!
//! What must come of them is told by the rules alone, in one go. What a server makes of them goes through a real journal
//! file, and through real lanes.

mod hostile;
mod lanes;
mod old;

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};
use slog::{Discard, Logger, o};
use tempfile::TempDir;

use super::*;
use crate::{
    health::Health,
    journal::{self, Journal, Running},
    model::{InstanceKey, Name, Readings, Row},
    rules::{Progress, Reading, evaluate, tests::cases, tests::language::Case, tests::play},
    state::Numbering,
    stats::Stats,
};

const EPOCH: u64 = 7;
/// When every report arrives: batches have one time of arrival, and the events are to be equal to the last field.
const RECEIVED: Timestamp = play::START;

/// Instances, each with rules of its own, and what they report.
struct Fleet {
    rules: String,
    instances: Vec<(Arc<InstanceKey>, Vec<Report>)>,
}

#[derive(Clone, Debug)]
struct Report {
    at: Timestamp,
    metrics: Vec<(Name, f64)>,
}

impl Fleet {
    fn new(cases: &[Case]) -> Self {
        let mut fleet = Self { rules: String::new(), instances: Vec::new() };
        for (n, case) in cases.iter().enumerate() {
            let mut case = case.clone();
            case.rules.iter_mut().for_each(|rule| rule.name = format!("{n}-{}", rule.name));
            let services = format!("[[rules]]\nservices = ['service-{n}']\n");
            fleet.rules += &case.toml().replace("[[rules]]\n", &services);
            let report = |report: &crate::rules::tests::language::Report| Report {
                at: Timestamp::from_nanos(report.at),
                metrics: report.metrics.iter().map(|(name, value)| (name.as_str().into(), *value)).collect(),
            };
            let key = Arc::new(InstanceKey::new(&format!("service-{n}"), "a"));
            fleet.instances.push((key, case.reports.iter().map(report).collect()));
        }
        fleet
    }

    /// What the rules make of the reports, one by one and without a break.
    fn told(&self) -> BTreeMap<Arc<InstanceKey>, Vec<Event>> {
        let rules = play::rules(&self.rules);
        let events = |(key, reports): &(Arc<InstanceKey>, Vec<Report>)| {
            let mut progress = Progress::new(rules.plan(key));
            let mut events = Vec::new();
            for (report, sequence) in reports.iter().zip(1..) {
                let metrics = Row::new(&report.metrics);
                let outcome = evaluate(&progress, &reading(key, report, metrics.readings(), sequence));
                events.extend(progress.apply(outcome, metrics.readings(), RECEIVED));
            }
            (key.clone(), events)
        };
        self.instances.iter().map(events).filter(|(_, events)| !events.is_empty()).collect()
    }
}

fn reading<'a>(key: &'a Arc<InstanceKey>, report: &Report, metrics: Readings<'a>, sequence: u64) -> Reading<'a> {
    Reading {
        key,
        metrics,
        at: report.at,
        wire_time: report.at.as_nanos().unsigned_abs(),
        received_at: RECEIVED,
        skew_nanos: 0,
        epoch: EPOCH,
        sequence,
    }
}

fn by_instance(events: impl IntoIterator<Item = Event>) -> BTreeMap<Arc<InstanceKey>, Vec<Event>> {
    let mut by_instance: BTreeMap<_, Vec<_>> = BTreeMap::new();
    events.into_iter().for_each(|event| by_instance.entry(event.alert.key.clone()).or_default().push(event));
    by_instance
}

/// How a server comes through the reports.
#[derive(Clone, Debug)]
struct Course {
    /// Reports that are evaluated in one batch; over and over again.
    batches: Vec<usize>,
    /// Behind which of the batches the instance is journaled though nothing has happened; over and over again.
    receipts: Vec<bool>,
    /// How far it comes before each crash, in thousandths of the reports.
    crashes: Vec<usize>,
}

fn course() -> impl Strategy<Value = Course> {
    (vec(1..6_usize, 1..8), vec(any::<bool>(), 1..6), vec(0..=1_000_usize, 0..4)).prop_map(
        |(batches, receipts, mut crashes)| {
            crashes.sort_unstable();
            Course { batches, receipts, crashes }
        },
    )
}

/// A server that takes the fleet's reports and crashes now and then. Agents then send all of their reports again.
fn run(fleet: &Fleet, course: &Course) -> BTreeMap<Arc<InstanceKey>, Vec<Event>> {
    let folder = folder();
    let options = journal::Options { data_dir: folder.path().to_owned(), max_bytes: 1 << 30, sinks: &["store"] };
    let ends = course.crashes.iter().copied().chain([1_000]);
    for (life, end) in ends.enumerate() {
        let mut server = Server::start(&options, &fleet.rules, life);
        for (key, reports) in &fleet.instances {
            server.take(key, &reports[..reports.len() * end / 1_000], course);
        }
        server.end();
    }
    let journal = Journal::open(&options).expect("a journal");
    let events = journal.reader().expect("a reader").read(0, usize::MAX >> 1).expect("readable");
    by_instance(events.into_iter().map(|recorded| recorded.event.expect("readable")))
}

/// In memory where there is such a place: it is the journal's own commits that wait for a disk, and there are thousands.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder")
}

struct Server {
    state: State,
    rules: RuleSet,
    journal: Running,
}

impl Server {
    /// As `app` starts one; each life later than the one before.
    fn start(options: &journal::Options, rules: &str, life: usize) -> Self {
        let now = RECEIVED.plus(std::time::Duration::from_secs(60 * life as u64));
        let journal = Journal::open(options).expect("a journal");
        let rules = play::rules(rules).succeeding(&journal.rules().expect("readable"), now);
        let state = State::new(1, 1_000);
        let mut restored = restore(journal.restore().expect("readable"), &rules, &state, now);
        assert!(restored.entry.is_empty(), "under the same rules a restart is no news");
        restored.entry.rules = Some(rules.records());
        let log = Logger::root(Discard, o!());
        let journal = journal.start(Arc::new(Stats::new()), Health::new(), &log).expect("a thread");
        journal.entries.send(restored.entry).expect("it runs");
        Self { state, rules, journal }
    }

    /// As a lane does (evaluate/batch.rs): events go to the journal with the instance as it is behind them.
    fn take(&mut self, key: &Arc<InstanceKey>, reports: &[Report], course: &Course) {
        let mut shard = self.state.shards_of_lane(0)[State::shard_in_lane(key)].write();
        let fresh = || InstanceState::new(key.clone(), self.rules.plan(key), Heard::default());
        let instance = shard.entry(key.clone()).or_insert_with(fresh);
        let mut reports = reports.iter().zip(1..);
        let (mut sizes, mut receipts) = (course.batches.iter().cycle(), course.receipts.iter().cycle());
        loop {
            let size = *sizes.next().expect("endless");
            let batch: Vec<(&Report, u64)> = reports.by_ref().take(size).collect();
            if batch.is_empty() {
                return;
            }
            let mut entry = Entry::default();
            for (report, sequence) in batch {
                let wire_time = report.at.as_nanos().unsigned_abs();
                if instance.marks.judge(EPOCH, sequence, wire_time) == Numbering::Duplicate {
                    continue;
                }
                let metrics = Row::new(&report.metrics);
                let outcome = evaluate(&instance.progress, &reading(key, report, metrics.readings(), sequence));
                instance.marks.advance(EPOCH, sequence, wire_time);
                instance.take_readings(metrics.readings(), report.at, Heard::default());
                instance.unsaved = true;
                entry.events.extend(instance.progress.apply(outcome, metrics.readings(), RECEIVED));
            }
            let receipt = *receipts.next().expect("endless");
            if !entry.events.is_empty() || receipt && instance.unsaved {
                entry.snapshots.push(Snapshot::of(instance));
                self.journal.entries.send(entry).expect("it runs");
            }
        }
    }

    /// What is not in the journal is gone.
    fn end(self) {
        drop(self.journal.entries);
        self.journal.thread.join().expect("no panic").expect("no failure");
    }
}

/// The events are those that the rules tell of; else says which was the first that is not.
fn agrees(fleet: &Fleet, events: &BTreeMap<Arc<InstanceKey>, Vec<Event>>) -> Result<(), TestCaseError> {
    let told = fleet.told();
    for (key, reports) in &fleet.instances {
        let (mut of_server, mut wanted) = (events.get(key).into_iter().flatten(), told.get(key).into_iter().flatten());
        for place in 0.. {
            let (event, wanted) = (of_server.next(), wanted.next());
            prop_assert_eq!(event, wanted, "event {} of {:?} {:?}\n{}", place, key, reports, fleet.rules);
            if event.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// One of the kinds of cases.
fn any_case() -> impl Strategy<Value = Case> {
    prop_oneof![cases::case(), cases::window_case(), cases::clock_case()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_reports_give_the_same_events_with_restarts_or_without(
        cases in vec(any_case(), 20),
        course in course(),
    ) {
        let fleet = Fleet::new(&cases);
        agrees(&fleet, &run(&fleet, &course))?;
    }
}

/// One instance that reports each second for so long that its windows are written in parts, written anew, and go into
/// buckets; each report is an event, whose value is the windows' to the last bit.
fn long(when: &str, n_reports: usize) -> Fleet {
    let rules = format!("[[rules]]\nname = 'long'\nwhen = '{when}'\nrecord = 'every'\n");
    let value = |n: usize| ((n * 7_919) % 1_013) as f64 / 8.0 + 0.1;
    let report = |n: usize| Report {
        at: play::START.plus(std::time::Duration::from_millis(1_000 * n as u64)),
        // Now and then a report without it, and one with something else.
        metrics: [("a", n % 11 != 3), ("b", n.is_multiple_of(5))]
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| (name.into(), value(n)))
            .collect(),
    };
    let instances = vec![(Arc::new(InstanceKey::new("web", "a")), (0..n_reports).map(report).collect())];
    Fleet { rules, instances }
}

#[test]
fn windows_are_restored_to_the_last_bit_however_long_they_are() {
    for (when, n_reports) in [
        ("sum(a, 10m) + stddev(a, 10m) > -1", 1_500),
        ("stddev(a, 24h) + avg(a, 30m) > -1", 3_000),
        ("rate(a, 24h) + sum(b, 1h) + max(a, 20m) > -1", 3_000),
    ] {
        let fleet = long(when, n_reports);
        let told = fleet.told();
        assert!(told.values().all(|events| events.len() > n_reports / 2), "{when}");
        for (batches, receipts, crashes) in [
            // Every report is a row of its own: 64 of them, then all anew.
            (vec![1], vec![true], vec![100, 333, 501, 900]),
            (vec![7, 20, 1], vec![false], vec![10, 20, 30, 40, 700]),
            // More readings at once than are kept one by one.
            (vec![1_200, 3], vec![false], vec![450, 999]),
        ] {
            let course = Course { batches, receipts, crashes };
            assert!(run(&fleet, &course) == told, "{when} {course:?}");
        }
    }
}

#[test]
fn points_that_caused_nothing_are_restored_as_well() {
    // Only the last report is an event: what it says is what the windows were through all the restarts.
    let mut fleet = long("count(a, 24h) + sum(a, 24h) / 1000000000 >= 2000", 2_200);
    fleet.rules = fleet.rules.replace("every", "episode");
    let told = fleet.told();
    assert_eq!(told.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    for batches in [vec![1], vec![13, 2], vec![1_100]] {
        for receipts in [vec![true], vec![false, false, true]] {
            let course = Course { batches: batches.clone(), receipts, crashes: vec![3, 100, 470, 500, 880] };
            assert!(run(&fleet, &course) == told, "{course:?}");
        }
    }
}

/// It used to say `-0` before and `0` after a restart, which was an update of the alert.
#[test]
fn a_restart_does_not_change_what_an_alert_says() {
    let mut fleet = long("a * -1 == 0", 2);
    fleet.instances[0].1.iter_mut().for_each(|report| report.metrics = vec![("a".into(), 0.0)]);
    fleet.rules = fleet.rules.replace("every", "episode");
    let course = Course { batches: vec![1], receipts: vec![true], crashes: vec![500] };
    assert_eq!(run(&fleet, &course), fleet.told());
}

/// Without this the properties above would hold of a journal that remembers nothing.
#[test]
fn a_crash_loses_what_is_not_in_the_journal() {
    let fleet = long("a > 1000", 10);
    let course = Course { batches: vec![1], receipts: vec![false], crashes: vec![] };
    let folder = folder();
    let options = journal::Options { data_dir: folder.path().to_owned(), max_bytes: 1 << 30, sinks: &["store"] };
    let (key, reports) = &fleet.instances[0];
    let mut server = Server::start(&options, &fleet.rules, 0);
    server.take(key, reports, &course);
    server.end();
    assert!(Journal::open(&options).expect("a journal").restore().expect("readable").is_empty());
}
