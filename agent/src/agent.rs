//! The wiring: a collector that reads at each tick and never waits, a sender that delivers, and an orderly stop.
//!
//! SIGHUP has the mapping file read again. At the first signal to stop each instance says goodbye with a `leaving` report, and what is buffered gets a few seconds to
//! be receipted; at the second the agent leaves at once.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use gopherwatch_client::buffer::{self, Buffer};
use gopherwatch_client::codec::encode;
use gopherwatch_client::error::chain;
use gopherwatch_client::outbox::Outbox;
use gopherwatch_client::overflow::Overflow;
use gopherwatch_client::tls::TlsFiles;
use gopherwatch_client::token::Token;
use gopherwatch_client::trouble::{Say, Trouble};
use gopherwatch_client::{clock, send};
use gopherwatch_proto::v1::MetricReport;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use slog::{Logger, error, info, o, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tonic::transport::Uri;

use crate::log;
use crate::mapping::{self, Mapping};
use crate::sources::accounts::OwnAccounts;
use crate::sources::host::{self, Host};
use crate::sources::process::{Processes, Watch};
use crate::sources::roster::Roster;
use crate::sources::scrape::{self, Scrape};
use crate::sources::simulate::Fleet;
use crate::sources::statsd::{self, Statsd};
use crate::sources::{Outdone, Round, Source};

/// A service manager that hears nothing for its `WatchdogSec=` starts the agent anew.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);
/// Figures that are named in a warning when two sources have them: enough to see what goes on.
const MOST_NAMED: usize = 50;
/// How long a stop may wait for the last receipt.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// Where reports go.
    pub server: Uri,
    /// By which files it is spoken to, if that is by https.
    pub tls: TlsFiles,
    /// What the server knows the agent by, if it asks.
    pub token: Option<Token>,
    /// What they are about.
    pub subject: Subject,
    /// Services on this host that are reported beside it.
    pub processes: Vec<Watch>,
    /// The instance that they name, a valid name.
    pub instance: String,
    /// Time between two of them.
    pub interval: Duration,
    /// Where reports wait for their receipts.
    pub buffer: buffer::Options,
    /// Where programs of this host send their figures; a simulated fleet has none.
    pub statsd: statsd::Options,
    /// Services whose figures are fetched.
    pub scrape: Vec<scrape::Target>,
    /// What figures of either kind are called.
    pub mapping: Mapping,
    /// Where log lines go.
    pub log: log::Options,
}

/// What is reported.
#[derive(Debug, Clone)]
pub enum Subject {
    /// This host, as the service of that name.
    Host {
        /// A valid name.
        service: String,
    },
    /// An invented fleet.
    Simulated {
        /// How many services, at most 10,000: more instances than that a stream may not carry.
        n_services: u32,
        /// How many times faster than real days theirs pass.
        speed: f64,
    },
}

