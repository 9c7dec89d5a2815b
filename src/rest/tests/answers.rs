//! What holds for every answer; the rules, the probes and the figures.

use serde_json::json;

use super::support::{Running, firing};
use crate::{
    health::{Condition, Phase},
    model::{Rejection, Severity},
};

#[test]
fn an_unknown_path_or_method_is_a_problem_that_says_so() {
    let it = Running::empty();
    for path in ["/", "/nothing", "/status/a/b", "/alerts", "/alerts/", "/alerts/history/1", "/metrics/x"] {
        assert_eq!(it.problem(path, 404), "there is no such resource", "{path}");
    }
    let one_alert = format!("/alerts/{}", uuid::Uuid::nil());
    for path in
        ["/status", "/status/web", "/alerts/history", "/alerts/active", &one_alert, "/rules", "/readyz", "/metrics"]
    {
        for method in ["POST", "DELETE", "OPTIONS", "PATCH"] {
            let answer = it.ask(method, path, "content-length: 0\r\n");
            assert_eq!(answer.problem(405), "this resource takes GET, HEAD");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
}

#[test]
fn no_answer_is_cached_or_sniffed_or_given_to_other_origins() {
    let it = Running::empty();
    for path in ["/status", "/alerts/history", "/metrics", "/livez", "/nothing"] {
        let answer = it.ask("GET", path, "origin: http://evil.example\r\n");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn head_is_get_without_the_body() {
    let it = Running::empty();
    for path in ["/rules", "/alerts/history", "/metrics", "/livez", "/status/nobody", "/nothing"] {
        let (get, head) = (it.get(path), it.ask("HEAD", path, ""));
        assert_eq!(head.body, "");
        assert_eq!((head.status, head.header("content-type")), (get.status, get.header("content-type")));
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
    }
}

#[test]
fn an_overlong_address_is_refused_before_it_is_looked_at() {
    let it = Running::empty();
    let fits = format!("/{}", "x".repeat(2047));
    it.problem(&fits, 404);
    let detail = it.problem(&format!("{fits}x"), 414);
    assert_eq!(detail, "path and query have 2049 bytes, the most is 2048");
    it.problem(&format!("/status?service={}", "x".repeat(2040)), 414);
}

#[test]
fn an_overlong_head_is_refused() {
    let it = Running::empty();
    let answer = it.ask("GET", "/livez", &format!("x-long: {}\r\n", "x".repeat(20_000)));
    assert_eq!((answer.status, answer.body.as_str()), (431, ""));
}

#[test]
fn the_rules_tell_what_they_watch_and_whether_they_fire() {
    let it = Running::empty();
    it.add("web", "a", |i| i.progress.firing = vec![firing("web", "a", "cpu-high", Severity::Critical, 1)]);
    it.add("web", "b", |i| i.progress.firing = vec![firing("web", "b", "cpu-high", Severity::Critical, 2)]);
    it.stats.rule_evaluations("cpu-high").inc_by(7);
    it.stats.note_rule_error("silent", "panicked".to_owned());
    let rules = it.get("/rules").json();
    assert_eq!(rules["rules"][2]["last_error"]["message"], "panicked");
    assert_eq!(rules["source"], "built-in");
    assert_eq!(
        rules["rules"][0],
        json!({
            "name": "cpu-high",
            "when": "cpu_percent > 90",
            "for": 0.0,
            "keep_firing_for": 0.0,
            "clear": null,
            "repeat": null,
            "severity": "critical",
            "services": ["*"],
            "exclude": [],
            "instances": ["*"],
            "record": "episode",
            "labels": {},
            "summary": "{metric} of {service}/{instance} is {value} (cpu_percent > 90)",
            "runbook_url": null,
            "receivers": null,
            "state": "firing",
            "matching": 2,
            "pending": 0,
            "firing": 2,
            "evaluations": 7,
            "last_error": null,
        })
    );
    assert_eq!((&rules["rules"][1]["state"], &rules["rules"][1]["firing"]), (&json!("ok"), &json!(0)));
    assert_eq!(rules["rules"].as_array().expect("an array").len(), 3);
    it.problem("/rules?state=firing", 400);
}

#[test]
fn alive_is_all_that_the_liveness_probes_say() {
    let it = Running::empty();
    for phase in [Phase::Starting, Phase::Ready, Phase::Draining] {
        it.health.enter(phase);
        for path in ["/healthz", "/livez", "/livez?verbose"] {
            assert_eq!(it.get(path).json(), json!({"status": "ok"}));
        }
    }
}

#[test]
fn ready_means_taking_reports_and_degraded_is_ready() {
    let it = Running::empty();
    it.health.enter(Phase::Starting);
    let answer = it.get("/readyz");
    assert_eq!((answer.status, answer.json_anyway()), (503, json!({"status": "not_ready", "checks": {}})));

    it.health.enter(Phase::Ready);
    it.health.set("store", Condition::Ok, "sqlite");
    assert_eq!(it.get("/readyz").json()["status"], "ready");

    it.health.set("store", Condition::Degraded, "mysql does not answer");
    let ready = it.get("/readyz").json();
    assert_eq!(ready["status"], "degraded");
    assert_eq!(ready["checks"]["store"]["status"], "degraded");
    assert_eq!(ready["checks"]["store"]["detail"], "mysql does not answer");
    assert!(ready["checks"]["store"]["since"].as_str().expect("a text").ends_with('Z'));

    it.health.enter(Phase::Draining);
    assert_eq!(it.get("/readyz").status, 503);
    assert_eq!(it.get("/status").status, 200, "everything else goes on while draining");
}

#[test]
fn the_figures_come_in_both_formats() {
    let it = Running::empty();
    it.stats.received.inc_by(7);
    it.stats.rejected(Rejection::BadName).inc_by(2);
    it.stats.queued.set(5);
    it.stats.journal_commit.observe(0.25);

    let text = it.ask("GET", "/metrics", "accept: text/plain\r\n");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(it.get("/metrics").header("content-type"), text.header("content-type"));
    for line in [
        "# HELP gopherwatch_build_info The version of the server.",
        "# TYPE gopherwatch_build_info gauge",
        concat!("gopherwatch_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# HELP gopherwatch_reports_received_total Reports admitted, or refused one by one.",
        "# TYPE gopherwatch_reports_received_total counter",
        "gopherwatch_reports_received_total 7",
        "gopherwatch_reports_rejected_total{reason=\"bad_name\"} 2",
        "# TYPE gopherwatch_reports_queued gauge",
        "gopherwatch_reports_queued 5",
        "# TYPE gopherwatch_journal_commit_seconds histogram",
        "gopherwatch_journal_commit_seconds_sum 0.25",
    ] {
        assert_eq!(text.body.lines().filter(|l| *l == line).count(), 1, "{line}\n{}", text.body);
    }
    assert!(!text.body.contains("# UNIT") && !text.body.contains("# EOF"));

    let open = it.ask("GET", "/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    for line in [
        "# TYPE gopherwatch_build info",
        "# TYPE gopherwatch_reports_received counter",
        "gopherwatch_reports_received_total 7",
        "# UNIT gopherwatch_journal_commit_seconds seconds",
    ] {
        assert_eq!(open.body.lines().filter(|l| *l == line).count(), 1, "{line}\n{}", open.body);
    }
    assert!(open.body.ends_with("# EOF\n"));
}
