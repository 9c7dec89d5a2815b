use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::bounded;
use slog::{Discard, o};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    dispatch::Receipt,
    journal::{Entry, Journal},
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

/// Being prepared used to count as working: tries came at the shortest wait, each with two log lines.
#[test]
fn a_store_that_can_be_read_but_not_written_is_tried_ever_more_rarely_and_stays_degraded() {
    let dir = TempDir::new().expect("a folder");
    let options =
        crate::journal::Options { data_dir: dir.path().to_owned(), max_bytes: 1 << 30, sinks: &[super::super::STORE] };
    let journal = Journal::open(&options).expect("a journal");
    let (cursor, reader) = (journal.cursor(super::super::STORE).expect("a sink"), journal.reader().expect("a reader"));
    let (stats, health, log) = (Arc::new(Stats::new()), Health::new(), Logger::root(Discard, o!()));
    let running = journal.start(stats.clone(), health.clone(), &log).expect("a thread");
    let rules = RuleSet::built_in(None);
    let key = Arc::new(InstanceKey::new("web", "a"));
    let mut progress = Progress::new(rules.plan(&key));
    let seconds = Duration::from_secs;
    let hush = Hush { silent: seconds(30), patience: seconds(30), lacking: &|_| None };
    let outcome = look(&progress, &key, Some(hush), Timestamp::now());
    let events = progress.apply_look(outcome, Timestamp::now());
    let (receipt, given) = Receipt::new();
    let entry = Entry { events, receipts: vec![receipt], ..Entry::default() };
    running.entries.send(entry).expect("it runs");
    given.blocking_recv().expect("durable");

    let store = Arc::new(ReadOnly::default());
    let (stop, stopped) = bounded(0);
    let options = Options { retention: None };
    let ends = (stats.clone(), health.clone());
    let began = Instant::now();
    let thread = start(options, store.clone(), (reader, cursor.clone()), stopped, ends, &log).expect("a thread");
    let wait_for = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    };
    wait_for("six tries", &|| stats.store_errors.get() >= 6);
    // Half of 100, 200, 400, 800 and 1,600 ms at the least.
    assert!(began.elapsed() >= Duration::from_millis(1_550), "after {:?}", began.elapsed());
    assert_eq!(health.checks()["store"].condition, Condition::Degraded);
    store.works.store(true, Ordering::Relaxed);
    wait_for("the row is delivered", &|| cursor.position() == 1);
    wait_for("and it is well again", &|| health.checks()["store"].condition == Condition::Ok);
    drop(stop);
    thread.join().expect("no panic");
}
