//! What one stream gives the lanes: an instance or a metric is told a lane by name once, and then goes by its number.
//!
//! A report so costs its lane no name, no allocation and no count of references that two threads would share.

use std::{collections::HashMap, convert::Infallible, mem, sync::Arc, time::Instant};

use indexmap::IndexSet;
use parking_lot::Mutex;

use super::{Chunk, Item, StreamAccount};
use crate::{
    model::{InstanceKey, Name, Timestamp},
    state::Seat,
};

/// Random, so that no sender can know which names collide.
type Seed = foldhash::fast::RandomState;

/// Readings for which room is made before they come.
const MAX_READINGS_AHEAD: usize = 4_096;

/// A metric's number in its stream, and its value.
pub type Reading = (u32, f64);

/// Where a stream's reports of one instance go: its lane, and its number there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The lane.
    pub lane_idx: u32,
    /// The number by which the lane knows the instance.
    pub instance: u32,
}

/// Whose a report is.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// An instance's that the stream has given reports of.
    Known(Address),
    /// Another one's, and its lane.
    New(usize, &'a Arc<InstanceKey>),
}

/// Packs the reports of one stream into a chunk for each lane.
#[derive(Debug)]
pub struct Packer {
    lanes: Vec<Open>,
    names: Names,
}

/// Metrics by name, each at the place of its number.
pub type Names = IndexSet<Name, Seed>;

/// What the next chunk of a lane is made of.
#[derive(Debug, Default)]
struct Open {
    items: Vec<Item>,
    readings: Vec<Reading>,
    signs: Vec<Arc<InstanceKey>>,
    instances: Vec<Arc<InstanceKey>>,
    told: Told,
    /// How many instances and names the lane has been told, or will be with this chunk.
    n_instances: u32,
    n_names: usize,
    /// How many there were last time: a busy stream brings about as many again.
    n_last: (usize, usize),
}

impl Packer {
    /// Nothing told and nothing packed yet.
    pub fn new(n_lanes: usize) -> Self {
        Self { lanes: (0..n_lanes).map(|_| Open::default()).collect(), names: Names::default() }
    }

    /// How many metrics have a number.
    pub fn n_names(&self) -> usize {
        self.names.len()
    }

    /// Forgets all metrics' names. Not while a report is being packed: its numbers would mean nothing.
    pub fn forget_names(&mut self) {
        self.names.clear();
        for lane in &mut self.lanes {
            // What is packed goes by the old numbers.
            assert!(lane.items.is_empty(), "names are forgotten between chunks");
            lane.n_names = 0;
            lane.told.names = Arc::default();
        }
    }

    /// Packs a report with the readings that `fill` adds; its item's instance and place among the readings are filled
    /// in here. An error of `fill` is given on; then nothing is packed, and no name has a new number. Answers the address for the instance's next one.
    pub fn put<E>(
        &mut self,
        whose: Whose<'_>,
        item: Item,
        fill: impl FnOnce(&mut Vec<Reading>, &mut Names) -> Result<(), E>,
    ) -> Result<Address, E> {
        let lane_idx = match whose {
            Whose::Known(address) => address.lane_idx as usize,
            Whose::New(lane_idx, _) => lane_idx,
        };
        let lane = &mut self.lanes[lane_idx];
        if lane.items.capacity() == 0 {
            // Only now: a stream that waits for its next report keeps no room for it.
            lane.items.reserve_exact(lane.n_last.0);
            lane.readings.reserve_exact(lane.n_last.1.min(MAX_READINGS_AHEAD));
        }
        let (first, n_names) = (lane.readings.len(), self.names.len());
        if let Err(err) = fill(&mut lane.readings, &mut self.names) {
            lane.readings.truncate(first);
            // The lanes have not been told them yet.
            self.names.truncate(n_names);
            return Err(err);
        }
        let n_readings = u16::try_from(lane.readings.len() - first).expect("a report has 256 readings at most");
        let instance = match whose {
            Whose::Known(address) => address.instance,
            Whose::New(_, key) => {
                lane.instances.push(key.clone());
                lane.n_instances += 1;
                lane.n_instances - 1
            }
        };
        lane.items.push(Item { instance, first: number(first), n_readings, ..item });
        Ok(Address { lane_idx: number(lane_idx), instance })
    }

