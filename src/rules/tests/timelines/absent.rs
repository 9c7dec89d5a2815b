//! Silence in its three forms, and being told again.

use expect_test::expect;

use super::super::play::{Player, rule};
use crate::model::EventKind;

const SILENT: &str = r#"when = "absent()"; severity = "warning""#;
const SILENT_40: &str = r#"when = "absent(40s)""#;
const LACKING: &str = r#"when = "absent(cpu_percent, 30s)""#;

#[test]
fn silence_is_an_alert_once_it_is_longer_than_usual() {
    // The player's instance usually reports every ten seconds.
    for (silent, expected) in
        [("29999ms", ""), ("30s", "60s rule raise warning absent 30"), ("1m", "60s rule raise warning absent 60")]
    {
        let told = Player::new(rule(SILENT)).play("0s:50").silent("60s", silent, None).told();
        assert_eq!(told, expected, "{silent}");
    }
}

#[test]
fn silence_is_an_alert_once_it_is_as_long_as_its_rule_says() {
    for (when, silent, expected) in [
        ("absent(40s)", "39999ms", ""),
        ("absent(40s)", "40s", "60s rule raise critical absent 40"),
        ("absent(500ms)", "499ms", ""),
        ("absent(500ms)", "500ms", "60s rule raise critical absent 0.5"),
        ("absent(25h)", "1h", ""),
    ] {
        let told = Player::new(rule(&format!("when = '{when}'"))).play("0s:50").silent("60s", silent, None).told();
        assert_eq!(told, expected, "{when} after {silent}");
    }
}

