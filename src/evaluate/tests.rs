//! Lanes run for real here; the test stands in for ingest and for the journal.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, bounded};
use slog::{Discard, o};

use super::*;
use crate::{
    dispatch::{self, ByName, Dispatcher, Item, Packer, StreamAccount, Which, Whose},
    model::{Event, EventKind, Layout, ResolveReason},
    rules::{RuleSet, parse_file},
    state::{Heard, InstanceState, Presence, Status},
};

struct Fixture {
    state: Arc<State>,
    stats: Arc<Stats>,
    dispatcher: Option<Dispatcher>,
    lanes: Vec<JoinHandle<()>>,
    journal: Receiver<Entry>,
    runtime: tokio::runtime::Runtime,
}

const OPTIONS: Options = Options {
    stale_after: None,
    forget_after: Duration::from_secs(86_400),
    n_helpers: 2,
    max_forgotten: 10,
    max_batch: MAX_BATCH,
    parallel_from: PARALLEL_FROM,
};

impl Fixture {
    fn new(n_lanes: usize) -> Self {
        let stats = Arc::new(Stats::new());
        let state = Arc::new(State::new(n_lanes, 1_000));
        let rules = Arc::new(RuleSet::built_in(None));
        let (dispatcher, queues) =
            Dispatcher::new(dispatch::Options { n_lanes, queue_reports: 1 << 20 }, stats.clone());
        // The test reads it only after the lanes have ended: room for all they can say.
        let (entries, journal) = bounded(100_000);
        let log = Logger::root(Discard, o!());
        let lanes = start(OPTIONS, queues, (state.clone(), rules.clone()), entries, stats.clone(), &log);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Self {
            state,
            stats,
            dispatcher: Some(dispatcher),
            lanes: lanes.expect("threads"),
            journal,
            runtime: runtime.expect("a runtime"),
        }
    }

    /// Sends these reports of cpu_percent on one stream; returns its account.
    fn send(&self, epoch: u64, reports: &[(&Arc<InstanceKey>, u64, f64)]) -> Arc<StreamAccount> {
        let account = Arc::new(StreamAccount::new(epoch, None));
        let dispatcher = self.dispatcher.as_ref().expect("not ended yet");
        let n_lanes = self.state.n_lanes();
        let mut packed = ByName::new(n_lanes);
        for (n, part) in reports.chunks(dispatch::MAX_CHUNK).enumerate() {
            for (idx, (key, sequence, value)) in part.iter().enumerate() {
                let place = (n * dispatch::MAX_CHUNK + idx) as u64;
                let (wire_time, sequence, leaving) = (sequence * 1_000_000_000, *sequence, value.is_sign_negative());
                let item = Item { place, wire_time, sequence, leaving, ..Item::default() };
                packed.put(self.state.lane_of(key), key, item, &[("cpu_percent".into(), *value)]);
            }
            for lane_idx in 0..n_lanes {
                let chunk = packed.packer().chunk(lane_idx, &account, Timestamp::now(), Instant::now());
                let Some(chunk) = chunk else { continue };
                self.runtime.block_on(dispatcher.dispatch(lane_idx, chunk)).expect("room");
            }
        }
        account
    }

    /// Gives the lanes other rules, and waits until they hold.
    fn reload(&self, text: &str) {
        let dispatcher = self.dispatcher.as_ref().expect("not ended yet");
        let rules = parse_file(text, None).expect("valid").rules.unwrap_or_default();
        let rules = Arc::new(RuleSet::new(rules, "test".to_owned()));
        let places = dispatcher.control_places().expect("nobody else reloads");
        dispatcher.reload(&rules, places).expect("the lanes live");
        while dispatcher.control_places().is_none() {
            thread::yield_now();
        }
    }

