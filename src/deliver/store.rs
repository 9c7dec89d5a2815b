//! The alert history as a sink: batches of rows into the store, one statement at a time, with retry.
//!
//! A lone violation is written at once. In a storm statements keep a pace, so that the rows of many commits share one, and
//! while the store works on a large one the next is read. What is kept of earlier deliveries is delivered again where a database may have lost it. A row that
//! the store refuses for ever becomes a dead letter, and holds up no other. Told to stop, the writer begins no other
//! statement.

use std::{
    collections::{HashSet, VecDeque},
    io,
    panic::resume_unwind,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, select};
use slog::{Logger, error, info, warn};

use super::is_over;
use crate::{
    health::{Condition, Health},
    journal::{DeadLetter, JournalError, Reader, Recorded, SinkCursor},
    log::chain,
    model::{Alert, EventKind, Timestamp},
    stats::Stats,
    store::{AlertStore, StoreError},
};

/// Shortest time from one statement to the next while there is less than a whole batch to write: twice what the last one
/// took, so that the store rests as long as it works, and between these. At 5,000 rows/s they make 25 to 100 rows a statement.
const PACE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(20));
/// The next batch is read while the store writes one of so many events: for fewer a thread costs more than it saves.
const READ_ON_FROM: usize = 500;
/// Waits before a failed statement is tried again: doubling between these.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Deliveries begin again from the first event that is kept this often at most, however often the store fails.
const AGAIN_EVERY: Duration = Duration::from_secs(60);
/// What a database that crashes may lose: what it was given so long before, or less.
const MAY_BE_LOST: Duration = Duration::from_secs(2);
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

/// What the writer takes events from.
#[derive(Debug)]
pub struct Source {
    /// The journal.
    pub reader: Reader,
    /// The writer's place in it.
    pub cursor: SinkCursor,
    /// Rows that this start restates in the journal: a store that is not the one of earlier runs has to get them.
    pub n_restated: usize,
}

/// Starts the thread. It ends when `stop` is disconnected, after the statement in flight.
pub fn start(
    options: Options,
    store: Arc<dyn AlertStore>,
    source: Source,
    stop: Receiver<()>,
    (stats, health): (Arc<Stats>, Health),
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    let log = log.new(slog::o!("thread" => "deliver-store"));
    let mut writer = Writer::new(options, store, source, (stats, health), log, Instant::now());
    thread::Builder::new().name("deliver-store".to_owned()).spawn(move || {
        while !is_over(&stop) {
            let next = writer.step(Instant::now());
            writer.wait(next, &stop);
        }
    })
}

/// When the writer has something to do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Now.
    Now,
    /// Not before this, whatever comes.
    At(Instant),
    /// When there are events, or at this time.
    EventsUntil(Instant),
}

/// What the writer does to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Write,
}

pub(crate) struct Writer {
    options: Options,
    store: Arc<dyn AlertStore>,
    reader: Reader,
    cursor: SinkCursor,
    stats: Arc<Stats>,
    health: Health,
    log: Logger,
    prepared: bool,
    /// Rows that this start restates, and that a store which is new to us has yet to get.
    n_restated: usize,
    /// What is delivered again: behind the first number, up to the second.
    again: Option<(u64, u64)>,
    wants_again: bool,
    last_again: Option<Instant>,
    /// Writes that the database may yet lose, and behind which event each of them began.
    at_risk: VecDeque<(Instant, u64)>,
    /// Whether fresh events go before those that are delivered again.
    fresh_first: bool,
    /// Dead letters of earlier runs, each tried once more.
    letters: Option<VecDeque<Recorded>>,
    /// Why the latest dead letter was refused.
    refusal: Option<String>,
    /// A row that was refused, and is buried if it is refused again by a table that is as it should be.
    suspect: Option<u64>,
    /// What failed last and has not worked since.
    failing: Option<Step>,
    max_batch: usize,
    /// What was read while the store was busy: the events behind this number.
    read_on: Option<(u64, Vec<Recorded>)>,
    retry_wait: Duration,
    last_begin: Option<Instant>,
    /// How long the last statement took.
    last_took: Duration,
    last_prune: Instant,
}

