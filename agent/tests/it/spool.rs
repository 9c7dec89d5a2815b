//! The program with `--spool-dir`: killed, shut out, out of room, started twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use gopherwatch_client::double::{Act, Double, Seen};
use gopherwatch_proto::v1::MetricReport;

use crate::support::program;

/// An agent with a spool, and its log.
struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    fn start(server: &str, dir: &TempDir, arguments: &str) -> Self {
        Self::start_as(program(), server, dir, arguments)
    }

    /// On a disk that is nearly full: no file may become larger than this, until [`Agent::has_room`].
    fn start_on_full_disk(kib: u32, server: &str, dir: &TempDir, arguments: &str) -> Self {
        let mut shell = Command::new("/bin/bash");
        shell.args([
            "-c",
            &format!("ulimit -S -f {kib} && exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_gopherwatch-agent"),
        ]);
        shell.env_clear().current_dir(dir.path());
        Self::start_as(shell, server, dir, arguments)
    }

    fn start_as(mut command: Command, server: &str, dir: &TempDir, arguments: &str) -> Self {
        let log = dir.path().join("log");
        let process = command
            .args(["--server", server, "--service", "web", "--instance", "a", "--interval", "20ms"])
            .args(["--log-level", "debug", "--log-format", "json", "--spool-dir"])
            .arg(dir.path().join("spool"))
            .args(arguments.split_whitespace())
            .stderr(Stdio::from(File::create(&log).unwrap()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, log }
    }

    /// Waits for a log line that is as wanted.
    async fn says(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            if log.lines().any(&wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} was not said: {log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn has_room(&self) {
        let pid = self.process.id().unwrap().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().await.unwrap().success());
    }

    /// Stops it in order.
    async fn stop(&mut self) {
        let pid = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let code = tokio::time::timeout(Duration::from_secs(10), self.process.wait()).await.expect("it stops").unwrap();
        assert_eq!(code.code(), Some(0));
    }

    async fn has_kept(&self, n_reports: u64) {
        self.says("enough reports kept", |line| figure(line, "pending") >= Some(n_reports)).await;
    }

    /// With kill -9; returns how many reports it said that it had made, and when it ended.
    async fn kill(mut self) -> (u64, u64) {
        self.process.kill().await.unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        let n_made = log.lines().filter_map(|line| figure(line, "sent")).max();
        (n_made.unwrap_or_default(), unix_nanos())
    }
}

fn figure(line: &str, key: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// The receipted reports of each numbering, in the order in which these came.
fn numberings(streams: &[Seen]) -> Vec<(u64, Vec<MetricReport>)> {
    let mut found: Vec<(u64, Vec<MetricReport>)> = Vec::new();
    for seen in streams {
        let covered = seen.reports[..seen.receipted as usize].to_vec();
        match found.last_mut() {
            Some((epoch, reports)) if *epoch == seen.epoch => reports.extend(covered),
            _ => found.push((seen.epoch, covered)),
        }
    }
    found
}

/// The address of a server that is not there.
async fn nobody() -> String {
    Double::new([]).listen("127.0.0.1:0").await.addr.to_string()
}

#[tokio::test]
async fn killed_twice_while_the_server_is_away_every_report_arrives_once_with_its_epoch_time_and_order() {
    let dir = TempDir::new().unwrap();
    let server = nobody().await;
    let mut kills = Vec::new();
    let mut n_kept = 0;
    for _ in 0..2 {
        let agent = Agent::start(&server, &dir, "");
        n_kept += 20;
        agent.has_kept(n_kept).await;
        let (n_made, at) = agent.kill().await;
        kills.push((n_made, at));
        n_kept = n_made;
    }

    let double = Double::new([]);
    let _server = double.listen(&server).await;
    let agent = Agent::start(&server, &dir, "");
    double.until("reports of this run", |streams| numberings(streams).get(2).is_some_and(|(_, n)| n.len() > 3)).await;
    agent.kill().await;

    let numberings = numberings(&double.streams());
    assert_eq!(numberings.len(), 3, "each numbering is delivered as a whole before the next");
    assert_eq!(double.most_open(), 1);
    let mut began = 0;
    let mut n_earlier = 0;
    for ((_, reports), (n_made, ended)) in numberings.iter().zip(kills) {
        assert!(reports.iter().map(|report| report.sequence).eq(1..=reports.len() as u64));
        // What it had said of itself included what was left by the run before.
        assert!(n_earlier + reports.len() as u64 >= n_made, "{} of {n_made}", reports.len());
        n_earlier = reports.len() as u64;
        assert!(reports.iter().all(|report| (began..ended).contains(&report.time_unix_nano)), "their own times");
        assert!(reports.is_sorted_by_key(|report| report.time_unix_nano));
        began = ended;
    }
}

#[tokio::test]
async fn a_kill_after_the_receipt_sends_nothing_again() {
    let dir = TempDir::new().unwrap();
    let double = Double::new([Act::EndEarly(5), Act::Hang]);
    let server = double.listen("127.0.0.1:0").await;
    let addr = server.addr.to_string();
    let agent = Agent::start(&addr, &dir, "");
    agent.says("the receipt", |line| line.contains("first receipt")).await;
    double.until("more reports", |streams| streams.get(1).is_some_and(|seen| seen.reports.len() > 1)).await;
    agent.kill().await;
    drop(server);

    let later = Double::new([]);
    let _server = later.listen(&addr).await;
    let _agent = Agent::start(&addr, &dir, "");
    later.until("the live reports", |streams| numberings(streams).len() == 2).await;
    let (_, left) = &numberings(&later.streams())[0];
    assert_eq!(left[0].sequence, 6);
}

#[tokio::test]
async fn a_stop_without_a_server_leaves_the_goodbye_for_the_next_start() {
    let dir = TempDir::new().unwrap();
    let server = nobody().await;
    let mut agent = Agent::start(&server, &dir, "");
    agent.has_kept(2).await;
    agent.stop().await;
    agent.says("that nothing is lost", |line| line.contains("what is not delivered is in the spool")).await;

    let double = Double::new([]);
    let _server = double.listen(&server).await;
    let _agent = Agent::start(&server, &dir, "");
    double.until("the live reports", |streams| numberings(streams).len() == 2).await;
    let (_, left) = &numberings(&double.streams())[0];
    assert!(left.last().is_some_and(|report| report.leaving));
}

#[tokio::test]
async fn a_second_agent_on_the_same_spool_ends_with_a_message() {
    let dir = TempDir::new().unwrap();
    let server = nobody().await;
    let first = Agent::start(&server, &dir, "");
    first.has_kept(1).await;
    let second =
        program().args(["--server", &server, "--spool-dir"]).arg(dir.path().join("spool")).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(10), second).await.expect("it ends").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let pid = first.process.id().unwrap();
    assert!(stderr.contains("in use by another process") && stderr.contains(&pid.to_string()), "{stderr}");
}

#[tokio::test]
async fn a_damaged_spool_is_told_of_and_put_aside_and_the_host_is_watched() {
    let dir = TempDir::new().unwrap();
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::write(spool.join("spool.db"), "no database at all ".repeat(1000)).unwrap();
    watches(&dir, "the spool is damaged").await;
    assert!(fs::read_to_string(spool.join("spool.db.damaged")).unwrap().starts_with("no database"));
}

#[tokio::test]
async fn a_spool_that_cannot_be_used_is_told_of_and_the_host_is_watched() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("spool"), "a file where the directory should be").unwrap();
    watches(&dir, "no spool").await;
}

