//! A receiver as a sink: one thread that reads and decides, and some that tell.
//!
//! What is told when is up to [`schedule`]; here are its clock, its journal and its threads. Several notifications are under
//! way at once, since each waits for somebody far away. Told to stop, it finishes these and begins no other: what is left
//! in the journal goes out after the next start.

mod late;
mod schedule;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{self as channel, Receiver, Sender, bounded, select};
use parking_lot::Mutex;
use slog::{Logger, error, info, warn};

use super::board::{Board, Condition};
use crate::{
    journal::{DeadLetter, Reader, Recorded, SinkCursor},
    log::chain,
    model::{Event, Timestamp},
    notify::{Notifier, Occasion, Outcome},
    rule_file::Receiver as Target,
    stats::{ReceiverStats, Stats},
};
use schedule::{Dead, Now, Schedule, Task};

/// Notifications under way at once. At a round trip of 50 ms they are 160 a second.
const N_AT_ONCE: usize = 8;
/// How often it looks at what nobody wakes it for: the journal's wish for room, and what has become too old.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait after the journal could not be read.
const READ_RETRY_WAIT: Duration = Duration::from_secs(1);
/// How long it is shown that something was given up: whoever looks in once a day sees it.
const SHOWN_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Events that are looked through to say how many of them a removed receiver was not told.
const MAX_COUNTED: usize = 100_000;

/// What a receiver's sink works with.
#[derive(Debug)]
pub(super) struct Means {
    /// Shared with the other receivers: reading is quick, and they do not read all the time.
    pub(super) reader: Arc<Mutex<Reader>>,
    pub(super) cursor: SinkCursor,
    /// Where REST answers.
    pub(super) origin: Arc<str>,
    pub(super) stats: Arc<Stats>,
    pub(super) board: Board,
    pub(super) log: Logger,
}

/// What a running sink can be told. That nobody can tell it any longer is that it is to stop.
#[derive(Debug)]
enum Command {
    Change(Box<Target>),
    Remove,
}

/// A running sink.
#[derive(Debug)]
pub(super) struct Running {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

impl Running {
    /// It is to be told otherwise from now on, also of what it was not told yet.
    pub(super) fn change(&self, target: Target) {
        // One that has ended is found out by whoever watches it.
        let _ = self.commands.send(Command::Change(Box::new(target)));
    }

    /// Nobody is to be told any longer; returns once the sink has ended.
    pub(super) fn remove(self) {
        let _ = self.commands.send(Command::Remove);
        // It panicked: then it has ended, too.
        let _ = self.thread.join();
    }

    /// Ends it behind what is under way.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.thread
    }

