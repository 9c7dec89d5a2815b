//! `/status`: statuses, totals, filters, pages, names in the path.

use serde_json::{Value, json};

use super::support::{BASE, Running, firing};
use crate::{
    model::{Rejection, Row, Severity},
    state::{Heard, Presence},
};

/// One service of each status, and one of two instances.
fn fleet() -> Running {
    let it = Running::empty();
    it.add("web", "a", |i| {
        i.latest.take(Row::new(&[("memory_percent".into(), 40.0), ("cpu_percent".into(), 95.5)]).readings());
        i.skew_nanos = Some(-1_500_000_000);
        i.progress.firing = vec![firing("web", "a", "cpu-high", Severity::Critical, 1)];
    });
    it.add("web", "b", |_| {});
    it.add("db", "a", |i| i.stale = true);
    it.add("mail", "a", |i| i.progress.firing = vec![firing("mail", "a", "slow", Severity::Warning, 2)]);
    it.add("old", "a", |i| i.presence = Presence::Left(Heard::default()));
    it.add("team/api", "a", |i| i.progress.firing = vec![firing("team/api", "a", "note", Severity::Info, 3)]);
    it.add("gone", "a", |i| i.presence = Presence::Forgotten(Heard::default()));
    it
}

fn names(status: &Value) -> Vec<&str> {
    status["services"].as_array().expect("an array").iter().map(|s| s["service"].as_str().expect("a text")).collect()
}

#[test]
fn an_empty_server_says_so() {
    let status = Running::empty().get("/status").json();
    assert_eq!(status["services"], json!([]));
    assert_eq!(status["totals"]["services"], 0);
    assert_eq!(status.get("next_cursor"), None);
}

