//! The command line, as it was written. Each flag has an environment variable `GOPHERWATCH_<FLAG>`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use slog::Level;

use crate::{
    init::Listen,
    log::Format,
    rules::Record,
    units::{parse_duration, parse_size},
};

/// Takes metric reports from agents, raises alerts the moment a report arrives, and keeps their history.
#[derive(Clone, Debug, Parser)]
#[command(name = "gopherwatch-server", version, max_term_width = 120)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Where agents connect, by gRPC
    #[arg(long, env = "GOPHERWATCH_GRPC_ADDR", value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub(super) grpc_addr: SocketAddr,

    /// Where REST answers
    #[arg(long, env = "GOPHERWATCH_HTTP_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(super) http_addr: SocketAddr,

    /// The rule file [default: gopherwatch.toml if it is there, else the built-in rules]
    #[arg(long, env = "GOPHERWATCH_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Where the journal and the embedded store are kept
    #[arg(long, env = "GOPHERWATCH_DATA_DIR", value_name = "DIR", default_value = "./data")]
    pub(super) data_dir: PathBuf,

    /// Threads that evaluate rules [default: one per core]
    #[arg(long, env = "GOPHERWATCH_WORKERS", value_name = "N", default_value_t = cores(), hide_default_value = true)]
    pub(super) workers: usize,

    /// Reports that may wait for evaluation before agents are slowed down
    #[arg(long, env = "GOPHERWATCH_QUEUE_REPORTS", value_name = "N", default_value_t = 65_536)]
    pub(super) queue_reports: usize,

    /// A row per episode or per violating report, for all rules [default: as each rule says, else episode]
    #[arg(long, env = "GOPHERWATCH_RECORD", value_name = "episode|every", value_parser = record, global = true)]
    pub(super) record: Option<Record>,

    /// How long resolved alerts are kept [default: 90d in SQLite, for ever in MySQL]
    #[arg(long, env = "GOPHERWATCH_RETENTION", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) retention: Option<Duration>,

    /// Silence after which an instance is shown as stale [default: 30s or three of its usual gaps, the longer]
    #[arg(long, env = "GOPHERWATCH_STALE_AFTER", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) stale_after: Option<Duration>,

    /// Silence after which an instance is forgotten
    #[arg(long, env = "GOPHERWATCH_FORGET_AFTER", value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(super) forget_after: Duration,

    /// Largest size of the journal
    #[arg(long, env = "GOPHERWATCH_JOURNAL_MAX", value_name = "SIZE", default_value = "4GiB", value_parser = parse_size)]
    pub(super) journal_max: u64,

    /// Instances in all
    #[arg(long, env = "GOPHERWATCH_MAX_INSTANCES", value_name = "N", default_value_t = 200_000)]
    pub(super) max_instances: usize,

    /// Instances of one stream
    #[arg(long, env = "GOPHERWATCH_MAX_INSTANCES_PER_STREAM", value_name = "N", default_value_t = 10_000)]
    pub(super) max_instances_per_stream: usize,

    /// How long a graceful stop may take
    #[arg(long, env = "GOPHERWATCH_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(super) shutdown_timeout: Duration,

    /// Give the store everything before stopping, for a server that will not be started again
    #[arg(long, env = "GOPHERWATCH_DRAIN_STORE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) drain_store: bool,

    /// How log lines look [default: text on a terminal, else json]
    #[arg(long, env = "GOPHERWATCH_LOG_FORMAT", value_name = "json|text", value_parser = format)]
    pub(super) log_format: Option<Format>,

    /// The least level that is logged: critical, error, warning, info, debug or trace
    #[arg(long, env = "GOPHERWATCH_LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub(super) log_level: Level,

    /// The server's certificate for TLS on both ports, in PEM, and behind it those that lead to its authority's
    #[arg(long, env = "GOPHERWATCH_TLS_CERT", value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,

    /// Its key, in PEM, which only the server may read
    #[arg(long, env = "GOPHERWATCH_TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,

    /// Agents must show a certificate of this authority, in PEM
    #[arg(long, env = "GOPHERWATCH_TLS_CLIENT_CA", value_name = "FILE")]
    pub(super) tls_client_ca: Option<PathBuf>,

    /// A name or address that REST answers to, besides its own; repeat it, or separate them by commas
    #[arg(long = "allowed-host", env = "GOPHERWATCH_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(super) allowed_hosts: Vec<String>,

    /// Allow addresses that other hosts can reach without TLS and a token
    #[arg(long, env = "GOPHERWATCH_INSECURE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) insecure: bool,
}

/// What there is to do besides running the server.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make an authority, a certificate and three tokens for a server that other hosts are to reach, and say how to use them
    Init {
        /// Where the server is to listen: HOST, HOST:PORT or :PORT; 0.0.0.0 is every address
        #[arg(long, value_name = "ADDR")]
        listen: Listen,
        /// Another name or address by which it is reached; repeat it for more of them
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Where REST is to answer, on the same addresses
        #[arg(long, value_name = "PORT", default_value_t = 8080)]
        http_port: u16,
        /// Where to put it all [default: the server's --data-dir]
        #[arg(long = "data-dir", visible_alias = "dir", value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Keep what is there, and make only what is missing
        #[arg(long)]
        keep: bool,
    },
    /// Say what each rule of a file means, and warn of those that cannot work
    Check {
        /// The rule file
        file: PathBuf,
    },
    /// Play the tests of rules in these files, and say where something else happens than they expect
    Test {
        /// Files of tests, each of which names its rule file
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

impl Args {
    /// Where the server's data are.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What is to be done instead of running the server, and the rows that the rules are to write.
    pub fn subcommand(&self) -> Option<(&Command, Option<Record>)> {
        Some((self.command.as_ref()?, self.record))
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn record(word: &str) -> Result<Record, String> {
    [Record::Episode, Record::Every].into_iter().find(|r| r.as_str() == word).ok_or("use episode or every".to_owned())
}

fn format(word: &str) -> Result<Format, String> {
    match word {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        _ => Err("use json or text".to_owned()),
    }
}

fn level(word: &str) -> Result<Level, String> {
    word.parse().map_err(|()| "use critical, error, warning, info, debug or trace".to_owned())
}
