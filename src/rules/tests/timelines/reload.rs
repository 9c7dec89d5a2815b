//! Other rules come into force: what goes on, what begins anew, what ends.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::super::play::{Player, rule, rules, time};
use crate::{
    model::{EventKind, Severity},
    rules::RuleSet,
};

/// Plays the first timeline under the first rule and the second under the second.
fn check(before: &str, first: &str, at: &str, after: &str, second: &str, expected: &Expect) {
    let player = Player::new(rule(before)).play(first).reload(at, rule(after)).play(second);
    expected.assert_eq(&player.told());
}

const FOR: &str = r#"when = "cpu_percent > 90"; for = "10s""#;
const KEEP: &str = r#"when = "cpu_percent > 90"; keep_firing_for = "10s""#;
const AVERAGE: &str = r#"when = "avg(cpu_percent, 10s) > 90""#;

#[test]
fn a_rule_that_has_not_changed_goes_on_to_the_instant() {
    check(FOR, "0s:10", "1s", FOR, "2s:95 12s:95", &expect!["12s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:95", "5s", FOR, "10s:95", &expect!["10s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:95", "5s", FOR, "10s-1ns:95", &expect![""]);
    check(
        KEEP,
        "0s:95 1s:10",
        "5s",
        KEEP,
        "11s:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            11s rule resolve cleared 10"#]],
    );
    check(KEEP, "0s:95 1s:10", "5s", KEEP, "11s-1ns:10", &expect!["0s rule raise critical cpu_percent 95"]);
    check(
        AVERAGE,
        "0s:80 1s:95",
        "2s",
        AVERAGE,
        "3s:96 4s:96",
        // (80 + 95 + 96) / 3 = 90.3
        &expect!["3s rule raise critical cpu_percent 90.33333333333333"],
    );
}

#[test]
fn another_way_of_writing_the_same_is_no_change() {
    for (before, after) in [
        ("cpu_percent > 90", " ( cpu_percent>90.0 ) "),
        ("cpu_percent > 90", "`cpu_percent` > 9e1"),
        ("cpu_percent > 90 and a > 1 and b > 1", "(cpu_percent > 90 and a > 1) and b > 1"),
        ("cpu_percent > 90 or a > 1 or b > 1", "cpu_percent > 90 or (a > 1 or b > 1)"),
        ("cpu_percent > 90 or a > 1 and b > 1", "cpu_percent > 90 or (a > 1 and b > 1)"),
        ("cpu_percent + a + b > 90", "(cpu_percent + a) + b > 90"),
        ("cpu_percent > 30 * 3 + 0", "cpu_percent > (30 * 3) + 0"),
        ("avg(cpu_percent, 60s) > 90", "avg( cpu_percent , 1m )>90"),
        ("not cpu_percent <= 90", "not (cpu_percent <= 90)"),
        ("max(cpu_percent, 1d) > 90", "max(cpu_percent, 24h) > 90"),
    ] {
        let fields = |when: &str, wait| format!("when = '{when}'; clear = '{when}'; for = '{wait}'");
        let generations = |after: &str, wait| {
            let reloaded = Player::new(rule(&fields(before, "60s"))).reload("5s", rule(&fields(after, wait)));
            let first = Player::new(rule(&fields(before, "60s")));
            (first.rules.rules[0].generation, reloaded.rules.rules[0].generation)
        };
        let (was, is) = generations(after, "1m");
        assert_eq!(was, is, "{before} is {after}");
        let (was, is) = generations(after, "61s");
        assert_ne!(was, is);
    }
}

#[test]
fn what_was_written_otherwise_says_nothing_new_of_an_alert() {
    check(
        r#"when = "cpu_percent > 90""#,
        "0s:95",
        "1s",
        r#"when = " cpu_percent>90 ""#,
        "2s:95",
        &expect!["0s rule raise critical cpu_percent 95"],
    );
}

#[test]
fn a_changed_question_begins_anew() {
    for (what, after) in [
        ("when", r#"when = "cpu_percent > 89"; for = "10s""#),
        ("for", r#"when = "cpu_percent > 90"; for = "9s""#),
        ("clear", r#"when = "cpu_percent > 90"; for = "10s"; clear = "cpu_percent < 80""#),
    ] {
        let told = |second| Player::new(rule(FOR)).play("0s:95").reload("5s", rule(after)).play(second).told();
        assert_eq!(told("10s:95 18s:95"), "", "{what}");
        assert_eq!(told("10s:95 20s:95"), "20s rule raise critical cpu_percent 95", "{what}");
    }
}

#[test]
fn the_windows_of_a_changed_rule_begin_anew() {
    check(
        AVERAGE,
        "0s:20 1s:20",
        "2s",
        r#"when = "avg(cpu_percent, 10s) > 91""#,
        "3s:95",
        &expect!["3s rule raise critical cpu_percent 95"],
    );
    // The window as well, where only its length is another.
    check(
        AVERAGE,
        "0s:20 1s:20",
        "2s",
        r#"when = "avg(cpu_percent, 11s) > 90""#,
        "3s:95",
        &expect!["3s rule raise critical cpu_percent 95"],
    );
}

#[test]
fn a_firing_alert_stays_until_the_changed_rule_clears_it() {
    check(
        r#"when = "cpu_percent > 90"; summary = "hot""#,
        "0s:95",
        "1s",
        r#"when = "cpu_percent > 98"; summary = "hot""#,
        "2s:memory_percent=1 3s:99 4s:97",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            4s rule resolve cleared 97"#]],
    );
    check(
        r#"when = "cpu_percent > 90"; summary = "hot""#,
        "0s:95",
        "1s",
        r#"when = "load_1m > 4"; clear = "load_1m < 2"; summary = "hot""#,
        "2s:10 3s:load_1m=3 4s:load_1m=5 5s:load_1m=1",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            5s rule resolve cleared 95"#]],
    );
    // A rule on silence is cleared by any report.
    check(
        r#"when = "cpu_percent > 90"; summary = "hot""#,
        "0s:95",
        "1s",
        r#"when = "absent()"; summary = "hot""#,
        "2s:99",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            2s rule resolve cleared 95"#]],
    );
}

#[test]
fn a_clear_span_of_a_changed_rule_begins_anew() {
    check(
        r#"when = "cpu_percent > 90"; keep_firing_for = "10s"; summary = "hot""#,
        "0s:95 1s:10",
        "5s",
        r#"when = "cpu_percent > 91"; keep_firing_for = "10s"; summary = "hot""#,
        "6s:10 11s:10 15s:10 16s:10",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            16s rule resolve cleared 10"#]],
    );
}

#[test]
fn another_time_to_keep_firing_counts_from_where_it_was_clear() {
    let longer = r#"when = "cpu_percent > 90"; keep_firing_for = "20s""#;
    let shorter = r#"when = "cpu_percent > 90"; keep_firing_for = "2s""#;
    for (after, second, resolved) in
        [(longer, "11s:10 21s-1ns:10 21s:10 30s:10", "21s"), (shorter, "6s:10 7s:10", "6s")]
    {
        let told = Player::new(rule(KEEP)).play("0s:95 1s:10").reload("5s", rule(after)).play(second).told();
        let expected = format!("0s rule raise critical cpu_percent 95\n{resolved} rule resolve cleared 10");
        assert_eq!(told, expected, "{after}");
    }
    // What is pending is none of its business.
    let both = r#"when = "cpu_percent > 90"; for = "10s"; keep_firing_for = "20s""#;
    check(FOR, "0s:95", "5s", both, "10s:95", &expect!["10s rule raise critical cpu_percent 95"]);
}

#[test]
fn a_removed_rule_resolves_its_alert() {
    let none = || rules("rules = []");
    for state in ["0s:10", "0s:95"] {
        let told = Player::new(rule(FOR)).play(state).reload("5s", none()).play("6s:95 10s:95").told();
        assert_eq!(told, "", "nothing fires");
    }
    for state in ["0s:95", "0s:95 1s:10"] {
        let player = Player::new(rule(KEEP)).play(state).reload("5s", none()).play("6s:10 16s:10");
        expect![[r#"
            0s rule raise critical cpu_percent 95
            5s rule resolve rule_removed 95"#]]
        .assert_eq(&player.told());
    }
}

#[test]
fn a_rule_that_comes_back_begins_anew() {
    let player = Player::new(rule(FOR)).play("0s:95").reload("1s", rules("rules = []")).reload("2s", rule(FOR));
    let player = player.play("10s:95 19s:95 20s:96");
    assert_eq!(player.told(), "20s rule raise critical cpu_percent 96");
    let player = Player::new(rule(AVERAGE)).play("0s:20").reload("1s", rules("rules = []")).reload("2s", rule(AVERAGE));
    assert_eq!(player.play("3s:95").told(), "3s rule raise critical cpu_percent 95");
}

#[test]
fn a_rule_that_no_longer_looks_at_the_instance_resolves_its_alert() {
    for narrower in ["services = ['db']", "exclude = ['w*']", "instances = ['b']"] {
        let after = rule(&format!("{KEEP}; {narrower}"));
        let player = Player::new(rule(KEEP)).play("0s:95").reload("5s", after).play("6s:95");
        expect![[r#"
            0s rule raise critical cpu_percent 95
            5s rule resolve rule_removed 95"#]]
        .assert_eq(&player.told());
    }
    // One that now looks at it begins with the next report.
    let nowhere = rule(&format!("{FOR}; services = ['db']"));
    let player = Player::new(nowhere).play("0s:95 5s:95").reload("6s", rule(FOR)).play("10s:95 20s:95");
    assert_eq!(player.told(), "20s rule raise critical cpu_percent 95");
}

#[test]
fn an_alert_resolved_by_a_reload_is_resolved_then_but_not_before_it_was_raised() {
    let ahead = Player::new(rule(KEEP)).play("10m@0s:95").reload("5s", rules("rules = []"));
    assert_eq!(ahead.alerts()[1].resolved_at, Some(time("10m")));
    let behind = Player::new(rule(KEEP)).play("0s:95").reload("5s", rules("rules = []"));
    assert_eq!(behind.alerts()[1].resolved_at, Some(time("5s")));
}

#[test]
fn another_severity_label_or_summary_is_an_update_and_only_once() {
    let before = r#"when = "cpu_percent > 90"; summary = "hot: {value}""#;
    for (change, expected) in [
        (r#"severity = "info"; summary = "hot: {value}""#, "5s rule update info hot: 95"),
        (r#"labels = { team = "web" }; summary = "hot: {value}""#, "5s rule update critical hot: 95"),
        (r#"summary = "{severity} on {service}: {value}""#, "5s rule update critical critical on web: 95"),
    ] {
        let after = || rule(&format!("when = \"cpu_percent > 90\"; {change}"));
        let player = Player::new(rule(before)).play("0s:95 1s:97").reload("5s", after()).reload("6s", after());
        let told = player.told();
        assert_eq!(told.lines().collect::<Vec<_>>(), ["0s rule raise critical cpu_percent 95", expected]);
        let alerts = player.alerts();
        assert_eq!((alerts[0].version, alerts[1].version), (1, 2));
        assert_eq!(alerts[0].alert_id, alerts[1].alert_id);
        assert_eq!((alerts[1].value, alerts[1].triggered_at), (95.0, alerts[0].triggered_at));
        assert_eq!(alerts[1].life.last().map(|event| event.kind), Some(EventKind::Update));
        let resolved = player.play("7s:10").alerts();
        assert_eq!(resolved[2].version, 3, "{change}");
        assert_eq!((&resolved[2].labels, &resolved[2].summary), (&resolved[1].labels, &resolved[1].summary));
    }
}

#[test]
fn what_an_update_says_is_what_the_next_report_finds() {
    let after = r#"when = "cpu_percent > 90"; severity = "info"; keep_firing_for = "10s""#;
    let player = Player::new(rule(KEEP)).play("0s:95 1s:10").reload("5s", rule(after)).play("11s:10");
    let alerts = player.alerts();
    assert_eq!(alerts.len(), 3, "{}", player.told());
    assert_eq!((alerts[2].severity, alerts[2].version), (Severity::Info, 3));
}

#[test]
fn what_changes_nothing_of_the_alert_is_no_update() {
    for change in ["runbook_url = 'https://example.org'", "repeat = '1h'", "record = 'every'", "services = ['w*']"] {
        let after = rule(&format!("{KEEP}; {change}"));
        let player = Player::new(rule(KEEP)).play("0s:95").reload("5s", after);
        assert_eq!(player.told(), "0s rule raise critical cpu_percent 95", "{change}");
        assert_eq!(player.progress.firing.len(), 1);
    }
}

const TWO: [&str; 2] =
    ["name = 'rule'\nwhen = 'cpu_percent > 90'\nfor = '10s'", "name = 'other'\nwhen = 'load_1m > 4'"];

fn in_order(texts: &[&str]) -> RuleSet {
    rules(&texts.iter().map(|text| format!("[[rules]]\n{text}\n")).collect::<String>())
}

#[test]
fn a_rule_at_another_place_of_its_file_is_the_same_rule() {
    let first = || Player::new(in_order(&TWO)).play("0s:cpu_percent=95,load_1m=5");
    let told = first().reload("5s", in_order(&[TWO[1], TWO[0]])).play("10s:95 11s:load_1m=1").told();
    expect![[r#"
        0s other raise critical load_1m 5
        10s rule raise critical cpu_percent 95
        11s other resolve cleared 1"#]]
    .assert_eq(&told);
    let told = first().reload("5s", in_order(&["name = 'new'\nwhen = 'a > 1'", TWO[1], TWO[0]]));
    expect![[r#"
        0s other raise critical load_1m 5
        10s new raise critical a 2
        10s rule raise critical cpu_percent 95"#]]
    .assert_eq(&told.play("10s:cpu_percent=95,a=2").told());
    // And one that took its place is another.
    let told = first().reload("5s", in_order(&["name = 'third'\nwhen = 'cpu_percent > 90'\nfor = '10s'"]));
    expect![[r#"
        0s other raise critical load_1m 5
        5s other resolve rule_removed 5
        20s third raise critical cpu_percent 95"#]]
    .assert_eq(&told.play("10s:95 20s:95").told());
}

#[test]
fn rules_that_share_a_window_do_not_lose_it_by_each_others_changes() {
    let file = |most: u32| {
        rules(&format!(
            "[[rules]]\nname = 'average'\nwhen = 'avg(a, 10s) > 5'\n\
             [[rules]]\nname = 'least'\nwhen = 'min(a, 20s) > {most}'"
        ))
    };
    let player = Player::new(file(1)).play("0s:a=1 1s:a=1").reload("2s", file(2)).play("3s:a=9");
    expect![[r#"
        3s least raise critical a 9"#]]
    .assert_eq(&player.told());
    // (1 + 1 + 9) / 3 is under 5, (1 + 9 + 9) / 3 is over it.
    let player = player.play("10s:a=9");
    assert_eq!(player.told().lines().last(), Some("10s average raise critical a 6.333333333333333"));
    assert_eq!(player.progress.series.len(), 2, "one of either generation");
    let spans: Vec<Vec<Duration>> =
        player.progress.series.iter().map(|s| s.coarse.iter().map(|coarse| coarse.span).collect()).collect();
    assert_eq!(spans, [[Duration::from_secs(10)], [Duration::from_secs(20)]], "each as long as it is needed");
}

#[test]
fn an_instances_clock_goes_on_whatever_the_rules_are() {
    let player = Player::new(rule(FOR)).play("2h:10").reload("2h", rules("rules = []")).play("1h:95");
    let told = player.reload("2h", rule(FOR)).play("3600s:95 3609s:95 3610s:96").told();
    assert_eq!(told, "3610s rule raise critical cpu_percent 96");
}
