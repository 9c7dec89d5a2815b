//! A server whose name is not known yet, or whose name server does not answer: in namespaces of the test's own, where
//! `/etc/hosts` and `/etc/resolv.conf` are what it says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gopherwatch_client::double::Double;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::reported::skipped;

const NAME: &str = "watch.test";

/// An agent, and its log.
struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    /// With a network of its own, in which there is nobody, or with that of this host. None: this user may not have it.
    async fn start(dir: &Path, own_network: bool, resolver: &str, arguments: &str) -> Option<Self> {
        let namespaces = ["--user", "--map-root-user", "--mount", "--net"];
        let namespaces = if own_network { &namespaces[..] } else { &namespaces[..3] };
        let files =
            [("hosts", "127.0.0.1 localhost\n"), ("resolv.conf", resolver), ("nsswitch.conf", "hosts: files dns\n")];
        let mut script = String::from("set -e; ");
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
            script += &format!("mount --bind {} /etc/{name}; ", dir.join(name).display());
        }
        if own_network {
            script += "ip link set lo up; ";
        }
        script += "exec \"$0\" \"$@\"";
        let within = |program: &str| {
            let mut command = Command::new("unshare");
            command.args(namespaces).args(["sh", "-c", &script, program]);
            command
        };
        let may = within("true").output().await.unwrap();
        if !may.status.success() {
            skipped(&format!("no namespaces can be made here: {}", String::from_utf8_lossy(&may.stderr)));
            return None;
        }
        let log = dir.join("log");
        let process = within(env!("CARGO_BIN_EXE_gopherwatch-agent"))
            .args(["--service", "web", "--instance", "a", "--interval", "100ms"])
            .args(["--log-level", "debug", "--log-format", "json"])
            .args(arguments.split_whitespace())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(dir)
            .stderr(Stdio::from(File::create(&log).unwrap()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Some(Self { process, log })
    }

    /// Its lines about deliveries that failed, of this level.
    fn failures(&self, level: &str) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        let is_one = |line: &&str| line.contains("cannot deliver") && line.contains(&format!("\"level\":\"{level}"));
        log.lines().filter(is_one).map(str::to_owned).collect()
    }

    async fn until_failures(&self, level: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.failures(level).len() < count {
            let log = fs::read_to_string(&self.log).unwrap();
            assert!(Instant::now() < deadline, "no {count} failures of level {level}: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it in order.
    async fn stop(&mut self) -> ExitStatus {
        let pid = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(6), self.process.wait()).await.expect("it stops in time").unwrap()
    }
}

#[tokio::test]
async fn until_the_name_is_known_reports_wait_for_one_warning_and_then_all_of_them_arrive() {
    let (dir, double) = (TempDir::new().unwrap(), Double::new([]));
    let server = double.listen("127.0.0.1:0").await;
    let arguments = format!("--statsd-addr off --server {NAME}:{}", server.addr.port());
    // Nobody answers there, and says so at once.
    let Some(mut agent) = Agent::start(dir.path(), false, "nameserver 127.0.0.1\n", &arguments).await else { return };
    agent.until_failures("DEBUG", 3).await;
    let warnings = agent.failures("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for words in ["failed to lookup address", NAME, "reports are kept and sent later"] {
        assert!(warnings[0].contains(words), "{words}: {warnings:?}");
    }

    fs::write(dir.path().join("hosts"), format!("127.0.0.1 localhost {NAME}\n")).unwrap();
    double.until("a receipt", |streams| streams.iter().any(|seen| seen.receipted > 10)).await;
    assert_eq!(agent.stop().await.code(), Some(0));
    let receipted = double.receipted();
    assert!(receipted.iter().map(|report| report.sequence).eq(1..=receipted.len() as u64));
    assert!(receipted.last().is_some_and(|report| report.leaving));
    assert_eq!(agent.failures("WARN").len(), 1);
}

/// Asking for a name blocks a thread, for as long as the system's own library likes.
#[tokio::test]
async fn a_name_server_that_does_not_answer_is_told_of_and_holds_up_neither_the_reports_nor_the_stop() {
    let dir = TempDir::new().unwrap();
    let resolver = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";
    // The agent itself takes what it asks, as StatsD, and answers nothing.
    let arguments = format!("--statsd-addr 127.0.0.1:53 --server {NAME}");
    let Some(mut agent) = Agent::start(dir.path(), true, resolver, &arguments).await else { return };
    agent.until_failures("WARN", 1).await;
    assert_eq!(agent.stop().await.code(), Some(0));
    let log = fs::read_to_string(&agent.log).unwrap();
    assert!(log.contains("no answer within"), "{log}");
    assert!(log.contains("malformed StatsD lines"), "it was asked: {log}");
    let n_lost = log
        .split("\"lost\":")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok());
    assert!(n_lost > Some(50), "they were made all the time: {log}");
}
