//! Control: the one place that changes what the running server is told.
//!
//! It reads the rules again when a signal or a request says so or when their file has changed, and has single instances
//! forgotten; a signal or a request has the doors' files read again, too. Rules and instances reach the lanes as turns, so that they land at one point of each lane's order. A file that cannot be
//! used changes nothing: the old rules stay in force whole. It holds a `Dispatcher`, so that lanes end after it (I8);
//! others hold its [`Door`], which is bounded (I1).

mod door;
mod watch;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use slog::{Logger, debug, error, info, warn};
use tokio::sync::oneshot::{self, error::TryRecvError};

pub use door::{By, Door, Refused, ReloadError, Reloaded, Requests, door};

use crate::{
    deliver::Receivers,
    dispatch::{Dispatcher, Receipt},
    doors::Doors,
    health::{Condition, Health},
    log::chain,
    model::{InstanceKey, Timestamp},
    rule_file::{Loaded, RuleFile, RuleFileError},
    rules::{RuleSet, SharedRules},
    state::State,
    stats::Stats,
};
use door::Request;
use watch::{Look, Seen, Watch};

/// How often the rule file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks in a row that find the same file once it is at rest: 0.8 s in which nobody writes, so that a program that writes
/// it piece by piece may pause, and a change is in force well within the 2 s of CONTRACT §3.
const LOOKS_AT_REST: u32 = 5;
/// How long lanes may take to come to a change before whoever waits for it is told that it is on its way.
pub const LANES_WAIT: Duration = Duration::from_secs(5);
/// How often a wait for the lanes looks whether it is over. Threads do not await (I5), and a commit takes milliseconds.
const POLL: Duration = Duration::from_millis(2);
/// The names on `/readyz`.
const CHECK: &str = "rules";
const DOORS: &str = "doors";

/// What control changes, and by what means.
#[derive(Clone, Debug)]
pub struct Context {
    /// The way into the lanes.
    pub dispatcher: Dispatcher,
    /// The instances, to know the lane of each.
    pub state: Arc<State>,
    /// The rules as REST shows them.
    pub rules: SharedRules,
    /// Who is told of alerts.
    pub receivers: Receivers,
    /// Who may come in.
    pub doors: Arc<Doors>,
    /// Counts of reloads.
    pub stats: Arc<Stats>,
    /// Where a bad file is shown.
    pub health: Health,
}

/// Where the rules come from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file.
    pub file: RuleFile,
    /// Its text when the rules in force were read; `None`: it was not there.
    pub text: Option<String>,
    /// How long lanes may take to come to a change; [`LANES_WAIT`] but in tests.
    pub lanes_wait: Duration,
}

/// Starts the thread, which takes requests until `stopped` is disconnected.
pub fn start(
    options: Options,
    context: Context,
    requests: Requests,
    stopped: Receiver<()>,
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    let Options { file, text, lanes_wait } = options;
    let watch = Watch::starting(Look::at(file.path()), LOOKS_AT_REST);
    let log = log.new(slog::o!("thread" => "control"));
    let control = Control { file, tried: text, lanes_wait, watch, context, stopped, log };
    let rules = control.context.rules.read().clone();
    control.good(&rules);
    thread::Builder::new().name("control".to_owned()).spawn(move || control.run(&requests))
}

/// Why the rules are read again.
#[derive(Clone, Copy, Debug)]
enum Why {
    Asked(By),
    FileChanged,
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Asked(By::Signal) => "signal",
            Self::Asked(By::Request) => "request",
            Self::FileChanged => "file changed",
        }
    }
}

/// A wait for the lanes that was in vain.
enum GaveUp {
    Late,
    Stopping,
}

struct Control {
    file: RuleFile,
    /// The text that was tried last, good or bad: found again, it is no news.
    tried: Option<String>,
    lanes_wait: Duration,
    watch: Watch,
    context: Context,
    stopped: Receiver<()>,
    log: Logger,
}

