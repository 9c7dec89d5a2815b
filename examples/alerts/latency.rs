//! From a reading sent until a reader of the store sees its row.
//!
//! The reader asks again and again with a query by index, on one connection, with a pause so short that it does not
//! show in the figure and so long that it leaves the server its core.

use std::{
    thread,
    time::{Duration, Instant},
};

use gopherwatch_chaos::{dice::Dice, wait::found};
use gopherwatch_proto::v1::{Metric, MetricReport, metrics_service_client::MetricsServiceClient};
use serde_json::json;
use tokio::{runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::{
    disk::fsync_times,
    load::Load,
    load_average,
    store::{A_ROW_EACH, Fixture, Kind, Store},
    times::Times,
};

const RATE: u32 = 5_000;
const ASK_EVERY: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two readings, at random: they must not fall in step with the pace of the journal or of the store's writer.
const PAUSE_MILLIS: (u64, u64) = (10, 60);

/// Measures both workloads with each of these stores.
pub(crate) fn measure(kinds: &[Kind], n_probes: usize) {
    println!("From a reading sent until its row is visible, ms; {n_probes} of them, asked for every {ASK_EVERY:?}.\n");
    println!("| store | background | reports/s | p50 | p99 | longest | one query p50 | fsync p50 | load average |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut lines = Vec::new();
    for &kind in kinds {
        for is_storm in [false, true] {
            lines.push(one(kind, is_storm, n_probes));
        }
    }
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

fn one(kind: Kind, is_storm: bool, n_probes: usize) -> serde_json::Value {
    let Fixture { server, mut store, folder } = Fixture::start(kind, if is_storm { A_ROW_EACH } else { "" });
    let fsync = fsync_times(folder.path());
    let violating = if is_storm { "100%" } else { "0%" };
    let flags =
        ["--services", "1000", "--reports", "1000000000", "--rate", &RATE.to_string(), "--violating", violating];
    let load = Load::start(&server, &flags);
    let accepted = || server.balance(PATIENCE).unwrap().get("accepted");
    found(PATIENCE, "the background flows", || (accepted() > u64::from(RATE)).then_some(()));
    let (before, began) = (accepted(), Instant::now());
    let (times, query) = probe(&mut store, &format!("http://{}", server.grpc()), n_probes);
    let per_second = (accepted() - before) as f64 / began.elapsed().as_secs_f64();
    drop(load);
    assert_eq!(store.count("probe-"), n_probes as u64, "a row for each reading");
    let background = if is_storm { "all violate" } else { "calm" };
    let (p50, p99, max) = (times.millis(0.5), times.millis(0.99), times.millis(1.0));
    let (query_p50, fsync_p50, load_average) = (query.millis(0.5), fsync.millis(0.5), load_average());
    println!(
        "| {} | {background} | {per_second:.0} | {p50} | {p99} | {max} | {query_p50} | {fsync_p50} | {load_average} |",
        kind.as_str()
    );
    json!({
        "bench": "latency",
        "work": if is_storm { "w2b" } else { "w2" },
        "store": kind.as_str(),
        "reports_per_s": per_second.round(),
        "probes": n_probes,
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": max,
        "query_p50_ms": query_p50,
        "fsync_p50_ms": fsync_p50,
        "load_average": load_average,
    })
}

/// How long each of the readings took, sent one after the other on one stream, and how long each last query took.
fn probe(store: &mut Store, server: &str, n_probes: usize) -> (Times, Times) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(server.to_owned()).unwrap().tcp_nodelay(true);
    let mut client = MetricsServiceClient::new(runtime.block_on(endpoint.connect()).unwrap());
    let (reports, stream) = mpsc::channel(1);
    let answer = runtime.spawn(async move { client.send_metrics(ReceiverStream::new(stream)).await });
    let mut dice = Dice::of(1, 0);
    let (mut times, mut queries) = (Vec::new(), Vec::new());
    for n in 0..n_probes {
        let service_name = format!("probe-{n}");
        let metrics = vec![Metric { name: "cpu_percent".to_owned(), value: 99.0 }];
        let report = MetricReport { service_name: service_name.clone(), metrics, ..MetricReport::default() };
        let began = Instant::now();
        reports.blocking_send(report).unwrap();
        loop {
            let asked = Instant::now();
            if store.has(&service_name) {
                times.push(began.elapsed());
                queries.push(asked.elapsed());
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{service_name} has no row");
            thread::sleep(ASK_EVERY);
        }
        let (least, most) = PAUSE_MILLIS;
        thread::sleep(Duration::from_millis(least + dice.below(most - least)));
    }
    drop(reports);
    let summary = runtime.block_on(answer).unwrap().unwrap().into_inner();
    assert_eq!(summary.accepted, n_probes as u64, "{summary:?}");
    (Times::new(times), Times::new(queries))
}
