//! What control tells a lane: other rules for its instances, or an instance to forget.

use rayon::ThreadPool;

use super::shards;
use crate::{
    journal::Snapshot,
    model::{Event, InstanceKey, ResolveReason, Timestamp},
    rules::RuleSet,
    state::{Heard, Shard, State},
};

/// Instances from which on sharing a reload out pays: one takes some 1 µs with a rule or two, and handing work to the pool
/// some 40 µs.
const PARALLEL_FROM: usize = 2_000;

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) events: Vec<Event>,
    pub(super) snapshots: Vec<Snapshot>,
}

impl Done {
    /// By how many more alerts fire than before: never by any, since neither raises.
    pub(super) fn firing_delta(&self) -> i64 {
        self.events.iter().map(|event| event.kind.firing_delta()).sum()
    }
}

/// Has every instance of the lane adopt these rules.
pub(super) fn adopt(
    state: &State,
    rules: &RuleSet,
    (now, heard): (Timestamp, Heard),
    lane_idx: usize,
    pool: &ThreadPool,
) -> Done {
    let part = |shard: &mut Shard| {
        let mut done = Done::default();
        for instance in shard.values_mut() {
            let events = instance.adopt(rules, now, heard);
            if !events.is_empty() {
                done.snapshots.push(Snapshot::of(instance));
                done.events.extend(events);
            }
        }
        done
    };
    let parts = shards::each(state, lane_idx, pool, PARALLEL_FROM, part);
    parts.into_iter().fold(Done::default(), |mut all, part| {
        all.events.extend(part.events);
        all.snapshots.extend(part.snapshots);
        all
    })
}

/// Forgets one instance of the lane, all but its marks: what it sent before is not taken twice. One that is not known
/// is forgotten already.
pub(super) fn forget(state: &State, key: &InstanceKey, now: Timestamp, heard: Heard, lane_idx: usize) -> Done {
    let mut shard = state.shards_of_lane(lane_idx)[State::shard_in_lane(key)].write();
    let Some(instance) = shard.get_mut(key).filter(|instance| instance.is_shown()) else { return Done::default() };
    let events = instance.forget(now, heard, ResolveReason::Forgotten);
    state.remove_instance();
    Done { events, snapshots: vec![Snapshot::of(instance)] }
}
