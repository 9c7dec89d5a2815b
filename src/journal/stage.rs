//! The journal's thread: takes entries, commits them, and tells everybody.
//!
//! While the journal cannot commit, receipts wait and lanes do not: entries are held in memory, up to a bound (I1), and
//! what they raise is told to receivers at once. It goes on by itself when it can commit again.

use std::{
    collections::HashSet,
    mem,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use slog::{Logger, error, info, warn};

use super::{
    Entry,
    error::JournalError,
    file::{Batch, File},
    sinks::{Changes, Sinks},
};
use crate::{
    dispatch::Receipt,
    health::{Condition, Health},
    log::chain,
    model::{Alert, Event, EventKind, InstanceKey, Name, Timestamp},
    stats::Stats,
};

/// Events of one commit, but for the entry that goes past it. Many are changes of the same pages of instances: of 10,000 a
/// thousand events write half the pages again, and four thousand little more.
const MAX_COMMIT_EVENTS: usize = 4_000;
/// What may wait in memory while nothing can be committed, by [`Entry::weight`]; then lanes block.
const MAX_UNCOMMITTED: usize = 100_000;
/// From one commit to the next where neither holds an event: receipts that come meanwhile share it.
const PROGRESS_PACE: Duration = Duration::from_millis(50);
/// How often an idle journal saves its cursors and drops what every sink has had for long.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// Waits before a failed commit is tried again: doubling between these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// From here on sinks that may are asked to give up events.
const SHORT_OF_ROOM: f64 = 0.9;
/// From here on the operator is told.
const NEARLY_FULL: f64 = 0.8;

/// Where entries become durable: the file, and in simulations one that fails.
pub(crate) trait Disk {
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), JournalError>;
    fn make_room(&mut self, sinks: &Changes, delivered: u64) -> Result<(), JournalError>;
    fn file(&self) -> &File;
}

impl Disk for File {
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), JournalError> {
        Self::commit(self, batch)
    }

    fn make_room(&mut self, sinks: &Changes, delivered: u64) -> Result<(), JournalError> {
        Self::make_room(self, sinks, delivered)
    }

    fn file(&self) -> &File {
        self
    }
}

pub(crate) struct Stage<D> {
    pub(crate) disk: D,
    pub(super) sinks: Sinks,
    pub(super) stats: Arc<Stats>,
    pub(super) health: Health,
    pub(super) log: Logger,
    /// [`MAX_COMMIT_EVENTS`], but in simulations, which have few events.
    pub(crate) max_commit_events: usize,
    waiting: Waiting,
    last_clean: Instant,
    last_commit: Option<Instant>,
    /// When a commit that failed is tried again, and how long to wait if it fails then.
    retry: Option<(Instant, Duration)>,
    /// Whose end waits to be written down, and is told only then: instances and rules.
    untold: HashSet<(Arc<InstanceKey>, Name)>,
}

/// Entries that are not durable yet, oldest first.
#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    weight: usize,
    n_events: usize,
}

impl<D: Disk> Stage<D> {
    pub(super) fn new(disk: D, sinks: Sinks, (stats, health): (Arc<Stats>, Health), log: Logger, now: Instant) -> Self {
        Self {
            disk,
            sinks,
            stats,
            health,
            log,
            max_commit_events: MAX_COMMIT_EVENTS,
            waiting: Waiting::default(),
            last_clean: now,
            last_commit: None,
            retry: None,
            untold: HashSet::new(),
        }
    }

    /// Takes and commits until the input is disconnected and everything is durable.
    pub(super) fn run(mut self, input: &Receiver<Entry>) -> Result<D, JournalError> {
        loop {
            let now = Instant::now();
            let is_full = self.waiting.weight >= MAX_UNCOMMITTED;
            match self.due(now) {
                due if due <= now => self.step(now)?,
                // Nobody can be told more: lanes block.
                due if is_full => thread::sleep(due - now),
                due => match input.recv_deadline(due) {
                    Ok(entry) => self.take(entry, input),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            }
        }
        // As long as it takes: whoever has no patience left ends the process.
        while !self.is_done() {
            self.step(Instant::now())?;
            let now = Instant::now();
            thread::sleep(self.retry.map_or(Duration::ZERO, |(due, _)| due.saturating_duration_since(now)));
        }
        self.step(Instant::now())?;
        Ok(self.disk)
    }

    /// Whether everything that was taken is durable.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.entries.is_empty()
    }