    /// Packs the sign of life that a refused report is.
    pub fn put_sign(&mut self, lane_idx: usize, key: Arc<InstanceKey>) {
        let lane = &mut self.lanes[lane_idx];
        lane.items.push(Item { instance: number(lane.signs.len()), is_sign: true, ..Item::default() });
        lane.signs.push(key);
    }

    /// What has been packed for a lane; `None`: nothing.
    pub fn chunk(
        &mut self,
        lane_idx: usize,
        stream: &Arc<StreamAccount>,
        received_at: Timestamp,
        arrived: Instant,
    ) -> Option<Box<Chunk>> {
        let lane = &mut self.lanes[lane_idx];
        if lane.items.is_empty() {
            return None;
        }
        lane.n_last = (lane.items.len(), lane.readings.len());
        let names = self.names.get_range(lane.n_names..).map_or_else(Vec::new, |names| names.iter().cloned().collect());
        lane.n_names = self.names.len();
        let news = News { names, instances: mem::take(&mut lane.instances) };
        Some(Box::new(Chunk {
            items: mem::take(&mut lane.items),
            readings: mem::take(&mut lane.readings),
            signs: mem::take(&mut lane.signs),
            news,
            told: lane.told.clone(),
            stream: stream.clone(),
            received_at,
            arrived,
        }))
    }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).expect("a stream's instances, names and readings are capped far below")
}

/// Names that a lane is told with a chunk, in the order of their numbers.
#[derive(Debug, Default)]
pub struct News {
    /// Metrics.
    pub names: Vec<Name>,
    /// Instances.
    pub instances: Vec<Arc<InstanceKey>>,
}

/// What one lane has been told by one stream. Numbers only grow: what is known later serves earlier chunks as well. A
/// stream that forgets its metrics' names begins another list.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The metrics.
    pub names: Arc<List<Name>>,
    /// The instances.
    pub seats: Arc<List<Seat>>,
}

/// What numbers mean, in their order. One lane alone adds to it and looks into it.
#[derive(Debug)]
pub struct List<T>(Mutex<Arc<Vec<T>>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> List<T> {
    /// Adds what is told. It is copied as a whole if somebody still has it as it was.
    pub fn learn(&self, news: impl ExactSizeIterator<Item = T>) {
        if news.len() > 0 {
            Arc::make_mut(&mut self.0.lock()).extend(news);
        }
    }

    /// All that has been told.
    pub fn known(&self) -> Arc<Vec<T>> {
        self.0.lock().clone()
    }
}

/// Packs reports that are at hand by name: the server's own, and those of simulations and tests.
#[derive(Debug)]
pub struct ByName {
    packer: Packer,
    addresses: HashMap<Arc<InstanceKey>, Address>,
}

impl ByName {
    /// Nothing packed yet.
    pub fn new(n_lanes: usize) -> Self {
        Self { packer: Packer::new(n_lanes), addresses: HashMap::new() }
    }

    /// Packs a report of `key`, whose lane it is. The item's instance and readings are filled in.
    pub fn put(&mut self, lane_idx: usize, key: &Arc<InstanceKey>, item: Item, metrics: &[(Name, f64)]) {
        let fill = |readings: &mut Vec<Reading>, names: &mut Names| {
            readings.extend(metrics.iter().map(|(name, value)| (number(names.insert_full(name.clone()).0), *value)));
            Ok::<_, Infallible>(())
        };
        let whose = self.addresses.get(key).map_or(Whose::New(lane_idx, key), |address| Whose::Known(*address));
        let Ok(address) = self.packer.put(whose, item, fill);
        self.addresses.insert(key.clone(), address);
    }

    /// What packs them.
    pub fn packer(&mut self) -> &mut Packer {
        &mut self.packer
    }
}
