//! The alert history as a sink: batches of rows into the store, one statement at a time, with retry.
//!
//! A lone violation is written at once. In a storm a statement begins at most every [`PACE`], so that the rows of many
//! commits share it. Told to stop, the writer begins no other statement.

use std::{
    collections::HashSet,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use slog::{Logger, info, warn};

use super::is_over;
use crate::{
    health::{Condition, Health},
    journal::{Reader, SinkCursor},
    log::chain,
    model::{Alert, Event, EventKind, Timestamp},
    stats::Stats,
    store::{AlertStore, StoreError},
};

/// Most events of one statement.
const MAX_BATCH: usize = 1_000;
/// Shortest time from one statement to the next while there is less than a whole batch to write: at 5,000 rows/s this
/// makes 100 rows a statement, and costs a row some 10 ms.
const PACE: Duration = Duration::from_millis(20);
/// Waits before a failed statement is tried again: doubling between these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often rows past the retention are looked for, and how many are deleted at once.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_ROWS: u32 = 1_000;

/// What the writer is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long resolved rows are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// The journal's last event of earlier runs.
    pub inherited_seq: u64,
}

/// Starts the thread. It ends when `stop` is disconnected, after the statement in flight.
pub fn start(
    options: Options,
    store: Arc<dyn AlertStore>,
    (reader, cursor): (Reader, SinkCursor),
    stop: Receiver<()>,
    (stats, health): (Arc<Stats>, Health),
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    stats.events_stored.set(cursor.position());
    health.set("store", Condition::Degraded, format!("{}: not reached yet", store.describe()));
    let log = log.new(slog::o!("thread" => "deliver-store"));
    let writer = Writer {
        options,
        store,
        reader,
        cursor,
        stop,
        stats,
        health,
        log,
        prepared: false,
        failing: None,
        max_batch: MAX_BATCH,
        retry_wait: RETRY_WAIT.0,
        last_begin: None,
        last_prune: Instant::now(),
    };
    thread::Builder::new().name("deliver-store".to_owned()).spawn(move || writer.run())
}

/// What the writer does to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Write,
}

struct Writer {
    options: Options,
    store: Arc<dyn AlertStore>,
    reader: Reader,
    cursor: SinkCursor,
    stop: Receiver<()>,
    stats: Arc<Stats>,
    health: Health,
    log: Logger,
    prepared: bool,
    /// What failed last and has not worked since.
    failing: Option<Step>,
    max_batch: usize,
    retry_wait: Duration,
    last_begin: Option<Instant>,
    last_prune: Instant,
}

impl Writer {
    fn run(mut self) {
        while !is_over(&self.stop) {
            if let Err(failure) = self.step() {
                self.failed(&failure);
            }
        }
    }

    /// Writes one batch, or waits for one.
    fn step(&mut self) -> Result<(), Failure> {
        if !self.prepared {
            self.store.prepare()?;
            self.prepared = true;
            self.works(Step::Prepare);
        }
        let mut events = self.reader.read(self.cursor.position(), self.max_batch)?;
        if events.is_empty() {
            self.prune()?;
            return self.wait_for_events();
        }
        let rest = self.last_begin.and_then(|begin| PACE.checked_sub(begin.elapsed()));
        if let Some(rest) = rest.filter(|_| events.len() < self.max_batch) {
            if self.pause(rest).is_break() {
                return Ok(());
            }
            events = self.reader.read(self.cursor.position(), self.max_batch)?;
        }
        if is_over(&self.stop) {
            return Ok(());
        }
        self.write(&events)
    }

    fn write(&mut self, events: &[(u64, Event)]) -> Result<(), Failure> {
        let Some((last_seq, _)) = events.last() else { return Ok(()) };
        let rows = latest_rows(events);
        let begin = Instant::now();
        if !rows.is_empty() {
            self.last_begin = Some(begin);
            self.store.write(&rows)?;
        }
        self.cursor.advance(*last_seq);
        self.stats.store_write.observe(begin.elapsed().as_secs_f64());
        self.stats.store_batches.inc();
        self.stats.store_rows.inc_by(rows.len() as u64);
        self.time_raises(events);
        self.stats.events_stored.set(*last_seq);
        self.max_batch = (self.max_batch * 2).min(MAX_BATCH);
        self.works(Step::Write);
        Ok(())
    }