    /// When there is next something to do without anybody sending anything.
    fn due(&self, now: Instant) -> Instant {
        match (self.retry, self.last_commit) {
            (Some((due, _)), _) => due,
            (None, _) if self.waiting.n_events > 0 => now,
            (None, Some(last)) if !self.waiting.entries.is_empty() => last + PROGRESS_PACE,
            (None, None) if !self.waiting.entries.is_empty() => now,
            (None, _) => self.last_clean + HOUSEKEEPING_EVERY,
        }
    }

    /// Takes the entry, and what has come behind it.
    pub(crate) fn take(&mut self, entry: Entry, input: &Receiver<Entry>) {
        let mut next = Some(entry);
        while let Some(entry) = next {
            self.add(entry);
            // What came during the last commit goes into the next one: there is no waiting to gather.
            let has_enough = self.retry.is_none() && self.waiting.n_events >= self.max_commit_events;
            next = if has_enough || self.waiting.weight >= MAX_UNCOMMITTED { None } else { input.try_recv().ok() };
        }
    }

    pub(crate) fn add(&mut self, entry: Entry) {
        if self.retry.is_some() {
            entry.events.iter().for_each(|event| tell_directly(&self.sinks, &mut self.untold, event));
        }
        self.waiting.weight += entry.weight();
        self.waiting.n_events += entry.events.len();
        self.waiting.entries.push(entry);
    }

    /// Makes what waits durable, a commit's worth of it, or notes that it cannot be.
    pub(crate) fn step(&mut self, now: Instant) -> Result<(), JournalError> {
        let delivered = self.sinks.delivered();
        // In a storm old events are dropped as fast as new ones come; else now and then.
        let is_time = now.saturating_duration_since(self.last_clean) >= HOUSEKEEPING_EVERY;
        let clean = is_time || self.disk.file().has_too_many(delivered);
        let sinks = self.sinks.changes();
        let n_entries = self.waiting.commit_size(self.max_commit_events);
        let nothing = n_entries == 0 && sinks.is_empty();
        if !(nothing && !(clean && self.disk.file().has_old(delivered))) {
            let entries = &self.waiting.entries[..n_entries];
            let batch = Batch { entries, sinks: &sinks, drop_to: clean.then_some(delivered) };
            if let Err(err) = self.disk.commit(batch) {
                return self.cannot_write(err, now);
            }
            self.last_commit = Some(now);
            self.sinks.saved(&sinks);
            if mem::take(&mut self.retry).is_some() {
                self.untold.clear();
                info!(self.log, "the journal writes again");
                self.look_at_room()?;
            }
            self.told(n_entries, now);
        }
        if is_time {
            self.last_clean = now;
            self.look_at_room()?;
        }
        Ok(())
    }

    /// Says so, and makes what room there is: sinks go on while the journal cannot write, and what they have had since
    /// can go.
    fn cannot_write(&mut self, err: JournalError, now: Instant) -> Result<(), JournalError> {
        if !err.is_transient() {
            error!(self.log, "the journal cannot be trusted any longer: stopping"; "error" => chain(&err));
            return Err(err);
        }
        let reason = chain(&err);
        self.health.set("journal", Condition::Degraded, format!("cannot write: {reason}"));
        if self.retry.is_none() {
            error!(self.log, "the journal cannot write: receipts wait until it can"; "error" => reason);
            let events = self.waiting.entries.iter().flat_map(|entry| &entry.events);
            events.for_each(|event| tell_directly(&self.sinks, &mut self.untold, event));
        }
        self.stats.journal_errors.inc();
        let wait = self.retry.map_or(RETRY_WAIT.0, |(_, wait)| wait);
        self.retry = Some((now + wait, (wait * 2).min(RETRY_WAIT.1)));
        self.sinks.ask_for_room(err.is_limit_of_file());
        self.disk.file().space().throw_ballast();
        self.make_room()
    }

