//! Windows: what lies in them, and what their functions come to.

use std::time::Duration;

use expect_test::expect;

use super::super::play::{Player, asked, check, rule, time};
use crate::{
    rules::{Point, Series, SeriesPart},
    units::parse_duration,
};

/// Every function with what it comes to over one reading of 7; `None`: one reading says nothing.
const OF_ONE: [(&str, Option<i32>); 9] = [
    ("avg", Some(7)),
    ("min", Some(7)),
    ("max", Some(7)),
    ("sum", Some(7)),
    ("count", Some(1)),
    ("stddev", Some(0)),
    ("rate", None),
    ("increase", None),
    ("delta", None),
];

#[test]
fn each_function_is_the_textbooks() {
    let points = "0s:a=2 1s:a=4 2s:a=4 3s:a=4 4s:a=5 5s:a=5 6s:a=7 7s:a=9";
    for (function, value) in [
        ("avg", 5.0),
        ("min", 2.0),
        ("max", 9.0),
        ("sum", 40.0),
        ("count", 8.0),
        ("stddev", 2.0),
        ("rate", 1.0),
        ("increase", 7.0),
        ("delta", 7.0),
    ] {
        let answers = asked(&format!("{function}(a, 1m) == {value}"), points);
        assert!(answers.ends_with('T'), "{function} of {points} is {value}: {answers}");
    }
}

#[test]
fn a_window_holds_its_end_but_not_its_beginning() {
    for (timeline, expected) in [
        ("0s:a=1 10s:a=1", "FF"),
        ("0s:a=1 10s-1ns:a=1", "FT"),
        ("0s:a=1 10s+1ns:a=1", "FF"),
        ("0s:a=1 5s:a=1 10s:a=1 14s:a=1", "FTTF"),
        ("0s:a=1 0s:a=1 0s:a=1", "FTF"),
        ("0s:a=1 5s:a=1 10s: 15s-1ns: 15s:", "FTFF?"),
    ] {
        assert_eq!(asked("count(a, 10s) == 2", timeline), expected, "{timeline}");
    }
}

/// The reading of 7 is in (t − 10 s, t] until a nanosecond before 10 s have gone by, whichever function asks.
#[test]
fn every_function_forgets_a_reading_at_the_same_instant() {
    for (function, of_one) in OF_ONE {
        if let Some(value) = of_one {
            let answers = asked(&format!("{function}(a, 10s) == {value}"), "0s:a=7 5s:b=1 10s-1ns: 10s:");
            assert_eq!(answers, "TTT?", "{function}");
        } else {
            let answers = asked(&format!("{function}(a, 10s) >= 0"), "0s:a=7 9s:a=7 10s-1ns: 10s: 19s:");
            assert_eq!(answers, "?TT??", "{function}");
        }
    }
}

#[test]
fn nothing_is_known_of_an_empty_window_and_no_change_of_one_reading() {
    for (function, of_one) in OF_ONE {
        let answers = asked(&format!("{function}(a, 5s) >= 0"), "0s: 1s:b=1 2s:a=7 7s:");
        assert_eq!(answers, if of_one.is_some() { "??T?" } else { "????" }, "{function}");
    }
}

#[test]
fn a_rate_takes_two_readings_at_different_times() {
    for (condition, timeline, expected) in [
        ("rate(a, 5s) > 0", "0s:a=1 0s:a=2 1s:a=3", "??T"),
        ("increase(a, 5s) == 1", "0s:a=1 0s:a=2", "?T"),
        ("delta(a, 5s) == 1", "0s:a=1 0s:a=2", "?T"),
        ("rate(a, 10s) == 2", "0s:a=0 4s:a=8", "?T"),
        ("rate(a, 10s) == 0.5", "0s:a=0 2s:a=1 9s: 10s:", "?TT?"),
        ("rate(a, 5s) == 2", "0s:a=0 500ms:a=1", "?T"),
        // Over the readings' own distance, not the window's.
        ("rate(a, 1h) == 3", "0s:a=3 1s:a=6 2s:a=9", "?TT"),
    ] {
        assert_eq!(asked(condition, timeline), expected, "{condition}: {timeline}");
    }
}