impl Control {
    fn run(mut self, requests: &Requests) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            select! {
                recv(self.stopped) -> _ => return,
                recv(requests.receiver()) -> request => match request {
                    Ok(Request::Reload { by, reply }) => {
                        let doors = self.reload_doors();
                        let rules = self.reload(Why::Asked(by), self.file.read_again());
                        let answer = rules.and_then(|rules| doors.map(|()| rules));
                        // Nobody waits for what a signal comes to.
                        let _ = reply.send(answer);
                    }
                    Ok(Request::Forget { key, receipt }) => self.forget(key, receipt),
                    // Nobody is left who could ask.
                    Err(_) => return,
                },
                default(look_at.saturating_duration_since(Instant::now())) => {}
            }
            if Instant::now() >= look_at {
                self.look();
                look_at = Instant::now() + LOOK_EVERY;
            }
        }
    }

    /// Has the doors read their files again. What comes of it holds whatever becomes of the rules, and the other way round.
    fn reload_doors(&self) -> Result<(), ReloadError> {
        let Context { doors, health, .. } = &self.context;
        if !doors.has_files() {
            return Ok(());
        }
        let read = doors.reload();
        match &read {
            Ok(()) => health.set(DOORS, Condition::Ok, "as their files say"),
            Err(why) => health.set(DOORS, Condition::Degraded, format!("what was there before stays in force: {why}")),
        };
        read.map_err(ReloadError::Doors)
    }

    /// Looks at the file, and takes it once it has changed and come to rest.
    fn look(&mut self) {
        let found = Look::at(self.file.path());
        match self.watch.see(found) {
            Seen::Nothing => {}
            Seen::Gone => {
                // When it comes back, whatever stands in it is news.
                self.tried = None;
                let path = self.file.path().display().to_string();
                warn!(self.log, "the rule file is gone: its rules stay in force until it comes back"; "file" => &path);
                let detail = format!("the rule file {path} is gone: its rules stay in force until it comes back");
                self.context.health.set(CHECK, Condition::Degraded, detail);
            }
            Seen::Changed => {
                let text = self.file.read_again();
                if Look::at(self.file.path()) != found {
                    // Somebody writes: what was read may be half of one text and half of another.
                    self.watch.unsettle();
                } else if matches!(&text, Ok(text) if *text == self.tried) {
                    debug!(self.log, "the rule file was written again and says the same");
                } else if let Ok(Some(text)) = &text
                    && self.says_nothing(text)
                {
                    self.tried = Some(text.clone());
                    let path = self.file.path().display().to_string();
                    let detail = format!(
                        "the rule file {path} has no rules: the old ones stay in force; say reload for the built-in \
                         ones, or write `rules = []` for none"
                    );
                    warn!(self.log, "{}", detail);
                    self.context.health.set(CHECK, Condition::Degraded, detail);
                } else {
                    // Its outcome is logged; nobody else waits for it.
                    let _ = self.reload(Why::FileChanged, text);
                }
            }
        }
    }

    /// Whether a file that had rules, or receivers, has neither any more: it is being written, far more often than it is
    /// meant.
    fn says_nothing(&self, text: &str) -> bool {
        let built_in = |rules: &RuleSet| rules.source == RuleSet::BUILT_IN;
        let before = self.context.rules.read().clone();
        self.file.rules(Some(text)).is_ok_and(|rules| {
            let lost_rules = !built_in(&before) && built_in(&rules);
            lost_rules || !before.receivers.is_empty() && built_in(&rules) && rules.receivers.is_empty()
        })
    }

    /// Brings the rules of this text into force, and says what came of it wherever that is shown.
    fn reload(&mut self, why: Why, text: Result<Option<String>, RuleFileError>) -> Reloaded {
        let answer = text.map_err(ReloadError::from).and_then(|text| self.bring(text));
        let why = why.as_str();
        match &answer {
            Ok(rules) => {
                info!(self.log, "rules reloaded"; "rules" => rules.rules.len(), "rules_from" => &rules.source,
                    "why" => why);
                for warning in rules.warnings() {
                    warn!(self.log, "{}", warning);
                }
            }
            Err(ReloadError::Late) => {
                warn!(self.log, "rules reloaded, and not every lane has come to them yet"; "why" => why,
                    "waited_seconds" => self.lanes_wait.as_secs_f64());
            }
            Err(ReloadError::File(err)) => {
                self.context.stats.rules_reload_failures.inc();
                self.context.stats.rules_reload_successful.set(0);
                let reason = chain(err);
                let log = match err.place() {
                    Some((line, column)) => self.log.new(slog::o!("line" => line, "column" => column)),
                    None => self.log.clone(),
                };
                error!(log, "the rules were not reloaded: the old ones stay in force"; "error" => &reason, "why" => why);
                self.context.health.set(CHECK, Condition::Degraded, format!("the old rules stay in force: {reason}"));
            }
            // They have said so themselves.
            Err(ReloadError::Doors(_)) => {}
            Err(ReloadError::Refused(refused)) => {
                // A changed file is found changed again.
                self.watch.unsettle();
                warn!(self.log, "the rules were not reloaded"; "error" => %refused, "why" => why);
            }
        }
        answer
    }

    fn bring(&mut self, text: Option<String>) -> Reloaded {
        let (rules, receivers) = match self.file.load(text.as_deref()) {
            Ok(Loaded { rules, receivers }) => {
                let before = self.context.rules.read().records();
                (Arc::new(rules.succeeding(&before, Timestamp::now())), receivers)
            }
            Err(err) => {
                self.tried = text;
                return Err(err.into());
            }
        };
        let deadline = Instant::now() + self.lanes_wait;
        let dispatcher = &self.context.dispatcher;
        let places = self.until(deadline, || dispatcher.control_places()).map_err(|why| match why {
            GaveUp::Late => Refused::Busy,
            GaveUp::Stopping => Refused::Stopping,
        })?;
        // Before the lanes: a new receiver is there when the first rule names it.
        self.context.receivers.change(receivers, self.lanes_wait);
        let given = dispatcher.reload(&rules, places).map_err(|_| Refused::Stopping)?;
        self.tried = text;
        let came = self.all_given(deadline, given);
        if matches!(came, Err(GaveUp::Stopping)) {
            return Err(Refused::Stopping.into());
        }
        let before = std::mem::replace(&mut *self.context.rules.write(), rules.clone());
        let gone = before.rules.iter().filter(|rule| rules.rule(&rule.name).is_none());
        gone.for_each(|rule| self.context.stats.forget_rule(&rule.name));
        self.context.stats.rules_reloads.inc();
        self.good(&rules);
        came.map_or(Err(ReloadError::Late), |()| Ok(rules))
    }

    /// The file was good: says so wherever a bad one would be shown.
    fn good(&self, rules: &RuleSet) {
        let Context { stats, health, .. } = &self.context;
        stats.rules_reload_successful.set(1);
        stats.rules_reload_success_at.set(Timestamp::now().as_seconds());
        health.set(CHECK, Condition::Ok, format!("{} rules, {}", rules.rules.len(), rules.source));
    }

    /// Has an instance forgotten. A receipt that is dropped here tells that it was not.
    fn forget(&self, key: Arc<InstanceKey>, receipt: Receipt) {
        let Context { dispatcher, state, .. } = &self.context;
        let lane_idx = state.lane_of(&key);
        let place = self.until(Instant::now() + self.lanes_wait, || {
            // Whoever was told to come again must not find it done behind its back.
            if !receipt.is_awaited() {
                return Some(None);
            }
            dispatcher.control_place(lane_idx).map(Some)
        });
        if let Ok(Some(place)) = place {
            // A lane that has died takes the server with it, and the receipt, too.
            let _ = dispatcher.forget(lane_idx, key, place, receipt);
        }
    }

    /// Waits for every receipt.
    fn all_given(&self, deadline: Instant, mut receipts: Vec<oneshot::Receiver<()>>) -> Result<(), GaveUp> {
        let mut any_lost = false;
        self.until(deadline, || {
            receipts.retain_mut(|receipt| {
                let answer = receipt.try_recv();
                any_lost |= answer == Err(TryRecvError::Closed);
                answer == Err(TryRecvError::Empty)
            });
            receipts.is_empty().then_some(())
        })?;
        // A receipt is lost only with the pipeline.
        if any_lost { Err(GaveUp::Stopping) } else { Ok(()) }
    }

    /// The first answer of `look`, unless time runs out or the server stops before.
    fn until<T>(&self, deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Result<T, GaveUp> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            match self.stopped.recv_timeout(POLL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(GaveUp::Stopping),
            }
            if Instant::now() >= deadline {
                return Err(GaveUp::Late);
            }
        }
    }
}

#[cfg(test)]
mod tests;
