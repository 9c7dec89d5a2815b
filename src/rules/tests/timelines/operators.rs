//! Terms, comparisons, and what is unknown.

use expect_test::expect;

use super::super::play::{Player, asked, check, readings, rule, time};
use crate::rules::Facts;

#[test]
fn an_alert_has_the_value_of_its_term() {
    check(r#"when = "a + b > 9""#, "0s:a=5,b=4 1s:a=5,b=5", &expect!["1s rule raise critical a 10"]);
    check(r#"when = "a - b > 9""#, "0s:a=5,b=-4 1s:a=5,b=-5", &expect!["1s rule raise critical a 10"]);
    check(r#"when = "a * b > 9""#, "0s:a=3,b=3 1s:a=3,b=4", &expect!["1s rule raise critical a 12"]);
    check(r#"when = "a / b > 9""#, "0s:a=18,b=2 1s:a=19,b=2", &expect!["1s rule raise critical a 9.5"]);
    check(r#"when = "-a > 9""#, "0s:a=-9 1s:a=-10", &expect!["1s rule raise critical a 10"]);
    check(r#"when = "100 - a < 10""#, "0s:a=90 1s:a=95", &expect!["1s rule raise critical a 5"]);
    check(
        r#"when = "100 * error_count / request_count > 5""#,
        "0s:error_count=5,request_count=100 1s:error_count=6,request_count=100",
        &expect!["1s rule raise critical error_count 6"],
    );
}

#[test]
fn products_go_before_sums_and_both_from_left_to_right() {
    for (term, value) in [
        ("a + b * c", 7),
        ("(a + b) * c", 9),
        ("a * b + c", 5),
        ("b - a - c", -2),
        ("b - (a - c)", 4),
        ("12 / b / c + a - a", 2),
        ("12 / (b / c) + 0 * a", 18),
        ("12 / b * c + 0 * a", 18),
        ("-a * b", -2),
        ("-a - b", -3),
        ("-(a - b)", 1),
        ("b - -c", 5),
        ("--c", 3),
        ("c * -2", -6),
        ("2 - c / 3", 1),
    ] {
        assert_eq!(asked(&format!("{term} == {value}"), "0s:a=1,b=2,c=3"), "T", "{term} is {value}");
        assert_eq!(asked(&format!("{value} != {term}"), "0s:a=1,b=2,c=3"), "F", "{term} is {value}");
    }
}

#[test]
fn each_comparator_has_its_boundary() {
    for (comparator, expected) in
        [(">", "FFT"), (">=", "FTT"), ("<", "TFF"), ("<=", "TTF"), ("==", "FTF"), ("!=", "TFT")]
    {
        assert_eq!(asked(&format!("a {comparator} 90"), "0s:a=89.9999 1s:a=90 2s:a=90.0001"), expected, "{comparator}");
        assert_eq!(asked(&format!("a {comparator} b"), "0s:a=1,b=2 1s:a=2,b=2 2s:a=3,b=2"), expected, "{comparator}");
        assert_eq!(asked(&format!("a {comparator} -1"), "0s:a=-2 1s:a=-1 2s:a=0"), expected, "{comparator}");
    }
    assert_eq!(asked("a == 0", "0s:a=-0 1s:a=1e-300"), "TF");
}

#[test]
fn and_or_and_not_are_kleenes() {
    // a is 1 and b is 0; no report has c.
    let answer = |condition: &str| {
        let named = condition.replace('T', "a == 1").replace('F', "b == 1").replace('U', "c == 1");
        asked(&named, "0s:a=1,b=0")
    };
    for (left, right, and, or) in [
        ('T', 'T', "T", "T"),
        ('T', 'F', "F", "T"),
        ('T', 'U', "?", "T"),
        ('F', 'T', "F", "T"),
        ('F', 'F', "F", "F"),
        ('F', 'U', "F", "?"),
        ('U', 'T', "?", "T"),
        ('U', 'F', "F", "?"),
        ('U', 'U', "?", "?"),
    ] {
        assert_eq!(answer(&format!("{left} and {right}")), and, "{left} and {right}");
        assert_eq!(answer(&format!("{left} or {right}")), or, "{left} or {right}");
    }
    for (condition, expected) in [
        ("not T", "F"),
        ("not F", "T"),
        ("not U", "?"),
        ("not not U", "?"),
        ("T and U and F", "F"),
        ("U or F or T", "T"),
        ("T and T and U", "?"),
        ("F or U or F", "?"),
        ("T or T and F", "T"),
        ("(T or T) and F", "F"),
        ("not T or T", "T"),
        ("not (T or T)", "F"),
        ("not F and U", "?"),
        ("not (F and U)", "T"),
    ] {
        assert_eq!(answer(condition), expected, "{condition}");
    }
}

#[test]
fn what_cannot_be_worked_out_is_unknown() {
    for (condition, timeline, expected) in [
        ("a > 1", "0s: 1s:b=9 2s:a=2 3s:", "??T?"),
        ("a > b", "0s:a=1 1s:b=1 2s:a=2,b=1", "??T"),
        ("a / b > 1", "0s:a=4,b=2 1s:a=4,b=0 2s:a=0,b=0 3s:a=4,b=-0", "T???"),
        ("a / (b - b) != 1", "0s:a=4,b=2", "?"),
        ("0 / a == 0", "0s:a=5 1s:a=0", "T?"),
        ("a * a > 1", "0s:a=1e300 1s:a=1e100", "?T"),
        ("a + a > 1", "0s:a=1e308", "?"),
        ("0 - a - a < 1", "0s:a=1e308", "?"),
        ("a / b > 1", "0s:a=1e300,b=1e-300", "?"),
        ("0 * (a * a) == 0", "0s:a=1e300", "?"),
        ("1 / (a * a) == 0", "0s:a=1e300", "?"),
        ("a - c + b > 0", "0s:a=1,b=1", "?"),
    ] {
        assert_eq!(asked(condition, timeline), expected, "{condition}");
    }
}

/// Why the condition's first comparison is unknown to a report, after the timeline before it.
fn why(when: &str, before: &str, report: &str) -> String {
    let player = Player::new(rule(&format!("when = '{when}'"))).play(before);
    let rule = &player.rules.rules[0];
    let metrics = crate::model::Row::new(&readings(report));
    let facts = Facts {
        metrics: metrics.readings(),
        series: &player.progress.series,
        taken: false,
        generation: rule.generation,
        now: time("1m"),
    };
    let comparisons = rule.when.condition().expect("a condition on reports").comparisons();
    comparisons[0].ask(&facts).expect_err("unknown").to_string()
}

#[test]
fn what_is_unknown_says_why() {
    for (when, before, report, reason) in [
        ("a > 1", "0s:a=1", "b=1", "the report has no a"),
        ("1 < 2 * `a/b`", "", "b=1", "the report has no a/b"),
        ("a / b > 1", "", "a=1,b=0", "division by zero"),
        ("a * a > 1", "", "a=1e300", "the result is no finite number"),
        ("avg(a, 30s) > 1", "0s:a=1", "b=1", "avg(a, 30s): no reading lies in the window"),
        ("rate(a, 30s) > 1", "0s:a=1", "a=1", "rate(a, 30s): it takes two readings at different times"),
        ("sum(a, 30s) > 1", "59s:a=1e308", "a=1e308", "the result is no finite number"),
    ] {
        assert_eq!(why(when, before, report), reason, "{when}");
    }
}

#[test]
fn what_is_unknown_neither_raises_nor_resolves() {
    check(
        r#"when = "a / b > 1""#,
        "0s:a=4,b=0 1s:a=4,b=2 2s:a=4,b=0 3s:a=4 4s: 5s:a=1e308,b=1e-9 6s:a=2,b=2",
        &expect![[r#"
            1s rule raise critical a 2
            6s rule resolve cleared 1"#]],
    );
    check(
        r#"when = "cpu_percent > 90 and memory_percent > 80""#,
        "0s:95 1s:cpu_percent=95,memory_percent=85 2s:95 3s:memory_percent=85 4s:cpu_percent=10",
        &expect![[r#"
            1s rule raise critical cpu_percent 95
            4s rule resolve cleared 10"#]],
    );
    // The other side is false, and so is the whole: but the value of the alert's own metric is not known then.
    check(
        r#"when = "cpu_percent > 90 and memory_percent > 80""#,
        "0s:cpu_percent=95,memory_percent=85 1s:memory_percent=10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            1s rule resolve cleared 95"#]],
    );
    check(
        r#"when = "not cpu_percent > 90""#,
        "0s:memory_percent=1 1s:95 2s:90",
        &expect!["2s rule raise critical cpu_percent 90"],
    );
}

#[test]
fn an_alert_is_about_the_first_comparison_that_held() {
    for (when, timeline, expected) in [
        ("a > 1 or b > 2", "0s:a=5,b=3", "0s rule raise critical a 5"),
        ("a > 1 or b > 2", "0s:a=0,b=3", "0s rule raise critical b 3"),
        ("a > 1 or b > 2", "0s:b=3", "0s rule raise critical b 3"),
        ("a > 1 and b > 2", "0s:a=5,b=3", "0s rule raise critical a 5"),
        ("not c > 1 and b > 2", "0s:c=0,b=3", "0s rule raise critical b 3"),
        // None holds by itself under this `not`: the first that is known speaks.
        ("not (a > 1 and b > 2)", "0s:b=2", "0s rule raise critical b 2"),
        ("1 < a + b", "0s:a=5,b=3", "0s rule raise critical a 8"),
        ("2 * max(b, 5s) > a", "0s:a=1,b=3", "0s rule raise critical b 6"),
        ("a > b", "0s:a=2,b=1", "0s rule raise critical a 2"),
    ] {
        let told = Player::new(rule(&format!("when = '{when}'"))).play(timeline).told();
        assert_eq!(told, expected, "{when}");
    }
}

#[test]
fn a_threshold_is_what_the_metric_was_compared_with_if_that_is_a_number() {
    for (when, expected) in [
        ("a > 90", Some(90.0)),
        ("90 < a", Some(90.0)),
        ("a > 9 * 10 - 1", Some(89.0)),
        ("a > -1", Some(-1.0)),
        ("a > b", None),
        ("a > 2 * avg(b, 5s)", None),
        ("a > 1 / 0 or b < 9", Some(9.0)),
    ] {
        let alerts = Player::new(rule(&format!("when = '{when}'"))).play("0s:a=95,b=1").alerts();
        assert_eq!(alerts[0].threshold, expected, "{when}");
    }
}

#[test]
fn names_in_backquotes_are_any_name_an_agent_can_send() {
    for (when, timeline, expected) in [
        ("`disk/sda-used` > 90", "0s:disk/sda-used=91", "0s rule raise critical disk/sda-used 91"),
        ("`and` > 1", "0s:and=2", "0s rule raise critical and 2"),
        ("`avg` > 1", "0s:avg=2", "0s rule raise critical avg 2"),
        ("`absent` > 1", "0s:absent=2", "0s rule raise critical absent 2"),
        ("max(`count`, 5s) > 1", "0s:count=2", "0s rule raise critical count 2"),
        ("`1m` > `a-b` - `a`", "0s:1m=2,a-b=3,a=2", "0s rule raise critical 1m 2"),
        ("`cpu_percent` > 90", "0s:91", "0s rule raise critical cpu_percent 91"),
        ("averge > 1", "0s:averge=2", "0s rule raise critical averge 2"),
    ] {
        assert_eq!(Player::new(rule(&format!("when = '{when}'"))).play(timeline).told(), expected, "{when}");
    }
}
