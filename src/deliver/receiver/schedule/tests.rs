//! The schedule, stepped by hand in invented time.

mod chance;

use std::collections::BTreeMap;

use super::*;
use crate::model::{EventKind, InstanceKey, LifeEvent, RaiseId, ResolveReason, Severity};

/// A schedule, its journal and its clock.
struct Stepped {
    schedule: Schedule,
    now: Now,
    seq: u64,
}

impl Stepped {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(send_resolved: bool) -> Self {
        let options = Options { name: "ops".into(), send_resolved, n_at_once: 4, seed: 7 };
        let now = Now { instant: Instant::now(), time: Timestamp::from_nanos(1_800_000_000_000_000_000) };
        let mut schedule = Schedule::new(options, 100, Ahead::default());
        schedule.caught_up(true);
        Self { schedule, now, seq: 100 }
    }

    fn passes(&mut self, span: Duration) {
        self.now = Now { instant: self.now.instant + span, time: self.now.time.plus(span) };
    }

    /// The next event of the journal; its number.
    fn event(&mut self, kind: EventKind, alert: &Alert) -> u64 {
        self.seq += 1;
        let event = Event { kind, alert: Arc::new(alert.clone()) };
        self.schedule.read(self.seq, self.now.time, &event, self.now);
        self.seq
    }

    fn raise(&mut self, alert: &Alert) -> u64 {
        self.event(EventKind::Raise, alert)
    }

    fn resolve(&mut self, alert: &Alert) -> u64 {
        self.event(EventKind::Resolve, &resolved(alert))
    }

    /// Everything that may begin now.
    fn begin(&mut self) -> Vec<Task> {
        std::iter::from_fn(|| self.schedule.begin(self.now)).collect()
    }

    fn finish(&mut self, task: &Task, outcome: Outcome) {
        self.schedule.finished(task, outcome, self.now);
    }

    /// Begins and does whatever may begin, until nothing is left to do now; what was told.
    fn tell(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let tasks = self.begin();
            if tasks.is_empty() {
                return told;
            }
            for task in tasks {
                told.push(words(&task));
                self.finish(&task, Outcome::Done);
            }
        }
    }
}

/// `raise a`, or `digest a b +3`.
fn words(task: &Task) -> String {
    let Notification { occasion, alerts, n_more, .. } = &*task.notification;
    let mut text = occasion.as_str().to_owned();
    alerts.iter().for_each(|alert| text += &format!(" {}", alert.rule));
    if *n_more > 0 {
        text += &format!(" +{n_more}");
    }
    text
}

fn alert(rule: &str) -> Alert {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let id = RaiseId::Counter(1).alert_id(&key, rule);
    let at = Timestamp::from_nanos(1_800_000_000_000_000_000);
    Alert {
        alert_id: id,
        episode_id: id,
        key,
        rule: rule.into(),
        metric: "cpu_percent".into(),
        value: 95.0,
        threshold: None,
        severity: Severity::Critical,
        labels: Arc::new(BTreeMap::new()),
        summary: String::new(),
        runbook_url: None,
        receivers: None,
        evidence: None,
        life: vec![LifeEvent { kind: EventKind::Raise, at, by: None, value: None }],
        late: false,
        triggered_at: at,
        received_at: at,
        resolved_at: None,
        resolve_reason: None,
        last_value: 95.0,
        version: 1,
    }
}

fn late(rule: &str) -> Alert {
    Alert { late: true, ..alert(rule) }
}

fn resolved(alert: &Alert) -> Alert {
    alert.resolved(alert.triggered_at, ResolveReason::Cleared, None)
}

