use slog::{Discard, o};
use tempfile::TempDir;

use super::*;
use crate::{
    model::{Alert, InstanceKey},
    rules::{Reading, RuleSet, evaluate},
    state::{Heard, InstanceState},
};

const SINK: &str = "store";

fn options(dir: &TempDir, max_bytes: u64) -> Options {
    Options { data_dir: dir.path().to_owned(), max_bytes, sinks: &[SINK] }
}

fn open(dir: &TempDir) -> Journal {
    Journal::open(&options(dir, 1 << 30)).expect("a journal")
}

fn run(journal: Journal) -> Running {
    journal.start(Arc::new(Stats::new()), Health::new(), &Logger::root(Discard, o!())).expect("a thread")
}

fn end(running: Running) {
    drop(running.entries);
    running.thread.join().expect("no panic").expect("no failure");
}

/// A raise, and its instance behind it.
fn raise(service: &str) -> (Arc<Alert>, Entry) {
    let rules = RuleSet::built_in(None);
    let key = Arc::new(InstanceKey::new(service, "a"));
    let at = Timestamp::now();
    let metrics = [("cpu_percent".into(), 95.0)];
    let wire_time = at.as_nanos().unsigned_abs();
    let reading =
        Reading { key: &key, metrics: &metrics, at, wire_time, received_at: at, skew_nanos: 0, epoch: 7, sequence: 3 };
    let mut instance = InstanceState::new(key.clone(), rules.plan(&key), Heard::default());
    instance.take_readings(&metrics, at, Heard::default());
    instance.marks.advance(7, 3, wire_time);
    let outcome = evaluate(&instance.progress, &reading);
    let events = instance.progress.apply(outcome, &metrics, at);
    let alert = events[0].alert.clone();
    (alert, Entry { events, snapshots: vec![Snapshot::of(&mut instance)], ..Entry::default() })
}

#[test]
fn what_was_receipted_is_there_after_a_restart_to_the_last_field() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    let server_id = journal.server_id();
    let running = run(journal);
    let (alert, mut entry) = raise("web");
    let (receipt, given) = Receipt::new();
    entry.receipts.push(receipt);
    running.entries.send(entry).expect("it runs");
    given.blocking_recv().expect("a receipt");
    // Read beside the running journal, as after a kill: nothing is written at the end that matters.
    let beside = open(&dir);
    let restored = beside.restore().expect("readable");
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].firing[0].what.alert, alert);
    assert_eq!(restored[0].marks[0].sequence, 3);
    assert_eq!(restored[0].metrics, [("cpu_percent".into(), 95.0, true)]);
    let events = beside.reader().expect("a reader").read(0, 10).expect("readable");
    assert_eq!(events, [(1, Event { kind: EventKind::Raise, alert })]);
    assert_eq!((beside.last_seq(), beside.server_id()), (1, server_id));
    end(running);
}

#[test]
fn a_cursor_goes_on_where_it_was_and_numbers_are_never_used_twice() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    let cursor = journal.cursor(SINK).expect("it is a sink");
    let running = run(journal);
    for service in ["a", "b", "c"] {
        running.entries.send(raise(service).1).expect("it runs");
    }
    cursor.doorbell().recv_timeout(Duration::from_secs(10)).expect("the doorbell rings");
    cursor.advance(2);
    end(running);
    let journal = open(&dir);
    assert_eq!(journal.cursor(SINK).expect("it is a sink").position(), 2);
    let left = journal.reader().expect("a reader").read(2, 10).expect("readable");
    assert_eq!(left.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3]);
    let running = run(journal);
    running.entries.send(raise("d").1).expect("it runs");
    end(running);
    assert_eq!(open(&dir).last_seq(), 4);
}

#[test]
fn a_full_journal_gives_no_receipt_until_its_sinks_have_had_what_is_in_it() {
    let dir = TempDir::new().expect("a folder");
    let journal = Journal::open(&options(&dir, 20 * 4_096)).expect("a journal");
    let (stats, health) = (Arc::new(Stats::new()), Health::new());
    let log = Logger::root(Discard, o!());
    let cursor = journal.cursor(SINK).expect("it is a sink");
    let running = journal.start(stats.clone(), health.clone(), &log).expect("a thread");
    let mut refused = None;
    for n in 0..1_000 {
        let (receipt, mut given) = Receipt::new();
        let entry = Entry { receipts: vec![receipt], ..raise(&format!("service-{n}")).1 };
        running.entries.send(entry).expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(10);
        while given.try_recv().is_err() && stats.journal_errors.get() == 0 && Instant::now() < deadline {
            thread::yield_now();
        }
        if stats.journal_errors.get() > 0 {
            refused = Some(given);
            break;
        }
    }
    let mut refused = refused.expect("twenty pages hold less than a thousand alerts");
    assert!(refused.try_recv().is_err(), "what is not durable has no receipt (I9)");
    assert_eq!(health.checks()["journal"].condition, Condition::Degraded);
    // It used to try the same commit for ever, which put back what it dropped: delivered events are room.
    cursor.advance(stats.events.get());
    refused.blocking_recv().expect("a receipt, once there is room");
    assert_eq!(health.checks()["journal"].condition, Condition::Ok);
    end(running);
}

#[test]
fn a_file_of_another_layout_is_refused_by_name() {
    let dir = TempDir::new().expect("a folder");
    drop(open(&dir));
    let file = rusqlite::Connection::open(dir.path().join("journal.db")).expect("it is SQLite");
    file.pragma_update(None, "user_version", 99).expect("written");
    let refusal = Journal::open(&options(&dir, 1 << 30)).expect_err("not ours").to_string();
    assert!(refusal.contains("journal.db has layout 99"), "{refusal}");
}