async fn watches(dir: &TempDir, message: &str) {
    let double = Double::new([Act::Cut(1)]);
    let server = double.listen("127.0.0.1:0").await;
    let agent = Agent::start(&server.addr.to_string(), dir, "");
    agent.says(message, |line| line.contains(message)).await;
    double.until("receipted reports", |streams| numberings(streams).iter().any(|(_, n)| n.len() > 3)).await;
    agent.kill().await;
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_and_says_how_many() {
    let dir = TempDir::new().unwrap();
    let server = nobody().await;
    // Two rounds of 3,000 services are more than a MiB.
    let agent = Agent::start(&server, &dir, "--simulate 3000 --buffer-size 1MiB");
    agent.says("reports are dropped", |line| line.contains("reports are dropped, the oldest first")).await;
    let balances = |line: &str| {
        let [sent, pending, dropped] = ["sent", "pending", "dropped"].map(|key| figure(line, key));
        dropped >= Some(3000) && sent == Some(pending.unwrap_or_default() + dropped.unwrap_or_default())
    };
    agent.says("the accounts", balances).await;
    agent.kill().await;
    assert!(size(&dir.path().join("spool")) < 4 << 20);

    let double = Double::new([]);
    let _server = double.listen(&server).await;
    let _agent = Agent::start(&server, &dir, "");
    double.until("the live reports", |streams| numberings(streams).len() == 2).await;
    let (_, left) = &numberings(&double.streams())[0];
    assert!(left[0].sequence > 1, "the first round made room");
    assert!(left.is_sorted_by_key(|report| report.sequence));
}

/// Of 2,000 services each round takes half a MiB: the second is too much for the disk, the third for the buffer.
const TOO_MUCH: &str = "--simulate 2000 --buffer-size 1MiB";

/// Waits until an agent with too much has said so, and until its accounts say how much was dropped.
async fn drops_the_oldest(agent: &Agent) {
    agent.says("that the disk is full", |line| line.contains("cannot write the spool")).await;
    agent.says("reports are dropped", |line| line.contains("reports are dropped, the oldest first")).await;
    let balances = |line: &str| {
        let [sent, pending, dropped] = ["sent", "pending", "dropped"].map(|key| figure(line, key));
        dropped >= Some(2000) && sent == Some(pending.unwrap_or_default() + dropped.unwrap_or_default())
    };
    agent.says("the accounts", balances).await;
}

#[tokio::test]
async fn on_a_full_disk_the_oldest_are_dropped_and_told_of_and_with_room_the_spool_is_written_again() {
    let dir = TempDir::new().unwrap();
    let server = nobody().await;
    let agent = Agent::start_on_full_disk(600, &server, &dir, TOO_MUCH);
    drops_the_oldest(&agent).await;
    agent.has_room().await;
    agent.says("that it is written again", |line| line.contains("the spool is written again")).await;
    agent.kill().await;

    let double = Double::new([]);
    let _server = double.listen(&server).await;
    let _agent = Agent::start(&server, &dir, "");
    double.until("the live reports", |streams| numberings(streams).len() == 2).await;
    let (_, left) = &numberings(&double.streams())[0];
    assert!(left.len() > 2000 && left[0].sequence > 1, "the first round made room, a later one is there");
    assert!(left.is_sorted_by_key(|report| report.sequence));
}

#[tokio::test]
async fn a_stop_on_a_full_disk_exits_0_and_says_how_much_is_lost() {
    let dir = TempDir::new().unwrap();
    let mut agent = Agent::start_on_full_disk(600, &nobody().await, &dir, TOO_MUCH);
    drops_the_oldest(&agent).await;
    agent.stop().await;
    agent
        .says("what is lost", |line| {
            line.contains("stopped with undelivered reports, which are lost") && figure(line, "lost") >= Some(2000)
        })
        .await;
}

fn size(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
