//! Timelines, one situation each. What is expected of them is worked out by hand from the contract.

mod absent;
mod clock;
mod functions;
mod life;
mod operators;
mod record;
mod reload;

use std::sync::Arc;

use expect_test::expect;

use super::play::{check, play, rule, rules};
use crate::{
    model::{Alert, InstanceKey, Row, Timestamp},
    rules::{Progress, Reading, Record, RuleSet, evaluate},
};

/// The alert that a report of cpu_percent raises.
fn alert(rules: &RuleSet, change: impl FnOnce(&mut Reading<'_>)) -> Arc<Alert> {
    alert_after(rules, 0, change)
}

/// The same for an instance that has had so many counted raises.
fn alert_after(rules: &RuleSet, raises: u64, change: impl FnOnce(&mut Reading<'_>)) -> Arc<Alert> {
    outcome_of(rules, raises, change).firing[0].alert.clone()
}

/// What a report of cpu_percent leaves of such an instance.
fn outcome_of(rules: &RuleSet, raises: u64, change: impl FnOnce(&mut Reading<'_>)) -> Progress {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let at = Timestamp::from_nanos(1_800_000_000_000_000_000);
    let metrics = Row::new(&[("cpu_percent".into(), 97.123_456)]);
    let mut reading = Reading {
        key: &key,
        metrics: metrics.readings(),
        at,
        wire_time: 7,
        received_at: at,
        skew_nanos: 0,
        epoch: 1,
        sequence: 1,
    };
    change(&mut reading);
    let mut progress = Progress::new(rules.plan(&key));
    progress.raises = raises;
    let outcome = evaluate(&progress, &reading);
    progress.apply(outcome, metrics.readings(), reading.received_at);
    progress
}

/// Rules of these fields.
fn rules_of(fields: &[&str]) -> RuleSet {
    let rule = |(n, fields): (usize, &&str)| format!("[[rules]]\nname = \"rule-{n}\"\n{fields}\n");
    rules(&fields.iter().enumerate().map(rule).collect::<String>())
}

#[test]
fn a_report_without_the_metric_changes_nothing() {
    check(
        r#"when = "cpu_percent > 90""#,
        "0s:memory_percent=99 1s:95 2s:memory_percent=10 3s: 4s:cpu_percent=10,memory_percent=10",
        &expect![[r#"
            1s rule raise critical cpu_percent 95
            4s rule resolve cleared 10"#]],
    );
}

#[test]
fn two_metrics_can_be_compared_and_a_number_may_stand_first() {
    check(
        r#"when = "error_rate > request_rate""#,
        "0s:error_rate=5 1s:error_rate=5,request_rate=4 2s:error_rate=5,request_rate=5",
        &expect![[r#"
            1s rule raise critical error_rate 5
            2s rule resolve cleared 5"#]],
    );
    check(r#"when = "90 < cpu_percent""#, "0s:95", &expect!["0s rule raise critical cpu_percent 95"]);
}

#[test]
fn the_built_in_rules_are_those_of_the_mission() {
    let expected = expect![[r#"
        1s cpu-high raise critical cpu_percent 90.1
        1s memory-high raise critical memory_percent 80.1
        2s cpu-high resolve cleared 90
        2s memory-high resolve cleared 80"#]];
    let timeline = "0s:cpu_percent=90,memory_percent=80 1s:cpu_percent=90.1,memory_percent=80.1 2s:cpu_percent=90,memory_percent=80";
    expected.assert_eq(&play(RuleSet::built_in(None), timeline));
    let names: Vec<_> = RuleSet::built_in(None).rules.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["cpu-high", "memory-high", "silent"]);
    assert!(RuleSet::built_in(Some(Record::Every)).rules.iter().all(|rule| rule.record == Record::Every));
}

#[test]
fn a_rule_looks_only_at_the_instances_that_its_globs_name() {
    let rules = rule(
        r#"when = "cpu_percent > 90"; services = ["payments-*", "web"]; exclude = ["*-canary"]; instances = ["a?"]"#,
    );
    let looks_at = |service, instance| !rules.plan(&InstanceKey::new(service, instance)).rules.is_empty();
    assert!(looks_at("payments-eu", "a1"));
    assert!(looks_at("web", "ab"));
    assert!(!looks_at("payments-canary", "a1"));
    assert!(!looks_at("web2", "a1"));
    assert!(!looks_at("web", "b1"));
}

#[test]
fn a_reading_is_late_a_minute_after_it_was_taken_by_the_agents_own_clock() {
    let rules = rule(r#"when = "cpu_percent > 90""#);
    let late = |delay_seconds: i64, skew_seconds: i64| {
        let raised = alert(&rules, |reading| {
            reading.received_at = reading.at.shifted(delay_seconds * 1_000_000_000);
            reading.skew_nanos = skew_seconds * 1_000_000_000;
        });
        raised.late
    };
    assert!(!late(60, 0));
    assert!(late(61, 0));
    assert!(late(0, 61), "a clock that is ahead hides a delay");
    assert!(!late(3_600, -3_600), "a clock that is behind is no delay");
}

#[test]
fn unnumbered_reports_raise_under_ids_of_their_own() {
    let rules = rule(r#"when = "cpu_percent > 90""#);
    let id = |raises, sequence| alert_after(&rules, raises, |reading| reading.sequence = sequence).alert_id;
    assert_ne!(id(0, 0), id(1, 0));
    assert_ne!(id(1, 0), id(2, 0), "the count goes on by one, from wherever it is");
    let both = rules_of(&[r#"when = "cpu_percent > 90""#, r#"when = "cpu_percent > 91""#]);
    let counted = outcome_of(&both, 7, |reading| reading.sequence = 0);
    assert_eq!(counted.raises, 9, "each raise of a report is one more");
    assert_eq!(id(0, 5), id(1, 5), "a numbered report raises the same alert however often it is sent");
}

#[test]
fn a_summary_says_what_its_rule_wants_said() {
    let said = |fields: &str| {
        let rules = rule(&format!("when = \"cpu_percent > 90\"; {fields}"));
        alert(&rules, |_| {}).summary.clone()
    };
    assert_eq!(said(""), "cpu_percent of web/a is 97.1235 (cpu_percent > 90)");
    assert_eq!(said(r#"summary = "CPU of {service}/{instance} is {value}%""#), "CPU of web/a is 97.1235%");
    assert_eq!(said(r#"summary = "{rule} {severity} {metric} {threshold} {""#), "rule critical cpu_percent 90 {");
}
