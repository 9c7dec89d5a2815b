//! How fast alerts are written to both stores, and how fast /alerts/history reads its pages from millions of rows.
//!
//! `cargo bench --bench history -- [--store mysql|sqlite] [--shape spread|same] [--rows 2000000]`, or `--all`. It takes
//! many minutes, so that a plain `cargo bench` passes it over, unless GOPHERWATCH_BENCH_HISTORY is set.
//! `spread`: one alert per 10 ms. `same`: all alerts at one time, as a bulk load leaves them. MariaDB is a private one
//! with its defaults (128 MB of buffer pool). `cold`: the first call after the store was opened anew; MariaDB is started
//! anew as well, but the operating system's cache stays.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people to run and read")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gopherwatch::{
    model::{
        Alert, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, RaiseId, ResolveReason, Severity, Timestamp,
    },
    store::{AlertState, AlertStore, Cursor, HistoryQuery, MySqlOptions, MySqlStore, SqliteStore},
};
use gopherwatch_chaos::mariadb::Mariadb;
use uuid::Uuid;

const BATCH: usize = 500;
const N_ROUNDS: usize = 300;
const PAGE: u32 = 100;
const START_MICROS: i64 = 1_767_225_600_000_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let is_asked = args.iter().any(|arg| ["--all", "--store", "--shape", "--rows"].contains(&arg.as_str()));
    if !is_asked && std::env::var_os("GOPHERWATCH_BENCH_HISTORY").is_none() {
        println!("history: passed over; `cargo bench --bench history -- --all` runs it");
        return;
    }
    let n_rows: u64 = option("--rows").map_or(2_000_000, |n| n.parse().unwrap());
    let wanted = |name: &str, value: &str| option(name).is_none_or(|given| given == value);
    for shape in ["spread", "same"].into_iter().filter(|shape| wanted("--shape", shape)) {
        if wanted("--store", "sqlite") {
            let dir = tempfile::tempdir().unwrap();
            let open = || Box::new(SqliteStore::open(dir.path().join("alerts.db")).unwrap()) as Box<dyn AlertStore>;
            measure("sqlite", shape, n_rows, &open, &|| {});
        }
        if wanted("--store", "mysql") {
            let server = Mariadb::start();
            server.create_database("bench");
            let options = MySqlOptions::from_url(&server.url("bench")).unwrap();
            let open = || Box::new(MySqlStore::new(options.clone(), Uuid::nil())) as Box<dyn AlertStore>;
            measure("mysql", shape, n_rows, &open, &|| {
                server.stop();
                server.restart();
            });
        }
    }
}

fn measure(name: &str, shape: &str, n_rows: u64, open: &dyn Fn() -> Box<dyn AlertStore>, restart: &dyn Fn()) {
    let store = open();
    store.prepare().unwrap();
    println!("\n{name}, {shape}: {n_rows} rows");
    let first = n_rows.min(100_000);
    write("the first raises", store.as_ref(), 0..first, shape);
    write("the rest", store.as_ref(), first..n_rows, shape);
    drop(store);
    restart();
    read(open().as_ref());
}

fn write(what: &str, store: &dyn AlertStore, rows: std::ops::Range<u64>, shape: &str) {
    let n_rows = rows.end - rows.start;
    let mut took = Duration::ZERO;
    let rows: Vec<u64> = rows.collect();
    for batch in rows.chunks(BATCH) {
        let alerts: Vec<_> = batch.iter().map(|&n| Arc::new(alert(n, shape))).collect();
        let began = Instant::now();
        store.write(&alerts).unwrap();
        took += began.elapsed();
    }
    println!("  {what}: {n_rows} rows, {:.0} rows/s in batches of {BATCH}", n_rows as f64 / took.as_secs_f64());
}

fn read(store: &dyn AlertStore) {
    let queries = queries();
    println!("  {:<30} {:>8} {:>8} {:>8} {:>8}", "first page of 100, ms", "rows", "cold", "p50", "p99");
    let firsts: Vec<_> = queries.iter().map(|(name, query)| (*name, query.clone())).collect();
    table(store, &firsts);
    println!("  {:<30} {:>8} {:>8} {:>8} {:>8}", "page 1,000, ms", "rows", "cold", "p50", "p99");
    let thousandths: Vec<_> = queries
        .iter()
        .filter_map(|(name, query)| {
            let after = Some(cursor_of_page_1000(store, query)?);
            Some((*name, HistoryQuery { after, ..query.clone() }))
        })
        .collect();
    table(store, &thousandths);
}

