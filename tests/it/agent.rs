//! The real agent against the real server.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{
    log::LogLines,
    server::{Server, Setup},
    wait::{SOON, eventually, found},
};

/// A running agent. It ends with its value.
pub(crate) struct Agent {
    child: Child,
    pub(crate) log: LogLines,
}

impl Agent {
    pub(crate) fn start(server: &Server, args: &str) -> Self {
        let url = format!("http://{}", server.grpc());
        let mut child = command(args)
            .args(["--server", &url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = LogLines::read(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        let status = found(SOON, "the agent ends", || self.child.try_wait().unwrap());
        self.log.read_to_end();
        assert!(status.success(), "{status}: {}", self.log.text());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent's binary stands beside the server's: Cargo does not build other packages' binaries for a test.
fn command(args: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_gopherwatch-server")).with_file_name("gopherwatch-agent");
    assert!(program.is_file(), "{} is not there: run `cargo build --workspace` first", program.display());
    let mut command = Command::new(program);
    // A developer's own `.env` may stand in the repository.
    command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR")).args(args.split_whitespace());
    command
}

#[test]
fn within_3_seconds_of_its_start_the_status_shows_this_host() {
    let server = Server::start();
    let began = Instant::now();
    let mut agent = Agent::start(&server, "--service this-host --instance here");
    let service = found(SOON, "it is there", || server.service("this-host"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let instance = &service["instances"][0];
    assert_eq!(instance["instance"], "here");
    let metric = |name: &str| instance["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name} in {service}"));
    assert!((0.0..=100.0).contains(&metric("cpu_percent")));
    assert!(metric("memory_percent") > 0.0 && metric("memory_used_bytes") > 1e6);
    assert!(metric("processes") > 1.0 && metric("uptime_seconds") > 0.0);
    for name in ["swap_percent", "disk_percent", "network_rx_bytes", "load_1m"] {
        metric(name);
    }
    let seen = service["last_seen"].clone();
    eventually(SOON, "the figures are live", || server.service("this-host").unwrap()["last_seen"] != seen);
    agent.stop();
    assert_eq!(server.status_of("this-host"), "left");
    server.settle();
}

#[test]
fn an_agent_survives_restarts_of_the_server_without_losing_an_alert() {
    // Every report violates, so that the rows tell which reports were taken.
    let rules = "[[rules]]\nname = \"alive\"\nwhen = \"uptime_seconds > 0\"\nrecord = \"every\"\n";
    let mut server = Setup::new().rules(rules).start();
    let mut agent = Agent::start(&server, "--service web --interval 20ms");
    // Said once, the address stays that of every later start.
    for (in_order, args) in [(false, format!("--grpc-addr {}", server.grpc())), (true, String::new())] {
        let n_rows = server.history("").len();
        eventually(SOON, "rows come", || server.history("").len() > n_rows + 20);
        if in_order {
            assert_eq!(server.stop(), 0);
        } else {
            server.kill9();
        }
        server = server.start_again(&args);
    }
    let n_rows = server.history("").len();
    eventually(SOON, "rows come again", || server.history("").len() > n_rows + 20);
    agent.stop();
    let stopped = &agent.log.with_message("stopped")[0];
    let count = |name: &str| stopped[name].as_u64().unwrap_or_else(|| panic!("{name} in {stopped}"));
    assert_eq!((count("acknowledged"), count("pending"), count("dropped")), (count("sent"), 0, 0));
    server.settle();
    assert_eq!(server.history("").len() as u64, count("sent"), "a row per report, none missing, none doubled");
    assert_eq!(server.status_of("web"), "left");
}

#[test]
fn one_report_can_be_sent_by_hand() {
    let server = Server::start();
    let url = format!("http://{}", server.grpc());
    let output = command("send --service checkout cpu_percent=97 --server").arg(&url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("accepted") && said.contains("ms"), "{said}");
    assert_eq!(server.history_of(1, "")[0].value, 97.0);
}

#[test]
fn simulated_services_breach_and_are_all_shown() {
    let server = Server::start();
    let mut agent = Agent::start(&server, "--simulate 30 --interval 100ms --simulate-speed 7200");
    eventually(SOON, "30 services", || server.status()["totals"]["services"] == 30);
    eventually(SOON, "a breach", || !server.history("").is_empty());
    agent.stop();
    assert_eq!(server.status()["totals"]["left"].as_u64().map(|left| left > 0), Some(true));
    server.settle();
}
