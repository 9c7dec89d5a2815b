//! One life of the server: the real stages, wired as `app` wires them, and driven step by step instead of by threads.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::AtomicI64},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::FutureExt;
use rand::{RngExt, rngs::SmallRng};
use rayon::ThreadPool;
use slog::{Discard, Logger, o};

use super::{
    agent::{Covered, Sample},
    disk::{SimulatedDisk, Wire},
    oracle::{DEADLINES, Ears, Oracle},
    sink::{Ledger, Sink},
    store::SimulatedStore,
};
use crate::{
    deliver::{LINES, Next, Options as DeliverOptions, STORE, Source, Writer},
    dispatch::{self, ByName, Dispatcher, Item, LaneQueue, Receipt, StreamAccount, Turn},
    evaluate::{self, Lane, Moment, Shared},
    health::Health,
    journal::{self, Entry, Journal, SinkCursor, simulated::Stage},
    model::{InstanceKey, Rejection, Timestamp, WallClock},
    restore::{restate, restore},
    rules::RuleSet,
    state::State,
    stats::Stats,
    store::AlertStore,
};

/// Entries that may wait between a lane's turn and the journal's: a turn has one.
const ROOM: usize = 10_000;
/// A sink that may be made to give its events up.
pub(super) const RECEIVER: &str = "ops";

/// What one run has whatever becomes of its servers.
pub(super) struct Ground {
    pub(super) dir: std::path::PathBuf,
    pub(super) n_lanes: usize,
    pub(super) max_batch: usize,
    pub(super) max_commit_events: usize,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) hand: Arc<AtomicI64>,
    pub(super) wire: Rc<Wire>,
}

/// What a lane is about to take, as the oracle needs to know it.
enum Shadow {
    Reports(Vec<Sample>, Timestamp),
    Barrier(Vec<Arc<InstanceKey>>, Covered),
    Tick(Instant),
    Reload(Arc<RuleSet>),
    Forget(Arc<InstanceKey>),
}

/// A lane and what waits for it.
struct Seat {
    lane: Lane,
    queue: LaneQueue,
    next: Option<Turn>,
    shadows: VecDeque<Shadow>,
    rules: Arc<RuleSet>,
    ears: Ears,
    last_tick: Instant,
}

impl Seat {
    fn n_waiting(&self) -> usize {
        self.queue.turns.len() + usize::from(self.next.is_some())
    }
}

pub(super) struct Server {
    pub(super) state: Arc<State>,
    pub(super) stats: Arc<Stats>,
    dispatcher: Dispatcher,
    /// The streams in progress, with what they have told the lanes.
    streams: Vec<(Arc<StreamAccount>, ByName)>,
    seats: Vec<Seat>,
    /// From the lanes, and from there, once the oracle has seen it, to the journal.
    said: Receiver<Entry>,
    entries: (Sender<Entry>, Receiver<Entry>),
    pub(super) stage: Stage<SimulatedDisk>,
    wire: Rc<Wire>,
    pub(super) writer: Writer,
    pub(super) store_cursor: SinkCursor,
    pub(super) log: Sink,
    pub(super) receiver: Sink,
    pub(super) rules: Arc<RuleSet>,
}

