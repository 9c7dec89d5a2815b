//! Pending, firing, clearing: `for`, `keep_firing_for`, `clear`, gaps.

use expect_test::expect;

use super::super::play::{check, play, rules};

const FOR: &str = r#"when = "cpu_percent > 90"; for = "10s""#;

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
fn it_fires_once_it_has_held_for_so_long() {
    check(FOR, "0s:95 5s:96 10s:97 11s:98", &expect!["10s rule raise critical cpu_percent 97"]);
    check(FOR, "0s:95 10s-1ns:96", &expect![""]);
    check(FOR, "0s:95 10s-1ns:96 10s:97", &expect!["10s rule raise critical cpu_percent 97"]);
    check(FOR, "0s:95 10s+1ns:96", &expect!["10s+1ns rule raise critical cpu_percent 96"]);
    check(FOR, "0s:95", &expect![""]);
    check(FOR, "0s:95 60s:96", &expect!["60s rule raise critical cpu_percent 96"]);
    check(r#"when = "cpu_percent > 90"; for = "0s""#, "0s:95", &expect!["0s rule raise critical cpu_percent 95"]);
}

#[test]
fn false_ends_what_is_pending() {
    check(FOR, "0s:95 9s:90 10s:95 19s:95", &expect![""]);
    check(FOR, "0s:95 9s:90 10s:95 19s:95 20s:95", &expect!["20s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:95 5s:10 10s:95", &expect![""]);
}

#[test]
fn unknown_neither_ends_what_is_pending_nor_fires_it() {
    check(FOR, "0s:95 5s:memory_percent=1 10s:95", &expect!["10s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:95 10s:memory_percent=1 11s: 12s:95", &expect!["12s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:memory_percent=1 5s:95 10s:95 15s:95", &expect!["15s rule raise critical cpu_percent 95"]);
}

#[test]
fn a_gap_of_more_than_five_minutes_begins_anew() {
    check(FOR, "0s:95 300s:96", &expect!["300s rule raise critical cpu_percent 96"]);
    check(FOR, "0s:95 300s+1ns:96", &expect![""]);
    check(FOR, "0s:95 300s+1ns:96 310s:97", &expect![""]);
    check(FOR, "0s:95 300s+1ns:96 310s+1ns:97", &expect!["310s+1ns rule raise critical cpu_percent 97"]);
    // Any report bridges it: it is the instance's gap, not the metric's.
    check(FOR, "0s:95 200s:memory_percent=1 400s: 600s:96", &expect!["600s rule raise critical cpu_percent 96"]);
    // A report that says nothing of the condition ends it as well, when it comes after the gap.
    check(FOR, "0s:95 301s:memory_percent=1 302s:95 311s:95", &expect![""]);
    check(FOR, "0s:95 301s:memory_percent=1 302s:95 312s:95", &expect!["312s rule raise critical cpu_percent 95"]);
    // An hour of `for` in steps of five minutes is no gap.
    let hour: String = (0..=12).map(|n| format!("{}m:95 ", 5 * n)).collect();
    check(r#"when = "cpu_percent > 90"; for = "1h""#, &hour, &expect!["60m rule raise critical cpu_percent 95"]);
}

#[test]
fn a_gap_does_not_end_what_is_firing_or_clearing() {
    check(
        r#"when = "cpu_percent > 90"; keep_firing_for = "10m""#,
        "0s:95 1h:95 2h:10 2h:10 3h:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            3h rule resolve cleared 10"#]],
    );
    check(
        r#"when = "cpu_percent > 90"; keep_firing_for = "10m""#,
        "0s:95 1s:10 601s:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            601s rule resolve cleared 10"#]],
    );
}

const KEEP: &str = r#"when = "cpu_percent > 90"; keep_firing_for = "10s""#;

#[test]
fn it_resolves_once_it_has_been_clear_for_so_long() {
    check(
        KEEP,
        "0s:95 1s:10 6s:11 11s:12 12s:13",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            11s rule resolve cleared 12"#]],
    );
    check(KEEP, "0s:95 1s:10 11s-1ns:11", &expect!["0s rule raise critical cpu_percent 95"]);
    check(
        KEEP,
        "0s:95 1s:10 11s-1ns:11 11s:12",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            11s rule resolve cleared 12"#]],
    );
    check(KEEP, "0s:95 20s:10", &expect!["0s rule raise critical cpu_percent 95"]);
}

#[test]
fn a_breach_in_between_begins_the_clear_span_anew() {
    check(KEEP, "0s:95 1s:10 10s:91 11s:10 20s:10", &expect!["0s rule raise critical cpu_percent 95"]);
    check(
        KEEP,
        "0s:95 1s:10 10s:91 11s:10 20s:10 21s:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            21s rule resolve cleared 10"#]],
    );
}

#[test]
fn unknown_neither_breaks_a_clear_span_nor_ends_it() {
    check(
        KEEP,
        "0s:95 1s:10 6s:memory_percent=1 11s:memory_percent=1 12s:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            12s rule resolve cleared 10"#]],
    );
    check(KEEP, "0s:95 1s:memory_percent=1 6s:10 11s:10", &expect!["0s rule raise critical cpu_percent 95"]);
}

const HYSTERESIS: &str = r#"when = "cpu_percent > 90"; clear = "cpu_percent < 80""#;

#[test]
fn a_clear_condition_of_its_own_takes_the_place_of_not_when() {
    check(
        HYSTERESIS,
        "0s:95 1s:85 2s:80 3s:79.9 4s:85",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            3s rule resolve cleared 79.9"#]],
    );
    check(
        HYSTERESIS,
        "0s:85 1s:91 2s:85 3s:91 4s:memory_percent=1 5s:10 6s:85",
        &expect![[r#"
            1s rule raise critical cpu_percent 91
            5s rule resolve cleared 10"#]],
    );
}

#[test]
fn clear_is_not_looked_at_while_the_condition_is_true() {
    check(
        r#"when = "a > 90"; clear = "b == 1""#,
        "0s:a=95,b=1 1s:a=95,b=1 2s:a=10,b=0 3s:b=1",
        &expect![[r#"
            0s rule raise critical a 95
            3s rule resolve cleared 95"#]],
    );
    check(
        r#"when = "a > 90"; clear = "b == 1"; keep_firing_for = "2s""#,
        "0s:a=95,b=1 1s:b=1 2s:a=95,b=1 3s:b=1 4s:b=1",
        &expect!["0s rule raise critical a 95"],
    );
}

#[test]
fn false_breaks_a_clear_span_and_unknown_does_not() {
    let fields = r#"when = "a > 90"; clear = "a < 80"; keep_firing_for = "10s""#;
    check(
        fields,
        "0s:a=95 1s:a=70 5s:a=80 6s:a=70 15s:a=70 16s:a=70",
        &expect![[r#"
            0s rule raise critical a 95
            16s rule resolve cleared 70"#]],
    );
    check(
        fields,
        "0s:a=95 1s:a=70 5s:b=1 11s:a=70",
        &expect![[r#"
            0s rule raise critical a 95
            11s rule resolve cleared 70"#]],
    );
    check(fields, "0s:a=95 1s:a=70 5s:a=80 11s:a=70", &expect!["0s rule raise critical a 95"]);
}

#[test]
fn a_clear_condition_that_the_report_says_nothing_of_resolves_nothing() {
    check(
        r#"when = "cpu_percent > 90"; clear = "load_1m < 2""#,
        "0s:95 1s:10 2s:10 3s:cpu_percent=10,load_1m=1",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            3s rule resolve cleared 10"#]],
    );
}

#[test]
fn waiting_and_keeping_work_together() {
    check(
        r#"when = "cpu_percent > 90"; for = "5s"; keep_firing_for = "5s"; clear = "cpu_percent < 80""#,
        "0s:95 4s:95 5s:96 6s:70 10s:70 11s:71 12s:95 16s:95 17s:97",
        &expect![[r#"
            5s rule raise critical cpu_percent 96
            11s rule resolve cleared 71
            17s rule raise critical cpu_percent 97"#]],
    );
}

#[test]
fn a_flapping_metric_is_as_many_episodes_or_one_with_hysteresis() {
    let flapping = "0s:95 1s:85 2s:95 3s:85 4s:95 5s:70";
    check(
        r#"when = "cpu_percent > 90""#,
        flapping,
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            1s rule resolve cleared 85
            2s rule raise critical cpu_percent 95
            3s rule resolve cleared 85
            4s rule raise critical cpu_percent 95
            5s rule resolve cleared 70"#]],
    );
    check(
        HYSTERESIS,
        flapping,
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            5s rule resolve cleared 70"#]],
    );
    check(r#"when = "cpu_percent > 90"; for = "2s""#, flapping, &expect![""]);
}

#[test]
fn what_one_report_causes_comes_in_the_order_of_the_rules() {
    let two = "[[rules]]\nname = \"second\"\nwhen = \"b > 1\"\n[[rules]]\nname = \"first\"\nwhen = \"a > 1\"";
    expect![[r#"
        0s first raise critical a 2
        1s second raise critical b 2
        2s second resolve cleared 1
        2s first resolve cleared 1"#]]
    .assert_eq(&play(rules(two), "0s:a=2 1s:a=2,b=2 2s:a=1,b=1"));
}

#[test]
fn rules_of_one_metric_live_apart() {
    let two = "[[rules]]\nname = \"warn\"\nwhen = \"a > 80\"\nseverity = \"warning\"\n\
               [[rules]]\nname = \"page\"\nwhen = \"a > 90\"\nfor = \"2s\"";
    expect![[r#"
        0s warn raise warning a 85
        3s page raise critical a 97
        4s page resolve cleared 85
        5s warn resolve cleared 80"#]]
    .assert_eq(&play(rules(two), "0s:a=85 1s:a=95 2s:a=96 3s:a=97 4s:a=85 5s:a=80"));
}
