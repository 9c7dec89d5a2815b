//! The wiring, which reads as the pipeline: start from the last stage to the first, stop from the first to the last.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use parking_lot::{Mutex, RwLock};
use slog::{Logger, error, info, o, warn};
use tokio::sync::oneshot::error::TryRecvError;

use crate::{
    accounts,
    config::{Config, StoreConfig},
    control::{self, Door},
    data_dir::{DataDir, DataDirError},
    deliver, descriptors,
    dispatch::{self, Dispatcher, Receipt},
    doors::Doors,
    evaluate,
    health::{Health, Phase},
    ingest::{self, Ingest},
    journal::{self, Entry, Journal, JournalError, SinkCursor, Sinks},
    log::{AlertLog, chain},
    model::Timestamp,
    rest,
    restore::{self, Restored},
    service_manager,
    state::{State, TICK_EVERY},
    stats::Stats,
    store::{AlertStore, MySqlStore, SqliteStore, StoreError},
};

/// A server whose clock is outside of these years would write times that the database cannot hold.
const CLOCK_RANGE: [i64; 2] = [1_577_836_800_000_000_000, 2_145_916_800_000_000_000];
/// How often a waiting server looks whether all of its stages live.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long the statement in flight may take to finish, once all else is done. It is harmless to cut off (I10).
const STATEMENT_WAIT: Duration = Duration::from_secs(1);
/// How long receivers may take to answer what they were being told, once all else is done. They know it by its key when it
/// is sent again.
const ANSWERS_WAIT: Duration = Duration::from_secs(3);
/// How long REST may take to finish the requests under way.
const REST_WAIT: Duration = Duration::from_millis(500);
/// How often a stop that takes long says whom it waits for.
const NAME_WAITING_EVERY: Duration = Duration::from_secs(1);

/// The server could not start. The program exits 1.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listening on {addr}: choose another with {flag}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The flag that chooses it.
        flag: &'static str,
        /// Why it cannot.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The embedded store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread or runtime cannot be started.
    #[error("starting a stage")]
    Stage(#[from] io::Error),
    /// The clock is wrong.
    #[error("the clock says {0}, which is outside of 2020 to 2037: set it, then start again")]
    Clock(Timestamp),
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was taken is journaled, and every stream had its answer.
    Clean,
    /// A stage died, which is why the server stopped.
    StageDied,
    /// Time ran out.
    Unfinished,
}

/// The running server.
#[derive(Debug)]
pub struct App {
    log: Logger,
    health: Health,
    shutdown_timeout: Duration,
    drain_store: bool,
    ingest: Ingest,
    ticker: Stage,
    accounts: Stage,
    control: Stage,
    door: Door,
    lanes: Vec<JoinHandle<()>>,
    entries: Sender<Entry>,
    journal: JoinHandle<Result<(), JournalError>>,
    store: Stage,
    sinks: Sinks,
    store_position: SinkCursor,
    alerts: Arc<dyn AlertStore>,
    lines: Stage,
    receivers: Stage,
    rest: rest::Server,
    data_dir: DataDir,
}

