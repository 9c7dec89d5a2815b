//! How soon an alert is visible in the store, and how many of them the store takes a second.
//!
//! `make bench-latency` and `make bench-storm`. It starts the server that stands beside it, with SQLite or a private
//! MariaDB, has the load generator send, reads the rows past the server, and prints a table and lines of JSON.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people to run and read")]

#[path = "../common/disk.rs"]
mod disk;
mod latency;
mod load;
#[path = "../common/process.rs"]
mod process;
mod store;
mod storm;
#[path = "../common/times.rs"]
mod times;

use std::fs;

use clap::{Parser, Subcommand};

use store::Kind;

/// Measures the way of alerts into the store.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 120)]
struct Args {
    /// Where the history is kept; both, one after the other, if it is not given
    #[arg(long, global = true)]
    store: Option<Kind>,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// From a reading sent until its row is visible, beside 5,000 reports a second: calm ones, then violating ones
    Latency {
        /// Readings whose way is timed
        #[arg(long, default_value_t = 500)]
        probes: usize,
    },
    /// Rows a second when every report violates and has a row of its own
    Storm {
        /// Services
        #[arg(long, default_value_t = 10_000)]
        services: u64,
        /// Rows in all
        #[arg(long, default_value_t = 300_000)]
        rows: u64,
    },
}

fn main() {
    let args = Args::parse();
    let kinds = args.store.map_or_else(|| vec![Kind::Sqlite, Kind::Mysql], |kind| vec![kind]);
    match args.what {
        What::Latency { probes } => latency::measure(&kinds, probes),
        What::Storm { services, rows } => storm::measure(&kinds, services, rows),
    }
}

/// The average of the last minute: whoever reads a figure should know what else there was to do.
fn load_average() -> f64 {
    fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap().parse().unwrap()
}
