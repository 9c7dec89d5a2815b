//! `/alerts/active` and `/alerts/history`: rows, filters, pages, and a store that does not do its part.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    super::Options,
    support::{BASE, Failing, Hanging, Rows, Running, ask, firing, record, row, until},
};
use crate::{model::Severity, store::HistoryRow};

fn ids(page: &Value) -> Vec<u64> {
    page["alerts"].as_array().expect("an array").iter().map(|a| a["id"].as_u64().expect("a number")).collect()
}

fn with_rows(rows: Vec<HistoryRow>) -> Running {
    Running::with_store(Rows(rows.into_iter().map(record).collect()), Options::default())
}

#[test]
fn what_fires_is_shown_newest_first() {
    let it = Running::empty();
    assert_eq!(it.get("/alerts/active").json(), json!({"alerts": []}));
    it.add("web", "a", |i| i.progress.firing = vec![firing("web", "a", "cpu-high", Severity::Critical, 1)]);
    it.add("db", "a", |i| i.progress.firing = vec![firing("db", "a", "slow", Severity::Warning, 2)]);
    let active = it.get("/alerts/active").json();
    let services: Vec<_> = active["alerts"].as_array().expect("an array").iter().map(|a| &a["service_name"]).collect();
    assert_eq!(services, ["db", "web"]);
    let web = it.get("/alerts/active?service=web").json();
    assert_eq!(web["alerts"].as_array().expect("an array").len(), 1);
    assert_eq!(
        web["alerts"][0],
        json!({
            "id": null, "alert_id": firing("web", "a", "cpu-high", Severity::Critical, 1).alert.alert_id.to_string(),
            "service_name": "web", "instance": "a", "metric": "cpu_percent", "metric_value": 95.5, "rule": "cpu-high",
            "severity": "critical", "threshold": 90.0, "triggered_at": "2026-11-23T02:39:26.000000Z",
            "received_at": "2026-11-23T02:39:26.000000Z", "stored_at": null, "resolved_at": null,
            "resolve_reason": null, "late": false, "labels": {"team": "payments"}, "summary": "CPU is high",
            "silenced": false, "acknowledged": false,
        })
    );
    it.problem("/alerts/active?limit=1", 400);
}

#[test]
fn rows_have_the_names_of_the_contract_and_old_rows_have_nulls() {
    let old = HistoryRow {
        alert_id: None,
        instance: None,
        rule: None,
        severity: None,
        threshold: None,
        received_at: None,
        stored_at: None,
        labels: None,
        summary: None,
        ..row(1, "web", 0)
    };
    let closed = HistoryRow {
        resolved_at: Some(BASE.plus(Duration::from_secs(60))),
        resolve_reason: Some("cleared".to_owned()),
        ..row(2, "web", 1)
    };
    let page = with_rows(vec![old, closed]).get("/alerts/history").json();
    assert_eq!(
        page,
        json!({
            "alerts": [
                {
                    "id": 2, "alert_id": "00000000-0000-0000-0000-000000000002", "service_name": "web", "instance": "a",
                    "metric": "cpu_percent", "metric_value": 95.5, "rule": "cpu-high", "severity": "critical",
                    "threshold": 90.0, "triggered_at": "2026-11-23T02:39:26.000000Z",
                    "received_at": "2026-11-23T02:39:25.000000Z", "stored_at": "2026-11-23T02:39:25.000000Z",
                    "resolved_at": "2026-11-23T02:40:25.000000Z", "resolve_reason": "cleared", "late": false,
                    "labels": {"team": "payments"}, "summary": "CPU is high",
                },
                {
                    "id": 1, "alert_id": null, "service_name": "web", "instance": null, "metric": "cpu_percent",
                    "metric_value": 95.5, "rule": null, "severity": null, "threshold": null,
                    "triggered_at": "2026-11-23T02:39:25.000000Z", "received_at": null, "stored_at": null,
                    "resolved_at": null, "resolve_reason": null, "late": false, "labels": {}, "summary": null,
                },
            ],
            "next_cursor": null,
        })
    );
}

