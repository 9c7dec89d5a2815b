//! What is done to a running ensemble: a file for each kind of fault. Every scenario ends with the verdict of the checker.

mod cuts;
mod full;
mod hops;
mod kills;
mod outage;
mod shutdown;
mod trouble;

use std::{
    fmt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

pub use self::{
    cuts::{reply_cuts, stream_cuts},
    full::{full_disk, full_journal},
    hops::hops,
    kills::{Victim, kills, pauses},
    outage::{Outage, outage},
    shutdown::shutdowns,
};
use crate::{
    agent::Load,
    checker::Verdict,
    dice::Dice,
    listener::Listener,
    world::{Programs, Store, World},
};

/// Of the kills so many must hit something that could be lost: fewer, and the run proves little.
const MIN_HITS_PERCENT: u64 = 80;

/// What every scenario is given.
#[derive(Clone, Debug)]
pub struct Run {
    /// The binaries under test.
    pub programs: Programs,
    /// Of everything that is random.
    pub seed: u64,
    /// Which store the server has.
    pub store: Store,
}

impl Run {
    fn world(&self, name: &str) -> World {
        World::start(&self.programs, name, self.store, None)
    }

    /// The same, with receivers of notifications.
    fn listened_world(&self, name: &str) -> World {
        World::start(&self.programs, name, self.store, Some(Listener::start()))
    }

    fn load(&self, place: u64) -> Load {
        let seed = Dice::of(self.seed, place).throw() >> 16;
        Load { streams: 2, instances: 20, pace_ms: 40, rotate_ms: 400, shape: crate::generator::Shape::Walk, seed }
    }
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How many faults there were.
    pub n_faults: u64,
    /// Where it matters what a fault hit: what it hit.
    pub hits: Option<Hits>,
    /// What the checker says.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// What was measured beside that.
    pub notes: Vec<String>,
    /// Where the run's files are, if something is wrong.
    pub kept: Option<PathBuf>,
}

/// What faults hit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hits {
    /// Faults.
    pub of: u64,
    /// Those with unreceipted reports or undelivered events.
    pub any: u64,
    /// Those with undelivered events.
    pub undelivered: u64,
}

impl Hits {
    /// Looks, just before a fault, at what it could lose.
    fn look(&mut self, world: &mut World) {
        // A server that does not answer, because it is not ready yet, has nothing that the ledgers do not show.
        let balance = world.server.balance(Duration::from_millis(500)).ok();
        let (sent, receipted) = world.look();
        let is_undelivered = balance.is_some_and(|balance| balance.get("pending") > 0);
        self.of += 1;
        self.any += u64::from(is_undelivered || sent > receipted);
        self.undelivered += u64::from(is_undelivered);
    }

    /// How many of a hundred hit something.
    pub fn percent(&self) -> u64 {
        (self.any * 100).checked_div(self.of).unwrap_or(0)
    }
}

impl Outcome {
    fn of(name: &str, began: Instant, world: World) -> Self {
        let (verdict, kept) = world.finish();
        let took = began.elapsed();
        Self { name: name.to_owned(), n_faults: 0, hits: None, verdict, took, notes: Vec::new(), kept }
    }

    fn with_hits(mut self, hits: Hits) -> Self {
        self.n_faults = hits.of;
        self.hits = Some(hits);
        if hits.percent() < MIN_HITS_PERCENT {
            self.verdict.and_broken(format!(
                "only {} of {} faults hit anything: use more load, or kill sooner",
                hits.any, hits.of
            ));
        }
        self
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} faults, {}", self.name, self.n_faults, self.verdict)?;
        if let Some(hits) = self.hits {
            write!(f, "\n  hits {} %, with undelivered events {} of {}", hits.percent(), hits.undelivered, hits.of)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))?;
        self.kept.iter().try_for_each(|path| write!(f, "\n  its files: {}", path.display()))
    }
}

/// Lets a random time go by: the one place where a run waits for no state, because when a fault comes is its chance.
fn a_while(dice: &mut Dice, max_ms: u64) {
    thread::sleep(Duration::from_millis(dice.below(max_ms + 1)));
}
