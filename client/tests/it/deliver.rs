//! Delivery, in process: what is pushed arrives, in order, once receipted, whatever the server does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gopherwatch_client::buffer::{Accounts, Buffer, Limits};
use gopherwatch_client::codec::encode;
use gopherwatch_client::outbox::Outbox;
use gopherwatch_client::send;
use gopherwatch_proto::v1::{Metric, MetricReport};
use slog::{Discard, Logger, o};
use tokio::task::JoinHandle;

use gopherwatch_client::double::{Act, Double, Seen};

const EPOCH: u64 = 7_000_000_000_000_000_001;

struct Delivery {
    outbox: Arc<Outbox>,
    sender: JoinHandle<()>,
    n_pushed: u64,
}

impl Delivery {
    /// Delivers to `server`, in streams of 50 ms.
    fn to(server: impl ToString) -> Self {
        let mut options = send::Options::new(server.to_string().parse().unwrap(), "web");
        options.rotate = Duration::from_millis(50);
        options.receipt_wait = Duration::from_millis(500);
        let outbox = Arc::new(Outbox::new(Buffer::new(Limits::IN_MEMORY, EPOCH)));
        let sender = tokio::spawn(send::run(options, Arc::clone(&outbox), Logger::root(Discard, o!())));
        Self { outbox, sender, n_pushed: 0 }
    }

    fn push(&mut self, n_reports: u64) {
        for sequence in self.n_pushed + 1..=self.n_pushed + n_reports {
            self.outbox.push(encode(&report(sequence)));
        }
        self.n_pushed += n_reports;
    }

    /// Waits until all is receipted.
    async fn finish(self) -> Accounts {
        self.outbox.finish();
        tokio::time::timeout(Duration::from_secs(20), self.sender).await.expect("the sender ends").unwrap();
        let accounts = self.outbox.accounts();
        assert_eq!(accounts.sent, accounts.acknowledged + accounts.pending + accounts.dropped);
        assert_eq!(accounts, Accounts { sent: self.n_pushed, acknowledged: self.n_pushed, pending: 0, dropped: 0 });
        accounts
    }
}

fn report(sequence: u64) -> MetricReport {
    MetricReport {
        service_name: "web".into(),
        instance: "a".into(),
        time_unix_nano: 1_800_000_000_000_000_000 + sequence,
        sequence,
        metrics: vec![Metric { name: "cpu_percent".into(), value: sequence as f64 }],
        leaving: false,
    }
}

fn url(addr: std::net::SocketAddr) -> String {
    format!("http://{addr}")
}

fn n_reports(streams: &[Seen]) -> usize {
    streams.iter().map(|seen| seen.reports.len()).sum()
}

fn all_receipted(n_reports: u64) -> Vec<MetricReport> {
    (1..=n_reports).map(report).collect()
}

#[tokio::test]
async fn streams_rotate_for_receipts_and_carry_the_metadata() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    for round in 1..=3 {
        delivery.push(2);
        double
            .until("a receipt each", |streams| streams.iter().map(|seen| seen.receipted).sum::<u64>() == 2 * round)
            .await;
    }
    delivery.finish().await;
    assert_eq!(double.receipted(), all_receipted(6));
    assert_eq!(double.most_open(), 1);
    for seen in double.streams() {
        assert_eq!((seen.service_id.as_str(), seen.epoch), ("web", EPOCH));
        assert!(seen.time_unix_nano > 1_700_000_000_000_000_000);
    }
}

#[tokio::test]
async fn a_live_report_does_not_wait_for_the_streams_end() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let mut options = send::Options::new(url(server.addr).parse().unwrap(), "web");
    options.rotate = Duration::from_secs(600);
    let outbox = Arc::new(Outbox::new(Buffer::new(Limits::IN_MEMORY, EPOCH)));
    let sender = tokio::spawn(send::run(options, Arc::clone(&outbox), Logger::root(Discard, o!())));
    outbox.push(encode(&report(1)));
    // The first stream is short; it is the second that stays open.
    double.until("the first receipt", |streams| streams.first().is_some_and(|seen| seen.receipted == 1)).await;
    for n in 2..=4 {
        outbox.push(encode(&report(n)));
        double.until("the report", |streams| n_reports(streams) == n as usize).await;
    }
    assert_eq!(double.streams().len(), 2);
    outbox.finish();
    sender.await.unwrap();
}

