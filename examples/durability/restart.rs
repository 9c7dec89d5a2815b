//! How long it takes from the start of a server that was killed until it is ready, and until its first receipt, with
//! many alerts firing.

use std::time::{Duration, Instant};

use gopherwatch_chaos::{server::Server, wait::found};
use gopherwatch_proto::v1::{MetricReport, metrics_service_client::MetricsServiceClient};
use serde_json::json;

use crate::{ack::report, process::usage, times::Times};

const INSTANCES_PER_SERVICE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(300);

/// Raises the alerts, then kills and starts the server so many times.
pub(crate) async fn measure(server: &mut Server, n_firing: usize, n_restarts: usize) {
    let reports = (0..n_firing).map(|n| report(format!("restart-{}", n / INSTANCES_PER_SERVICE), n, 99.0));
    send(server, reports.collect()).await;
    found(PATIENCE, "every alert is in the history", || {
        server.balance(PATIENCE).ok().filter(|balance| balance.is_settled())
    });
    let before = usage(&server.pid().to_string()).unwrap();
    let (mut ready, mut first, mut rss, mut peak) = (Vec::new(), Vec::new(), 0.0, 0.0);
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
        let usage = usage(&server.pid().to_string()).unwrap();
        (rss, peak) = (usage.rss_mib, usage.peak_rss_mib);
    }
    let (ready, first) = (Times::new(ready), Times::new(first));
    println!("\nrestart after kill -9 with {n_firing} alerts firing, median of {n_restarts}");
    println!(
        "{:>14} {:>14} {:>10} {:>10} {:>16}",
        "ready, ms", "1st ack, ms", "RSS, MiB", "peak, MiB", "RSS before, MiB"
    );
    println!("{:>14} {:>14} {rss:>10.0} {peak:>10.0} {:>16.0}", ready.millis(0.5), first.millis(0.5), before.rss_mib);
    let line = json!({
        "bench": "restart",
        "firing": n_firing,
        "restarts": n_restarts,
        "ready_p50_ms": ready.millis(0.5),
        "ready_max_ms": ready.millis(1.0),
        "first_ack_p50_ms": first.millis(0.5),
        "first_ack_max_ms": first.millis(1.0),
        "rss_mib": rss.round(),
        "peak_rss_mib": peak.round(),
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
