//! A load generator: agents of a made-up fleet, as the server sees them from outside.
//!
//! `cargo run --release --example load -- --streams 64 --services 10000 --reports 4000000 --server-pid $(pidof
//! gopherwatch-server)`. It checks every receipt against what it sent, and prints a table and a line of JSON. It
//! exits 1 if a receipt does not balance or a report went without one.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people to run and read")]

mod call;
mod fleet;
mod history;
#[path = "../common/process.rs"]
mod process;
mod result;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use gopherwatch_proto::MAX_METRICS;
use tokio::{runtime, task::JoinSet, time::sleep};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use call::{CallOptions, Pace, Receipted, call};
use fleet::{Fleet, FleetOptions, Part, sequence};
use result::{Tally, Total};

/// Sends made-up reports to a GopherWatch server and measures it.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 120)]
struct Args {
    /// Where the server takes reports
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    server: String,
    /// SendMetrics streams at once
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Connections that share the streams [default: one per stream]
    #[arg(long)]
    connections: Option<usize>,
    /// Services, of one instance each, spread over the streams
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// Reports in all
    #[arg(long, default_value_t = 1_000_000)]
    reports: u64,
    /// Stop sending after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Share of the reports that violate a rule (cpu_percent > 90), as `1%` or `0.01`
    #[arg(long, default_value = "0", value_parser = share)]
    violating: f64,
    /// Reports per second in all, as `5000` or `5000/s` [default: as fast as the server takes them]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Reports that leave in one write [default: 128, with --rate 1]
    #[arg(long)]
    write: Option<u64>,
    /// Metrics of a report
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    metrics: u16,
    /// Another order of the metrics in each report
    #[arg(long)]
    shuffle: bool,
    /// Metric names of a stream, shared out over its services: behind the two that the built-in rules look at, each report
    /// of a service has the next few of its own
    #[arg(long)]
    names_per_stream: Option<usize>,
    /// Number the reports, in an epoch of this run
    #[arg(long)]
    numbered: bool,
    /// Reports after which a stream collects its receipt and is opened again [default: one receipt at the end]
    #[arg(long)]
    receipt_every: Option<u64>,
    /// The server's process: measures its CPU seconds and memory
    #[arg(long)]
    server_pid: Option<u32>,
    /// The SQLite file of the server's alert history: waits until it has a row for each episode, and no more
    #[arg(long)]
    history: Option<PathBuf>,
    /// Threads of the generator
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Args {
    fn fleet(&self) -> FleetOptions {
        let n_metrics = usize::from(self.metrics);
        // As many as a report has at least: no name comes twice in one.
        let n_own = |n_names: usize| n_names.div_ceil(self.services / self.streams).max(n_metrics);
        let n_own = self.names_per_stream.map_or(0, n_own);
        FleetOptions {
            n_services: self.services,
            n_metrics,
            n_own,
            violating: self.violating,
            numbered: self.numbered,
            shuffled: self.shuffle,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent, 100.0));
    let share = number.trim().parse::<f64>().map_err(|err| err.to_string())? / unit;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("use 0% to 100%".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.trim_end_matches("/s").parse::<f64>().map_err(|err| err.to_string())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("use more than 0".to_owned()) }
}

/// How often a call without a receipt is made again.
const MAX_RETRIES: u32 = 60;
/// How long to wait before that when the server does not say.
const RETRY_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if args.streams == 0 || args.services < args.streams || args.connections == Some(0) || args.write == Some(0) {
        eprintln!("load: every stream needs a service, a connection and something to write");
        return ExitCode::from(64);
    }
    let fleet = args.fleet();
    if fleet.n_names() > MAX_METRICS {
        eprintln!("load: {} names are too many for one service, which may have {MAX_METRICS}", fleet.n_names());
        return ExitCode::from(64);
    }
    let mut builder = match args.threads {
        0 | 1 => runtime::Builder::new_current_thread(),
        n => {
            let mut builder = runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    let total =
        builder.enable_all().build().map_err(|err| err.to_string()).and_then(|rt| rt.block_on(run(&args, fleet)));
    match total {
        Ok(mut total) => {
            if let Some(path) = &args.history {
                total.compare_rows(|n_episodes| history::rows(path, n_episodes));
            }
            total.print();
            ExitCode::from(u8::from(!total.is_right()))
        }
        Err(err) => {
            eprintln!("load: {err}");
            ExitCode::from(1)
        }
    }
}

async fn run(args: &Args, fleet: FleetOptions) -> Result<Total, String> {
    let n_connections = args.connections.unwrap_or(args.streams).min(args.streams);
    let mut channels = Vec::new();
    for _ in 0..n_connections {
        let endpoint = Endpoint::from_shared(args.server.clone()).map_err(|err| err.to_string())?.tcp_nodelay(true);
        channels.push(endpoint.connect().await.map_err(|err| format!("connecting to {}: {err:?}", args.server))?);
    }
    let fleet = Arc::new(Fleet::new(fleet));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|err| err.to_string())?;
    let epoch = if args.numbered { now.as_nanos() as u64 } else { 0 };
    let before = result::Before::now(args.server_pid);
    let began = Instant::now();
    let mut streams = JoinSet::new();
    for stream_idx in 0..args.streams {
        let n_streams = args.streams;
        let share = args.reports / n_streams as u64 + u64::from((stream_idx as u64) < args.reports % n_streams as u64);
        // Spread, so that a thousand quiet streams do not all write at once.
        let phase = Duration::from_secs_f64(args.rate.map_or(0.0, |rate| stream_idx as f64 / rate));
        let options = CallOptions {
            fleet: fleet.clone(),
            part: Part { stream_idx, n_streams, n_services: args.services },
            positions: 0..share,
            n_write: args.write.unwrap_or(if args.rate.is_some() { 1 } else { 128 }),
            pace: args.rate.map(|rate| Pace { start: began + phase, rate: rate / n_streams as f64 }),
            until: args.seconds.map(|seconds| began + Duration::from_secs_f64(seconds)),
            epoch,
        };
        let n_call = args.receipt_every.unwrap_or(share).max(1);
        streams.spawn(stream(channels[stream_idx % n_connections].clone(), options, n_call));
    }
    let mut tally = Tally::default();
    while let Some(stream) = streams.join_next().await {
        tally.merge(stream.map_err(|err| err.to_string())?);
    }
    Ok(Total::new(tally, began.elapsed(), before))
}

/// All calls of one stream, one after the other.
async fn stream(mut channel: Channel, options: CallOptions, n_call: u64) -> Tally {
    let mut tally = Tally::default();
    let all = options.positions.clone();
    let is_over = || options.until.is_some_and(|until| Instant::now() >= until);
    let mut next = all.start;
    let mut n_retries = 0;
    while next < all.end && !is_over() {
        let positions = next..all.end.min(next + n_call);
        match call(&mut channel, CallOptions { positions, ..options.clone() }).await {
            Ok(receipted) => {
                next = receipted.sent.start + receipted.summary.received;
                n_retries = 0;
                tally.take(&receipted, episodes(&options, &receipted));
            }
            Err(status) => {
                tally.refused(&status);
                n_retries += 1;
                if n_retries > MAX_RETRIES || !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) {
                    eprintln!("load: a stream gave up: {status:?}");
                    break;
                }
                sleep(pushback(&status)).await;
            }
        }
    }
    tally.unsent += if options.until.is_some() { 0 } else { all.end - next };
    tally
}

fn pushback(status: &Status) -> Duration {
    let pushback = status.metadata().get("grpc-retry-pushback-ms").and_then(|ms| ms.to_str().ok()?.parse().ok());
    pushback.map_or(RETRY_WAIT, Duration::from_millis)
}

/// What the receipted reports were, by the fleet's own account.
fn episodes(options: &CallOptions, receipted: &Receipted) -> result::Sent {
    let start = receipted.sent.start;
    let received = start..start + receipted.summary.received.min(receipted.sent.end - start);
    let last_sequence = match received.end.checked_sub(1) {
        Some(last) if options.epoch > 0 && !received.is_empty() => sequence(options.part.report(last).1),
        _ => 0,
    };
    let mut sent = result::Sent { n_violating: 0, n_episodes: 0, last_sequence };
    if options.fleet.has_violations() {
        for (service, round) in received.map(|position| options.part.report(position)) {
            sent.n_violating += u64::from(options.fleet.is_violating(service, round));
            sent.n_episodes += u64::from(options.fleet.is_raising(service, round));
        }
    }
    sent
}
