//! Timelines: readings in, events out. A reading is `time:value` of cpu_percent, or `time:metric=value,…`.

mod cases;
mod language;
mod read;
mod reference;
mod write;

use std::sync::Arc;

use expect_test::{Expect, expect};

use super::{Change, Firing, Reading, Record, RuleSet, Truth, evaluate, parse_file};
use crate::{
    model::{EventKind, InstanceKey, Name, Timestamp},
    units::parse_duration,
};

fn rules(text: &str) -> RuleSet {
    let rules = parse_file(text, None).expect("a valid file").expect("with rules");
    RuleSet { rules, source: "test".to_owned() }
}

/// One rule of these fields.
fn rule(fields: &str) -> RuleSet {
    rules(&format!("[[rules]]\nname = \"rule\"\n{}", fields.replace("; ", "\n")))
}

fn readings(text: &str) -> Vec<(Name, f64)> {
    if text.is_empty() {
        return Vec::new();
    }
    let reading = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.into(), value.parse().expect("a number")),
        None => ("cpu_percent".into(), text.parse().expect("a number")),
    };
    text.split(',').map(reading).collect()
}

/// Plays the timeline and writes down every event.
fn play(rules: &RuleSet, timeline: &str) -> String {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let applicable = rules.applicable(&key);
    let start = Timestamp::from_nanos(1_800_000_000_000_000_000);
    let mut firing: Vec<Firing> = Vec::new();
    let mut out = Vec::new();
    for (idx, step) in timeline.split_whitespace().enumerate() {
        let (time, values) = step.split_once(':').expect("time:values");
        let at = start.plus(parse_duration(time).expect("a duration"));
        let metrics = readings(values);
        let reading = Reading {
            key: &key,
            metrics: &metrics,
            at,
            wire_time: at.as_nanos().unsigned_abs(),
            received_at: at,
            skew_nanos: 0,
            epoch: 1,
            sequence: idx as u64 + 1,
        };
        for Change { rule, event } in evaluate(&rules.rules, &applicable, &firing, 0, &reading) {
            let alert = &event.alert;
            out.push(match event.kind {
                EventKind::Raise => {
                    format!("{time} {} raise {} {} {}", alert.rule, alert.severity, alert.metric, alert.value)
                }
                EventKind::Resolve => {
                    let why = alert.resolve_reason.expect("resolved");
                    format!("{time} {} resolve {why} {}", alert.rule, alert.last_value)
                }
                EventKind::Record => format!("{time} {} record {}", alert.rule, alert.value),
                EventKind::Update => format!("{time} {} update", alert.rule),
            });
            match event.kind {
                EventKind::Raise => firing.push(Firing { rule, alert: event.alert }),
                EventKind::Resolve => firing.retain(|f| f.rule != rule),
                EventKind::Record | EventKind::Update => {}
            }
        }
    }
    out.join("\n")
}

fn check(fields: &str, timeline: &str, expected: &Expect) {
    expected.assert_eq(&play(&rule(fields), timeline));
}

