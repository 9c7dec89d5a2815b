//! One SendMetrics stream: read what is ready, give it to the lanes, and at the end the receipt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use gopherwatch_proto::{raw::metrics_service_server::MetricsService, v1::Summary};
use slog::{Logger, debug, warn};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Options,
    intake::{Intake, Refused},
    metadata::Identity,
};
use crate::{
    dispatch::{DispatchError, Dispatcher, MAX_CHUNK, StreamAccount},
    model::{InstanceKey, Rejection, Timestamp},
    state::State,
    stats::Stats,
};

/// When an agent that was refused for overload should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct Metrics {
    pub(super) options: Options,
    pub(super) dispatcher: Dispatcher,
    pub(super) state: Arc<State>,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
    pub(super) streams: TaskTracker,
    pub(super) log: Logger,
}

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn send_metrics(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Summary>, Status> {
        let _open = self.streams.token();
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("the server is shutting down"));
        }
        self.stats.streams.inc();
        let _counted = Counted::new(&self.stats);
        let identity = request.extensions().get::<Identity>().cloned().unwrap_or_default();
        let stream = Stream::new(self, identity);
        stream.run(request.into_inner()).await.map(Response::new)
    }
}

/// Counts one open stream for as long as it lives: one that the agent breaks off ends wherever it waits.
struct Counted<'a>(&'a Stats);

impl<'a> Counted<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.streams_open.inc();
        Self(stats)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.streams_open.dec();
    }
}

/// One stream in progress.
struct Stream<'a> {
    service: &'a Metrics,
    intake: Intake,
    account: Arc<StreamAccount>,
    place: u64,
    n_named: u64,
    warned: [bool; Rejection::ALL.len()],
    log: Logger,
}

impl<'a> Stream<'a> {
    fn new(service: &'a Metrics, identity: Identity) -> Self {
        let Identity { service_id, epoch, skew_nanos } = identity;
        let Options { retention, max_instances_per_stream, .. } = service.options;
        Self {
            service,
            log: service.log.new(slog::o!("service-id" => service_id.clone())),
            intake: Intake::new(service.state.clone(), service_id, skew_nanos, retention, max_instances_per_stream),
            account: Arc::new(StreamAccount::new(epoch, skew_nanos)),
            place: 0,
            n_named: 0,
            warned: [false; Rejection::ALL.len()],
        }
    }

    async fn run(mut self, mut reports: Streaming<Bytes>) -> Result<Summary, Status> {
        loop {
            let first = tokio::select! {
                biased;
                // What was read is given to the lanes below; what was not is sent again by the agent.
                () = self.service.stop.cancelled() => break,
                first = reports.message() => first,
            };
            let mut n_items = 0;
            let mut next = first;
            let (now, arrived) = (Timestamp::now(), Instant::now());
            let end = loop {
                match next {
                    Ok(Some(report)) => match self.take(&report, now) {
                        Ok(()) => n_items += 1,
                        Err(status) => break Some(Err(status)),
                    },
                    Ok(None) => break Some(Ok(())),
                    Err(status) => break Some(Err(status)),
                }
                if n_items >= MAX_CHUNK || self.intake.is_full() {
                    break None;
                }
                // Only what is here already: a report never waits for the next one.
                match reports.message().now_or_never() {
                    Some(message) => next = message,
                    None => break None,
                }
            };
            self.dispatch(now, arrived).await?;
            self.intake.tidy();
            match end {
                None => {}
                Some(Ok(())) => break,
                Some(Err(status)) => {
                    debug!(self.log, "a stream broke off"; "code" => ?status.code(), "why" => status.message());
                    return Err(status);
                }
            }
        }
        self.receipt().await
    }

    /// Reads and validates one report; a refused one still is a sign of life of whom it names.
    fn take(&mut self, report: &[u8], now: Timestamp) -> Result<(), Status> {
        let place = self.place;
        self.place += 1;
        match self.intake.take(report, place, now) {
            Ok(()) => {
                self.n_named += 1;
                Ok(())
            }
            Err(Refused::Malformed(why)) => {
                Err(Status::internal(format!("the message is no MetricReport of metrics.proto: {why}")))
            }
            Err(Refused::Report(why, key)) => {
                self.service.stats.received.inc();
                self.service.stats.rejected(why).inc();
                self.account.refuse();
                if !std::mem::replace(&mut self.warned[why.idx()], true) {
                    warn!(self.log, "refused a report: the first of this stream for this reason";
                        "reason" => why.as_str(),
                        "service" => key.as_ref().map(|key| key.service().to_owned()),
                        "instance" => key.as_ref().map(|key| key.instance().to_owned()));
                }
                if let Some(key) = key {
                    self.n_named += 1;
                    self.intake.packer().put_sign(self.service.state.lane_of(&key), key);
                }
                Ok(())
            }
        }
    }

    /// Gives each lane its part.
    async fn dispatch(&mut self, received_at: Timestamp, arrived: Instant) -> Result<(), Status> {
        for lane_idx in 0..self.service.state.n_lanes() {
            let Some(chunk) = self.intake.packer().chunk(lane_idx, &self.account, received_at, arrived) else {
                continue;
            };
            self.service.dispatcher.dispatch(lane_idx, chunk).await.map_err(refusal)?;
        }
        Ok(())
    }

    /// Waits until everything that the stream gave is durable.
    async fn receipt(self) -> Result<Summary, Status> {
        if self.place > 0 && self.n_named == 0 {
            return Err(Status::invalid_argument(
                "no report names whose it is: set `service_name` in each report, or the metadata `service-id` once, and use \
                 1 to 128 of A-Z a-z 0-9 _ . : / -, beginning with a letter or digit, in names of services and instances",
            ));
        }
        let instances: Vec<_> = self.intake.instances().cloned().collect();
        let mut receipts = Vec::new();
        for (lane_idx, instances) in self.by_lane(instances, |key| key).into_iter().enumerate() {
            if !instances.is_empty() {
                receipts.push(self.service.dispatcher.barrier(lane_idx, instances).await.map_err(refusal)?);
            }
        }
        if join_all(receipts).await.iter().any(Result::is_err) {
            return Err(Status::unavailable("the server stopped before the reports were durable: send them again"));
        }
        Ok(self.account.summary())
    }

    fn by_lane<T>(&self, all: Vec<T>, key: impl Fn(&T) -> &InstanceKey) -> Vec<Vec<T>> {
        let state = &self.service.state;
        if state.n_lanes() == 1 {
            return vec![all];
        }
        let mut lanes: Vec<Vec<T>> = (0..state.n_lanes()).map(|_| Vec::new()).collect();
        for one in all {
            lanes[state.lane_of(key(&one))].push(one);
        }
        lanes
    }
}

/// Tells the agent when to come back (google.rpc.RetryInfo, and the pushback of gRPC's retry design).
fn refusal(error: DispatchError) -> Status {
    match error {
        DispatchError::Stopped => Status::unavailable("the server is shutting down"),
        DispatchError::Overloaded => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
            let message = format!("{error}, retry in {} s", RETRY_AFTER.as_secs());
            let mut status = Status::with_error_details(tonic::Code::ResourceExhausted, message, details);
            let pushback = MetadataValue::from(u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX));
            status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
            status
        }
    }
}