/// A thread that ends when told to.
#[derive(Debug)]
struct Stage {
    /// Dropping it tells the thread to end.
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl App {
    /// Starts every stage, last to first, and takes reports once it returns.
    pub fn start(config: Config, log: &Logger) -> Result<Self, StartError> {
        let now = Timestamp::now();
        check_clock(now)?;
        let grpc = listen(config.grpc_addr, "--grpc-addr")?;
        let http = listen(config.http_addr, "--http-addr")?;
        let mut data_dir = DataDir::take(&config.data_dir)?;
        let stats = Arc::new(Stats::new());
        let health = Health::new();
        let state = Arc::new(State::new(config.n_workers, config.max_instances));

        let journal = Journal::open(&journal::Options {
            data_dir: config.data_dir.clone(),
            max_bytes: config.journal_max,
            sinks: &[deliver::STORE, deliver::LINES],
        })?;
        let alerts = open_store(&config, &journal)?;
        info!(log, "starting"; "version" => env!("CARGO_PKG_VERSION"), "store" => alerts.describe(),
            "data" => config.data_dir.display().to_string(), "journal" => journal.path().display().to_string(),
            "workers" => config.n_workers, "rules" => config.rules.rules.len(), "rules_from" => &config.rules.source);
        for warning in config.warnings.iter().chain(&config.rules.warnings()) {
            warn!(log, "{}", warning);
        }
        let rules = Arc::new(config.rules.clone().succeeding(&journal.rules()?, Timestamp::now()));
        let shown_rules = Arc::new(RwLock::new(rules.clone()));
        let Restored { mut entry, n_instances, n_firing } =
            restore::restore(journal.restore()?, &rules, &state, Timestamp::now());
        entry.rules = Some(rules.records());
        stats.alerts_firing.set(n_firing as i64);
        stats.instances.set(state.n_instances() as i64);
        info!(log, "restored from the journal"; "instances" => n_instances, "firing" => n_firing);

        let lines_cursor = journal.sinks().add(deliver::LINES);
        let store_cursor = journal.sinks().add(deliver::STORE);
        let (sinks, store_position) = (journal.sinks().clone(), store_cursor.clone());
        let is_known = store_cursor.identity().is_none_or(|known| known == alerts.describe());
        let restated = if is_known { Entry::default() } else { restore::restate(&state) };
        let lines_reader = journal.reader()?;
        let store_reader = journal.reader()?;
        let check_reader = journal.reader()?;

        let doors = Arc::new(Doors::new(config.doors, stats.clone(), log));
        doors.describe();
        let (door, requests) = control::door();
        let rest = rest::start(
            http,
            rest::Context {
                state: state.clone(),
                rules: shown_rules.clone(),
                store: alerts.clone(),
                stats: stats.clone(),
                health: health.clone(),
                control: door.clone(),
                doors: doors.clone(),
            },
            rest::Options::default(),
            log.new(o!("thread" => "admin")),
        )?;
        if let Err(err) = data_dir.sign(&format!("REST at {}", rest.addr())) {
            warn!(log, "cannot write who has the data directory"; "error" => %err);
        }
        let lines = {
            let (stop, stopped) = bounded(0);
            let lines = AlertLog::new(config.log_format);
            Stage { stop, thread: deliver::start_lines(lines, lines_reader, lines_cursor, stopped, log)? }
        };
        let (receivers_door, changes) = deliver::receivers();
        let receivers = {
            let (stop, stopped) = bounded(0);
            let context = deliver::ReceiversContext {
                sinks: journal.sinks().clone(),
                reader: journal.reader()?,
                origin: format!("{}://{}", if doors.has_tls() { "https" } else { "http" }, rest.addr()),
                stats: stats.clone(),
                health: health.clone(),
            };
            let thread = deliver::start_receivers(config.receivers, context, changes, stopped, log)?;
            Stage { stop, thread }
        };
        let store = {
            let (stop, stopped) = bounded(0);
            let options = deliver::Options { retention: config.retention, inherited_seq: journal.last_seq() };
            let source =
                deliver::Source { reader: store_reader, cursor: store_cursor, n_restated: restated.events.len() };
            let thread =
                deliver::start_store(options, alerts.clone(), source, stopped, (stats.clone(), health.clone()), log)?;
            Stage { stop, thread }
        };
        let journal::Running { entries, thread: journal } = journal.start(stats.clone(), health.clone(), log)?;
        for part in entry.split().into_iter().chain(restated.split()).filter(|part| !part.is_empty()) {
            if entries.send(part).is_err() {
                warn!(log, "the journal ended as the server started");
            }
        }
        let dispatch = dispatch::Options { n_lanes: config.n_workers, queue_reports: config.queue_reports };
        let (dispatcher, queues) = Dispatcher::new(dispatch, stats.clone());
        let options = evaluate::Options {
            stale_after: config.stale_after,
            forget_after: config.forget_after,
            n_helpers: config.n_helpers,
            max_batch: evaluate::MAX_BATCH,
            parallel_from: evaluate::PARALLEL_FROM,
            max_forgotten: config.max_instances / config.n_workers / 16 + 1,
        };
        let lanes = evaluate::start(options, queues, (state.clone(), rules), entries.clone(), stats.clone(), log)?;
        let ticker = ticker(dispatcher.clone())?;
        let accounts = {
            let (stop, stopped) = bounded(0);
            let thread = accounts::start(dispatcher.clone(), state.clone(), stats.clone(), stopped, log)?;
            Stage { stop, thread }
        };
        let control = {
            let (stop, stopped) = bounded(0);
            let (file, text) = (config.rule_file, config.rule_text);
            let options = control::Options { file, text, lanes_wait: control::LANES_WAIT };
            let context = control::Context {
                dispatcher: dispatcher.clone(),
                state: state.clone(),
                rules: shown_rules,
                receivers: receivers_door,
                doors: doors.clone(),
                stats: stats.clone(),
                health: health.clone(),
            };
            Stage { stop, thread: control::start(options, context, requests, stopped, log)? }
        };
        let options = ingest::Options {
            max_connections: descriptors::connections(),
            max_instances_per_stream: config.max_instances_per_stream,
            retention: config.retention,
        };
        let ingest = Ingest::start(grpc, options, dispatcher, state, (doors, stats), log)?;
        journal::look_for_damage(check_reader, health.clone(), log)?;
        health.enter(Phase::Ready);
        if let Err(err) = service_manager::ready() {
            warn!(log, "systemd cannot be told that the server is ready"; "error" => %err);
        }
        info!(log, "ready"; "grpc" => ingest.addr().to_string(), "http" => rest.addr().to_string());
        Ok(Self {
            log: log.clone(),
            health,
            shutdown_timeout: config.shutdown_timeout,
            drain_store: config.drain_store,
            ingest,
            ticker,
            accounts,
            control,
            door,
            lanes,
            entries,
            journal,
            store,
            sinks,
            store_position,
            alerts,
            lines,
            receivers,
            rest,
            data_dir,
        })
    }

    /// Where agents connect.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.ingest.addr()
    }