fn retry(after: Option<u64>) -> Outcome {
    Outcome::Retry { after: after.map(Duration::from_secs), why: "it said no".to_owned() }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_alert_is_told_in_order_and_others_beside_it() {
    let mut it = Stepped::new();
    let (a, b) = (alert("a"), alert("b"));
    it.raise(&a);
    it.resolve(&a);
    it.raise(&b);
    let tasks = it.begin();
    assert_eq!(tasks.iter().map(words).collect::<Vec<_>>(), ["raise a", "raise b"]);
    it.finish(&tasks[1], Outcome::Done);
    assert_eq!(it.schedule.position(), 100, "the first of all is not done yet");
    it.finish(&tasks[0], Outcome::Done);
    assert_eq!(it.schedule.position(), 101);
    assert_eq!(it.tell(), ["resolve a"]);
    assert_eq!((it.schedule.position(), it.schedule.n_open()), (103, 0));
}

#[test]
fn no_more_is_under_way_than_allowed_and_no_more_read_than_fits() {
    let mut it = Stepped::new();
    for n in 0..MAX_WAITING {
        assert!(it.schedule.room() > 0);
        it.raise(&alert(&n.to_string()));
    }
    assert_eq!(it.schedule.room(), 0);
    let tasks = it.begin();
    assert_eq!((tasks.len(), it.schedule.n_under_way()), (4, 4));
    it.finish(&tasks[0], Outcome::Done);
    assert_eq!((it.begin().len(), it.schedule.room()), (1, 1));
}

#[test]
fn what_is_not_for_this_receiver_is_passed_by() {
    let mut it = Stepped::with(false);
    let mine = Alert { receivers: Some(["ops".into(), "chat".into()].into()), ..alert("mine") };
    let others = Alert { receivers: Some(["chat".into()].into()), ..alert("others") };
    let nobodys = Alert { receivers: Some([].into()), ..alert("nobodys") };
    let mut told = Vec::new();
    for alert in [&mine, &others, &nobodys] {
        it.raise(alert);
        it.event(EventKind::Update, alert);
        it.event(EventKind::Record, alert);
        told.extend(it.tell());
        it.event(EventKind::Repeat, alert);
        told.extend(it.tell());
        it.resolve(alert);
        told.extend(it.tell());
    }
    assert_eq!(told, ["raise mine", "repeat mine"], "resolves are not wanted");
    assert_eq!(it.schedule.position(), it.seq);
}

#[test]
fn keys_stay_the_same_for_the_same_and_differ_for_everything_else() {
    let mut it = Stepped::new();
    let a = alert("a");
    let mut keys = Vec::new();
    for kind in [EventKind::Raise, EventKind::Repeat, EventKind::Repeat, EventKind::Resolve] {
        it.event(kind, &if kind == EventKind::Resolve { resolved(&a) } else { a.clone() });
        let task = it.begin().remove(0);
        keys.push(task.notification.key.clone());
        it.finish(&task, Outcome::Done);
    }
    let id = a.alert_id;
    let expected = [
        format!("{id}-1-raise"),
        format!("{id}-1-repeat-102"),
        format!("{id}-1-repeat-103"),
        format!("{id}-2-resolve"),
    ];
    assert_eq!(keys, expected);
}

#[test]
fn a_receiver_that_fails_is_left_alone_longer_and_longer() {
    let mut it = Stepped::new();
    let first = it.raise(&alert("a"));
    let mut waits = Vec::new();
    for _ in 0..9 {
        let task = it.begin().remove(0);
        it.finish(&task, retry(None));
        assert!(it.begin().is_empty());
        let wake = it.schedule.wake_at().expect("it is tried again");
        waits.push(wake.duration_since(it.now.instant).as_secs_f64());
        it.passes(wake.duration_since(it.now.instant));
    }
    for (wait, full) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        // Job and receiver wait each with a jitter of their own, and the longer one counts.
        assert!((full * 0.5..=full).contains(wait), "{waits:?}");
    }
    assert_eq!(it.schedule.failing().map(|failing| failing.why.as_str()), Some("it said no"));
    assert_eq!(it.schedule.position(), first - 1);
    assert_eq!(it.tell(), ["raise a"]);
    assert!(it.schedule.failing().is_none());
    assert_eq!(it.schedule.position(), first);
}

