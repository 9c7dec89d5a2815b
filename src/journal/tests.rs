use std::time::Duration;

use slog::{Discard, o};
use tempfile::TempDir;

use super::*;
use crate::{
    model::{Alert, EventKind, InstanceKey, Row, Timestamp},
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
    let row = Row::new(&[("cpu_percent".into(), 95.0)]);
    let metrics = row.readings();
    let wire_time = at.as_nanos().unsigned_abs();
    let reading = Reading { key: &key, metrics, at, wire_time, received_at: at, skew_nanos: 0, epoch: 7, sequence: 3 };
    let mut instance = InstanceState::new(key.clone(), rules.plan(&key), Heard::default());
    instance.take_readings(metrics, at, Heard::default());
    instance.marks.advance(7, 3, wire_time);
    let outcome = evaluate(&instance.progress, &reading);
    let events = instance.progress.apply(outcome, metrics, at);
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
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].seq, events[0].event.as_ref().expect("whole")),
        (1, &Event { kind: EventKind::Raise, alert })
    );
    assert_eq!((beside.last_seq(), beside.server_id()), (1, server_id));
    end(running);
}

#[test]
fn a_cursor_goes_on_where_it_was_and_numbers_are_never_used_twice() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    let cursor = journal.sinks().add(SINK);
    let running = run(journal);
    for service in ["a", "b", "c"] {
        running.entries.send(raise(service).1).expect("it runs");
    }
    cursor.doorbell().recv_timeout(Duration::from_secs(10)).expect("the doorbell rings");
    cursor.advance(2);
    end(running);
    let journal = open(&dir);
    assert_eq!(journal.sinks().add(SINK).position(), 2);
    let left = journal.reader().expect("a reader").read(2, 10).expect("readable");
    assert_eq!(left.iter().map(|recorded| recorded.seq).collect::<Vec<_>>(), [3]);
    let running = run(journal);
    running.entries.send(raise("d").1).expect("it runs");
    end(running);
    assert_eq!(open(&dir).last_seq(), 4);
}

