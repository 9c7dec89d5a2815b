//! One instance: its last readings, how far it has come, its firing alerts, whether it is there.

use std::sync::Arc;

use super::{Heard, Marks, Presence, Silence};
use crate::{
    model::{Event, EventKind, InstanceKey, Name, ResolveReason, Timestamp},
    rules::{Change, Firing, RuleSet, update},
};

/// What the server knows of one instance.
#[derive(Clone, Debug)]
pub struct InstanceState {
    /// Who it is.
    pub key: Arc<InstanceKey>,
    /// The last known value of each metric.
    pub metrics: Vec<(Name, f64)>,
    /// When the server last heard of it, by its own clock.
    pub last_seen: Timestamp,
    /// By how much its clock is ahead of the server's, in nanoseconds; `None`: not known.
    pub skew_nanos: Option<i64>,
    /// Its signs of life.
    pub silence: Silence,
    /// Whether it is there.
    pub presence: Presence,
    /// Whether it has been silent for long.
    pub stale: bool,
    /// How far its numberings have come.
    pub marks: Marks,
    /// Raises that no numbered report caused: they make the ids of such alerts unique.
    pub raises: u64,
    /// The alerts that fire.
    pub firing: Vec<Firing>,
    /// The places of the rules that look at it.
    pub applicable: Box<[u32]>,
    /// Whether the journal does not know it as it is now.
    pub unsaved: bool,
}

impl InstanceState {
    /// An instance heard of for the first time.
    pub fn new(key: Arc<InstanceKey>, applicable: Box<[u32]>, now: Heard) -> Self {
        Self {
            key,
            metrics: Vec::new(),
            last_seen: Timestamp::default(),
            skew_nanos: None,
            silence: Silence::starting(now),
            presence: Presence::Present,
            stale: false,
            marks: Marks::default(),
            raises: 0,
            firing: Vec::new(),
            applicable,
            unsaved: true,
        }
    }

    /// Whether REST shows it.
    pub fn is_shown(&self) -> bool {
        !matches!(self.presence, Presence::Forgotten(_))
    }

    /// How many metrics it would have with those of `metrics`.
    pub fn n_metrics_with(&self, metrics: &[(Name, f64)]) -> usize {
        let known = |name: &Name| self.metrics.iter().any(|(have, _)| have == name);
        self.metrics.len() + metrics.iter().filter(|(name, _)| !known(name)).count()
    }

    /// Takes over the readings of a report.
    pub fn take_readings(&mut self, metrics: &[(Name, f64)]) {
        for (place, (name, value)) in metrics.iter().enumerate() {
            // Agents send the same metrics in the same order, so that the place is nearly always right.
            let slot = match self.metrics.get(place) {
                Some((have, _)) if have == name => Some(place),
                _ => self.metrics.iter().position(|(have, _)| have == name),
            };
            match slot {
                Some(slot) => self.metrics[slot].1 = *value,
                None => self.metrics.push((name.clone(), *value)),
            }
        }
    }

    /// Takes over what the rules made of a report or a silence.
    pub fn take_change(&mut self, Change { rule, event }: &Change) {
        match event.kind {
            EventKind::Raise => self.firing.push(Firing { rule: *rule, alert: event.alert.clone() }),
            EventKind::Resolve => self.firing.retain(|f| f.rule != *rule),
            EventKind::Update => {
                self.firing.iter_mut().filter(|f| f.rule == *rule).for_each(|f| f.alert = event.alert.clone());
            }
            EventKind::Record => {}
        }
        self.unsaved = true;
    }

    /// Takes these rules for its own, whatever it had before: an alert that fires goes on under the rule of its name.
    /// Returns what that means to its alerts: updates, and resolves of those whose rule no longer looks at it.
    pub fn adopt(&mut self, rules: &RuleSet, now: Timestamp) -> Vec<Event> {
        self.applicable = rules.applicable(&self.key);
        let mut events = Vec::new();
        for Firing { alert, .. } in std::mem::take(&mut self.firing) {
            let Some(place) = rules.place(&alert.rule).filter(|place| self.applicable.contains(place)) else {
                let alert = Arc::new(alert.resolved(now, ResolveReason::RuleRemoved, None));
                events.push(Event { kind: EventKind::Resolve, alert });
                continue;
            };
            let update = update(&rules.rules[place as usize], &alert, now);
            let alert = update.as_ref().map_or(alert, |event| event.alert.clone());
            self.firing.push(Firing { rule: place, alert });
            events.extend(update);
        }
        self.unsaved |= !events.is_empty();
        events
    }

    /// A forgotten instance is heard of again: all but its marks begins anew.
    pub fn come_back(&mut self, now: Heard) {
        self.presence = Presence::Present;
        self.silence = Silence::starting(now);
    }

    /// Forgets all but the marks; returns the events that resolve its alerts.
    pub fn forget(&mut self, now: Timestamp, heard: Heard, why: ResolveReason) -> Vec<Event> {
        let firing = std::mem::take(&mut self.firing);
        self.metrics = Vec::new();
        self.presence = Presence::Forgotten(heard);
        self.stale = false;
        self.unsaved = true;
        let resolved = firing.iter().map(|f| Arc::new(f.alert.resolved(now, why, None)));
        resolved.map(|alert| Event { kind: EventKind::Resolve, alert }).collect()
    }
}
