//! The backlog on disk: what is there survives the process, and comes first in the next one.
//!
//! The newest reports are in memory until they are written, usually at once, and as long as the disk takes nothing. A file
//! that turns out to be damaged is put aside with what is in it, and a new one begun: old reports are not worth a host
//! that nobody watches.
//!
//! A spool may itself have filled its disk, and to remove rows needs room, for SQLite's log and to empty that log into the
//! file. So what is receipted is removed in small transactions of its own, before anything is added; and where even these
//! find no room, the file as a whole is removed once everything in it is receipted, which needs none. Reports leave in order,
//! so that comes with the receipts, however full the disk is and whoever has filled it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slog::{Logger, error, info, warn};

use super::file::{Contents, FileError, SpoolFile};
use super::memory::Memory;
use super::spool_dir::{DirError, SpoolDir, Taken};
use super::{Backlog, Waiting};
use crate::error::chain;
use crate::trouble::{Say, Trouble};

/// What may wait in memory while the disk takes nothing.
const MOST_UNWRITTEN: usize = 64 << 20;
/// How much is read at once.
const READ_AHEAD: usize = 64 << 10;
/// How long a disk may fail to read before what is on it is given up. What a cable or a network file system does now and then
/// is over by then; what is behind the reports that cannot be read waits meanwhile.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error(transparent)]
    Taken(Taken),
    #[error("using the spool directory {}", dir.display())]
    Dir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening the spool {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: FileError,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: SpoolDir,
    /// None when a damaged one could not be replaced yet.
    file: Option<SpoolFile>,
    written: Contents,
    /// Whether the file still has reports from before `written.first`.
    has_popped: bool,
    unwritten: Memory,
    /// Reports of the file in memory, from this number on.
    ahead: (i64, VecDeque<Waiting>),
    oldest_since_ms: Option<u64>,
    lost: u64,
    trouble: Trouble,
    /// Since when it cannot be read.
    unreadable: Option<Instant>,
    log: Logger,
    #[cfg(test)]
    fails_to_read: bool,
}

impl Spool {
    /// Takes the directory and opens what is there, or begins anew.
    pub(crate) fn open(dir: &Path, log: Logger) -> Result<Self, SpoolError> {
        let dir = SpoolDir::take(dir).map_err(|err| match err {
            DirError::Taken(taken) => SpoolError::Taken(taken),
            DirError::Io(source) => SpoolError::Dir { dir: dir.to_owned(), source },
        })?;
        let path = dir.file();
        let mut lost = None;
        let opened = match SpoolFile::open(&path) {
            Err(err) if err.is_damage() => {
                lost = SpoolFile::n_in_damaged(&path);
                put_aside(&dir, &err, lost, &log);
                SpoolFile::open(&path)
            }
            opened => opened,
        };
        let (file, written) = opened.map_err(|source| SpoolError::File { path, source })?;
        if written.n_reports > 0 {
            info!(log, "the spool has reports of earlier runs, which go first"; "reports" => written.n_reports,
                "epochs" => written.n_epochs, "bytes" => written.bytes);
        }
        Ok(Self {
            dir,
            file: Some(file),
            written,
            has_popped: false,
            unwritten: Memory::default(),
            ahead: (0, VecDeque::new()),
            oldest_since_ms: None,
            lost: lost.unwrap_or_default(),
            trouble: Trouble::default(),
            unreadable: None,
            log,
            #[cfg(test)]
            fails_to_read: false,
        })
    }

    /// The number of the first report that is not written.
    fn next(&self) -> i64 {
        self.written.first + self.written.n_reports as i64
    }

    /// Asks the file. One that is damaged, or has had no answer for long, is given up: what cannot be read would hold up
    /// everything behind it for ever.
    fn ask<T>(&mut self, question: impl FnOnce(&SpoolFile) -> Result<T, FileError>) -> Option<T> {
        let file = self.file.as_ref()?;
        #[cfg(test)]
        let question = |file: &SpoolFile| if self.fails_to_read { Err(tests::read_error()) } else { question(file) };
        match question(file) {
            Ok(answer) => {
                if let Some(since) = self.unreadable.take() {
                    info!(self.log, "the spool is read again"; "after_seconds" => since.elapsed().as_secs());
                }
                Some(answer)
            }
            Err(err) => {
                if err.is_damage() || self.unreadable.is_some_and(|since| since.elapsed() > READ_PATIENCE) {
                    self.give_up(&err);
                } else if self.unreadable.is_none() {
                    warn!(self.log, "cannot read the spool: what is in it waits, and is given up if that does not pass";
                        "error" => chain(&err), "path" => %self.dir.file().display(), "reports" => self.written.n_reports);
                    self.unreadable = Some(Instant::now());
                }
                None
            }
        }
    }

