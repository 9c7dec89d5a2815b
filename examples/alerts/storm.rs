//! Every report violates and has a row of its own: how many of them reach the store a second, and that none is lost.

use std::time::{Duration, Instant};

use gopherwatch_chaos::wait::found;
use serde_json::json;

use crate::{
    load::Load,
    load_average,
    process::usage,
    store::{A_ROW_EACH, Fixture, Kind},
};

/// A store of 1,000 rows a second may have a million of them to take.
const PATIENCE: Duration = Duration::from_secs(1_000);

/// Measures each of these stores.
pub(crate) fn measure(kinds: &[Kind], n_services: u64, n_rows: u64) {
    println!(
        "{n_rows} violating reports of {n_services} services, a row each, sent as fast as the server takes them.\n"
    );
    println!(
        "| store | rows/s, first row to last | reports/s, to the receipts | all stored after, s | rows | CPU-s per 1M | peak MiB | load average |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let lines: Vec<_> = kinds.iter().map(|&kind| one(kind, n_services, n_rows)).collect();
    println!();
    lines.iter().for_each(|line| println!("{line}"));
}

fn one(kind: Kind, n_services: u64, n_rows: u64) -> serde_json::Value {
    let Fixture { server, mut store, folder: _folder } = Fixture::start(kind, A_ROW_EACH);
    let usage = || usage(&server.pid().to_string()).unwrap();
    let (before, began) = (usage(), Instant::now());
    let (services, reports) = (n_services.to_string(), n_rows.to_string());
    Load::start(&server, &["--services", &services, "--reports", &reports, "--violating", "100%"]).finish();
    let receipted = began.elapsed().as_secs_f64();
    found(PATIENCE, "every event is stored", || server.balance(PATIENCE).ok().filter(|balance| balance.is_settled()));
    let stored = began.elapsed().as_secs_f64();
    let after = usage();
    let cpu_per_million = (after.cpu_seconds - before.cpu_seconds) / n_rows as f64 * 1e6;
    assert_eq!(server.balance(PATIENCE).unwrap().fault(), None);
    let found = store.count("service-");
    assert_eq!(found, n_rows, "a row for each report, no more and no fewer");
    let per_second = n_rows as f64 / store.seconds_of_storing();
    let reports_per_second = n_rows as f64 / receipted;
    let load_average = load_average();
    println!(
        "| {} | {per_second:.0} | {reports_per_second:.0} | {stored:.1} | {found} | {cpu_per_million:.2} | {:.0} | {load_average} |",
        kind.as_str(),
        after.peak_rss_mib
    );
    json!({
        "bench": "storm",
        "work": "w4",
        "store": kind.as_str(),
        "services": n_services,
        "rows": found,
        "rows_per_s": per_second.round(),
        "reports_per_s": reports_per_second.round(),
        "stored_after_s": (stored * 100.0).round() / 100.0,
        "cpu_s_per_million_rows": (cpu_per_million * 100.0).round() / 100.0,
        "rss_mib": after.rss_mib.round(),
        "peak_rss_mib": after.peak_rss_mib.round(),
        "load_average": load_average,
    })
}
