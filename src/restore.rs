//! From what the journal remembers to the state that lanes begin with.
//!
//! Rules are named in the journal: here they find their places again. An alert whose rule is gone, or no longer looks
//! at its instance, is resolved; so its event goes to the journal before any report does.

use crate::{
    journal::{Entry, RestoredInstance, Snapshot},
    model::{Event, EventKind, Timestamp},
    rules::RuleSet,
    state::{Heard, InstanceState, Latest, Layouts, Marks, Presence, Silence, State, WindowRows},
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
    let mut layouts = Layouts::default();
    for from in instances {
        let (mut instance, events) = instance(from, rules, &mut layouts, now);
        restored.n_firing += instance.progress.firing.len();
        if !events.is_empty() {
            restored.entry.snapshots.push(Snapshot::of(&mut instance));
            restored.entry.events.extend(events);
        }
        state.restore(instance);
    }
    restored
}

/// The rows of all that fires, once more: for a store that has never heard of them.
pub fn restate(state: &State) -> Entry {
    let event = |alert| Event { kind: EventKind::Restate, alert };
    Entry { events: state.active_alerts().into_iter().map(event).collect(), ..Entry::default() }
}

/// One instance under the rules of today, and what they make of its alerts.
fn instance(
    from: RestoredInstance,
    rules: &RuleSet,
    layouts: &mut Layouts,
    now: Timestamp,
) -> (InstanceState, Vec<Event>) {
    let mut instance = InstanceState::new(from.key.clone(), rules.plan(&from.key), Heard::default());
    instance.latest = Latest::restored(&from.metrics, layouts);
    instance.read_at = from.read_at;
    instance.last_seen = from.last_seen;
    instance.skew_nanos = from.skew_nanos;
    instance.silence = Silence::restored(from.armed, from.usual_gap);
    instance.presence = match (from.forgotten, from.left) {
        (true, _) => Presence::Forgotten(Heard::default()),
        (false, true) => Presence::Left(Heard::default()),
        (false, false) => Presence::Present,
    };
    instance.marks = Marks::restored(from.marks);
    if !from.windows.is_empty() {
        instance.window_rows = WindowRows::Parts(u32::try_from(from.windows.len()).unwrap_or(u32::MAX));
    }
    let progress = &mut instance.progress;
    progress.raises = from.raises;
    progress.clock = from.clock;
    from.windows.into_iter().flatten().for_each(|part| progress.restore_series(part));
    let events = progress.settle(from.pending, from.firing, now);
    instance.rewatch(Heard::default());
    instance.unsaved = false;
    instance.journaled = true;
    instance.progress.moved = false;
    (instance, events)
}

#[cfg(test)]
mod tests;