impl Server {
    /// As `app` starts one.
    pub(super) fn start(
        ground: &Ground,
        store: &Arc<SimulatedStore>,
        rules: RuleSet,
        oracle: &mut Oracle,
        now: Moment,
    ) -> Self {
        let options = journal::Options { data_dir: ground.dir.clone(), max_bytes: 1 << 30, sinks: &[STORE, LINES] };
        let journal = Journal::open(&options).expect("a journal");
        let state = Arc::new(State::new(ground.n_lanes, 10_000));
        let stats = Arc::new(Stats::new());
        let rules = Arc::new(rules.succeeding(&journal.rules().expect("readable"), now.time));
        let mut restored = restore(journal.restore().expect("readable"), &rules, &state, now.time).entry;
        restored.rules = Some(rules.records());
        let store_cursor = journal.sinks().add(STORE);
        let log = Sink::new(journal.reader().expect("a reader"), journal.sinks().add(LINES));
        let receiver = Sink::new(journal.reader().expect("a reader"), journal.sinks().add(RECEIVER));
        let reader = journal.reader().expect("a reader");
        let is_known = store_cursor.identity().is_none_or(|known| known == store.describe());
        let restated = if is_known { Entry::default() } else { restate(&state) };
        let source = Source { reader, cursor: store_cursor.clone(), n_restated: restated.events.len() };
        let deliver = DeliverOptions { retention: None, inherited_seq: journal.last_seq() };
        let (health, quiet) = (Health::new(), Logger::root(Discard, o!()));
        let ends = (stats.clone(), health.clone());
        let writer = Writer::new(deliver, store.clone(), source, ends.clone(), quiet.clone(), now.instant);
        let disk = |file: journal::simulated::File| {
            let file = file.by(WallClock::Hand(ground.hand.clone()));
            SimulatedDisk::new(file, ground.wire.clone(), ground.dir.join("ballast"))
        };
        let mut stage = journal.into_stage(disk, ends, quiet.clone(), now.instant);
        oracle.adopt(|_| true, &rules, now.time, crate::state::Heard::default());
        oracle.compare(std::slice::from_ref(&restored));
        oracle.compare_restored(&state);
        stage.max_commit_events = ground.max_commit_events;
        stage.add(restored);
        if !restated.is_empty() {
            oracle.restate();
            stage.add(restated);
        }
        let dispatch = dispatch::Options { n_lanes: ground.n_lanes, queue_reports: 1 << 16 };
        let (dispatcher, queues) = Dispatcher::new(dispatch, stats.clone());
        let (journal, said) = bounded(ROOM);
        let options = evaluate::Options {
            stale_after: DEADLINES.stale_after,
            forget_after: DEADLINES.forget_after,
            n_helpers: 1,
            max_batch: ground.max_batch,
            parallel_from: usize::MAX,
            max_forgotten: 1_000,
        };
        let shared = Shared {
            state: state.clone(),
            stats: stats.clone(),
            pool: ground.pool.clone(),
            journal,
            n_busy: Arc::default(),
            options,
            log: quiet,
        };
        let seat = |(lane_idx, queue)| Seat {
            lane: Lane::new(lane_idx, shared.clone(), &rules, now.instant),
            queue,
            next: None,
            shadows: VecDeque::new(),
            rules: rules.clone(),
            ears: Ears::new(now.instant),
            last_tick: now.instant,
        };
        let seats = queues.into_iter().enumerate().map(seat).collect();
        let (wire, entries) = (ground.wire.clone(), bounded(ROOM));
        let streams = Vec::new();
        Self {
            streams,
            state,
            stats,
            dispatcher,
            seats,
            said,
            entries,
            stage,
            wire,
            writer,
            store_cursor,
            log,
            receiver,
            rules,
        }
    }

