//! The program: arguments, logger, run, exit code.
//!
//! Exit codes: 0 clean, 64 wrong usage, 1 could not start (for `send`: not accepted; for `doctor`: not
//! able to work).

use std::process::ExitCode;

use gopherwatch_agent::args::{self, Task};
use gopherwatch_agent::{agent, doctor, log, once};
use gopherwatch_client::error::chain;
use slog::crit;

const USAGE: u8 = 64;

fn main() -> ExitCode {
    let task = match args::parse(std::env::args_os()) {
        Ok(task) => task,
        Err(refusal) => {
            // Nothing can be done about a closed terminal; the exit code still tells.
            let _ = refusal.print();
            return ExitCode::from(if refusal.use_stderr() { USAGE } else { 0 });
        }
    };
    // One thread is enough: the work is a few hundred bytes a second, and each further thread costs memory.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return complain(&format!("starting the runtime: {err}")),
    };
    match task {
        Task::Send(options) => match runtime.block_on(once::run(&options)) {
            Ok(outcome) => say(&outcome),
            Err(err) => complain(&chain(&err)),
        },
        Task::Doctor(options) => examined(&runtime.block_on(doctor::run(&options))),
        Task::Run(options) => {
            let (log, flush_at_exit) = log::build(&options.log);
            let code = match runtime.block_on(agent::run(options, log.clone())) {
                Ok(()) => ExitCode::SUCCESS,
                Err(err) => {
                    crit!(log, "could not run"; "error" => chain(&err));
                    ExitCode::FAILURE
                }
            };
            // The guard writes out what is queued, once the last logger is gone.
            drop((runtime, log, flush_at_exit));
            code
        }
    }
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
fn complain(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