#[test]
fn every_filter_reaches_the_store() {
    let it = with_rows(vec![
        row(1, "web", 0),
        HistoryRow { instance: Some("b".to_owned()), ..row(2, "web", 10) },
        HistoryRow { metric: "load_1m".to_owned(), ..row(3, "web", 20) },
        HistoryRow { rule: Some("slow".to_owned()), severity: Some("warning".to_owned()), ..row(4, "db", 30) },
        HistoryRow { resolved_at: Some(BASE), ..row(5, "team/a b", 40) },
    ]);
    for (query, expected) in [
        ("", vec![5, 4, 3, 2, 1]),
        ("service=web", vec![3, 2, 1]),
        ("service=team%2Fa+b", vec![5]),
        ("instance=b", vec![2]),
        ("metric=load_1m", vec![3]),
        ("rule=slow", vec![4]),
        ("severity=warning", vec![4]),
        ("state=firing", vec![4, 3, 2, 1]),
        ("state=resolved", vec![5]),
        ("since=2026-11-23T02:39:45Z", vec![5, 4, 3]),
        ("until=2026-11-23T02:39:45Z", vec![2, 1]),
        ("since=2026-11-23T03:39:45%2B01:00&until=2026-11-23T02:39:55Z", vec![3]),
        ("since=2026-11-23T03:39:45+01:00", vec![5, 4, 3]),
        ("service=web&instance=b&limit=1000", vec![2]),
        ("service=we*", vec![]),
    ] {
        assert_eq!(ids(&it.get(&format!("/alerts/history?{query}")).json()), expected, "{query}");
    }
}

#[test]
fn pages_of_any_size_put_together_are_the_whole_also_within_one_second() {
    // Pairs of rows share their time, so that pages end between rows that only the id tells apart.
    let it = with_rows((1..=23).map(|id| row(id, "web", id / 2)).collect());
    let whole: Vec<u64> = (1..=23).rev().collect();
    for limit in [1, 2, 5, 22, 23, 24] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = it.get(&format!("/alerts/history?limit={limit}{cursor}")).json();
            let ids = ids(&page);
            assert!(!ids.is_empty(), "no page is empty but that of an empty history");
            seen.extend(ids);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, whole, "{limit} a page");
    }
}

#[test]
fn a_page_has_100_rows_unless_asked_otherwise_and_1000_at_most() {
    let it = with_rows((1..=1_500).map(|id| row(id, "web", id)).collect());
    assert_eq!(ids(&it.get("/alerts/history").json()).len(), 100);
    assert_eq!(ids(&it.get("/alerts/history?limit=1000").json()).len(), 1_000);
}

#[test]
fn each_wrong_parameter_is_named() {
    let it = Running::empty();
    let known = "service, instance, metric, rule, severity, state, since, until, limit, cursor";
    for (query, detail) in [
        ("limit=0", "limit: expected a whole number from 1 to 1000, not `0`".to_owned()),
        ("limit=1001", "limit: expected a whole number from 1 to 1000, not `1001`".to_owned()),
        ("limit=ten", "limit: expected a whole number from 1 to 1000, not `ten`".to_owned()),
        ("severity=bad", "severity: expected info, warning or critical, not `bad`".to_owned()),
        ("state=open", "state: expected firing or resolved, not `open`".to_owned()),
        ("since=monday", "since: expected a time such as 2026-11-23T02:39:25Z, not `monday`".to_owned()),
        ("until=2026-11-23", "until: expected a time such as 2026-11-23T02:39:25Z, not `2026-11-23`".to_owned()),
        ("cursor=h1zz", "cursor: expected the next_cursor of an earlier answer, not `h1zz`".to_owned()),
        ("offset=3", format!("unknown parameter `offset`; there are: {known}")),
        ("service=a&service=b", "service: given twice".to_owned()),
    ] {
        assert_eq!(it.problem(&format!("/alerts/history?{query}"), 400), detail);
    }
}

#[test]
fn a_store_that_fails_is_not_quoted() {
    let it = Running::with_store(Failing { transient: true }, Options::default());
    let answer = it.get("/alerts/history");
    assert_eq!(answer.problem(503), "the alert history cannot be read at the moment");
    assert_eq!(answer.header("retry-after"), Some("2"));

    let it = Running::with_store(Failing { transient: false }, Options::default());
    let detail = it.problem("/alerts/history", 500);
    assert!(!detail.contains("SELECT"), "{detail}");
}

#[test]
fn a_store_that_hangs_costs_two_seconds_and_a_few_threads() {
    let store = Hanging::default();
    let options = Options::default();
    let n_permits = options.max_store_reads;
    let it = Running::with_store(store.clone(), options);
    let addr = it.addr();
    let start = Instant::now();
    let clients: Vec<_> =
        (0..3 * n_permits).map(|_| thread::spawn(move || ask(addr, "GET", "/alerts/history", ""))).collect();
    until("the reads began", || store.n_reads.load(Ordering::SeqCst) == n_permits);
    assert_eq!(it.get("/status").status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "/status does not wait for the store");
    for client in clients {
        let answer = client.join().expect("the thread went well");
        assert_eq!(answer.problem(503), "the alert history does not answer at the moment");
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(store.n_reads.load(Ordering::SeqCst), n_permits, "a read that hangs keeps its permit");

    store.release();
    until("the store answers again", || it.get("/alerts/history").status == 200);
}
