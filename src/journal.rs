//! Stage 4: the local durable log of events, and of how far each instance has come.
//!
//! One thread, one SQLite file, one transaction per commit: events as whole rows, instances as they were behind them.
//! It never waits to gather events: it commits what arrived during the last commit. Receipts are given when the commit
//! that holds them is done (I9); everything behind it is a cursor on it (I10).

mod error;
mod file;
mod reader;
mod record;
mod seal;
mod sinks;
mod space;
mod stage;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use crossbeam_channel::{Sender, bounded};
use slog::{Logger, error};
use uuid::Uuid;

pub use error::JournalError;
pub use reader::{Reader, Recorded};
pub use record::{RecordError, RestoredInstance, Snapshot};
pub use sinks::{Ahead, DeadLetter, SinkCursor, Sinks};

use crate::{
    dispatch::Receipt,
    health::{Condition, Health},
    log::chain,
    model::Event,
    rules::RuleRecord,
    stats::Stats,
};
use file::File;
use stage::{Disk, Stage};

/// Entries that may wait for the journal's thread, beside those that it holds (I1).
const MAX_WAITING_ENTRIES: usize = 64;
/// Events of one entry; more are given in several.
const MAX_ENTRY_EVENTS: usize = 1_000;

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

    /// What it takes in memory, roughly: one for each event, snapshot and receipt.
    fn weight(&self) -> usize {
        self.events.len() + self.snapshots.len() + self.receipts.len()
    }

    /// The same in entries of about a thousand events: none of them takes the journal long, and each instance is in one
    /// of them with all that is told of it. New rules are in the first, receipts in the last.
    pub fn split(self) -> Vec<Self> {
        let n_parts = self.events.len().div_ceil(MAX_ENTRY_EVENTS);
        if n_parts <= 1 {
            return vec![self];
        }
        let mut parts: Vec<_> = (0..n_parts).map(|_| Self::default()).collect();
        let place = |hash: u64| (hash % n_parts as u64) as usize;
        for event in self.events {
            parts[place(event.alert.key.hash())].events.push(event);
        }
        for snapshot in self.snapshots {
            parts[place(snapshot.key.hash())].snapshots.push(snapshot);
        }
        parts[0].rules = self.rules;
        parts[n_parts - 1].receipts = self.receipts;
        parts
    }
}

/// What the journal is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that the file is in.
    pub data_dir: PathBuf,
    /// Largest size of the file, in bytes.
    pub max_bytes: u64,
    /// The sinks that get every event, by name.
    pub sinks: &'static [&'static str],
}

/// An opened journal, not yet running: what it remembers, and the means to begin.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    sinks: Sinks,
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
        let sinks = Sinks::new(file.sinks()?, file.bounds());
        options.sinks.iter().for_each(|name| drop(sinks.add_essential(name)));
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

    /// The sinks: those of the options, and others that come and go. Those that are not there when the journal starts
    /// are forgotten.
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
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
        let log = log.new(slog::o!("thread" => "journal"));
        let stage = self.into_stage(|file| file, (stats, health), log, Instant::now());
        let run = move || stage.run(&input)?.close();
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(run)?;
        Ok(Running { entries, thread })
    }

    /// The stage without its thread, on this disk.
    pub(crate) fn into_stage<D: Disk>(
        self,
        disk: impl FnOnce(File) -> D,
        (stats, health): (Arc<Stats>, Health),
        log: Logger,
        now: Instant,
    ) -> Stage<D> {
        stats.events.set(self.file.last_seq());
        health.set("journal", Condition::Ok, self.path.display().to_string());
        self.sinks.forget_unclaimed();
        Stage::new(disk(self.file), self.sinks, (stats, health), log, now)
    }
}

/// Looks through the file beside everything else, and says what is wrong with it: a start would wait for this for long.
pub fn look_for_damage(reader: Reader, health: Health, log: &Logger) -> io::Result<()> {
    let log = log.new(slog::o!("thread" => "journal-check"));
    let run = move || {
        let damage = match reader.find_damage() {
            Ok(None) => return,
            Ok(Some(damage)) => damage,
            Err(err) => chain(&err),
        };
        let what_now = "let the store take what is in it, then move it away and start again";
        health.set("journal_file", Condition::Degraded, format!("the journal's file is damaged: {damage}; {what_now}"));
        error!(log, "the journal's file is damaged: {}", what_now; "damage" => damage);
    };
    // Nobody waits for it: it reads only, and ends with the process.
    thread::Builder::new().name("journal-check".to_owned()).spawn(run).map(drop)
}

/// What tests elsewhere drive, put their own disk under, or write themselves.
#[cfg(test)]
pub(crate) mod simulated {
    pub(crate) use super::{
        file::{Batch, File},
        seal::seal,
        sinks::Changes,
        stage::{Disk, Stage},
    };
}

#[cfg(test)]
mod tests;
