//! What an alert's row holds: evidence, summary, ids, and the rows of `record = "every"`.

use std::sync::Arc;

use expect_test::expect;

use super::super::play::{Player, check, rule, time};
use crate::model::{Alert, EventKind, RaiseId};

fn alerts(fields: &str, timeline: &str) -> Vec<Arc<Alert>> {
    Player::new(rule(fields)).play(timeline).alerts()
}

/// The evidence of the first alert, as `second=value`.
fn evidence(fields: &str, timeline: &str) -> String {
    let alerts = alerts(fields, timeline);
    let points = &alerts[0].evidence.as_ref().expect("evidence").points;
    let point = |p: &crate::model::EvidencePoint| format!("{}={}", p.at.since(time("0s")).as_secs(), p.value);
    points.iter().map(point).collect::<Vec<_>>().join(" ")
}

const EVERY: &str = r#"when = "cpu_percent > 90"; record = "every""#;

#[test]
fn record_every_gives_each_violating_report_after_the_first_a_row() {
    check(
        EVERY,
        "0s:95 1s:96 2s:97 3s:10 4s:98",
        &expect![[r#"
            0s rule raise critical cpu_percent 95
            1s rule record 96
            2s rule record 97
            3s rule resolve cleared 10
            4s rule raise critical cpu_percent 98"#]],
    );
    check(
        r#"when = "cpu_percent > 90"; record = "every"; for = "2s"; clear = "cpu_percent < 80""#,
        "0s:95 1s:96 2s:97 3s:98 4s:85 5s:memory_percent=1 6s:99 7s:10",
        &expect![[r#"
            2s rule raise critical cpu_percent 97
            3s rule record 98
            6s rule record 99
            7s rule resolve cleared 10"#]],
    );
    check(r#"when = "absent()"; record = "every""#, "0s:95 1s:96", &expect![""]);
}

#[test]
fn a_row_of_record_every_is_closed_and_belongs_to_its_episode() {
    let alerts = alerts(EVERY, "0s:95 1s:96 2s@80s:97");
    let [raise, first, second] = &alerts[..] else { panic!("three events") };
    assert_eq!((first.episode_id, second.episode_id), (raise.alert_id, raise.alert_id));
    assert!(raise.alert_id != first.alert_id && first.alert_id != second.alert_id);
    assert_eq!((first.triggered_at, first.resolved_at), (time("1s"), Some(time("1s"))));
    assert_eq!(first.resolve_reason.map(|why| why.as_str()), Some("recorded"));
    assert_eq!((first.version, first.value, first.last_value), (1, 96.0, 96.0));
    assert_eq!(first.life.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Record]);
    assert_eq!(first.evidence.as_ref().map(|evidence| evidence.points.len()), Some(1));
    assert_eq!((first.late, second.late), (false, true));
    assert_eq!(first.summary, "cpu_percent of web/a is 96 (cpu_percent > 90)");
}

#[test]
fn the_alert_itself_stays_as_it_was_raised_while_others_are_recorded() {
    let alerts = alerts(EVERY, "0s:95 1s:96 2s:10");
    let resolved = &alerts[2];
    assert_eq!((resolved.value, resolved.last_value, resolved.version), (95.0, 10.0, 2));
    assert_eq!(resolved.alert_id, alerts[0].alert_id);
}

#[test]
fn evidence_of_a_plain_threshold_is_the_one_reading() {
    assert_eq!(evidence(r#"when = "cpu_percent > 90""#, "0s:80 1s:95"), "1=95");
    assert_eq!(evidence(r#"when = "2 * a > 90""#, "3s:a=50"), "3=100");
    let alerts = alerts(r#"when = " cpu_percent>90 ""#, "0s:95");
    assert_eq!(alerts[0].evidence.as_ref().map(|e| &*e.when), Some(" cpu_percent>90 "), "as it was written");
}

#[test]
fn evidence_of_waiting_is_the_readings_since_it_began() {
    let fields = r#"when = "cpu_percent > 90"; for = "10s""#;
    assert_eq!(evidence(fields, "0s:95 5s:96 6s:memory_percent=1 10s:97"), "0=95 5=96 10=97");
    assert_eq!(evidence(fields, "0s:95 1s:10 2s:96 12s:97"), "2=96 12=97", "only since it was true the last time");
    assert_eq!(evidence(fields, "0s:95 301s:96 311s:97"), "301=96 311=97", "only since the gap");
    // A window is no exception: what it came to, since it began.
    let fields = r#"when = "max(a, 1m) > 90"; for = "10s""#;
    assert_eq!(evidence(fields, "0s:a=95 5s:a=10 10s:a=97"), "0=95 5=95 10=97");
}

fn seconds(n: u64) -> String {
    (0..=n).map(|second| format!("{second}s:{} ", 100 + second)).collect()
}

#[test]
fn evidence_of_long_waiting_is_thinned_to_sixty_and_keeps_both_ends() {
    for n in [58, 59, 60, 61, 100, 119, 500, 3_000] {
        let fields = format!("when = \"cpu_percent > 90\"; for = \"{n}s\"");
        let alerts = alerts(&fields, &seconds(n));
        let points = &alerts[0].evidence.as_ref().expect("evidence").points;
        assert!((30..=60).contains(&points.len()), "{n}: {}", points.len());
        assert!(n > 59 || points.len() as u64 == n + 1, "{n}: all of them as long as they fit");
        assert_eq!((points[0].at, points[0].value), (time("0s"), 100.0));
        assert_eq!(points.last().map(|p| (p.at, p.value)), Some((time(&format!("{n}s")), (100 + n) as f64)));
        let steps: Vec<_> = points.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_secs()).collect();
        let (rest, regular) = steps.split_last().expect("steps");
        assert!(regular.iter().all(|step| *step == regular[0]) && *rest <= regular[0], "{n}: evenly {steps:?}");
    }
}

#[test]
fn evidence_of_a_window_is_its_points() {
    assert_eq!(evidence(r#"when = "avg(a, 3s) > 5""#, "0s:a=1 1s:a=2 2s:b=1 3s:a=9"), "1=2 3=9");
    assert_eq!(evidence(r#"when = "avg(a, 3s) > 5""#, "7s:a=9"), "7=9");
    // It is raised by a report without the metric: the points are those that there were.
    assert_eq!(evidence(r#"when = "max(a, 5s) > b""#, "0s:a=5 1s:b=4"), "0=5");
    // A window that is not what the alert is about is not shown.
    assert_eq!(evidence(r#"when = "b > 1 and avg(a, 3s) > 5""#, "0s:a=6 1s:a=6,b=2"), "1=2");
    assert_eq!(evidence(r#"when = "a > 2 * avg(b, 3s)""#, "0s:b=1 1s:a=6"), "1=6");
    // Another window of the rule is none of the alert's.
    assert_eq!(evidence(r#"when = "avg(a, 3s) > 5 or avg(b, 3s) > 5""#, "0s:a=1,b=2 1s:a=1,b=9"), "0=2 1=9");
}

/// It used to be what the function came to, here 1, where a window had no reading before.
#[test]
fn evidence_of_a_windows_first_reading_is_the_reading() {
    assert_eq!(evidence(r#"when = "count(a, 3s) > 0""#, "0s:a=7"), "0=7");
    assert_eq!(evidence(r#"when = "stddev(a, 3s) == 0""#, "0s:b=1 1s:a=7"), "1=7");
}

#[test]
fn evidence_of_a_long_window_is_thinned_to_sixty_and_keeps_the_newest() {
    for n in [59, 60, 61, 200, 3_000] {
        let fields = format!("when = \"count(cpu_percent, 24h) > {n}\"");
        let alerts = alerts(&fields, &seconds(n));
        let points = &alerts[0].evidence.as_ref().expect("evidence").points;
        assert_eq!(points.len() as u64, (n + 1).min(60), "{n}");
        assert_eq!(points.last().map(|p| (p.at, p.value)), Some((time(&format!("{n}s")), (100 + n) as f64)));
        assert!(points.windows(2).all(|pair| pair[0].at < pair[1].at));
    }
    let fields = "when = \"count(cpu_percent, 24h) > 200\"";
    let alerts = alerts(fields, &seconds(200));
    let points = &alerts[0].evidence.as_ref().expect("evidence").points;
    let steps: Vec<_> = points.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_secs()).collect();
    assert!(steps.iter().all(|step| (3..=4).contains(step)), "evenly: {steps:?}");
}

#[test]
fn a_summary_is_filled_in_when_the_alert_is_raised() {
    let said = |fields: &str, timeline: &str| alerts(fields, timeline)[0].summary.clone();
    assert_eq!(
        said(r#"when = "cpu_percent > 90""#, "0s:97.123456"),
        "cpu_percent of web/a is 97.1235 (cpu_percent > 90)"
    );
    assert_eq!(
        said(
            r#"when = "a / b > 0.5"; summary = "{rule}: {metric}={value} over {threshold} on {service}/{instance}""#,
            "0s:a=2,b=3"
        ),
        "rule: a=0.6667 over 0.5 on web/a"
    );
    assert_eq!(said(r#"when = "a > b"; summary = "[{threshold}] {severity}""#, "0s:a=2,b=1"), "[] critical");
    for (value, shown) in [
        ("95", "95"),
        ("95.5", "95.5"),
        ("95.00001", "95"),
        ("1e9", "1000000000"),
        ("0.001", "0.001"),
        ("0.0009", "9e-4"),
        ("0", "0"),
        ("-0", "0"),
        ("-3.25", "-3.25"),
        ("100", "100"),
    ] {
        let fields = r#"when = "a > -9"; summary = "{value}""#;
        assert_eq!(said(fields, &format!("0s:a={value}")), shown);
    }
    let lines = "when = \"\"\"\n  cpu_percent > 90\n  and load_1m > 4\n\"\"\"";
    let summary = "cpu_percent of web/a is 95 (cpu_percent > 90 and load_1m > 4)";
    assert_eq!(said(lines, "0s:cpu_percent=95,load_1m=5"), summary, "a condition of several lines is one of them");
}

#[test]
fn an_alert_is_the_report_that_raised_it() {
    let alerts = alerts(r#"when = "cpu_percent > 90""#, "0s:95 1s:10 2s:95");
    let id = |at: &str, sequence| {
        let reading = time(at).as_nanos().unsigned_abs();
        RaiseId::Report { reading, epoch: 1, sequence }.alert_id(&alerts[0].key, "rule")
    };
    assert_eq!(alerts.iter().map(|alert| alert.alert_id).collect::<Vec<_>>(), [id("0s", 1), id("0s", 1), id("2s", 3)]);
    assert_eq!(alerts.iter().map(|alert| alert.version).collect::<Vec<_>>(), [1, 2, 1]);
}