impl Writer {
    pub(crate) fn new(
        options: Options,
        store: Arc<dyn AlertStore>,
        Source { reader, cursor, n_restated }: Source,
        (stats, health): (Arc<Stats>, Health),
        log: Logger,
        now: Instant,
    ) -> Self {
        let identity = store.describe();
        health.set("store", Condition::Degraded, format!("{identity}: not reached yet"));
        let is_another = cursor.identity().is_some_and(|known| known != identity);
        if is_another {
            info!(log, "the store is another one than before: it gets the alerts that fire, and what comes";
                "store" => identity.as_str(), "firing" => n_restated);
        }
        // What is kept is delivered again, and until then it stays.
        let at_risk = VecDeque::from([(now, 0)]);
        let max_batch = store.max_batch();
        cursor.keep_behind(Some(0));
        let writer = Self {
            options,
            store,
            reader,
            stats,
            health,
            log,
            prepared: false,
            n_restated,
            again: None,
            // A database that went down with us may have lost its last second.
            wants_again: true,
            last_again: None,
            at_risk,
            fresh_first: true,
            letters: None,
            refusal: None,
            suspect: None,
            failing: None,
            max_batch,
            read_on: None,
            retry_wait: RETRY_WAIT.0,
            last_begin: None,
            last_took: Duration::ZERO,
            last_prune: now,
            cursor,
        };
        writer.count();
        writer
    }

    /// Does at most one thing to the store, and says when to come again.
    pub(crate) fn step(&mut self, now: Instant) -> Next {
        match self.work(now) {
            Ok(next) => next,
            Err(failure) => self.failed(&failure, now),
        }
    }

    fn wait(&self, next: Next, stop: &Receiver<()>) {
        match next {
            Next::Now => {}
            Next::At(at) => {
                // Ends early when told to stop.
                let _ = stop.recv_deadline(at);
            }
            Next::EventsUntil(at) => select! {
                recv(self.cursor.doorbell()) -> _ => {}
                recv(stop) -> _ => {}
                default(at.saturating_duration_since(Instant::now())) => {}
            },
        }
    }

    fn work(&mut self, now: Instant) -> Result<Next, Failure> {
        if !self.prepared {
            self.store.prepare()?;
            self.prepared = true;
            self.works(Step::Prepare);
            return Ok(Next::Now);
        }
        if self.n_restated == 0 {
            // It knows what fires, so that it is the one we know. Known already, it is not saved again.
            let identity = self.store.describe();
            if self.cursor.identity().as_ref() != Some(&identity) {
                self.cursor.set_identity(identity);
            }
        }
        if self.letters.is_none() {
            // Before this run makes any: these are the ones of earlier runs.
            self.letters = Some(self.reader.dead_letters(self.cursor.name())?.into());
            self.show_letters();
        }
        let turn_of_fresh = std::mem::replace(&mut self.fresh_first, true);
        if !turn_of_fresh && self.write_again(now)? {
            return Ok(Next::Now);
        }
        let events = self.read()?;
        if !events.is_empty() {
            let due = self.last_begin.map_or(now, |begin| begin + (self.last_took * 2).clamp(PACE.0, PACE.1));
            if due > now && events.len() < self.max_batch {
                return Ok(Next::At(due));
            }
            self.write_fresh(events, now)?;
            self.fresh_first = false;
            return Ok(Next::Now);
        }
        if self.write_again(now)? || self.write_letter()? || self.prune(now)? {
            return Ok(Next::Now);
        }
        if self.cursor.is_room_wanted() {
            self.find_out_what_is_safe(now)?;
        }
        let again = self.last_again.filter(|_| self.wants_again).map(|last| last + AGAIN_EVERY);
        let prune = now + PRUNE_EVERY;
        Ok(Next::EventsUntil(again.map_or(prune, |again| again.min(prune))))
    }

    /// The next batch.
    fn read(&mut self) -> Result<Vec<Recorded>, JournalError> {
        let after = self.cursor.position();
        match self.read_on.take() {
            // Unless the statement that it was read behind failed.
            Some((read_after, events)) if read_after == after && events.len() <= self.max_batch => Ok(events),
            _ => self.reader.read(after, self.max_batch),
        }
    }