    /// Drops what every sink has had, however young, if the disk has room for that.
    fn make_room(&mut self) -> Result<(), JournalError> {
        let sinks = self.sinks.changes();
        match self.disk.make_room(&sinks, self.sinks.delivered()) {
            Ok(()) => self.sinks.saved(&sinks),
            Err(err) if err.is_transient() => {}
            Err(err) => return Err(err),
        }
        Ok(())
    }

    /// Looks how full the file is, once a second, and has the ballast ready.
    fn look_at_room(&mut self) -> Result<(), JournalError> {
        if self.disk.file().fill() >= NEARLY_FULL {
            self.make_room()?;
        }
        let file = self.disk.file();
        let fill = file.fill();
        self.stats.journal_fill.set(fill);
        if fill >= SHORT_OF_ROOM {
            self.sinks.ask_for_room(true);
        }
        if self.retry.is_some() {
            return Ok(());
        }
        if let Err(err) = file.space().take_ballast() {
            warn!(self.log, "no ballast for the journal: a disk that fills up may have to be freed by hand";
                "error" => %err);
        }
        let path = file.path().display();
        if fill >= NEARLY_FULL {
            let percent = fill * 100.0;
            let detail = format!(
                "{path}: {percent:.0} % of --journal-max in use: when it is full receipts wait until the store has had \
                 what is in it"
            );
            if self.health.set("journal", Condition::Degraded, detail) {
                warn!(self.log, "the journal is nearly full"; "percent" => format!("{percent:.0}"));
            }
        } else {
            self.health.set("journal", Condition::Ok, path.to_string());
        }
        Ok(())
    }

    /// These entries are durable: gives the receipts, wakes the sinks, counts.
    fn told(&mut self, n_entries: usize, began: Instant) {
        self.stats.journal_commits.inc();
        self.stats.journal_commit.observe(began.elapsed().as_secs_f64());
        let last_seq = self.disk.file().last_seq();
        self.stats.events.set(last_seq);
        let now = Timestamp::now();
        for entry in self.waiting.take(n_entries) {
            for event in entry.events.iter().filter(|event| event.kind == EventKind::Raise) {
                let Alert { triggered_at, received_at, .. } = *event.alert;
                self.stats.raise_received.observe(received_at.since(triggered_at).as_secs_f64());
                self.stats.raise_durable.observe(now.since(received_at).as_secs_f64());
            }
            entry.receipts.into_iter().for_each(Receipt::give);
        }
        self.sinks.committed(last_seq);
    }
}

/// Gives a raise that cannot be committed now to those who would rather hear of it twice than late, unless the end of the
/// rule's alert before it waits, too: nobody is to take that for the end of this one, and until then they know that it fires.
fn tell_directly(sinks: &Sinks, untold: &mut HashSet<(Arc<InstanceKey>, Name)>, event: &Event) {
    let whose = || (event.alert.key.clone(), event.alert.rule.clone());
    match event.kind {
        EventKind::Raise if !untold.contains(&whose()) => sinks.tell_directly(event),
        EventKind::Resolve => {
            untold.insert(whose());
        }
        _ => {}
    }
}

impl Waiting {
    /// How many entries the next commit takes.
    fn commit_size(&self, max_events: usize) -> usize {
        let mut n_events = 0;
        let begins = |entry: &&Entry| {
            let fits = n_events < max_events;
            n_events += entry.events.len();
            fits
        };
        self.entries.iter().take_while(begins).count()
    }

    fn take(&mut self, n_entries: usize) -> Vec<Entry> {
        let rest = self.entries.split_off(n_entries);
        let taken = mem::replace(&mut self.entries, rest);
        for entry in &taken {
            self.weight -= entry.weight();
            self.n_events -= entry.events.len();
        }
        taken
    }
}
