//! Stage 2: gives each chunk of reports a turn in its instances' lane.
//!
//! Async callers wait here, for a slot; lane threads never do (I5). One lane has one consumer, which is what keeps an
//! instance's reports in order (I2). Holding a slot means that the lane has room (I3).

mod account;
mod pack;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

pub use account::{StreamAccount, Tally};
pub use pack::{Address, ByName, News, Packer, Told, ToldLayouts, Which, Whose};

use crate::{
    model::{InstanceKey, Timestamp},
    rules::RuleSet,
    stats::Stats,
};

/// Most reports in one chunk, and so the fewest slots that a lane can have.
pub const MAX_CHUNK: usize = 512;
/// How long a stream may wait for a slot before it is refused (CONTRACT §2).
const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(5);
/// Metrics that weigh as much as one report more, so that slots bound memory and not just counts.
const METRICS_PER_SLOT: usize = 16;
/// Room in a lane for turns that hold no slot: the one tick and the one turn of control that may wait.
const SLOTLESS_TURNS: usize = 2;

/// One valid report, or the sign of life that a refused one still is. Whose it is, and which metrics it has, are numbers
/// that the stream has told the lane the names of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Item {
    /// The instance's number; of a sign, its place among the signs of the chunk.
    pub instance: u32,
    /// Whether it is only a sign of life.
    pub is_sign: bool,
    /// Which metrics it has.
    pub metrics: Metrics,
    /// Where its values begin among those of its chunk.
    pub first: u32,
    /// Whether it is the last one of an orderly stop.
    pub leaving: bool,
    /// Its place in the stream, from 0.
    pub place: u64,
    /// The time as it stood on the wire; 0: none, the server's counts.
    pub wire_time: u64,
    /// Its number; 0: none.
    pub sequence: u64,
}

/// Which metrics a report has.
#[derive(Clone, Copy, Debug)]
pub enum Metrics {
    /// Those of the layout of this number.
    Layout(u32),
    /// So many, whose numbers begin here among those of its chunk.
    Loose {
        /// Where.
        first: u32,
        /// How many.
        n: u16,
    },
}

impl Default for Metrics {
    fn default() -> Self {
        Self::Loose { first: 0, n: 0 }
    }
}

/// Reports of one stream for one lane, in the order in which they were sent.
#[derive(Debug)]
pub struct Chunk {
    /// The reports; at most [`MAX_CHUNK`].
    pub items: Vec<Item>,
    /// The values of all reports, one report's behind another's.
    pub values: Vec<f64>,
    /// The numbers of the metrics of reports that have no layout.
    pub loose: Vec<u32>,
    /// Whose signs of life those items are that are no reports.
    pub signs: Vec<Arc<InstanceKey>>,
    /// Names that the lane has not been told yet.
    pub news: News,
    /// What it has been told.
    pub told: Told,
    /// The stream that they came on.
    pub stream: Arc<StreamAccount>,
    /// When they were read, by the server's clock.
    pub received_at: Timestamp,
    /// When they were read, monotonic.
    pub arrived: Instant,
}

impl Chunk {
    fn weight(&self) -> usize {
        self.items.len() + self.values.len() / METRICS_PER_SLOT
    }

    /// How many reports are in it that wait for a decision.
    pub fn n_reports(&self) -> usize {
        self.items.len() - self.signs.len()
    }

    /// When the readings of one of its reports were taken; when it was read if it does not say.
    pub fn time_of(&self, item: &Item) -> Timestamp {
        Timestamp::from_wire(item.wire_time).filter(|_| item.wire_time > 0).unwrap_or(self.received_at)
    }
}

/// The promise that everything before it in a lane is durable; kept by the journal.
#[derive(Debug)]
pub struct Receipt(oneshot::Sender<()>);

impl Receipt {
    /// A receipt, and where it arrives; it never arrives if the pipeline has died.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (given, receipt) = oneshot::channel();
        (Self(given), receipt)
    }

    /// Tells whoever waits. It may have gone, and then nobody listens.
    pub fn give(self) {
        let _ = self.0.send(());
    }

    /// Whether somebody still waits for it.
    pub fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }
}

