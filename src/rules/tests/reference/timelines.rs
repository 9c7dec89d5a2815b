//! The reference against timelines worked out by hand, one for each thing that the contract or its gaps lay down.
//!
//! A timeline is `time:metric=value,…` per report. An event is written as `time rule kind metric=value (threshold)`,
//! with `at` where its time is not the report's.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::{
    super::{
        language::{Case, Report, RuleSpec},
        read,
    },
    Kind, answers, evaluation_times, nanos, run,
};

const START: i64 = 1_800_000_000_000_000_000;

fn rule(when: &str) -> RuleSpec {
    RuleSpec {
        name: "r".to_owned(),
        when: read::condition(when),
        r#for: Duration::ZERO,
        keep_firing_for: Duration::ZERO,
        clear: None,
        record_every: false,
    }
}

/// A rule that keeps firing until it has been clear that long.
fn keeping(when: &str, keep_firing_for: &str) -> RuleSpec {
    RuleSpec { keep_firing_for: read::duration(keep_firing_for), ..rule(when) }
}

/// A rule that waits that long.
fn waiting(when: &str, r#for: &str) -> RuleSpec {
    RuleSpec { r#for: read::duration(r#for), ..rule(when) }
}

fn reports(timeline: &str) -> Vec<Report> {
    let report = |step: &str| {
        let (time, readings) = step.split_once(':').expect("time:readings");
        let (time, nudge) = time.strip_suffix("+1ns").map_or((time, 0), |time| (time, 1));
        let reading = |reading: &str| {
            let (name, value) = reading.split_once('=').expect("metric=value");
            (name.to_owned(), value.parse().expect("a number"))
        };
        Report {
            at: START + nanos(read::duration(time)) + nudge,
            metrics: readings.split(',').filter(|reading| !reading.is_empty()).map(reading).collect(),
        }
    };
    timeline.split_whitespace().map(report).collect()
}

fn check_all(rules: Vec<RuleSpec>, timeline: &str, expected: &Expect) {
    let case = Case { rules, reports: reports(timeline), style: 0 };
    let times: Vec<&str> = timeline.split_whitespace().filter_map(|step| step.split(':').next()).collect();
    let line = |event: super::Expected| {
        let kind = match event.kind {
            Kind::Raise => "raise",
            Kind::Resolve => "resolve",
            Kind::Record => "record",
        };
        let value = event.value.map_or("?".to_owned(), |value| value.to_string());
        let threshold = event.threshold.map_or(String::new(), |threshold| format!(" ({threshold})"));
        let elsewhen = event.at != case.reports[event.report].at;
        let at = if elsewhen { format!(" at {}s", (event.at - START) / 1_000_000_000) } else { String::new() };
        format!("{} {} {kind} {}={value}{threshold}{at}", times[event.report], event.rule, event.metric)
    };
    expected.assert_eq(&run(&case).into_iter().map(line).collect::<Vec<_>>().join("\n"));
}

fn check(rule: RuleSpec, timeline: &str, expected: &Expect) {
    check_all(vec![rule], timeline, expected);
}

/// What each report answers: `T`rue, `F`alse, or `?`.
fn asked(condition: &str, timeline: &str) -> String {
    let letter = |answer| match answer {
        Some(true) => 'T',
        Some(false) => 'F',
        None => '?',
    };
    answers(&read::condition(condition), &reports(timeline)).into_iter().map(letter).collect()
}

#[test]
fn each_comparator_has_its_boundary() {
    for (comparator, expected) in
        [(">", "FFT"), (">=", "FTT"), ("<", "TFF"), ("<=", "TTF"), ("==", "FTF"), ("!=", "TFT")]
    {
        assert_eq!(asked(&format!("a {comparator} 90"), "0s:a=89 1s:a=90 2s:a=91"), expected, "{comparator}");
    }
}

#[test]
fn what_cannot_be_worked_out_is_unknown() {
    assert_eq!(asked("a > 1", "0s: 1s:b=2"), "??");
    assert_eq!(asked("a / b > 1", "0s:a=4,b=2 1s:a=4,b=0 2s:a=0,b=0"), "T??");
    assert_eq!(asked("a * a > 1", "0s:a=1e300"), "?");
    assert_eq!(asked("0 * (a * a) == 0", "0s:a=1e300"), "?", "an overflow inside makes the whole unknown");
    assert_eq!(asked("-(a + b) < -2", "0s:a=2,b=1 1s:a=2"), "T?");
}

#[test]
fn and_or_and_not_are_kleenes() {
    // a is true, b false, c missing.
    let answer = |condition: &str| {
        let named = condition.replace('T', "a == 1").replace('F', "b == 1").replace('U', "c == 1");
        asked(&named, "0s:a=1,b=0")
    };
    for (condition, expected) in [
        ("T and T", "T"),
        ("T and F", "F"),
        ("F and T", "F"),
        ("T and U", "?"),
        ("U and T", "?"),
        ("F and U", "F"),
        ("U and F", "F"),
        ("U and U", "?"),
        ("F or F", "F"),
        ("T or F", "T"),
        ("T or U", "T"),
        ("U or T", "T"),
        ("F or U", "?"),
        ("U or F", "?"),
        ("U or U", "?"),
        ("not T", "F"),
        ("not F", "T"),
        ("not U", "?"),
    ] {
        assert_eq!(answer(condition), expected, "{condition}");
    }
}

#[test]
fn a_window_holds_its_end_but_not_its_beginning() {
    assert_eq!(asked("count(a, 10s) == 2", "0s:a=1 5s:a=1 10s:a=1 14s:a=1"), "FTTF");
    assert_eq!(asked("count(a, 10s) == 2", "0s:a=1 9s:a=1 10s+1ns:a=1"), "FTT");
    assert_eq!(asked("sum(a, 10s) == 3", "0s:a=1 0s:a=2"), "FT", "points of the same time all count");
}

#[test]
fn a_window_is_asked_by_reports_without_its_metric_too_until_it_is_empty() {
    assert_eq!(asked("avg(a, 10s) > 1", "0s:b=1 1s:a=2 2s:b=1 10s: 11s:"), "?TTT?");
    assert_eq!(asked("count(a, 10s) == 0", "0s: 1s:a=1 11s:"), "?F?", "an empty window has no count either");
}

#[test]
fn the_functions_of_a_window_are_the_textbooks() {
    let points = "0s:a=2 1s:a=4 2s:a=4 3s:a=4 4s:a=5 5s:a=5 6s:a=7 7s:a=9";
    for (function, expected) in
        [("count", 8), ("sum", 40), ("avg", 5), ("min", 2), ("max", 9), ("stddev", 2), ("delta", 7), ("rate", 1)]
    {
        let answers = asked(&format!("{function}(a, 1m) == {expected}"), points);
        assert_eq!(answers.chars().last(), Some('T'), "{function}");
    }
    assert_eq!(asked("stddev(a, 1m) == 0", "0s:a=5"), "T");
    assert_eq!(asked("sum(a, 1m) > 0", "0s:a=1e308 1s:a=1e308"), "T?");
    assert_eq!(asked("stddev(a, 1m) >= 0", "0s:a=1e300 1s:a=-1e300"), "T?");
}

#[test]
fn a_counter_that_falls_was_reset_and_counts_from_zero() {
    // 3 up, reset and 2 up, 2 up, reset to below zero, which counts for nothing, 4 up.
    let counter = "0s:a=5 1s:a=8 2s:a=2 3s:a=4 4s:a=-3 5s:a=1";
    assert_eq!(asked("increase(a, 1m) == 11", counter), "?FFFFT");
    assert_eq!(asked("increase(a, 1m) == 7", counter), "?FFTTF");
    assert_eq!(asked("rate(a, 1m) * 5 == 11", counter), "?FFFFT");
    assert_eq!(asked("delta(a, 1m) == -4", counter), "?FFFFT");
}

#[test]
fn a_change_needs_two_points_and_a_rate_some_time_between_them() {
    for function in ["rate", "increase", "delta"] {
        assert_eq!(asked(&format!("{function}(a, 5s) == 1"), "0s:a=1 1s:a=2 6s:a=3"), "?T?", "{function}");
    }
    assert_eq!(asked("rate(a, 5s) > 0", "0s:a=1 0s:a=2 1s:a=3"), "??T");
    assert_eq!(asked("increase(a, 5s) > 0", "0s:a=1 0s:a=2 1s:a=3"), "?TT");
}

#[test]
fn a_clock_that_steps_back_neither_freezes_time_nor_turns_it_back() {
    let times = |timeline: &str| -> Vec<i64> {
        evaluation_times(&reports(timeline)).iter().map(|time| (time - START) / 1_000_000_000).collect()
    };
    assert_eq!(times("10s: 20s: 20s: 30s:"), [10, 20, 20, 30]);
    // Back by 100 s: the reading counts as the latest time, and later ones go on from there.
    assert_eq!(times("200s: 100s: 101s: 110s:"), [200, 200, 201, 210]);
    // Once the bare reading has caught up it counts by itself again.
    assert_eq!(times("200s: 190s: 195s: 205s: 206s:"), [200, 200, 205, 205, 206]);
    // A second step back while the first still counts.
    assert_eq!(times("200s: 100s: 110s: 50s: 60s: 111s:"), [200, 200, 210, 210, 220, 271]);
    // One that arrives out of order.
    assert_eq!(times("10s: 12s: 11s: 13s:"), [10, 12, 12, 13]);
}

#[test]
fn a_condition_must_hold_as_long_as_for_says() {
    check(waiting("a > 90", "10s"), "0s:a=95 9s:a=96 10s:a=97 11s:a=98", &expect!["10s r raise a=97 (90)"]);
    check(waiting("a > 90", "10s"), "0s:a=95 5s:a=10 6s:a=95 15s:a=95 16s:a=99", &expect!["16s r raise a=99 (90)"]);
    check(rule("a > 90"), "0s:a=90 1s:a=91", &expect!["1s r raise a=91 (90)"]);
}

#[test]
fn what_is_unknown_neither_ends_a_pending_nor_fires_it() {
    check(waiting("a > 90", "10s"), "0s:a=95 5s:b=1 20s: 21s:a=95", &expect!["21s r raise a=95 (90)"]);
}

#[test]
fn a_gap_of_more_than_five_minutes_starts_a_pending_anew() {
    check(waiting("a > 90", "10s"), "0s:a=95 300s:a=96", &expect!["300s r raise a=96 (90)"]);
    check(waiting("a > 90", "10s"), "0s:a=95 300s+1ns:a=96 309s:a=97 311s:a=98", &expect!["311s r raise a=98 (90)"]);
    // Any report of the instance bridges it.
    check(waiting("a > 90", "10s"), "0s:a=95 200s:b=1 400s: 600s:a=96", &expect!["600s r raise a=96 (90)"]);
}

#[test]
fn an_alert_resolves_once_it_is_clear_and_may_then_fire_again() {
    check(
        rule("a > 90"),
        "0s:a=95 1s:a=99 2s:b=1 3s:a=90 4s:a=91",
        &expect![[r#"
            0s r raise a=95 (90)
            3s r resolve a=90 (90)
            4s r raise a=91 (90)"#]],
    );
}

#[test]
fn it_must_be_clear_on_every_report_of_the_span() {
    check(
        keeping("a > 90", "10s"),
        "0s:a=95 1s:a=10 9s:a=95 10s:a=10 19s:b=1 20s:a=11 30s:a=12",
        &expect![[r#"
            0s r raise a=95 (90)
            20s r resolve a=11 (90)"#]],
    );
}

#[test]
fn a_gap_does_not_break_the_clear_span() {
    check(
        keeping("a > 90", "10m"),
        "0s:a=95 1s:a=10 601s:a=10",
        &expect![[r#"
            0s r raise a=95 (90)
            601s r resolve a=10 (90)"#]],
    );
}

#[test]
fn a_clear_condition_of_its_own_takes_the_place_of_not_when() {
    let hysteresis = RuleSpec { clear: Some(read::condition("a < 80")), ..keeping("a > 90", "10s") };
    check(
        hysteresis.clone(),
        "0s:a=95 1s:a=85 20s:a=79 25s:a=80 26s:a=79 36s:a=78",
        &expect![[r#"
            0s r raise a=95 (90)
            36s r resolve a=78 (90)"#]],
    );
    // It counts for nothing while the condition holds, even if it is true.
    let both = RuleSpec { clear: Some(read::condition("b == 1")), ..rule("a > 90") };
    check(
        both,
        "0s:a=95,b=1 1s:a=95,b=1 2s:a=10,b=0 3s:b=1",
        &expect![[r#"
            0s r raise a=95 (90)
            3s r resolve a=? (90)"#]],
    );
}

#[test]
fn a_resolve_is_never_before_its_raise() {
    check(
        rule("a > 90"),
        "200s:a=95 100s:a=10",
        &expect![[r#"
            200s r raise a=95 (90)
            100s r resolve a=10 (90) at 200s"#]],
    );
}

#[test]
fn after_a_step_of_the_clock_an_event_still_has_the_bare_reading() {
    check(
        waiting("a > 90", "10s"),
        "200s:a=1 100s:a=95 110s:a=96 115s:a=1",
        &expect![[r#"
            110s r raise a=96 (90)
            115s r resolve a=1 (90)"#]],
    );
}

#[test]
fn record_every_gives_each_violating_report_after_the_first_an_event() {
    let every = RuleSpec { record_every: true, ..waiting("a > 90", "2s") };
    check(
        every,
        "0s:a=95 1s:a=96 2s:a=97 3s:a=98 4s:b=1 5s:a=99 6s:a=1",
        &expect![[r#"
            2s r raise a=97 (90)
            3s r record a=98 (90)
            5s r record a=99 (90)
            6s r resolve a=1 (90)"#]],
    );
}

#[test]
fn an_alert_is_about_the_first_comparison_that_held() {
    check(rule("a > 1 or b > 2"), "0s:a=0,b=3", &expect!["0s r raise b=3 (2)"]);
    check(rule("a > 1 and b > 2"), "0s:a=5,b=3", &expect!["0s r raise a=5 (1)"]);
    check(rule("not c > 1 and b > 2"), "0s:c=0,b=3", &expect!["0s r raise b=3 (2)"]);
    // Under `not` none is true by itself: the first that is known speaks.
    check(rule("not (a > 1 and b > 2)"), "0s:b=2", &expect!["0s r raise b=2 (2)"]);
}

#[test]
fn the_side_that_names_a_metric_gives_the_value_and_the_other_the_threshold() {
    check(rule("10 - 1 < 2 * a + b"), "0s:a=5,b=1", &expect!["0s r raise a=11 (9)"]);
    check(rule("b > a"), "0s:a=5,b=6", &expect!["0s r raise b=6"]);
    check(rule("max(`d/e`, 10s) > 90"), "0s:d/e=95 1s:d/e=1", &expect!["0s r raise d/e=95 (90)"]);
    check(rule("1 + a > b"), "0s:a=5,b=5", &expect!["0s r raise a=6"]);
}

#[test]
fn each_report_causes_its_events_in_the_order_of_the_rules() {
    let named = |name: &str, when: &str| RuleSpec { name: name.to_owned(), ..rule(when) };
    check_all(
        vec![named("second", "b > 1"), named("first", "a > 1")],
        "0s:a=2 1s:a=2,b=2 2s:a=1,b=1",
        &expect![[r#"
            0s first raise a=2 (1)
            1s second raise b=2 (1)
            2s second resolve b=1 (1)
            2s first resolve a=1 (1)"#]],
    );
}