    /// Where REST answers.
    pub fn http_addr(&self) -> SocketAddr {
        self.rest.addr()
    }

    /// Waits until `stop` has a message or is disconnected; false: a stage died first. Each message of `reload` has the
    /// rules read again.
    pub fn wait(&self, stop: &Receiver<()>, reload: &Receiver<()>) -> bool {
        loop {
            select! {
                recv(stop) -> _ => return true,
                recv(reload) -> message => match message {
                    Ok(()) => self.reload(),
                    Err(_) => return true,
                },
                default(WATCH_EVERY) => {}
            }
            if let Some(dead) = self.dead_stage() {
                error!(self.log, "a stage died: stopping"; "stage" => dead);
                return false;
            }
            service_manager::lives();
        }
    }

    fn reload(&self) {
        // What comes of it is in the log.
        if let Err(refused) = self.door.reload(control::By::Signal) {
            warn!(self.log, "the rules were not reloaded"; "error" => %refused, "why" => "signal");
        }
    }

    fn dead_stage(&self) -> Option<&'static str> {
        let dead = [
            ("ingest", !self.ingest.is_running()),
            ("evaluate", self.lanes.iter().any(JoinHandle::is_finished)),
            ("journal", self.journal.is_finished()),
            ("deliver-store", self.store.thread.is_finished()),
            ("deliver-log", self.lines.thread.is_finished()),
            ("receivers", self.receivers.thread.is_finished()),
            ("accounts", self.accounts.thread.is_finished()),
            ("ticker", self.ticker.thread.is_finished()),
            ("control", self.control.thread.is_finished()),
        ];
        dead.into_iter().find(|(_, dead)| *dead).map(|(name, _)| name)
    }

    /// Stops every stage, first to last, within the shutdown time-out. `all_alive`: what [`Self::wait`] said.
    pub fn drain(self, all_alive: bool) -> Outcome {
        let Self {
            log,
            health,
            shutdown_timeout,
            drain_store,
            ingest,
            ticker,
            accounts,
            control,
            door: _,
            lanes,
            entries,
            journal,
            store,
            sinks,
            store_position,
            alerts,
            lines,
            receivers,
            rest,
            data_dir,
        } = self;
        let deadline = Instant::now() + shutdown_timeout;
        health.enter(Phase::Draining);
        // No statement begins after this; the one in flight finishes beside the rest of the drain. Unless the operator
        // wants the store to have everything, since nobody will start this server again.
        let Stage { stop: store_stop, thread: store } = store;
        let mut store_stop = Some(store_stop);
        if !drain_store {
            alerts.shut();
            store_stop = None;
        }
        // Nor any notification.
        drop(receivers.stop);
        // Nobody is told anything new; a change that is in the lanes already goes through them.
        drop(control.stop);
        info!(log, "shutdown began"; "timeout_seconds" => shutdown_timeout.as_secs_f64());
        service_manager::stopping();
        let waiting = Waiting::start(log.clone());

        waiting.on("ingest");
        ingest.stop();
        let mut finished = ingest.finish(deadline);
        drop(ticker.stop);
        drop(accounts.stop);
        waiting.on("control");
        finished &= join_until(control.thread, deadline).is_some();

        // With the last stream, the ticker and control the lanes' entrances are gone, and they end behind what they had.
        waiting.on("evaluate");
        finished &= lanes.into_iter().all(|lane| join_until(lane, deadline).is_some());

        // A receipt behind everything: what the lanes gave is durable, and in reach of the sinks.
        waiting.on("journal");
        let (receipt, mut given) = Receipt::new();
        let last = Entry { receipts: vec![receipt], ..Entry::default() };
        finished &= entries.send_deadline(last, deadline).is_ok();
        finished &= wait_until(deadline, || !matches!(given.try_recv(), Err(TryRecvError::Empty)));
        waiting.on("deliver-log");
        drop(lines.stop);
        finished &= join_until(lines.thread, deadline).is_some();
        waiting.on("receivers");
        // What comes behind has the other half: a receiver that hangs is no reason to leave the journal unfinished.
        let now = Instant::now();
        let answers = now + ANSWERS_WAIT.min(deadline.saturating_duration_since(now) / 2);
        if join_until(receivers.thread, answers).is_none() {
            warn!(log, "left notifications under way: they are sent again after the next start");
        }
        waiting.on("deliver-store");
        if drain_store {
            let has_all = || store_position.position() >= sinks.last_seq();
            if !wait_until(deadline, has_all) {
                let n_left = sinks.last_seq() - store_position.position();
                error!(log, "the store did not take everything in time: start again with a longer --shutdown-timeout";
                    "events_left" => n_left);
                finished = false;
            }
            alerts.shut();
        }
        drop(store_stop);
        let statement = deadline.min(Instant::now() + STATEMENT_WAIT);
        if join_until(store, statement).is_none() {
            warn!(log, "left a statement in flight: its rows are delivered again at the next start");
        }

        // Last of all the journal, which saves how far the sinks came.
        waiting.on("journal");
        drop(entries);
        let journal = join_until(journal, deadline);
        finished &= matches!(journal, Some(Ok(())));
        if let Some(Err(err)) = &journal {
            error!(log, "the journal failed"; "error" => chain(err));
        }
        waiting.on("rest");
        rest.stop(REST_WAIT.min(deadline.saturating_duration_since(Instant::now())));
        drop(waiting);
        drop(data_dir);
        match (all_alive, finished) {
            (false, _) => Outcome::StageDied,
            (true, true) => Outcome::Clean,
            (true, false) => Outcome::Unfinished,
        }
    }
}

