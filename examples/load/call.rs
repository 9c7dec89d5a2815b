//! One SendMetrics call over a plain HTTP/2 channel: blocks of ready frames out, a Summary back.
//!
//! tonic's own client encodes and buffers message by message; whole blocks cost the generator a quarter of that.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream;
use gopherwatch_proto::{AGENT_EPOCH, v1::Summary};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message as _;
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::{Service, ServiceExt};

use crate::fleet::{Fleet, Part};

/// What a call is told.
#[derive(Clone, Debug)]
pub(crate) struct CallOptions {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) part: Part,
    /// Positions of the stream that it sends.
    pub(crate) positions: Range<u64>,
    /// Reports of one write.
    pub(crate) n_write: u64,
    /// When to send how much.
    pub(crate) pace: Option<Pace>,
    /// Sends no more from then on.
    pub(crate) until: Option<Instant>,
    pub(crate) epoch: u64,
}

/// A steady rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// When position 0 was due.
    pub(crate) start: Instant,
    /// Reports per second of this stream.
    pub(crate) rate: f64,
}

/// A receipt, and what it is for.
#[derive(Clone, Debug)]
pub(crate) struct Receipted {
    pub(crate) summary: Summary,
    /// The positions that were given to the connection.
    pub(crate) sent: Range<u64>,
    /// From the last report to the receipt.
    pub(crate) took: Duration,
}

/// Makes the call. An error says why there is no receipt.
pub(crate) async fn call(channel: &mut Channel, options: CallOptions) -> Result<Receipted, Status> {
    let progress =
        Arc::new(Progress { began: Instant::now(), ended_nanos: AtomicU64::new(0), next: AtomicU64::new(0) });
    let (start, epoch) = (options.positions.start, options.epoch);
    progress.next.store(start, Ordering::Relaxed);
    let sending = Sending { next: start, options, progress: progress.clone() };
    let blocks = stream::unfold(sending, |mut sending| async move {
        let block = sending.block().await?;
        Some((Ok::<_, Status>(Frame::data(block)), sending))
    });
    let mut request = http::Request::post("/gopherwatch.v1.MetricsService/SendMetrics")
        .version(http::Version::HTTP_2)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers");
    if epoch > 0 {
        request = request.header(AGENT_EPOCH, epoch);
    }
    let request = request.body(Body::new(StreamBody::new(blocks))).map_err(internal)?;
    let channel = channel.ready().await.map_err(internal)?;
    let response = channel.call(request).await.map_err(internal)?;
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    let body = body.collect().await?;
    match body.trailers().and_then(Status::from_header_map) {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(status),
        None => return Err(Status::internal("the answer has no trailers")),
    }
    let took =
        progress.began.elapsed().saturating_sub(Duration::from_nanos(progress.ended_nanos.load(Ordering::Relaxed)));
    let answer = body.to_bytes();
    let message = answer.get(5..).ok_or_else(|| Status::internal("the answer has no message"))?;
    let summary = Summary::decode(message).map_err(internal)?;
    Ok(Receipted { summary, sent: start..progress.next.load(Ordering::Relaxed), took })
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// How far a call's body has come, as the caller sees it.
#[derive(Debug)]
struct Progress {
    began: Instant,
    ended_nanos: AtomicU64,
    next: AtomicU64,
}

struct Sending {
    next: u64,
    options: CallOptions,
    progress: Arc<Progress>,
}

impl Sending {
    /// The next block; `None`: that was all.
    async fn block(&mut self) -> Option<Bytes> {
        let CallOptions { fleet, part, positions, n_write, pace, until, .. } = &self.options;
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        if self.next >= positions.end || is_over() {
            return self.end();
        }
        let end = positions.end.min(self.next + n_write);
        if let Some(Pace { start, rate }) = pace {
            let due = *start + Duration::from_secs_f64(end as f64 / rate);
            tokio::time::sleep_until(until.map_or(due, |until| until.min(due)).into()).await;
            if is_over() {
                return self.end();
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut block = Vec::with_capacity((end - self.next) as usize * 160);
        part.frames(fleet, self.next..end, now.as_nanos() as u64, &mut block);
        self.next = end;
        self.progress.next.store(end, Ordering::Relaxed);
        Some(block.into())
    }

    fn end(&self) -> Option<Bytes> {
        self.progress.ended_nanos.store(self.progress.began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        None
    }
}
