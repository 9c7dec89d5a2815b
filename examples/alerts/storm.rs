//! Every report violates and has a row of its own: how many of them reach the store a second, and that none is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use gopherwatch_chaos::wait::found;
use serde_json::json;

use crate::{
    load::Load,
    load_average,
    process::usage,
    store::{A_ROW_EACH, Fixture, Kind, Store},
};

/// A store of 1,000 rows a second may have a million of them to take.
const PATIENCE: Duration = Duration::from_secs(1_000);
/// How often it is asked how many are stored.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Measures each of these stores.
pub(crate) fn measure(kinds: &[Kind], n_services: u64, n_rows: u64) {
    println!(
        "{n_rows} violating reports of {n_services} services, a row each, sent as fast as the server takes them.\n"
    );
    println!(
        "| store | rows/s, first row to last | reports/s, to the receipts | all stored after, s | rows | CPU-s per 1M | the database's | peak MiB | load average |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let lines: Vec<_> = kinds.iter().map(|&kind| one(kind, n_services, n_rows)).collect();
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

fn one(kind: Kind, n_services: u64, n_rows: u64) -> serde_json::Value {
    let Fixture { server, mut store, folder: _folder } = Fixture::start(kind, A_ROW_EACH);
    let usage = || usage(&server.pid().to_string()).unwrap();
    let database_before = database_usage(&mut store);
    let (before, began) = (usage(), Instant::now());
    let (services, reports) = (n_services.to_string(), n_rows.to_string());
    Load::start(&server, &["--services", &services, "--reports", &reports, "--violating", "100%"]).finish();
    let receipted = began.elapsed().as_secs_f64();
    // From /metrics: /status would put the views of all services together for each look, and take the core that is measured.
    let n_stored = || figure(&server.text("/metrics").unwrap(), "gopherwatch_store_events");
    while n_stored() < n_rows as f64 {
        assert!(began.elapsed() < PATIENCE, "not every event is stored");
        thread::sleep(LOOK_EVERY);
    }
    let stored = began.elapsed().as_secs_f64();
    let after = usage();
    let database = database_usage(&mut store);
    let per_million = |before: f64, after: f64| (after - before) / n_rows as f64 * 1e6;
    let cpu_per_million = per_million(before.cpu_seconds, after.cpu_seconds);
    let database_per_million = per_million(database_before, database);
    found(PATIENCE, "nothing is on its way", || server.balance(PATIENCE).ok().filter(|balance| balance.is_settled()));
    assert_eq!(server.balance(PATIENCE).unwrap().fault(), None);
    let n_found = store.count("service-");
    assert_eq!(n_found, n_rows, "a row for each report, no more and no fewer");
    let per_second = n_rows as f64 / store.seconds_of_storing();
    let reports_per_second = n_rows as f64 / receipted;
    let load_average = load_average();
    println!(
        "| {} | {per_second:.0} | {reports_per_second:.0} | {stored:.1} | {n_found} | {cpu_per_million:.2} | {database_per_million:.2} | {:.0} | {load_average} |",
        kind.as_str(),
        after.peak_rss_mib
    );
    json!({
        "bench": "storm",
        "work": "w4",
        "store": kind.as_str(),
        "services": n_services,
        "rows": n_found,
        "rows_per_s": per_second.round(),
        "reports_per_s": reports_per_second.round(),
        "stored_after_s": (stored * 100.0).round() / 100.0,
        "cpu_s_per_million_rows": (cpu_per_million * 100.0).round() / 100.0,
        "database_cpu_s_per_million_rows": (database_per_million * 100.0).round() / 100.0,
        "rss_mib": after.rss_mib.round(),
        "peak_rss_mib": after.peak_rss_mib.round(),
        "load_average": load_average,
    })
}

/// The CPU-seconds of the database's process; 0 for SQLite, which is part of the server's.
fn database_usage(store: &mut Store) -> f64 {
    store.server_pid().map_or(0.0, |pid| usage(&pid).unwrap().cpu_seconds)
}

/// A figure of `/metrics`.
fn figure(metrics: &str, name: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("/metrics has {name}")).parse().unwrap()
}