fn listen(addr: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).map_err(|source| StartError::Listen { addr, flag, source })
}

fn open_store(config: &Config, journal: &Journal) -> Result<Arc<dyn AlertStore>, StartError> {
    Ok(match &config.store {
        StoreConfig::MySql(options) => Arc::new(MySqlStore::new(options.clone(), journal.server_id())),
        StoreConfig::Sqlite => {
            let store = SqliteStore::open(config.data_dir.join("alerts.db"))?;
            // So that the history answers from the first moment. If it fails, the writer tries again and says why.
            let _ = store.prepare();
            Arc::new(store)
        }
    })
}

fn ticker(dispatcher: Dispatcher) -> io::Result<Stage> {
    let (stop, stopped) = bounded::<()>(0);
    let run = move || {
        let mut due = Instant::now() + TICK_EVERY;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_deadline(due) {
            dispatcher.tick(due);
            // After a stop of the whole process ticks go on from now; they do not catch up.
            due = (due + TICK_EVERY).max(Instant::now());
        }
    };
    let thread = thread::Builder::new().name("ticker".to_owned()).spawn(run)?;
    Ok(Stage { stop, thread })
}

fn check_clock(now: Timestamp) -> Result<(), StartError> {
    let is_possible = (CLOCK_RANGE[0]..CLOCK_RANGE[1]).contains(&now.as_nanos());
    if is_possible { Ok(()) } else { Err(StartError::Clock(now)) }
}

/// The thread's answer, if it ends in time. A thread that panicked has ended, too: its stage was found dead, or its
/// work was done.
fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    wait_until(deadline, || thread.is_finished()).then(|| thread.join().ok()).flatten()
}

fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Says every second which stage a stop waits for.
struct Waiting {
    on: Arc<Mutex<&'static str>>,
    _stop: Sender<()>,
}

impl Waiting {
    fn start(log: Logger) -> Self {
        let on = Arc::new(Mutex::new(""));
        let (stop, stopped) = bounded::<()>(0);
        let stage = on.clone();
        // Without the thread the stop goes on as well, only silently.
        let _ = thread::Builder::new().name("drain".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(NAME_WAITING_EVERY) {
                info!(log, "shutdown waits"; "for" => *stage.lock());
            }
        });
        Self { on, _stop: stop }
    }

    fn on(&self, stage: &'static str) {
        *self.on.lock() = stage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_outside_of_the_years_that_the_database_holds_is_refused() {
        let time =
            |text: &str| Timestamp::from_micros(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond());
        for good in ["2020-01-01T00:00:00Z", "2026-11-23T00:00:00Z", "2037-12-31T23:59:59Z"] {
            assert!(check_clock(time(good)).is_ok(), "{good}");
        }
        for bad in ["1970-01-01T00:00:00Z", "2019-12-31T23:59:59Z", "2038-01-01T00:00:00Z", "2106-02-07T00:00:00Z"] {
            let said = check_clock(time(bad)).expect_err(bad).to_string();
            assert!(said.contains(&bad[..10]) && said.contains("set it, then start again"), "{said}");
        }
    }
}