    fn give_up(&mut self, err: &FileError) {
        self.lost += self.written.n_reports;
        // Closed first, so that nothing is written to what is put aside.
        self.file = None;
        put_aside(&self.dir, err, Some(self.written.n_reports), &self.log);
        self.written = Contents { first: 1, ..Contents::default() };
        self.has_popped = false;
        self.ahead.1.clear();
        self.oldest_since_ms = None;
        self.unreadable = None;
        self.file = begin_anew(&self.dir).ok();
    }

    /// Removes the file, in which nothing waits any more.
    fn begin_over(&mut self) {
        // Closed first: what it writes then goes with it.
        self.file = None;
        self.has_popped = false;
        // One that cannot be removed is put aside when the new one is begun.
        let _ = self.dir.remove_file();
    }

    fn write(&mut self) -> Result<(), FileError> {
        let (first, next) = (self.written.first, self.next());
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(begin_anew(&self.dir)?),
        };
        if self.has_popped {
            file.remove(first)?;
            self.has_popped = false;
            // Not worth a word: it is tried again with the next receipt, and free pages are used again.
            let _ = file.shrink();
        }
        if self.unwritten.len() > 0 {
            file.add(next, self.unwritten.iter())?;
        }
        Ok(())
    }

    fn note_failure(&mut self, err: &FileError) {
        let path = self.dir.file();
        let waiting = self.unwritten.len();
        match self.trouble.happened(1, Instant::now()) {
            Say::First => {
                warn!(self.log, "cannot write the spool: reports are kept in memory meanwhile, where a kill would lose them";
                "error" => chain(err), "path" => %path.display(), "in_memory" => waiting)
            }
            Say::Again(episode) => warn!(self.log, "still cannot write the spool"; "error" => chain(err),
                "path" => %path.display(), "in_memory" => waiting, "for_seconds" => episode.seconds()),
            Say::Nothing => {}
        }
    }
}

/// An empty file. One that could not be put aside is there still.
fn begin_anew(dir: &SpoolDir) -> Result<SpoolFile, FileError> {
    match SpoolFile::open(&dir.file()) {
        Ok((file, contents)) if contents.n_reports == 0 => return Ok(file),
        Err(err) if !err.is_damage() => return Err(err),
        Ok(_) | Err(_) => {}
    }
    let failed = |err| FileError::NotInOrder(format!("the damaged one cannot be put aside: {err}"));
    dir.put_aside().map_err(failed)?;
    Ok(SpoolFile::open(&dir.file())?.0)
}

fn put_aside(dir: &SpoolDir, err: &FileError, n_lost: Option<u64>, log: &Logger) {
    match dir.put_aside() {
        Ok(aside) => error!(log, "the spool is damaged: it is put aside, and a new one begun"; "error" => chain(err),
            "put_aside" => %aside.display(), "reports_lost" => n_lost),
        Err(source) => error!(log, "the spool is damaged, and cannot be put aside"; "error" => chain(err),
            "because" => chain(&source), "path" => %dir.file().display(), "reports_lost" => n_lost),
    }
}

impl Backlog for Spool {
    fn push(&mut self, waiting: Waiting) {
        self.unwritten.push(waiting);
    }

    fn get(&mut self, position: u64) -> Option<Waiting> {
        if position >= self.written.n_reports {
            return self.unwritten.get(position - self.written.n_reports);
        }
        let id = self.written.first + position as i64;
        let (from, ahead) = &self.ahead;
        let is_ahead = *from <= id && id < from + ahead.len() as i64;
        if !is_ahead {
            let read = self.ask(|file| file.read(id, READ_AHEAD))?;
            self.ahead = (id, read.into());
        }
        let (from, ahead) = &self.ahead;
        ahead.get((id - from) as usize).cloned()
    }

    fn oldest_since_ms(&mut self) -> Option<u64> {
        if self.written.n_reports == 0 {
            return self.unwritten.oldest_since_ms();
        }
        if self.oldest_since_ms.is_none() {
            let id = self.written.first;
            self.oldest_since_ms = self.ask(|file| file.since_ms(id));
        }
        // While it cannot be read nothing is too old, but it may be too much.
        self.oldest_since_ms.or(self.unreadable.map(|_| u64::MAX))
    }

    fn pop(&mut self, n_reports: u64) {
        let n_written = n_reports.min(self.written.n_reports);
        self.unwritten.pop(n_reports - n_written);
        if n_written == 0 {
            return;
        }
        let first = self.written.first;
        let their_share = (self.written.bytes as u64 / self.written.n_reports * n_written) as usize;
        self.written.first += n_written as i64;
        self.written.n_reports -= n_written;
        self.has_popped = true;
        self.oldest_since_ms = None;
        let end = self.written.first;
        let bytes = self.ask(|file| file.cost(first, end)).unwrap_or(their_share);
        self.written.bytes = self.written.bytes.saturating_sub(bytes);
        if self.written.n_reports == 0 {
            self.written.bytes = 0;
            self.ahead.1 = VecDeque::new();
        }
    }

