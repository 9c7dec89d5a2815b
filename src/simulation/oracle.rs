//! What must come of it all, told apart from the pipeline.
//!
//! Two answers. [`Oracle`] follows each instance turn by turn through the rules' own timeline (`InstanceState`, as tests of
//! rules play it), with one plain mark per numbering in place of the pipeline's, and falls back at a crash to what had
//! become durable: its events must be those of the journal to the last field, once each. [`in_one_go`] knows nothing of
//! turns, ticks or crashes: an instance's reports one after the other, as they were made.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{agent::Sample, rules};
use crate::{
    evaluate::Moment,
    journal::Entry,
    model::{Event, InstanceKey, ResolveReason, Row, Timestamp},
    rules::{Outcome, Progress, Reading, RuleSet, evaluate},
    state::{Arrival, Deadlines, Heard, Hearing, InstanceState, Presence, Silence, State},
};

/// After which silence something is true, whatever the rules say.
pub(super) const DEADLINES: Deadlines = Deadlines { stale_after: None, forget_after: Duration::from_secs(1_200) };

/// An instance at one point of its life.
#[derive(Clone, Debug, Default)]
struct Point {
    instance: Option<InstanceState>,
    /// The last number taken, by numbering.
    marks: BTreeMap<u64, u64>,
    /// How many reports were taken.
    n_taken: u64,
    n_events: usize,
}

#[derive(Debug, Default)]
struct Followed {
    live: Point,
    durable: Point,
    events: Vec<Event>,
    /// Whether it was ever forgotten.
    forgotten: bool,
}

/// The same for every instance.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    instances: BTreeMap<Arc<InstanceKey>, Followed>,
    /// What each entry on its way to the disk will make durable, oldest first.
    on_their_way: VecDeque<Vec<(Arc<InstanceKey>, Point)>>,
    /// What the turn has brought so far.
    fresh: BTreeMap<Arc<InstanceKey>, Vec<Event>>,
}

impl Oracle {
    fn note(&mut self, key: &Arc<InstanceKey>, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let followed = self.instances.entry(key.clone()).or_default();
        followed.events.extend(events.iter().cloned());
        followed.live.n_events = followed.events.len();
        self.fresh.entry(key.clone()).or_default().extend(events);
    }

    /// A lane takes a report.
    pub(super) fn report(&mut self, sample: &Sample, received_at: Timestamp, heard: Heard, rules: &RuleSet) {
        let live = &mut self.instances.entry(sample.key.clone()).or_default().live;
        if !sample.is_valid {
            if let Some(instance) = &mut live.instance {
                instance.silence.heard_sign(heard);
                instance.last_seen = received_at;
            }
            return;
        }
        let mark = live.marks.get(&sample.epoch).copied().unwrap_or(0);
        let is_known = sample.sequence > 0 && sample.sequence <= mark;
        let instance = live.instance.get_or_insert_with(|| {
            let mut fresh = InstanceState::new(sample.key.clone(), rules.plan(&sample.key), heard);
            fresh.progress.raises = received_at.as_nanos().unsigned_abs();
            fresh
        });
        if !instance.is_shown() && !is_known {
            instance.come_back(heard);
        }
        instance.last_seen = received_at;
        if is_known {
            instance.silence.heard_sign(heard);
            return;
        }
        let outcome = judge(&instance.progress, sample, received_at);
        let Sample { metrics, at, leaving, .. } = sample;
        let row = Row::new(metrics);
        let arrival = Arrival { metrics: row.readings(), at: *at, leaving: *leaving, received_at, heard };
        let events = instance.take_report(outcome, &arrival);
        if sample.sequence > 0 {
            live.marks.insert(sample.epoch, sample.sequence);
        }
        live.n_taken += 1;
        self.note(&sample.key, events);
    }

    /// A lane looks who has been silent.
    pub(super) fn tick(&mut self, is_of_lane: impl Fn(&InstanceKey) -> bool, heard: Heard, now: Timestamp) {
        self.each(is_of_lane, |instance| instance.take_time(DEADLINES, heard, now));
    }

    /// A lane has other rules.
    pub(super) fn adopt(
        &mut self,
        is_of_lane: impl Fn(&InstanceKey) -> bool,
        rules: &RuleSet,
        now: Timestamp,
        heard: Heard,
    ) {
        self.each(is_of_lane, |instance| instance.adopt(rules, now, heard));
    }

    /// An instance is forgotten by hand.
    pub(super) fn forget(&mut self, key: &InstanceKey, now: Timestamp, heard: Heard) {
        self.each(
            |of| of == key,
            |instance| {
                if instance.is_shown() { instance.forget(now, heard, ResolveReason::Forgotten) } else { Vec::new() }
            },
        );
    }

    fn each(
        &mut self,
        is_meant: impl Fn(&InstanceKey) -> bool,
        mut change: impl FnMut(&mut InstanceState) -> Vec<Event>,
    ) {
        let keys: Vec<_> = self.instances.keys().filter(|key| is_meant(key)).cloned().collect();
        for key in keys {
            let followed = self.instances.get_mut(&key).expect("it was there a line ago");
            let Some(instance) = &mut followed.live.instance else { continue };
            let events = change(instance);
            followed.forgotten |= !instance.is_shown();
            self.note(&key, events);
        }
    }

    /// How many reports of an instance the lanes have taken.
    pub(super) fn n_taken(&self, key: &InstanceKey) -> u64 {
        self.instances.get(key).map_or(0, |followed| followed.live.n_taken)
    }

    /// And how many of them are durable.
    pub(super) fn n_durable(&self, key: &InstanceKey) -> u64 {
        self.instances.get(key).map_or(0, |followed| followed.durable.n_taken)
    }