    /// Ingest: these reports arrive on a stream.
    pub(super) fn arrive(&mut self, account: &Arc<StreamAccount>, samples: &[Sample], place: u64, now: Moment) {
        let mut by_lane: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
        // A stream's instances and metrics keep their numbers from chunk to chunk.
        self.streams.retain(|(stream, _)| Arc::strong_count(stream) > 1);
        let idx = self.streams.iter().position(|(stream, _)| Arc::ptr_eq(stream, account)).unwrap_or_else(|| {
            self.streams.push((account.clone(), ByName::new(self.state.n_lanes())));
            self.streams.len() - 1
        });
        let reports = &mut self.streams[idx].1;
        for (sample, place) in samples.iter().zip(place..) {
            if !sample.is_valid {
                self.stats.received.inc();
                self.stats.rejected(Rejection::ALL[0]).inc();
                account.refuse();
            }
            let lane_idx = self.state.lane_of(&sample.key);
            if sample.is_valid {
                let (wire_time, sequence) = (sample.at.as_nanos().unsigned_abs(), sample.sequence);
                let item = Item { place, wire_time, sequence, leaving: sample.leaving, ..Item::default() };
                reports.put(lane_idx, &sample.key, item, &sample.metrics);
            } else {
                reports.packer().put_sign(lane_idx, sample.key.clone());
            }
            by_lane.entry(lane_idx).or_default().push(sample.clone());
        }
        for (lane_idx, samples) in by_lane {
            let chunk = reports.packer().chunk(lane_idx, account, now.time, now.instant).expect("it has been packed");
            let given = self.dispatcher.dispatch(lane_idx, chunk).now_or_never();
            given.expect("there is a slot").expect("the lanes live");
            self.seats[lane_idx].shadows.push_back(Shadow::Reports(samples, now.time));
        }
    }

    /// Ingest: the stream is over; what its receipt waits for.
    pub(super) fn end_stream(
        &mut self,
        samples: &[Sample],
        covered: &Covered,
    ) -> Vec<tokio::sync::oneshot::Receiver<()>> {
        let mut by_lane: BTreeMap<usize, Vec<Arc<InstanceKey>>> = BTreeMap::new();
        for sample in samples {
            let keys = by_lane.entry(self.state.lane_of(&sample.key)).or_default();
            if !keys.contains(&sample.key) {
                keys.push(sample.key.clone());
            }
        }
        let barrier = |(lane_idx, keys): (usize, Vec<_>)| {
            self.seats[lane_idx].shadows.push_back(Shadow::Barrier(keys.clone(), covered.clone()));
            let given = self.dispatcher.barrier(lane_idx, keys).now_or_never();
            given.expect("there is a slot").expect("the lanes live")
        };
        by_lane.into_iter().map(barrier).collect()
    }

    pub(super) fn tick(&mut self, due: Instant) {
        let before: Vec<_> = self.seats.iter().map(Seat::n_waiting).collect();
        self.dispatcher.tick(due);
        for (seat, before) in self.seats.iter_mut().zip(before) {
            if seat.n_waiting() > before {
                seat.shadows.push_back(Shadow::Tick(due));
            }
        }
    }

    /// Control: other rules for every lane, if the last change is through.
    pub(super) fn reload(&mut self, rules: RuleSet, now: Moment) -> bool {
        let Some(places) = self.dispatcher.control_places() else { return false };
        self.rules = Arc::new(rules.succeeding(&self.rules.records(), now.time));
        // Nobody waits for these receipts.
        drop(self.dispatcher.reload(&self.rules, places).expect("the lanes live"));
        self.seats.iter_mut().for_each(|seat| seat.shadows.push_back(Shadow::Reload(self.rules.clone())));
        true
    }

    /// Control: an instance is forgotten, if the last change is through.
    pub(super) fn forget(&mut self, key: &Arc<InstanceKey>) -> bool {
        let lane_idx = self.state.lane_of(key);
        let Some(place) = self.dispatcher.control_place(lane_idx) else { return false };
        self.dispatcher.forget(lane_idx, key.clone(), place, Receipt::new().0).expect("the lanes live");
        self.seats[lane_idx].shadows.push_back(Shadow::Forget(key.clone()));
        true
    }

    /// One lane takes its next turn; false: there is none.
    pub(super) fn run_lane(&mut self, lane_idx: usize, oracle: &mut Oracle, now: Moment, rng: &mut SmallRng) -> bool {
        let seat = &mut self.seats[lane_idx];
        let before = seat.n_waiting();
        let Some(turn) = seat.next.take().or_else(|| seat.queue.turns.try_recv().ok()) else { return false };
        // Streams that wait for a slot: what they hold is not silence.
        let is_held_back = rng.random_bool(0.1);
        seat.queue.waiting.store(usize::from(is_held_back), std::sync::atomic::Ordering::Relaxed);
        seat.next = seat.lane.take(turn, &seat.queue, now);
        for _ in seat.n_waiting()..before {
            let shadow = seat.shadows.pop_front().expect("each turn has its shadow");
            seat.follow(shadow, &self.state, lane_idx, oracle, now, is_held_back);
        }
        let entries: Vec<_> = self.said.try_iter().collect();
        oracle.compare(&entries);
        entries.into_iter().for_each(|entry| self.entries.0.try_send(entry).expect("there is room"));
        true
    }