#[test]
fn an_episode_is_one_raise_and_one_resolve() {
    check(
        r#"when = "cpu_percent > 90""#,
        "0s:50 1s:95 2s:99 3s:91 4s:90 5s:20 6s:95",
        &expect![[r#"
            1s rule raise critical cpu_percent 95
            4s rule resolve cleared 90
            6s rule raise critical cpu_percent 95"#]],
    );
}

#[test]
fn each_comparator_has_its_boundary() {
    let fires = |when: &str, value: &str| {
        play(&rule(&format!("when = \"cpu_percent {when}\"")), &format!("0s:{value}")).contains("raise")
    };
    for (when, below, at, above) in [
        ("> 90", false, false, true),
        (">= 90", false, true, true),
        ("< 90", true, false, false),
        ("<= 90", true, true, false),
        ("== 90", false, true, false),
        ("!= 90", true, false, true),
    ] {
        let seen = [fires(when, "89.9999"), fires(when, "90"), fires(when, "90.0001")];
        assert_eq!(seen, [below, at, above], "cpu_percent {when}");
    }
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
fn names_in_backquotes_are_any_name_an_agent_can_send() {
    check(
        r#"when = "`disk/sda-used` > 90""#,
        "0s:disk/sda-used=91",
        &expect!["0s rule raise critical disk/sda-used 91"],
    );
    check(r#"when = "`and` > 1""#, "0s:and=2", &expect!["0s rule raise critical and 2"]);
}

#[test]
fn record_every_gives_each_violating_report_after_the_first_a_row() {
    check(
        r#"when = "cpu_percent > 90"; record = "every""#,
        "0s:95 1s:96 2s:97 3s:10 4s:98",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            1s rule record 96
            2s rule record 97
            3s rule resolve cleared 10
            4s rule raise critical cpu_percent 98"#]],
    );
}

#[test]
fn the_built_in_rules_are_those_of_the_mission() {
    let expected = expect![[r#"
        1s cpu-high raise critical cpu_percent 90.1
        1s memory-high raise critical memory_percent 80.1
        2s cpu-high resolve cleared 90
        2s memory-high resolve cleared 80"#]];
    let timeline = "0s:cpu_percent=90,memory_percent=80 1s:cpu_percent=90.1,memory_percent=80.1 2s:cpu_percent=90,memory_percent=80";
    expected.assert_eq(&play(&RuleSet::built_in(None), timeline));
    let names: Vec<_> = RuleSet::built_in(None).rules.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["cpu-high", "memory-high", "silent"]);
    assert!(RuleSet::built_in(Some(Record::Every)).rules.iter().all(|rule| rule.record == Record::Every));
}

#[test]
fn any_report_ends_a_silence() {
    let rules = RuleSet::built_in(None);
    let silent = &rules.rules[2];
    assert_eq!(silent.condition.ask(&[]), Truth::False(None));
}

#[test]
fn a_rule_looks_only_at_the_instances_that_its_globs_name() {
    let rules = rule(
        r#"when = "cpu_percent > 90"; services = ["payments-*", "web"]; exclude = ["*-canary"]; instances = ["a?"]"#,
    );
    let looks_at = |service, instance| !rules.applicable(&InstanceKey::new(service, instance)).is_empty();
    assert!(looks_at("payments-eu", "a1"));
    assert!(looks_at("web", "ab"));
    assert!(!looks_at("payments-canary", "a1"));
    assert!(!looks_at("web2", "a1"));
    assert!(!looks_at("web", "b1"));
}

#[test]
fn a_reading_is_late_a_minute_after_it_was_taken_by_the_agents_own_clock() {
    let rules = rule(r#"when = "cpu_percent > 90""#);
    let key = Arc::new(InstanceKey::new("web", "a"));
    let late = |delay_seconds: i64, skew_seconds: i64| {
        let at = Timestamp::from_nanos(1_800_000_000_000_000_000);
        let reading = Reading {
            key: &key,
            metrics: &[("cpu_percent".into(), 95.0)],
            at,
            wire_time: 1,
            received_at: at.shifted(delay_seconds * 1_000_000_000),
            skew_nanos: skew_seconds * 1_000_000_000,
            epoch: 1,
            sequence: 1,
        };
        evaluate(&rules.rules, &[0], &[], 0, &reading)[0].event.alert.late
    };
    assert!(!late(60, 0));
    assert!(late(61, 0));
    assert!(late(0, 61), "a clock that is ahead hides a delay");
    assert!(!late(3_600, -3_600), "a clock that is behind is no delay");
}

#[test]
fn unnumbered_reports_raise_under_ids_of_their_own() {
    let rules = rule(r#"when = "cpu_percent > 90""#);
    let key = Arc::new(InstanceKey::new("web", "a"));
    let id = |raises, sequence| {
        let at = Timestamp::from_nanos(1_800_000_000_000_000_000);
        let metrics = [("cpu_percent".into(), 95.0)];
        let reading = Reading {
            key: &key,
            metrics: &metrics,
            at,
            wire_time: 7,
            received_at: at,
            skew_nanos: 0,
            epoch: 0,
            sequence,
        };
        evaluate(&rules.rules, &[0], &[], raises, &reading)[0].event.alert.alert_id
    };
    assert_ne!(id(0, 0), id(1, 0));
    assert_eq!(id(0, 5), id(1, 5), "a numbered report raises the same alert however often it is sent");
}

#[test]
fn a_summary_says_what_its_rule_wants_said() {
    let said = |fields: &str| {
        let rules = rule(&format!("when = \"cpu_percent > 90\"; {fields}"));
        let key = Arc::new(InstanceKey::new("web", "a"));
        let at = Timestamp::default();
        let reading = Reading {
            key: &key,
            metrics: &[("cpu_percent".into(), 97.123_456)],
            at,
            wire_time: 0,
            received_at: at,
            skew_nanos: 0,
            epoch: 0,
            sequence: 1,
        };
        evaluate(&rules.rules, &[0], &[], 0, &reading)[0].event.alert.summary.clone()
    };
    assert_eq!(said(""), "cpu_percent of web/a is 97.1235 (cpu_percent > 90)");
    assert_eq!(said(r#"summary = "CPU of {service}/{instance} is {value}%""#), "CPU of web/a is 97.1235%");
    assert_eq!(said(r#"summary = "{rule} {severity} {metric} {threshold} {""#), "rule critical cpu_percent 90 {");
}

/// What a file that cannot be used is told.
fn refusal(text: &str) -> String {
    parse_file(text, None).expect_err("not a valid file").to_string()
}

fn refused_rule(fields: &str) -> String {
    refusal(&format!("[[rules]]\nname = \"rule\"\n{}", fields.replace("; ", "\n")))
}

#[test]
fn a_condition_that_cannot_be_read_is_told_where_and_what_was_expected() {
    let told = |when: &str| refused_rule(&format!("when = \"{when}\""));
    expect![[r#"line 3, column 21: when: expected one of > >= < <= == !=, found `90`"#]]
        .assert_eq(&told("cpu_percent 90"));
    expect![[r#"line 3, column 22: when: expected a metric's name or a number, found the end"#]]
        .assert_eq(&told("cpu_percent >"));
    expect![[r#"line 3, column 9: when: expected a metric's name or a number, found the end"#]].assert_eq(&told(""));
    expect![[r#"line 3, column 26: when: expected the end of the condition, found `and`"#]]
        .assert_eq(&told("cpu_percent > 90 and x"));
    expect![[r#"line 3, column 9: when: compares two numbers: name a metric on one side"#]].assert_eq(&told("1 > 2"));
    expect![[r#"line 3, column 16: when: expected a duration such as `30s`, or `)`, found `30)`"#]]
        .assert_eq(&told("absent(30)"));
    for bad in
        ["nan > 1", "cpu_percent > inf", "`a b` > 1", "`a > 1", "and > 1", "cpu_percent > 90 90", "cpu_percent => 9"]
    {
        if bad.starts_with("nan") || bad.contains("inf") {
            // These are names of metrics, which is what they look like.
            assert!(parse_file(&format!("[[rules]]\nname=\"r\"\nwhen = \"{bad}\""), None).is_ok(), "{bad}");
        } else {
            assert!(told(bad).contains("when:"), "{bad}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_line_column_and_field() {
    expect![[r#"line 4, column 12: severity: use "info", "warning" or "critical""#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; severity = "page""#));
    expect![[r#"line 4, column 10: record: use "episode" or "every""#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; record = "all""#));
    expect![[r#"line 4, column 11: summary: unknown placeholder `{host}`: use one of service, instance, metric, value, threshold, rule, severity"#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; summary = "on {host}""#));
    expect![[r#"line 4, column 7: for: not supported by this version, remove it"#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; for = "10s""#));
    expect![[r#"line 4, column 13: services: unclosed character class; missing ']'"#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; services = ["[a"]"#));
    expect![[r#"line 2, column 8: name: use 1 to 128 of A-Z a-z 0-9 _ . -"#]]
        .assert_eq(&refusal("[[rules]]\nname = \"a b\"\nwhen = \"a > 1\""));
    expect![[r#"line 5, column 8: name: another rule is called `a`"#]]
        .assert_eq(&refusal("[[rules]]\nname = \"a\"\nwhen = \"a > 1\"\n[[rules]]\nname = \"a\"\nwhen = \"a > 1\""));
    assert!(
        refused_rule(r#"when = "a > 1"; sevrity = "info""#).starts_with("line 4, column 1: unknown field `sevrity`")
    );
    assert!(refusal("[[rules]]\nname = \"a\"\n").contains("missing field `when`"));
    assert!(refusal("rules = 5").starts_with("line 1, column 9"));
    assert!(refusal("= 5").starts_with("line 1, column 1"));
}

#[test]
fn no_rules_in_a_file_is_not_the_same_as_an_empty_list() {
    assert!(parse_file("", None).expect("valid").is_none());
    assert!(parse_file("[defaults]\nseverity = \"info\"", None).expect("valid").is_none());
    assert_eq!(parse_file("rules = []", None).expect("valid").expect("a list").len(), 0);
}

#[test]
fn a_rules_own_severity_wins_over_the_default() {
    let rules = rules(
        "[defaults]\nseverity = \"info\"\n[[rules]]\nname = \"a\"\nwhen = \"x > 1\"\n\
         [[rules]]\nname = \"b\"\nwhen = \"x > 1\"\nseverity = \"warning\"",
    );
    let severities: Vec<_> = rules.rules.iter().map(|rule| rule.severity.as_str()).collect();
    assert_eq!(severities, ["info", "warning"]);
}