    fn flush(&mut self) {
        if self.unwritten.len() == 0 && !self.has_popped {
            return;
        }
        let mut result = self.write();
        if let Err(err) = &result
            && self.file.is_some()
        {
            if err.is_damage() {
                self.give_up(err);
                result = self.write();
            } else if self.written.n_reports == 0 {
                self.begin_over();
                result = self.write();
            }
        }
        match result {
            Ok(()) => {
                self.written.n_reports += self.unwritten.len();
                self.written.bytes += self.unwritten.bytes();
                self.unwritten = Memory::default();
                if let Some(episode) = self.trouble.over() {
                    info!(self.log, "the spool is written again"; "after_seconds" => episode.seconds());
                }
            }
            Err(err) => self.note_failure(&err),
        }
    }

    fn len(&self) -> u64 {
        self.written.n_reports + self.unwritten.len()
    }

    fn is_over(&self, bytes: usize) -> bool {
        self.written.bytes + self.unwritten.bytes() > bytes || self.unwritten.is_over(MOST_UNWRITTEN)
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn n_lasting(&self) -> u64 {
        self.written.n_reports
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use slog::{Discard, o};
    use tempfile::TempDir;

    use super::*;
    use crate::codec::Encoded;

    /// What SQLite makes of a disk that cannot be read.
    pub(super) fn read_error() -> FileError {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ), None).into()
    }

    fn open(dir: &TempDir) -> Spool {
        Spool::open(dir.path(), Logger::root(Discard, o!())).expect("it can be used")
    }

    fn report(n: u64) -> Waiting {
        Waiting { epoch: u64::MAX, since_ms: n, report: Encoded::copy_from_slice(&[n as u8; 300]) }
    }

    fn push(spool: &mut Spool, n_reports: u64) {
        (0..n_reports).for_each(|n| spool.push(report(n)));
        spool.flush();
    }

    fn all(spool: &mut Spool) -> Vec<Waiting> {
        (0..).map_while(|position| spool.get(position)).collect()
    }

    fn reports(n_reports: u64) -> Vec<Waiting> {
        (0..n_reports).map(report).collect()
    }

    #[test]
    fn what_was_written_is_there_unchanged_in_the_next_process() {
        let dir = TempDir::new().expect("a folder");
        push(&mut open(&dir), 1000);
        let mut spool = open(&dir);
        assert_eq!(all(&mut spool), reports(1000));
        assert!(spool.is_over(1000 * report(0).cost() - 1) && !spool.is_over(1000 * report(0).cost()));
        assert_eq!(spool.oldest_since_ms(), Some(0));
        spool.pop(400);
        assert_eq!((spool.get(0), spool.oldest_since_ms()), (Some(report(400)), Some(400)));
        assert!(!spool.is_over(600 * report(0).cost()));
        spool.flush();
        drop(spool);
        assert_eq!(all(&mut open(&dir)), reports(1000)[400..]);
    }