#[test]
fn a_counter_that_falls_was_reset_and_counts_from_zero() {
    for (condition, timeline, expected) in [
        ("increase(a, 1m) == 5", "0s:a=5 1s:a=8 2s:a=2", "?FT"),
        ("increase(a, 1m) == 3", "0s:a=5 1s:a=8 2s:a=0", "?TT"),
        // A reset to below zero counts for nothing; from there it goes up again.
        ("increase(a, 1m) == 4", "0s:a=5 1s:a=-3 2s:a=1", "?FT"),
        ("rate(a, 1m) == 2.5", "0s:a=5 1s:a=8 2s:a=2", "?FT"),
        ("delta(a, 1m) == -3", "0s:a=5 1s:a=8 2s:a=2", "?FT"),
        ("increase(a, 1m) == 0", "0s:a=5 1s:a=5", "?T"),
        // The step across the window's beginning is not in it.
        ("increase(a, 2s) == 1", "0s:a=0 1s:a=100 2s:a=101", "?FT"),
    ] {
        assert_eq!(asked(condition, timeline), expected, "{condition}: {timeline}");
    }
}

#[test]
fn a_window_is_asked_by_reports_without_its_metric_too() {
    check(
        r#"when = "avg(a, 10s) > 5""#,
        "0s:a=2 1s:b=1 2s:a=9 3s: 10s:b=1 12s:",
        &expect![[r#"
            2s rule raise critical a 5.5"#]],
    );
    check(
        r#"when = "avg(a, 10s) > 5""#,
        "0s:a=9 8s:a=3 9s:b=1 10s:b=1",
        &expect![[r#"
            0s rule raise critical a 9
            10s rule resolve cleared 3"#]],
    );
    check(r#"when = "avg(a, 10s) > 5""#, "0s:a=9 10s:b=1 60s:", &expect!["0s rule raise critical a 9"]);
}

#[test]
fn a_window_is_asked_when_it_is_only_partly_filled() {
    check(r#"when = "avg(cpu_percent, 5m) > 90""#, "0s:95", &expect!["0s rule raise critical cpu_percent 95"]);
    check(
        r#"when = "count(cpu_percent, 5m) >= 3 and avg(cpu_percent, 5m) > 90""#,
        "0s:95 1s:95 2s:92",
        &expect!["2s rule raise critical cpu_percent 3"],
    );
}

#[test]
fn windows_of_several_lengths_and_metrics_do_not_disturb_each_other() {
    check(
        r#"when = "avg(a, 2s) > 2 * avg(a, 10s)""#,
        "0s:a=1 2s:a=1 4s:a=1 6s:a=1 8s:a=9 10s:a=9",
        // At 8 s: 9 against 2 · 13/5; at 10 s, without the first: 9 against 2 · 21/5.
        &expect!["8s rule raise critical a 9"],
    );
    check(
        r#"when = "max(a, 5s) > 1 and min(b, 3s) < 1""#,
        "0s:a=2 1s:b=0 3s: 4s: 6s:a=1",
        // From 4 s on nothing is known of b, but at 6 s a alone says no.
        &expect![[r#"
            1s rule raise critical a 2
            6s rule resolve cleared 1"#]],
    );
    assert_eq!(asked("sum(a, 5s) + sum(b, 5s) == 3", "0s:a=1 1s:b=2 4s: 5s:"), "?TT?");
}

#[test]
fn an_overflow_is_unknown_until_it_has_left_the_window() {
    assert_eq!(asked("sum(a, 5s) > 0", "0s:a=1e308 1s:a=1e308 5s: 6s:a=1"), "T?TT");
    assert_eq!(asked("stddev(a, 5s) >= 0", "0s:a=1e300 1s:a=-1e300 5s:"), "T?T");
    assert_eq!(asked("delta(a, 5s) < 0", "0s:a=1e308 1s:a=-1e308"), "??");
    assert_eq!(asked("max(a, 5s) > 0", "0s:a=1e308 1s:a=-1e308"), "TT");
}

/// A timeline of `n` readings, a second apart.
fn seconds(n: u64, value: impl Fn(u64) -> f64) -> String {
    (0..n).map(|second| format!("{second}s:a={} ", value(second))).collect()
}

/// What the function comes to at the timeline's last report.
fn value(function: &str, span: &str, timeline: &str) -> f64 {
    // Each report whose answer is known gets a row, so that the last row is the last report's.
    let fields = format!("when = '{function}(a, {span}) > -1e9'; record = 'every'");
    let alerts = Player::new(rule(&fields)).play(timeline).alerts();
    alerts.last().expect("an alert").value
}

#[test]
fn more_readings_than_are_kept_one_by_one_are_still_counted_exactly() {
    // 3,000 whole numbers: 1,976 of them in buckets of 86,400/1,024 = 84.375 s, all in the window.
    let n = 3_000;
    let timeline = seconds(n, |second| ((second * 7) % 1_009) as f64);
    let values: Vec<f64> = (0..n).map(|second| ((second * 7) % 1_009) as f64).collect();
    let sum: f64 = values.iter().sum();
    let mean = sum / n as f64;
    let increase: f64 = values.windows(2).map(|w| if w[1] >= w[0] { w[1] - w[0] } else { w[1] }).sum();
    let stddev = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64).sqrt();
    assert_eq!(value("sum", "24h", &timeline), sum);
    assert_eq!(value("count", "24h", &timeline), n as f64);
    assert_eq!(value("min", "24h", &timeline), 0.0);
    assert_eq!(value("max", "24h", &timeline), 1_008.0);
    assert_eq!(value("avg", "24h", &timeline), mean);
    assert_eq!(value("delta", "24h", &timeline), values[n as usize - 1] - values[0]);
    assert_eq!(value("increase", "24h", &timeline), increase);
    let near = |a: f64, b: f64| ((a - b) / b).abs() < 1e-9;
    assert!(near(value("stddev", "24h", &timeline), stddev));
    assert!(near(value("rate", "24h", &timeline), increase / (n - 1) as f64));
}

#[test]
fn a_window_beyond_its_exact_points_forgets_by_the_bucket() {
    // One reading a second, whose value is its second. The window reaches back 2,048 s and its buckets hold two
    // seconds each: it forgets two readings at once, every second time.
    let count = |n: u64| value("count", "2048s", &seconds(n, |second| second as f64));
    assert_eq!((count(2_047), count(2_048)), (2_047.0, 2_048.0));
    for n in [2_049, 2_050, 3_001] {
        assert!((2_048.0..=2_049.0).contains(&count(n)), "{n}: {}", count(n));
    }
    let least = |n: u64| value("min", "2048s", &seconds(n, |second| second as f64));
    assert!((952.0..=953.0).contains(&least(3_001)), "{}", least(3_001));
}

#[test]
fn the_first_1024_readings_are_exact_to_the_nanosecond() {
    // 1,024 readings of which the first is just in the window, or just not.
    let rest: String = (1..1_023).map(|ms| format!("{ms}ms:a=0 ")).collect();
    assert_eq!(value("sum", "10s", &format!("0s:a=5 {rest} 10s-1ns:a=0")), 5.0);
    assert_eq!(value("sum", "10s", &format!("0s:a=5 {rest} 10s:a=0")), 0.0);
}

#[test]
fn windows_are_bounded_however_often_an_instance_reports() {
    let spans = ["500ms", "1m", "24h"].map(|span| parse_duration(span).expect("a duration"));
    let mut series = Series::new("a".into(), 0, &spans);
    for report in 0..200_000_u32 {
        series.push(Point { at: time("0s").plus(Duration::from_micros(10) * report), value: 1.0 });
    }
    assert_eq!((series.points.len(), series.coarse.len()), (1_024, 3));
    for coarse in &series.coarse {
        // The ones at either end lie in the window only in part.
        assert!(coarse.buckets.len() <= 1_024 + 2, "{:?}: {}", coarse.span, coarse.buckets.len());
    }
    assert_eq!(series.value(crate::rules::Function::Count, spans[1], time("2s"), None), Some(200_000.0));
}

#[test]
fn a_metric_is_kept_once_whatever_windows_it_has() {
    let player = Player::new(rule("when = 'avg(a, 1m) > avg(a, 24h) + max(a, 500ms) + b'")).play("0s:a=1,b=1 1s:a=1");
    let kept: Vec<_> = player.progress.series.iter().map(|series| (&*series.metric, series.points.len())).collect();
    assert_eq!(kept, [("a", 2)]);
}

#[test]
fn readings_are_unsaved_until_they_come_from_the_journal() {
    const FIELDS: &str = "when = 'avg(a, 1m) > 5'";
    let played = Player::new(rule(FIELDS)).play("0s:a=1 1s:b=1 2s:a=1 3s:a=1").progress;
    let part = played.series[0].clone();
    assert_eq!(part.n_unsaved, 3);
    let mut restored = Player::new(rule(FIELDS)).progress;
    restored.restore_series(SeriesPart {
        metric: part.metric,
        generation: part.generation,
        points: part.points.into(),
        coarse: part.coarse,
    });
    assert_eq!((restored.series[0].points.len(), restored.series[0].n_unsaved), (3, 0));
}

#[test]
fn a_rule_without_a_window_keeps_nothing() {
    let player = Player::new(rule("when = 'a > 1'")).play(&seconds(50, |_| 0.0));
    assert!(player.progress.series.is_empty());
}
