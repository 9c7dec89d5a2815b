//! Something done to every shard of a lane: one after the other, or shared out over the rayon pool.

use rayon::{
    ThreadPool,
    iter::{IntoParallelIterator, ParallelIterator},
};

use crate::state::{Shard, State};

/// What `work` makes of each shard of the lane, in their order. From `parallel_from` instances of a lane on, helpers
/// share the work; they lock nothing (I7).
pub(super) fn each<T: Send>(
    state: &State,
    lane_idx: usize,
    pool: &ThreadPool,
    parallel_from: usize,
    work: impl Fn(&mut Shard) -> T + Send + Sync,
) -> Vec<T> {
    let shards = state.shards_of_lane(lane_idx);
    if state.n_instances() / state.n_lanes() < parallel_from {
        // One shard locked at a time: a reader never waits for all of them.
        return shards.iter().map(|shard| work(&mut shard.write())).collect();
    }
    let mut locked: Vec<_> = shards.iter().map(|shard| shard.write()).collect();
    let shards: Vec<&mut Shard> = locked.iter_mut().map(|shard| &mut **shard).collect();
    pool.install(|| shards.into_par_iter().map(work).collect())
}
