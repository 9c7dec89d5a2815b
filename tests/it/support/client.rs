//! An agent's end of a connection: the generated client, and channels to feed a stream by hand.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
};

use gopherwatch_proto::v1::{MetricReport, Summary, metrics_service_client::MetricsServiceClient};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

/// How long an answer may take before the test gives up.
const ANSWER_WAIT: Duration = Duration::from_secs(120);

/// The runtime of every client.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
        Self { channel: runtime().block_on(endpoint.connect()).unwrap() }
    }

    /// By TLS.
    pub(crate) fn connect_tls(addr: SocketAddr, tls: ClientTlsConfig) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{addr}"))?.tls_config(tls)?;
        Ok(Self { channel: runtime().block_on(endpoint.connect())? })
    }

    /// The connection, for clients of other services.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// One stream of these reports, to its receipt.
    pub(crate) fn send(&self, reports: impl IntoIterator<Item = MetricReport>) -> Result<Summary, Status> {
        self.send_with(&[], reports)
    }

    /// The same, as the numbering of `epoch`.
    pub(crate) fn send_epoch(
        &self,
        epoch: u64,
        reports: impl IntoIterator<Item = MetricReport>,
    ) -> Result<Summary, Status> {
        self.send_with(&[("agent-epoch", &epoch.to_string())], reports)
    }

    /// The same, with this metadata.
    pub(crate) fn send_with(
        &self,
        metadata: &[(&'static str, &str)],
        reports: impl IntoIterator<Item = MetricReport>,
    ) -> Result<Summary, Status> {
        let reports: Vec<_> = reports.into_iter().collect();
        runtime().block_on(self.start(metadata, tokio_stream::iter(reports))).unwrap()
    }

    /// A stream whose reports are made as it goes; its answer comes later.
    pub(crate) fn stream(
        &self,
        metadata: &[(&'static str, &str)],
        reports: impl Iterator<Item = MetricReport> + Send + 'static,
    ) -> Answer {
        Answer(self.start(metadata, tokio_stream::iter(reports)))
    }

    /// The same, each report in a frame of its own: what a client makes that never has two of them at once.
    pub(crate) fn stream_in_small_frames(
        &self,
        reports: impl Iterator<Item = MetricReport> + Send + Unpin + 'static,
    ) -> Answer {
        Answer(self.start(&[], OneByOne { reports, pause: false }))
    }

    /// A stream that stays open.
    pub(crate) fn open(&self, metadata: &[(&'static str, &str)]) -> OpenStream {
        let (reports, stream) = mpsc::channel(16);
        let answer = Answer(self.start(metadata, ReceiverStream::new(stream)));
        OpenStream { reports, answer }
    }

    fn start(
        &self,
        metadata: &[(&'static str, &str)],
        reports: impl Stream<Item = MetricReport> + Send + 'static,
    ) -> JoinHandle<Result<Summary, Status>> {
        let mut request = Request::new(reports);
        for (key, value) in metadata {
            let value = MetadataValue::try_from(*value).unwrap();
            request.metadata_mut().insert(MetadataKey::from_static(key), value);
        }
        let mut client = MetricsServiceClient::new(self.channel());
        runtime().spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WAIT, client.send_metrics(request)).await;
            answer.expect("an answer, of whatever kind, comes in time").map(tonic::Response::into_inner)
        })
    }
}

/// Reports with a moment between them, in which what there is is sent.
struct OneByOne<I> {
    reports: I,
    pause: bool,
}

impl<I: Iterator<Item = MetricReport> + Unpin> Stream for OneByOne<I> {
    type Item = MetricReport;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MetricReport>> {
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.reports.next())
    }
}

/// The answer that a stream will have.
pub(crate) struct Answer(JoinHandle<Result<Summary, Status>>);

impl Answer {
    pub(crate) fn wait(self) -> Result<Summary, Status> {
        runtime().block_on(self.0).unwrap()
    }

    pub(crate) fn has_come(&self) -> bool {
        self.0.is_finished()
    }
}

/// A stream that is fed by hand.
pub(crate) struct OpenStream {
    reports: mpsc::Sender<MetricReport>,
    answer: Answer,
}

impl OpenStream {
    /// Sends one report; false: the stream has ended.
    pub(crate) fn push(&self, report: MetricReport) -> bool {
        self.reports.blocking_send(report).is_ok()
    }

    pub(crate) fn has_answer(&self) -> bool {
        self.answer.has_come()
    }

    /// The answer, without ending the stream.
    pub(crate) fn answer(self) -> Result<Summary, Status> {
        let Self { reports, answer } = self;
        let answer = answer.wait();
        drop(reports);
        answer
    }

    /// Breaks the stream off, as an agent that dies does.
    pub(crate) fn abort(self) {
        self.answer.0.abort();
    }

    /// Ends the stream and collects its receipt.
    pub(crate) fn finish(self) -> Result<Summary, Status> {
        drop(self.reports);
        self.answer.wait()
    }
}

/// Asserts that a receipt accounts for every report it received (I4), and gives it back.
pub(crate) fn balanced(summary: Summary) -> Summary {
    assert_eq!(summary.received, summary.accepted + summary.rejected + summary.duplicates, "{summary:?}");
    summary
}
