//! Messages decoded by prost, and counted.

use gopherwatch_proto::v1::{MetricReport, Summary, metrics_service_server::MetricsService};
use tonic::{Request, Response, Status, Streaming};

/// The service as generated.
pub(crate) struct Count;

#[tonic::async_trait]
impl MetricsService for Count {
    async fn send_metrics(&self, request: Request<Streaming<MetricReport>>) -> Result<Response<Summary>, Status> {
        let mut reports = request.into_inner();
        let (mut n, mut last_sequence) = (0, 0);
        while let Some(report) = reports.message().await? {
            n += 1;
            last_sequence = report.sequence;
        }
        Ok(Response::new(summary(n, last_sequence)))
    }
}

/// A receipt for `n` reports.
pub(crate) fn summary(n: u64, last_sequence: u64) -> Summary {
    Summary { received: n, accepted: n, last_sequence, ..Summary::default() }
}