    /// Ends the lanes; returns every event that reached the journal.
    fn end(&mut self) -> Vec<Event> {
        self.dispatcher = None;
        self.lanes.drain(..).for_each(|lane| lane.join().expect("no lane panics"));
        assert_eq!(self.stats.queued.get(), 0, "every report is decided (I4)");
        self.journal.try_iter().flat_map(|entry| entry.events).collect()
    }
}

fn key(name: &str) -> Arc<InstanceKey> {
    Arc::new(InstanceKey::new(name, "a"))
}

#[test]
fn an_instances_events_come_in_the_order_of_its_reports_however_the_work_is_shared() {
    let keys: Vec<_> = (0..40).map(|n| key(&format!("service-{n}"))).collect();
    // Each instance goes over and under the threshold by turns: every report is an event.
    let reports: Vec<_> = (1..=500)
        .flat_map(|sequence| keys.iter().map(move |key| (key, sequence, if sequence % 2 == 1 { 95.0 } else { 5.0 })))
        .collect();
    let mut seen = Vec::new();
    for n_lanes in [1, 2] {
        let mut fixture = Fixture::new(n_lanes);
        let account = fixture.send(1, &reports);
        let events = fixture.end();
        assert_eq!(account.summary().accepted, reports.len() as u64);
        assert_eq!(account.summary().alerts_raised, reports.len() as u64 / 2);
        let mut by_instance: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in events {
            by_instance.entry(event.alert.key.clone()).or_default().push((event.kind, event.alert.alert_id));
        }
        assert_eq!(by_instance.len(), keys.len());
        for events in by_instance.values() {
            assert_eq!(events.len(), 500);
            for pair in events.chunks(2) {
                assert_eq!((pair[0].0, pair[1].0), (EventKind::Raise, EventKind::Resolve));
                assert_eq!(pair[0].1, pair[1].1, "a resolve follows its own raise");
            }
        }
        seen.push(by_instance);
    }
    assert_eq!(seen[0], seen[1], "the number of lanes changes nothing");
}

/// Loose reports and those of a layout, before and after their stream has begun to number names anew: all wait in one batch.
#[test]
fn numbers_mean_what_the_stream_meant_by_them_then() {
    for n_instances in [1_u64, 40] {
        let mut fixture = Fixture::new(1);
        let account = Arc::new(StreamAccount::new(1, None));
        let keys: Vec<_> = (0..n_instances).map(|n| key(&format!("service-{n}"))).collect();
        let mut packer = Packer::new(1);
        let mut addresses = BTreeMap::new();
        let mut put = |packer: &mut Packer, sequence: u64, which: Which<'_>, values: &[f64]| {
            for (key, place) in keys.iter().zip(sequence * n_instances..) {
                let whose = addresses.get(key).map_or(Whose::New(0, key), |address| Whose::Known(*address));
                let item = Item { place, sequence, wire_time: sequence * 1_000_000_000, ..Item::default() };
                addresses.insert(key.clone(), packer.put(whose, item, which, values));
            }
        };
        let mut chunks = Vec::new();
        for (round, names) in [["cpu_percent", "a", "b"], ["b", "cpu_percent", "c"]].into_iter().enumerate() {
            let sequence = round as u64 * 3;
            let numbers = names.map(|name| packer.add_name(name.into()));
            let layout = packer.add_layout(Arc::new(Layout::new([names[2].into(), names[0].into()])));
            put(&mut packer, sequence + 1, Which::Loose(&numbers), &[1.0, 2.0, 3.0]);
            put(&mut packer, sequence + 2, Which::Layout(layout), &[4.0, 5.0]);
            put(&mut packer, sequence + 3, Which::Loose(&numbers[1..2]), &[95.0]);
            chunks.extend(packer.chunk(0, &account, Timestamp::now(), Instant::now()));
            packer.forget_names();
        }
        for chunk in chunks {
            let dispatcher = fixture.dispatcher.as_ref().expect("not ended yet");
            fixture.runtime.block_on(dispatcher.dispatch(0, chunk)).expect("room");
        }
        let events = fixture.end();
        assert_eq!(account.summary().accepted, 6 * n_instances);
        // cpu_percent is 1, 5, -; 2, - and then 95.
        assert_eq!(events.len(), keys.len(), "one alert of each");
        for view in fixture.state.view(|_| true) {
            let known: Vec<_> = view.metrics.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(known.join(" "), "cpu_percent=95 a=95 b=5 c=4");
        }
    }
}

