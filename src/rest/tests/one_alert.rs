//! `/alerts/{alert_id}`: from memory while it fires, from the store after that.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::Options,
    support::{BASE, Failing, Hanging, Rows, Running, firing, record, row},
};
use crate::{
    model::{Evidence, EvidencePoint, Severity},
    rules::Firing,
    store::{AlertRecord, HistoryRow},
};

/// An alert that fires, and what it was raised on.
fn with_evidence() -> Firing {
    let firing = firing("web", "a", "cpu-high", Severity::Critical, 1);
    let points = vec![EvidencePoint { at: BASE, value: 95.5 }];
    let evidence = Some(Arc::new(Evidence { when: "cpu_percent > 90".into(), points }));
    let alert = crate::model::Alert { evidence, version: 3, last_value: 99.25, ..(*firing.alert).clone() };
    Firing { alert: Arc::new(alert), ..firing }
}

fn path(alert_id: Uuid) -> String {
    format!("/alerts/{alert_id}")
}

fn stored(record: AlertRecord) -> Value {
    let path = path(record.row.alert_id.expect("an id"));
    Running::with_store(Rows(vec![record]), Options::default()).get(&path).json()
}

#[test]
fn one_that_fires_is_told_whole_from_memory_whatever_the_store_does() {
    let hanging = Hanging::default();
    for it in [
        Running::empty(),
        Running::with_store(Failing { transient: true }, Options::default()),
        Running::with_store(hanging.clone(), Options::default()),
    ] {
        let alert = with_evidence();
        let id = alert.alert.alert_id;
        it.add("web", "a", |i| i.progress.firing = vec![firing("web", "a", "slow", Severity::Warning, 2), alert]);
        assert_eq!(
            it.get(&path(id)).json(),
            json!({
                "id": null, "alert_id": id.to_string(), "service_name": "web", "instance": "a",
                "metric": "cpu_percent", "metric_value": 95.5, "rule": "cpu-high", "severity": "critical",
                "threshold": 90.0, "triggered_at": "2026-11-23T02:39:26.000000Z",
                "received_at": "2026-11-23T02:39:26.000000Z", "stored_at": null, "resolved_at": null,
                "resolve_reason": null, "late": false, "labels": {"team": "payments"}, "summary": "CPU is high",
                "episode_id": id.to_string(), "last_value": 99.25, "version": 3,
                "events": [{"kind": "raise", "at": "2026-11-23T02:39:26.000000Z", "by": null, "value": 95.5}],
                "evidence": {"when": "cpu_percent > 90", "points": [[1_795_401_565_000_u64, 95.5]]},
                "silenced": false, "acknowledged": false,
            })
        );
    }
    assert_eq!(hanging.n_reads.load(Ordering::SeqCst), 0);
}

#[test]
fn one_without_evidence_says_so() {
    let it = Running::empty();
    let silent = firing("web", "a", "silent", Severity::Warning, 1);
    let path = path(silent.alert.alert_id);
    it.add("web", "a", |i| i.progress.firing = vec![silent]);
    assert_eq!(it.get(&path).json()["evidence"], Value::Null);
}

#[test]
fn one_that_does_not_fire_is_told_from_the_store() {
    let resolved = HistoryRow {
        resolved_at: Some(BASE.plus(Duration::from_secs(60))),
        resolve_reason: Some("recorded".to_owned()),
        late: true,
        ..row(2, "web", 1)
    };
    let record = AlertRecord { episode_id: Some(Uuid::from_u128(7)), version: 2, ..record(resolved) };
    assert_eq!(
        stored(record),
        json!({
            "id": 2, "alert_id": "00000000-0000-0000-0000-000000000002", "service_name": "web", "instance": "a",
            "metric": "cpu_percent", "metric_value": 95.5, "rule": "cpu-high", "severity": "critical",
            "threshold": 90.0, "triggered_at": "2026-11-23T02:39:26.000000Z",
            "received_at": "2026-11-23T02:39:25.000000Z", "stored_at": "2026-11-23T02:39:25.000000Z",
            "resolved_at": "2026-11-23T02:40:25.000000Z", "resolve_reason": "recorded", "late": true,
            "labels": {"team": "payments"}, "summary": "CPU is high",
            "episode_id": "00000000-0000-0000-0000-000000000007", "last_value": 95.5, "version": 2,
            "events": [{"kind": "raise", "at": "2026-11-23T02:39:25.000000Z", "by": null, "value": 95.5}],
            "evidence": {"when": "cpu_percent > 90", "points": [[1_795_401_565_000_u64, 95.5]]},
            "silenced": false, "acknowledged": false,
        })
    );
}

