//! One look over a lane's instances: who has been silent, who has left, whom to forget.

use std::time::Duration;

use rayon::ThreadPool;

use super::{Options, shards};
use crate::{
    journal::Snapshot,
    model::{Event, EventKind, ResolveReason, Timestamp},
    rules::look,
    state::{Heard, InstanceState, Presence, Shard, State},
};

/// An instance that left and did not come back is forgotten after this long (CONTRACT §3).
const LEFT_FOR: Duration = Duration::from_secs(10 * 60);
/// How long the marks of a forgotten instance are remembered (CONTRACT §2).
const MARKS_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Instances from which on sharing a look out pays: one takes some 20 ns.
const PARALLEL_FROM: usize = 20_000;

/// A look at one moment.
pub(super) struct Look<'a> {
    pub(super) state: &'a State,
    pub(super) options: &'a Options,
    pub(super) heard: Heard,
    pub(super) now: Timestamp,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) events: Vec<Event>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) n_raised: u64,
    pub(super) firing_delta: i64,
}

impl Look<'_> {
    pub(super) fn run(&self, lane_idx: usize, pool: &ThreadPool) -> Done {
        let parts = shards::each(self.state, lane_idx, pool, PARALLEL_FROM, |shard| self.part(shard));
        parts.into_iter().fold(Done::default(), |mut all, part| {
            all.events.extend(part.events);
            all.snapshots.extend(part.snapshots);
            all.n_raised += part.n_raised;
            all.firing_delta += part.firing_delta;
            all
        })
    }

    fn part(&self, shard: &mut Shard) -> Done {
        let mut done = Done::default();
        let mut n_forgotten = 0;
        shard.retain(|_, instance| {
            let keep = self.instance(instance, &mut done);
            n_forgotten += usize::from(!instance.is_shown());
            let keep = keep && (instance.is_shown() || n_forgotten <= self.options.max_forgotten);
            if !keep {
                done.snapshots.push(Snapshot::none(&instance.key));
            } else if instance.unsaved && !instance.is_shown() {
                done.snapshots.push(Snapshot::of(instance));
            }
            keep
        });
        done
    }

    /// Looks at one instance; false: nothing of it needs to be remembered any longer.
    fn instance(&self, instance: &mut InstanceState, done: &mut Done) -> bool {
        match instance.presence {
            Presence::Present => {
                let silent = instance.silent_for(self.heard);
                instance.stale = silent >= self.options.stale_after.unwrap_or(instance.silence.patience());
                if silent >= self.options.forget_after {
                    self.forget(instance, ResolveReason::Forgotten, done);
                } else {
                    self.look(instance, done);
                }
                true
            }
            Presence::Left(since) => {
                if self.heard.since(since) >= LEFT_FOR {
                    self.forget(instance, ResolveReason::Left, done);
                } else {
                    self.look(instance, done);
                }
                true
            }
            Presence::Forgotten(since) => self.heard.since(since) < MARKS_FOR,
        }
    }

    fn look(&self, instance: &mut InstanceState, done: &mut Done) {
        if !instance.progress.plan.is_timed {
            return;
        }
        let outcome = instance.with_hush(self.heard, |hush| look(&instance.progress, &instance.key, hush, self.now));
        if outcome.is_quiet() {
            return;
        }
        let events = instance.progress.apply_look(outcome, self.now);
        done.n_raised += events.iter().filter(|event| event.kind == EventKind::Raise).count() as u64;
        done.events(events);
        done.snapshots.push(Snapshot::of(instance));
    }

    fn forget(&self, instance: &mut InstanceState, why: ResolveReason, done: &mut Done) {
        done.events(instance.forget(self.now, self.heard, why));
        self.state.remove_instance();
    }
}

impl Done {
    fn events(&mut self, events: Vec<Event>) {
        self.firing_delta += events.iter().map(|event| event.kind.firing_delta()).sum::<i64>();
        self.events.extend(events);
    }
}
