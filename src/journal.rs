//! Stage 4: the local durable log of events, and of how far each instance has come.
//!
//! One thread, one SQLite file, one transaction per commit: events as whole rows, instances as they were behind them.
//! It never waits to gather: it commits what arrived during the last commit. Receipts are given when the commit that
//! holds them is done (I9); everything behind it is a cursor on it (I10).

mod file;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use slog::{Logger, error, info};
use uuid::Uuid;

pub use file::{JournalError, Reader};
pub use record::{RestoredInstance, Snapshot};

use crate::{
    dispatch::Receipt,
    health::{Condition, Health},
    model::{Alert, Event, EventKind, Timestamp},
    rules::RuleRecord,
    stats::Stats,
};
use file::File;

/// Entries that may wait for a commit, and most of one. Each is of one batch, so that this bounds the events in
/// memory (I1).
const MAX_WAITING_ENTRIES: usize = 64;
/// Events of one commit, but for the entry that goes past it.
const MAX_COMMIT_EVENTS: usize = 1_000;
/// How often an idle journal saves its cursors and drops what every sink has had for long.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// Waits before a failed commit is tried again: doubling between these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a lane gives to the journal at once: all of it becomes durable together.
#[derive(Debug, Default)]
pub struct Entry {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The instances as they are behind these events.
    pub snapshots: Vec<Snapshot>,
    /// The rules in force from here on, if they have changed.
    pub rules: Option<Vec<RuleRecord>>,
    /// To be given once this is durable.
    pub receipts: Vec<Receipt>,
}

impl Entry {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.snapshots.is_empty() && self.receipts.is_empty() && self.rules.is_none()
    }
}

/// How far one sink has come: it has had every event up to this number.
#[derive(Clone, Debug)]
pub struct SinkCursor {
    name: &'static str,
    position: Arc<AtomicU64>,
    doorbell: Receiver<()>,
}

impl SinkCursor {
    /// The number of the last event delivered.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Every event up to `seq` is delivered. Saved with the next commit: until then a crash delivers again (I10).
    pub fn advance(&self, seq: u64) {
        self.position.store(seq, Ordering::Release);
    }

    /// Rings after each commit with events.
    pub fn doorbell(&self) -> &Receiver<()> {
        &self.doorbell
    }
}

/// What the journal is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that the file is in.
    pub data_dir: PathBuf,
    /// Largest size of the file, in bytes.
    pub max_bytes: u64,
    /// The sinks by name, each of which gets a cursor.
    pub sinks: &'static [&'static str],
}

/// An opened journal, not yet running: what it remembers, and the means to begin.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    sinks: Vec<Sink>,
}

#[derive(Debug)]
struct Sink {
    cursor: SinkCursor,
    ring: Sender<()>,
    saved: u64,
}

/// A running journal.
#[derive(Debug)]
pub struct Running {
    /// The entrance. The journal ends when every clone of it is gone (I8).
    pub entries: Sender<Entry>,
    /// Ends with an error if the journal can no longer be trusted.
    pub thread: JoinHandle<Result<(), JournalError>>,
}

impl Journal {
    /// Opens, or creates, the journal in the data directory.
    pub fn open(options: &Options) -> Result<Self, JournalError> {
        let path = options.data_dir.join("journal.db");
        let file = File::open(&path, options.max_bytes)?;
        let sinks = options.sinks.iter().map(|name| {
            let saved = file.cursor(name)?;
            let (ring, doorbell) = bounded(1);
            let cursor = SinkCursor { name, position: Arc::new(AtomicU64::new(saved)), doorbell };
            Ok(Sink { cursor, ring, saved })
        });
        let sinks = sinks.collect::<Result<_, JournalError>>()?;
        Ok(Self { file, path, sinks })
    }

    /// Who this server is, as its rows say: made with the journal.
    pub fn server_id(&self) -> Uuid {
        self.file.server_id()
    }

    /// Every instance that the journal remembers.
    pub fn restore(&self) -> Result<Vec<RestoredInstance>, JournalError> {
        self.file.instances()
    }

    /// The rules that were in force.
    pub fn rules(&self) -> Result<Vec<RuleRecord>, JournalError> {
        self.file.rules()
    }

    /// The number of the last event.
    pub fn last_seq(&self) -> u64 {
        self.file.last_seq()
    }

    /// The cursor of a sink that the options named.
    pub fn cursor(&self, name: &str) -> Option<SinkCursor> {
        self.sinks.iter().map(|sink| &sink.cursor).find(|cursor| cursor.name == name).cloned()
    }