#[test]
fn a_report_that_makes_evaluation_panic_is_refused_alone_and_not_taken_again() {
    let mut fixture = Fixture::new(1);
    let (bad, good) = (key("bad"), key("good"));
    fixture.send(1, &[(&bad, 1, 95.0)]);
    while fixture.stats.queued.get() > 0 {
        thread::yield_now();
    }
    // An alert that has had all the events there can be: a fault that no report makes, and that must not end a lane.
    {
        let mut shard = fixture.state.shards_of_lane(0)[State::shard_in_lane(&bad)].write();
        let firing = &mut shard.get_mut(&bad).expect("known").progress.firing[0];
        Arc::make_mut(&mut firing.alert).version = u32::MAX;
    }
    let second = fixture.send(1, &[(&bad, 2, 5.0), (&good, 1, 5.0), (&bad, 2, 5.0)]);
    let events = fixture.end();
    let summary = second.summary();
    assert_eq!((summary.accepted, summary.rejected, summary.duplicates), (1, 1, 1));
    assert_eq!(fixture.stats.evaluate_panics.get(), 1);
    assert_eq!(events.len(), 1, "the alert goes on firing");
}

#[test]
fn one_instance_too_many_is_refused_and_those_known_are_not() {
    let mut fixture = Fixture::new(2);
    let keys: Vec<_> = (0..1_001).map(|n| key(&format!("service-{n}"))).collect();
    let all: Vec<_> = keys.iter().map(|key| (key, 1, 5.0)).collect();
    let account = fixture.send(1, &all);
    let again: Vec<_> = keys.iter().map(|key| (key, 2, 5.0)).collect();
    let second = fixture.send(1, &again);
    fixture.end();
    assert_eq!((account.summary().accepted, account.summary().rejected), (1_000, 1));
    assert_eq!((second.summary().accepted, second.summary().rejected), (1_000, 1));
    assert_eq!(fixture.state.n_instances(), 1_000);
}

/// What a look at the lane of `key`, `seconds` after the start, does.
fn look(fixture: &Fixture, options: Options, start: Instant, seconds: u64) -> tick::Done {
    let heard: Heard = Hearing::starting(start).at(start + Duration::from_secs(seconds));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    tick::Look { state: &fixture.state, options: &options, heard, now: Timestamp::now() }.run(0, &pool)
}

#[test]
fn silence_is_raised_once_an_instance_that_used_to_report_stops() {
    let mut fixture = Fixture::new(1);
    let web = key("web");
    fixture.send(1, &[(&web, 1, 95.0)]);
    fixture.end();
    let start = Instant::now();
    arm(&fixture, &web, start);
    assert_eq!(look(&fixture, OPTIONS, start, 12 + 29).n_raised, 0);
    let done = look(&fixture, OPTIONS, start, 12 + 30);
    let raised = &done.events[0].alert;
    assert_eq!((done.n_raised, &*raised.metric, raised.value), (1, "absent", 30.0));
    assert_eq!(look(&fixture, OPTIONS, start, 12 + 31).n_raised, 0, "it fires already");
    let view = &fixture.state.view(|_| true)[0];
    assert!(view.stale, "and the alert that fired before goes on firing: no evidence, no resolve");
    assert_eq!((view.status, view.firing.len()), (Status::Critical, 2));
}