#[tokio::test]
async fn a_stream_cut_without_a_receipt_is_sent_again_unchanged_and_in_order() {
    let double = Double::new([Act::Cut(3), Act::Cut(1)]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    delivery.push(5);
    delivery.finish().await;
    let streams = double.streams();
    assert_eq!(streams[0].sequences(), [1, 2, 3]);
    assert_eq!(streams[1].sequences(), [1]);
    assert_eq!(double.receipted(), all_receipted(5));
    assert!(streams.iter().all(|seen| seen.epoch == EPOCH));
    assert_eq!(double.most_open(), 1);
}

#[tokio::test]
async fn an_early_receipt_counts_for_its_prefix_and_the_rest_is_sent_again() {
    let double = Double::new([Act::EndEarly(2), Act::EndEarly(1)]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    delivery.push(6);
    delivery.finish().await;
    let streams = double.streams();
    assert_eq!(streams[0].sequences(), [1, 2]);
    assert_eq!(streams[1].sequences(), [3]);
    assert_eq!(double.receipted(), all_receipted(6));
}

#[tokio::test]
async fn a_receipt_that_comes_while_the_agent_is_still_sending_is_heard() {
    let double = Double::new([Act::EndEarly(10)]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    // More than the connection's windows hold: the agent is held up by flow control when the receipt comes.
    delivery.push(50_000);
    delivery.finish().await;
    assert_eq!(double.streams()[0].receipted, 10);
    assert_eq!(double.receipted(), all_receipted(50_000));
}

#[tokio::test]
async fn a_pushback_is_honoured() {
    let double = Double::new([Act::Refuse(700)]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    delivery.push(2);
    double.until("the second stream's receipt", |streams| streams.get(1).is_some_and(|seen| seen.receipted == 2)).await;
    let opened: Vec<Instant> = double.streams().iter().filter_map(|seen| seen.opened).collect();
    assert!(opened[1] - opened[0] >= Duration::from_millis(700), "{:?}", opened[1] - opened[0]);
    delivery.finish().await;
}

#[tokio::test]
async fn a_server_that_is_down_at_first_gets_everything_once_it_is_up() {
    let double = Double::new([]);
    let addr = double.listen("127.0.0.1:0").await.addr;
    let mut delivery = Delivery::to(url(addr));
    delivery.push(3);
    // Long enough for several attempts against nobody.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(delivery.outbox.accounts().pending, 3);
    let _server = double.listen(&addr.to_string()).await;
    delivery.push(1);
    delivery.finish().await;
    assert_eq!(double.receipted(), all_receipted(4));
}

#[tokio::test]
async fn a_server_that_restarts_under_a_stream_gets_the_rest() {
    let double = Double::new([Act::Hang]);
    let server = double.listen("127.0.0.1:0").await;
    let addr = server.addr;
    let mut delivery = Delivery::to(url(addr));
    delivery.push(3);
    double.until("three reports", |streams| n_reports(streams) == 3).await;
    drop(server);
    delivery.push(2);
    let _server = double.listen(&addr.to_string()).await;
    delivery.finish().await;
    assert_eq!(double.receipted(), all_receipted(5));
}

#[tokio::test]
async fn a_receipt_that_never_comes_is_not_waited_for_for_ever() {
    let double = Double::new([Act::Hang]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    delivery.push(2);
    delivery.finish().await;
    assert_eq!(double.receipted(), all_receipted(2));
}

#[tokio::test]
async fn a_rejected_report_is_receipted_and_not_sent_again() {
    let double = Double::new([Act::Reject]);
    let server = double.listen("127.0.0.1:0").await;
    let mut delivery = Delivery::to(url(server.addr));
    delivery.push(2);
    delivery.finish().await;
    assert_eq!(n_reports(&double.streams()), 2);
}