#[test]
fn silence_is_raised_once_and_ended_by_the_next_report_whatever_is_in_it() {
    let player = Player::new(rule(SILENT_40)).play("0s:50").silent("40s", "40s", None).silent("50s", "50s", None);
    let player = player.play("51s:memory_percent=1 52s:").silent("92s", "40s", None).play("93s:");
    expect![[r#"
        40s rule raise critical absent 40
        51s rule resolve cleared 40
        92s rule raise critical absent 40
        93s rule resolve cleared 40"#]]
    .assert_eq(&player.told());
}

#[test]
fn an_alert_of_silence_says_how_long_and_of_what() {
    let alerts = Player::new(rule(SILENT_40)).play("0s:50").silent("45s", "45s", None).alerts();
    let alert = &alerts[0];
    assert_eq!((&*alert.metric, alert.value, alert.threshold), ("absent", 45.0, Some(40.0)));
    assert_eq!(alert.summary, "web/a has been silent for 45 s");
    assert!(alert.evidence.is_none(), "there is no reading to show");
    let alerts = Player::new(rule(SILENT)).play("0s:50").silent("45s", "45s", None).alerts();
    assert_eq!(alerts[0].threshold, None, "how long is usual is the instance's, not the rule's");
    let alerts = Player::new(rule(LACKING)).play("0s:50").silent("45s", "1s", Some("45s")).alerts();
    assert_eq!((&*alerts[0].metric, alerts[0].value, alerts[0].threshold), ("absent", 45.0, Some(30.0)));
    assert_eq!(alerts[0].summary, "reports of web/a have lacked cpu_percent for 45 s");
}

#[test]
fn silence_keeps_firing_as_long_as_its_rule_says() {
    let fields = r#"when = "absent(40s)"; keep_firing_for = "5s""#;
    let player = Player::new(rule(fields)).play("0s:50").silent("40s", "40s", None).play("50s: 54s: 55s: 56s:");
    expect![[r#"
        40s rule raise critical absent 40
        55s rule resolve cleared 40"#]]
    .assert_eq(&player.told());
}

#[test]
fn an_instance_whose_silence_means_nothing_is_not_missed() {
    let player = Player::new(rule(SILENT_40)).play("0s:50").unheeded("1h");
    assert_eq!(player.told(), "");
}

#[test]
fn a_metric_is_missed_when_reports_go_on_without_it() {
    for (silent, lacking, expected) in [
        ("1s", Some("29999ms"), ""),
        ("1s", Some("30s"), "60s rule raise critical absent 30"),
        ("29999ms", Some("40s"), "60s rule raise critical absent 40"),
        // Now it is the instance itself that is silent.
        ("30s", Some("40s"), ""),
        ("10m", Some("10m"), ""),
        // It never had it.
        ("1s", None, ""),
    ] {
        let told = Player::new(rule(LACKING)).play("0s:50").silent("60s", silent, lacking).told();
        assert_eq!(told, expected, "silent for {silent}, without the metric for {lacking:?}");
    }
}

#[test]
fn a_metric_asked_for_more_often_than_it_is_missed_must_be_lacking_from_a_report() {
    let fields = r#"when = "absent(cpu_percent, 2s)""#;
    let told = |silent| Player::new(rule(fields)).play("0s:50").silent("60s", silent, Some("5s")).told();
    assert_eq!(told("1s"), "60s rule raise critical absent 5");
    assert_eq!(told("2s"), "", "nothing has come since that could have had it");
}

#[test]
fn only_a_report_with_the_metric_ends_its_absence() {
    let player = Player::new(rule(LACKING)).play("0s:50").silent("40s", "1s", Some("40s"));
    expect![[r#"
        40s rule raise critical absent 40
        43s rule resolve cleared 40"#]]
    .assert_eq(&player.play("41s:memory_percent=1 42s: 43s:50").told());
}

#[test]
fn an_alert_that_fires_stays_while_its_instance_is_silent() {
    let told = Player::new(rule(r#"when = "cpu_percent > 90""#)).play("0s:95").silent("1h", "1h", None).told();
    assert_eq!(told, "0s rule raise critical cpu_percent 95");
}

const REPEAT: &str = r#"when = "cpu_percent > 90"; repeat = "1h""#;

#[test]
fn it_is_told_again_from_the_last_time_it_was_told() {
    let mut player = Player::new(rule(REPEAT)).play("0s@5s:95");
    for at in ["1h", "3605s-1ns", "3605s", "3606s", "7204s", "7205s+1ns", "3h", "10806s"] {
        player = player.silent(at, "1h", None);
    }
    expect![[r#"
        0s@5s rule raise critical cpu_percent 95
        3605s rule repeat
        7205s+1ns rule repeat
        10806s rule repeat"#]]
    .assert_eq(&player.told());
    assert!(
        player.alerts().iter().all(|alert| alert.version == 1 && alert.life.len() == 1),
        "it is no part of the row"
    );
}

#[test]
fn it_is_told_again_while_it_fires_and_only_then() {
    let player =
        Player::new(rule(REPEAT)).play("0s:95").silent("1h", "1s", None).play("3601s:10").silent("3h", "1s", None);
    let player = player.play("10801s:95").silent("14400s", "1s", None).unheeded("14401s");
    expect![[r#"
        0s rule raise critical cpu_percent 95
        1h rule repeat
        3601s rule resolve cleared 10
        10801s rule raise critical cpu_percent 95
        14401s rule repeat"#]]
    .assert_eq(&player.told());
}

#[test]
fn silence_is_told_again_too() {
    let fields = r#"when = "absent(40s)"; repeat = "10m""#;
    let player = Player::new(rule(fields)).play("0s:50").silent("40s", "40s", None);
    let player = player.silent("639s", "639s", None).silent("640s", "640s", None);
    expect![[r#"
        40s rule raise critical absent 40
        640s rule repeat"#]]
    .assert_eq(&player.told());
}

#[test]
fn without_repeat_it_is_told_once() {
    let player = Player::new(rule(r#"when = "cpu_percent > 90""#)).play("0s:95").silent("7d", "1s", None);
    assert_eq!(player.told(), "0s rule raise critical cpu_percent 95");
}

#[test]
fn alerts_of_silence_are_raised_under_ids_of_their_own() {
    let player = Player::new(rule(SILENT_40)).play("0s:50").silent("40s", "40s", None).play("50s:");
    let alerts = player.silent("90s", "40s", None).alerts_of(EventKind::Raise);
    assert_eq!(alerts.len(), 2);
    assert_ne!(alerts[0].alert_id, alerts[1].alert_id);
}