#[test]
fn text_of_the_database_that_is_not_ours_is_left_out() {
    for text in [None, Some(""), Some("not JSON"), Some("[1,"), Some("{\"a\":1} {}"), Some("5"), Some("null")] {
        let text = text.map(str::to_owned);
        let labels = HistoryRow { labels: text.clone(), ..row(1, "web", 0) };
        let told = stored(AlertRecord { events: text.clone(), evidence: text.clone(), ..record(labels) });
        let found = [&told["labels"], &told["events"], &told["evidence"]];
        assert_eq!(found, [&json!({}), &json!([]), &Value::Null], "{text:?}");
    }
    let (object, array) = (Some("{}".to_owned()), Some("[]".to_owned()));
    let told = stored(AlertRecord { events: object, evidence: array, ..record(row(1, "web", 0)) });
    assert_eq!((&told["events"], &told["evidence"]), (&json!([]), &Value::Null));
}

/// serde_json's parser, as it is by default, may miss the last one.
#[test]
fn numbers_of_the_evidence_keep_all_their_digits() {
    let evidence = r#"{"when":"x > 1","points":[[1795401565000,51.248178375505404],[1795401566000,1e-7]]}"#;
    let record = AlertRecord { evidence: Some(evidence.to_owned()), ..record(row(1, "web", 0)) };
    let it = Running::with_store(Rows(vec![record]), Options::default());
    let body = it.get(&path(Uuid::from_u128(1))).body;
    assert!(body.contains(evidence), "{body}");
}

#[test]
fn an_id_may_be_written_in_capitals_and_as_the_database_shows_it() {
    let it = Running::with_store(Rows(vec![record(row(0xABC, "web", 0))]), Options::default());
    for id in [
        "00000000-0000-0000-0000-000000000abc",
        "00000000-0000-0000-0000-000000000ABC",
        "00000000000000000000000000000ABC",
        "%30%30000000-0000-0000-0000-000000000ab%63",
    ] {
        assert_eq!(it.get(&format!("/alerts/{id}")).json()["id"], 0xABC, "{id}");
    }
}

#[test]
fn an_unknown_id_a_malformed_one_and_a_parameter_are_problems() {
    let it = Running::empty();
    let unknown = path(Uuid::from_u128(1));
    assert_eq!(it.problem(&unknown, 404), "no alert with this id is known");
    let head = it.ask("HEAD", &unknown, "");
    assert_eq!((head.status, head.body.as_str()), (404, ""));
    let expected = "alert_id: expected a UUID such as f5e9228b-f754-5062-b09a-e46b13835b67, not";
    for (segment, shown) in
        [("Active", "Active"), ("1", "1"), (&unknown[9..], "0000000-0000-0000-0000-000000000001"), ("%ff", "\u{fffd}")]
    {
        assert_eq!(it.problem(&format!("/alerts/{segment}"), 400), format!("{expected} `{shown}`"));
    }
    assert_eq!(it.problem(&format!("{unknown}?x=1"), 400), "unknown parameter `x`; there are: none");
}

#[test]
fn a_store_that_fails_or_hangs_is_not_an_unknown_alert() {
    let path = path(Uuid::from_u128(1));
    let answer = Running::with_store(Failing { transient: true }, Options::default()).get(&path);
    assert_eq!(answer.problem(503), "the alert history cannot be read at the moment");
    assert_eq!(answer.header("retry-after"), Some("2"));
    let detail = Running::with_store(Failing { transient: false }, Options::default()).problem(&path, 500);
    assert!(!detail.contains("SELECT"), "{detail}");

    let deadline = Duration::from_millis(200);
    let hanging = Running::with_store(Hanging::default(), Options { store_deadline: deadline, ..Options::default() });
    let start = Instant::now();
    assert_eq!(hanging.problem(&path, 503), "the alert history does not answer at the moment");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
