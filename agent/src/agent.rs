//! The wiring: a collector that reads at each tick and never waits, a sender that delivers, and an orderly stop.
//!
//! At the first signal each instance says goodbye with a `leaving` report, and what is buffered gets a few seconds to
//! be receipted; at the second the agent leaves at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gopherwatch_proto::v1::{Metric, MetricReport};
use slog::{Logger, info, o, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tonic::transport::Uri;

use crate::buffer::Limits;
use crate::clock;
use crate::codec::encode;
use crate::collect::{self, Host};
use crate::outbox::Outbox;
use crate::simulate::Fleet;
use crate::trouble::{Say, Trouble};
use crate::{log, send};

/// How long a stop may wait for the last receipt.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// Where reports go.
    pub server: Uri,
    /// What they are about.
    pub source: Source,
    /// The instance that they name, a valid name.
    pub instance: String,
    /// Time between two of them.
    pub interval: Duration,
    /// Where log lines go.
    pub log: log::Options,
}

/// Where readings come from.
#[derive(Debug, Clone)]
pub enum Source {
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
    #[error("listening for SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
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
    let outbox = Arc::new(Outbox::new(Limits::default()));
    let service_id = match &options.source {
        Source::Host { service } => service.as_str(),
        Source::Simulated { .. } => "simulator",
    };
    // 0 would mean "no epoch".
    let epoch = rand::random_range(1..=u64::MAX);
    let delivery = send::Options::new(options.server.clone(), service_id, epoch);
    info!(log, "started"; "service" => service_id, "instance" => &options.instance, "server" => %options.server,
        "interval_ms" => options.interval.as_millis() as u64, "epoch" => epoch);

    let collector = Collector::new(options.source, options.instance, Arc::clone(&outbox), log.new(o!()))?;
    let stopping = Arc::new(Notify::new());
    let mut collector = tokio::spawn(collector.run(options.interval, Arc::clone(&stopping)));
    let mut sender = tokio::spawn(send::run(delivery, Arc::clone(&outbox), log.new(o!())));

    let name = tokio::select! {
        name = stop.next() => name,
        _ = &mut collector => return Err(Error::Ended("collector")),
        _ = &mut sender => return Err(Error::Ended("sender")),
    };
    info!(log, "stopping"; "signal" => name, outbox.accounts());
    stopping.notify_one();
    tokio::select! {
        _ = timeout(STOP_WAIT, sender) => {}
        name = stop.next() => warn!(log, "leaving at once"; "signal" => name),
    }
    let accounts = outbox.accounts();
    if accounts.pending > 0 {
        warn!(log, "stopped with undelivered reports, which are lost"; accounts);
    } else {
        info!(log, "stopped"; accounts);
    }
    Ok(())
}

/// Turns readings into numbered reports.
struct Collector {
    readings: Readings,
    instance: String,
    outbox: Arc<Outbox>,
    /// Every instance reports in every round, so the round's number serves them all.
    round: u64,
    started: Instant,
    overflow: Trouble,
    log: Logger,
}

enum Readings {
    Host { host: Box<Host>, service: String },
    Simulated(Fleet),
}

impl Collector {
    fn new(source: Source, instance: String, outbox: Arc<Outbox>, log: Logger) -> Result<Self, Error> {
        let readings = match source {
            Source::Host { service } => Readings::Host { host: Box::new(Host::new().map_err(Error::Host)?), service },
            Source::Simulated { n_services, speed } => Readings::Simulated(Fleet::new(n_services, speed)),
        };
        Ok(Self { readings, instance, outbox, round: 0, started: Instant::now(), overflow: Trouble::default(), log })
    }

    async fn run(mut self, interval: Duration, stopping: Arc<Notify>) {
        let first = match self.readings {
            Readings::Host { .. } => self.started + collect::WARM_UP,
            Readings::Simulated(_) => self.started,
        };
        let mut ticks = interval_at(first, interval);
        // After a suspended laptop or a stopped process, a burst of identical readings would tell nothing.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.collect(false),
                () = stopping.notified() => break,
            }
        }
        self.collect(true);
        self.outbox.finish();
    }

    fn collect(&mut self, leaving: bool) {
        self.round += 1;
        let mut n_evicted = 0;
        let report = |service: &str, metrics: Vec<Metric>| MetricReport {
            service_name: service.to_owned(),
            instance: self.instance.clone(),
            time_unix_nano: clock::unix_nanos(),
            sequence: self.round,
            metrics,
            leaving,
        };
        match &mut self.readings {
            Readings::Host { host, service } => {
                n_evicted += self.outbox.push(encode(&report(service, host.read())));
            }
            Readings::Simulated(fleet) => fleet.read(self.started.elapsed(), |service, metrics| {
                n_evicted += self.outbox.push(encode(&report(service, metrics)));
            }),
        }
        self.note_overflow(n_evicted as u64);
    }

    fn note_overflow(&mut self, n_evicted: u64) {
        let now = std::time::Instant::now();
        self.overflow.over_if_old(now);
        if n_evicted == 0 {
            return;
        }
        let accounts = self.outbox.accounts();
        match self.overflow.happened(n_evicted, now) {
            Say::First => warn!(self.log, "the buffer is full: the oldest reports make room"; accounts),
            Say::Again(episode) => warn!(self.log, "the buffer is still full: the oldest reports make room";
                "for_seconds" => episode.seconds(), accounts),
            Say::Nothing => {}
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
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
