//! The program itself: its reports, its stop, its exit codes, and `send`.

use std::collections::BTreeSet;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use gopherwatch_client::double::{Act, Double, Seen};
use tokio::process::Child;

use crate::support::program;

/// The agent, killed if the test fails.
fn start(server: &str, arguments: &str) -> Child {
    program()
        .args(["--server", server])
        .args(arguments.split_whitespace())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn terminate(agent: &mut Child) -> ExitStatus {
    signal(agent, "-TERM");
    tokio::time::timeout(Duration::from_secs(10), agent.wait()).await.expect("the agent stops").unwrap()
}

fn signal(agent: &Child, signal: &str) {
    let pid = agent.id().expect("it runs").to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

async fn run(arguments: &str) -> Output {
    program().args(arguments.split_whitespace()).output().await.unwrap()
}

fn reports(streams: &[Seen]) -> Vec<(u64, bool)> {
    streams.iter().flat_map(|seen| &seen.reports).map(|report| (report.sequence, report.leaving)).collect()
}

#[tokio::test]
async fn this_hosts_figures_arrive_at_once_and_a_stop_says_goodbye() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let began = Instant::now();
    let mut agent = start(&server.addr.to_string(), "--service web --instance a --interval 200ms");
    double.until("the first report", |streams| !reports(streams).is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    double.until("three reports", |streams| reports(streams).len() >= 3).await;
    assert_eq!(terminate(&mut agent).await.code(), Some(0));

    let streams = double.streams();
    let sent = reports(&streams);
    assert!(sent.iter().map(|(sequence, _)| *sequence).eq(1..=sent.len() as u64), "{sent:?}");
    assert!(sent.iter().enumerate().all(|(i, (_, leaving))| *leaving == (i + 1 == sent.len())), "{sent:?}");
    assert_eq!(double.receipted().len(), sent.len(), "the goodbye has its receipt too");
    let first = &streams[0].reports[0];
    assert_eq!((first.service_name.as_str(), first.instance.as_str()), ("web", "a"));
    let names: BTreeSet<&str> = first.metrics.iter().map(|metric| metric.name.as_str()).collect();
    let accounts = ["agent_reports_sent", "agent_reports_pending", "agent_reports_dropped"];
    let figures = ["cpu_percent", "memory_percent", "disk_percent", "network_rx_bytes", "load_1m", "processes"];
    for name in figures.into_iter().chain(accounts) {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

/// Numbers begin at 1 again, and must not be taken for those of the run before.
#[tokio::test]
async fn each_start_has_a_numbering_of_its_own() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let mut epochs = BTreeSet::new();
    for n_starts in 1..=3 {
        let mut agent = start(&server.addr.to_string(), "--service web --interval 100ms");
        let n_before = double.streams().len();
        double.until("its first report", |streams| !reports(&streams[n_before..]).is_empty()).await;
        agent.kill().await.unwrap();
        let seen = double.streams().split_off(n_before);
        assert_eq!(seen[0].reports[0].sequence, 1);
        epochs.extend(seen.iter().map(|seen| seen.epoch));
        run(&format!("send --server {} --service web cpu_percent=1", server.addr)).await;
        epochs.extend(double.streams().last().map(|seen| seen.epoch));
        assert_eq!(epochs.len(), 2 * n_starts, "{epochs:?}");
    }
    assert!(!epochs.contains(&0), "0 would mean none");
}

#[tokio::test]
async fn each_simulated_service_says_goodbye() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let mut agent = start(&server.addr.to_string(), "--simulate 300 --interval 100ms");
    double.until("two rounds", |streams| reports(streams).len() >= 600).await;
    assert_eq!(terminate(&mut agent).await.code(), Some(0));

    let receipted = double.receipted();
    let left: BTreeSet<&str> = receipted.iter().filter(|r| r.leaving).map(|r| r.service_name.as_str()).collect();
    assert_eq!(left.len(), 300);
    assert_eq!(double.streams()[0].service_id, "simulator");
    assert_eq!(double.most_open(), 1);
}

#[tokio::test]
async fn a_stop_resends_what_a_failed_stream_left_behind() {
    let double = Double::new([Act::Hang]);
    let server = double.listen("127.0.0.1:0").await;
    let addr = server.addr.to_string();
    let mut agent = start(&addr, "--interval 100ms");
    double.until("two reports", |streams| reports(streams).len() >= 2).await;
    drop(server);
    double.until("the end of the stream", |streams| streams[0].ended).await;
    let _server = double.listen(&addr).await;
    assert_eq!(terminate(&mut agent).await.code(), Some(0));
    let sequences: Vec<u64> = double.receipted().iter().map(|report| report.sequence).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{sequences:?}");
    assert!(double.receipted().last().is_some_and(|report| report.leaving));
}

#[tokio::test]
async fn a_stop_without_a_server_ends_in_time_and_cleanly() {
    let mut agent = start("127.0.0.1:1", "--interval 100ms");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    assert_eq!(terminate(&mut agent).await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_the_agent_at_once() {
    let double = Double::new([Act::Hang]);
    let server = double.listen("127.0.0.1:0").await;
    let mut agent = start(&server.addr.to_string(), "--interval 100ms");
    double.until("a report", |streams| !reports(streams).is_empty()).await;
    let began = Instant::now();
    signal(&agent, "-INT");
    double.until("the goodbye", |streams| reports(streams).iter().any(|(_, leaving)| *leaving)).await;
    terminate(&mut agent).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn send_prints_its_receipt() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let output =
        run(&format!("send --server {} --service checkout cpu_percent=97 memory_percent=12.5", server.addr)).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.starts_with("accepted 1 of 1 · alerts raised 0 · durable after "), "{stdout}");

    let seen = &double.streams()[0];
    assert_eq!(seen.service_id, "checkout");
    assert_ne!(seen.epoch, 0);
    assert_eq!((seen.reports[0].sequence, seen.reports[0].metrics.len()), (1, 2));
}

#[tokio::test]
async fn send_exits_1_when_the_report_is_rejected() {
    let double = Double::new([Act::Reject]);
    let server = double.listen("127.0.0.1:0").await;
    let output = run(&format!("send --server {} --service checkout cpu_percent=97", server.addr)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("rejected 1 of 1"));
}

#[tokio::test]
async fn send_exits_1_and_says_what_to_do_when_nobody_is_there() {
    let output = run("send --server 127.0.0.1:1 --service checkout cpu_percent=97").await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1") && stderr.contains("--server"), "{stderr}");
}

#[tokio::test]
async fn wrong_usage_exits_64_and_help_exits_0() {
    for wrong in [
        "--service=-x",
        "--interval 1",
        "--simulate 0",
        "--buffer-size 64",
        "--buffer-age 0s",
        "--simulate 10001",
        "--server ftp://x",
        "--process nginx",
        "--process web=(",
        "--process w!b=nginx",
        "--process web=a --process web=b",
        "--statsd-addr 0.0.0.0:0",
        "doctor --statsd-addr 0.0.0.0:0",
        "--no-such-flag",
        "send cpu_percent=1",
        "send --service a cpu_percent",
    ] {
        let output = run(wrong).await;
        assert_eq!(output.status.code(), Some(64), "{wrong}");
        assert!(!output.stderr.is_empty(), "{wrong}");
    }
    for asked in ["--help", "--version", "send --help"] {
        assert_eq!(run(asked).await.status.code(), Some(0), "{asked}");
    }
}

/// Only the first receipt's refusals used to be counted anywhere before a minute had passed.
#[tokio::test]
async fn what_the_server_refuses_is_counted_in_a_warning_until_the_end() {
    let double = Double::new([Act::Reject, Act::Reject]);
    let server = double.listen("127.0.0.1:0").await;
    let mut agent = program()
        .args(["--server", &server.addr.to_string(), "--interval", "20ms", "--statsd-addr", "off"])
        .args(["--log-format", "json"])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    double.until("more after a receipt", |streams| streams.len() > 1 && !streams[1].reports.is_empty()).await;
    signal(&agent, "-TERM");
    let mut log = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut agent.stderr.take().unwrap(), &mut log).await.unwrap();
    assert_eq!(agent.wait().await.unwrap().code(), Some(0));
    let all = double.receipted().len();
    let line = log.lines().find(|line| line.contains("rejected more reports")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(&format!("\"rejected\":{all}")), "{all}: {line}");
}
