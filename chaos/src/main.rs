//! `chaos run` breaks a server in every way and says what came of it; `chaos agent` is the agent that it kills.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use gopherwatch_chaos::{
    agent::{self, Load},
    scenario::{
        Outage, Outcome, Run, Victim, full_disk, full_journal, hops, kills, outage, pauses, reply_cuts, shutdowns,
        stream_cuts,
    },
    table::Table,
    world::{Programs, Store},
};

/// Kills of the server in a full run.
const USUAL_ROUNDS: u64 = 200;

#[derive(Debug, Parser)]
#[command(about = "Breaks GopherWatch in every way that its promises name, and checks that nothing was lost")]
enum Command {
    /// Runs scenarios and shows a table; code 1: a promise was broken
    Run(RunArgs),
    /// Sends numbered reports until SIGTERM, and then until all of them have receipts
    Agent(AgentArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The server's binary [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Of everything that is random [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Scenarios, by the beginnings of their names [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Kills of the server; of other faults there are more or fewer in proportion
    #[arg(long, default_value_t = USUAL_ROUNDS)]
    rounds: u64,
    /// Percent of the usual length of outages of the database, and of their violations
    #[arg(long, default_value_t = 100)]
    outage_percent: u64,
}

#[derive(Debug, clap::Args)]
struct AgentArgs {
    /// What its streams' names begin with
    #[arg(long)]
    name: String,
    /// The server: http://127.0.0.1:50051
    #[arg(long)]
    server: String,
    /// The folder of the ledgers
    #[arg(long)]
    ledgers: PathBuf,
    #[command(flatten)]
    load: Load,
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Agent(args) => match agent::run(&args.name, &args.server, &args.ledgers, &args.load) {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                say(&format!("the agent cannot go on: {err}"));
                ExitCode::FAILURE
            }
        },
        Command::Run(args) => run(&args),
    }
}

type Play = Box<dyn Fn(&Run, &str) -> Outcome>;
type Scenario = (&'static str, Store, Play);

/// Every scenario, in the order in which they run: one after the other, since they share the machine's disk and cores.
fn scenarios(args: &RunArgs) -> Vec<Scenario> {
    use Store::{Mariadb, Sqlite};
    use Victim::{Agent, Mariadb as Database, Server};
    let n = |usual: u64| (usual * args.rounds).div_ceil(USUAL_ROUNDS).max(1);
    let lasts = Duration::from_secs(60) * u32::try_from(args.outage_percent).unwrap_or(100) / 100;
    let storm = 50_000 * args.outage_percent / 100;
    let kill = |victims: &'static [Victim], usual: u64| -> Play {
        let n_rounds = n(usual);
        Box::new(move |run, name| kills(run, name, victims, n_rounds))
    };
    let away = |how: Outage| -> Play { Box::new(move |run, name| outage(run, name, how, lasts, storm)) };
    let (n_pauses, n_stops, n_replies, n_hops) = (n(30), n(50), n(60), n(30));
    // Every byte in a full run.
    let step = usize::try_from(USUAL_ROUNDS / args.rounds.clamp(1, USUAL_ROUNDS)).unwrap_or(1);
    vec![
        ("kill-server", Mariadb, kill(&[Server], USUAL_ROUNDS)),
        ("kill-server-sqlite", Sqlite, kill(&[Server], 50)),
        ("kill-mariadb", Mariadb, kill(&[Database], 50)),
        ("kill-agent", Mariadb, kill(&[Agent], 100)),
        ("kill-all", Mariadb, kill(&[Server, Database, Agent], 50)),
        ("pause-any", Mariadb, Box::new(move |run, name| pauses(run, name, &[Server, Database, Agent], n_pauses))),
        ("hops", Mariadb, Box::new(move |run, name| hops(run, name, n_hops))),
        ("sigterm", Mariadb, Box::new(move |run, name| shutdowns(run, name, n_stops))),
        ("reply-cut", Mariadb, Box::new(move |run, name| reply_cuts(run, name, n_replies))),
        ("stream-cut", Sqlite, Box::new(move |run, name| stream_cuts(run, name, step))),
        ("outage-stopped", Mariadb, away(Outage::Stopped)),
        ("outage-killed", Mariadb, away(Outage::Killed)),
        ("outage-locked", Mariadb, away(Outage::Locked)),
        ("outage-replies-cut", Mariadb, away(Outage::RepliesCut)),
        ("outage-read-only", Mariadb, away(Outage::ReadOnly)),
        ("outage-altered", Mariadb, away(Outage::Altered)),
        ("outage-crowded", Mariadb, away(Outage::Crowded)),
        ("full-disk", Mariadb, Box::new(full_disk)),
        ("full-disk-sqlite", Sqlite, Box::new(full_disk)),
        ("full-journal", Mariadb, Box::new(full_journal)),
    ]
}

fn run(args: &RunArgs) -> ExitCode {
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let chaos = std::env::current_exe().expect("a running program has a path");
    let server = args.server.clone().unwrap_or_else(|| chaos.with_file_name("gopherwatch-server"));
    let Ok(server) = server.canonicalize() else {
        say(&format!("{} is not there: build it with `cargo build --workspace`", server.display()));
        return ExitCode::FAILURE;
    };
    let programs = Programs { server, chaos };
    let is_wanted =
        |name: &str| args.only.is_empty() || args.only.iter().any(|beginning| name.starts_with(beginning.as_str()));
    say(&format!("seed {seed}"));
    let mut outcomes = Vec::new();
    let mut n_unfinished = 0;
    for (name, store, scenario) in scenarios(args).into_iter().filter(|(name, ..)| is_wanted(name)) {
        let run = Run { programs: programs.clone(), seed, store };
        // One that cannot be brought to its end says so, keeps its files, and leaves the others their turn.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(&run, name)));
        match outcome {
            Ok(outcome) => {
                say(&outcome.to_string());
                outcomes.push(outcome);
            }
            Err(_) => {
                say(&format!("{name}: did not come to its end, see above"));
                n_unfinished += 1;
            }
        }
    }
    say(&format!("\n{}", Table(&outcomes)));
    let n_broken = outcomes.iter().filter(|outcome| !outcome.is_clean()).count() + n_unfinished;
    if n_broken > 0 || outcomes.is_empty() {
        say(&format!("seed {seed}: {n_broken} of {} scenarios broke a promise", outcomes.len() + n_unfinished));
        return ExitCode::FAILURE;
    }
    say(&format!("seed {seed}: every promise was kept"));
    ExitCode::SUCCESS
}

fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()))
}

fn say(text: &str) {
    // Nobody reads it any more: the exit code tells.
    let _ = writeln!(io::stdout(), "{text}");
}
