//! What one stream gives the lanes: an instance, or the metrics of a report, are told a lane by name once, and then go by
//! a number.
//!
//! A report so costs its lane no name, no allocation and no count of references that two threads would share.

use std::{collections::HashMap, mem, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{Chunk, Item, Metrics, StreamAccount};
use crate::{
    model::{InstanceKey, Layout, Name, Row, Timestamp},
    rules::Sieve,
    state::{LaneLayout, Seat},
};

/// Values for which room is made before they come.
const MAX_VALUES_AHEAD: usize = 4_096;

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

/// Which metrics a report has.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// Those of a layout.
    Layout(u32),
    /// These.
    Loose(&'a [u32]),
}

/// Packs the reports of one stream into a chunk for each lane.
#[derive(Debug)]
pub struct Packer {
    lanes: Vec<Open>,
    layouts: Vec<Arc<Layout>>,
    names: Vec<Name>,
}

/// What the next chunk of a lane is made of.
#[derive(Debug, Default)]
struct Open {
    items: Vec<Item>,
    values: Vec<f64>,
    loose: Vec<u32>,
    signs: Vec<Arc<InstanceKey>>,
    instances: Vec<Arc<InstanceKey>>,
    told: Told,
    /// How many instances, layouts and metrics the lane has been told, or will be with this chunk.
    n_instances: u32,
    n_layouts: usize,
    n_names: usize,
    /// How many items and values there were last time: a busy stream brings about as many again.
    n_last: (usize, usize),
}

impl Packer {
    /// Nothing told and nothing packed yet.
    pub fn new(n_lanes: usize) -> Self {
        Self { lanes: (0..n_lanes).map(|_| Open::default()).collect(), layouts: Vec::new(), names: Vec::new() }
    }

    /// Gives a layout its number. Lanes are told of it with their next chunk.
    pub fn add_layout(&mut self, layout: Arc<Layout>) -> u32 {
        self.layouts.push(layout);
        number(self.layouts.len() - 1)
    }

    /// Gives a metric its number.
    pub fn add_name(&mut self, name: Name) -> u32 {
        self.names.push(name);
        number(self.names.len() - 1)
    }

    /// Forgets all layouts and metrics. Not while reports are packed: their numbers would mean nothing.
    pub fn forget_names(&mut self) {
        self.layouts.clear();
        self.names.clear();
        for lane in &mut self.lanes {
            // What is packed goes by the old numbers.
            assert!(lane.items.is_empty(), "names are forgotten between chunks");
            (lane.n_layouts, lane.n_names) = (0, 0);
            lane.told.layouts = Arc::default();
            lane.told.names = Arc::default();
        }
    }

    /// Packs a report of these metrics and their values; its item's instance, and places, are filled in here. Answers the
    /// address for the instance's next one.
    pub fn put(&mut self, whose: Whose<'_>, item: Item, which: Which<'_>, values: &[f64]) -> Address {
        let lane_idx = match whose {
            Whose::Known(address) => address.lane_idx as usize,
            Whose::New(lane_idx, _) => lane_idx,
        };
        let lane = &mut self.lanes[lane_idx];
        if lane.items.capacity() == 0 {
            // Only now: a stream that waits for its next report keeps no room for it.
            lane.items.reserve_exact(lane.n_last.0);
            lane.values.reserve_exact(lane.n_last.1.min(MAX_VALUES_AHEAD));
        }
        let instance = match whose {
            Whose::Known(address) => address.instance,
            Whose::New(_, key) => {
                lane.instances.push(key.clone());
                lane.n_instances += 1;
                lane.n_instances - 1
            }
        };
        let metrics = match which {
            Which::Layout(layout) => Metrics::Layout(layout),
            Which::Loose(names) => {
                let first = number(lane.loose.len());
                lane.loose.extend_from_slice(names);
                Metrics::Loose { first, n: u16::try_from(names.len()).expect("a report has 256 metrics at most") }
            }
        };
        lane.items.push(Item { instance, metrics, first: number(lane.values.len()), ..item });
        lane.values.extend_from_slice(values);
        Address { lane_idx: number(lane_idx), instance }
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
        lane.n_last = (lane.items.len(), lane.values.len());
        let layouts = self.layouts[lane.n_layouts..].to_vec();
        lane.n_layouts = self.layouts.len();
        let names = self.names[lane.n_names..].to_vec();
        lane.n_names = self.names.len();
        let news = News { layouts, names, instances: mem::take(&mut lane.instances) };
        Some(Box::new(Chunk {
            items: mem::take(&mut lane.items),
            values: mem::take(&mut lane.values),
            loose: mem::take(&mut lane.loose),
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
    u32::try_from(place).expect("a stream's instances, layouts and values are capped far below")
}

/// What a lane is told with a chunk, in the order of the numbers.
#[derive(Debug, Default)]
pub struct News {
    /// Layouts of reports.
    pub layouts: Vec<Arc<Layout>>,
    /// Metrics of reports that have no layout.
    pub names: Vec<Name>,
    /// Instances.
    pub instances: Vec<Arc<InstanceKey>>,
}

/// What one lane has been told by one stream. Numbers only grow: what is known later serves earlier chunks as well. A
/// stream that forgets its names begins other lists.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The layouts.
    pub layouts: Arc<ToldLayouts>,
    /// The metrics of reports that have no layout.
    pub names: Arc<List<Name>>,
    /// The instances.
    pub seats: Arc<List<Seat>>,
}

/// The layouts behind their numbers, under the rules of this sieve. One lane alone adds to it and looks into it.
#[derive(Debug, Default)]
pub struct ToldLayouts(Mutex<(Arc<Vec<LaneLayout>>, Arc<Sieve>)>);

impl ToldLayouts {
    /// Adds what is told; all are under the rules of `sieve` from then on. They are copied as a whole if somebody still has
    /// them as they were.
    pub fn learn(&self, news: impl ExactSizeIterator<Item = Arc<Layout>>, sieve: &Arc<Sieve>) {
        let (known, under) = &mut *self.0.lock();
        if !Arc::ptr_eq(under, sieve) {
            *under = sieve.clone();
            Arc::make_mut(known).iter_mut().for_each(|layout| layout.adopt(sieve));
        }
        if news.len() > 0 {
            Arc::make_mut(known).extend(news.map(|layout| LaneLayout::new(layout, sieve)));
        }
    }

    /// All that has been told.
    pub fn known(&self) -> Arc<Vec<LaneLayout>> {
        self.0.lock().0.clone()
    }
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
    layouts: HashMap<Arc<Layout>, u32>,
    addresses: HashMap<Arc<InstanceKey>, Address>,
}

impl ByName {
    /// Nothing packed yet.
    pub fn new(n_lanes: usize) -> Self {
        Self { packer: Packer::new(n_lanes), layouts: HashMap::new(), addresses: HashMap::new() }
    }

    /// Packs a report of `key`, whose lane it is. The item's instance, layout and values are filled in.
    pub fn put(&mut self, lane_idx: usize, key: &Arc<InstanceKey>, item: Item, metrics: &[(Name, f64)]) {
        let row = Row::new(metrics);
        let packer = &mut self.packer;
        let new = || packer.add_layout(row.layout().clone());
        let layout = *self.layouts.entry(row.layout().clone()).or_insert_with(new);
        let whose = self.addresses.get(key).map_or(Whose::New(lane_idx, key), |address| Whose::Known(*address));
        let address = packer.put(whose, item, Which::Layout(layout), row.readings().values());
        self.addresses.insert(key.clone(), address);
    }

    /// What packs them.
    pub fn packer(&mut self) -> &mut Packer {
        &mut self.packer
    }
}
