//! REST: what people, dashboards and probes ask of the server (CONTRACT §5).
//!
//! It runs on a runtime of its own, so that it answers while ingest is overloaded or draining, and it stops last. It
//! reads the state, the figures, the rules and, within a deadline, the store; what is to change it asks of control. Every
//! answer is a copy made before it is written out, so that no lock waits for a client's network.

mod accept;
mod access;
mod alerts;
mod connections;
mod control;
mod cursor;
mod explain;
mod exposition;
mod front;
mod health;
mod history;
mod parameters;
mod problem;
mod reads;
mod room;
mod routes;
mod rules;
mod status;
mod views;
mod writes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    time::Duration,
};

use slog::{Logger, info, warn};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use self::{connections::Connections, front::Front, reads::Reads};
use crate::{
    control::Door, doors::Doors, health::Health, rules::SharedRules, state::State, stats::Stats, store::AlertStore,
};

/// Enough to answer a few heavy requests at once; reports have the other cores.
const RUNTIME_THREADS: usize = 2;
/// Threads for reads of the store; more of them would only queue inside the database.
const BLOCKING_THREADS: usize = 8;

/// Where the answers come from.
#[derive(Clone, Debug)]
pub struct Context {
    /// The instances.
    pub state: Arc<State>,
    /// The rules in force.
    pub rules: SharedRules,
    /// The alert history.
    pub store: Arc<dyn AlertStore>,
    /// The server's own figures.
    pub stats: Arc<Stats>,
    /// Whether the server is ready.
    pub health: Health,
    /// Where changes are asked for.
    pub control: Door,
    /// Who may come in.
    pub doors: Arc<Doors>,
}

/// Limits. The defaults are those of RELIABILITY.md's security baseline.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at once; one more closes the one that has been idle for longest.
    pub max_connections: usize,
    /// Requests at once; one more gets 503.
    pub max_requests: usize,
    /// How long a request's head may take to arrive, and a new connection to begin one.
    pub header_read: Duration,
    /// How large a head may be.
    pub max_header_bytes: usize,
    /// How long path and query may be together.
    pub max_uri_bytes: usize,
    /// How long a request may take to be answered, and its answer to be read by the client.
    pub request: Duration,
    /// Bytes of large answers that clients have not read yet, all together.
    pub max_answer_bytes: u64,
    /// How long a read of the store may take.
    pub store_deadline: Duration,
    /// Reads of the store at once; further ones wait for their turn, within their deadline.
    pub max_store_reads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_requests: 256,
            header_read: Duration::from_secs(5),
            max_header_bytes: 16 * 1024,
            max_uri_bytes: 2 * 1024,
            request: Duration::from_secs(10),
            max_answer_bytes: 128 << 20,
            store_deadline: Duration::from_secs(2),
            max_store_reads: 4,
        }
    }
}

/// What the handlers of all requests share.
struct Shared {
    context: Context,
    reads: Reads,
}

/// The REST server, running. Dropping it cuts off whatever is under way.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    stopped: mpsc::Receiver<()>,
    runtime: Option<Runtime>,
    log: Logger,
}

/// Starts to answer on `listener`.
///
/// # Errors
/// When the runtime cannot start or the listener cannot be used.
///
/// # Panics
/// When `options` allows no connection, no request or no read, or more reads than there are threads for them.
pub fn start(listener: TcpListener, context: Context, options: Options, log: Logger) -> io::Result<Server> {
    assert!(options.max_connections > 0 && options.max_requests > 0, "somebody is to be answered");
    assert!(
        (1..=BLOCKING_THREADS).contains(&options.max_store_reads),
        "each read of the store has a thread, so that none waits unseen behind its permit"
    );
    let addr = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("admin")
        .enable_all()
        .build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };

    let reads = Reads::new(context.store.clone(), &options, log.clone());
    let doors = context.doors.clone();
    let routes = routes::routes(&Arc::new(Shared { context, reads }));
    let front = Arc::new(Front::new(routes, doors.clone(), &options, log.clone()));
    let connections = Arc::new(Connections::new(options.max_connections));
    let stop = CancellationToken::new();
    let (finished, stopped) = mpsc::sync_channel(1);
    let serving = accept::run(listener, (doors, front), connections, options, stop.clone(), log.clone());
    runtime.spawn(async move {
        serving.await;
        // Nobody may be waiting for it: the server was dropped.
        let _ = finished.send(());
    });
    info!(log, "rest is listening"; "addr" => %addr);
    Ok(Server { addr, stop, stopped, runtime: Some(runtime), log })
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no further connection, finishes the requests under way, and is gone after `within` at the latest. Blocks.
    pub fn stop(mut self, within: Duration) {
        self.stop.cancel();
        if self.stopped.recv_timeout(within).is_err() {
            warn!(self.log, "rest requests under way were cut off"; "waited_seconds" => within.as_secs_f64());
        }
        self.cut_off();
    }

    /// A read that the store does not answer must not keep the process: its thread is left behind.
    fn cut_off(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cut_off();
    }
}

#[cfg(test)]
mod tests;
