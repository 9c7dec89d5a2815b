//! What the operator said: flags over environment over `.env`, checked and turned into what each stage is told.
//!
//! Two types: [`Args`] as it was written, [`Config`] as it is meant. Everything wrong here is the operator's to mend:
//! the message names the flag or line and says what to do.

mod args;
mod environment;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use args::{Args, Command};
pub use environment::load_env_file;

use crate::{
    doors::{self, Hosts, TlsFiles},
    log::{Format, chain},
    rule_file::{Loaded, Receiver, RuleFile, RuleFileError},
    rules::RuleSet,
    store::MySqlOptions,
};

/// How long SQLite keeps resolved alerts unless told otherwise; MySQL keeps them for ever.
const SQLITE_RETENTION: Duration = Duration::from_secs(90 * 86_400);
/// A lane holds at least one whole chunk, as `Dispatcher::new` sees to.
const MIN_QUEUE_REPORTS_PER_WORKER: usize = 512;
/// A smaller journal would be full with its own tables and one storm of alerts.
const MIN_JOURNAL_BYTES: u64 = 1 << 20;
/// More lanes than this would each have next to nothing to do.
const MAX_WORKERS: usize = 256;

/// Where the alert history is.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// In a MySQL or MariaDB database.
    MySql(MySqlOptions),
    /// In a file of the data directory.
    Sqlite,
}

/// What the server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where agents connect.
    pub grpc_addr: SocketAddr,
    /// Where REST answers.
    pub http_addr: SocketAddr,
    /// Who may come in.
    pub doors: doors::Settings,
    /// Where the rules are.
    pub rule_file: RuleFile,
    /// What stood there; `None`: there was no file.
    pub rule_text: Option<String>,
    /// The rules to begin with, which this makes.
    pub rules: RuleSet,
    /// Who is told of alerts to begin with.
    pub receivers: Vec<Receiver>,
    /// Where journal and embedded store are.
    pub data_dir: PathBuf,
    /// Lanes.
    pub n_workers: usize,
    /// Threads that share a lane's large batches: one per core, so that a few lanes can use them all.
    pub n_helpers: usize,
    /// Reports that may wait in all lanes together.
    pub queue_reports: usize,
    /// How long resolved alerts are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// Silence after which an instance is stale; `None`: as `absent()`.
    pub stale_after: Option<Duration>,
    /// Silence after which an instance is forgotten.
    pub forget_after: Duration,
    /// Largest size of the journal, in bytes.
    pub journal_max: u64,
    /// Instances in all.
    pub max_instances: usize,
    /// Instances of one stream.
    pub max_instances_per_stream: usize,
    /// How long a graceful stop may take.
    pub shutdown_timeout: Duration,
    /// Whether a stop gives the store everything first.
    pub drain_store: bool,
    /// How log lines look.
    pub log_format: Format,
    /// Lines below this level are not written.
    pub log_level: slog::Level,
    /// Where the alert history is.
    pub store: StoreConfig,
    /// What the operator should hear about once there is a log.
    pub warnings: Vec<String>,
}

