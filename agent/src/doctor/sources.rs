//! What is read on this host: its own figures, the services' processes, StatsD's port, scraped targets, the spool.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use gopherwatch_client::error::chain;
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use super::Finding;
use crate::{
    agent::{Options, Subject},
    sources::{
        Round, Source,
        host::{Host, WARM_UP},
        process::{Processes, Watch},
        scrape,
    },
};

/// For a target to answer.
const WAIT: Duration = Duration::from_secs(5);
/// What any host should be able to say.
const EXPECTED: [(&str, &str); 5] = [
    ("cpu_percent", "/proc/stat cannot be read"),
    ("memory_percent", "/proc/meminfo cannot be read"),
    ("disk_percent", "the agent sees no writable file system: in a container, mount those that it is to watch"),
    ("network_rx_bytes", "/proc/net/dev cannot be read"),
    ("load_1m", "/proc/loadavg cannot be read"),
];

pub(super) async fn look(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Subject::Host { service } = &options.subject {
        findings.push(host(service, &options.instance).await);
        findings.extend(options.statsd.addr.map(statsd));
    }
    for watch in &options.processes {
        findings.push(process(watch, &options.instance).await);
    }
    for target in &options.scrape {
        findings.push(target_of(target).await);
    }
    findings.push(buffer(options.buffer.spool_dir.as_deref()));
    findings
}

/// The names of an instance's figures after one round of this source.
fn names(source: &mut dyn Source) -> BTreeSet<String> {
    let mut round = Round::default();
    source.read(&mut round);
    round.into_readings().flat_map(|(_, _, metrics)| metrics).map(|metric| metric.name).collect()
}

async fn host(service: &str, instance: &str) -> Finding {
    let mut host = match Host::new(service.to_owned(), instance.to_owned()) {
        Ok(host) => host,
        Err(err) => return Finding::broken("host", chain(&err), "the agent needs /proc"),
    };
    sleep(WARM_UP).await;
    let names = names(&mut host);
    let missing: Vec<_> = EXPECTED.iter().filter(|(name, _)| !names.contains(*name)).collect();
    if missing.is_empty() {
        return Finding::fine("host", format!("{} figures of {service}/{instance}", names.len()));
    }
    let what: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let why: Vec<_> = missing.iter().map(|(_, why)| *why).collect();
    Finding::doubtful("host", format!("it has no {}", what.join(", ")), why.join("; "))
}

async fn process(watch: &Watch, instance: &str) -> Finding {
    let mut processes = Processes::new(vec![watch.clone()], instance.to_owned(), Logger::root(Discard, o!()));
    sleep(WARM_UP).await;
    let names = names(&mut processes);
    let service = &watch.service;
    if names.is_empty() {
        let says = format!("{service}: no process fits {}", watch.pattern);
        let advice = "`ps -eo args` shows what patterns are searched in; a service that is not running is not reported";
        return Finding::doubtful("process", says, advice);
    }
    if !names.contains("open_files") {
        let says = format!("{service} runs; how many files it has open is closed to this user");
        return Finding::doubtful(
            "process",
            says,
            "run the agent as root or with CAP_SYS_PTRACE, or do without open_files",
        );
    }
    Finding::fine("process", format!("{service} runs: {} figures", names.len()))
}

fn statsd(addr: SocketAddr) -> Finding {
    match UdpSocket::bind(addr) {
        Ok(_) => Finding::fine("statsd", format!("UDP port {addr} is free")),
        Err(err) if err.kind() == ErrorKind::AddrInUse => {
            let advice =
                "fine if it is the running agent; if it is another StatsD, give --statsd-addr another port, or off";
            Finding::doubtful("statsd", format!("UDP port {addr} is taken"), advice)
        }
        Err(err) => Finding::doubtful("statsd", format!("{addr}: {err}"), "--statsd-addr has an address of this host"),
    }
}

async fn target_of(target: &scrape::Target) -> Finding {
    let scrape::Target { service, url, .. } = target;
    let failed = |why: String| {
        let advice = format!("`curl {url}` should print metrics in Prometheus' text format");
        Finding::doubtful("scrape", format!("{service}: {why}"), advice)
    };
    match timeout(WAIT, scrape::n_samples(target)).await {
        Ok(Ok(0)) => failed("it answers, and nothing in it is a metric".to_owned()),
        Ok(Ok(n)) => Finding::fine("scrape", format!("{service}: {n} samples at {url}")),
        Ok(Err(err)) => failed(chain(&err)),
        Err(_) => failed(format!("no answer within {WAIT:?}")),
    }
}

fn buffer(spool_dir: Option<&Path>) -> Finding {
    let Some(dir) = spool_dir else {
        return Finding::fine("buffer", "in memory: what waits is lost if the agent is killed (--spool-dir keeps it)");
    };
    if !dir.exists() {
        return Finding::fine("buffer", format!("{} is made at the start", dir.display()));
    }
    let path = dir.join("doctor");
    let written = fs::write(&path, "can this be written?").and_then(|()| fs::remove_file(&path));
    match written {
        Ok(()) => Finding::fine("buffer", format!("{} can be written", dir.display())),
        Err(err) => {
            let advice = "give it to the agent's user; until then the agent keeps reports in memory";
            Finding::doubtful("buffer", format!("{}: {err}", dir.display()), advice)
        }
    }
}
