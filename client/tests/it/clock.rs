//! The host's clock is set while reports are made and wait: they go on, with the times of their clock, and nothing is lost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gopherwatch_client::Client;
use gopherwatch_client::buffer::{Accounts, Buffer, Options};
use gopherwatch_client::clock::{self, Clock};
use gopherwatch_client::codec::encode;
use gopherwatch_client::double::{Double, Seen};
use gopherwatch_client::outbox::Outbox;
use gopherwatch_client::send;
use gopherwatch_proto::v1::MetricReport;
use slog::{Discard, Logger, o};
use tempfile::TempDir;

const HOUR_MS: i64 = 3_600_000;
/// A report may wait for 24 h.
const TOO_LONG_MS: i64 = 25 * HOUR_MS;

/// How far a time is ahead of this host's clock, in hours.
fn hours_ahead(time_unix_nano: u64) -> i64 {
    let ahead_ms = (time_unix_nano / 1_000_000).cast_signed() - (clock::unix_nanos() / 1_000_000).cast_signed();
    (ahead_ms + HOUR_MS / 2).div_euclid(HOUR_MS)
}

/// By how many hours each stream's clock and its readings were ahead; those of a stream must agree, or the server
/// would take its readings for ones of the future.
fn hours(streams: &[Seen]) -> Vec<i64> {
    let with_reports = streams.iter().filter(|seen| !seen.reports.is_empty());
    let hours = with_reports.map(|seen| {
        let hours = hours_ahead(seen.time_unix_nano);
        assert!(seen.reports.iter().all(|report| hours_ahead(report.time_unix_nano) == hours), "{seen:#?}");
        hours
    });
    let mut hours: Vec<i64> = hours.collect();
    hours.dedup();
    hours
}

fn spool(dir: &Path, epoch: u64, clock: &Clock) -> Outbox {
    let options = Options { spool_dir: Some(dir.to_owned()), limits: None };
    let buffer = Buffer::open(&options, epoch, &Logger::root(Discard, o!())).expect("nobody else has it");
    Outbox::by(clock.clone(), buffer)
}

/// Reads and pushes ten reports; none is dropped for it.
fn push_ten(outbox: &Outbox, clock: &Clock) {
    for _ in 0..10 {
        let report = MetricReport {
            service_name: "web".into(),
            instance: "a".into(),
            time_unix_nano: clock.unix_nanos(),
            sequence: outbox.accounts().sent + 1,
            ..MetricReport::default()
        };
        assert_eq!(outbox.push(encode(&report)), 0);
    }
}

/// Delivers all, and returns the streams that it took.
async fn deliver(outbox: Outbox) -> Vec<Seen> {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let outbox = Arc::new(outbox);
    outbox.finish();
    let options = send::Options::new(format!("http://{}", server.addr).parse().unwrap(), "web");
    let sender = send::run(options, Arc::clone(&outbox), Logger::root(Discard, o!()));
    tokio::time::timeout(Duration::from_secs(20), sender).await.expect("the sender ends");
    let accounts = outbox.accounts();
    assert_eq!(accounts, Accounts { acknowledged: accounts.sent, pending: 0, dropped: 0, ..accounts });
    let receipted = double.receipted();
    assert_eq!(receipted.len() as u64, accounts.sent);
    assert!(receipted.is_sorted_by_key(|report| report.sequence), "in the order in which they were read");
    double.streams()
}

#[tokio::test]
async fn a_backlog_of_several_clocks_is_delivered_whole_with_the_time_of_each() {
    let clock = Clock::default();
    let outbox = Outbox::by(clock.clone(), Buffer::new(gopherwatch_client::buffer::Limits::IN_MEMORY, 7));
    for step in [0, HOUR_MS, -2 * HOUR_MS, TOO_LONG_MS] {
        clock.step(step);
        push_ten(&outbox, &clock);
    }
    assert_eq!(hours(&deliver(outbox).await), [0, 1, -1, 24]);
}

#[tokio::test]
async fn what_a_process_left_outlives_a_step_of_the_clock_before_and_after_its_end() {
    for after in [0, -TOO_LONG_MS] {
        let (dir, clock) = (TempDir::new().unwrap(), Clock::default());
        let outbox = spool(dir.path(), 7, &clock);
        push_ten(&outbox, &clock);
        clock.step(TOO_LONG_MS);
        push_ten(&outbox, &clock);
        drop(outbox);
        clock.step(after);
        let outbox = spool(dir.path(), 8, &clock);
        push_ten(&outbox, &clock);
        let ahead = (TOO_LONG_MS + after) / HOUR_MS;
        let mut wanted = vec![0, 25, ahead];
        wanted.dedup();
        assert_eq!(hours(&deliver(outbox).await), wanted);
    }
}

#[test]
fn what_was_left_for_too_long_by_the_clock_is_dropped_at_the_next_start() {
    let (dir, clock) = (TempDir::new().unwrap(), Clock::default());
    push_ten(&spool(dir.path(), 7, &clock), &clock);
    clock.step(TOO_LONG_MS);
    let outbox = Arc::new(spool(dir.path(), 8, &clock));
    assert_eq!(outbox.open().opened.n_too_old, 10);
    assert_eq!(outbox.accounts(), Accounts { sent: 10, dropped: 10, ..Accounts::default() });
}

/// A stream that is open when the clock is set ends for it.
#[tokio::test]
async fn a_service_goes_on_reporting_while_its_clock_is_set() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let clock = Clock::default();
    let client = Client::builder(&server.addr.to_string(), "checkout")
        .interval(Duration::from_millis(20))
        .clock(clock.clone())
        .connect()
        .unwrap();
    let mut set = 0;
    for ahead in [0, 1, -1, 25, 0] {
        clock.step((ahead - set) * HOUR_MS);
        set = ahead;
        let is_ahead = |seen: &Seen| seen.reports.iter().filter(|r| hours_ahead(r.time_unix_nano) == ahead).count() > 2;
        double.until("reports by that clock", |streams| streams.iter().rev().take(2).any(is_ahead)).await;
    }
    let accounts = tokio::task::spawn_blocking(move || client.close(Duration::from_secs(10))).await.unwrap();
    assert_eq!(accounts, Accounts { acknowledged: accounts.sent, pending: 0, dropped: 0, ..accounts });
    assert_eq!(hours(&double.streams()), [0, 1, -1, 25, 0]);
    assert!(double.receipted().iter().map(|report| report.sequence).eq(1..=accounts.sent));
}