    #[test]
    fn a_directory_has_one_process() {
        let dir = TempDir::new().expect("a folder");
        let _first = open(&dir);
        let refused = Spool::open(dir.path(), Logger::root(Discard, o!())).expect_err("it is taken").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_put_aside() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("spool.db");
        for text in ["this is no database, and longer than nothing".repeat(100), "short".to_owned()] {
            fs::write(&path, &text).expect("written");
            let mut spool = open(&dir);
            push(&mut spool, 3);
            assert_eq!(all(&mut spool), reports(3));
            assert_eq!(fs::read_to_string(dir.path().join("spool.db.damaged")).expect("put aside"), text);
            drop(spool);
            fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn a_file_that_lost_its_end_or_a_page_loses_reports_and_stops_nobody() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("spool.db");
        for damage in 0..40 {
            push(&mut open(&dir), 1000);
            let mut bytes = fs::read(&path).expect("read");
            if damage < 10 {
                bytes.truncate(bytes.len() * damage / 10);
            } else {
                let at = (bytes.len() / 30) * (damage - 10);
                bytes[at..at + 64].fill(0xA5);
            }
            fs::write(&path, bytes).expect("written");

            let mut spool = open(&dir);
            let n_unopened = spool.take_lost();
            assert!([0, 1000].contains(&(spool.len() + n_unopened)), "damage {damage}: {n_unopened} of 1000");
            let n_before = spool.len();
            let mut n_read = 0;
            while spool.lost == 0 && spool.get(n_read).is_some() {
                n_read += 1;
            }
            assert_eq!(n_read.max(spool.take_lost()), n_before, "damage {damage}");
            let n_left = spool.len();
            push(&mut spool, 5);
            assert_eq!(spool.get(n_left + 4), Some(report(4)), "damage {damage}");
            assert_eq!(spool.n_lasting(), n_left + 5, "damage {damage}");
            drop(spool);
            fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn a_report_that_was_changed_is_never_handed_out() {
        let dir = TempDir::new().expect("a folder");
        push(&mut open(&dir), 3);
        let file = rusqlite::Connection::open(dir.path().join("spool.db")).expect("opened");
        file.execute("UPDATE reports SET report = zeroblob(300) WHERE id = 2", []).expect("changed");
        drop(file);
        let mut spool = open(&dir);
        assert_eq!((spool.len(), spool.get(0)), (3, None));
        assert_eq!((spool.len(), spool.take_lost()), (0, 3));
    }

    #[test]
    fn on_a_full_disk_reports_wait_in_memory_and_are_written_in_order_when_there_is_room() {
        let dir = TempDir::new().expect("a folder");
        let mut spool = open(&dir);
        push(&mut spool, 10);
        spool.file.as_ref().expect("it is open").fill_disk(true);
        for n in 10..100 {
            spool.push(report(n));
            spool.flush();
        }
        assert!(spool.trouble.is_there());
        assert!(spool.n_lasting() < 100);
        assert_eq!(all(&mut spool), reports(100));
        // A receipt meanwhile counts, whether or not its reports can be removed.
        spool.pop(5);
        spool.flush();
        assert_eq!(spool.get(0), Some(report(5)));
        spool.file.as_ref().expect("it is open").fill_disk(false);
        spool.flush();
        assert!(!spool.trouble.is_there());
        assert_eq!(spool.n_lasting(), 95);
        drop(spool);
        assert_eq!(all(&mut open(&dir)), reports(100)[5..]);
    }

    /// A spool that had filled its own file system used to stay full for ever, with rows in it that were receipted long ago.
    #[test]
    fn a_file_that_nothing_can_be_written_to_is_made_anew_once_everything_in_it_is_receipted() {
        let dir = TempDir::new().expect("a folder");
        let mut spool = open(&dir);
        push(&mut spool, 10);
        // Not even to remove rows.
        spool.file.as_ref().expect("it is open").refuse_writes();
        (10..20).for_each(|n| spool.push(report(n)));
        spool.pop(9);
        spool.flush();
        assert!(spool.trouble.is_there());
        assert_eq!(spool.get(0), Some(report(9)), "what has no receipt is not given up");
        spool.pop(1);
        spool.flush();
        assert!(!spool.trouble.is_there());
        assert_eq!((spool.len(), spool.n_lasting()), (10, 10));
        drop(spool);
        assert_eq!(all(&mut open(&dir)), reports(20)[10..]);
    }

    #[test]
    fn a_disk_that_cannot_be_read_for_a_moment_costs_nothing() {
        let dir = TempDir::new().expect("a folder");
        push(&mut open(&dir), 10);
        let mut spool = open(&dir);
        spool.fails_to_read = true;
        assert_eq!((spool.get(3), spool.oldest_since_ms()), (None, Some(u64::MAX)));
        // What makes room meanwhile does so, and its size is reckoned.
        spool.pop(1);
        assert!(!spool.is_over(9 * report(0).cost()));
        spool.fails_to_read = false;
        assert_eq!(spool.take_lost(), 0);
        assert_eq!(all(&mut spool), reports(10)[1..]);
        assert_eq!(spool.unreadable, None);
    }

    #[test]
    fn a_disk_that_cannot_be_read_for_long_is_given_up() {
        let dir = TempDir::new().expect("a folder");
        push(&mut open(&dir), 10);
        let mut spool = open(&dir);
        spool.fails_to_read = true;
        assert_eq!(spool.get(0), None);
        spool.unreadable = Instant::now().checked_sub(2 * READ_PATIENCE);
        assert_eq!((spool.get(0), spool.take_lost(), spool.len()), (None, 10, 0));
    }

    #[test]
    fn what_a_file_had_that_cannot_be_opened_is_counted_as_lost() {
        let dir = TempDir::new().expect("a folder");
        push(&mut open(&dir), 10);
        let file = rusqlite::Connection::open(dir.path().join("spool.db")).expect("opened");
        file.execute("DELETE FROM reports WHERE id = 5", []).expect("changed");
        drop(file);
        let mut spool = open(&dir);
        assert_eq!((spool.len(), spool.take_lost()), (0, 10));
    }

    #[test]
    fn after_an_outage_the_file_is_small_again() {
        let dir = TempDir::new().expect("a folder");
        let mut spool = open(&dir);
        push(&mut spool, 50_000);
        let size = || fs::metadata(dir.path().join("spool.db")).expect("there").len();
        for _ in 0..50 {
            spool.pop(1000);
            spool.flush();
        }
        drop(spool);
        assert!(size() < 6 << 20, "{}", size());
    }
}