/// Why the agent could not run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's figures.
    #[error("reading this host's figures")]
    Host(#[source] sysinfo::Error),
    /// The signal handlers.
    #[error("listening for SIGTERM, SIGINT and SIGHUP")]
    Signals(#[source] io::Error),
    /// Each would deliver the other's reports again.
    #[error(transparent)]
    Spool(buffer::Taken),
    /// A bug of ours. Better an agent that is seen to end than one that is silent.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
}

/// Reports until a signal says stop.
///
/// # Errors
/// The agent could not start.
pub async fn run(options: Options, log: Logger) -> Result<(), Error> {
    let mut stop = StopSignals::new().map_err(Error::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let service_id = match &options.subject {
        Subject::Host { service } => service.as_str(),
        Subject::Simulated { .. } => "simulator",
    };
    // 0 would mean "no epoch".
    let epoch = rand::random_range(1..=u64::MAX);
    let buffer = Buffer::open(&options.buffer, epoch, &log).map_err(Error::Spool)?;
    let outbox = Arc::new(Outbox::new(buffer));
    let mut delivery = send::Options::new(options.server.clone(), service_id);
    delivery.tls.clone_from(&options.tls);
    delivery.token.clone_from(&options.token);
    info!(log, "started"; "service" => service_id, "instance" => &options.instance, "server" => %options.server,
        "interval_ms" => options.interval.as_millis() as u64, "epoch" => epoch);

    let interval = options.interval;
    let (remap, mappings) = watch::channel(options.mapping.clone());
    let collector = Collector::new(options, Arc::clone(&outbox), log.new(o!()))?;
    let stopping = Arc::new(Notify::new());
    let mut collector = tokio::spawn(collector.run(interval, mappings, Arc::clone(&stopping)));
    let mut sender = tokio::spawn(send::run(delivery, Arc::clone(&outbox), log.new(o!())));

    // systemd, where there is one: that it does not hear is no reason not to report.
    let _ = notify(&[NotifyState::Ready]);
    let mut signs_of_life = interval_at(Instant::now(), SIGN_OF_LIFE_EVERY);
    let name = loop {
        tokio::select! {
            name = stop.next() => break name,
            _ = hangup.recv() => reload(&remap, &log),
            _ = &mut collector => return Err(Error::Ended("collector")),
            _ = &mut sender => return Err(Error::Ended("sender")),
            _ = signs_of_life.tick() => if watchdog_enabled().is_some() {
                let _ = notify(&[NotifyState::Watchdog]);
            },
        }
    };
    let _ = notify(&[NotifyState::Stopping]);
    info!(log, "stopping"; "signal" => name, outbox.accounts());
    stopping.notify_one();
    tokio::select! {
        _ = timeout(STOP_WAIT, sender) => {}
        name = stop.next() => warn!(log, "leaving at once"; "signal" => name),
    }
    let accounts = outbox.accounts();
    let n_lasting = outbox.n_lasting().min(accounts.pending);
    if accounts.pending > n_lasting {
        warn!(log, "stopped with undelivered reports, which are lost"; "lost" => accounts.pending - n_lasting, accounts);
    } else if n_lasting > 0 {
        info!(log, "stopped; what is not delivered is in the spool and goes first at the next start"; accounts);
    } else {
        info!(log, "stopped"; accounts);
    }
    Ok(())
}

/// Reads the mapping file again. What of it is wrong changes nothing.
fn reload(mapping: &watch::Sender<Mapping>, log: &Logger) {
    let Some(path) = mapping.borrow().path().map(ToOwned::to_owned) else {
        info!(log, "nothing to read again: there is no --mapping"; "signal" => "SIGHUP");
        return;
    };
    match mapping::read(&path) {
        Ok(read) => {
            mapping.send_replace(read);
            info!(log, "the mapping is read again"; "signal" => "SIGHUP", "path" => %path.display());
        }
        Err(err) => error!(log, "cannot read the mapping again: the old one holds"; "error" => chain(&err)),
    }
}

/// Turns readings into numbered reports.
struct Collector {
    sources: Vec<Box<dyn Source>>,
    roster: Roster,
    outbox: Arc<Outbox>,
    /// Serves all instances as their reports' number: none reports twice in a round.
    round: u64,
    /// Until the first round, by which there is a figure for everything that takes two readings.
    warm_up: Duration,
    overflow: Overflow,
    left_out: Trouble,
    /// Those that were warned of.
    outdone: BTreeSet<Outdone>,
    log: Logger,
}

impl Collector {
    fn new(options: Options, outbox: Arc<Outbox>, log: Logger) -> Result<Self, Error> {
        let Options { subject, instance, interval, processes, statsd, scrape, mapping, .. } = options;
        // What the agent sees itself comes first and holds, then what it asks for; anybody may send StatsD.
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut sent = None;
        let warm_up = match subject {
            Subject::Host { service } => {
                sources.push(Box::new(Host::new(service.clone(), instance.clone()).map_err(Error::Host)?));
                sources.push(Box::new(OwnAccounts::new(service.clone(), instance.clone(), Arc::clone(&outbox))));
                sent = Some(Box::new(Statsd::new(statsd, service, instance.clone(), mapping.clone(), &log)));
                host::WARM_UP
            }
            Subject::Simulated { n_services, speed } => {
                sources.push(Box::new(Fleet::new(n_services, speed, instance.clone())));
                Duration::ZERO
            }
        };
        if !processes.is_empty() {
            sources.push(Box::new(Processes::new(processes, instance, log.new(o!()))));
        }
        let room = scrape::Room::default();
        sources.extend(scrape.into_iter().map(|target| {
            let source: Box<dyn Source> = Box::new(Scrape::new(target, interval, &mapping, &room, &log));
            source
        }));
        sources.extend(sent.map(|sent| -> Box<dyn Source> { sent }));
        let (overflow, left_out) = (Overflow::new(log.clone()), Trouble::default());
        let outdone = BTreeSet::new();
        Ok(Self { sources, roster: Roster::default(), outbox, round: 0, warm_up, overflow, left_out, outdone, log })
    }

    async fn run(mut self, interval: Duration, mut mappings: watch::Receiver<Mapping>, stopping: Arc<Notify>) {
        let mut ticks = interval_at(Instant::now() + self.warm_up, interval);
        // After a suspended laptop or a stopped process, a burst of identical readings would tell nothing.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.collect(false),
                Ok(()) = mappings.changed() => {
                    let mapping = mappings.borrow_and_update().clone();
                    self.sources.iter_mut().for_each(|source| source.remap(&mapping));
                }
                () = stopping.notified() => break,
            }
        }
        self.collect(true);
        self.outbox.finish();
    }

    fn collect(&mut self, leaving: bool) {
        self.round += 1;
        let mut round = Round::default();
        for source in &mut self.sources {
            if leaving { source.leave(&mut round) } else { source.read(&mut round) }
        }
        self.note_outdone(round.take_outdone());
        let mut n_left_out = 0;
        let roster = &mut self.roster;
        let report = |(service_name, instance, mut metrics): (String, String, Vec<_>)| {
            n_left_out += roster.fit(&service_name, &instance, &mut metrics);
            encode(&MetricReport {
                service_name,
                instance,
                time_unix_nano: clock::unix_nanos(),
                sequence: self.round,
                metrics,
                leaving,
            })
        };
        let n_evicted = self.outbox.push_all(round.into_readings().map(report));
        self.overflow.note(n_evicted, &self.outbox);
        self.note_left_out(n_left_out as u64);
    }

    fn note_outdone(&mut self, outdone: Vec<Outdone>) {
        for figure in outdone {
            if self.outdone.len() < MOST_NAMED && !self.outdone.contains(&figure) {
                warn!(self.log, "a figure is sent by StatsD or scraped that the agent has from elsewhere: that one is reported";
                    "figure" => &figure.name, "service" => &figure.service, "instance" => &figure.instance);
                self.outdone.insert(figure);
            }
        }
    }

    fn note_left_out(&mut self, n_left_out: u64) {
        let now = std::time::Instant::now();
        self.left_out.over_if_old(now);
        if n_left_out > 0
            && let Say::First | Say::Again(_) = self.left_out.happened(n_left_out, now)
        {
            warn!(self.log, "an instance has more figures than the server keeps: those that came first are reported";
                "left_out" => n_left_out);
        }
    }
}

/// SIGTERM and SIGINT, one after the other.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        // Once somebody listens, a write past the limit on file sizes is an error like a full disk's; it would end us.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