/// One thing for a lane to do. Its order among others is the order of what an instance goes through.
#[derive(Debug)]
pub enum Turn {
    /// Evaluate these reports. The permit travels with the turn and is freed when the turn is done, so that the
    /// lane's slots bound the work accepted, not just the work queued.
    Chunk(Box<Chunk>, OwnedSemaphorePermit),
    /// Journal how far these instances have come, then give the receipt.
    Barrier(Vec<Arc<InstanceKey>>, Receipt, OwnedSemaphorePermit),
    /// Look who has been silent. It was due at this time.
    Tick(Instant, Place),
    /// From here on these rules hold. The receipt: what they made of the alerts that fire is durable.
    Reload(Arc<RuleSet>, Place, Receipt),
    /// Forget this instance, all but its marks. The receipt: that is durable.
    Forget(Arc<InstanceKey>, Place, Receipt),
}

/// The place in a lane of a turn that holds no slot: there is one for a tick and one for control. More would take room
/// that slots have promised (I3). The turn's end lets the next one in.
#[derive(Debug)]
pub struct Place(Arc<AtomicBool>);

impl Place {
    fn take(taken: &Arc<AtomicBool>) -> Option<Self> {
        (!taken.swap(true, Ordering::Acquire)).then(|| Self(taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// No slot came free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// The lanes are too far behind.
    #[error("the server is overloaded: no room for {} s", ADMISSION_WAIT_MAX.as_secs())]
    Overloaded,
    /// The lane's thread is gone.
    #[error("a lane has stopped")]
    Stopped,
}

/// What the server's lanes may hold.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lanes, one worker thread each.
    pub n_lanes: usize,
    /// Slots of all lanes together.
    pub queue_reports: usize,
}

#[derive(Debug)]
struct Lane {
    turns: Sender<Turn>,
    slots: Arc<Semaphore>,
    capacity: usize,
    waiting: Arc<AtomicUsize>,
    tick: Arc<AtomicBool>,
    control: Arc<AtomicBool>,
}

/// What a lane's thread takes turns from.
#[derive(Debug)]
pub struct LaneQueue {
    /// The turns, in order.
    pub turns: Receiver<Turn>,
    /// How many streams wait for a slot: while there are any, the lane does not hear everybody.
    pub waiting: Arc<AtomicUsize>,
}

/// The way into the lanes. The lanes end when every clone of it is gone (I8).
#[derive(Clone, Debug)]
pub struct Dispatcher {
    lanes: Arc<[Lane]>,
    stats: Arc<Stats>,
}

impl Dispatcher {
    /// The lanes' entrances, and the queue behind each.
    pub fn new(options: Options, stats: Arc<Stats>) -> (Self, Vec<LaneQueue>) {
        let capacity = (options.queue_reports / options.n_lanes).max(MAX_CHUNK);
        let (lanes, queues): (Vec<_>, Vec<_>) = (0..options.n_lanes)
            .map(|_| {
                // Every other turn holds at least one slot, so that this many turns are the most there can be.
                let (turns, queue) = bounded(capacity + SLOTLESS_TURNS);
                let waiting = Arc::new(AtomicUsize::new(0));
                let slots = Arc::new(Semaphore::new(capacity));
                let waiting_streams = waiting.clone();
                let (tick, control) = (Arc::default(), Arc::default());
                let lane = Lane { turns, slots, capacity, waiting: waiting_streams, tick, control };
                (lane, LaneQueue { turns: queue, waiting })
            })
            .unzip();
        (Self { lanes: lanes.into(), stats }, queues)
    }

    /// Waits for room and gives the chunk its turn. Admitted reports are counted as received here: what is dropped
    /// while it waits was never received, and the agent sends it again.
    pub async fn dispatch(&self, lane_idx: usize, chunk: Box<Chunk>) -> Result<(), DispatchError> {
        let lane = &self.lanes[lane_idx];
        let weight = chunk.weight().min(lane.capacity);
        let slot = self.slot(lane, weight).await?;
        self.admit(lane, chunk, slot)
    }

    fn admit(&self, lane: &Lane, chunk: Box<Chunk>, slot: OwnedSemaphorePermit) -> Result<(), DispatchError> {
        let n_reports = chunk.n_reports();
        self.stats.received.inc_by(n_reports as u64);
        self.stats.queued.inc_by(n_reports as i64);
        chunk.stream.admit(n_reports as u64);
        Self::enqueue(lane, Turn::Chunk(chunk, slot))
    }

    /// As [`Self::dispatch`], from a thread and without waiting; false: there is no room.
    pub fn try_dispatch(&self, lane_idx: usize, chunk: Box<Chunk>) -> bool {
        let lane = &self.lanes[lane_idx];
        let weight = u32::try_from(chunk.weight().min(lane.capacity)).unwrap_or(u32::MAX);
        let Ok(slot) = lane.slots.clone().try_acquire_many_owned(weight) else { return false };
        self.admit(lane, chunk, slot).is_ok()
    }

    /// Sends a barrier after all that the stream has dispatched to this lane. The answer comes when the journal holds
    /// how far `instances` have come, and never if the pipeline has died.
    pub async fn barrier(
        &self,
        lane_idx: usize,
        instances: Vec<Arc<InstanceKey>>,
    ) -> Result<oneshot::Receiver<()>, DispatchError> {
        let lane = &self.lanes[lane_idx];
        let slot = self.slot(lane, 1).await?;
        let (receipt, given) = Receipt::new();
        Self::enqueue(lane, Turn::Barrier(instances, receipt, slot))?;
        Ok(given)
    }

    /// Gives every lane a tick that was due at `due`. A lane whose last tick still waits needs no other.
    pub fn tick(&self, due: Instant) {
        for lane in &*self.lanes {
            if let Some(place) = Place::take(&lane.tick) {
                // A lane that has ended needs no tick.
                let _ = Self::enqueue(lane, Turn::Tick(due, place));
            }
        }
    }

    /// The place of control in one lane; `None`: an earlier turn of control has it.
    pub fn control_place(&self, lane_idx: usize) -> Option<Place> {
        Place::take(&self.lanes[lane_idx].control)
    }

    /// The places of control in every lane, in their order; `None`: not all of them are free.
    pub fn control_places(&self) -> Option<Vec<Place>> {
        (0..self.lanes.len()).map(|lane_idx| self.control_place(lane_idx)).collect()
    }

    /// Gives every lane these rules, in the place that control has in it. Each receipt tells that one lane has come to
    /// them, and never comes if the pipeline has died.
    pub fn reload(
        &self,
        rules: &Arc<RuleSet>,
        places: Vec<Place>,
    ) -> Result<Vec<oneshot::Receiver<()>>, DispatchError> {
        assert_eq!(places.len(), self.lanes.len(), "lanes never differ in their rules for longer than their turns");
        let give = |(lane, place)| {
            let (receipt, given) = Receipt::new();
            Self::enqueue(lane, Turn::Reload(rules.clone(), place, receipt)).map(|()| given)
        };
        self.lanes.iter().zip(places).map(give).collect()
    }

    /// Has an instance forgotten by its lane, in the place that control has in it.
    pub fn forget(
        &self,
        lane_idx: usize,
        key: Arc<InstanceKey>,
        place: Place,
        receipt: Receipt,
    ) -> Result<(), DispatchError> {
        Self::enqueue(&self.lanes[lane_idx], Turn::Forget(key, place, receipt))
    }

    async fn slot(&self, lane: &Lane, weight: usize) -> Result<OwnedSemaphorePermit, DispatchError> {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        // The usual case takes no clock.
        if let Ok(slot) = lane.slots.clone().try_acquire_many_owned(weight) {
            return Ok(slot);
        }
        let waiting = Waiting::new(&lane.waiting);
        let began = Instant::now();
        let slot = timeout(ADMISSION_WAIT_MAX, lane.slots.clone().acquire_many_owned(weight)).await;
        self.stats.dispatch_wait.observe(began.elapsed().as_secs_f64());
        drop(waiting);
        match slot {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(DispatchError::Stopped),
            Err(_) => {
                self.stats.overload_refusals.inc();
                Err(DispatchError::Overloaded)
            }
        }
    }

    fn enqueue(lane: &Lane, turn: Turn) -> Result<(), DispatchError> {
        match lane.turns.try_send(turn) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(DispatchError::Stopped),
            Err(TrySendError::Full(_)) => unreachable!("a slot was held, so the lane has room (I3)"),
        }
    }
}

/// Counts one waiting stream for as long as it lives, also when the wait is given up half-way.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
