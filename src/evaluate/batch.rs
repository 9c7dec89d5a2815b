//! One batch of chunks against one lane's shards, as a plain loop or shared out over the rayon pool.
//!
//! Work is shared by shard, so that an instance's reports stay with one helper and in order. Helpers decide nothing,
//! lock nothing and send nothing (I7): the lane has locked the shards, and puts the results back into input order.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::{RwLock, RwLockWriteGuard};

use gopherwatch_proto::MAX_METRICS;
use rayon::{
    ThreadPool,
    iter::{IntoParallelIterator, ParallelIterator},
};

use crate::{
    dispatch::{Chunk, Item, Metrics, Tally},
    journal::Snapshot,
    model::{Event, EventKind, InstanceKey, Name, Readings, Rejection, Timestamp},
    rules::{Progress, Reading, Rule, RuleSet, Sifting, evaluate, evaluate_one, evaluate_sifted},
    state::{Arrival, Heard, InstanceState, LaneLayout, Layouts, Numbering, Seat, Shard, State},
};

/// Reports from which on a batch is shared out, with rules at no cost: each 16 rules that are asked about every report count
/// as one report more. A lane alone takes some 0.2 µs a report and 15 ns for such a rule, and handing a batch to the pool and waiting for it some
/// 40 µs, which only pays where a core has nothing else to do: a server that both of its lanes and its streams keep busy
/// spent a third more in all when it shared batches of 1,024 (benches/README.md).
pub const PARALLEL_FROM: usize = 4_096;
/// See [`PARALLEL_FROM`].
const RULES_PER_REPORT: usize = 16;
/// Reports whose instances are looked at before the first of them is worked on. Their memory then comes at one time: a core
/// waits for some ten lines of it at once.
const LOOK_AHEAD: usize = 8;
/// Reports that a lane alone takes before it lets the readers of its shards in.
const MAX_UNDER_LOCK: usize = 256;

/// A batch, and what it is held against.
pub(super) struct Work<'a> {
    pub(super) state: &'a State,
    pub(super) rules: &'a RuleSet,
    pub(super) chunks: &'a [Box<Chunk>],
    pub(super) now: Heard,
    pub(super) parallel_from: usize,
    /// Whether another lane has nothing to do at this moment, or there is no other.
    pub(super) others_rest: bool,
}

/// What came of a batch.
#[derive(Default)]
pub(super) struct Done {
    /// In the order of the reports that caused them.
    pub(super) events: Vec<Event>,
    pub(super) snapshots: Vec<Snapshot>,
    /// One per chunk.
    pub(super) tallies: Vec<Tally>,
    pub(super) rejected: BTreeMap<Rejection, u64>,
    pub(super) firing_delta: i64,
    pub(super) panics: Vec<Panic>,
    /// How many reports were held against all rules in force.
    pub(super) n_by_all: u64,
    /// How often each rule was evaluated beside these, by its place among the rules in force.
    pub(super) evaluations: Vec<u64>,
    pub(super) restarted: Vec<Arc<InstanceKey>>,
    /// Those that went back to a numbering which another one had followed, each time.
    pub(super) went_back: Vec<Arc<InstanceKey>>,
    pub(super) parallel: bool,
}

/// A report whose evaluation panicked.
pub(super) struct Panic {
    /// What was said.
    pub(super) message: String,
    /// Whose report it was.
    pub(super) key: Arc<InstanceKey>,
    /// The rule at fault, if it fails alone too.
    pub(super) rule: Option<Arc<Rule>>,
}

/// Where an item stands: the chunk's and its own place.
type Position = (usize, usize);

/// What came of one shard's part.
struct Part {
    done: Done,
    events: Vec<(Position, Event)>,
    changed: Vec<Arc<InstanceKey>>,
}

/// A chunk with the names behind its numbers.
struct Named<'a> {
    chunk: &'a Chunk,
    seats: &'a [Seat],
    layouts: &'a [LaneLayout],
    /// The metrics of its reports that have no layout, one report's behind another's.
    loose: Vec<&'a Name>,
}

