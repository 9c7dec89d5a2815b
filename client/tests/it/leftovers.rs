//! What earlier processes left in the spool.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gopherwatch_client::buffer::{Accounts, Buffer, Options};
use gopherwatch_client::codec::encode;
use gopherwatch_client::double::{Act, Double, Seen};
use gopherwatch_client::outbox::Outbox;
use gopherwatch_client::send;
use gopherwatch_proto::v1::{Metric, MetricReport};
use slog::{Discard, Logger, o};
use tempfile::TempDir;

fn open(dir: &Path, epoch: u64) -> Outbox {
    let options = Options { spool_dir: Some(dir.to_owned()), limits: None };
    Outbox::new(Buffer::open(&options, epoch, &Logger::root(Discard, o!())).expect("nobody else has it"))
}

fn report(epoch: u64, sequence: u64) -> MetricReport {
    MetricReport {
        service_name: "web".into(),
        instance: "a".into(),
        time_unix_nano: 1_800_000_000_000_000_000 + epoch * 1_000_000 + sequence,
        sequence,
        metrics: vec![Metric { name: "cpu_percent".into(), value: sequence as f64 }],
        leaving: false,
    }
}

fn reports(epoch: u64, n_reports: u64) -> Vec<MetricReport> {
    (1..=n_reports).map(|sequence| report(epoch, sequence)).collect()
}

fn receipted(streams: &[Seen], epoch: u64) -> Vec<MetricReport> {
    let of_epoch = streams.iter().filter(|seen| seen.epoch == epoch);
    of_epoch.flat_map(|seen| seen.reports[..seen.receipted as usize].to_vec()).collect()
}

/// Leaves 300 reports of the epochs 31 and 30, and 300 live ones of 32, and delivers them.
async fn deliver(double: &Double) -> Vec<Seen> {
    let dir = TempDir::new().unwrap();
    for epoch in [31, 30] {
        open(dir.path(), epoch).push_all(reports(epoch, 300).iter().map(encode));
    }
    let outbox = Arc::new(open(dir.path(), 32));
    outbox.push_all(reports(32, 300).iter().map(encode));
    assert_eq!(outbox.accounts(), Accounts { sent: 900, acknowledged: 0, pending: 900, dropped: 0 });
    let server = double.listen("127.0.0.1:0").await;
    let mut options = send::Options::new(format!("http://{}", server.addr).parse().unwrap(), "web");
    options.rotate = Duration::from_millis(50);
    options.receipt_wait = Duration::from_millis(500);
    outbox.finish();
    let sender = send::run(options, Arc::clone(&outbox), Logger::root(Discard, o!()));
    tokio::time::timeout(Duration::from_secs(20), sender).await.expect("the sender ends");
    assert_eq!(outbox.accounts(), Accounts { sent: 900, acknowledged: 900, pending: 0, dropped: 0 });
    double.streams()
}

#[tokio::test]
async fn they_go_first_and_unchanged_the_oldest_before_the_others_each_epoch_on_a_stream_of_its_own() {
    let streams = deliver(&Double::new([])).await;
    assert!(streams.iter().map(|seen| seen.epoch).eq([31, 30, 32]), "not by the epochs' size: {streams:?}");
    for seen in &streams {
        assert_eq!(seen.reports, reports(seen.epoch, 300));
    }
}

#[tokio::test]
async fn cut_streams_and_early_receipts_neither_mix_nor_lose_nor_double_them() {
    let double =
        Double::new([Act::Cut(7), Act::EndEarly(100), Act::Hang, Act::EndEarly(250), Act::Cut(0), Act::EndEarly(20)]);
    let streams = deliver(&double).await;
    for epoch in [31, 30, 32] {
        assert_eq!(receipted(&streams, epoch), reports(epoch, 300));
    }
    let order: Vec<u64> = streams.iter().map(|seen| seen.epoch).collect();
    assert!(order.is_sorted_by_key(|epoch| [31, 30, 32].iter().position(|e| e == epoch)), "{order:?}");
    assert_eq!(double.most_open(), 1);
}
