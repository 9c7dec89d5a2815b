//! An agent, and what it has reported: the figures of each service as the double of the server has them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;

use gopherwatch_client::double::{Double, Listening, Seen};
use tokio::process::Child;

use crate::support::program;

/// The double, and the agent that reports to it, killed if the test fails.
pub(crate) struct Agent {
    pub(crate) double: Double,
    pub(crate) child: Child,
    _listening: Listening,
}

/// One report: its number, whether it is the goodbye, and its figures.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) sequence: u64,
    pub(crate) leaving: bool,
    figures: BTreeMap<String, f64>,
}

impl Report {
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    pub(crate) fn value(&self, name: &str) -> f64 {
        self.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", self.figures))
    }
}

impl Agent {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let double = Double::new([]);
        let listening = double.listen("127.0.0.1:0").await;
        let child = program()
            .args(["--server", &listening.addr.to_string(), "--service", "host", "--instance", "a"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { double, child, _listening: listening }
    }

    /// All reports of a service so far, in order.
    pub(crate) fn of(&self, service: &str) -> Vec<Report> {
        reports(&self.double.streams(), service)
    }

    /// Waits until a service's reports are as wanted, and returns them.
    pub(crate) async fn until(&self, what: &str, service: &str, wanted: impl Fn(&[Report]) -> bool) -> Vec<Report> {
        self.double.until(what, |streams| wanted(&reports(streams, service))).await;
        self.of(service)
    }

    /// Waits until a service's last report is as wanted, and returns it.
    pub(crate) async fn until_last(&self, what: &str, service: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        self.until(what, service, |reports| reports.last().is_some_and(&wanted)).await.pop().unwrap()
    }

    /// The mean of a figure over so many more reports of a service, and what `read` did over the same time.
    pub(crate) async fn mean_beside<T>(
        &self,
        service: &str,
        name: &str,
        n_reports: usize,
        read: impl Fn() -> T,
    ) -> (f64, T, T) {
        let n_before =
            self.until("a figure", service, |all| all.last().is_some_and(|r| r.get(name).is_some())).await.len();
        let before = read();
        let all = self.until("more reports", service, |all| all.len() >= n_before + n_reports).await;
        let after = read();
        let values: Vec<f64> = all[n_before..].iter().map(|report| report.value(name)).collect();
        (values.iter().sum::<f64>() / values.len() as f64, before, after)
    }
}

fn reports(streams: &[Seen], service: &str) -> Vec<Report> {
    let of_service = streams.iter().flat_map(|seen| &seen.reports).filter(|report| report.service_name == service);
    of_service
        .map(|report| Report {
            sequence: report.sequence,
            leaving: report.leaving,
            figures: report.metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect(),
        })
        .collect()
}

/// What a program prints, as numbers; words in between are passed over.
pub(crate) fn numbers_of(program: &str, arguments: &[&str]) -> Vec<f64> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    numbers(&String::from_utf8(output.stdout).unwrap())
}

pub(crate) fn numbers(text: &str) -> Vec<f64> {
    text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Says that nothing was tested, past the harness, which would swallow what a test that passes prints.
pub(crate) fn skipped(because: &str) {
    io::stderr().write_all(format!("\nSKIPPED: {because}\n\n").as_bytes()).unwrap();
}

/// Whether the test, and so what it starts, runs in a cgroup with limits: then percentages are not of the machine.
pub(crate) fn is_limited() -> bool {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let has_limit = |dir: &Path, file: &str| {
        std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(dir).join(file))
            .is_ok_and(|max| !max.starts_with("max"))
    };
    let limited = Path::new(path).ancestors().any(|dir| has_limit(dir, "cpu.max") || has_limit(dir, "memory.max"));
    if limited {
        skipped("this runs in a cgroup with limits: percentages are not compared with the machine's figures");
    }
    limited
}
