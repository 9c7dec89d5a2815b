//! Stage 3: OS threads, one per lane, that hold each report against the rules the moment its turn comes.
//!
//! A lane alone writes its shards (I2). What it gives on, it gives in one entry per batch of turns: the events, and how
//! far the instances with events have come, so that the journal holds both or neither. A full journal blocks the lane.
//!
//! A lane reads no clock and waits for nothing but its queue: its thread tells it the time with each turn, and so does a
//! simulation, which has no threads.

mod batch;
mod reload;
mod shards;
mod tick;
mod twins;

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use prometheus_client::metrics::counter::Counter;
use rayon::ThreadPool;
use slog::{Logger, warn};

pub use batch::PARALLEL_FROM;
use twins::Twins;

use crate::{
    dispatch::{Chunk, LaneQueue, Receipt, Turn},
    journal::{Entry, Snapshot},
    model::{InstanceKey, Timestamp},
    rules::{RuleRecord, RuleSet},
    state::{Hearing, Layouts, State},
    stats::Stats,
};

/// Most reports that one batch gathers from waiting turns. More would make the first of them wait longer for no gain.
pub const MAX_BATCH: usize = 4_096;

/// What lanes are told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Silence after which an instance is stale; `None`: as long as `absent()` waits.
    pub stale_after: Option<Duration>,
    /// Silence after which an instance is forgotten.
    pub forget_after: Duration,
    /// Threads of the pool that shares one large batch; 1: no sharing.
    pub n_helpers: usize,
    /// Most reports of one batch, but for the turn that goes past it; [`MAX_BATCH`] unless this is being measured.
    pub max_batch: usize,
    /// Reports from which on a batch is shared; [`PARALLEL_FROM`] unless this is being measured.
    pub parallel_from: usize,
    /// Most instances of which only the marks are kept, in one shard.
    pub max_forgotten: usize,
}

/// What every lane shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) state: Arc<State>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) journal: Sender<Entry>,
    /// How many lanes evaluate reports at this moment.
    pub(crate) n_busy: Arc<AtomicUsize>,
    pub(crate) options: Options,
    pub(crate) log: Logger,
}

/// Starts a thread for each queue, with these rules until a turn brings others. They end when their queues do, and with
/// them their clones of `journal`.
pub fn start(
    options: Options,
    queues: Vec<LaneQueue>,
    (state, rules): (Arc<State>, Arc<RuleSet>),
    journal: Sender<Entry>,
    stats: Arc<Stats>,
    log: &Logger,
) -> io::Result<Vec<JoinHandle<()>>> {
    assert_eq!(queues.len(), state.n_lanes(), "each lane has its own shards (I2)");
    let pool = helpers(options.n_helpers)?;
    let shared = Shared { state, stats, pool, journal, n_busy: Arc::default(), options, log: log.clone() };
    let spawn = |(lane_idx, queue): (usize, LaneQueue)| {
        let name = format!("lane-{lane_idx}");
        let log = shared.log.new(slog::o!("thread" => name.clone()));
        let lane = Lane::new(lane_idx, Shared { log, ..shared.clone() }, &rules, Instant::now());
        thread::Builder::new().name(name).spawn(move || lane.run(&queue))
    };
    queues.into_iter().enumerate().map(spawn).collect()
}

/// The pool that shares large batches.
pub(crate) fn helpers(n_helpers: usize) -> io::Result<Arc<ThreadPool>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_helpers).thread_name(|idx| format!("helper-{idx}"));
    pool.build().map(Arc::new).map_err(io::Error::other)
}

/// A moment on both of the server's clocks: durations are of the one, rows have the times of the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) time: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self { instant: Instant::now(), time: Timestamp::now() }
    }
}

/// The rules, and the count of each one's evaluations, which it would take a lock to look up.
struct InForce {
    rules: Arc<RuleSet>,
    evaluations: Vec<Counter>,
}

impl InForce {
    fn new(rules: &Arc<RuleSet>, stats: &Stats) -> Self {
        let evaluations = rules.rules.iter().map(|rule| stats.rule_evaluations(&rule.name)).collect();
        Self { rules: rules.clone(), evaluations }
    }
}

