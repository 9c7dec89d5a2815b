//! From what the journal remembers to the state that lanes begin with.
//!
//! The rules may be others than before: instances adopt them as at a reload, and what that means to their alerts goes
//! to the journal before any report does.

use crate::{
    journal::{Entry, RestoredInstance, Snapshot},
    model::Timestamp,
    rules::{Firing, RuleSet},
    state::{Heard, InstanceState, Marks, Presence, Silence, State},
};

/// What was restored.
#[derive(Debug, Default)]
pub struct Restored {
    /// What the rules of today make of the alerts of yesterday.
    pub entry: Entry,
    /// Instances put into the state.
    pub n_instances: usize,
    /// Alerts that fire.
    pub n_firing: usize,
}

/// Puts the instances into the state, as if they had just been heard: time in which the server was down is not theirs.
pub fn restore(instances: Vec<RestoredInstance>, rules: &RuleSet, state: &State, now: Timestamp) -> Restored {
    let mut restored = Restored { n_instances: instances.len(), ..Restored::default() };
    for from in instances {
        let mut instance = InstanceState::new(from.key, Box::default(), Heard::default());
        // The journal names rules; adopting finds their places.
        instance.firing = from.firing.into_iter().map(|alert| Firing { rule: 0, alert }).collect();
        let events = instance.adopt(rules, now);
        instance.metrics = from.metrics;
        instance.last_seen = from.last_seen;
        instance.skew_nanos = from.skew_nanos;
        instance.silence = Silence::restored(from.armed, from.usual_gap);
        instance.presence = match (from.forgotten, from.left) {
            (true, _) => Presence::Forgotten(Heard::default()),
            (false, true) => Presence::Left(Heard::default()),
            (false, false) => Presence::Present,
        };
        instance.marks = Marks::restored(from.marks);
        instance.raises = from.raises;
        instance.unsaved = false;
        restored.n_firing += instance.firing.len();
        if !events.is_empty() {
            restored.entry.snapshots.push(Snapshot::of(&instance));
            restored.entry.events.extend(events);
        }
        state.restore(instance);
    }
    restored
}
