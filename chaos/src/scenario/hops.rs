//! A hop between two that fails: bytes wait, come late, vanish, or one way is closed, while the connections stay open.

use std::time::{Duration, Instant};

use super::{Hits, Outcome, Run, a_while};
use crate::{
    dice::Dice,
    proxy::{Fault, Way},
};

/// Longest time for which a hop fails, in milliseconds: longer than the server waits for a database's answer.
const MAX_FAULT_MS: u64 = 7_000;

/// One hop fails in one way, again and again: that of the agents, or that of the database.
pub fn hops(run: &Run, name: &str, n_rounds: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 6);
    let mut world = run.world(name);
    for place in 0..2 {
        world.add_agent(run.load(place));
    }
    let mut hits = Hits::default();
    for n in 0..n_rounds {
        let (_, receipted) = world.look();
        world.wait_for_receipts(receipted + 1);
        a_while(&mut dice, 300);
        hits.look(&mut world);
        let hop = if n % 2 == 0 { &world.back } else { &world.front };
        let way = if dice.one_in(2) { Way::Up } else { Way::Down };
        let late = Duration::from_millis(dice.between(50, 500));
        let fault = [Fault::Blackhole, Fault::Stall, Fault::HalfClose, Fault::Delay(late)][dice.below(4) as usize];
        hop.set(way, fault);
        a_while(&mut dice, MAX_FAULT_MS);
        hop.heal();
    }
    Outcome::of(name, began, world).with_hits(hits)
}