    /// Whether it has ended by itself.
    pub(super) fn has_died(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts the threads of a receiver.
pub(super) fn start(target: Target, means: Means) -> io::Result<Running> {
    let name = target.config.name.clone();
    let Means { reader, cursor, origin, stats, board, log } = means;
    let log = log.new(slog::o!("thread" => format!("receiver-{name}"), "receiver" => name.to_string()));
    // One place for each notification under way: nobody waits at either end.
    let (tasks, to_tell) = bounded::<(Task, Arc<Notifier>)>(N_AT_ONCE);
    let (told, outcomes) = bounded(N_AT_ONCE);
    for n in 0..N_AT_ONCE {
        let (to_tell, told) = (to_tell.clone(), told.clone());
        thread::Builder::new().name(format!("tell-{n}-{name}")).spawn(move || tell(&to_tell, &told))?;
    }
    let (commands, orders) = bounded(1);
    let options = schedule::Options {
        name: name.clone(),
        send_resolved: target.config.send_resolved,
        n_at_once: N_AT_ONCE,
        seed: uuid::Uuid::new_v4().as_u64_pair().0,
    };
    let gave_up = (cursor.n_dead() > 0).then(|| ("in an earlier run, see its log".to_owned(), Instant::now()));
    let sink = Sink {
        schedule: Schedule::new(options, cursor.position(), cursor.ahead()),
        notifier: Arc::new(Notifier::new(&target, &origin)),
        figures: stats.receiver(&name),
        direct: cursor.direct().clone(),
        doorbell: cursor.doorbell().clone(),
        target,
        reader,
        cursor,
        origin,
        stats,
        board,
        log,
        tasks,
        outcomes,
        orders,
        has_more: true,
        read_at: Instant::now(),
        began_at: Timestamp::now(),
        is_failing: false,
        gave_up,
    };
    let thread = thread::Builder::new().name(format!("receiver-{name}")).spawn(move || sink.run())?;
    Ok(Running { commands, thread })
}

/// Tells, one after the other, until the sink is gone.
fn tell(to_tell: &Receiver<(Task, Arc<Notifier>)>, told: &Sender<(Task, Outcome)>) {
    for (task, notifier) in to_tell {
        let outcome = catch_unwind(AssertUnwindSafe(|| notifier.send(&task.notification)));
        let bug = || Outcome::Refused { why: "telling it failed by a fault of ours".to_owned() };
        if told.send((task, outcome.unwrap_or_else(|_| bug()))).is_err() {
            return;
        }
    }
}

struct Sink {
    target: Target,
    schedule: Schedule,
    notifier: Arc<Notifier>,
    reader: Arc<Mutex<Reader>>,
    cursor: SinkCursor,
    origin: Arc<str>,
    stats: Arc<Stats>,
    figures: ReceiverStats,
    board: Board,
    log: Logger,
    tasks: Sender<(Task, Arc<Notifier>)>,
    outcomes: Receiver<(Task, Outcome)>,
    orders: Receiver<Command>,
    doorbell: Receiver<()>,
    direct: Receiver<Event>,
    /// Whether the journal may have events that were not read yet.
    has_more: bool,
    /// Not to be read before this.
    read_at: Instant,
    /// Raises that were received before are not timed: they wait since an earlier run.
    began_at: Timestamp,
    is_failing: bool,
    /// What was given up last, and when; for [`SHOWN_FOR`].
    gave_up: Option<(String, Instant)>,
}

impl Sink {
    fn run(mut self) {
        loop {
            let now = Now::taken();
            self.schedule.give_up_to(self.cursor.give_up_to());
            self.read(now);
            while let Some(task) = self.schedule.begin(now) {
                // The threads that tell end after this one.
                let _ = self.tasks.send((task, self.notifier.clone()));
            }
            self.settle();
            let wait = self.wake_at(now).saturating_duration_since(Instant::now());
            select! {
                recv(self.outcomes) -> told => told.into_iter().for_each(|(task, outcome)| self.finished(&task, outcome)),
                recv(self.doorbell) -> rung => match rung {
                    Ok(()) => self.has_more = true,
                    Err(_) => self.doorbell = channel::never(),
                },
                recv(self.direct) -> event => match event {
                    Ok(event) => self.read_directly(&event, now),
                    Err(_) => self.direct = channel::never(),
                },
                recv(self.orders) -> order => match order {
                    Ok(Command::Change(target)) => self.change(*target),
                    Ok(Command::Remove) => return self.removed(),
                    Err(_) => break,
                },
                default(wait) => {}
            }
        }
        while self.schedule.n_under_way() > 0
            && let Ok((task, outcome)) = self.outcomes.recv()
        {
            self.finished(&task, outcome);
        }
        self.settle();
    }

    fn wake_at(&self, now: Now) -> Instant {
        let may_read = self.has_more && self.schedule.room() > 0;
        let reading = may_read.then_some(self.read_at);
        let wake = reading.into_iter().chain(self.schedule.wake_at()).min();
        wake.map_or(now.instant + TICK, |at| at.min(now.instant + TICK))
    }

    fn read(&mut self, now: Now) {
        let room = self.schedule.room();
        if !self.has_more || room == 0 || now.instant < self.read_at {
            return;
        }
        let found = self.reader.lock().read(self.schedule.read_to(), room);
        let events = match found {
            Ok(events) => events,
            Err(err) => {
                error!(self.log, "notifications wait: the journal cannot be read"; "error" => chain(&err));
                self.read_at = now.instant + READ_RETRY_WAIT;
                return;
            }
        };
        self.has_more = events.len() == room;
        self.schedule.caught_up(!self.has_more);
        for Recorded { seq, at, event } in events {
            match event {
                Ok(event) => self.schedule.read(seq, at, &event, now),
                // Damaged, and buried by an earlier run.
                Err(_) if !self.schedule.skip(seq) => {}
                Err(err) => {
                    error!(self.log, "a notification is lost: its event in the journal is damaged";
                        "seq" => seq, "error" => chain(&err));
                    self.cursor.bury(DeadLetter { seq, reason: chain(&err) });
                }
            }
        }
    }

    /// Only at the journal's end: what it has of the rule's alert before is told first.
    fn read_directly(&mut self, event: &Event, now: Now) {
        self.has_more = true;
        self.read(now);
        if self.schedule.read_to() >= self.stats.events.get() {
            self.schedule.read_directly(event, now);
        }
    }

    fn finished(&mut self, task: &Task, outcome: Outcome) {
        match &outcome {
            Outcome::Done => {
                self.figures.told.inc();
                let notification = &task.notification;
                if let (Occasion::Raise, [alert]) = (notification.occasion, &notification.alerts[..])
                    && alert.received_at >= self.began_at
                {
                    self.stats.raise_told.observe(Timestamp::now().since(alert.received_at).as_secs_f64());
                }
            }
            Outcome::Retry { .. } | Outcome::Refused { .. } => {
                self.figures.errors.inc();
            }
        }
        self.schedule.finished(task, outcome, Now::taken());
    }

    /// Notes how far it has come, and what it came to, wherever that is shown.
    fn settle(&mut self) {
        let dead = self.schedule.take_dead();
        if let Some(last) = dead.last() {
            self.gave_up = Some((last.why.clone(), Instant::now()));
            self.tell_of_dead(&dead);
        }
        for Dead { seq, occasion, alert, n_alerts, why } in dead {
            let reason = format!("{} of {} ({n_alerts} in all): {why}", occasion.as_str(), alert.alert_id);
            self.cursor.bury(DeadLetter { seq, reason });
        }
        self.cursor.advance_with(self.schedule.position(), self.schedule.ahead());
        self.figures.dead_letters.set(self.cursor.n_dead());
        self.figures.pending.set(self.stats.events.get().saturating_sub(self.schedule.position()));
        self.show();
    }

    /// One line for all that were given up at once: there may be thousands, when the journal is short of room.
    fn tell_of_dead(&self, dead: &[Dead]) {
        let Some(Dead { seq, occasion, alert, why, .. }) = dead.last() else { return };
        let n_alerts: usize = dead.iter().map(|dead| dead.n_alerts).sum();
        error!(self.log, "a receiver is not told: what it was to hear is a dead letter"; "notifications" => dead.len(),
            "alerts" => n_alerts, "error" => why, "last_event" => occasion.as_str(), "last_seq" => seq,
            "last_alert_id" => alert.alert_id.to_string(), "last_rule" => &*alert.rule,
            "last_service" => alert.key.service(), "last_instance" => alert.key.instance());
    }

    fn show(&mut self) {
        let name = &self.target.config.name;
        let failing = self.schedule.failing();
        match (self.is_failing, failing) {
            (false, Some(failing)) => {
                warn!(self.log, "a receiver does not take what it is told: it is told again for 24 h";
                    "error" => &failing.why);
            }
            (true, None) => info!(self.log, "a receiver takes what it is told again"),
            _ => {}
        }
        self.is_failing = failing.is_some();
        if self.gave_up.as_ref().is_some_and(|(_, at)| at.elapsed() >= SHOWN_FOR) {
            self.gave_up = None;
        }
        let condition = match (failing, &self.gave_up) {
            (Some(failing), _) => Condition::Failing(failing.why.clone()),
            (None, Some((why, _))) => Condition::GaveUp(why.clone()),
            (None, None) => Condition::Fine,
        };
        self.board.set(name, condition);
    }

    fn change(&mut self, target: Target) {
        self.notifier = Arc::new(Notifier::new(&target, &self.origin));
        self.schedule.changed(target.config.send_resolved);
        self.gave_up = None;
        self.target = target;
        info!(self.log, "a receiver is told as the rule file says now");
    }

    fn removed(&self) {
        let mut n_untold = self.schedule.n_open();
        let mut after = self.schedule.read_to();
        let mut n_left = MAX_COUNTED;
        while n_left > 0
            && let Ok(events) = self.reader.lock().read(after, n_left.min(500))
            && let Some(last) = events.last()
        {
            after = last.seq;
            n_left -= events.len();
            n_untold +=
                events.iter().filter_map(|e| e.event.as_ref().ok()).filter(|e| self.schedule.concerns(e)).count();
        }
        info!(self.log, "a receiver is gone from the rule file"; "events_not_told" => n_untold,
            "counted_all" => n_left > 0);
    }
}

impl Now {
    fn taken() -> Self {
        Self { instant: Instant::now(), time: Timestamp::now() }
    }
}
