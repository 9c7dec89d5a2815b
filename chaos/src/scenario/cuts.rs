//! Connections cut at every byte: of a stream of reports, each way, and of the reply to a write.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use super::{Outcome, Run, a_while};
use crate::{
    dice::Dice,
    generator::Shape,
    proxy::{Fault, ReplyCut, Way},
    sender::{Options, Sender},
    wait::{SOON, found},
    world::World,
};

/// What a stream is about: few instances and two rounds of reports, so that all of its bytes can have their turn.
const N_INSTANCES: u32 = 4;
const N_BATCHES: u64 = 2;
/// Requests of MySQL's that are at least so long carry rows.
const WRITE_BYTES: usize = 400;

/// A stream cut after each number of bytes, `step` apart: of the agent's, then of the server's. Each time what has no
/// receipt is sent again.
pub fn stream_cuts(run: &Run, name: &str, step: usize) -> Outcome {
    let began = Instant::now();
    let world = run.world(name);
    let mut script = Script::new(run, &world);
    script.plain_call();
    let mut n_cuts = 0;
    let mut notes = Vec::new();
    for way in [Way::Up, Way::Down] {
        // What one call takes, from its connection's first byte to the answer, is measured on one that is not cut.
        let before = world.front.n_bytes(way);
        script.plain_call();
        let len = world.front.n_bytes(way) - before;
        let (mut n_lost, mut n) = (0, 0);
        for cut in (Range { start: 0, end: len }).step_by(step) {
            world.front.set(way, Fault::CutAfter(cut));
            n_lost += u64::from(script.call(N_BATCHES).is_err());
            world.front.heal();
            script.plain_call();
            n += 1;
        }
        n_cuts += n;
        notes.push(format!("{way:?}: cut at {n} places of {len} bytes, {n_lost} calls without a receipt"));
    }
    drop(script);
    Outcome { n_faults: n_cuts, notes, ..Outcome::of(name, began, world) }
}

/// One sender, called by hand.
struct Script {
    runtime: Runtime,
    sender: Sender,
    stop: watch::Receiver<bool>,
    /// Kept: without it `stop` would be over.
    _stop: watch::Sender<bool>,
}

impl Script {
    fn new(run: &Run, world: &World) -> Self {
        let options = Options {
            server: world.address(),
            stream: "cut".to_owned(),
            n_instances: N_INSTANCES,
            shape: Shape::Walk,
            pace: Duration::ZERO,
            rotate: Duration::from_secs(60),
            seed: run.seed,
        };
        let sender = Sender::open(options, &world.folder().join("ledgers")).unwrap();
        let (_stop, stop) = watch::channel(false);
        Self { runtime: Builder::new_current_thread().enable_all().build().unwrap(), sender, stop, _stop }
    }

    /// One call, on a connection of its own.
    fn call(&mut self, n_batches: u64) -> Result<(), tonic::Status> {
        self.sender.disconnect();
        self.runtime.block_on(self.sender.call(n_batches, &mut self.stop)).unwrap().map(|_| ())
    }

    /// Calls without a fault, until everything has its receipt.
    fn plain_call(&mut self) {
        let mut n_batches = N_BATCHES;
        found(SOON, "a call without a fault is answered", || {
            let answer = self.call(n_batches);
            // What was sent is in the ledger: it is sent again, and nothing new beside it.
            n_batches = 0;
            (answer.is_ok() && self.sender.n_unreceipted() == 0).then_some(())
        });
    }
}

/// The replies to `n_cuts` writes cut off, each at a byte of its own: the rows are there and the server does not know.
pub fn reply_cuts(run: &Run, name: &str, n_cuts: u64) -> Outcome {
    let began = Instant::now();
    let mut dice = Dice::of(run.seed, 5);
    let mut world = run.world(name);
    world.add_agent(run.load(0));
    for n in 0..n_cuts {
        let cut = ReplyCut { request_bytes: WRITE_BYTES, reply_bytes: (n % 15) as usize };
        world.back.cut_reply(Some(cut));
        // Its retry waits longer and longer while each one fails: a success between them keeps the run short.
        found(SOON, "a reply is cut", || (world.back.n_replies_cut() > n).then_some(()));
        a_while(&mut dice, 100);
    }
    let notes = vec![format!("{} replies to writes cut off", world.back.n_replies_cut())];
    Outcome { n_faults: n_cuts, notes, ..Outcome::of(name, began, world) }
}
