//! Why a rule fires or does not: the reason, and what is said about it.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::play::{Player, readings, rule, time};
use crate::rules::{Explanation, Situation, explain};

const CPU: &str = r#"when = "cpu_percent > 90""#;
const HYSTERESIS: &str = r#"when = "cpu_percent > 90"; clear = "cpu_percent < 80"; keep_firing_for = "10s""#;
const SILENT: &str = r#"when = "absent()"; keep_firing_for = "5s""#;
const SILENT_40: &str = r#"when = "absent(40s)""#;
const LACKING: &str = r#"when = "absent(a, 15s)""#;

/// An instance that was heard a second ago, may be silent for 30 s, and has reported often enough to be missed.
fn heard() -> Situation<'static> {
    Situation {
        last_report: None,
        left: false,
        stale: false,
        armed: true,
        silent: Duration::from_secs(1),
        patience: Duration::from_secs(30),
        lacking: &|_| None,
    }
}

fn stale() -> Situation<'static> {
    Situation { stale: true, silent: Duration::from_secs(60), ..heard() }
}

fn left() -> Situation<'static> {
    Situation { left: true, ..heard() }
}

/// What is said of the instance's only rule after this last report; `""`: none is known.
fn explained(player: &Player, last_report: &str, situation: Situation<'_>) -> Explanation {
    let report = last_report.split_once(':').map(|(at, values)| (time(at), readings(values)));
    let last_report = report.as_ref().map(|(at, metrics)| (*at, metrics.as_slice()));
    explain(&player.progress, 0, &Situation { last_report, ..situation })
}

fn told(player: &Player, last_report: &str, situation: Situation<'_>) -> String {
    let answer = explained(player, last_report, situation);
    format!("{} {}: {}", answer.state, answer.reason.code(), answer.sentence)
}

/// What is said of a rule of these fields after a timeline.
fn check_in(situation: Situation<'_>, fields: &str, timeline: &str, expected: &Expect) {
    let player = Player::new(rule(fields)).play(timeline);
    expected.assert_eq(&told(&player, timeline.split_whitespace().last().unwrap_or_default(), situation));
}

fn check(fields: &str, timeline: &str, expected: &Expect) {
    check_in(heard(), fields, timeline, expected);
}

