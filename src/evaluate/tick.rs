//! One look over a lane's instances: who has been silent, who has left, whom to forget.

use std::time::Duration;

use rayon::ThreadPool;

use super::{Options, shards};
use crate::{
    journal::Snapshot,
    model::{Event, EventKind, ResolveReason, Timestamp},
    rules::{Condition, RuleSet, silence},
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
    pub(super) rules: &'a RuleSet,
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
                instance.unsaved = false;
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
                let silent = instance.silence.length(self.heard);
                let patience = instance.silence.patience();
                instance.stale = silent >= self.options.stale_after.unwrap_or(patience);
                if silent >= self.options.forget_after {
                    self.forget(instance, ResolveReason::Forgotten, done);
                } else if instance.silence.is_armed() {
                    self.silence(instance, silent, patience, done);
                }
                true
            }
            Presence::Left(since) => {
                if self.heard.since(since) >= LEFT_FOR {
                    self.forget(instance, ResolveReason::Left, done);
                }
                true
            }
            Presence::Forgotten(since) => self.heard.since(since) < MARKS_FOR,
        }
    }

    fn silence(&self, instance: &mut InstanceState, silent: Duration, patience: Duration, done: &mut Done) {
        for idx in 0..instance.applicable.len() {
            let place = instance.applicable[idx];
            let rule = &self.rules.rules[place as usize];
            let Condition::Absent { after } = rule.condition else { continue };
            if silent < after.unwrap_or(patience) || instance.firing.iter().any(|f| f.rule == place) {
                continue;
            }
            let change = silence(rule, place, &instance.key, silent.as_secs_f64(), instance.raises, self.now);
            instance.raises += 1;
            instance.take_change(&change);
            instance.unsaved = false;
            done.n_raised += 1;
            done.firing_delta += 1;
            done.events.push(change.event);
            done.snapshots.push(Snapshot::of(instance));
        }
    }

    fn forget(&self, instance: &mut InstanceState, why: ResolveReason, done: &mut Done) {
        let events = instance.forget(self.now, self.heard, why);
        self.state.remove_instance();
        done.firing_delta -= events.iter().filter(|event| event.kind == EventKind::Resolve).count() as i64;
        done.events.extend(events);
    }
}