    /// Writes events that the store has not had. What cannot be read is buried.
    fn write_fresh(&mut self, events: Vec<Recorded>, now: Instant) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (events.first().map(|e| e.seq), events.last().map(|e| e.seq)) else {
            return Ok(());
        };
        let rows = latest_rows(&events);
        let is_large = events.len() >= self.max_batch.max(READ_ON_FROM);
        match self.write(&rows, is_large.then_some(last)) {
            Err(Failure::Store(err)) if !err.is_transient() && rows.len() == 1 && self.suspect == Some(first) => {
                let reason = chain(&err);
                for Recorded { seq, .. } in &events {
                    self.bury(*seq, &reason, &rows[0]);
                }
                self.suspect = None;
                self.settle_restated(&events);
                self.cursor.advance(last);
                self.count();
                return Ok(());
            }
            Err(failure) => {
                let is_refused = matches!(&failure, Failure::Store(err) if !err.is_transient());
                self.suspect = (is_refused && rows.len() == 1).then_some(first);
                return Err(failure);
            }
            Ok(()) => self.suspect = None,
        }
        if !rows.is_empty() {
            self.last_begin = Some(now);
        }
        self.risk(now, first - 1);
        let mut n_taken = 0;
        for Recorded { seq, event, .. } in &events {
            match event {
                Ok(_) => n_taken += 1,
                Err(err) => self.bury_damaged(*seq, &chain(err)),
            }
        }
        self.settle_restated(&events);
        self.cursor.deliver(last, n_taken);
        self.time_raises(&events);
        self.count();
        Ok(())
    }

    /// Notes which rows it is done with of those that this start restates. Those of a start that did not get so far may be
    /// fewer.
    fn settle_restated(&mut self, events: &[Recorded]) {
        let ours = events.iter().filter(|recorded| recorded.seq > self.options.inherited_seq);
        let is_restated =
            |recorded: &&Recorded| matches!(&recorded.event, Ok(event) if event.kind == EventKind::Restate);
        self.n_restated = self.n_restated.saturating_sub(ours.filter(is_restated).count());
    }

    /// Writes a batch of what the store should have, where it may have lost it; false: there is none.
    fn write_again(&mut self, now: Instant) -> Result<bool, Failure> {
        let is_time = self.last_again.is_none_or(|last| now.saturating_duration_since(last) >= AGAIN_EVERY);
        if self.wants_again && is_time {
            (self.wants_again, self.last_again) = (false, Some(now));
            self.again = Some((0, self.cursor.position()));
        }
        let Some((after, up_to)) = self.again else { return Ok(false) };
        let events = self.reader.read_again(after, up_to, self.max_batch)?;
        let Some(last) = events.last().map(|event| event.seq) else {
            self.again = None;
            self.risk(now, 0);
            return Ok(false);
        };
        // Refused rows are dead letters already, or will be when their alert has another event. Halving finds them.
        match self.write(&latest_rows(&events), None) {
            Err(Failure::Store(err)) if !err.is_transient() && events.len() == 1 => {}
            written => written?,
        }
        self.again = Some((last, up_to));
        Ok(true)
    }

    /// The database has taken what lies behind this event, and may lose it again: it has its rows for good only if it
    /// still works some time after them. Until that has shown, or they have been delivered again, the journal keeps them.
    fn risk(&mut self, now: Instant, behind: u64) {
        self.at_risk.push_back((now, behind));
        if self.again.is_some() || self.wants_again {
            // None of it is safe before that is over: it is one, however long that takes (I1).
            let first = self.at_risk.iter().map(|(_, behind)| *behind).min();
            self.at_risk = first.map(|behind| (now, behind)).into_iter().collect();
        }
        self.forget_safe(now);
    }

    /// The store has just worked: what it took long enough before is safe.
    fn forget_safe(&mut self, now: Instant) {
        let is_safe = |at: Instant| now.saturating_duration_since(at) > MAY_BE_LOST;
        while self.at_risk.front().is_some_and(|(at, _)| is_safe(*at)) {
            self.at_risk.pop_front();
        }
        self.cursor.keep_behind(self.at_risk.iter().map(|(_, behind)| *behind).min());
    }

    /// A full journal takes no event until what is in it may go, and without an event there is no write that shows that
    /// it may. So the last rows are written once more: that changes nothing, and fails if the database went down meanwhile.
    fn find_out_what_is_safe(&mut self, now: Instant) -> Result<(), Failure> {
        let is_old = self.at_risk.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) > MAY_BE_LOST);
        if !is_old || self.wants_again || self.again.is_some() {
            return Ok(());
        }
        let last = self.cursor.position();
        let events = self.reader.read_again(last.saturating_sub(self.max_batch as u64), last, self.max_batch)?;
        match self.write(&latest_rows(&events), None) {
            // It refuses a row, and so it lives.
            Err(Failure::Store(err)) if !err.is_transient() => {}
            written => written?,
        }
        self.forget_safe(now);
        Ok(())
    }

    /// Tries one dead letter of an earlier run once more; false: there is none.
    fn write_letter(&mut self) -> Result<bool, Failure> {
        let Some(letter) = self.letters.as_mut().and_then(VecDeque::pop_front) else { return Ok(false) };
        let Ok(event) = &letter.event else { return Ok(true) };
        match self.write(std::slice::from_ref(&event.alert), None) {
            Ok(()) => {
                self.cursor.exhume(letter.seq);
                self.count();
                self.show_letters();
            }
            Err(Failure::Store(err)) if !err.is_transient() => {}
            Err(failure) => {
                self.letters.get_or_insert_default().push_front(letter);
                return Err(failure);
            }
        }
        Ok(true)
    }

    /// Writes rows in one statement. Meanwhile what lies behind `read_behind` is read, if that is given.
    fn write(&mut self, rows: &[Arc<Alert>], read_behind: Option<u64>) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let begin = Instant::now();
        match read_behind {
            Some(behind) => self.write_and_read(rows, behind)?,
            None => self.store.write(rows)?,
        }
        self.last_took = begin.elapsed();
        self.stats.store_write.observe(self.last_took.as_secs_f64());
        self.stats.store_batches.inc();
        self.stats.store_rows.inc_by(rows.len() as u64);
        self.max_batch = (self.max_batch * 2).min(self.store.max_batch());
        self.works(Step::Write);
        Ok(())
    }

    /// A storm is behind the store: what it is to write next is read while it writes, so that it never waits for that.
    fn write_and_read(&mut self, rows: &[Arc<Alert>], behind: u64) -> Result<(), StoreError> {
        thread::scope(|scope| {
            let store = &self.store;
            let name = "deliver-write".to_owned();
            let Ok(writing) = thread::Builder::new().name(name).spawn_scoped(scope, move || store.write(rows)) else {
                return store.write(rows);
            };
            // Less than a whole batch is read again when it is due: more may have come. So is what could not be read.
            let events = self.reader.read(behind, self.max_batch).ok();
            self.read_on = events.filter(|events| events.len() >= self.max_batch).map(|events| (behind, events));
            writing.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn bury(&mut self, seq: u64, reason: &str, alert: &Alert) {
        error!(self.log, "the store refuses a row for ever: it is kept in the journal as a dead letter";
            "seq" => seq, "alert_id" => %alert.alert_id, "service" => alert.key.service(),
            "instance" => alert.key.instance(), "rule" => &*alert.rule, "error" => reason);
        self.cursor.bury(DeadLetter { seq, reason: reason.to_owned() });
        self.refusal = Some(reason.to_owned());
        self.show_letters();
    }

    fn bury_damaged(&mut self, seq: u64, reason: &str) {
        error!(self.log, "an event in the journal is damaged: it is kept as a dead letter";
            "seq" => seq, "error" => reason);
        self.cursor.bury(DeadLetter { seq, reason: reason.to_owned() });
        self.refusal = Some(reason.to_owned());
        self.show_letters();
    }

    /// Shows the operator that there are dead letters, or none any longer.
    fn show_letters(&self) {
        let n_dead = self.cursor.n_dead();
        let why = self.refusal.as_deref().map_or_else(String::new, |reason| format!("; the latest: {reason}"));
        if n_dead > 0 {
            let detail = format!(
                "{n_dead} events that the store does not take are kept in the journal, and tried again at each start{why}"
            );
            self.health.set("dead_letters", Condition::Degraded, detail);
        } else if self.health.checks().contains_key("dead_letters") {
            self.health.set("dead_letters", Condition::Ok, "none");
        }
    }

    /// Brings the account of events up to date (I4).
    fn count(&self) {
        self.stats.store_position.set(self.cursor.position());
        self.stats.events_stored.set(self.cursor.n_delivered());
        self.stats.events_dead.set(self.cursor.n_dead());
    }

    /// Takes the time of each raise that is now in the store, once. Those of earlier runs are left out: delivered again,
    /// they may have been there for long.
    fn time_raises(&self, events: &[Recorded]) {
        let now = Timestamp::now();
        let ours = events.iter().filter(|recorded| recorded.seq > self.options.inherited_seq);
        for event in ours.filter_map(|recorded| recorded.event.as_ref().ok()) {
            if event.kind == EventKind::Raise {
                self.stats.raise_stored.observe(now.since(event.alert.received_at).as_secs_f64());
            }
        }
    }

    /// Deletes some rows past the retention, once in a while; whether there may be more.
    fn prune(&mut self, now: Instant) -> Result<bool, Failure> {
        let Some(retention) = self.options.retention else { return Ok(false) };
        if now.saturating_duration_since(self.last_prune) < PRUNE_EVERY {
            return Ok(false);
        }
        let n_rows = self.store.prune(Timestamp::now().minus(retention), PRUNE_ROWS)?;
        self.works(Step::Write);
        // A full batch: more may be waiting, but alerts that arrived meanwhile go first.
        if n_rows < u64::from(PRUNE_ROWS) {
            self.last_prune = now;
        }
        Ok(true)
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

    /// Notes what went wrong; answers when to try again. Nothing is lost: the cursor has not moved.
    fn failed(&mut self, failure: &Failure, now: Instant) -> Next {
        // A smaller batch may pass where a large one timed out or holds a row that does not fit.
        self.max_batch = (self.max_batch / 2).max(1);
        self.stats.store_errors.inc();
        // What preparing meets lies in the table, never in a row of ours: it waits for an operator, and not in a circle.
        if let Failure::Store(err) = failure
            && !err.is_transient()
            && self.prepared
        {
            // The row is looked for at once: the store itself is well. Once it is found the table is looked at, which
            // may have been changed under us.
            self.prepared &= self.suspect.is_none();
            return Next::Now;
        }
        let reason = chain(failure);
        let what_now = "alerts stay in the journal and are delivered when it works again";
        let detail = format!("{}: {reason}; {what_now}", self.store.describe());
        self.health.set("store", Condition::Degraded, detail);
        let before = self.failing;
        self.failing =
            if before == Some(Step::Write) || self.prepared { Some(Step::Write) } else { Some(Step::Prepare) };
        self.prepared = false;
        // Who cannot be reached may have been killed. It is also how we find out that it writes again.
        self.wants_again = true;
        if before.is_none() {
            warn!(self.log, "the store does not take alerts: they stay in the journal until it does";
                "store" => self.store.describe(), "error" => reason);
        }
        let jitter = 0.5 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0;
        let wait = self.retry_wait.mul_f64(jitter);
        self.retry_wait = (self.retry_wait * 2).min(RETRY_WAIT.1);
        Next::At(now + wait)
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The rows as they are after the last event of each alert, in the order of these: events carry whole rows, so that
/// earlier ones of the same batch need no statement.
fn latest_rows(events: &[Recorded]) -> Vec<Arc<Alert>> {
    let mut seen = HashSet::with_capacity(events.len());
    // Telling again changes no row.
    let latest = events.iter().rev().filter_map(|recorded| recorded.event.as_ref().ok());
    let latest = latest.filter(|event| event.kind != EventKind::Repeat);
    let mut rows: Vec<_> =
        latest.filter(|event| seen.insert(event.alert.alert_id)).map(|event| event.alert.clone()).collect();
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests;
