//! Clocks that step, readings out of order, reports that come late.

use expect_test::expect;

use super::super::play::{Player, asked, check, rule, time};
use crate::model::{Alert, RaiseId, Timestamp};

const WHEN: &str = r#"when = "cpu_percent > 90""#;
const FOR: &str = r#"when = "cpu_percent > 90"; for = "10s""#;
const KEEP: &str = r#"when = "cpu_percent > 90"; keep_firing_for = "10s""#;
const AVERAGE: &str = r#"when = "avg(cpu_percent, 10s) > 90""#;

#[test]
fn what_is_pending_goes_on_over_a_clock_set_back() {
    check(FOR, "2h:95 1h:95 3605s:95 3610s:96", &expect!["3610s rule raise critical cpu_percent 96"]);
    check(FOR, "2h:95 7205s:95 1h:95 3604s:95 3605s:97", &expect!["3605s rule raise critical cpu_percent 97"]);
    check(FOR, "2h:95 1h:95 3605s:10 3610s:96", &expect![""]);
}

#[test]
fn a_clock_set_ahead_is_a_gap_for_what_is_pending() {
    check(FOR, "0s:95 9s:95 1h:95 3609s:95", &expect![""]);
    check(FOR, "0s:95 9s:95 1h:95 3610s:95", &expect!["3610s rule raise critical cpu_percent 95"]);
    // Up to five minutes are no gap, and so the time between counts.
    check(FOR, "0s:95 300s:95", &expect!["300s rule raise critical cpu_percent 95"]);
}