#[test]
fn a_full_journal_gives_no_receipt_until_its_sinks_have_had_what_is_in_it() {
    let dir = TempDir::new().expect("a folder");
    let journal = Journal::open(&options(&dir, 40 * 4_096)).expect("a journal");
    let (stats, health) = (Arc::new(Stats::new()), Health::new());
    let log = Logger::root(Discard, o!());
    let cursor = journal.sinks().add(SINK);
    let running = journal.start(stats.clone(), health.clone(), &log).expect("a thread");
    let mut refused = None;
    for _ in 0..1_000 {
        let (receipt, mut given) = Receipt::new();
        let entry = Entry { receipts: vec![receipt], ..raise("web").1 };
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
    let mut refused = refused.expect("forty pages hold less than a thousand alerts");
    assert!(refused.try_recv().is_err(), "what is not durable has no receipt (I9)");
    assert_eq!(health.checks()["journal"].condition, Condition::Degraded);
    // It used to try the same commit for ever, which put back what it dropped: delivered events are room.
    cursor.advance(stats.events.get());
    refused.blocking_recv().expect("a receipt, once there is room");
    let deadline = Instant::now() + Duration::from_secs(30);
    while health.checks()["journal"].condition != Condition::Ok {
        assert!(Instant::now() < deadline, "the last two seconds stay, and then they go: {:?}", health.checks());
        thread::yield_now();
    }
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

/// Entries that are read back by a sink, each as it was journaled or as what is wrong with it.
fn read(journal: &Journal) -> Vec<(u64, Result<String, String>)> {
    let events = journal.reader().expect("a reader").read(0, 100).expect("readable");
    let tell = |event: Event| event.alert.key.service().to_owned();
    events.into_iter().map(|r| (r.seq, r.event.map(tell).map_err(|err| err.to_string()))).collect()
}

/// A journal that holds a raise of each service.
fn with_raises(dir: &TempDir, services: &[&str]) {
    let running = run(open(dir));
    for service in services {
        running.entries.send(raise(service).1).expect("it runs");
    }
    end(running);
}

fn sqlite(dir: &TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.path().join("journal.db")).expect("it is SQLite")
}

#[test]
fn an_event_that_is_not_what_was_written_is_told_as_damaged_and_the_others_are_read() {
    let dir = TempDir::new().expect("a folder");
    with_raises(&dir, &["a", "b", "c", "d"]);
    let file = sqlite(&dir);
    // A payload that SQLite has no reason to doubt: one letter of a name, in place.
    let changed = "UPDATE events SET body = CAST(replace(body, 'b', 'x') AS BLOB) WHERE seq = 2";
    file.execute(changed, []).expect("written");
    file.execute("DELETE FROM events WHERE seq = 3", []).expect("deleted");
    drop(file);
    let damaged = |why: &str| Err(why.to_owned());
    let said = [
        (1, Ok("a".to_owned())),
        (2, damaged("its checksum does not fit")),
        (3, damaged("it is missing")),
        (4, Ok("d".to_owned())),
    ];
    assert_eq!(read(&open(&dir)), said);
}

#[test]
fn a_sink_that_leaves_a_kind_out_passes_it_by_and_still_hears_of_what_is_damaged() {
    let dir = TempDir::new().expect("a folder");
    with_raises(&dir, &["a", "b", "c", "d"]);
    let file = sqlite(&dir);
    file.execute("UPDATE events SET body = CAST(replace(body, 'b', 'x') AS BLOB) WHERE seq = 2", []).expect("written");
    file.execute("DELETE FROM events WHERE seq = 3", []).expect("deleted");
    drop(file);
    let reader = open(&dir).reader().expect("a reader");
    let seqs = |after, limit| {
        let (events, last) = reader.read_only(after, limit, |kind| kind != EventKind::Raise).expect("readable");
        assert!(events.iter().all(|recorded| recorded.event.is_err()));
        (events.iter().map(|recorded| recorded.seq).collect::<Vec<_>>(), last)
    };
    assert_eq!(seqs(0, 100), (vec![2, 3], 4));
    assert_eq!(seqs(0, 1), (vec![], 1));
    assert_eq!(seqs(1, 1), (vec![2], 2));
    assert_eq!(seqs(2, 1), (vec![3], 3), "what is missing counts as looked at");
    assert_eq!(seqs(3, 1), (vec![], 4));
    assert_eq!(seqs(4, 100), (vec![], 4));
}

#[test]
fn a_damaged_record_of_anything_else_is_refused_by_name_with_a_way_out() {
    let damages = [
        ("UPDATE instances SET body = substr(body, 1, 9)", "what is known of web/a"),
        ("UPDATE sinks SET body = x'080a00000000'", "the cursor of store"),
        ("UPDATE rules SET body = x'00'", "the rule hot"),
    ];
    for (damage, what) in damages {
        let dir = TempDir::new().expect("a folder");
        let journal = open(&dir);
        let cursor = journal.sinks().add(SINK);
        let running = run(journal);
        let rules = Some(vec![RuleRecord { name: "hot".into(), question: "q".to_owned(), generation: 1 }]);
        running.entries.send(Entry { rules, ..raise("web").1 }).expect("it runs");
        cursor.doorbell().recv_timeout(Duration::from_secs(10)).expect("the doorbell rings");
        cursor.advance(1);
        end(running);
        assert_eq!(sqlite(&dir).execute(damage, []).expect("written"), 1);
        let refused = Journal::open(&options(&dir, 1 << 30))
            .and_then(|journal| journal.rules().and_then(|_| journal.restore()))
            .expect_err("damaged");
        let said = chain(&refused);
        assert!(said.contains(what) && said.contains("move it away"), "{said}");
    }
}

#[test]
fn a_journal_that_has_lost_its_contents_is_not_begun_anew_unasked() {
    let dir = TempDir::new().expect("a folder");
    with_raises(&dir, &["a"]);
    let path = dir.path().join("journal.db");
    let whole = std::fs::read(&path).expect("readable");
    for cut in [0, 50, 4_096, whole.len() / 2 / 4_096 * 4_096] {
        std::fs::write(&path, &whole[..cut]).expect("written");
        let refused = Journal::open(&options(&dir, 1 << 30)).and_then(|journal| journal.restore());
        assert!(refused.is_err(), "cut to {cut} of {} bytes", whole.len());
    }
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(open(&dir).last_seq(), 0, "moved away is asked for");
}

#[test]
fn dead_letters_and_what_was_delivered_add_up_across_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    let cursor = journal.sinks().add(SINK);
    let running = run(journal);
    for service in ["a", "b", "c"] {
        running.entries.send(raise(service).1).expect("it runs");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while open_beside(&dir) < 3 && Instant::now() < deadline {
        thread::yield_now();
    }
    cursor.deliver(1, 1);
    cursor.bury(DeadLetter { seq: 2, reason: "too long".to_owned() });
    cursor.deliver(2, 0);
    // Not behind the cursor yet: after a crash it is tried once more, so it must not be counted twice.
    cursor.bury(DeadLetter { seq: 3, reason: "too long".to_owned() });
    end(running);
    let journal = open(&dir);
    let cursor = journal.sinks().add(SINK);
    assert_eq!((cursor.position(), cursor.n_delivered(), cursor.n_dead()), (2, 1, 1));
    let letters = journal.reader().expect("a reader").dead_letters(SINK).expect("readable");
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].seq, letters[0].event.as_ref().expect("whole").alert.key.service()), (2, "b"));
    let running = run(journal);
    cursor.exhume(2);
    end(running);
    let journal = open(&dir);
    let cursor = journal.sinks().add(SINK);
    assert_eq!((cursor.n_delivered(), cursor.n_dead()), (2, 0));
    assert!(journal.reader().expect("a reader").dead_letters(SINK).expect("readable").is_empty());
}

