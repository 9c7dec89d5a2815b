//! The journal's thread on a disk that fails, step by step.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::{
    journal::{
        file::Batch,
        sinks::{Changes, KEPT_LETTERS},
        stage::{Disk, Stage},
    },
    model::{Event, EventKind, WallClock},
};

/// The real file, behind a disk that is full, or fails otherwise, while `is_full`.
struct Full {
    file: File,
    is_full: bool,
    failure: i32,
}

impl Full {
    fn refuse(&self) -> Result<(), JournalError> {
        let code = rusqlite::ffi::Error::new(self.failure);
        let source = rusqlite::Error::SqliteFailure(code, None);
        let path = self.file.path().to_owned();
        if self.is_full { Err(JournalError::Sqlite { doing: "writing to", path, source }) } else { Ok(()) }
    }
}

impl Disk for Full {
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), JournalError> {
        self.refuse()?;
        self.file.commit(batch)
    }

    fn make_room(&mut self, sinks: &Changes, delivered: u64) -> Result<(), JournalError> {
        self.refuse()?;
        self.file.make_room(sinks, delivered)
    }

    fn file(&self) -> &File {
        &self.file
    }
}

fn stage(dir: &TempDir, now: Instant) -> (Stage<Full>, Sinks) {
    let file = File::open(&dir.path().join("journal.db"), 1 << 30).expect("a journal");
    let sinks = Sinks::new(file.sinks().expect("readable"), file.bounds());
    sinks.add_essential(SINK);
    let disk = Full { file, is_full: false, failure: rusqlite::ffi::SQLITE_FULL };
    let stage =
        Stage::new(disk, sinks.clone(), (Arc::new(Stats::new()), Health::new()), Logger::root(Discard, o!()), now);
    (stage, sinks)
}

#[test]
fn while_the_disk_is_full_receipts_wait_and_receivers_are_told_at_once() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, sinks) = stage(&dir, now);
    let ops = sinks.add("ops");
    stage.disk.is_full = true;
    let (receipt, mut given) = Receipt::new();
    stage.add(Entry { receipts: vec![receipt], ..raise("a").1 });
    stage.step(now).expect("it can wait");
    // One that came before the failure was noticed, and one that comes after it.
    assert_eq!(ops.direct().try_recv().expect("told").alert.key.service(), "a");
    stage.add(raise("b").1);
    assert_eq!(ops.direct().try_recv().expect("told").alert.key.service(), "b");
    assert!(ops.direct().try_recv().is_err() && given.try_recv().is_err(), "once each, and no receipt (I9)");
    assert_eq!(stage.health.checks()["journal"].condition, Condition::Degraded);
    stage.disk.is_full = false;
    stage.step(now + Duration::from_secs(1)).expect("it works again");
    assert!(given.try_recv().is_ok());
    assert_eq!((sinks.last_seq(), ops.position()), (2, 0), "and they come by the cursor, too");
    assert_eq!(stage.health.checks()["journal"].condition, Condition::Ok);
    stage.add(raise("c").1);
    assert!(ops.direct().try_recv().is_err(), "what can be committed comes by the cursor alone");
}

/// The end of an alert used to be told behind the beginning of the next one, and whoever goes by labels took that for closed.
#[test]
fn while_an_end_cannot_be_written_down_what_begins_behind_it_is_not_told_directly() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, sinks) = stage(&dir, now);
    let ops = sinks.add("ops");
    stage.disk.is_full = true;
    let (alert, first) = raise("a");
    let ended = Event { kind: EventKind::Resolve, alert };
    stage.add(Entry { events: vec![ended], ..Entry::default() });
    stage.step(now).expect("it can wait");
    stage.add(first);
    stage.add(raise("b").1);
    let told: Vec<_> = ops.direct().try_iter().map(|event| event.alert.key.service().to_owned()).collect();
    assert_eq!(told, ["b"], "of a everybody knows that it fires, and more can wait");
    stage.disk.is_full = false;
    stage.step(now + Duration::from_secs(1)).expect("it works again");
    stage.disk.is_full = true;
    stage.add(raise("a").1);
    stage.step(now + Duration::from_secs(2)).expect("it can wait");
    assert_eq!(ops.direct().try_iter().count(), 1, "the end is written down");
}

