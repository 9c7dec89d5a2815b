//! For tests: a server that does to each stream what the test says, and remembers what it saw.

#![expect(missing_docs, reason = "the names say it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::missing_panics_doc, reason = "a test that cannot go on panics")]

mod certificates;
mod secured;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use gopherwatch_proto::v1::{MetricReport, Summary};
use gopherwatch_proto::{AGENT_EPOCH, AGENT_TIME, SERVICE_ID};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub use certificates::{Authority, Issued};
pub use secured::Tls;

/// What to do to a stream. Without instructions it is read to its end and receipted.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// Read so many reports, then fail without a receipt.
    Cut(usize),
    /// Read so many reports, then end OK with a receipt for these.
    EndEarly(u64),
    /// Refuse it with a pushback of so many milliseconds.
    Refuse(u64),
    /// Read all, and never answer.
    Hang,
    /// Receipt it, calling all rejected.
    Reject,
}

/// A stream as the double saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub service_id: String,
    pub epoch: u64,
    pub time_unix_nano: u64,
    pub opened: Option<Instant>,
    pub reports: Vec<MetricReport>,
    /// It has ended, one way or the other.
    pub ended: bool,
    pub receipted: u64,
}

impl Seen {
    pub fn sequences(&self) -> Vec<u64> {
        self.reports.iter().map(|report| report.sequence).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Who does not have it is refused.
    token: Option<String>,
    script: VecDeque<Act>,
    streams: Vec<Seen>,
    n_refused: usize,
    most_open: usize,
}

/// The server.
#[derive(Debug, Clone, Default)]
pub struct Double {
    state: Arc<Mutex<State>>,
}

/// A double that listens; it stops, connections and all, when dropped.
#[derive(Debug)]
pub struct Listening {
    pub addr: SocketAddr,
    /// Its own, for aborting a server's task leaves its connections alive.
    runtime: Option<Runtime>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Double {
    pub fn new(script: impl IntoIterator<Item = Act>) -> Self {
        let double = Self::default();
        double.state.lock().unwrap().script = script.into_iter().collect();
        double
    }

    /// From now on it asks for this token.
    pub fn asks_for(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    pub async fn listen(&self, addr: &str) -> Listening {
        self.listen_as(addr, None).await
    }

    /// [`Double::listen`] for those who speak TLS.
    pub async fn listen_secured(&self, addr: &str, tls: &Tls) -> Listening {
        self.listen_as(addr, Some(tls)).await
    }

    async fn listen_as(&self, addr: &str, tls: Option<&Tls>) -> Listening {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = bind(addr).await;
        let addr = listener.local_addr().unwrap();
        let service = MetricsServiceServer::new(self.clone());
        let acceptor = tls.map(Tls::acceptor);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let router = Server::builder().add_service(service);
            match acceptor {
                None => router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap(),
                Some(acceptor) => router.serve_with_incoming(secured::incoming(listener, acceptor)).await.unwrap(),
            }
        });
        Listening { addr, runtime: Some(runtime) }
    }

    pub fn streams(&self) -> Vec<Seen> {
        self.state.lock().unwrap().streams.clone()
    }

    /// The most streams that were open at one time.
    pub fn most_open(&self) -> usize {
        self.state.lock().unwrap().most_open
    }

    /// The receipted reports, in the order of their receipts.
    pub fn receipted(&self) -> Vec<MetricReport> {
        let covered = |seen: &Seen| seen.reports[..seen.receipted as usize].to_vec();
        self.streams().iter().flat_map(covered).collect()
    }

    /// Waits until the streams are as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(&self.streams()) {
            assert!(Instant::now() < deadline, "{what} did not come: {:#?}", self.streams());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a stream was refused for its token.
    pub async fn until_refused(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.state.lock().unwrap().n_refused == 0 {
            assert!(Instant::now() < deadline, "{what} was not refused");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn open(&self, metadata: &MetadataMap) -> (usize, Option<Act>) {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut state = self.state.lock().unwrap();
        state.streams.push(Seen {
            service_id: text(SERVICE_ID),
            epoch: text(AGENT_EPOCH).parse().unwrap_or_default(),
            time_unix_nano: text(AGENT_TIME).parse().unwrap_or_default(),
            opened: Some(Instant::now()),
            ..Seen::default()
        });
        let n_open = state.streams.iter().filter(|seen| !seen.ended).count();
        state.most_open = state.most_open.max(n_open);
        (state.streams.len() - 1, state.script.pop_front())
    }

    fn note<T>(&self, stream: usize, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.state.lock().unwrap().streams[stream])
    }

    /// Reads up to `most` reports.
    async fn read(&self, stream: usize, reports: &mut Streaming<MetricReport>, most: u64) -> Result<u64, Status> {
        for n_read in 0..most {
            let Some(report) = reports.message().await? else { return Ok(n_read) };
            self.note(stream, |seen| seen.reports.push(report));
        }
        Ok(most)
    }

    async fn answer(
        &self,
        stream: usize,
        act: Option<Act>,
        reports: &mut Streaming<MetricReport>,
    ) -> Result<Summary, Status> {
        match act {
            None => {
                let received = self.read(stream, reports, u64::MAX).await?;
                Ok(Summary { received, accepted: received, ..Summary::default() })
            }
            Some(Act::Reject) => {
                let received = self.read(stream, reports, u64::MAX).await?;
                Ok(Summary { received, rejected: received, ..Summary::default() })
            }
            Some(Act::EndEarly(n_reports)) => {
                let received = self.read(stream, reports, n_reports).await?;
                Ok(Summary { received, accepted: received, ..Summary::default() })
            }
            Some(Act::Cut(n_reports)) => {
                self.read(stream, reports, n_reports as u64).await?;
                Err(Status::internal("cut by the test"))
            }
            Some(Act::Refuse(millis)) => {
                let mut status = Status::resource_exhausted("no room");
                status.metadata_mut().insert("grpc-retry-pushback-ms", millis.into());
                Err(status)
            }
            Some(Act::Hang) => {
                self.read(stream, reports, u64::MAX).await?;
                std::future::pending().await
            }
        }
    }
}

/// Binds, also where a stopped double has a moment ago.
async fn bind(addr: &str) -> std::net::TcpListener {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match std::net::TcpListener::bind(addr) {
            Ok(listener) => {
                listener.set_nonblocking(true).unwrap();
                return listener;
            }
            Err(err) => assert!(Instant::now() < deadline, "binding {addr}: {err}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Marks a stream as ended also when its connection was cut and its handler dropped.
struct Ending<'a>(&'a Double, usize);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.note(self.1, |seen| seen.ended = true);
    }
}

#[tonic::async_trait]
impl MetricsService for Double {
    async fn send_metrics(&self, request: Request<Streaming<MetricReport>>) -> Result<Response<Summary>, Status> {
        let wanted = self.state.lock().unwrap().token.as_ref().map(|token| format!("Bearer {token}"));
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if wanted.is_some() && wanted.as_deref() != given {
            self.state.lock().unwrap().n_refused += 1;
            return Err(Status::unauthenticated("no token, or another one"));
        }
        let (stream, act) = self.open(request.metadata());
        let ending = Ending(self, stream);
        let mut reports = request.into_inner();
        let result = self.answer(stream, act, &mut reports).await;
        if let Ok(summary) = result {
            self.note(stream, |seen| seen.receipted = summary.received);
        }
        drop(ending);
        result.map(Response::new)
    }
}
