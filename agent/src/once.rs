//! `send`: one report, its receipt, and how long it took to be durable.

use std::fmt;
use std::time::{Duration, Instant};

use gopherwatch_client::codec::encode;
use gopherwatch_client::token::{Token, TokenError};
use gopherwatch_client::{clock, send};
use gopherwatch_proto::v1::{Metric, MetricReport, Summary};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Uri;

/// Someone sits at a terminal and waits.
const RECEIPT_WAIT: Duration = Duration::from_secs(10);

/// What to send, and where.
#[derive(Debug)]
pub struct Options {
    /// The server.
    pub server: Uri,
    /// A valid name.
    pub service: String,
    /// A valid name; none leaves it to the server, which says "default".
    pub instance: Option<String>,
    /// What the server knows the agent by, if it asks.
    pub token: Option<Token>,
    /// At least one.
    pub metrics: Vec<Metric>,
}

/// What became of it.
#[derive(Debug)]
pub struct Outcome {
    summary: Summary,
    /// From handing the report to the connection until its receipt.
    durable_after: Duration,
}

/// Why there is no receipt.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none where there should be one.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody there.
    #[error("connecting to {server} (is gopherwatch-server running there? --server says where to look)")]
    Connect {
        /// Where.
        server: Uri,
        /// Why.
        #[source]
        source: send::NoConnection,
    },
    /// The server, or something between, said no.
    #[error("sending to {server}: {}", send::describe(.status))]
    Refused {
        /// Where.
        server: Uri,
        /// Why.
        status: Box<Status>,
    },
    /// The report may have been evaluated, or not.
    #[error("waiting {RECEIPT_WAIT:?} for the receipt from {server} (the server may be stuck; its log would say)")]
    NoReceipt {
        /// Where.
        server: Uri,
    },
}

/// Sends the report and waits for its receipt.
///
/// # Errors
/// There was no receipt.
pub async fn run(options: &Options) -> Result<Outcome, Error> {
    let server = || options.server.clone();
    let endpoint = send::endpoint(server());
    let channel = send::connect(&endpoint).await.map_err(|source| Error::Connect { server: server(), source })?;
    let report = encode(&MetricReport {
        service_name: options.service.clone(),
        instance: options.instance.clone().unwrap_or_default(),
        time_unix_nano: clock::unix_nanos(),
        sequence: 1,
        metrics: options.metrics.clone(),
        leaving: false,
    });
    let service_id = options.service.parse().expect("a valid name is printable ASCII");
    // Each report begins a numbering of its own, so that none is taken for a repetition of an earlier one.
    let epoch = rand::random_range(1..=u64::MAX);
    let request =
        send::request(tokio_stream::once(report), service_id, epoch, clock::unix_nanos(), options.token.as_ref())?;
    let started = Instant::now();
    match timeout(RECEIPT_WAIT, send::call(channel, request)).await {
        Ok(Ok(answer)) => Ok(Outcome { summary: answer.into_inner(), durable_after: started.elapsed() }),
        Ok(Err(status)) => Err(Error::Refused { server: server(), status: status.into() }),
        Err(_) => Err(Error::NoReceipt { server: server() }),
    }
}

impl Outcome {
    /// Whether the report was taken.
    pub fn is_accepted(&self) -> bool {
        self.summary.accepted > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { received, accepted, rejected, alerts_raised, .. } = self.summary;
        let millis = self.durable_after.as_secs_f64() * 1e3;
        if rejected > 0 {
            return write!(f, "rejected {rejected} of {received} · answered after {millis:.1} ms");
        }
        write!(f, "accepted {accepted} of {received} · alerts raised {alerts_raised} · durable after {millis:.1} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_one_line_for_people() {
        let summary = Summary { received: 1, accepted: 1, alerts_raised: 1, ..Summary::default() };
        let outcome = Outcome { summary, durable_after: Duration::from_micros(4_230) };
        assert_eq!(outcome.to_string(), "accepted 1 of 1 · alerts raised 1 · durable after 4.2 ms");
        assert!(outcome.is_accepted());
    }

    #[test]
    fn a_rejected_report_is_not_called_durable() {
        let summary = Summary { received: 1, rejected: 1, ..Summary::default() };
        let outcome = Outcome { summary, durable_after: Duration::from_millis(1) };
        assert_eq!(outcome.to_string(), "rejected 1 of 1 · answered after 1.0 ms");
        assert!(!outcome.is_accepted());
    }
}
