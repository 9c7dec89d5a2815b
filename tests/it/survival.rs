//! What an instance is going through survives the server: the same reports give the same events, with a kill between
//! them or without.

use std::{
    thread,
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::MetricReport;

use crate::support::{
    reports::{Says, now_nanos, report},
    server::{Server, Setup},
    wait::{SOON, eventually, found},
};

const SECOND: u64 = 1_000_000_000;

/// Reports of `web` at these seconds, numbered from `first`, each in a stream of its own: receipted, so durable.
fn send(server: &Server, start: u64, first: u64, readings: &[(u64, f64)]) {
    let client = server.client();
    for (n, (seconds, value)) in readings.iter().enumerate() {
        let report: MetricReport = report("web", "a", *value).at(start + seconds * SECOND).numbered(first + n as u64);
        assert_eq!(client.send_epoch(7, [report]).unwrap().accepted, 1);
    }
}

fn micros(start: u64, seconds: u64) -> i64 {
    i64::try_from((start + seconds * SECOND) / 1_000).unwrap()
}

#[test]
fn a_pending_timer_goes_on_where_it_was() {
    let rules = "[[rules]]\nname = \"held\"\nwhen = \"a > 1\"\nfor = \"20s\"\nkeep_firing_for = \"20s\"";
    let mut server = Setup::new().rules(rules).start();
    let start = now_nanos() - 100 * SECOND;
    send(&server, start, 1, &[(0, 5.0), (5, 6.0), (10, 7.0)]);
    server.kill9();
    let mut server = server.start_again("");
    send(&server, start, 4, &[(19, 8.0)]);
    assert_eq!(server.history(""), [], "one second short of it");
    send(&server, start, 5, &[(20, 9.0)]);
    let row = server.history_of(1, "").remove(0);
    assert_eq!((row.triggered_at, row.value), (micros(start, 20), 9.0));
    let alert = server.get(&format!("/alerts/{}", row.alert_id)).json();
    let values: Vec<_> =
        alert["evidence"]["points"].as_array().unwrap().iter().map(|p| p[1].as_f64().unwrap()).collect();
    assert_eq!(values, [5.0, 6.0, 7.0, 8.0, 9.0], "the readings since it was pending, those before the kill too");

    // And so does the time for which it must be clear.
    send(&server, start, 6, &[(30, 0.0), (40, 0.0)]);
    server.kill9();
    let server = server.start_again("");
    send(&server, start, 8, &[(49, 0.0)]);
    assert_eq!(server.history("state=firing").len(), 1);
    send(&server, start, 9, &[(50, 0.0)]);
    eventually(SOON, "it resolves", || server.history("")[0].resolved_at == Some(micros(start, 50)));
    assert_eq!(server.history("").len(), 1);
}

#[test]
fn a_window_keeps_its_points() {
    let rules = "[[rules]]\nname = \"mean\"\nwhen = \"avg(a, 1m) > 5 and count(a, 1m) == 4\"\n\
                 [[rules]]\nname = \"counter\"\nwhen = \"increase(a, 1m) == 12\"";
    let mut server = Setup::new().rules(rules).start();
    let start = now_nanos() - 100 * SECOND;
    send(&server, start, 1, &[(0, 8.0), (10, 9.0)]);
    server.kill9();
    let mut server = server.start_again("");
    send(&server, start, 3, &[(20, 7.0)]);
    server.kill9();
    let server = server.start_again("");
    // 8, 9, a reset to 7, and 11: a mean of 8.75, and a counter that gained 1, 7 and 4.
    send(&server, start, 4, &[(30, 11.0)]);
    let rows = server.history_of(2, "");
    let value = |rule: &str| rows.iter().find(|row| row.rule == rule).unwrap().value;
    assert_eq!((value("mean"), value("counter")), (8.75, 12.0));
    assert!(rows.iter().all(|row| row.triggered_at == micros(start, 30)));
}

#[test]
fn the_instances_clock_goes_on_after_one_was_set_back() {
    let rules = "[[rules]]\nname = \"held\"\nwhen = \"a > 1\"\nfor = \"20s\"";
    let mut server = Setup::new().rules(rules).start();
    let start = now_nanos() - 100 * SECOND;
    // Set back by 15 s at its second report: 10 s have gone on since the start, and no more.
    send(&server, start, 1, &[(20, 5.0), (30, 5.0), (15, 5.0)]);
    server.kill9();
    let server = server.start_again("");
    send(&server, start, 4, &[(24, 5.0)]);
    assert_eq!(server.history(""), []);
    send(&server, start, 5, &[(25, 5.0)]);
    let row = server.history_of(1, "").remove(0);
    assert_eq!(row.triggered_at, micros(start, 25), "by the reading's own time");
}

/// A plain client never ends its stream, and so has no receipt: what it waited for used to begin anew.
#[test]
fn a_sender_without_receipts_is_remembered_with_what_it_waits_for() {
    let rules = "[[rules]]\nname = \"held\"\nwhen = \"a > 1\"\nfor = \"20s\"\n\
                 [[rules]]\nname = \"gone\"\nwhen = \"absent(3s)\"";
    let mut server = Setup::new().rules(rules).start();
    let start = now_nanos() - 100 * SECOND;
    let stream = server.client().open(&[]);
    assert!(stream.push(report("web", "a", 5.0).at(start)));
    // Armed by three reports over ten seconds, and saved by the tick after that.
    let began = Instant::now();
    found(SOON, "thirteen seconds of reports", || {
        assert!(stream.push(report("still", "b", 5.0)));
        thread::sleep(Duration::from_millis(500));
        (began.elapsed() > Duration::from_secs(13)).then_some(())
    });
    server.kill9();
    stream.abort();
    let server = server.start_again("");
    let missed = found(SOON, "its silence is an alert", || server.history("service=still").pop());
    assert_eq!(missed.rule, "gone");
    server.client().send([report("web", "a", 5.0).at(start + 20 * SECOND)]).unwrap();
    let row = server.history_of(1, "service=web").remove(0);
    assert_eq!((row.rule.as_str(), row.triggered_at), ("held", micros(start, 20)));
}
