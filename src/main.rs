//! `gopherwatch-server`: arguments, log, start, wait, drain, exit code. A runbook; the parts are in the library.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Parser;
use crossbeam_channel::{Receiver, bounded};
use gopherwatch::{
    app::{App, Outcome},
    commands,
    config::{Args, Command, Config, UsageError, load_env_file},
    init, log,
    rules::Record,
};
use slog::{Logger, crit, info};
use tokio::signal::unix::{SignalKind, signal};

/// How long the last lines of the log may take to be written.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// And when the stop has taken all of its time already.
const FLUSH_WAIT_LATE: Duration = Duration::from_millis(50);

const EXIT_NOT_STARTED: u8 = 1;
const EXIT_STAGE_DIED: u8 = 2;
const EXIT_UNFINISHED: u8 = 3;
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let config = match configure() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let (log, flush) = log::queued(config.log_format, config.log_level);
    // Already installed is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = run(config, &log);
    drop(log);
    // Nobody may be reading the log: then the lines that wait are given up, not the exit.
    let (flushed, done) = bounded::<()>(0);
    thread::spawn(move || drop((flush, flushed)));
    let _ = done.recv_timeout(if code == EXIT_UNFINISHED { FLUSH_WAIT_LATE } else { FLUSH_WAIT });
    ExitCode::from(code)
}

fn configure() -> Result<Config, ExitCode> {
    load_env_file().map_err(|err| usage(&err))?;
    let args = Args::try_parse().map_err(|err| {
        // Help and version are answers, not errors. If nobody reads them there is nobody to tell.
        let _ = err.print();
        ExitCode::from(if err.use_stderr() { EXIT_USAGE } else { 0 })
    })?;
    if let Some((command, record)) = args.subcommand() {
        return Err(without_server(&args, command, record));
    }
    Config::resolve(args).map_err(|err| usage(&err))
}

/// Runs a subcommand, which needs neither data nor ports.
fn without_server(args: &Args, command: &Command, record: Option<Record>) -> ExitCode {
    let said = match command {
        Command::Init { listen, hosts, http_port, dir, keep } => commands::init(&init::Options {
            listen: listen.clone(),
            http_port: *http_port,
            hosts: hosts.clone(),
            dir: dir.clone().unwrap_or_else(|| args.data_dir().to_owned()),
            keep: *keep,
            program: env::args().next().unwrap_or_else(|| "gopherwatch-server".to_owned()),
        }),
        Command::Check { file } => commands::check(file, record),
        Command::Test { files } => commands::test(files, record),
    };
    // Whoever reads no further has heard enough; the exit code says the same.
    let _ = io::stdout().write_all(said.text.as_bytes());
    let _ = io::stderr().write_all(said.faults.as_bytes());
    ExitCode::from(if said.is_good { 0 } else { EXIT_USAGE })
}

#[expect(clippy::print_stderr, reason = "there is no log before the configuration is known")]
fn usage(err: &UsageError) -> ExitCode {
    eprintln!("gopherwatch-server: {err}");
    ExitCode::from(EXIT_USAGE)
}

fn run(config: Config, log: &Logger) -> u8 {
    let signals = match signals() {
        Ok(signals) => signals,
        Err(err) => {
            crit!(log, "cannot listen for signals"; "error" => %err);
            return EXIT_NOT_STARTED;
        }
    };
    let app = match App::start(config, log) {
        Ok(app) => app,
        Err(err) => {
            crit!(log, "could not start"; "error" => log::chain(&err));
            return EXIT_NOT_STARTED;
        }
    };
    let all_alive = app.wait(&signals.stop, &signals.reload);
    let outcome = app.drain(all_alive);
    info!(log, "shutdown ended"; "outcome" => ?outcome);
    match outcome {
        Outcome::Clean => 0,
        Outcome::StageDied => EXIT_STAGE_DIED,
        Outcome::Unfinished => EXIT_UNFINISHED,
    }
}

/// What the operator says by signals.
struct Signals {
    /// A message at the first SIGTERM or SIGINT. The second ends the process at once: what was receipted is durable.
    stop: Receiver<()>,
    /// A message at SIGHUP.
    reload: Receiver<()>,
}

fn signals() -> std::io::Result<Signals> {
    let (first, stop) = bounded(1);
    let (again, reload) = bounded(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int, mut hup, mut too_large) = {
        let _inside = runtime.enter();
        // A write past the limit on file sizes is then an error like a full disk's; the signal alone would end us.
        let too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(too_large)?,
        )
    };
    let watch = async move {
        let mut n_stops = 0;
        loop {
            tokio::select! {
                _ = term.recv() => n_stops += 1,
                _ = int.recv() => n_stops += 1,
                // One that waits is as good as two: the rules are read after it.
                _ = hup.recv() => drop(again.try_send(())),
                _ = too_large.recv() => {}
            }
            match n_stops {
                0 => {}
                // The server may not wait yet: then it finds the message when it does.
                1 => {
                    let _ = first.try_send(());
                }
                _ => std::process::exit(i32::from(EXIT_UNFINISHED)),
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(Signals { stop, reload })
}