/// A lock or a disk that others had filled used to cost a receiver a quarter of what it had not been told, each second.
#[test]
fn receivers_give_up_events_for_the_files_own_limit_alone() {
    let dir = TempDir::new().expect("a folder");
    let mut now = Instant::now();
    let (mut stage, sinks) = stage(&dir, now);
    let (store, ops) = (sinks.add(SINK), sinks.add("ops"));
    (0..8).for_each(|n| stage.add(raise(&format!("service-{n}")).1));
    stage.step(now).expect("durable");
    store.advance(8);
    stage.disk.is_full = true;
    for failure in [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_BUSY, rusqlite::ffi::SQLITE_IOERR_WRITE] {
        stage.disk.failure = failure;
        stage.add(raise("late").1);
        now += Duration::from_secs(2);
        stage.step(now).expect("it can wait");
        let is_files = failure == rusqlite::ffi::SQLITE_IOERR_WRITE;
        assert_eq!(ops.give_up_to(), if is_files { 2 } else { 0 }, "{failure}");
    }
}

/// A receiver that refuses everything used to fill the journal with its dead letters, for good.
#[test]
fn dead_letters_of_a_receiver_are_counted_few_and_gone_with_it() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("journal.db");
    let hand = Arc::new(AtomicI64::new(Timestamp::now().as_nanos()));
    let letters = || -> (u64, Option<u64>) {
        let query = "SELECT count(*), sum(length(body)) FROM dead_letters";
        sqlite(&dir).query_row(query, [], |row| row.try_into()).expect("a table")
    };
    {
        let file = File::open(&path, 4 << 20).expect("a journal").by(WallClock::Hand(hand.clone()));
        let sinks = Sinks::new(file.sinks().expect("readable"), file.bounds());
        let (store, ops) = (sinks.add_essential(SINK), sinks.add("ops"));
        let mut now = Instant::now();
        let ends = (Arc::new(Stats::new()), Health::new());
        let mut stage = Stage::new(file, sinks.clone(), ends, Logger::root(Discard, o!()), now);
        let (_, Entry { events, .. }) = raise("a");
        for _ in 0..100 {
            stage.add(Entry { events: vec![events[0].clone(); 200], ..Entry::default() });
            let before = sinks.last_seq();
            for _ in 0..5 {
                now += Duration::from_secs(3);
                hand.fetch_add(3_000_000_000, Ordering::Relaxed);
                stage.step(now).expect("it can wait");
            }
            assert_eq!(sinks.last_seq(), before + 200, "it goes on");
            for seq in before + 1..=sinks.last_seq() {
                ops.bury(DeadLetter { seq, reason: format!("it answered 404 Not Found to number {seq}") });
            }
            ops.advance(sinks.last_seq());
            store.advance(sinks.last_seq());
        }
        stage.step(now + Duration::from_secs(3)).expect("saved");
    }
    assert_eq!(letters(), (KEPT_LETTERS as u64, Some(0)), "the latest, without their events");
    let journal = open(&dir);
    assert_eq!(journal.sinks().add("ops").n_dead(), 20_000, "all are counted");
    journal.sinks().remove("ops");
    end(run(journal));
    assert_eq!(letters().0, 0);
    assert_eq!(open(&dir).sinks().add("ops").n_dead(), 0, "one of that name begins anew");
}

#[test]
fn a_disk_that_fails_otherwise_ends_the_stage() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, _) = stage(&dir, now);
    // Another hand on the file: what is in it is not what we know of.
    sqlite(&dir).execute_batch("DROP TABLE instances").expect("dropped");
    stage.add(raise("a").1);
    assert!(stage.step(now).is_err());
}

