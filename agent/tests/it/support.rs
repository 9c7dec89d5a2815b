//! An agent with its log, and what it reported.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gopherwatch_client::double::{Double, Listening};
use gopherwatch_proto::v1::MetricReport;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};

/// The program, without the caller's environment and away from a `.env` that may stand in the repository.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gopherwatch-agent"));
    command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// An agent of service `host`, instance `h1`, that reports to a double; killed when dropped.
pub(crate) struct Agent {
    pub(crate) process: Child,
    double: Double,
    _server: Listening,
    log: NamedTempFile,
}

impl Agent {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, None).await
    }

    pub(crate) async fn start_with(arguments: &[&str], environment: Option<(&str, &str)>) -> Self {
        Self::launch("200ms", arguments, environment).await
    }

    /// One that reports less often.
    pub(crate) async fn start_every(interval: &str, arguments: &[&str]) -> Self {
        Self::launch(interval, arguments, None).await
    }

    async fn launch(interval: &str, arguments: &[&str], environment: Option<(&str, &str)>) -> Self {
        let double = Double::new([]);
        let server = double.listen("127.0.0.1:0").await;
        let log = NamedTempFile::new().unwrap();
        let process = program()
            .args(["--server", &server.addr.to_string(), "--service", "host", "--instance", "h1"])
            .args(["--log-format", "json", "--interval", interval])
            .args(arguments)
            .envs(environment)
            .stderr(Stdio::from(log.reopen().unwrap()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, double, _server: server, log }
    }

    /// Its log lines that have this in them.
    pub(crate) fn lines(&self, part: &str) -> Vec<String> {
        let log = fs::read_to_string(self.log.path()).unwrap();
        log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// The first such line, waited for.
    pub(crate) async fn line(&self, part: &str) -> String {
        self.until(part, || self.lines(part).into_iter().next()).await
    }

    /// Where it takes StatsD by UDP.
    pub(crate) async fn statsd_addr(&self) -> String {
        let line = self.line("taking StatsD by UDP").await;
        let (_, rest) = line.split_once("\"addr\":\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// The reports of a `service/instance`, in order.
    pub(crate) fn reports(&self, name: &str) -> Vec<MetricReport> {
        let is_it = |report: &MetricReport| format!("{}/{}", report.service_name, report.instance) == name;
        self.double.streams().into_iter().flat_map(|seen| seen.reports).filter(is_it).collect()
    }

    /// The last reading of each of its metrics.
    pub(crate) fn last(&self, name: &str) -> BTreeMap<String, f64> {
        let reports = self.reports(name);
        reports.into_iter().flat_map(|report| report.metrics).map(|metric| (metric.name, metric.value)).collect()
    }

    /// Waits until the metrics have these values, in whichever reports.
    pub(crate) async fn until_last(&self, name: &str, wanted: &[(&str, f64)]) {
        let is_so = || {
            let last = self.last(name);
            let lacking = wanted.iter().find(|(metric, value)| last.get(*metric) != Some(value));
            lacking.is_none().then_some(())
        };
        let wait = tokio::time::timeout(WAIT, async {
            while is_so().is_none() {
                tokio::time::sleep(POLL).await;
            }
        });
        assert!(wait.await.is_ok(), "{name}: {wanted:?} did not come: {:#?}", self.last(name));
    }

    /// The first reading of a metric, waited for.
    pub(crate) async fn first(&self, name: &str, metric: &str) -> f64 {
        let find =
            || self.reports(name).iter().flat_map(|report| &report.metrics).find(|it| it.name == metric).cloned();
        self.until(metric, find).await.value
    }

    pub(crate) async fn until<T>(&self, what: &str, found: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < deadline, "{what} did not come; its log:\n{}", self.lines("").join("\n"));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Resident memory in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

const WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