#[test]
fn a_wish_to_be_left_alone_is_heeded_for_all() {
    let mut it = Stepped::new();
    it.raise(&alert("a"));
    let task = it.begin().remove(0);
    it.raise(&alert("b"));
    it.finish(&task, retry(Some(300)));
    it.passes(SECOND * 299);
    assert!(it.begin().is_empty());
    it.passes(SECOND);
    assert_eq!(it.tell().len(), 2);
}

#[test]
fn one_at_a_time_finds_out_whether_it_works_again() {
    let mut it = Stepped::new();
    for rule in ["a", "b", "c", "d", "e", "f"] {
        it.raise(&alert(rule));
    }
    for task in it.begin() {
        it.finish(&task, retry(None));
    }
    let wake = it.schedule.wake_at().expect("it is tried again");
    assert!(wake <= it.now.instant + SECOND, "four that failed at once count once");
    it.passes(SECOND);
    let probe = it.begin();
    assert_eq!(probe.len(), 1);
    assert_eq!(it.schedule.wake_at(), None, "its outcome is waited for");
    it.finish(&probe[0], Outcome::Done);
    assert_eq!(it.begin().len(), 4);
}

/// One failure in fifty used to hold the whole receiver for up to a second, each time.
#[test]
fn a_receiver_that_fails_now_and_then_is_told_on() {
    let mut it = Stepped::new();
    let mut n_told = 0;
    for n in 0..1_000 {
        it.raise(&alert(&n.to_string()));
        for (place, task) in it.begin().into_iter().enumerate() {
            let fails = n % 10 == 0 && place == 0;
            n_told += usize::from(!fails);
            it.finish(&task, if fails { retry(None) } else { Outcome::Done });
            assert!(it.schedule.failing().is_none(), "number {n}");
        }
        it.passes(SECOND / 100);
    }
    assert!(n_told > 850, "{n_told} in ten seconds");
    it.passes(SECOND * 2);
    n_told += it.tell().len();
    assert_eq!((n_told, it.schedule.n_open()), (1_000, 0));
}

#[test]
fn one_that_fails_alone_does_not_hold_up_the_others() {
    let mut it = Stepped::new();
    let poison = it.raise(&alert("poison"));
    let mut told = Vec::new();
    for n in 0..100 {
        it.raise(&alert(&n.to_string()));
        for task in it.begin() {
            let is_poison = words(&task) == "raise poison";
            if !is_poison {
                told.push(words(&task));
            }
            it.finish(&task, if is_poison { retry(None) } else { Outcome::Done });
        }
        it.passes(SECOND);
    }
    told.extend(it.tell());
    assert!(told.len() >= 100, "{}", told.len());
    assert!(it.schedule.position() >= poison - 1);
}

#[test]
fn what_is_refused_is_a_dead_letter_and_the_next_goes_on() {
    let mut it = Stepped::new();
    let a = alert("a");
    let seq = it.raise(&a);
    it.resolve(&a);
    let task = it.begin().remove(0);
    it.finish(&task, Outcome::Refused { why: "it answered 404".to_owned() });
    let dead = it.schedule.take_dead();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].seq, dead[0].occasion, dead[0].why.as_str()), (seq, Occasion::Raise, "it answered 404"));
    assert_eq!(it.tell(), ["resolve a"]);
    assert!(it.schedule.take_dead().is_empty());
}

#[test]
fn after_24_hours_it_is_given_up() {
    let mut it = Stepped::new();
    it.raise(&alert("a"));
    it.passes(TELL_FOR / 2);
    let second = it.raise(&alert("b"));
    for task in it.begin() {
        it.finish(&task, retry(None));
    }
    it.passes(TELL_FOR / 2);
    let probe = it.begin();
    let dead = it.schedule.take_dead();
    assert_eq!(dead.iter().map(|dead| &*dead.alert.rule).collect::<Vec<_>>(), ["a"]);
    assert!(dead[0].why.ends_with("within 24 h: it said no"), "{}", dead[0].why);
    assert_eq!((it.schedule.position(), words(&probe[0]).as_str()), (second - 1, "raise b"));
}