/// What is on the disk after it nobody knows: a second fsync that succeeds says nothing of the first one's pages.
#[test]
fn a_failed_fsync_is_not_tried_again() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, _) = stage(&dir, now);
    (stage.disk.is_full, stage.disk.failure) = (true, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    let (receipt, mut given) = Receipt::new();
    stage.add(Entry { receipts: vec![receipt], ..raise("a").1 });
    assert!(stage.step(now).is_err());
    assert!(given.try_recv().is_err(), "no receipt (I9)");
}

#[test]
fn with_too_little_room_on_the_disk_receipts_wait_until_there_is_some() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, sinks) = stage(&dir, now);
    stage.add(raise("a").1);
    stage.step(now).expect("durable");
    stage.disk.file = stage.disk.file.keeping_free(u64::MAX);
    let (receipt, mut given) = Receipt::new();
    stage.add(Entry { receipts: vec![receipt], ..raise("b").1 });
    stage.step(now).expect("it can wait");
    assert!(given.try_recv().is_err() && stage.health.checks()["journal"].detail.contains("64 MiB are needed"));
    assert_eq!(sinks.last_seq(), 1);
    stage.disk.file = stage.disk.file.keeping_free(0);
    stage.step(now + Duration::from_secs(1)).expect("it works again");
    assert!(given.try_recv().is_ok(), "by itself");
}

#[test]
fn a_full_disk_gets_the_ballasts_room_and_the_ballast_is_taken_again_when_there_is_some() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, _) = stage(&dir, now);
    let ballast = dir.path().join("ballast");
    stage.step(now + Duration::from_secs(1)).expect("nothing to do");
    assert!(ballast.exists());
    stage.disk.is_full = true;
    stage.add(raise("a").1);
    stage.step(now + Duration::from_secs(1)).expect("it can wait");
    assert!(!ballast.exists(), "dropping what is delivered needs room, too");
    stage.disk.is_full = false;
    stage.step(now + Duration::from_secs(2)).expect("it works again");
    assert!(ballast.exists());
}

#[test]
fn receipts_without_events_share_a_commit_each_50_ms_and_events_wait_for_nothing() {
    let dir = TempDir::new().expect("a folder");
    let journal = open(&dir);
    let (stats, log) = (Arc::new(Stats::new()), Logger::root(Discard, o!()));
    let running = journal.start(stats.clone(), Health::new(), &log).expect("a thread");
    let began = Instant::now();
    let mut n_receipts = 0;
    while began.elapsed() < Duration::from_millis(500) {
        let (receipt, given) = Receipt::new();
        running.entries.send(Entry { receipts: vec![receipt], ..Entry::default() }).expect("it runs");
        given.blocking_recv().expect("a receipt");
        n_receipts += 1;
    }
    let n_commits = stats.journal_commits.get();
    // Each waits for its own; the first does not wait.
    let most = began.elapsed().as_millis() as u64 / 50 + 2;
    assert!(n_commits <= most && n_receipts >= 3, "{n_commits} commits for {n_receipts} receipts");
    end(running);
}

#[test]
fn a_sink_that_is_behind_gives_up_its_oldest_when_the_room_is_short_but_never_more_than_the_store_has_had() {
    let dir = TempDir::new().expect("a folder");
    let now = Instant::now();
    let (mut stage, sinks) = stage(&dir, now);
    let (store, ops) = (sinks.add(SINK), sinks.add("ops"));
    for n in 0..8 {
        stage.add(raise(&format!("service-{n}")).1);
    }
    stage.step(now).expect("durable");
    sinks.ask_for_room(true);
    assert_eq!((ops.give_up_to(), store.give_up_to()), (0, 0), "the store has had nothing");
    store.advance(8);
    sinks.ask_for_room(true);
    assert_eq!((ops.give_up_to(), store.give_up_to()), (2, 0));
    ops.advance(2);
    sinks.ask_for_room(true);
    assert_eq!(ops.give_up_to(), 4);
}
