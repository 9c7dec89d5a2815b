//! `send`: one report, its receipt, and how long it took to be durable.

use std::fmt;
use std::time::{Duration, Instant};

use gopherwatch_client::codec::encode;
use gopherwatch_client::connection::{NoConnection, connect};
use gopherwatch_client::tls::TlsFiles;
use gopherwatch_client::token::{Token, TokenError};
use gopherwatch_client::{address, clock, send};
use gopherwatch_proto::v1::{Metric, MetricReport, Summary};
use tokio::time::timeout;
use tonic::transport::Uri;

/// Someone sits at a terminal and waits.
const RECEIPT_WAIT: Duration = Duration::from_secs(10);

/// What to send, and where.
#[derive(Debug)]
pub struct Options {
    /// The server.
    pub server: Uri,
    /// By which files it is spoken to, if that is by https.
    pub tls: TlsFiles,
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
    #[error("connecting to {server} ({})", .source.advice())]
    Connect {
        /// Where.
        server: Uri,
        /// Why.
        #[source]
        source: NoConnection,
    },
    /// The server, or something between, said no.
    #[error("sending to {server}{}", .source.advice().map_or_else(String::new, |advice| format!(" ({advice})")))]
    Refused {
        /// Where.
        server: Uri,
        /// Why.
        source: send::Refusal,
    },
    /// The report may have been evaluated, or not.
    #[error("waiting {RECEIPT_WAIT:?} for the receipt from {server} (the server may be stuck; its log would say)")]
    NoReceipt {
        /// Where.
        server: Uri,
    },
}

impl Options {
    /// What to say before anything is sent.
    pub fn warning(&self) -> Option<String> {
        let is_told = self.token.is_some() && address::is_exposed(&self.server);
        is_told
            .then(|| format!("the token goes to {} in the clear, where others can read it: say https://", self.server))
    }
}

/// Sends the report and waits for its receipt.
///
/// # Errors
/// There was no receipt.
pub async fn run(options: &Options) -> Result<Outcome, Error> {
    let server = || options.server.clone();
    let connecting = connect(&options.server, &options.tls);
    let connection = connecting.await.map_err(|source| Error::Connect { server: server(), source })?;
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
    match timeout(RECEIPT_WAIT, send::call(&connection, request)).await {
        Ok(Ok(answer)) => Ok(Outcome { summary: answer.into_inner(), durable_after: started.elapsed() }),
        Ok(Err(source)) => Err(Error::Refused { server: server(), source }),
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