/// The filters take turns, so that each finds what the others have left of the caches.
fn table(store: &dyn AlertStore, queries: &[(&str, HistoryQuery)]) {
    let mut took = vec![Vec::new(); queries.len()];
    let mut n_found = vec![0; queries.len()];
    for _ in 0..N_ROUNDS {
        for (idx, (_, query)) in queries.iter().enumerate() {
            let began = Instant::now();
            n_found[idx] = store.history(query).unwrap().len();
            took[idx].push(began.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    for (idx, (name, _)) in queries.iter().enumerate() {
        let cold = took[idx][0];
        took[idx].sort_by(f64::total_cmp);
        let at = |share: f64| took[idx][(N_ROUNDS as f64 * share) as usize];
        println!("  {name:<30} {:>8} {cold:>8.2} {:>8.2} {:>8.2}", n_found[idx], at(0.5), at(0.99));
    }
}

/// The last row of page 999, or `None` when there is none.
fn cursor_of_page_1000(store: &dyn AlertStore, query: &HistoryQuery) -> Option<Cursor> {
    let mut query = HistoryQuery { limit: 900, ..query.clone() };
    for _ in 0..111 {
        let last = store.history(&query).unwrap().pop()?;
        query.after = Some(Cursor { triggered_at: last.triggered_at, id: last.id });
    }
    query.after
}

fn queries() -> Vec<(&'static str, HistoryQuery)> {
    let any = || HistoryQuery { limit: PAGE, ..HistoryQuery::default() };
    let name = |name: &str| Some(name.to_owned());
    let middle = Some(Timestamp::from_micros(START_MICROS + 10_000_000_000));
    vec![
        ("none", any()),
        ("service, 10 %", HistoryQuery { service: name("big"), ..any() }),
        ("service, 10 rows", HistoryQuery { service: name("rare"), ..any() }),
        ("service, no row", HistoryQuery { service: name("none"), ..any() }),
        ("instance, 90 %", HistoryQuery { instance: name("default"), ..any() }),
        ("instance, 10 rows", HistoryQuery { instance: name("rare"), ..any() }),
        ("metric, 90 %", HistoryQuery { metric: name("cpu_percent"), ..any() }),
        ("metric, 10 rows", HistoryQuery { metric: name("rare"), ..any() }),
        ("rule, 90 %", HistoryQuery { rule: name("cpu-high"), ..any() }),
        ("rule, 10 rows", HistoryQuery { rule: name("rare"), ..any() }),
        ("severity=critical, 90 %", HistoryQuery { severity: Some(Severity::Critical), ..any() }),
        ("severity=info, 10 rows", HistoryQuery { severity: Some(Severity::Info), ..any() }),
        ("state=firing, 7 %", HistoryQuery { state: Some(AlertState::Firing), ..any() }),
        ("state=resolved, 93 %", HistoryQuery { state: Some(AlertState::Resolved), ..any() }),
        ("since", HistoryQuery { since: middle, ..any() }),
        ("until", HistoryQuery { until: Some(Timestamp::from_micros(START_MICROS + 19_000_000_000)), ..any() }),
    ]
}

/// Row `n` of the history: a few names have nearly all rows, a few have ten.
fn alert(n: u64, shape: &str) -> Alert {
    let rare = n % 200_000 == 77;
    let pick = |most: &str, other: String| {
        if rare {
            "rare".to_owned()
        } else if !n.is_multiple_of(10) {
            most.to_owned()
        } else {
            other
        }
    };
    let service = if rare {
        "rare".to_owned()
    } else if n % 10 == 3 {
        "big".to_owned()
    } else {
        format!("service-{}", n * 7 % 10_000)
    };
    let key = Arc::new(InstanceKey::new(&service, &pick("default", format!("host-{}", n % 1_000))));
    let id = RaiseId::Counter(n).alert_id(&key, "cpu-high");
    let at = Timestamp::from_micros(START_MICROS + if shape == "same" { 0 } else { n as i64 * 10_000 });
    let value = 90.0 + (n % 100) as f64 / 10.0;
    let alert = Alert {
        alert_id: id,
        episode_id: id,
        rule: pick("cpu-high", format!("rule-{}", n % 50)).into(),
        metric: pick("cpu_percent", format!("metric_{}", n % 50)).into(),
        value,
        threshold: Some(90.0),
        severity: if rare {
            Severity::Info
        } else if !n.is_multiple_of(10) {
            Severity::Critical
        } else {
            Severity::Warning
        },
        labels: Arc::new(BTreeMap::from([("team".to_owned(), "payments".to_owned())])),
        summary: format!("CPU of {key} is {value}%"),
        runbook_url: None,
        receivers: None,
        evidence: Some(Arc::new(Evidence {
            when: "cpu_percent > 90".into(),
            points: vec![EvidencePoint { at, value }],
        })),
        life: vec![LifeEvent { kind: EventKind::Raise, at, by: None, value: Some(value) }],
        late: false,
        triggered_at: at,
        received_at: at,
        resolved_at: None,
        resolve_reason: None,
        last_value: value,
        version: 1,
        key,
    };
    if n.is_multiple_of(14) {
        alert
    } else {
        alert.resolved(at.plus(Duration::from_secs(30)), ResolveReason::Cleared, Some(20.0))
    }
}