/// Three reports over twelve seconds.
fn arm(fixture: &Fixture, key: &Arc<InstanceKey>, start: Instant) {
    let hearing = Hearing::starting(start);
    let mut shard = fixture.state.shards_of_lane(0)[State::shard_in_lane(key)].write();
    let instance = shard.get_mut(key).expect("known");
    instance.silence = crate::state::Silence::starting(hearing.at(start));
    for seconds in [0, 6, 12] {
        instance.silence.heard_report(hearing.at(start + Duration::from_secs(seconds)));
    }
}

#[test]
fn an_instance_that_left_is_not_silent_and_is_forgotten_after_ten_minutes() {
    let mut fixture = Fixture::new(1);
    let web = key("web");
    fixture.send(1, &[(&web, 1, 95.0), (&web, 2, -1.0), (&web, 3, 95.0), (&web, 4, -1.0)]);
    let n_before = fixture.end().len();
    assert_eq!(n_before, 4);
    let start = Instant::now();
    arm(&fixture, &web, start);
    {
        let mut shard = fixture.state.shards_of_lane(0)[State::shard_in_lane(&web)].write();
        shard.get_mut(&web).expect("known").presence = Presence::Left(Heard::default());
    }
    assert_eq!(look(&fixture, OPTIONS, start, 599).events.len(), 0);
    assert_eq!(fixture.state.view(|_| true)[0].status, Status::Left);
    let done = look(&fixture, OPTIONS, start, 600);
    assert_eq!((done.events.len(), done.snapshots.len()), (0, 1));
    assert_eq!((fixture.state.view(|_| true).len(), fixture.state.n_instances()), (0, 0));
}

#[test]
fn an_instance_silent_for_long_is_forgotten_and_its_alerts_resolve() {
    let mut fixture = Fixture::new(1);
    let web = key("web");
    fixture.send(1, &[(&web, 1, 95.0)]);
    fixture.end();
    let options = Options { forget_after: Duration::from_secs(100), ..OPTIONS };
    let done = look(&fixture, options, Instant::now(), 3_600);
    let resolved = &done.events[0].alert;
    assert_eq!((done.firing_delta, resolved.resolve_reason), (-1, Some(ResolveReason::Forgotten)));
    assert!(fixture.state.active_alerts().is_empty());
}

#[test]
fn an_instance_that_comes_back_is_armed_anew_and_keeps_its_marks() {
    let mut fixture = Fixture::new(1);
    let web = key("web");
    fixture.send(1, &[(&web, 5, 5.0)]);
    let options = Options { forget_after: Duration::from_secs(100), ..OPTIONS };
    while fixture.stats.queued.get() > 0 {
        thread::yield_now();
    }
    look(&fixture, options, Instant::now(), 3_600);
    assert_eq!(fixture.state.n_instances(), 0);
    let resent = fixture.send(1, &[(&web, 5, 5.0)]);
    while fixture.stats.queued.get() > 0 {
        thread::yield_now();
    }
    assert_eq!((resent.summary().duplicates, fixture.state.n_instances()), (1, 0), "what it sent before is no news");
    let again = fixture.send(1, &[(&web, 5, 5.0), (&web, 6, 5.0)]);
    fixture.end();
    assert_eq!((again.summary().duplicates, again.summary().accepted), (1, 1));
    assert_eq!((fixture.state.n_instances(), fixture.state.view(|_| true).len()), (1, 1));
}

#[test]
fn what_fires_is_kept_however_many_are_forgotten() {
    let mut fixture = Fixture::new(1);
    let keys: Vec<_> = (0..400).map(|n| key(&format!("service-{n}"))).collect();
    // Every other one fires, and only the others are forgotten.
    let reports: Vec<_> = (0..).zip(&keys).map(|(n, key)| (key, 1, if n % 2 == 0 { 95.0 } else { 5.0 })).collect();
    fixture.send(1, &reports);
    fixture.end();
    for key in keys.iter().skip(1).step_by(2) {
        let mut shard = fixture.state.shards_of_lane(0)[State::shard_in_lane(key)].write();
        shard.get_mut(key).expect("known").presence = Presence::Forgotten(Heard::default());
    }
    let done = look(&fixture, Options { max_forgotten: 0, ..OPTIONS }, Instant::now(), 1);
    assert_eq!(done.snapshots.len(), 200, "of the forgotten ones there is no room for any");
    assert_eq!((fixture.state.active_alerts().len(), fixture.state.view(|_| true).len()), (200, 200));
}

