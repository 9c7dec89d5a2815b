//! What durability costs: how long a receipt takes, beside the disk's own fsync, and how long a restart takes with many
//! alerts firing.
//!
//! `make bench-durability`. It starts the server that stands beside it, with SQLite, in a new directory of `--dir`, and
//! prints a table and a line of JSON for each part.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people to run and read")]

mod ack;
#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/process.rs"]
mod process;
mod restart;
#[path = "../common/times.rs"]
mod times;

use std::{fs, path::PathBuf};

use clap::Parser;
use gopherwatch_chaos::server::{Room, Server, Setup};
use tempfile::TempDir;

/// Measures receipts and restarts of a GopherWatch server on this disk.
#[derive(Clone, Debug, Parser)]
#[command(max_term_width = 120)]
struct Args {
    /// Where the data directory is made, and removed again: its disk is what is measured
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The server's binary [default: the one beside this program's folder]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Calls of each shape whose receipts are timed
    #[arg(long, default_value_t = 300)]
    calls: usize,
    /// Alerts that fire as the server is killed
    #[arg(long, default_value_t = 100_000)]
    firing: usize,
    /// Restarts
    #[arg(long, default_value_t = 3)]
    restarts: usize,
}

impl Args {
    fn program(&self) -> PathBuf {
        let beside = || std::env::current_exe().unwrap().with_file_name("../gopherwatch-server");
        let program = self.server.clone().unwrap_or_else(beside);
        program.canonicalize().unwrap_or_else(|err| panic!("{}: {err}: build the server first", program.display()))
    }

    /// A server with the built-in rules and nothing in its journal, and what its files are in.
    fn fresh(&self) -> (Server, TempDir) {
        let folder = tempfile::Builder::new().prefix("gopherwatch-bench-").tempdir_in(&self.dir).unwrap();
        let path = folder.path().canonicalize().unwrap();
        fs::write(path.join("rules.toml"), "# The built-in rules.\n").unwrap();
        let server =
            Server::start(Setup { program: self.program(), folder: path, database_url: None, room: Room::Plenty });
        (server, folder)
    }
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, folder) = args.fresh();
    let fsync = disk::fsync_times(folder.path());
    runtime.block_on(ack::measure(&server, args.calls, &fsync));
    drop(server);
    let (mut server, _folder) = args.fresh();
    runtime.block_on(restart::measure(&mut server, args.firing, args.restarts));
}