    /// What the pipeline says about the turn must be what has come of it here.
    pub(super) fn compare(&mut self, entries: &[Entry]) {
        let mut told: BTreeMap<Arc<InstanceKey>, Vec<Event>> = BTreeMap::new();
        for event in entries.iter().flat_map(|entry| &entry.events) {
            told.entry(event.alert.key.clone()).or_default().push(event.clone());
        }
        assert_eq!(told, std::mem::take(&mut self.fresh), "a turn's events (left: the pipeline's)");
        for entry in entries {
            let point = |key: &Arc<InstanceKey>| {
                (key.clone(), self.instances.get(key).map(|followed| followed.live.clone()).unwrap_or_default())
            };
            self.on_their_way.push_back(entry.snapshots.iter().map(|snapshot| point(&snapshot.key)).collect());
        }
    }

    /// An entry that says nothing new.
    pub(super) fn restate(&mut self) {
        self.on_their_way.push_back(Vec::new());
    }

    /// So many entries are durable.
    pub(super) fn committed(&mut self, n_entries: usize) {
        for (key, point) in self.on_their_way.drain(..n_entries).flatten() {
            self.instances.entry(key).or_default().durable = point;
        }
    }

    /// The server's memory is gone. What it restores is as it was at the last durable point, but that nobody's silence
    /// has been heard since: counting begins anew.
    pub(super) fn crash(&mut self) {
        self.on_their_way.clear();
        self.fresh.clear();
        for followed in self.instances.values_mut() {
            followed.live = followed.durable.clone();
            followed.events.truncate(followed.live.n_events);
            if let Some(instance) = &mut followed.live.instance {
                instance.silence = Silence::restored(instance.silence.is_armed(), instance.silence.usual_gap());
                instance.presence = match instance.presence {
                    Presence::Present => Presence::Present,
                    Presence::Left(_) => Presence::Left(Heard::default()),
                    Presence::Forgotten(_) => Presence::Forgotten(Heard::default()),
                };
                instance.watched.clear();
            }
        }
    }

    /// What was restored is what was durable, no less and no more.
    pub(super) fn compare_restored(&self, state: &State) {
        let mut n_instances = 0;
        for (key, followed) in &self.instances {
            let shard = state.shards_of_lane(state.lane_of(key))[State::shard_in_lane(key)].read();
            let (restored, wanted) = (shard.get(key), &followed.live);
            assert_eq!(restored.is_some(), wanted.instance.is_some(), "{key} is restored");
            let (Some(restored), Some(instance)) = (restored, &wanted.instance) else { continue };
            n_instances += usize::from(instance.is_shown());
            let marks: BTreeMap<_, _> = restored.marks.iter().map(|mark| (mark.epoch, mark.sequence)).collect();
            assert_eq!(marks, wanted.marks, "the marks of {key} (left: restored)");
            let (of, by) = (&restored.progress, &instance.progress);
            assert_eq!((of.clock, of.raises), (by.clock, by.raises), "the clock of {key} (left: restored)");
            assert_eq!(of.firing, by.firing, "what fires of {key} (left: restored)");
            assert_eq!(of.pending, by.pending, "what is pending of {key} (left: restored)");
        }
        assert_eq!(state.n_instances(), n_instances, "instances restored");
    }

    /// The numbers of an instance that are durable, by numbering.
    pub(super) fn marks(&self, key: &InstanceKey) -> Option<&BTreeMap<u64, u64>> {
        self.instances.get(key).map(|followed| &followed.durable.marks)
    }

    /// Every event that there should be, by instance.
    pub(super) fn events(&self) -> BTreeMap<Arc<InstanceKey>, Vec<Event>> {
        let events = self.instances.iter().map(|(key, followed)| (key.clone(), followed.events.clone()));
        events.filter(|(_, events)| !events.is_empty()).collect()
    }

    pub(super) fn was_forgotten(&self, key: &InstanceKey) -> bool {
        self.instances.get(key).is_some_and(|followed| followed.forgotten)
    }
}

fn judge(progress: &Progress, sample: &Sample, received_at: Timestamp) -> Outcome {
    let row = Row::new(&sample.metrics);
    let reading = Reading {
        key: &sample.key,
        metrics: row.readings(),
        at: sample.at,
        wire_time: sample.at.as_nanos().unsigned_abs(),
        received_at,
        skew_nanos: 0,
        epoch: sample.epoch,
        sequence: sample.sequence,
    };
    evaluate(progress, &reading)
}

/// The events that one instance's numbered reports cause, one after the other and without a break. When they arrive is
/// up to the network, so that `received_at` and `late` mean nothing here.
pub(super) fn in_one_go(rules: &RuleSet, key: &InstanceKey, samples: &[Sample]) -> Vec<Event> {
    let mut progress = Progress::new(rules.plan(key));
    let mut events = Vec::new();
    for sample in samples.iter().filter(|sample| *sample.key == *key && sample.is_valid) {
        let outcome = judge(&progress, sample, sample.at);
        events.extend(progress.apply(outcome, Row::new(&sample.metrics).readings(), sample.at));
    }
    events.retain(|event| rules::is_about_reports(&event.alert.rule));
    events
}

/// The hearing clock of a lane, as the oracle keeps it.
pub(super) struct Ears(Hearing);

impl Ears {
    pub(super) fn new(now: Instant) -> Self {
        Self(Hearing::starting(now))
    }

    pub(super) fn at_arrival(&self, now: Moment) -> Heard {
        self.0.at_arrival(now.instant)
    }

    pub(super) fn at(&self, now: Moment) -> Heard {
        self.0.at(now.instant)
    }

    pub(super) fn tick(&mut self, due: Instant, now: Moment, held_back: Duration) {
        self.0.tick(due, now.instant, held_back);
    }
}
