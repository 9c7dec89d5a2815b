//! The program: `.env`, arguments, logger, run, exit code.
//!
//! Exit codes: 0 clean, 64 wrong usage, 1 could not start (for `send`: not accepted; for `doctor`: not
//! able to work).

use std::process::ExitCode;

use gopherwatch_agent::args::{self, Task};
use gopherwatch_agent::{agent, doctor, log, once};
use gopherwatch_client::error::chain;
use gopherwatch_environment::{load_env_file, unknown_names};
use slog::{crit, warn};
use tokio::runtime::{Builder, Runtime};

const USAGE: u8 = 64;

fn main() -> ExitCode {
    if let Err(err) = load_env_file() {
        complain(&chain(&err));
        return ExitCode::from(USAGE);
    }
    let task = match args::parse(std::env::args_os()) {
        Ok(task) => task,
        Err(refusal) => {
            // Nothing can be done about a closed terminal; the exit code still tells.
            let _ = refusal.print();
            return ExitCode::from(if refusal.use_stderr() { USAGE } else { 0 });
        }
    };
    // One thread is enough: the work is a few hundred bytes a second, and each further thread costs memory.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return complain(&format!("starting the runtime: {err}")),
    };
    let unknown = unknown_names();
    match task {
        Task::Send(options) => {
            unknown.iter().for_each(|name| mention(&format!("unknown environment variable {name}")));
            options.warning().iter().for_each(|warning| mention(warning));
            let outcome = runtime.block_on(once::run(&options));
            end(runtime);
            match outcome {
                Ok(outcome) => say(&outcome),
                Err(err) => complain(&chain(&err)),
            }
        }
        Task::Doctor(options) => {
            let report = runtime.block_on(doctor::run(&options, &unknown));
            end(runtime);
            examined(&report)
        }
        Task::Run(options) => {
            let (log, flush_at_exit) = log::build(&options.log);
            for name in &unknown {
                warn!(log, "unknown environment variable {}", name);
            }
            let code = match runtime.block_on(agent::run(options, log.clone())) {
                Ok(()) => ExitCode::SUCCESS,
                Err(err) => {
                    crit!(log, "could not run"; "error" => chain(&err));
                    ExitCode::FAILURE
                }
            };
            end(runtime);
            // The guard writes out what is queued, once the last logger is gone.
            drop((log, flush_at_exit));
            code
        }
    }
}

/// Without waiting for a thread that asks for a name: a name server that does not answer would hold up the exit.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the outcome is what `send` is for")]
fn say(outcome: &once::Outcome) -> ExitCode {
    println!("{outcome}");
    if outcome.is_accepted() {
        ExitCode::SUCCESS
    } else {
        eprintln!("the server refused the report; its log says why (\"refused a report\")");
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "the report is what `doctor` is for")]
fn examined(report: &doctor::Report) -> ExitCode {
    println!("{report}");
    if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stderr, reason = "there is no logger to say it")]
fn mention(warning: &str) {
    eprintln!("warning: {warning}");
}

#[expect(clippy::print_stderr, reason = "there is no logger to say it")]
fn complain(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
