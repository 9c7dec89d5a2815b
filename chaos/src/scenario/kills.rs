//! `kill -9` and SIGSTOP of server, database and agents, alone and together, at random instants under load.

use std::time::Instant;

use super::{Hits, Outcome, Run, a_while};
use crate::{dice::Dice, world::World};

/// Longest time for which something is held by SIGSTOP, in milliseconds.
const MAX_PAUSE_MS: u64 = 2_000;

/// Whom a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The server.
    Server,
    /// The database.
    Mariadb,
    /// One of the agents.
    Agent,
}

/// Kills these, all of them each time, and starts them again.
pub fn kills(run: &Run, name: &str, victims: &[Victim], n_rounds: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 1);
    let mut world = two_agents(run, name);
    let mut hits = Hits::default();
    for _ in 0..n_rounds {
        let (_, receipted) = world.look();
        // Half of the kills come whenever they come, also in a recovery; the others when receipts flow again, so that a
        // run gets somewhere.
        if dice.one_in(2) {
            world.wait_for_receipts(receipted + 1);
        }
        a_while(&mut dice, 600);
        hits.look(&mut world);
        let mut victims = victims.to_vec();
        dice.shuffle(&mut victims);
        let agent = dice.below(world.agents.len() as u64) as usize;
        for victim in &victims {
            match victim {
                Victim::Server => world.kill_server(),
                Victim::Mariadb => world.mariadb().kill9(),
                Victim::Agent => world.agents[agent].kill9(),
            }
            a_while(&mut dice, 50);
        }
        dice.shuffle(&mut victims);
        for victim in &victims {
            match victim {
                Victim::Server => start_server(&mut world, &mut dice, &mut hits),
                Victim::Mariadb => world.mariadb().restart(),
                Victim::Agent => world.agents[agent].restart(),
            }
        }
    }
    Outcome::of(name, began, world).with_hits(hits)
}

/// Starts the server again; now and then it is killed once more before it is ready.
fn start_server(world: &mut World, dice: &mut Dice, hits: &mut Hits) {
    if dice.one_in(5) {
        world.server.restart();
        a_while(dice, 150);
        hits.look(world);
        world.server.kill9();
    }
    world.restart_server();
}

/// Holds one of these by SIGSTOP for up to two seconds, again and again.
pub fn pauses(run: &Run, name: &str, victims: &[Victim], n_rounds: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 2);
    let mut world = two_agents(run, name);
    let mut hits = Hits::default();
    for _ in 0..n_rounds {
        a_while(&mut dice, 600);
        hits.look(&mut world);
        let victim = victims[dice.below(victims.len() as u64) as usize];
        let agent = dice.below(world.agents.len() as u64) as usize;
        match victim {
            Victim::Server => world.server.signal("STOP"),
            Victim::Mariadb => world.mariadb().pause(),
            Victim::Agent => world.agents[agent].signal("STOP"),
        }
        a_while(&mut dice, MAX_PAUSE_MS);
        match victim {
            Victim::Server => world.server.signal("CONT"),
            Victim::Mariadb => world.mariadb().resume(),
            Victim::Agent => world.agents[agent].signal("CONT"),
        }
    }
    Outcome::of(name, began, world).with_hits(hits)
}

fn two_agents(run: &Run, name: &str) -> World {
    let mut world = run.listened_world(name);
    for place in 0..2 {
        world.add_agent(run.load(place));
    }
    world
}