impl<'a> Named<'a> {
    fn seat(&self, item: &Item) -> &'a Seat {
        &self.seats[item.instance as usize]
    }

    /// The seat of whose report it is; `None`: it is no report.
    fn seat_of(&self, item: &Item) -> Option<&'a Seat> {
        (!item.is_sign).then(|| self.seat(item))
    }

    fn shard_of(&self, item: &Item) -> usize {
        if item.is_sign {
            State::shard_in_lane(&self.chunk.signs[item.instance as usize])
        } else {
            self.seat(item).shard
        }
    }

    /// The readings of a report, and what the rules in force look at in its layout, if it has one.
    fn readings_of<'b>(&'b self, item: &Item) -> (Readings<'b>, Option<&'b Sifting>) {
        let values = &self.chunk.values[item.first as usize..];
        match item.metrics {
            Metrics::Layout(number) => {
                let layout = &self.layouts[number as usize];
                (layout.readings(&values[..layout.n_values()]), Some(layout.sifting()))
            }
            Metrics::Loose { first, n } => {
                let n = usize::from(n);
                (Readings::loose(&self.loose[first as usize..][..n], &values[..n]), None)
            }
        }
    }
}

impl Work<'_> {
    pub(super) fn run(&self, lane_idx: usize, layouts: &mut Layouts, pool: &ThreadPool) -> Done {
        let shards = self.state.shards_of_lane(lane_idx);
        // All news first: a list that somebody reads is copied with each further chunk that adds to it.
        for chunk in self.chunks {
            let shared = chunk.news.layouts.iter().map(|layout| layouts.share(layout));
            chunk.told.layouts.learn(shared, &self.rules.sieve);
            chunk.told.names.learn(chunk.news.names.iter().cloned());
            chunk.told.seats.learn(chunk.news.instances.iter().map(|key| self.state.seat(lane_idx, key)));
        }
        let known = |chunk: &Chunk| (chunk.told.seats.known(), chunk.told.layouts.known(), chunk.told.names.known());
        let known: Vec<_> = self.chunks.iter().map(|chunk| known(chunk)).collect();
        let chunks = self.chunks.iter().zip(&known);
        let named = chunks.map(|(chunk, (seats, layouts, names))| {
            let loose = chunk.loose.iter().map(|number| &names[*number as usize]).collect();
            Named { chunk, seats, layouts, loose }
        });
        let chunks: Vec<_> = named.collect();
        let n_items: usize = self.chunks.iter().map(|chunk| chunk.items.len()).sum();
        let weight = n_items * (1 + self.rules.n_asked() / RULES_PER_REPORT);
        let parallel = weight >= self.parallel_from && self.others_rest && pool.current_num_threads() > 1;
        let shared_out = parallel.then(|| self.shared_out(&chunks, shards, pool)).flatten();
        let mut done = self.nothing_done();
        done.parallel = shared_out.is_some();
        let parts = shared_out.unwrap_or_else(|| vec![self.in_turn(&chunks, shards)]);
        let mut events = Vec::new();
        for part in parts {
            events.extend(part.events);
            done.absorb(part.done);
        }
        events.sort_by_key(|(position, _)| *position);
        done.events = events.into_iter().map(|(_, event)| event).collect();
        done
    }

    /// Every report by this thread, in their order.
    fn in_turn(&self, chunks: &[Named<'_>], shards: &[RwLock<Shard>]) -> Part {
        let mut part = Part { done: self.nothing_done(), events: Vec::new(), changed: Vec::new() };
        let mut locked: Vec<Option<RwLockWriteGuard<'_, Shard>>> = shards.iter().map(|_| None).collect();
        let mut n_under_lock = 0;
        for (chunk_idx, named) in chunks.iter().enumerate() {
            for (item_idx, item) in named.chunk.items.iter().enumerate() {
                if item_idx % LOOK_AHEAD == 0 {
                    for seat in named.chunk.items[item_idx..].iter().take(LOOK_AHEAD).filter_map(|i| named.seat_of(i)) {
                        locked[seat.shard].iter().for_each(|shard| seat.touch(shard));
                    }
                }
                if n_under_lock == MAX_UNDER_LOCK {
                    n_under_lock = 0;
                    locked.fill_with(|| None);
                }
                n_under_lock += 1;
                let shard_idx = named.shard_of(item);
                if locked[shard_idx].is_none() {
                    let lock = shards[shard_idx].try_write().unwrap_or_else(|| {
                        // Whoever reads this one must not hold up the readers of the others.
                        locked.fill_with(|| None);
                        shards[shard_idx].write()
                    });
                    locked[shard_idx] = Some(lock);
                }
                let Some(shard) = &mut locked[shard_idx] else { unreachable!("locked a line ago") };
                self.item(shard, named, item, (chunk_idx, item_idx), &mut part);
            }
        }
        drop(locked);
        part.snapshots(|key, take| {
            shards[State::shard_in_lane(key)].write().get_mut(key).map(take);
        });
        part
    }

    /// The reports of each shard by one helper, in their order; `None`: they are all of one shard.
    fn shared_out(&self, chunks: &[Named<'_>], shards: &[RwLock<Shard>], pool: &ThreadPool) -> Option<Vec<Part>> {
        let mut positions: Vec<Vec<Position>> = vec![Vec::new(); shards.len()];
        for (chunk_idx, named) in chunks.iter().enumerate() {
            for (item_idx, item) in named.chunk.items.iter().enumerate() {
                positions[named.shard_of(item)].push((chunk_idx, item_idx));
            }
        }
        let touched = shards.iter().zip(&positions).filter(|(_, positions)| !positions.is_empty());
        let touched: Vec<_> = touched.collect();
        if touched.len() < 2 {
            return None;
        }
        let mut locked: Vec<_> = touched.into_iter().map(|(shard, positions)| (shard.write(), positions)).collect();
        let work: Vec<_> = locked.iter_mut().map(|(shard, positions)| (&mut **shard, *positions)).collect();
        let part = |(shard, positions): (&mut Shard, &Vec<Position>)| {
            let mut part = Part { done: self.nothing_done(), events: Vec::new(), changed: Vec::new() };
            for positions in positions.chunks(LOOK_AHEAD) {
                let items = positions.iter().map(|position| (&chunks[position.0], position.1));
                let items = items.map(|(named, item_idx)| (named, &named.chunk.items[item_idx]));
                items.clone().filter_map(|(named, item)| named.seat_of(item)).for_each(|seat| seat.touch(shard));
                for ((named, item), &position) in items.zip(positions) {
                    self.item(shard, named, item, position, &mut part);
                }
            }
            part.snapshots(|key, take| {
                shard.get_mut(key).map(take);
            });
            part
        };
        Some(pool.install(|| work.into_par_iter().map(part).collect()))
    }

    fn nothing_done(&self) -> Done {
        Done {
            tallies: vec![Tally::default(); self.chunks.len()],
            evaluations: vec![0; self.rules.rules.len()],
            ..Done::default()
        }
    }

    fn item(&self, shard: &mut Shard, named: &Named<'_>, item: &Item, position: Position, part: &mut Part) {
        if item.is_sign {
            if let Some(instance) = shard.get_mut(&named.chunk.signs[item.instance as usize]) {
                instance.silence.heard_sign(self.now);
                instance.last_seen = named.chunk.received_at;
            }
            return;
        }
        let (chunk, seat, (readings, sifting)) = (named.chunk, named.seat(item), named.readings_of(item));
        let key = &seat.key;
        let tally = &mut part.done.tallies[position.0];
        let mut reject = |why, tally: &mut Tally| {
            tally.rejected += 1;
            *part.done.rejected.entry(why).or_default() += 1;
        };
        let epoch = chunk.stream.epoch;
        let judge = |instance: &InstanceState| instance.marks.judge(epoch, item.sequence, item.wire_time);
        let instance = match seat.find(shard) {
            Some(instance) if instance.is_shown() => instance,
            // What it sent before it was forgotten does not bring it back.
            Some(instance) if judge(instance) == Numbering::Duplicate => instance,
            Some(instance) if self.state.try_add_instance() => {
                instance.come_back(self.now);
                instance
            }
            None if self.state.try_add_instance() => {
                let mut fresh = InstanceState::new(key.clone(), self.rules.plan(key), self.now);
                // Counting from the clock, not from 0: an instance that was forgotten for good, a new journal or another
                // server on the same database never counts the same raise again.
                fresh.progress.raises = chunk.received_at.as_nanos().unsigned_abs();
                let place = shard.insert_full(key.clone(), fresh).0;
                seat.note(place);
                &mut shard[place]
            }
            Some(_) | None => return reject(Rejection::InstanceCap, tally),
        };
        instance.last_seen = chunk.received_at;
        if instance.latest.len() + readings.values().len() > MAX_METRICS
            && instance.latest.n_with(readings) > MAX_METRICS
        {
            instance.silence.heard_sign(self.now);
            return reject(Rejection::MetricCap, tally);
        }
        let numbering = judge(instance);
        if numbering == Numbering::Duplicate {
            instance.silence.heard_sign(self.now);
            tally.duplicates += 1;
            tally.last = Some((item.place, instance.marks.of(epoch)));
            return;
        }
        if numbering == Numbering::Anew {
            part.done.restarted.push(key.clone());
        }
        // The pure part comes first: if it panics, nothing has changed, and only this report is refused.
        let at = chunk.time_of(item);
        let reading = reading(chunk, item, key, readings, at);
        let judged = || match sifting {
            Some(sifting) => evaluate_sifted(&instance.progress, &reading, sifting),
            None => evaluate(&instance.progress, &reading),
        };
        let verdict = catch_unwind(AssertUnwindSafe(judged));
        let outcome = match verdict {
            Ok(outcome) => outcome,
            Err(panic) => {
                let rule = culprit(&instance.progress, &reading);
                part.done.panics.push(Panic { message: panic_message(&*panic), key: key.clone(), rule });
                // Its mark moves past it: sent again, it would only panic again.
                let _ = advance(instance, epoch, item);
                return reject(Rejection::Internal, tally);
            }
        };
        if advance(instance, epoch, item) {
            part.done.went_back.push(key.clone());
        }
        instance.skew_nanos = chunk.stream.skew_nanos.or(instance.skew_nanos);
        if self.rules.is_all(&instance.progress.plan) {
            part.done.n_by_all += 1;
        } else {
            for rule in &instance.progress.plan.rules {
                // Rules of the server's own have no place among those in force.
                part.done.evaluations.get_mut(rule.place).into_iter().for_each(|n| *n += 1);
            }
        }
        tally.accepted += 1;
        tally.last = Some((item.place, item.sequence));
        let arrival =
            Arrival { metrics: readings, at, leaving: item.leaving, received_at: chunk.received_at, heard: self.now };
        let events = instance.take_report(outcome, &arrival);
        if events.is_empty() {
            return;
        }
        for event in events {
            tally.raised += u64::from(event.kind == EventKind::Raise);
            part.done.firing_delta += event.kind.firing_delta();
            part.events.push((position, event));
        }
        part.changed.push(key.clone());
    }
}

impl Part {
    /// Takes the snapshots of instances with events; `with` looks one up. After the last report of the batch: events and
    /// marks reach the journal at one point.
    fn snapshots(&mut self, mut with: impl FnMut(&InstanceKey, &mut dyn FnMut(&mut InstanceState))) {
        self.changed.dedup();
        for key in std::mem::take(&mut self.changed) {
            with(&key, &mut |instance| {
                if instance.unsaved {
                    self.done.snapshots.push(Snapshot::of(instance));
                }
            });
        }
    }
}

impl Done {
    fn absorb(&mut self, part: Self) {
        self.snapshots.extend(part.snapshots);
        self.tallies.iter_mut().zip(&part.tallies).for_each(|(all, part)| all.merge(part));
        part.rejected.into_iter().for_each(|(why, n)| *self.rejected.entry(why).or_default() += n);
        self.firing_delta += part.firing_delta;
        self.panics.extend(part.panics);
        self.n_by_all += part.n_by_all;
        self.evaluations.iter_mut().zip(part.evaluations).for_each(|(all, part)| *all += part);
        self.restarted.extend(part.restarted);
        self.went_back.extend(part.went_back);
    }
}

fn reading<'a>(
    chunk: &Chunk,
    item: &Item,
    key: &'a Arc<InstanceKey>,
    metrics: Readings<'a>,
    at: Timestamp,
) -> Reading<'a> {
    Reading {
        key,
        metrics,
        at,
        wire_time: item.wire_time,
        received_at: chunk.received_at,
        skew_nanos: chunk.stream.skew_nanos.unwrap_or(0),
        epoch: chunk.stream.epoch,
        sequence: item.sequence,
    }
}

/// Moves the report's mark; whether it went back to a numbering which another one had followed.
fn advance(instance: &mut InstanceState, epoch: u64, item: &Item) -> bool {
    if item.sequence == 0 {
        return false;
    }
    instance.unsaved = true;
    instance.marks.advance(epoch, item.sequence, item.wire_time)
}

/// The first rule that panics on this report by itself.
fn culprit(progress: &Progress, reading: &Reading<'_>) -> Option<Arc<Rule>> {
    let panics = |place: &usize| catch_unwind(AssertUnwindSafe(|| evaluate_one(progress, reading, *place))).is_err();
    let place = (0..progress.plan.rules.len()).find(panics)?;
    Some(progress.plan.rules[place].clone())
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