    /// A connection to read events by, for one sink.
    pub fn reader(&self) -> Result<Reader, JournalError> {
        Reader::open(&self.path)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to take entries.
    pub fn start(self, stats: Arc<Stats>, health: Health, log: &Logger) -> io::Result<Running> {
        let (entries, input) = bounded(MAX_WAITING_ENTRIES);
        stats.events.set(self.file.last_seq());
        health.set("journal", Condition::Ok, self.path.display().to_string());
        let log = log.new(slog::o!("thread" => "journal"));
        let stage = Stage { file: self.file, sinks: self.sinks, stats, health, log, last_clean: Instant::now() };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || stage.run(&input))?;
        Ok(Running { entries, thread })
    }
}

struct Stage {
    file: File,
    sinks: Vec<Sink>,
    stats: Arc<Stats>,
    health: Health,
    log: Logger,
    last_clean: Instant,
}

impl Stage {
    fn run(mut self, input: &Receiver<Entry>) -> Result<(), JournalError> {
        loop {
            let mut entries = match input.recv_timeout(HOUSEKEEPING_EVERY) {
                Ok(entry) => vec![entry],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut n_events = entries.first().map_or(0, |entry| entry.events.len());
            while n_events < MAX_COMMIT_EVENTS && (1..MAX_WAITING_ENTRIES).contains(&entries.len()) {
                let Ok(entry) = input.try_recv() else { break };
                n_events += entry.events.len();
                entries.push(entry);
            }
            self.commit(entries)?;
        }
        self.commit(Vec::new())?;
        self.file.close()
    }

    /// Makes the entries durable, however often that takes, and tells everybody.
    fn commit(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let delivered = self.delivered();
        // In a storm old events are dropped as fast as new ones come; else now and then.
        let clean = self.last_clean.elapsed() >= HOUSEKEEPING_EVERY || self.file.has_too_many(delivered);
        let moved = self.sinks.iter().any(|sink| sink.saved != sink.cursor.position());
        if entries.is_empty() && !moved && !(clean && self.file.has_old(delivered)) {
            return Ok(());
        }
        let mut wait = RETRY_WAIT.0;
        let began = loop {
            let began = Instant::now();
            let cursors = self.cursors();
            match self.file.commit(&entries, &cursors, clean.then_some(delivered)) {
                Ok(()) => {
                    self.saved(&cursors);
                    break began;
                }
                Err(err) if err.is_transient() => self.cannot_write(&err)?,
                Err(err) => {
                    error!(self.log, "the journal cannot be trusted any longer: stopping";
                        "error" => crate::log::chain(&err));
                    return Err(err);
                }
            }
            thread::sleep(wait);
            wait = (wait * 2).min(RETRY_WAIT.1);
        };
        if self.health.set("journal", Condition::Ok, self.file.path().display().to_string()) {
            info!(self.log, "the journal writes again");
        }
        if clean {
            self.last_clean = Instant::now();
        }
        self.told(entries, began);
        Ok(())
    }

    /// Says so, and makes what room there is: sinks go on while the journal cannot write, and what they have had since
    /// can go.
    fn cannot_write(&mut self, err: &JournalError) -> Result<(), JournalError> {
        let reason = crate::log::chain(err);
        if self.health.set("journal", Condition::Degraded, format!("cannot write: {reason}")) {
            error!(self.log, "the journal cannot write: receipts wait until it can"; "error" => reason);
        }
        self.stats.journal_errors.inc();
        let cursors = self.cursors();
        match self.file.make_room(&cursors, self.delivered()) {
            Ok(()) => self.saved(&cursors),
            Err(err) if err.is_transient() => {}
            Err(err) => return Err(err),
        }
        Ok(())
    }

    /// Every sink has had the events up to this number.
    fn delivered(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.cursor.position()).min().unwrap_or(0)
    }

    fn cursors(&self) -> Vec<(&'static str, u64)> {
        self.sinks.iter().map(|sink| (sink.cursor.name, sink.cursor.position())).collect()
    }

    fn saved(&mut self, cursors: &[(&'static str, u64)]) {
        self.sinks.iter_mut().zip(cursors).for_each(|(sink, (_, position))| sink.saved = *position);
    }

    /// The commit is done: gives the receipts, wakes the sinks, counts.
    fn told(&self, entries: Vec<Entry>, began: Instant) {
        self.stats.journal_commits.inc();
        self.stats.journal_commit.observe(began.elapsed().as_secs_f64());
        self.stats.events.set(self.file.last_seq());
        let now = Timestamp::now();
        let mut any_event = false;
        for entry in entries {
            any_event |= !entry.events.is_empty();
            for event in entry.events.iter().filter(|event| event.kind == EventKind::Raise) {
                let Alert { triggered_at, received_at, .. } = *event.alert;
                self.stats.raise_received.observe(received_at.since(triggered_at).as_secs_f64());
                self.stats.raise_durable.observe(now.since(received_at).as_secs_f64());
            }
            entry.receipts.into_iter().for_each(Receipt::give);
        }
        if any_event {
            for sink in &self.sinks {
                // A full doorbell rings already.
                let _ = sink.ring.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
