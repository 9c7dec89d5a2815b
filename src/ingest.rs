//! Stage 1: gRPC streams in, chunks of valid reports out.
//!
//! Runs on a tokio runtime of its own, `io`. A stream is not read while its chunk waits for a slot, so that overload
//! reaches the agent as flow control. A Summary is sent behind the barriers of every lane that the stream touched (I9).

mod accept;
mod intake;
mod layouts;
mod metadata;
mod service;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use gopherwatch_proto::{MAX_REPORT_BYTES, raw::metrics_service_server::MetricsServiceServer};
use slog::{Logger, error};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::interceptor::InterceptedService, transport::Server};
use tonic_health::ServingStatus;

use crate::{dispatch::Dispatcher, doors::Doors, state::State, stats::Stats};
use metadata::Identify;
use service::Metrics;

/// Streams of one connection.
const MAX_STREAMS: u32 = 256;
/// Windows that let an agent send ahead while a stream waits. Larger stream windows, or smaller connection windows,
/// end honest agents that send small frames: h2 counts each unread frame below 256 bytes against the peer.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// A peer that does not answer a ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is told to go after this, and may finish its streams: agents so spread again after a restart. There
/// is no grace period on purpose: with one, tonic cuts streams hard.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(3_600);
/// How long connections may take, once every stream has its answer, to have it written out and close.
const CLOSING_WAIT: Duration = Duration::from_millis(500);

/// What ingest is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections at once.
    pub max_connections: usize,
    /// Instances of one stream.
    pub max_instances_per_stream: usize,
    /// Readings older than this are refused; `None`: none are.
    pub retention: Option<Duration>,
}

/// The running stage.
#[derive(Debug)]
pub struct Ingest {
    addr: SocketAddr,
    stop: CancellationToken,
    runtime: Runtime,
    streams: TaskTracker,
    health: tonic_health::server::HealthReporter,
    server: JoinHandle<()>,
}

impl Ingest {
    /// Starts to take connections. Holds clones of `dispatcher` for as long as it runs.
    pub fn start(
        listener: TcpListener,
        options: Options,
        dispatcher: Dispatcher,
        state: Arc<State>,
        (doors, stats): (Arc<Doors>, Arc<Stats>),
        log: &Logger,
    ) -> io::Result<Self> {
        let log = log.new(slog::o!("thread" => "io"));
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("io").enable_all().build()?;
        let _guard = runtime.enter();
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let streams = TaskTracker::new();
        let metrics = Metrics {
            options,
            dispatcher,
            state,
            stats: stats.clone(),
            stop: stop.clone(),
            streams: streams.clone(),
            log: log.clone(),
        };
        let metrics = MetricsServiceServer::new(metrics).max_decoding_message_size(MAX_REPORT_BYTES);
        let metrics = InterceptedService::new(metrics, Identify { doors: doors.clone(), log: log.clone() });
        let (health, health_service) = tonic_health::server::health_reporter();
        runtime.block_on(set_health(&health, ServingStatus::Serving));
        let reflection = addr.ip().is_loopback().then(reflection);
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .max_connection_age(MAX_CONNECTION_AGE)
            .add_service(metrics)
            .add_service(health_service)
            .add_optional_service(reflection);
        let incoming = accept::start(listener, options.max_connections, stop.clone(), (doors, stats), log.clone());
        let stopped = stop.clone();
        let server = runtime.spawn(async move {
            if let Err(err) = server.serve_with_incoming_shutdown(incoming, stopped.cancelled_owned()).await {
                error!(log, "the gRPC server ended"; "error" => crate::log::chain(&err));
            }
        });
        Ok(Self { addr, stop, runtime, streams, health, server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it still serves.
    pub fn is_running(&self) -> bool {
        !self.server.is_finished()
    }

    /// Takes no new connection or stream from now on; open streams read no further.
    pub fn stop(&self) {
        self.streams.close();
        self.stop.cancel();
        self.runtime.block_on(set_health(&self.health, ServingStatus::NotServing));
    }

    /// Waits until every stream has its answer, at most until `deadline`, then ends whatever is still connected. False:
    /// some stream had none.
    pub fn finish(self, deadline: Instant) -> bool {
        let Self { runtime, streams, mut server, .. } = self;
        let finished = runtime.block_on(async {
            let answered = tokio::time::timeout_at(deadline.into(), streams.wait()).await.is_ok();
            let closing = deadline.min(Instant::now() + CLOSING_WAIT);
            // A peer that does not close its connection is not waited for.
            let _ = tokio::time::timeout_at(closing.into(), &mut server).await;
            answered
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
        finished
    }
}

/// The health of both the server as a whole (the empty name) and the one service it has.
async fn set_health(health: &tonic_health::server::HealthReporter, status: ServingStatus) {
    for name in ["", "gopherwatch.v1.MetricsService"] {
        health.set_service_status(name, status).await;
    }
}

fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(gopherwatch_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are those that the code was generated from")
}