/// What is wrong, and what to do about it. The program exits 64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Config {
    /// Checks the arguments, reads the rule file and looks at the environment.
    pub fn resolve(args: Args) -> Result<Self, UsageError> {
        let tls = tls_files(&args)?;
        let hosts = Hosts::new(args.http_addr.ip(), &args.allowed_hosts).map_err(|wrong| {
            UsageError(format!(
                "--allowed-host `{wrong}`: use a host name or an address alone, such as monitor.example"
            ))
        })?;
        let doors = environment::doors(tls, hosts)?;
        let open_doors = open_doors(&args, &doors)?;
        if !(1..=MAX_WORKERS).contains(&args.workers) {
            return Err(UsageError(format!("--workers {}: use 1 to {MAX_WORKERS}", args.workers)));
        }
        let min_queue_reports = MIN_QUEUE_REPORTS_PER_WORKER * args.workers;
        if args.queue_reports < min_queue_reports {
            let (given, workers) = (args.queue_reports, args.workers);
            return Err(UsageError(format!(
                "--queue-reports {given}: use {min_queue_reports} or more with {workers} workers"
            )));
        }
        if args.journal_max < MIN_JOURNAL_BYTES {
            return Err(UsageError("--journal-max: use 1MiB or more".to_owned()));
        }
        let store = environment::store()?;
        let default_retention = match store {
            StoreConfig::MySql(_) => None,
            StoreConfig::Sqlite => Some(SQLITE_RETENTION),
        };
        let rule_file = RuleFile::new(args.config, args.record);
        let bad_rules = |err: RuleFileError| UsageError(chain(&err));
        let rule_text = rule_file.read().map_err(bad_rules)?;
        let Loaded { rules, receivers } = rule_file.load(rule_text.as_deref()).map_err(bad_rules)?;
        Ok(Self {
            grpc_addr: args.grpc_addr,
            http_addr: args.http_addr,
            doors,
            rule_file,
            rule_text,
            rules,
            receivers,
            data_dir: args.data_dir,
            n_workers: args.workers,
            n_helpers: args::cores(),
            queue_reports: args.queue_reports,
            retention: args.retention.or(default_retention),
            stale_after: args.stale_after,
            forget_after: args.forget_after,
            journal_max: args.journal_max,
            max_instances: args.max_instances,
            max_instances_per_stream: args.max_instances_per_stream,
            shutdown_timeout: args.shutdown_timeout,
            drain_store: args.drain_store,
            log_format: args.log_format.unwrap_or_else(Format::fitting),
            log_level: args.log_level,
            store,
            warnings: open_doors.into_iter().chain(environment::warnings()).collect(),
        })
    }
}

/// Certificate and key, or neither.
fn tls_files(args: &Args) -> Result<Option<TlsFiles>, UsageError> {
    let Args { tls_cert, tls_key, tls_client_ca: client_ca, .. } = args.clone();
    let missing = |given: &str, other: &str, what: &str| {
        Err(UsageError(format!("{given} needs {other}, {what}: `gopherwatch-server init` makes what TLS needs")))
    };
    match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key, client_ca })),
        (Some(_), None) => missing("--tls-cert", "--tls-key", "the key of the certificate"),
        (None, Some(_)) => missing("--tls-key", "--tls-cert", "the certificate of the key"),
        (None, None) if client_ca.is_some() => {
            missing("--tls-client-ca", "--tls-cert and --tls-key", "the server's own certificate and its key")
        }
        (None, None) => Ok(None),
    }
}

/// Refuses addresses that strangers can reach, unless they need TLS and a token there, or the operator insists: then what to
/// warn of.
fn open_doors(args: &Args, doors: &doors::Settings) -> Result<Vec<String>, UsageError> {
    let mut warnings = Vec::new();
    for (flag, addr, has_token, token) in [
        ("--grpc-addr", args.grpc_addr, doors.keys.guard_agents(), "GOPHERWATCH_AGENT_TOKEN"),
        ("--http-addr", args.http_addr, doors.keys.guard_rest(), "GOPHERWATCH_READ_TOKEN or GOPHERWATCH_ADMIN_TOKEN"),
    ] {
        let missing: Vec<&str> = [(doors.tls.is_some(), "TLS (--tls-cert, --tls-key)"), (has_token, token)]
            .into_iter()
            .filter_map(|(has, what)| (!has).then_some(what))
            .collect();
        if addr.ip().is_loopback() || missing.is_empty() {
            continue;
        }
        let said =
            format!("{flag} {addr} can be reached from other hosts, and there is no {}", missing.join(" and no "));
        if !args.insecure {
            return Err(UsageError(format!(
                "{said}: `gopherwatch-server init --listen {}` makes certificate and tokens and says how to use them; or \
                 listen on 127.0.0.1, or say --insecure if the network is yours alone",
                args.grpc_addr
            )));
        }
        warnings.push(format!("{said}: whoever can reach it may read along or come in (--insecure)"));
    }
    Ok(warnings)
}