fn open_beside(dir: &TempDir) -> u64 {
    let count = sqlite(dir).query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0));
    count.expect("readable")
}

#[test]
fn a_sink_that_comes_later_begins_with_what_comes_then_and_one_that_is_gone_holds_nothing_back() {
    let dir = TempDir::new().expect("a folder");
    with_raises(&dir, &["a", "b"]);
    let journal = open(&dir);
    let late = journal.sinks().add("ops");
    assert_eq!(late.position(), 2, "nobody is told of old history");
    journal.sinks().add(SINK).advance(2);
    let sinks = journal.sinks().clone();
    let running = run(journal);
    running.entries.send(raise("c").1).expect("it runs");
    late.doorbell().recv_timeout(Duration::from_secs(10)).expect("the doorbell rings");
    assert_eq!(sinks.delivered(), 2);
    sinks.add(SINK).advance(3);
    assert_eq!(sinks.delivered(), 2, "the later one has not had it");
    sinks.remove("ops");
    assert_eq!(sinks.delivered(), 3);
    end(running);
    assert_eq!(open(&dir).sinks().add("ops").position(), 3, "it begins anew");
}

/// Its place was not saved before it moved for the first time, and the next start put it behind everything.
#[test]
fn a_sink_that_never_moved_still_has_everything_before_it_after_a_crash() {
    let dir = TempDir::new().expect("a folder");
    with_raises(&dir, &["a", "b"]);
    let journal = open(&dir);
    assert_eq!(journal.sinks().add(SINK).position(), 0);
    let ops = journal.sinks().add("ops");
    let running = run(journal);
    running.entries.send(raise("c").1).expect("it runs");
    ops.doorbell().recv_timeout(Duration::from_secs(10)).expect("the doorbell rings");
    let beside = open(&dir);
    assert_eq!((beside.sinks().add(SINK).position(), beside.sinks().add("ops").position()), (0, 2));
    end(running);
}

#[test]
fn one_that_was_not_there_at_the_start_is_forgotten() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    journal.sinks().add("ops");
    let running = run(journal);
    running.entries.send(raise("a").1).expect("it runs");
    end(running);
    end(run(open(&dir)));
    assert_eq!(open(&dir).sinks().add("ops").position(), 1, "it begins at the end, not where it was");
}

#[test]
fn a_large_entry_is_split_by_instance_and_its_receipt_comes_last() {
    let (receipt, _given) = Receipt::new();
    let mut entry = Entry { rules: Some(Vec::new()), receipts: vec![receipt], ..Entry::default() };
    for n in 0..2_500 {
        let one = raise(&format!("service-{n}")).1;
        entry.events.extend(one.events.clone());
        entry.events.extend(one.events);
        entry.snapshots.extend(one.snapshots);
    }
    let parts = entry.split();
    assert_eq!(parts.len(), 5);
    assert!(parts[0].rules.is_some() && parts[1..].iter().all(|part| part.rules.is_none()));
    assert!(parts[4].receipts.len() == 1 && parts[..4].iter().all(|part| part.receipts.is_empty()));
    for part in parts {
        assert!(part.events.len() < 1_300, "{}", part.events.len());
        assert_eq!(part.events.len(), 2 * part.snapshots.len());
        let told: std::collections::BTreeSet<_> = part.events.iter().map(|e| e.alert.key.clone()).collect();
        assert!(part.snapshots.iter().all(|snapshot| told.contains(&snapshot.key)));
    }
}

mod disk;
