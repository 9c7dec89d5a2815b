//! The journal's thread on a disk that fails, step by step.

use super::*;
use crate::journal::{
    file::Batch,
    sinks::Changes,
    stage::{Disk, Stage},
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
    sinks.ask_for_room();
    assert_eq!((ops.give_up_to(), store.give_up_to()), (0, 0), "the store has had nothing");
    store.advance(8);
    sinks.ask_for_room();
    assert_eq!((ops.give_up_to(), store.give_up_to()), (2, 0));
    ops.advance(2);
    sinks.ask_for_room();
    assert_eq!(ops.give_up_to(), 4);
}
