//! What the server knows of every instance: sharded, written by lanes, read by REST.
//!
//! A shard belongs to one lane, which alone writes it (I2); the RwLock is there for the readers. Readers copy what they
//! need shard by shard and hold no lock while they serialise.

mod instance;
mod latest;
mod layouts;
mod life;
mod marks;
mod presence;
mod seat;
mod view;

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use indexmap::IndexMap;
use parking_lot::RwLock;
use uuid::Uuid;

pub use instance::{InstanceState, WindowRows};
pub use latest::Latest;
pub use layouts::{LaneLayout, Layouts};
pub use life::{Arrival, Deadlines};
pub use marks::{Mark, Marks, Numbering};
pub use presence::{Heard, Hearing, Presence, Silence, TICK_EVERY};
pub use seat::Seat;
pub use view::{InstanceView, RuleCount, Status};

use crate::model::{Alert, InstanceKey, Name};

/// Shards of one lane. A reader holds one of these at a time, so that more of them mean shorter waits for the lane.
const SHARDS_PER_LANE: usize = 16;

/// The instances of one shard.
pub type Shard = IndexMap<Arc<InstanceKey>, InstanceState, foldhash::fast::FixedState>;

/// Every instance known.
#[derive(Debug)]
pub struct State {
    n_lanes: usize,
    shards: Box<[RwLock<Shard>]>,
    /// Each lane's hearing clock, as of its last tick: for the readers.
    heard: Box<[AtomicU64]>,
    n_instances: AtomicUsize,
    max_instances: usize,
}

impl State {
    /// No instance yet; room for `max_instances`, shards for `n_lanes` lanes.
    pub fn new(n_lanes: usize, max_instances: usize) -> Self {
        assert!(n_lanes > 0, "there is at least one lane");
        let shards = (0..n_lanes * SHARDS_PER_LANE).map(|_| RwLock::default()).collect();
        let heard = (0..n_lanes).map(|_| AtomicU64::new(0)).collect();
        Self { n_lanes, shards, heard, n_instances: AtomicUsize::new(0), max_instances }
    }

    /// How many lanes share the instances.
    pub fn n_lanes(&self) -> usize {
        self.n_lanes
    }

    /// The lane of an instance: the same for all its reports (I2).
    pub fn lane_of(&self, key: &InstanceKey) -> usize {
        (key.hash() >> 32) as usize % self.n_lanes
    }

    /// Where in its lane's shards an instance is.
    pub fn shard_in_lane(key: &InstanceKey) -> usize {
        key.hash() as usize % SHARDS_PER_LANE
    }

    /// The shards of a lane, which that lane alone writes.
    pub fn shards_of_lane(&self, lane_idx: usize) -> &[RwLock<Shard>] {
        &self.shards[lane_idx * SHARDS_PER_LANE..(lane_idx + 1) * SHARDS_PER_LANE]
    }

    /// Where an instance is, or would be, for a lane that will ask for it again and again.
    pub fn seat(&self, lane_idx: usize, key: &Arc<InstanceKey>) -> Seat {
        let shard_idx = Self::shard_in_lane(key);
        let shard = self.shards_of_lane(lane_idx)[shard_idx].read();
        match shard.get_full(key) {
            Some((place, own, _)) => Seat::new(own.clone(), shard_idx, Some(place)),
            None => Seat::new(key.clone(), shard_idx, None),
        }
    }

    /// Takes room for one more instance; false: there is none.
    pub fn try_add_instance(&self) -> bool {
        let more = |n| (n < self.max_instances).then_some(n + 1);
        self.n_instances.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives the room of an instance back.
    pub fn remove_instance(&self) {
        self.n_instances.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts in what the journal remembers, before any lane runs. More than the limit is kept: it was acknowledged.
    pub fn restore(&self, instance: InstanceState) {
        let shard = &self.shards_of_lane(self.lane_of(&instance.key))[Self::shard_in_lane(&instance.key)];
        let counts = instance.is_shown();
        if shard.write().insert(instance.key.clone(), instance).is_none() && counts {
            self.n_instances.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many instances are known.
    pub fn n_instances(&self) -> usize {
        self.n_instances.load(Ordering::Relaxed)
    }

    /// Notes a lane's hearing clock, for readers.
    pub fn note_heard(&self, lane_idx: usize, heard: Heard) {
        self.heard[lane_idx].store(heard.as_nanos(), Ordering::Relaxed);
    }

    /// Looks at one instance that is shown, with its lane's hearing clock as of the last tick.
    pub fn with_instance<T>(&self, key: &InstanceKey, look: impl FnOnce(&InstanceState, Heard) -> T) -> Option<T> {
        let lane_idx = self.lane_of(key);
        let heard = Heard::from_nanos(self.heard[lane_idx].load(Ordering::Relaxed));
        let shard = self.shards_of_lane(lane_idx)[Self::shard_in_lane(key)].read();
        shard.get(key).filter(|instance| instance.is_shown()).map(|instance| look(instance, heard))
    }

    /// Whether REST shows this instance.
    pub fn knows(&self, key: &InstanceKey) -> bool {
        let shard = self.shards_of_lane(self.lane_of(key))[Self::shard_in_lane(key)].read();
        shard.get(key).is_some_and(InstanceState::is_shown)
    }

    /// What REST shows of the instances that `select` picks, ordered by service and instance.
    pub fn view(&self, select: impl Fn(&InstanceKey) -> bool) -> Vec<InstanceView> {
        let mut views = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            views.extend(shard.values().filter(|i| i.is_shown() && select(&i.key)).map(InstanceView::of));
        }
        views.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        views
    }

    /// What each rule has going on, by its name.
    pub fn count_by_rule(&self) -> HashMap<Name, RuleCount> {
        let mut counts: HashMap<Name, RuleCount> = HashMap::new();
        for shard in &self.shards {
            for instance in shard.read().values().filter(|instance| instance.is_shown()) {
                let progress = &instance.progress;
                for (place, rule) in progress.plan.rules.iter().enumerate() {
                    let count = counts.entry(rule.name.clone()).or_default();
                    count.matching += 1;
                    count.pending += usize::from(progress.pending_of(place).is_some());
                    count.firing += usize::from(progress.firing_of(place).is_some());
                }
            }
        }
        counts
    }

    /// The alert of this id, if it fires.
    pub fn firing_alert(&self, alert_id: Uuid) -> Option<Arc<Alert>> {
        self.shards.iter().find_map(|shard| {
            let shard = shard.read();
            let mut firing = shard.values().flat_map(|i| &i.progress.firing);
            firing.find(|f| f.alert.alert_id == alert_id).map(|f| f.alert.clone())
        })
    }

    /// Every alert that fires, newest first.
    pub fn active_alerts(&self) -> Vec<Arc<Alert>> {
        let mut alerts: Vec<_> = Vec::new();
        for shard in &self.shards {
            alerts.extend(shard.read().values().flat_map(|i| i.progress.firing.iter().map(|f| f.alert.clone())));
        }
        alerts.sort_unstable_by_key(|alert| Reverse((alert.triggered_at, alert.alert_id)));
        alerts
    }
}
