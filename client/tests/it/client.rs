//! A service that reports itself.

use std::fs;
use std::time::{Duration, Instant};

use gopherwatch_client::buffer::Accounts;
use gopherwatch_client::double::{Act, Double, Seen};
use gopherwatch_client::{Client, ConnectError, NameError};
use gopherwatch_proto::v1::MetricReport;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

fn fast(server: impl ToString) -> gopherwatch_client::Builder {
    Client::builder(&server.to_string(), "checkout").instance("a").interval(Duration::from_millis(20))
}

fn value(report: &MetricReport, name: &str) -> Option<f64> {
    report.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
}

fn reports(streams: &[Seen]) -> Vec<&MetricReport> {
    streams.iter().flat_map(|seen| &seen.reports).collect()
}

async fn close(client: Client, timeout: Duration) -> Accounts {
    tokio::task::spawn_blocking(move || client.close(timeout)).await.unwrap()
}

#[tokio::test]
async fn counters_and_gauges_arrive_and_the_goodbye_is_receipted() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let client = fast(server.addr).connect().unwrap();
    client.gauge("queue_length").set(17.0);
    let requests = client.counter("requests");
    requests.add(1);
    let seen = |count| {
        move |streams: &[Seen]| {
            reports(streams).iter().any(|r| {
                value(r, "request_count") == Some(count)
                    && value(r, "queue_length") == Some(17.0)
                    && value(r, "request_rate").is_some_and(|rate| rate > 0.0)
            })
        }
    };
    double.until("the gauge", |streams| reports(streams).iter().any(|r| value(r, "queue_length").is_some())).await;
    requests.clone().add(2);
    double.until("the counter and its rate", seen(3.0)).await;

    let accounts = close(client, SOON).await;
    let receipted = double.receipted();
    let n_reports = receipted.len() as u64;
    assert_eq!(accounts, Accounts { sent: n_reports, acknowledged: n_reports, pending: 0, dropped: 0 });
    assert!(receipted.iter().map(|report| report.sequence).eq(1..=n_reports));
    assert!(receipted.iter().all(|report| report.service_name == "checkout" && report.instance == "a"));
    assert!(receipted.iter().all(|report| report.leaving == (report.sequence == n_reports)));
    let first = receipted.iter().find(|report| value(report, "request_count").is_some()).unwrap();
    assert_eq!(value(first, "request_rate"), None, "there is no rate before the second report");
}

#[tokio::test]
async fn dropping_it_says_goodbye_too() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let client = fast(server.addr).connect().unwrap();
    double.until("a connection", |streams| !streams.is_empty()).await;
    tokio::task::spawn_blocking(move || drop(client)).await.unwrap();
    assert!(double.receipted().last().is_some_and(|report| report.leaving));
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_is_away_or_hangs() {
    let double = Double::new([Act::Hang, Act::Hang, Act::Hang]);
    let hanging = double.listen("127.0.0.1:0").await;
    for server in ["127.0.0.1:1".to_owned(), hanging.addr.to_string()] {
        let began = Instant::now();
        let client = fast(&server).connect().unwrap();
        for _ in 0..100_000 {
            client.counter("requests").add(1);
        }
        client.accounts();
        let accounts = close(client, Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{server}: {:?}", began.elapsed());
        assert_eq!(accounts.sent, accounts.pending, "{server}: the caller is told what is not delivered");
        assert!(accounts.pending > 0, "{server}");
    }
}

#[tokio::test]
async fn what_one_process_could_not_deliver_the_next_one_does() {
    let dir = TempDir::new().unwrap();
    let double = Double::new([]);
    let addr = double.listen("127.0.0.1:0").await.addr;
    let client = fast(addr).spool_dir(dir.path()).connect().unwrap();
    client.counter("orders").add(5);
    let n_left = close(client, Duration::from_millis(100)).await.pending;

    let _server = double.listen(&addr.to_string()).await;
    let client = fast(addr).spool_dir(dir.path()).connect().unwrap();
    let accounts = close(client, SOON).await;
    let receipted = double.receipted();
    assert_eq!(accounts.acknowledged, receipted.len() as u64);
    assert!(n_left > 0 && accounts.sent > n_left);
    let left = &receipted[..n_left as usize];
    assert!(left.last().is_some_and(|report| report.leaving && value(report, "orders_count") == Some(5.0)));
    let epochs: Vec<u64> = double.streams().iter().map(|seen| seen.epoch).collect();
    assert!(epochs.len() == 2 && epochs[0] != epochs[1], "{epochs:?}");
}

/// A wrong token costs nothing but time: the right one, put into the same file, needs no new client.
#[tokio::test]
async fn a_server_that_asks_for_a_token_gets_the_one_that_is_in_the_file() {
    let (double, dir) = (Double::new([]), TempDir::new().unwrap());
    double.asks_for("s3cret");
    let server = double.listen("127.0.0.1:0").await;
    let path = dir.path().join("token");
    assert!(matches!(fast(server.addr).token_file(&path).connect(), Err(ConnectError::Token(_))), "there is no file");
    fs::write(&path, "wrong\n").unwrap();
    let client = fast(server.addr).token_file(&path).connect().unwrap();
    double.until_refused("the wrong token").await;
    fs::write(&path, "s3cret\n").unwrap();
    double.until("a report", |streams| !reports(streams).is_empty()).await;
    let accounts = close(client, SOON).await;
    assert_eq!(accounts, Accounts { acknowledged: accounts.sent, pending: 0, dropped: 0, ..accounts });
    assert_eq!(double.receipted()[0].sequence, 1);
}

#[test]
fn only_a_bad_address_or_name_is_refused() {
    assert!(matches!(Client::connect("ftp://x", "a"), Err(ConnectError::Server { .. })));
    assert!(matches!(Client::connect("127.0.0.1:1", "-a"), Err(ConnectError::Name(name)) if name == "-a"));
    assert!(matches!(fast("127.0.0.1:1").instance("").connect(), Err(ConnectError::Name(_))));
}

#[test]
fn a_metric_that_cannot_be_reported_does_no_harm() {
    let client = fast("127.0.0.1:1").connect().unwrap();
    client.counter("not a name").add(1);
    client.gauge("").set(1.0);
    assert_eq!(client.try_counter("not a name").err(), Some(NameError::Invalid("not a name".into())));
    (0..300).for_each(|n| client.gauge(&format!("g{n}")).set(1.0));
    assert_eq!(client.try_gauge("g299").err(), Some(NameError::TooMany));
    client.close(Duration::ZERO);
}
