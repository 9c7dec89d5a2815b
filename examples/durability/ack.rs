//! How long a receipt takes: from the end of a stream, as its sender sees it, to the Summary.
//!
//! Each sender waits some 100 ms between two calls. One that calls again and again at once would measure the journal's
//! pace of 50 ms: calm receipts share commits, of which there are twenty a second at most.

use std::time::{Duration, Instant};

use gopherwatch_chaos::{dice::Dice, server::Server};
use gopherwatch_proto::v1::{Metric, MetricReport, metrics_service_client::MetricsServiceClient};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::times::Times;

/// Between two calls of a sender, at most; at least half of it.
const PAUSE_MILLIS: u64 = 150;

/// How calls are made.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n_senders: usize,
    n_reports: usize,
    /// Whether each report begins or ends an alert.
    alerting: bool,
}

/// Measures every shape with so many calls, and prints what came of it.
pub(crate) async fn measure(server: &Server, n_calls: usize, fsync: &Times) {
    println!(
        "receipts, ms from the stream's end to the Summary; fsync of 4 KiB on the same disk: p50 {} p99 {}",
        fsync.millis(0.5),
        fsync.millis(0.99)
    );
    println!(
        "{:>8} {:>8} {:>16} {:>8} {:>8} {:>8} {:>10}",
        "senders", "reports", "reports alert", "p50", "p99", "max", "commits/s"
    );
    for alerting in [false, true] {
        for n_senders in [1, 64] {
            for n_reports in [1, 100] {
                one(server, Shape { n_senders, n_reports, alerting }, n_calls, fsync).await;
            }
        }
    }
}

async fn one(server: &Server, shape: Shape, n_calls: usize, fsync: &Times) {
    let Shape { n_senders, n_reports, alerting } = shape;
    let n_each = (n_calls / n_senders).max(10);
    let (began, commits_before) = (Instant::now(), commits(server));
    let mut senders = JoinSet::new();
    for sender_idx in 0..n_senders {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc())).unwrap().tcp_nodelay(true);
        let channel = endpoint.connect().await.unwrap();
        senders.spawn(sender(channel, sender_idx, shape, n_each));
    }
    let times = Times::new(senders.join_all().await.concat());
    let per_second = ((commits(server) - commits_before) / began.elapsed().as_secs_f64()).round();
    let (p50, p99, max) = (times.millis(0.5), times.millis(0.99), times.millis(1.0));
    let word = if alerting { "each" } else { "none" };
    println!("{n_senders:>8} {n_reports:>8} {word:>16} {p50:>8} {p99:>8} {max:>8} {per_second:>10}");
    let line = json!({
        "bench": "ack",
        "senders": n_senders,
        "reports_per_stream": n_reports,
        "alerting": alerting,
        "calls": n_each * n_senders,
        "ack_p50_ms": p50,
        "ack_p99_ms": p99,
        "ack_max_ms": max,
        "commits_per_second": per_second,
        "fsync_p50_ms": fsync.millis(0.5),
        "fsync_p99_ms": fsync.millis(0.99),
    });
    println!("{line}");
}

/// The calls of one sender, one after the other.
async fn sender(channel: Channel, sender_idx: usize, shape: Shape, n_calls: usize) -> Vec<Duration> {
    let mut dice = Dice::of(1, sender_idx as u64);
    let client = MetricsServiceClient::new(channel);
    let mut times = Vec::new();
    for call in 0..n_calls {
        sleep(Duration::from_millis(PAUSE_MILLIS / 2 + dice.below(PAUSE_MILLIS / 2 + 1))).await;
        let (reports, stream) = mpsc::channel(shape.n_reports);
        let mut of_call = client.clone();
        let request = Request::new(ReceiverStream::new(stream));
        let answer = tokio::spawn(async move { of_call.send_metrics(request).await });
        let value = if shape.alerting && call % 2 == 0 { 99.0 } else { 10.0 };
        for place in 0..shape.n_reports {
            reports.send(report(format!("ack-{sender_idx}"), place, value)).await.unwrap();
        }
        // Once the connection has taken the last of them, the end is all that is left to say.
        let _ = reports.reserve_many(shape.n_reports).await.unwrap();
        let began = Instant::now();
        drop(reports);
        let summary = answer.await.unwrap().unwrap().into_inner();
        times.push(began.elapsed());
        assert_eq!(summary.accepted, shape.n_reports as u64, "{summary:?}");
    }
    times
}

/// A report of an instance of its own.
pub(crate) fn report(service_name: String, place: usize, cpu_percent: f64) -> MetricReport {
    let metrics = vec![Metric { name: "cpu_percent".to_owned(), value: cpu_percent }];
    MetricReport { service_name, instance: format!("i{place}"), metrics, ..MetricReport::default() }
}

fn commits(server: &Server) -> f64 {
    let text = server.text("/metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("gopherwatch_journal_commits_total "));
    line.unwrap().parse().unwrap()
}
