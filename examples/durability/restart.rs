//! How long it takes from the start of a server that was killed until it is ready, and until its first receipt, with
//! many alerts firing.

use std::time::{Duration, Instant};

use gopherwatch_chaos::{server::Server, wait::found};
use gopherwatch_proto::v1::{MetricReport, metrics_service_client::MetricsServiceClient};
use serde_json::json;

use crate::{
    ack::report,
    process::{Usage, usage},
    times::Times,
};

const INSTANCES_PER_SERVICE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(300);

/// Instances of a stream, by the server's own limit.
const PER_STREAM: usize = 10_000;

/// Raises the alerts, then kills and starts the server so many times.
pub(crate) async fn measure(server: &mut Server, n_firing: usize, n_restarts: usize) {
    for first in (0..n_firing).step_by(PER_STREAM) {
        let places = first..n_firing.min(first + PER_STREAM);
        let reports = places.map(|n| report(format!("restart-{}", n / INSTANCES_PER_SERVICE), n, 99.0));
        send(server, reports.collect()).await;
    }
    found(PATIENCE, "every alert is in the history", || {
        server.balance(PATIENCE).ok().filter(|balance| balance.is_settled())
    });
    let before = usage(&server.pid().to_string()).unwrap();
    let (mut ready, mut first, mut last) = (Vec::new(), Vec::new(), before);
    for n in 0..n_restarts {
        server.kill9();
        let began = Instant::now();
        server.restart();
        server.wait_until_ready();
        found(PATIENCE, "/readyz says 200", || server.text("/readyz").ok());
        ready.push(began.elapsed());
        send(server, vec![report("restart-first".to_owned(), n, 10.0)]).await;
        first.push(began.elapsed());
        let status = server.ask("/status?limit=1").unwrap();
        assert_eq!(status["totals"]["firing"], n_firing, "every alert fires still");
        last = usage(&server.pid().to_string()).unwrap();
    }
    let (ready, first) = (Times::new(ready), Times::new(first));
    println!("\nrestart after kill -9 with {n_firing} alerts firing, median of {n_restarts}");
    let Usage { cpu_seconds, rss_mib, peak_rss_mib } = last;
    let (ready_p50, first_p50) = (ready.millis(0.5), first.millis(0.5));
    println!("ready, ms  1st ack, ms  CPU, s  RSS, MiB  peak, MiB  RSS before, MiB");
    println!(
        "{ready_p50:>9.0} {first_p50:>12.0} {cpu_seconds:>7.2} {rss_mib:>9.0} {peak_rss_mib:>10.0} {:>16.0}",
        before.rss_mib
    );
    let line = json!({
        "bench": "restart",
        "firing": n_firing,
        "restarts": n_restarts,
        "ready_p50_ms": ready_p50,
        "ready_max_ms": ready.millis(1.0),
        "first_ack_p50_ms": first_p50,
        "first_ack_max_ms": first.millis(1.0),
        "cpu_seconds": cpu_seconds,
        "rss_mib": rss_mib.round(),
        "peak_rss_mib": peak_rss_mib.round(),
        "rss_before_mib": before.rss_mib.round(),
    });
    println!("{line}");
}

/// One stream, to its receipt.
async fn send(server: &Server, reports: Vec<MetricReport>) {
    let n = reports.len() as u64;
    let mut client = MetricsServiceClient::connect(format!("http://{}", server.grpc())).await.unwrap();
    let summary = client.send_metrics(tokio_stream::iter(reports)).await.unwrap().into_inner();
    assert_eq!(summary.accepted, n, "{summary:?}");
}