#[test]
fn what_fires_goes_on_over_a_clock_that_steps() {
    for timeline in ["0s:95 1h:95 1s:95 2s:95", "2h:95 1h:95 3601s:95 3h:95"] {
        let told = Player::new(rule(WHEN)).play(timeline).told();
        assert_eq!(told.lines().count(), 1, "one raise and no resolve: {told}");
    }
    check(
        KEEP,
        "2h:95 1h:10 3605s:10 3610s:11",
        &expect![[r#"
            2h rule raise critical cpu_percent 95
            3610s rule resolve cleared 11"#]],
    );
    check(
        KEEP,
        "2h:95 7201s:10 1h:10 3609s:10 3610s:11",
        &expect![[r#"
            2h rule raise critical cpu_percent 95
            3610s rule resolve cleared 11"#]],
    );
}

#[test]
fn windows_go_on_over_a_clock_set_back() {
    // Readings of 95, then a step back: they count as the latest time, and leave the window ten seconds later.
    check(
        AVERAGE,
        "2h:95 1h:95 3605s:80 3609s:95 3610s:10",
        // At 3605 s: (95 + 95 + 80) / 3 = 90. At 3609 s: 365 / 4 = 91.25. At 3610 s the first two are gone.
        &expect![[r#"
            2h rule raise critical cpu_percent 95
            3605s rule resolve cleared 90
            3609s rule raise critical cpu_percent 91.25
            3610s rule resolve cleared 61.666666666666664"#]],
    );
    assert_eq!(asked("count(a, 10s) == 2", "2h:a=1 1h:a=1 3609s: 3610s:"), "FTT?");
    assert_eq!(asked("rate(a, 1m) == 1", "2h:a=0 1h:a=0 3601s:a=1"), "??T");
}

#[test]
fn windows_are_empty_after_a_clock_set_ahead() {
    assert_eq!(asked("count(a, 10s) == 2", "0s:a=1 1s:a=1 1h:a=1 3601s:a=1"), "FTFT");
    // The way back does not bring what was in them again.
    assert_eq!(asked("count(a, 10s) == 2", "0s:a=1 1s:a=1 1h:a=1 2s:a=1 3s:a=1"), "FTFTF");
}

#[test]
fn a_reading_out_of_order_counts_as_the_latest() {
    check(FOR, "0s:95 6s:95 5s:95 11s:95", &expect!["11s rule raise critical cpu_percent 95"]);
    check(FOR, "0s:95 6s:95 5s:95 10s-1ns:96", &expect![""]);
    check(FOR, "0s:95 6s:95 5s:95 6s:95 10s:96", &expect!["10s rule raise critical cpu_percent 96"]);
    assert_eq!(asked("delta(a, 1m) == 2", "0s:a=1 6s:a=5 3s:a=3"), "?FT", "the last to come is the last");
}

#[test]
fn the_offset_ends_once_the_reading_reaches_the_latest_time() {
    // Back by 10 s at 20 s; from 25 s on the bare reading is as late as the latest, and is itself again.
    check(FOR, "20s:1 10s:95 15s:95 25s:95 29s:95", &expect![""]);
    check(FOR, "20s:1 10s:95 15s:95 25s:95 30s:96", &expect!["30s rule raise critical cpu_percent 96"]);
}

#[test]
fn the_same_time_again_is_no_step() {
    check(
        FOR,
        "0s:95 0s:95 10s:95 10s:10 10s:95",
        &expect![[r#"
        10s rule raise critical cpu_percent 95
        10s rule resolve cleared 10"#]],
    );
}

#[test]
fn a_clock_set_back_and_forth_neither_fires_early_nor_never() {
    check(
        FOR,
        "100s:95 50s:95 55s:95 20s:95 24s:95 25s:96",
        // Evaluation times: 100, 100, 105, 105, 109, 110.
        &expect!["25s rule raise critical cpu_percent 96"],
    );
}

/// The alerts of a rule over a timeline, as they were behind each event.
fn alerts(fields: &str, timeline: &str) -> Vec<std::sync::Arc<Alert>> {
    Player::new(rule(fields)).play(timeline).alerts()
}

#[test]
fn rows_and_ids_have_the_bare_reading_under_an_offset() {
    let alerts = alerts(FOR, "2h:1 1h:95 3610s:96");
    let key = &alerts[0].key;
    let reading = time("3610s").as_nanos().unsigned_abs();
    let id = RaiseId::Report { reading, epoch: 1, sequence: 3 }.alert_id(key, "rule");
    assert_eq!((alerts[0].triggered_at, alerts[0].alert_id, alerts[0].episode_id), (time("3610s"), id, id));
    let read: Vec<Timestamp> = alerts[0].evidence.iter().flat_map(|e| &e.points).map(|point| point.at).collect();
    assert_eq!(read, [time("1h"), time("3610s")]);
}

#[test]
fn an_alert_is_not_resolved_before_it_was_raised() {
    let stepped = alerts(WHEN, "2h:95 1h:10");
    assert_eq!((stepped[1].triggered_at, stepped[1].resolved_at), (time("2h"), Some(time("2h"))));
    let later = alerts(WHEN, "2h:95 1h:95 7201s:10");
    assert_eq!(later[1].resolved_at, Some(time("7201s")));
    let behind = alerts(KEEP, "2h:95 1h:10 3610s:10");
    assert_eq!(behind[1].resolved_at, Some(time("2h")), "the last of the span, but not before the raise");
}

#[test]
fn a_backlog_is_played_at_the_times_of_its_readings() {
    check(
        FOR,
        "0s@70s:95 10s@70s:96 20s@70s:10 30s:95 40s:97",
        &expect![[r#"
            10s@70s rule raise critical cpu_percent 96
            20s@70s rule resolve cleared 10
            40s rule raise critical cpu_percent 97"#]],
    );
}

#[test]
fn late_is_more_than_a_minute_after_the_bare_reading() {
    let late = |timeline: &str| alerts(WHEN, timeline)[0].late;
    assert!(!late("10s@70s:95"));
    assert!(late("10s@70s+1ns:95"));
    assert!(late("10s@90s:95"));
    assert!(!late("10s@5s:95"), "a clock ahead is no delay");
    // Under an offset the evaluation time is another; the delay is the bare reading's.
    assert!(!late("1h:1 10s@20s:95"));
    assert!(late("1h:1 10s@1h:95"));
    let times = &alerts(WHEN, "10s@90s:95")[0];
    assert_eq!((times.triggered_at, times.received_at), (time("10s"), time("90s")));
}

/// It used to carry evaluation time: after a step back it lay in the future of its own alert.
#[test]
fn evidence_of_a_window_is_timed_by_the_agents_clock() {
    let mut player = Player::new(rule(r#"when = "sum(cpu_percent, 1m) > 100""#));
    for (seconds, value) in [("1h", 30.0), ("10s", 40.0), ("20s", 50.0)] {
        let raised = player.report(time(seconds), time(seconds), &[("cpu_percent".into(), value)]);
        if let Some(event) = raised.first() {
            let evidence = event.alert.evidence.as_ref().expect("evidence");
            let times: Vec<_> = evidence.points.iter().map(|point| point.at).collect();
            assert_eq!(times, [time("10s"), time("10s"), time("20s")]);
            return;
        }
    }
    panic!("it is raised");
}