    pub(super) fn n_lanes(&self) -> usize {
        self.seats.len()
    }

    /// The journal's thread wakes: takes what there is, or commits. An error: it has ended.
    pub(super) fn run_journal(&mut self, commits: bool, oracle: &mut Oracle, now: Moment) -> Result<(), ()> {
        if let Ok(entry) = self.entries.1.try_recv() {
            self.stage.take(entry, &self.entries.1);
        }
        if !commits {
            return Ok(());
        }
        let ended = self.stage.step(now.instant).map_err(drop);
        oracle.committed(self.wire.n_committed.take());
        ended
    }

    /// Whether the lanes and the journal have nothing left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.seats.iter().all(|seat| seat.n_waiting() == 0) && self.entries.1.is_empty() && self.stage.is_done()
    }

    /// The writer does one thing; whether it waits for events now.
    pub(super) fn run_writer(&mut self, now: Moment) -> bool {
        matches!(self.writer.step(now.instant), Next::EventsUntil(_))
    }

    pub(super) fn run_sinks(&mut self, ledger: &mut Ledger, log: bool, limit: usize) {
        if log { self.log.take(&mut ledger.log, limit) } else { self.receiver.take(&mut ledger.receiver, limit) }
    }

    /// What must hold at every moment (I4).
    pub(super) fn check_accounts(&self) {
        let balance = self.stats.balance();
        let decided = balance.accepted + balance.rejected + balance.duplicates;
        assert_eq!(balance.received, decided + balance.queued, "reports (I4): {balance:?}");
        let known = balance.stored + balance.pending + balance.dead_letter;
        assert_eq!(balance.events, known, "events (I4): {balance:?}");
    }

    pub(super) fn dead_letters(&self, path: &Path) -> Vec<(String, u64)> {
        let connection = rusqlite::Connection::open(path).expect("the journal");
        let mut query = connection.prepare("SELECT sink, seq FROM dead_letters ORDER BY seq").expect("a table");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("readable")
    }
}

impl Seat {
    /// The oracle goes through the same turn.
    fn follow(
        &mut self,
        shadow: Shadow,
        state: &State,
        lane_idx: usize,
        oracle: &mut Oracle,
        now: Moment,
        is_held_back: bool,
    ) {
        let is_ours = |key: &InstanceKey| state.lane_of(key) == lane_idx;
        match shadow {
            Shadow::Reports(samples, received_at) => {
                let heard = self.ears.at_arrival(now);
                samples.iter().for_each(|sample| oracle.report(sample, received_at, heard, &self.rules));
            }
            Shadow::Barrier(keys, covered) => {
                let points = keys.into_iter().map(|key| {
                    let n_taken = oracle.n_taken(&key);
                    (key, n_taken)
                });
                covered.borrow_mut().extend(points);
            }
            Shadow::Tick(due) => {
                let since_last = now.instant.saturating_duration_since(self.last_tick);
                self.last_tick = now.instant;
                self.ears.tick(due, now, if is_held_back { since_last } else { Duration::ZERO });
                oracle.tick(is_ours, self.ears.at(now), now.time);
            }
            Shadow::Reload(rules) => {
                oracle.adopt(is_ours, &rules, now.time, self.ears.at(now));
                self.rules = rules;
            }
            Shadow::Forget(key) => oracle.forget(&key, now.time, self.ears.at(now)),
        }
    }
}