#[test]
fn the_journal_takes_its_room_back() {
    let mut it = Stepped::new();
    let a = alert("a");
    it.raise(&a);
    it.raise(&late("late"));
    it.raise(&late("over"));
    it.resolve(&late("over"));
    let to = it.raise(&alert("b"));
    let kept = it.resolve(&a);
    let tasks = it.begin();
    it.schedule.give_up_to(to);
    assert_eq!(it.schedule.position(), to, "what is under way does not hold it up");
    assert_eq!(it.schedule.take_dead().iter().map(|dead| dead.n_alerts).sum::<usize>(), 4);
    for task in &tasks {
        it.finish(task, retry(None));
    }
    assert_eq!(it.schedule.n_under_way(), 0);
    it.schedule.give_up_to(kept + 2);
    it.raise(&alert("c"));
    it.raise(&alert("d"));
    assert_eq!(it.schedule.take_dead().len(), 3, "the resolve, and what was not read yet");
    let e = it.raise(&alert("e"));
    it.passes(SECOND * 60);
    assert_eq!(it.tell(), ["raise e"]);
    assert_eq!(it.schedule.position(), e);
}

#[test]
fn late_alerts_that_are_over_are_one_digest_and_those_that_fire_are_pages() {
    let mut it = Stepped::new();
    let position = it.schedule.position();
    it.raise(&late("a"));
    it.resolve(&late("a"));
    it.passes(SECOND * 5);
    it.raise(&late("b"));
    it.raise(&late("fires"));
    it.event(EventKind::Repeat, &late("fires"));
    it.raise(&alert("ordinary"));
    it.resolve(&late("b"));
    assert_eq!(it.tell(), ["raise ordinary"]);
    assert_eq!(it.schedule.position(), position, "what is held back is not done");
    assert_eq!(it.schedule.wake_at(), Some(it.now.instant + SECOND * 5), "ten seconds from the instance's first");
    it.passes(SECOND * 5);
    let mut told = it.tell();
    told.sort();
    assert_eq!(told, ["digest a b", "raise fires"]);
    assert_eq!(it.schedule.position(), it.seq);
    it.resolve(&late("fires"));
    assert_eq!(it.tell(), ["resolve fires"]);
}

#[test]
fn a_digest_goes_to_those_too_who_do_not_hear_of_resolves() {
    let mut it = Stepped::with(false);
    it.raise(&late("a"));
    it.resolve(&late("a"));
    it.passes(SECOND * 10);
    assert_eq!(it.tell(), ["digest a"]);
}

#[test]
fn after_a_restart_late_alerts_wait_for_what_is_left_to_read_and_no_longer() {
    let mut it = Stepped::new();
    it.schedule.caught_up(false);
    let journaled = it.now.time;
    it.passes(SECOND * 3_600);
    let event = |kind, alert| Event { kind, alert: Arc::new(alert) };
    it.schedule.read(101, journaled, &event(EventKind::Raise, late("a")), it.now);
    assert!(it.begin().is_empty(), "its resolve may be the next event");
    it.schedule.read(102, journaled, &event(EventKind::Resolve, resolved(&late("a"))), it.now);
    it.schedule.caught_up(true);
    assert_eq!(it.tell(), ["digest a"]);
    assert_eq!(it.schedule.position(), 102);
}

#[test]
fn a_digest_is_known_by_what_is_in_it() {
    let key = |rules: &[&str]| {
        let mut it = Stepped::new();
        for rule in rules {
            it.raise(&late(rule));
            it.resolve(&late(rule));
        }
        it.passes(SECOND * 10);
        it.begin().remove(0).notification.key.clone()
    };
    assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    assert_ne!(key(&["a", "b"]), key(&["a"]));
    assert_ne!(key(&["a", "b"]), key(&["a", "c"]));
}

