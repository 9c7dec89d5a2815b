//! Delivers what is in the outbox: one stream at a time, closed every few seconds for its receipt.
//!
//! A report leaves the outbox only with a receipt. A stream that ends without one is sent again, unchanged and in
//! order, from its first unreceipted report; the server recognises what it had already. A stream is opened when there
//! is something to send, and the next only after the last one ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::Summary;
use gopherwatch_proto::{AGENT_EPOCH, AGENT_TIME, SERVICE_ID};
use slog::{Logger, debug, info, warn};
use tokio::time::{sleep, timeout};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Uri;
use tonic::{Code, Request, Response, Status};

use crate::address;
use crate::buffer::{Accounts, Opened};
use crate::codec::{Encoded, EncodedReports};
use crate::connection::{Connection, NoConnection, connect};
use crate::error::chain;
use crate::outbox::Outbox;
use crate::tls::{TlsError, TlsFiles};
use crate::token::{Token, TokenError};
use crate::trouble::{Episode, Say, Trouble};

const METHOD: &str = "/gopherwatch.v1.MetricsService/SendMetrics";
const PUSHBACK: &str = "grpc-retry-pushback-ms";

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long the first stream stays open, and the first after trouble: its receipt is the proof that all is well, and
/// nobody should wait for that.
const PROOF_AFTER: Duration = Duration::from_millis(500);
/// A server that asks for longer is asking for a gap in its history.
const PUSHBACK_MAX: Duration = Duration::from_secs(60);

/// Where and how to deliver.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub server: Uri,
    /// By which files it is spoken to, if that is by https.
    pub tls: TlsFiles,
    /// The streams' `service-id`.
    pub service_id: MetadataValue<Ascii>,
    /// What the server knows the agent by, if it asks.
    pub token: Option<Token>,
    /// How long a stream stays open: how old an unreceipted report gets.
    pub rotate: Duration,
    /// How long a closed stream may owe its receipt. The server needs a few fsyncs; a connection that takes this long
    /// is dead or its server stuck, and resending costs little.
    pub receipt_wait: Duration,
}

impl Options {
    /// Options with the usual times. The `service_id` is a valid name.
    pub fn new(server: Uri, service_id: &str) -> Self {
        Self {
            server,
            tls: TlsFiles::default(),
            service_id: service_id.parse().expect("a valid name is printable ASCII"),
            token: None,
            rotate: Duration::from_secs(5),
            receipt_wait: Duration::from_secs(20),
        }
    }
}

/// A request for `reports`, with the metadata that every stream carries; `clock_nanos` is what the clock says now by which
/// they were read.
///
/// # Errors
/// There is no token where there should be one.
pub fn request<S>(
    reports: S,
    service_id: MetadataValue<Ascii>,
    epoch: u64,
    clock_nanos: u64,
    token: Option<&Token>,
) -> Result<Request<S>, TokenError> {
    let mut request = Request::new(reports);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token.header()?);
    }
    request.metadata_mut().insert(SERVICE_ID, service_id);
    request.metadata_mut().insert(AGENT_EPOCH, epoch.into());
    request.metadata_mut().insert(AGENT_TIME, clock_nanos.into());
    Ok(request)
}

/// Why a stream brought no receipt, as far as it was spoken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no talking: the connection is not secured as one side wants it.
    #[error(transparent)]
    Tls(TlsError),
    /// The server, or something between, said no.
    #[error("{}", describe(.0))]
    Status(Box<Status>),
}

impl Refusal {
    /// What to do about it, where it is known.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Refusal::Tls(err) => Some(err.advice()),
            Refusal::Status(_) => None,
        }
    }
}

/// Sends a stream of encoded reports; the receipt, with the server's metadata.
///
/// # Errors
/// The server refused the stream, or the connection was lost before the receipt.
pub async fn call(
    connection: &Connection,
    request: Request<impl tokio_stream::Stream<Item = Encoded> + Send + 'static>,
) -> Result<Response<Summary>, Refusal> {
    let refusal = |status: Status| connection.tls_error().map_or_else(|| Refusal::Status(status.into()), Refusal::Tls);
    let mut grpc = tonic::client::Grpc::new(connection.channel.clone());
    grpc.ready().await.map_err(|err| refusal(Status::unavailable(chain(&err))))?;
    let path = PathAndQuery::from_static(METHOD);
    grpc.client_streaming(request, path, EncodedReports).await.map_err(refusal)
}

