//! What is read on this host: its own figures, the services' processes, StatsD's port and socket, scraped targets.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::Path,
    time::Duration,
};

use gopherwatch_client::error::chain;
use slog::{Discard, Logger, o};
use tokio::time::{sleep, timeout};

use super::{Finding, buffer};
use crate::{
    agent::{Options, Subject},
    sources::{
        Round, Source,
        host::{Host, WARM_UP},
        process::{Processes, Watch},
        scrape,
        statsd::is_orphaned,
    },
};

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
        findings.extend(options.statsd.socket.as_deref().map(statsd_socket));
    }
    for watch in &options.processes {
        findings.push(process(watch, &options.instance).await);
    }
    for target in &options.scrape {
        findings.push(target_of(target, options.interval).await);
    }
    findings.push(buffer::look(options.buffer.spool_dir.as_deref()));
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

/// As the agent does it: programs of every user are to send there.
fn statsd_socket(path: &Path) -> Finding {
    let doubtful =
        |says: String, advice: &str| Finding::doubtful("statsd", format!("{}: {says}", path.display()), advice);
    if path.symlink_metadata().is_ok() && !is_orphaned(path) {
        return match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
            Ok(()) => doubtful(
                "somebody receives there".to_owned(),
                "fine if it is the running agent; if not, give --statsd-socket another path",
            ),
            Err(err) => doubtful(
                format!("it is there, and no socket of an agent ({err})"),
                "give --statsd-socket a path where nothing is",
            ),
        };
    }
    // Beside it, for it may be a second's work of an agent that starts.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let bound = UnixDatagram::bind(&beside);
    let _ = fs::remove_file(&beside);
    match bound {
        Ok(_) => Finding::fine("statsd", format!("a socket can be made at {}", path.display())),
        Err(err) => {
            let advice = match err.kind() {
                ErrorKind::NotFound => "make its directory first, owned by the agent's user",
                ErrorKind::PermissionDenied => "let the agent's user write to its directory",
                ErrorKind::InvalidInput => "a socket's path has about 100 bytes: give --statsd-socket a shorter one",
                _ => "give --statsd-socket a path that the agent can make a socket at",
            };
            doubtful(err.to_string(), advice)
        }
    }
}

async fn target_of(target: &scrape::Target, interval: Duration) -> Finding {
    let scrape::Target { service, url, .. } = target;
    let failed = |why: String, advice: &str| Finding::doubtful("scrape", format!("{service}: {why}"), advice);
    let should = format!("`curl {url}` should print metrics in Prometheus' text format");
    // No longer than the agent itself would.
    let wait = scrape::Pace::at(interval).wait;
    match timeout(wait, scrape::n_samples(target)).await {
        Ok(Ok(0)) => failed("it answers, and nothing in it is a metric".to_owned(), &should),
        Ok(Ok(n)) => Finding::fine("scrape", format!("{service}: {n} samples at {url}")),
        Ok(Err(err)) => failed(chain(&err), &should),
        Err(_) => failed(
            format!("no answer within {wait:?}, which is all that --interval leaves it"),
            "give the agent a longer --interval if it needs that long: `time curl` says so",
        ),
    }
}
