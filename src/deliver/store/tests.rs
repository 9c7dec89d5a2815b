use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::bounded;
use slog::{Discard, o};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    dispatch::Receipt,
    journal::{Entry, Journal, Running},
    model::InstanceKey,
    rules::{Hush, Progress, RuleSet, look},
    store::{AlertRecord, HistoryQuery, HistoryRow},
};

/// A database that can be read, and written only when `works`.
#[derive(Debug, Default)]
struct ReadOnly {
    works: AtomicBool,
}

impl AlertStore for ReadOnly {
    fn describe(&self) -> String {
        "a test".to_owned()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError> {
        let doing = format!("writing {} alerts", alerts.len());
        let refused = || StoreError::Transient { doing, source: "read only".into() };
        self.works.load(Ordering::Relaxed).then_some(()).ok_or_else(refused)
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

/// A running journal that holds one raise, and a writer that is started on it.
struct Fixture {
    _dir: TempDir,
    _journal: Running,
    cursor: SinkCursor,
    readers: Vec<Reader>,
    store: Arc<ReadOnly>,
    stats: Arc<Stats>,
    health: Health,
}

impl Fixture {
    fn with_a_raise() -> Self {
        let dir = TempDir::new().expect("a folder");
        let sinks = &[super::super::STORE];
        let options = crate::journal::Options { data_dir: dir.path().to_owned(), max_bytes: 1 << 30, sinks };
        let journal = Journal::open(&options).expect("a journal");
        let cursor = journal.sinks().add(super::super::STORE);
        let readers = (0..2).map(|_| journal.reader().expect("a reader")).collect();
        let journal = journal.start(Arc::new(Stats::new()), Health::new(), &log()).expect("a thread");
        let rules = RuleSet::built_in(None);
        let key = Arc::new(InstanceKey::new("web", "a"));
        let mut progress = Progress::new(rules.plan(&key));
        let seconds = Duration::from_secs;
        let hush = Hush { silent: seconds(30), patience: seconds(30), lacking: &|_| None };
        let outcome = look(&progress, &key, Some(hush), Timestamp::now());
        let events = progress.apply_look(outcome, Timestamp::now());
        let (receipt, given) = Receipt::new();
        let entry = Entry { events, receipts: vec![receipt], ..Entry::default() };
        journal.entries.send(entry).expect("it runs");
        given.blocking_recv().expect("durable");
        let (stats, store) = (Arc::new(Stats::new()), Arc::default());
        Self { _dir: dir, _journal: journal, cursor, readers, store, stats, health: Health::new() }
    }

    /// Runs a writer until `check` has seen what it wants.
    fn write(&mut self, inherited_seq: u64, check: impl FnOnce(&Self)) {
        let (stop, stopped) = bounded(0);
        let options = Options { retention: None, inherited_seq };
        let reader = self.readers.pop().expect("one for each writer");
        let input = Source { reader, cursor: self.cursor.clone(), n_restated: 0 };
        let ends = (self.stats.clone(), self.health.clone());
        let thread = start(options, self.store.clone(), input, stopped, ends, &log()).expect("a thread");
        check(self);
        drop(stop);
        thread.join().expect("no panic");
    }

    fn n_timed(&self) -> u64 {
        let text = self.stats.exposition();
        let count = text.lines().find_map(|line| line.strip_prefix("gopherwatch_raise_stored_seconds_count "));
        count.and_then(|count| count.parse().ok()).expect("a figure")
    }
}

fn log() -> Logger {
    Logger::root(Discard, o!())
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

/// Being prepared used to count as working: tries came at the shortest wait, each with two log lines.
#[test]
fn a_store_that_can_be_read_but_not_written_is_tried_ever_more_rarely_and_stays_degraded() {
    let began = Instant::now();
    Fixture::with_a_raise().write(0, |it| {
        wait_for("six tries", || it.stats.store_errors.get() >= 6);
        // Half of 100, 200, 400, 800 and 1,600 ms at the least.
        assert!(began.elapsed() >= Duration::from_millis(1_550), "after {:?}", began.elapsed());
        assert_eq!(it.health.checks()["store"].condition, Condition::Degraded);
        assert_eq!(it.n_timed(), 0, "nothing is stored");
        it.store.works.store(true, Ordering::Relaxed);
        wait_for("the row is delivered", || it.cursor.position() == 1);
        wait_for("and it is well again", || it.health.checks()["store"].condition == Condition::Ok);
        assert_eq!(it.n_timed(), 1, "once, however many tries it took");
    });
}

#[test]
fn a_raise_that_an_earlier_run_stored_is_written_again_and_neither_timed_nor_counted() {
    let mut it = Fixture::with_a_raise();
    it.store.works.store(true, Ordering::Relaxed);
    it.write(0, |it| wait_for("the row is written", || it.cursor.position() == 1));
    assert_eq!((it.n_timed(), it.cursor.n_delivered()), (1, 1));
    let n_rows = it.stats.store_rows.get();
    it.write(1, |it| wait_for("the row is written again", || it.stats.store_rows.get() > n_rows));
    assert_eq!((it.cursor.position(), it.cursor.n_delivered(), it.n_timed()), (1, 1, 1));
}

mod steps;