/// It used to be whatever the table of instances came to last, and later whoever was forgotten last.
#[test]
fn where_there_is_no_room_for_all_that_are_forgotten_the_oldest_lose_their_marks() {
    let fixture = Fixture::new(1);
    let minute = |n: u64| Heard::after(Duration::from_secs(60 * n));
    // All of one shard, in another order than that in which they are forgotten.
    let keys = (0..).map(|n| key(&format!("service-{n}"))).filter(|key| State::shard_in_lane(key) == 0);
    let keys: Vec<_> = keys.take(6).collect();
    for (key, at) in keys.iter().zip([5, 1, 4, 2, 6, 3]) {
        let mut instance = InstanceState::new(key.clone(), Arc::default(), Heard::default());
        instance.presence = Presence::Forgotten(minute(at));
        instance.unsaved = false;
        fixture.state.restore(instance);
    }
    let done = look(&fixture, Options { max_forgotten: 3, ..OPTIONS }, Instant::now(), 1);
    let shard = fixture.state.shards_of_lane(0)[0].read();
    let kept: Vec<_> = keys.iter().map(|key| shard.contains_key(key)).collect();
    assert_eq!(kept, [true, false, true, false, true, false]);
    assert_eq!(done.snapshots.len(), 3, "the journal forgets them too");
}

/// Ids of such alerts used to begin at 1 again: the store took the new alert for the old one, and its row was lost.
#[test]
fn an_instance_forgotten_for_good_raises_under_new_ids() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut fixture = Fixture::new(1);
        fixture.send(0, &[(&key("web"), 0, 95.0)]);
        ids.push(fixture.end()[0].alert.alert_id);
    }
    assert_ne!(ids[0], ids[1]);
}

const CPU: &str = "[[rules]]\nname = \"cpu-high\"\nwhen = \"cpu_percent > 90\"\n";

#[test]
fn rules_change_at_one_point_of_an_instances_reports() {
    for n_lanes in [1, 2] {
        let mut fixture = Fixture::new(n_lanes);
        let keys: Vec<_> = (0..40).map(|n| key(&format!("service-{n}"))).collect();
        let reports = |sequence, value| keys.iter().map(move |key| (key, sequence, value)).collect::<Vec<_>>();
        fixture.send(1, &reports(1, 50.0));
        fixture.reload("[[rules]]\nname = \"lower\"\nwhen = \"cpu_percent > 40\"\nseverity = \"info\"\n");
        fixture.send(1, &reports(2, 50.0));
        fixture.reload("rules = []");
        fixture.send(1, &reports(3, 50.0));
        let events = fixture.end();
        let of = |kind| events.iter().filter(|event| event.kind == kind).collect::<Vec<_>>();
        let (raised, resolved) = (of(EventKind::Raise), of(EventKind::Resolve));
        assert_eq!((raised.len(), resolved.len(), events.len()), (40, 40, 80));
        // The second report raised, and not the first: it came before the rules.
        assert!(raised.iter().all(|event| event.alert.triggered_at == Timestamp::from_nanos(2_000_000_000)));
        assert!(resolved.iter().all(|event| event.alert.resolve_reason == Some(ResolveReason::RuleRemoved)));
        assert_eq!(fixture.stats.alerts_firing.get(), 0);
        assert_eq!(fixture.stats.evaluate_panics.get(), 0);
    }
}