#[test]
fn a_flood_of_late_alerts_stays_within_bounds() {
    let mut it = Stepped::new();
    let mut n_told = 0;
    for n in 0..40_000_u32 {
        while it.schedule.room() == 0 {
            n_told += it
                .begin()
                .iter()
                .map(|task| {
                    it.schedule.finished(task, Outcome::Done, it.now);
                    task.notification.alerts.len() + task.notification.n_more
                })
                .sum::<usize>();
        }
        it.raise(&late(&n.to_string()));
        it.resolve(&late(&n.to_string()));
        assert!(it.schedule.n_open() <= 2 * MAX_HELD + 2, "{}", it.schedule.n_open());
    }
    it.passes(SECOND * 10);
    for task in it.begin() {
        assert!(task.notification.alerts.len() <= crate::notify::MAX_ALERTS);
        n_told += task.notification.alerts.len() + task.notification.n_more;
        it.finish(&task, Outcome::Done);
    }
    assert_eq!((n_told, it.schedule.position()), (40_000, it.seq));
}

#[test]
fn a_raise_that_the_journal_cannot_take_is_told_at_once_and_not_again() {
    let mut it = Stepped::new();
    let a = alert("a");
    let direct = Event { kind: EventKind::Raise, alert: Arc::new(a.clone()) };
    it.schedule.read_directly(&direct, it.now);
    let task = it.begin().remove(0);
    assert_eq!(task.notification.key, format!("{}-1-raise", a.alert_id), "as the journal's");
    it.finish(&task, Outcome::Done);
    it.raise(&a);
    it.resolve(&a);
    assert_eq!(it.tell(), ["resolve a"]);

    // The same while it is still being told, and where that fails.
    let b = alert("b");
    it.schedule.read_directly(&Event { kind: EventKind::Raise, alert: Arc::new(b.clone()) }, it.now);
    let task = it.begin().remove(0);
    it.raise(&b);
    it.finish(&task, Outcome::Done);
    assert!(it.tell().is_empty());
    let c = alert("c");
    it.schedule.read_directly(&Event { kind: EventKind::Raise, alert: Arc::new(c.clone()) }, it.now);
    let task = it.begin().remove(0);
    it.finish(&task, retry(None));
    it.raise(&c);
    it.passes(SECOND);
    assert_eq!(it.tell(), ["raise c"]);
    assert_eq!(it.schedule.position(), it.seq);
}

/// A receiver that was away for long used to hear every repeat of that time.
#[test]
fn of_repeats_that_nobody_heard_the_last_is_told() {
    let mut it = Stepped::new();
    let a = alert("a");
    it.raise(&a);
    let raise = it.begin().remove(0);
    it.finish(&raise, retry(None));
    it.event(EventKind::Repeat, &a);
    it.passes(SECOND);
    assert_eq!(it.tell(), ["raise a"], "which says it all");

    for outcome in [Outcome::Done, retry(None)] {
        it.event(EventKind::Repeat, &a);
        let first = it.begin().remove(0);
        it.event(EventKind::Repeat, &a);
        let last = it.event(EventKind::Repeat, &a);
        it.finish(&first, outcome);
        it.passes(SECOND);
        let told = it.begin().remove(0);
        assert_eq!(told.notification.key, format!("{}-1-repeat-{last}", a.alert_id));
        it.finish(&told, Outcome::Done);
        assert_eq!((it.tell(), it.schedule.position()), (Vec::new(), last));
    }

    it.event(EventKind::Repeat, &a);
    it.resolve(&a);
    assert_eq!(it.tell(), ["resolve a"], "it fires no longer");
    let mut it = Stepped::with(false);
    it.event(EventKind::Repeat, &a);
    it.resolve(&a);
    assert!(it.tell().is_empty());
    assert_eq!((it.schedule.n_open(), it.schedule.position()), (0, it.seq));
}

/// The word that it still fires used to be dropped for a raise that waited, and then was never told.
#[test]
fn if_a_raise_is_given_up_the_word_that_it_still_fires_is_told() {
    let mut it = Stepped::new();
    let a = alert("a");
    it.raise(&a);
    let raise = it.begin().remove(0);
    it.finish(&raise, retry(None));
    it.passes(TELL_FOR / 2);
    it.event(EventKind::Repeat, &a);
    it.passes(TELL_FOR / 2);
    assert_eq!(it.tell(), ["repeat a"]);
    assert_eq!(it.schedule.take_dead().len(), 1);
    // Of another version, it says what the raise did not.
    it.raise(&alert("b"));
    it.event(EventKind::Repeat, &Alert { version: 2, ..alert("b") });
    assert_eq!(it.tell(), ["raise b", "repeat b"]);
}