/// What led to it, a step a line.
fn steps(fields: &str, timeline: &str) -> String {
    let player = Player::new(rule(fields)).play(timeline);
    let answer = explained(&player, timeline.split_whitespace().last().unwrap_or_default(), heard());
    answer.steps.iter().map(|(step, found)| format!("{step}: {found}")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_rule_that_does_not_fire_says_what_its_condition_is() {
    check(CPU, "", &expect!["ok no_report: no report of this instance has been judged yet"]);
    check(CPU, "0s:90", &expect!["ok condition_false: `cpu_percent > 90` is false by the last report"]);
    check(
        CPU,
        "0s:memory_percent=95",
        &expect!["ok metric_missing: whether it is true is unknown: the report has no cpu_percent"],
    );
    check(
        r#"when = "cpu_percent > 90"; for = "10s""#,
        "0s:95 5s:95",
        &expect![
            "pending pending: true since 2027-01-15T08:00:00.000000Z: it fires with the first true report read at 2027-01-15T08:00:10.000000Z or later"
        ],
    );
    check_in(
        stale(),
        CPU,
        "0s:5",
        &expect!["ok silent: the instance has been silent for 60.0 s: there is nothing to judge"],
    );
    check_in(left(), CPU, "0s:5", &expect!["ok left: the instance left in order"]);
}

#[test]
fn an_alert_says_what_keeps_it_firing() {
    check(
        CPU,
        "0s:95",
        &expect![
            "firing firing: `cpu_percent > 90` is true by the last report; the alert fires since 2027-01-15T08:00:00.000000Z"
        ],
    );
    check(HYSTERESIS, "0s:95 1s:85", &expect!["firing not_clear: it resolves once `cpu_percent < 80` is true for 10s"]);
    let at_once = r#"when = "cpu_percent > 90"; clear = "cpu_percent < 80""#;
    check(at_once, "0s:95 1s:85", &expect!["firing not_clear: it resolves once `cpu_percent < 80` is true"]);
    check(
        HYSTERESIS,
        "0s:95 1s:memory_percent=5",
        &expect!["firing clear_unknown: whether `cpu_percent < 80` is true is unknown by the last report"],
    );
    check(
        HYSTERESIS,
        "0s:95 1s:5 2s:6",
        &expect![
            "firing clearing: clear since 2027-01-15T08:00:01.000000Z: it resolves with the first clear report read at 2027-01-15T08:00:11.000000Z or later"
        ],
    );
    check(
        HYSTERESIS,
        "0s:95 1s:5 2s:memory_percent=5",
        &expect![
            "firing clearing: clear since 2027-01-15T08:00:01.000000Z: it resolves with the first clear report read at 2027-01-15T08:00:11.000000Z or later"
        ],
    );
    let player = Player::new(rule(CPU)).play("0s:95");
    expect!["firing clear_unknown: fires since 2027-01-15T08:00:00.000000Z, and no report since says anything"]
        .assert_eq(&told(&player, "", heard()));
}

#[test]
fn an_alert_of_an_instance_that_is_silent_or_gone_says_so_whatever_came_last() {
    for timeline in ["0s:95", "0s:95 1s:85"] {
        check_in(
            stale(),
            HYSTERESIS,
            timeline,
            &expect![
                "firing firing_silent: the instance has been silent for 60.0 s: the alert goes on firing until a report clears it, or until the instance is forgotten"
            ],
        );
        check_in(
            left(),
            HYSTERESIS,
            timeline,
            &expect![
                "firing firing_silent: the instance left in order: the alert goes on firing until a report clears it, or until it is 10 min that it left"
            ],
        );
    }
}

#[test]
fn a_rule_that_is_newer_than_the_last_report_waits_for_the_next_one() {
    let player = Player::new(rule(CPU)).play("0s:95").reload("1s", rule(r#"when = "cpu_percent > 97""#));
    expect![
        "firing awaiting_report: clear by the last report, which came before the rule did: the next one is judged by it"
    ]
    .assert_eq(&told(&player, "0s:95", heard()));
    let player = Player::new(rule(CPU)).play("0s:80").reload("1s", rule(r#"when = "cpu_percent > 70""#));
    expect![
        "ok awaiting_report: true by the last report, which came before the rule did: the next one is judged by it"
    ]
    .assert_eq(&told(&player, "0s:80", heard()));
}

#[test]
fn the_unknown_that_is_told_is_the_one_that_decides() {
    let both = r#"when = "(x / y > 1 or b > 1) and c > 1""#;
    check(both, "0s:x=1,y=0,b=5", &expect!["ok metric_missing: whether it is true is unknown: the report has no c"]);
    check(both, "0s:x=1,y=0,b=0,c=5", &expect!["ok division_by_zero: whether it is true is unknown: division by zero"]);
    check(
        r#"when = "not (x / y > 1)""#,
        "0s:x=1,y=0",
        &expect!["ok division_by_zero: whether it is true is unknown: division by zero"],
    );
    check(
        r#"when = "x * x > 1""#,
        "0s:x=1e300",
        &expect!["ok not_finite: whether it is true is unknown: the result is no finite number"],
    );
}

#[test]
fn a_window_without_an_answer_says_what_it_lacks() {
    check(
        r#"when = "avg(a, 10s) > 5""#,
        "0s:a=1 10s:b=1",
        &expect!["ok window_empty: whether it is true is unknown: avg(a, 10s): no reading lies in the window"],
    );
    check(
        r#"when = "rate(a, 10s) > 5""#,
        "0s:a=1",
        &expect![
            "ok too_few_points: whether it is true is unknown: rate(a, 10s): it takes two readings at different times"
        ],
    );
    // Two readings at one time have no rate, which is no overflow.
    check(
        r#"when = "rate(a, 10s) > 5""#,
        "0s:a=1 0s:a=2",
        &expect![
            "ok too_few_points: whether it is true is unknown: rate(a, 10s): it takes two readings at different times"
        ],
    );
}

#[test]
fn each_step_says_what_was_looked_at_and_what_was_found() {
    let fields = r#"when = "cpu_percent > 90 and b < 2 and 1 / c > 1"; clear = "d > 1""#;
    expect![[r#"
        match: the rule looks at this instance
        presence: the instance was heard 1.0 s ago
        last_report: read at 2027-01-15T08:00:01.000000Z: cpu_percent 95, b 2, c 0
        comparison: `cpu_percent > 90`: 95 and 90: true
        comparison: `b < 2`: 2 and 2: false
        comparison: `1 / c > 1`: unknown and 1: division by zero
        condition: `cpu_percent > 90 and b < 2 and 1 / c > 1` is false
        alert: fires since 2027-01-15T08:00:00.000000Z: cpu_percent of web/a is 95 (cpu_percent > 90 and b < 2 and 1 / c > 1)
        clear: `d > 1` is unknown"#]].assert_eq(&steps(fields, "0s:cpu_percent=95,b=1,c=0.5 1s:cpu_percent=95,b=2,c=0"));
    expect![[r#"
        match: the rule looks at this instance
        presence: the instance was heard 1.0 s ago
        last_report: read at 2027-01-15T08:00:00.000000Z: cpu_percent 95
        comparison: `cpu_percent > 90`: 95 and 90: true
        condition: `cpu_percent > 90` is true
        for: true since 2027-01-15T08:00:00.000000Z, `for` is 10s"#]]
    .assert_eq(&steps(r#"when = "cpu_percent > 90"; for = "10s""#, "0s:95"));
    expect![[r#"
        match: the rule looks at this instance
        presence: the instance was heard 1.0 s ago
        last_report: read at 2027-01-15T08:00:05.000000Z: cpu_percent 5
        comparison: `cpu_percent > 90`: 5 and 90: false
        condition: `cpu_percent > 90` is false
        alert: fires since 2027-01-15T08:00:00.000000Z: cpu_percent of web/a is 95 (cpu_percent > 90)
        clear: `not (cpu_percent > 90)` is true
        keep_firing_for: clear since 2027-01-15T08:00:05.000000Z, it is 10s"#]]
    .assert_eq(&steps(r#"when = "cpu_percent > 90"; keep_firing_for = "10s""#, "0s:95 5s:5"));
}

#[test]
fn a_rule_on_silence_says_what_it_waits_for() {
    check(SILENT, "0s:", &expect!["ok heard: heard 1.0 s ago: it fires after 30.0 s of silence"]);
    check(SILENT_40, "0s:", &expect!["ok heard: heard 1.0 s ago: it fires after 40.0 s of silence"]);
    check_in(
        Situation { armed: false, ..heard() },
        SILENT,
        "0s:",
        &expect![
            "ok not_armed: the instance has not sent three reports over at least 10 s yet: it is not missed before"
        ],
    );
    check_in(left(), SILENT, "0s:", &expect!["ok left: the instance left in order: its silence is expected"]);
}

#[test]
fn an_alert_of_silence_says_for_how_long() {
    let player = Player::new(rule(SILENT)).play("0s:").silent("60s", "60s", None);
    expect!["firing firing: absent for 60.0 s"].assert_eq(&told(&player, "0s:", stale()));
    let player = player.play("61s:");
    expect!["firing clearing: clear since 2027-01-15T08:01:01.000000Z: it resolves with the first clear report read at 2027-01-15T08:01:06.000000Z or later"].assert_eq(&told(&player, "61s:", heard()));
}

#[test]
fn a_rule_on_a_missing_metric_says_when_it_was_there() {
    fn lately(_: &str) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }
    let lacking = Situation { lacking: &lately, ..heard() };
    let silent = |millis| Situation { silent: Duration::from_millis(millis), ..lacking };
    check(
        LACKING,
        "0s:",
        &expect!["ok metric_never_sent: a was never in a report: what was never there is not missed"],
    );
    check_in(
        lacking,
        LACKING,
        "0s:",
        &expect!["ok metric_heard: a was last in a report 2.0 s ago: it fires after 15.0 s"],
    );
    check_in(
        Situation { armed: false, ..lacking },
        LACKING,
        "0s:",
        &expect![
            "ok not_armed: the instance has not sent three reports over at least 10 s yet: nothing is missed before"
        ],
    );
    check_in(Situation { left: true, ..lacking }, LACKING, "0s:", &expect!["ok left: the instance left in order"]);
    // It is the instance that is missed, once it is silent for as long as its metric may be away.
    check_in(
        silent(14_999),
        LACKING,
        "0s:",
        &expect!["ok metric_heard: a was last in a report 2.0 s ago: it fires after 15.0 s"],
    );
    check_in(silent(15_000), LACKING, "0s:", &expect!["ok silent: the instance itself has been silent for 15.0 s"]);
    let impatient = Situation { patience: Duration::from_secs(10), ..silent(10_000) };
    check_in(impatient, LACKING, "0s:", &expect!["ok silent: the instance itself has been silent for 10.0 s"]);
    let player = Player::new(rule(LACKING)).play("0s:").silent("15s", "1s", Some("15s"));
    expect!["firing firing: absent for 2.0 s"].assert_eq(&told(&player, "0s:", lacking));
}
