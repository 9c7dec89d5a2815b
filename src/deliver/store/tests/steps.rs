//! The writer step by step, against a store in memory that fails as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::atomic::AtomicUsize,
};

use parking_lot::Mutex;

use super::*;
use crate::model::Event;

/// A store of rows by service, each with its version.
#[derive(Debug)]
struct Memory {
    name: &'static str,
    rows: Mutex<BTreeMap<String, u32>>,
    /// Services whose rows it refuses for ever.
    refused: Mutex<BTreeSet<String>>,
    is_down: AtomicBool,
    n_prepared: AtomicUsize,
    /// How many rows each statement that it was sent had.
    sizes: Mutex<Vec<usize>>,
}

impl Memory {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            rows: Mutex::default(),
            refused: Mutex::default(),
            is_down: AtomicBool::default(),
            n_prepared: AtomicUsize::default(),
            sizes: Mutex::default(),
        })
    }

    fn services(&self) -> Vec<String> {
        self.rows.lock().keys().cloned().collect()
    }
}

impl AlertStore for Memory {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        self.n_prepared.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError> {
        self.sizes.lock().push(alerts.len());
        let doing = format!("writing {} alerts", alerts.len());
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Transient { doing, source: "down".into() });
        }
        if alerts.iter().any(|alert| self.refused.lock().contains(alert.key.service())) {
            return Err(StoreError::Permanent { doing, source: "it does not fit".into() });
        }
        for alert in alerts {
            let mut rows = self.rows.lock();
            let version = rows.entry(alert.key.service().to_owned()).or_default();
            *version = alert.version.max(*version);
        }
        Ok(())
    }

    fn shut(&self) {}

    fn history(&self, _: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        Ok(Vec::new())
    }

    fn alert(&self, _: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        Ok(None)
    }

    fn prune(&self, _: Timestamp, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// A journal with one raise per service, whose thread is at rest.
struct Log {
    dir: TempDir,
    alerts: Vec<Arc<Alert>>,
}

impl Log {
    fn with_raises(n: usize) -> Self {
        let dir = TempDir::new().expect("a folder");
        let log = Self { dir, alerts: Vec::new() };
        let running = log.open().start(Arc::new(Stats::new()), Health::new(), &super::log()).expect("a thread");
        let rules = RuleSet::built_in(None);
        let seconds = Duration::from_secs;
        let mut alerts = Vec::new();
        for n in 0..n {
            let key = Arc::new(InstanceKey::new(&format!("service-{n:04}"), "a"));
            let mut progress = Progress::new(rules.plan(&key));
            let hush = Hush { silent: seconds(30), patience: seconds(30), lacking: &|_| None };
            let outcome = look(&progress, &key, Some(hush), Timestamp::now());
            let events = progress.apply_look(outcome, Timestamp::now());
            alerts.extend(events.iter().map(|event| event.alert.clone()));
            running.entries.send(Entry { events, ..Entry::default() }).expect("it runs");
        }
        drop(running.entries);
        running.thread.join().expect("no panic").expect("no failure");
        Self { alerts, ..log }
    }

    /// Once more the rows of these.
    fn restate(&self, which: Range<usize>) {
        let running = self.open().start(Arc::new(Stats::new()), Health::new(), &super::log()).expect("a thread");
        let event = |alert: &Arc<Alert>| Event { kind: EventKind::Restate, alert: alert.clone() };
        let events = self.alerts[which].iter().map(event).collect();
        running.entries.send(Entry { events, ..Entry::default() }).expect("it runs");
        drop(running.entries);
        running.thread.join().expect("no panic").expect("no failure");
    }

    fn open(&self) -> Journal {
        let options =
            crate::journal::Options { data_dir: self.dir.path().to_owned(), max_bytes: 1 << 30, sinks: &["store"] };
        Journal::open(&options).expect("a journal")
    }

    /// Saves how far the sinks of this journal came, as a stop does.
    fn close(journal: Journal) {
        let running = journal.start(Arc::new(Stats::new()), Health::new(), &super::log()).expect("a thread");
        drop(running.entries);
        running.thread.join().expect("no panic").expect("no failure");
    }
}

struct Run {
    writer: Writer,
    now: Instant,
    health: Health,
    stats: Arc<Stats>,
}

impl Run {
    fn new(journal: &Journal, store: &Arc<Memory>) -> Self {
        Self::restating(journal, store, journal.last_seq())
    }

    /// The run of a start that has restated what is behind this event.
    fn restating(journal: &Journal, store: &Arc<Memory>, inherited_seq: u64) -> Self {
        let options = Options { retention: None, inherited_seq };
        let reader = journal.reader().expect("a reader");
        let n_restated = usize::try_from(journal.last_seq() - inherited_seq).expect("few");
        let source = Source { reader, cursor: journal.sinks().add("store"), n_restated };
        let (health, stats, now) = (Health::new(), Arc::new(Stats::new()), Instant::now());
        stats.events.set(journal.last_seq());
        let writer = Writer::new(options, store.clone(), source, (stats.clone(), health.clone()), super::log(), now);
        Self { writer, now, health, stats }
    }

    /// Steps until there is nothing to do but to wait for events, in invented time; returns how many steps it took.
    fn until_rest(&mut self) -> usize {
        for n in 0..100_000 {
            match self.writer.step(self.now) {
                Next::Now => {}
                Next::At(at) => self.now = at,
                Next::EventsUntil(_) => return n,
            }
        }
        panic!("it does not come to rest");
    }

    fn account(&self) -> (u64, u64, u64, u64) {
        let balance = self.stats.balance();
        (balance.events, balance.stored, balance.pending, balance.dead_letter)
    }
}

#[test]
fn a_row_that_is_refused_for_ever_becomes_a_dead_letter_and_every_other_row_is_written() {
    let log = Log::with_raises(500);
    let journal = log.open();
    let store = Memory::new("db");
    let bad = ["service-0007", "service-0400"];
    store.refused.lock().extend(bad.map(str::to_owned));
    let mut run = Run::new(&journal, &store);
    let n_steps = run.until_rest();
    assert_eq!(store.services().len(), 498);
    assert!(n_steps < 100, "found by halving, not one by one: {n_steps} steps");
    assert_eq!(run.account(), (500, 498, 0, 2));
    let check = run.health.checks()["dead_letters"].clone();
    assert_eq!(check.condition, Condition::Degraded);
    assert!(check.detail.starts_with("2 events") && check.detail.contains("it does not fit"), "{}", check.detail);
    assert!(store.n_prepared.load(Ordering::Relaxed) >= 3, "the table was looked at before each was given up");

    // The operator mends what stood against one of them. At the next start both are tried again.
    Log::close(journal);
    store.refused.lock().remove(bad[0]);
    let journal = log.open();
    let mut run = Run::new(&journal, &store);
    assert_eq!(run.account(), (500, 498, 0, 2), "remembered");
    run.until_rest();
    assert_eq!(store.services().len(), 499);
    assert_eq!(run.account(), (500, 499, 0, 1));
    Log::close(journal);
    assert_eq!(log.open().sinks().add("store").n_dead(), 1);
}

#[test]
fn what_was_delivered_lately_is_delivered_again_when_the_store_comes_back_and_at_a_start() {
    let log = Log::with_raises(30);
    let journal = log.open();
    let store = Memory::new("db");
    let mut run = Run::new(&journal, &store);
    run.until_rest();
    // It was killed, and its last second with it.
    store.rows.lock().clear();
    store.is_down.store(true, Ordering::Relaxed);
    assert_eq!(run.until_rest(), 0, "nobody has noticed");
    // An hour later it is asked for something, fails, and works again.
    run.now += Duration::from_secs(3_600);
    run.writer.failed(&StoreError::Transient { doing: "writing".to_owned(), source: "down".into() }.into(), run.now);
    store.is_down.store(false, Ordering::Relaxed);
    run.until_rest();
    assert_eq!(store.services().len(), 30);
    assert_eq!(run.account(), (30, 30, 0, 0), "counted once");

    store.rows.lock().clear();
    Log::close(journal);
    let journal = log.open();
    Run::new(&journal, &store).until_rest();
    assert_eq!(store.services().len(), 30);
}

/// A full journal waited for the store, and the store, which had had everything, for an event: neither moved again.
#[test]
fn asked_for_room_it_finds_out_whether_what_the_store_has_had_is_safe() {
    let log = Log::with_raises(30);
    let journal = log.open();
    let store = Memory::new("db");
    let mut run = Run::new(&journal, &store);
    let asked_after = |run: &mut Run, seconds: u64| {
        run.now += Duration::from_secs(seconds);
        journal.sinks().ask_for_room(false);
        run.writer.step(run.now)
    };
    run.until_rest();
    asked_after(&mut run, 1);
    assert!(!run.writer.at_risk.is_empty(), "it may have lost it a second later");
    store.is_down.store(true, Ordering::Relaxed);
    assert!(matches!(asked_after(&mut run, 3), Next::At(_)), "it is down, and may have lost it");
    store.is_down.store(false, Ordering::Relaxed);
    asked_after(&mut run, 3);
    assert!(!run.writer.at_risk.is_empty(), "it has not had it again");
    run.now += AGAIN_EVERY;
    run.until_rest();
    let n_rows = store.services().len();
    asked_after(&mut run, 3);
    assert!(run.writer.at_risk.is_empty());
    assert_eq!((store.services().len(), run.account()), (n_rows, (30, 30, 0, 0)), "what is written again is no more");
}

#[test]
fn another_store_gets_what_fires_and_is_the_one_we_know_once_it_has_it() {
    let log = Log::with_raises(5);
    let journal = log.open();
    let old = Memory::new("old");
    Run::new(&journal, &old).until_rest();
    assert_eq!(old.services().len(), 5);
    Log::close(journal);

    let new = Memory::new("new");
    // It is down at first, and the server is restarted: it is still new to us.
    new.is_down.store(true, Ordering::Relaxed);
    log.restate(1..3);
    let journal = log.open();
    let mut run = Run::restating(&journal, &new, 5);
    for _ in 0..10 {
        run.writer.step(run.now);
    }
    assert_eq!(run.writer.cursor.identity().as_deref(), Some("old"));
    Log::close(journal);

    // Those of the first start come first, and say nothing of those of the second.
    new.is_down.store(false, Ordering::Relaxed);
    log.restate(1..3);
    let journal = log.open();
    let mut run = Run::restating(&journal, &new, 7);
    assert!(run.writer.wants_again, "what it was given before it was known it may have lost");
    run.writer.wants_again = false;
    run.writer.max_batch = 3;
    while run.writer.cursor.position() < 8 {
        run.writer.step(run.now);
        run.now += PACE.1;
    }
    assert_eq!(run.writer.cursor.identity().as_deref(), Some("old"));
    run.until_rest();
    assert_eq!(run.writer.cursor.identity().as_deref(), Some("new"));
    assert_eq!(new.services(), ["service-0001", "service-0002"], "by their rows alone");
    assert_eq!(run.account(), (9, 9, 0, 0));
    Log::close(journal);

    let journal = log.open();
    Run::new(&journal, &new).until_rest();
    assert_eq!(new.services().len(), 5, "a start delivers again what is kept");
}

#[test]
fn what_was_read_while_the_store_wrote_is_written_next_unless_that_write_failed() {
    let log = Log::with_raises(3_500);
    let journal = log.open();
    let store = Memory::new("db");
    let mut run = Run::new(&journal, &store);
    run.writer.wants_again = false;
    run.writer.step(run.now);
    run.writer.step(run.now);
    let read_on = |run: &Run| run.writer.read_on.as_ref().map(|(after, events)| (*after, events.len()));
    assert_eq!((run.writer.cursor.position(), read_on(&run)), (1_000, Some((1_000, 1_000))));
    store.is_down.store(true, Ordering::Relaxed);
    let next = run.writer.step(run.now);
    assert_eq!((run.writer.cursor.position(), read_on(&run)), (1_000, Some((2_000, 1_000))));
    store.is_down.store(false, Ordering::Relaxed);
    let Next::At(at) = next else { panic!("{next:?}") };
    run.now = at;
    run.until_rest();
    assert_eq!(store.services().len(), 3_500);
    assert_eq!(run.account(), (3_500, 3_500, 0, 0));
}

#[test]
fn the_store_rests_as_long_as_it_works_within_bounds() {
    let log = Log::with_raises(3);
    let journal = log.open();
    let store = Memory::new("db");
    let mut run = Run::new(&journal, &store);
    run.writer.wants_again = false;
    run.writer.max_batch = 1;
    run.writer.step(run.now);
    run.writer.step(run.now);
    assert_eq!(run.writer.cursor.position(), 1);
    // Two events are left, and fewer than a batch.
    run.writer.max_batch = 1_000;
    let millis = Duration::from_millis;
    for (took, rest) in [(0, 5), (4, 8), (1_000, 20)] {
        run.writer.last_took = millis(took);
        assert_eq!(run.writer.step(run.now), Next::At(run.now + millis(rest)), "after {took} ms");
    }
    run.until_rest();
    assert_eq!(run.account(), (3, 3, 0, 0));
}

#[test]
fn a_storm_shares_statements_and_a_store_that_times_out_gets_smaller_ones() {
    let log = Log::with_raises(2_500);
    let journal = log.open();
    let store = Memory::new("db");
    let mut run = Run::new(&journal, &store);
    run.writer.wants_again = false;
    store.is_down.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        match run.writer.step(run.now) {
            Next::At(at) => run.now = at,
            Next::Now | Next::EventsUntil(_) => {}
        }
    }
    let sizes: Vec<_> = std::mem::take(&mut *store.sizes.lock());
    assert_eq!(sizes[..4], [1_000, 500, 250, 125]);
    assert_eq!(sizes.last(), Some(&1));
    store.is_down.store(false, Ordering::Relaxed);
    run.until_rest();
    let sizes: Vec<_> = std::mem::take(&mut *store.sizes.lock());
    assert!(sizes.iter().sum::<usize>() >= 2_500);
    assert_eq!(sizes.iter().max(), Some(&1_000), "and they grow again: {sizes:?}");
    assert_eq!(run.account(), (2_500, 2_500, 0, 0));
}