pub(crate) struct Lane {
    lane_idx: usize,
    shared: Shared,
    /// The lane's own: they change at a turn, so that one batch is never held against two.
    in_force: InForce,
    hearing: Hearing,
    last_tick: Instant,
    twins: Twins,
    layouts: Layouts,
}

impl Lane {
    pub(crate) fn new(lane_idx: usize, shared: Shared, rules: &Arc<RuleSet>, now: Instant) -> Self {
        let in_force = InForce::new(rules, &shared.stats);
        let (hearing, twins) = (Hearing::starting(now), Twins::new(now));
        Self { lane_idx, shared, in_force, hearing, last_tick: now, twins, layouts: Layouts::default() }
    }

    fn run(mut self, queue: &LaneQueue) {
        let mut next = None;
        while let Some(turn) = next.take().or_else(|| queue.turns.recv().ok()) {
            next = self.take(turn, queue, Moment::now());
        }
    }

    /// Takes a turn; one of reports together with those of reports that wait right behind it. Answers the turn that
    /// ended these: it has left the queue and is to be taken next.
    pub(crate) fn take(&mut self, turn: Turn, queue: &LaneQueue, now: Moment) -> Option<Turn> {
        match turn {
            Turn::Chunk(chunk, slot) => {
                let mut n_reports = chunk.items.len();
                let (mut chunks, mut slots) = (vec![chunk], vec![slot]);
                let mut next = None;
                while n_reports < self.shared.options.max_batch {
                    match queue.turns.try_recv() {
                        Ok(Turn::Chunk(chunk, slot)) => {
                            n_reports += chunk.items.len();
                            chunks.push(chunk);
                            slots.push(slot);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                self.chunks(&chunks, now);
                drop(slots);
                return next;
            }
            Turn::Barrier(instances, receipt, slot) => {
                self.barrier(&instances, receipt);
                drop(slot);
            }
            Turn::Tick(due, place) => {
                self.tick(due, queue.waiting.load(Ordering::Relaxed) > 0, now);
                drop(place);
            }
            Turn::Reload(rules, place, receipt) => {
                self.reload(rules, receipt, now);
                drop(place);
            }
            Turn::Forget(key, place, receipt) => {
                self.forget(&key, receipt, now);
                drop(place);
            }
        }
        None
    }

    /// Evaluates the chunks' reports in order and settles their streams' accounts.
    fn chunks(&mut self, chunks: &[Box<Chunk>], Moment { instant, .. }: Moment) {
        let Shared { state, stats, .. } = &self.shared;
        let now = self.hearing.at_arrival(instant);
        let parallel_from = self.shared.options.parallel_from;
        let n_busy = self.shared.n_busy.fetch_add(1, Ordering::Relaxed) + 1;
        let others_rest = n_busy == 1 || n_busy < state.n_lanes();
        let work = batch::Work { state, rules: &self.in_force.rules, chunks, now, parallel_from, others_rest };
        let done = work.run(self.lane_idx, &mut self.layouts, &self.shared.pool);
        self.shared.n_busy.fetch_sub(1, Ordering::Relaxed);
        stats.turns.inc_by(chunks.len() as u64);
        if done.parallel {
            stats.parallel_turns.inc();
        }
        stats.alerts_raised.inc_by(done.tallies.iter().map(|tally| tally.raised).sum());
        stats.alerts_firing.inc_by(done.firing_delta);
        for (why, n) in done.rejected {
            stats.rejected(why).inc_by(n);
        }
        for batch::Panic { message, key, rule } in done.panics {
            stats.evaluate_panics.inc();
            slog::error!(self.shared.log, "evaluating a report panicked: it is refused, please report this fault";
                "panic" => &message, "rule" => rule.as_ref().map(|rule| rule.name.to_string()),
                "service" => key.service(), "instance" => key.instance());
            if let Some(rule) = rule {
                stats.note_rule_error(&rule.name, format!("panicked on a report of {key}: {message}"));
            }
        }
        for (counter, n) in self.in_force.evaluations.iter().zip(done.evaluations) {
            if n + done.n_by_all > 0 {
                counter.inc_by(n + done.n_by_all);
            }
        }
        for key in done.restarted {
            warn!(self.shared.log, "reports without an agent-epoch are numbered from 1 again";
                "service" => key.service(), "instance" => key.instance());
        }
        stats.numbering_returns.inc_by(done.went_back.len() as u64);
        for key in self.twins.count(done.went_back, instant) {
            warn!(self.shared.log, "two agents report as the same instance: give each a name of its own with --instance";
                "service" => key.service(), "instance" => key.instance());
        }
        // The journal has the events before the stream's barrier can follow them.
        self.journal(Entry { events: done.events, snapshots: done.snapshots, ..Entry::default() });
        for (chunk, tally) in chunks.iter().zip(&done.tallies) {
            chunk.stream.settle(tally);
            stats.accepted.inc_by(tally.accepted);
            stats.duplicates.inc_by(tally.duplicates);
            stats.queued.dec_by(chunk.n_reports() as i64);
        }
    }

    /// Journals how far the instances have come since they were last journaled, and the receipt behind that.
    fn barrier(&self, instances: &[Arc<InstanceKey>], receipt: Receipt) {
        let shards = self.shared.state.shards_of_lane(self.lane_idx);
        let mut snapshots = Vec::new();
        for key in instances {
            let mut shard = shards[State::shard_in_lane(key)].write();
            if let Some(instance) = shard.get_mut(key).filter(|instance| instance.unsaved) {
                snapshots.push(Snapshot::of(instance));
            }
        }
        self.journal(Entry { snapshots, receipts: vec![receipt], ..Entry::default() });
    }

    /// Looks who has been silent. `held_back`: streams wait for a slot in this lane.
    fn tick(&mut self, due: Instant, held_back: bool, Moment { instant: now, time }: Moment) {
        let since_last = now.saturating_duration_since(mem::replace(&mut self.last_tick, now));
        self.hearing.tick(due, now, if held_back { since_last } else { Duration::ZERO });
        let look = tick::Look {
            state: &self.shared.state,
            options: &self.shared.options,
            heard: self.hearing.at(now),
            now: time,
        };
        self.layouts.tidy();
        self.shared.state.note_heard(self.lane_idx, look.heard);
        let done = look.run(self.lane_idx, &self.shared.pool);
        self.shared.stats.alerts_raised.inc_by(done.n_raised);
        self.shared.stats.alerts_firing.inc_by(done.firing_delta);
        self.shared.stats.instances.set(self.shared.state.n_instances() as i64);
        self.journal(Entry { events: done.events, snapshots: done.snapshots, ..Entry::default() });
    }

    /// From here on `rules` hold.
    fn reload(&mut self, rules: Arc<RuleSet>, receipt: Receipt, now: Moment) {
        let Shared { state, stats, pool, .. } = &self.shared;
        self.in_force = InForce::new(&rules, stats);
        let times = (now.time, self.hearing.at(now.instant));
        let done = reload::adopt(state, &rules, times, self.lane_idx, pool);
        // With the first lane's instances, so that none of them is under rules that the journal does not know.
        self.changed(done, Some(rules.records()), receipt);
    }

    fn forget(&self, key: &InstanceKey, receipt: Receipt, now: Moment) {
        let heard = self.hearing.at(now.instant);
        let done = reload::forget(&self.shared.state, key, now.time, heard, self.lane_idx);
        self.changed(done, None, receipt);
    }

    /// Journals what control has changed, and the receipt with it.
    fn changed(&self, done: reload::Done, rules: Option<Vec<RuleRecord>>, receipt: Receipt) {
        self.shared.stats.alerts_firing.inc_by(done.firing_delta());
        self.shared.stats.instances.set(self.shared.state.n_instances() as i64);
        self.journal(Entry { events: done.events, snapshots: done.snapshots, rules, receipts: vec![receipt] });
    }

    fn journal(&self, entry: Entry) {
        if entry.is_empty() {
            return;
        }
        // The journal ends after its last sender: if it is gone it has died, which ends the whole server. What it did
        // not take was never receipted.
        for part in entry.split() {
            if self.shared.journal.send(part).is_err() {
                slog::debug!(self.shared.log, "the journal is gone");
            }
        }
    }
}

#[cfg(test)]
mod tests;