/// Delivers until the outbox is finished and empty.
pub async fn run(options: Options, outbox: Arc<Outbox>, log: Logger) {
    if options.token.is_some() && address::is_exposed(&options.server) {
        warn!(log, "the token goes over the network in the clear, where others can read it";
            "advice" => "say https:// in --server, and give the server a certificate", "server" => %options.server);
    }
    let mut sender = Sender {
        options,
        outbox,
        log,
        connection: None,
        has_receipt: false,
        trouble: Trouble::default(),
        rejections: Trouble::default(),
    };
    let mut backoff = BACKOFF_MIN;
    while sender.outbox.ready().await {
        match sender.deliver().await {
            Ok(summary) => {
                backoff = BACKOFF_MIN;
                sender.note_receipt(&summary);
            }
            Err(failure) => {
                sender.note_failure(&failure);
                sender.wait(failure.pushback(), backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    if let Some(episode) = sender.rejections.over().filter(Episode::is_untold) {
        sender.tell_rejections(episode);
    }
}

/// Why a stream brought no receipt.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Token(TokenError),
    #[error("connecting")]
    Connect(#[source] NoConnection),
    #[error("streaming")]
    Stream(#[source] Refusal),
    #[error("waiting {0:?} for the receipt")]
    NoReceipt(Duration),
    #[error("the receipt covers none of {0} reports")]
    EmptyReceipt(u64),
}

/// The status in words, and what is behind it where it was made on this side.
pub fn describe(status: &Status) -> String {
    let text = format!("{:?}: {}", status.code(), status.message());
    match std::error::Error::source(status) {
        Some(source) => format!("{text}: {}", chain(source)),
        None => text,
    }
}

impl Failure {
    /// How long the server asks to be left alone.
    fn pushback(&self) -> Option<Duration> {
        let Failure::Stream(Refusal::Status(status)) = self else { return None };
        let millis: u64 = status.metadata().get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_millis(millis).min(PUSHBACK_MAX))
    }

    /// Whether the connection may still be good: the server spoke on it.
    fn spares_connection(&self) -> bool {
        match self {
            Failure::EmptyReceipt(_) => true,
            Failure::Stream(Refusal::Status(status)) => status.code() == Code::ResourceExhausted,
            Failure::Token(_) => true,
            Failure::Stream(Refusal::Tls(_)) | Failure::Connect(_) | Failure::NoReceipt(_) => false,
        }
    }

    fn advice(&self) -> &'static str {
        let code = match self {
            Failure::Stream(Refusal::Tls(err)) | Failure::Connect(NoConnection::Tls(err)) => return err.advice(),
            Failure::Stream(Refusal::Status(status)) => status.code(),
            Failure::Token(_) => Code::Unauthenticated,
            Failure::Connect(_) | Failure::NoReceipt(_) | Failure::EmptyReceipt(_) => Code::Unavailable,
        };
        match code {
            Code::ResourceExhausted => "the server is overloaded; it is tried again when it asked for",
            Code::Unimplemented | Code::InvalidArgument => "is --server a GopherWatch server of this version?",
            Code::Unauthenticated | Code::PermissionDenied => {
                "the server wants another token than this agent has: --token-file names the file that it is in"
            }
            _ => "is gopherwatch-server running there? --server says where to look; reports are kept and sent later",
        }
    }
}

fn received(result: Result<Response<Summary>, Refusal>) -> Result<Summary, Failure> {
    result.map(Response::into_inner).map_err(Failure::Stream)
}

struct Sender {
    options: Options,
    outbox: Arc<Outbox>,
    log: Logger,
    connection: Option<Connection>,
    has_receipt: bool,
    trouble: Trouble,
    rejections: Trouble,
}

impl Sender {
    /// One stream, from its opening to its receipt.
    async fn deliver(&mut self) -> Result<Summary, Failure> {
        let result = match self.stream().await {
            Ok(summary) => {
                let (sent, acknowledged) = self.outbox.settle(summary.received);
                if summary.received > sent {
                    warn!(self.log, "a receipt covers more than was sent"; "received" => summary.received, "sent" => sent);
                }
                // Going on at once would ask the same of the same server, for ever.
                if acknowledged == 0 { Err(Failure::EmptyReceipt(sent)) } else { Ok(summary) }
            }
            Err(failure) => {
                self.outbox.settle(0);
                Err(failure)
            }
        };
        if result.as_ref().is_err_and(|failure| !failure.spares_connection()) {
            self.connection = None;
        }
        result
    }

    async fn stream(&mut self) -> Result<Summary, Failure> {
        let connection = match &self.connection {
            Some(connection) => connection.clone(),
            None => {
                let made = connect(&self.options.server, &self.options.tls).await.map_err(Failure::Connect)?;
                self.connection.insert(made).clone()
            }
        };
        let is_proven = self.has_receipt && !self.trouble.is_there();
        let rotate = if is_proven { self.options.rotate } else { self.options.rotate.min(PROOF_AFTER) };
        let reports = self.outbox.open();
        let Opened { epoch, clock_ms, n_too_old } = reports.opened;
        if n_too_old > 0 {
            warn!(self.log, "dropped reports that waited too long"; "reports" => n_too_old, self.outbox.accounts());
        }
        let Options { service_id, token, .. } = &self.options;
        let request = request(reports, service_id.clone(), epoch, clock_ms.saturating_mul(1_000_000), token.as_ref())
            .map_err(Failure::Token)?;
        let call = call(&connection, request);
        tokio::pin!(call);
        tokio::select! {
            // Early: the server is stopping, overloaded or gone.
            result = &mut call => return received(result),
            () = sleep(rotate) => self.outbox.close(),
            // The stream closes itself after its last report.
            () = self.outbox.finishing() => {}
        }
        match timeout(self.options.receipt_wait, call).await {
            Ok(result) => received(result),
            Err(_) => Err(Failure::NoReceipt(self.options.receipt_wait)),
        }
    }

    /// Waits as the server asked, or the backoff, a random part of it so that agents do not come back as one.
    async fn wait(&self, pushback: Option<Duration>, backoff: Duration) {
        let jitter = rand::random_range(0.5..1.0);
        match pushback {
            Some(pushback) => sleep(pushback + BACKOFF_MIN.mul_f64(jitter)).await,
            // There is no time left for patience.
            None if self.outbox.is_finishing() => sleep(BACKOFF_MIN).await,
            None => tokio::select! {
                () = sleep(backoff.mul_f64(jitter)) => {}
                () = self.outbox.finishing() => {}
            },
        }
    }

    fn note_receipt(&mut self, summary: &Summary) {
        let accounts = self.outbox.accounts();
        debug!(self.log, "receipt"; "received" => summary.received, "accepted" => summary.accepted,
            "duplicates" => summary.duplicates, "alerts_raised" => summary.alerts_raised, accounts);
        if let Some(episode) = self.trouble.over() {
            info!(self.log, "delivering again"; "after_seconds" => episode.seconds(), "failures" => episode.count, accounts);
        } else if !self.has_receipt {
            info!(self.log, "first receipt"; accounts);
        }
        self.has_receipt = true;

        let now = Instant::now();
        if let Some(episode) = self.rejections.untold(now) {
            self.tell_rejections(episode);
        }
        self.rejections.over_if_old(now);
        if summary.rejected > 0 {
            match self.rejections.happened(summary.rejected, now) {
                Say::First => warn!(self.log, "the server rejected reports; its log says why";
                    "rejected" => summary.rejected, "received" => summary.received),
                Say::Again(episode) => self.tell_rejections(episode),
                Say::Nothing => {}
            }
        }
    }

    fn tell_rejections(&self, episode: Episode) {
        warn!(self.log, "the server rejected more reports; its log says why";
            "rejected" => episode.count, "for_seconds" => episode.seconds());
    }

    fn note_failure(&mut self, failure: &Failure) {
        let accounts = self.outbox.accounts();
        match self.trouble.happened(1, Instant::now()) {
            Say::First => warn!(self.log, "cannot deliver"; "error" => chain(failure), "advice" => failure.advice(),
                "server" => %self.options.server, accounts),
            Say::Again(episode) => warn!(self.log, "still cannot deliver"; "error" => chain(failure),
                "advice" => failure.advice(), "server" => %self.options.server,
                "failures" => episode.count, "for_seconds" => episode.seconds(), accounts),
            Say::Nothing => debug!(self.log, "cannot deliver"; "error" => chain(failure), accounts),
        }
    }
}

impl slog::KV for Accounts {
    fn serialize(&self, _: &slog::Record<'_>, serializer: &mut dyn slog::Serializer) -> slog::Result {
        // Last first, as slog hands over keys: the text format turns them round.
        serializer.emit_u64("dropped", self.dropped)?;
        serializer.emit_u64("pending", self.pending)?;
        serializer.emit_u64("acknowledged", self.acknowledged)?;
        serializer.emit_u64("sent", self.sent)
    }
}