/// A repeat in the place of one that failed used to be tried at once, whenever one came.
#[test]
fn a_newer_repeat_waits_as_long_as_the_one_before() {
    let mut it = Stepped::new();
    it.event(EventKind::Repeat, &alert("a"));
    for _ in 0..5 {
        let task = it.begin().remove(0);
        it.finish(&task, retry(None));
        it.passes(SECOND * 60);
    }
    let task = it.begin().remove(0);
    it.finish(&task, retry(None));
    it.raise(&alert("other"));
    it.passes(SECOND * 3);
    it.event(EventKind::Repeat, &alert("a"));
    assert!(it.begin().iter().all(|task| words(task) != "repeat a"));
}

#[test]
fn what_an_earlier_run_has_buried_is_not_buried_again() {
    let mut it = Stepped::new();
    it.schedule = Schedule::new(it.schedule.options.clone(), 100, Ahead::new(103, [101].into_iter()));
    assert!(it.schedule.skip(101) && !it.schedule.skip(102) && it.schedule.skip(104));
}

/// One that kept failing used to bring all that was told behind it again with every restart.
#[test]
fn what_was_told_behind_one_that_fails_is_not_told_again_by_the_next_run() {
    let mut it = Stepped::new();
    for rule in ["a", "b", "c", "d"] {
        it.raise(&alert(rule));
    }
    let tasks = it.begin();
    it.finish(&tasks[0], retry(None));
    it.finish(&tasks[1], Outcome::Done);
    it.finish(&tasks[3], Outcome::Refused { why: String::new() });
    let (position, ahead) = (it.schedule.position(), it.schedule.ahead());
    assert_eq!((position, ahead.to(), ahead.open()), (100, 104, &[101, 103][..]));

    let mut next = Stepped::new();
    next.schedule = Schedule::new(next.schedule.options.clone(), position, ahead.clone());
    next.schedule.caught_up(true);
    assert_eq!(next.schedule.ahead(), ahead, "also of a run that comes to nothing");
    next.raise(&alert("a"));
    assert_eq!(next.schedule.ahead(), ahead);
    for rule in ["b", "c", "d", "e"] {
        next.raise(&alert(rule));
    }
    assert_eq!(next.tell(), ["raise a", "raise c", "raise e"]);
    assert_eq!((next.schedule.position(), next.schedule.ahead()), (105, Ahead::default()));
}

#[test]
fn a_changed_receiver_is_tried_at_once() {
    let mut it = Stepped::new();
    it.raise(&alert("a"));
    let task = it.begin().remove(0);
    it.finish(&task, retry(Some(3_600)));
    assert!(it.begin().is_empty());
    it.schedule.changed(true);
    assert_eq!(it.tell(), ["raise a"]);
}

/// Each alert used to have a queue of its own: the end of one could come behind the beginning of the next, of the same
/// labels, and end that.
#[test]
fn a_rules_alerts_of_an_instance_are_told_in_order() {
    let mut it = Stepped::new();
    let first = alert("a");
    let second = Alert { alert_id: RaiseId::Counter(2).alert_id(&first.key, "a"), ..alert("a") };
    it.raise(&first);
    it.resolve(&first);
    it.raise(&second);
    for (expected, id) in [("raise a", first.alert_id), ("resolve a", first.alert_id), ("raise a", second.alert_id)] {
        let tasks = it.begin();
        assert_eq!(tasks.len(), 1);
        assert_eq!((words(&tasks[0]).as_str(), tasks[0].notification.alerts[0].alert_id), (expected, id));
        it.finish(&tasks[0], Outcome::Done);
    }
}
