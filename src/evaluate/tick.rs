//! One look over a lane's instances: who has been silent, who has left, whom to forget.

use std::time::Duration;

use rayon::ThreadPool;

use super::{Options, shards};
use crate::{
    journal::Snapshot,
    model::{Event, EventKind, Timestamp},
    state::{Deadlines, Heard, InstanceState, Presence, Shard, State},
};

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
        let mut forgotten = Vec::new();
        shard.retain(|_, instance| {
            let keep = self.instance(instance, &mut done);
            match instance.presence {
                _ if !keep => done.snapshots.push(Snapshot::none(&instance.key)),
                Presence::Forgotten(since) => forgotten.push(since),
                Presence::Present | Presence::Left(_) => {}
            }
            keep
        });
        if !forgotten.is_empty() {
            self.forget_oldest(shard, forgotten, &mut done);
            let unsaved = shard.values_mut().filter(|instance| instance.unsaved && !instance.is_shown());
            done.snapshots.extend(unsaved.map(Snapshot::of));
        }
        done
    }

    /// Of those forgotten, the marks of the most recent are worth most: they are the likeliest to send again.
    fn forget_oldest(&self, shard: &mut Shard, mut forgotten: Vec<Heard>, done: &mut Done) {
        let Some(mut n_excess) = forgotten.len().checked_sub(self.options.max_forgotten).filter(|n| *n > 0) else {
            return;
        };
        let (_, newest_excess, _) = forgotten.select_nth_unstable(n_excess - 1);
        let newest_excess = *newest_excess;
        shard.retain(|_, instance| {
            let is_old = matches!(instance.presence, Presence::Forgotten(since) if since <= newest_excess);
            let goes = is_old && n_excess > 0;
            if goes {
                n_excess -= 1;
                done.snapshots.push(Snapshot::none(&instance.key));
            }
            !goes
        });
    }

    /// Looks at one instance; false: nothing of it needs to be remembered any longer.
    fn instance(&self, instance: &mut InstanceState, done: &mut Done) -> bool {
        if let Presence::Forgotten(since) = instance.presence {
            return self.heard.since(since) < MARKS_FOR;
        }
        let Options { stale_after, forget_after, .. } = *self.options;
        let events = instance.take_time(Deadlines { stale_after, forget_after }, self.heard, self.now);
        if !instance.is_shown() {
            self.state.remove_instance();
        } else if !events.is_empty() || instance.needs_saving() {
            done.snapshots.push(Snapshot::of(instance));
        }
        done.events(events);
        true
    }
}

impl Done {
    fn events(&mut self, events: Vec<Event>) {
        self.n_raised += events.iter().filter(|event| event.kind == EventKind::Raise).count() as u64;
        self.firing_delta += events.iter().map(|event| event.kind.firing_delta()).sum::<i64>();
        self.events.extend(events);
    }
}