#[test]
fn the_status_shows_every_service_with_its_instances_in_order() {
    let it = fleet();
    it.stats.received.inc_by(10);
    it.stats.accepted.inc_by(6);
    it.stats.duplicates.inc_by(1);
    it.stats.rejected(Rejection::TooOld).inc_by(2);
    it.stats.queued.set(1);
    it.stats.events.set(9);
    it.stats.store_position.set(6);
    it.stats.events_stored.set(5);
    it.stats.events_dead.set(1);
    let answer = it.get("/status");
    let status = answer.json();
    assert!(status["generated_at"].as_str().expect("a text").ends_with('Z'));
    assert_eq!(
        status["balance"],
        json!({"received": 10, "accepted": 6, "rejected": 2, "duplicates": 1, "queued": 1,
               "events": 9, "stored": 5, "pending": 3, "dead_letter": 1})
    );
    assert_eq!(
        status["totals"],
        json!({"services": 5, "instances": 6, "ok": 1, "warning": 1, "critical": 1, "stale": 1, "left": 1, "firing": 3})
    );
    assert_eq!(names(&status), ["db", "mail", "old", "team/api", "web"]);
    let alert_id = firing("web", "a", "cpu-high", Severity::Critical, 1).alert.alert_id.to_string();
    assert_eq!(
        status["services"][4],
        json!({
            "service": "web",
            "status": "critical",
            "last_seen": BASE.to_string(),
            "instances": [
                {
                    "instance": "a", "status": "critical", "stale": false, "last_seen": BASE.to_string(),
                    "clock_skew_seconds": -1.5, "metrics": {"memory_percent": 40.0, "cpu_percent": 95.5},
                    "firing": [{"alert_id": alert_id, "rule": "cpu-high", "metric": "cpu_percent", "value": 95.5,
                                "threshold": 90.0, "severity": "critical", "since": "2026-11-23T02:39:26.000000Z"}],
                },
                {
                    "instance": "b", "status": "ok", "stale": false, "last_seen": BASE.to_string(),
                    "clock_skew_seconds": null, "metrics": {}, "firing": [],
                },
            ],
        })
    );
    assert!(answer.body.contains(r#""metrics":{"memory_percent":40.0,"cpu_percent":95.5}"#), "in the instance's order");
}

#[test]
fn an_instance_that_left_does_not_hide_how_the_others_are() {
    let it = fleet();
    it.add("old", "b", |i| i.stale = true);
    let old = it.get("/status/old").json();
    assert_eq!((&old["status"], &old["instances"][0]["status"]), (&json!("stale"), &json!("left")));
}

#[test]
fn filters_narrow_the_services_and_not_the_totals() {
    let it = fleet();
    let all = it.get("/status").json();
    for (query, expected) in [
        ("service=web", vec!["web"]),
        ("service=*a*", vec!["mail", "team/api"]),
        ("service=team%2F*", vec!["team/api"]),
        ("service=%7Bweb,db%7D", vec!["db", "web"]),
        ("service=nobody", vec![]),
        ("status=critical", vec!["web"]),
        ("status=stale", vec!["db"]),
        ("status=warning", vec!["mail"]),
        ("status=ok", vec!["team/api"]),
        ("status=left", vec!["old"]),
        ("status=ok&service=w*", vec![]),
    ] {
        let status = it.get(&format!("/status?{query}")).json();
        assert_eq!(names(&status), expected, "{query}");
        assert_eq!(status["totals"], all["totals"], "{query}");
    }
}

#[test]
fn pages_put_together_are_the_whole() {
    let it = fleet();
    let (mut seen, mut query) = (Vec::new(), "/status?limit=2".to_owned());
    let mut n_pages = 0;
    loop {
        let page = it.get(&query).json();
        seen.extend(names(&page).into_iter().map(str::to_owned));
        n_pages += 1;
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("/status?limit=2&cursor={cursor}"),
            None => break assert_eq!(page.get("next_cursor"), Some(&Value::Null)),
        }
    }
    assert_eq!(seen, ["db", "mail", "old", "team/api", "web"]);
    assert_eq!(n_pages, 3);
    let exact = it.get("/status?limit=5").json();
    assert_eq!((names(&exact).len(), &exact["next_cursor"]), (5, &Value::Null));
}

#[test]
fn each_wrong_parameter_is_named() {
    let it = Running::empty();
    for (query, detail) in [
        ("service=%5Bx", "service: expected a glob such as `payments-*`, not `[x`"),
        ("service=", "service: empty; leave it out or give it a value"),
        ("status=bad", "status: expected one of critical, stale, warning, ok, left, not `bad`"),
        ("limit=0", "limit: expected a whole number from 1 on, not `0`"),
        ("limit=-1", "limit: expected a whole number from 1 on, not `-1`"),
        ("limit=1&limit=2", "limit: given twice"),
        ("cursor=xyz", "cursor: expected the next_cursor of an earlier answer, not `xyz`"),
        ("servce=web", "unknown parameter `servce`; there are: service, status, limit, cursor"),
    ] {
        assert_eq!(it.problem(&format!("/status?{query}"), 400), detail);
    }
    let long = "x".repeat(500);
    let detail = it.problem(&format!("/status?limit={long}"), 400);
    assert!(detail.len() < 200, "what a client sent is not all sent back: {detail}");
}

#[test]
fn one_service_is_named_in_the_path_percent_decoded_once() {
    let it = fleet();
    it.add("50%25", "a", |_| {});
    for (path, name) in [
        ("/status/web", "web"),
        ("/status/w%65b", "web"),
        ("/status/team%2Fapi", "team/api"),
        ("/status/team%2fapi", "team/api"),
        ("/status/50%2525", "50%25"),
    ] {
        let one = it.get(path).json();
        assert_eq!(one["service"], name, "{path}");
        let status = it.get("/status").json();
        assert!(status["services"].as_array().expect("an array").contains(&one), "the same as in the whole");
    }
    for path in ["/status/nobody", "/status/gone", "/status/we", "/status/50%25", "/status/team%252Fapi", "/status/%ff"]
    {
        assert_eq!(it.problem(path, 404), "no such service is known", "{path}");
    }
    assert_eq!(it.problem("/status/web?limit=1", 400), "unknown parameter `limit`; there are: none");
}