#[test]
fn an_alert_goes_on_under_the_rule_of_its_name_wherever_that_stands() {
    let mut fixture = Fixture::new(1);
    let (web, db) = (key("web"), key("db"));
    fixture.send(1, &[(&web, 1, 95.0), (&db, 1, 95.0)]);
    // The same rule, now behind another one: nothing to tell.
    fixture.reload(&format!("[[rules]]\nname = \"other\"\nwhen = \"nothing > 1\"\n{CPU}"));
    // It looks at one of them only, and is worth less.
    fixture.reload(&format!("{CPU}severity = \"warning\"\nservices = [\"web\"]\nlabels = {{ team = \"a\" }}\n"));
    fixture.send(1, &[(&web, 2, 5.0)]);
    let events = fixture.end();
    let told: Vec<_> = events.iter().map(|e| (e.kind, e.alert.key.service(), e.alert.severity.as_str())).collect();
    assert_eq!(told[..2].iter().filter(|(kind, ..)| *kind == EventKind::Raise).count(), 2);
    let [update, resolve] = [("web", EventKind::Update), ("db", EventKind::Resolve)].map(|(service, kind)| {
        let found = events.iter().find(|e| e.kind == kind && e.alert.key.service() == service);
        found.expect("it is told").alert.clone()
    });
    assert_eq!((update.version, update.severity.as_str(), update.labels["team"].as_str()), (2, "warning", "a"));
    assert_eq!(resolve.resolve_reason, Some(ResolveReason::RuleRemoved));
    assert_eq!(told.last(), Some(&(EventKind::Resolve, "web", "warning")));
    let last = &events[events.len() - 1].alert;
    assert_eq!((last.alert_id, last.version), (update.alert_id, 3), "still the same alert");
    assert_eq!(events.len(), 5);
}

/// Many instances take the way over the pool.
#[test]
fn a_reload_of_many_instances_is_the_same_as_of_few() {
    let state = State::new(1, 10_000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
    let rules = RuleSet::built_in(None);
    for n in 0..5_000 {
        let mut instance = InstanceState::new(key(&format!("service-{n}")), Arc::default(), Heard::default());
        let _ = instance.adopt(&rules, Timestamp::now(), Heard::default());
        state.restore(instance);
    }
    let narrow = parse_file(&format!("{CPU}services = [\"service-1*\"]"), None).expect("valid").rules.expect("rules");
    let narrow = RuleSet::new(narrow, "test".to_owned());
    let done = reload::adopt(&state, &narrow, (Timestamp::now(), Heard::default()), 0, &pool);
    assert!(done.events.is_empty() && done.snapshots.is_empty(), "no alert fires");
    let shards = state.shards_of_lane(0);
    let n_watched: usize =
        shards.iter().map(|shard| shard.read().values().filter(|i| i.progress.plan.rules.len() == 1).count()).sum();
    assert_eq!(n_watched, 1_111);
}

#[test]
fn an_instance_forgotten_by_hand_keeps_its_marks_and_comes_back_when_it_reports() {
    let mut fixture = Fixture::new(1);
    let web = key("web");
    fixture.send(1, &[(&web, 5, 95.0)]);
    let dispatcher = fixture.dispatcher.clone().expect("not ended yet");
    for _ in 0..2 {
        let place = loop {
            if let Some(place) = dispatcher.control_place(0) {
                break place;
            }
        };
        let (receipt, _given) = Receipt::new();
        dispatcher.forget(0, web.clone(), place, receipt).expect("the lane lives");
    }
    let again = fixture.send(1, &[(&web, 5, 95.0), (&web, 6, 95.0)]);
    drop(dispatcher);
    let events = fixture.end();
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.alert.resolve_reason)).collect();
    let forgotten = (EventKind::Resolve, Some(ResolveReason::Forgotten));
    assert_eq!(told, [(EventKind::Raise, None), forgotten, (EventKind::Raise, None)]);
    assert_ne!(events[0].alert.alert_id, events[2].alert.alert_id);
    assert_eq!((again.summary().duplicates, again.summary().accepted), (1, 1));
    assert_eq!((fixture.stats.alerts_firing.get(), fixture.state.n_instances()), (1, 1));
}