    /// Takes the time of each raise that is now in the store, once. Those of earlier runs are left out: delivered again,
    /// they may have been there for long.
    fn time_raises(&self, events: &[(u64, Event)]) {
        let now = Timestamp::now();
        let is_ours =
            |(seq, event): &&(u64, Event)| event.kind == EventKind::Raise && *seq > self.options.inherited_seq;
        for (_, event) in events.iter().filter(is_ours) {
            self.stats.raise_stored.observe(now.since(event.alert.received_at).as_secs_f64());
        }
    }

    fn prune(&mut self) -> Result<(), Failure> {
        let Some(retention) = self.options.retention else { return Ok(()) };
        if self.last_prune.elapsed() < PRUNE_EVERY {
            return Ok(());
        }
        let n_rows = self.store.prune(Timestamp::now().minus(retention), PRUNE_ROWS)?;
        // A full batch: more may be waiting, but alerts that arrived meanwhile go first.
        if n_rows < u64::from(PRUNE_ROWS) {
            self.last_prune = Instant::now();
        }
        Ok(())
    }

    fn wait_for_events(&self) -> Result<(), Failure> {
        select! {
            recv(self.cursor.doorbell()) -> _ => {}
            recv(self.stop) -> _ => {}
            default(PRUNE_EVERY) => {}
        }
        Ok(())
    }

    /// Waits, unless told to stop.
    fn pause(&self, wait: Duration) -> std::ops::ControlFlow<()> {
        match self.stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => std::ops::ControlFlow::Continue(()),
            _ => std::ops::ControlFlow::Break(()),
        }
    }

    /// Notes that a step worked. Being prepared says nothing of a write that failed.
    fn works(&mut self, step: Step) {
        if self.failing == Some(Step::Write) && step == Step::Prepare {
            return;
        }
        self.failing = None;
        self.retry_wait = RETRY_WAIT.0;
        let described = self.store.describe();
        if self.health.set("store", Condition::Ok, described.as_str()) {
            info!(self.log, "the store takes alerts"; "store" => described);
        }
    }

    /// Notes what went wrong and waits before the next try. Nothing is lost: the cursor has not moved.
    fn failed(&mut self, failure: &Failure) {
        if is_over(&self.stop) {
            return;
        }
        self.stats.store_errors.inc();
        // A smaller batch may pass where a large one timed out or holds a row that does not fit.
        self.max_batch = (self.max_batch / 2).max(1);
        let reason = chain(failure);
        let what_now = "alerts stay in the journal and are delivered when it works again";
        let detail = format!("{}: {reason}; {what_now}", self.store.describe());
        self.health.set("store", Condition::Degraded, detail);
        let before = self.failing;
        self.failing =
            if before == Some(Step::Write) || self.prepared { Some(Step::Write) } else { Some(Step::Prepare) };
        self.prepared = false;
        if before.is_none() {
            warn!(self.log, "the store does not take alerts: they stay in the journal until it does";
                "store" => self.store.describe(), "error" => reason);
        }
        let jitter = 0.5 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0;
        // Ends early when told to stop.
        let _ = self.pause(self.retry_wait.mul_f64(jitter));
        self.retry_wait = (self.retry_wait * 2).min(RETRY_WAIT.1);
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
}

/// The rows as they are after the last event of each alert, in the order of these: events carry whole rows, so that
/// earlier ones of the same batch need no statement.
fn latest_rows(events: &[(u64, Event)]) -> Vec<Arc<Alert>> {
    let mut seen = HashSet::with_capacity(events.len());
    // Telling again changes no row.
    let latest = events.iter().rev().filter(|(_, event)| event.kind != EventKind::Repeat);
    let latest = latest.filter(|(_, event)| seen.insert(event.alert.alert_id));
    let mut rows: Vec<_> = latest.map(|(_, event)| event.alert.clone()).collect();
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests;
