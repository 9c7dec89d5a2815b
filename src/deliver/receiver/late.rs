//! Alerts that came late: held back until their instance has caught up, so that an outage of the network does not wake
//! somebody for what was over long ago (CONTRACT §3).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::schedule::Now;
use crate::{
    model::{Alert, InstanceKey, Timestamp},
    notify::MAX_ALERTS,
};

/// From an instance's first late raise on: what it has not resolved by then still fires, as far as anybody can tell.
const CATCH_UP: Duration = Duration::from_secs(10);
/// By how much longer a decision waits for events that are in the journal and not read yet.
const READING_WAIT: Duration = Duration::from_secs(10);
/// Events that may be held back. More than that are decided early: some alert may be told that is over in the next event,
/// and the digest is in several parts (I1).
pub(super) const MAX_HELD: usize = 20_000;

/// A raise that nobody has been told of yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) seq: u64,
    /// When it was journaled.
    pub(super) at: Timestamp,
    pub(super) alert: Arc<Alert>,
    due: Instant,
}

/// Alerts that were over before anybody was told of them.
#[derive(Debug)]
pub(super) struct Over {
    due: Instant,
    /// When the first of them was journaled.
    pub(super) at: Timestamp,
    /// The events that it stands for: of each alert its raise and its resolve.
    pub(super) seqs: Vec<u64>,
    /// The first of them.
    pub(super) alerts: Vec<Arc<Alert>>,
    /// How many more there are.
    pub(super) n_more: usize,
    /// Of all of them: the same alerts make the same id.
    pub(super) id: Uuid,
}

/// What is held back.
#[derive(Debug, Default)]
pub(super) struct Late {
    held: HashMap<Uuid, Held>,
    by_due: BTreeMap<(Instant, u64), Uuid>,
    /// When each instance that is behind should have caught up.
    windows: HashMap<Arc<InstanceKey>, Instant>,
    over: Option<Over>,
}

impl Late {
    /// How many events are held back.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.over.as_ref().map_or(0, |over| over.seqs.len())
    }

    /// Holds a raise back.
    pub(super) fn hold(&mut self, seq: u64, at: Timestamp, alert: Arc<Alert>, now: Now) {
        // What was journaled before a restart has waited since then.
        let full = now.instant + CATCH_UP.saturating_sub(now.time.since(at));
        let window = self.windows.entry(alert.key.clone()).or_insert(full);
        if *window <= now.instant {
            *window = full;
        }
        let due = *window;
        self.by_due.insert((due, seq), alert.alert_id);
        self.held.insert(alert.alert_id, Held { seq, at, alert, due });
    }

    /// Takes the resolve of an alert that is held back; false: it is not.
    pub(super) fn resolve(&mut self, seq: u64, alert: &Arc<Alert>) -> bool {
        let Some(raise) = self.held.remove(&alert.alert_id) else { return false };
        self.by_due.remove(&(raise.due, raise.seq));
        let over = self.over.get_or_insert_with(|| Over {
            due: raise.due,
            at: raise.at,
            seqs: Vec::new(),
            alerts: Vec::new(),
            n_more: 0,
            id: Uuid::nil(),
        });
        over.due = over.due.min(raise.due);
        over.at = over.at.min(raise.at);
        over.seqs.extend([raise.seq, seq]);
        over.id = Uuid::new_v5(&over.id, alert.alert_id.as_bytes());
        if over.alerts.len() < MAX_ALERTS {
            over.alerts.push(alert.clone());
        } else {
            over.n_more += 1;
        }
        true
    }

    /// Whether this alert is held back.
    pub(super) fn holds(&self, alert_id: Uuid) -> bool {
        self.held.contains_key(&alert_id)
    }

    /// What is held back no longer, because its time is up or there is too much of it. `caught_up`: every event that is
    /// in the journal has been read.
    pub(super) fn due(&mut self, now: Instant, caught_up: bool) -> (Vec<Held>, Option<Over>) {
        let passed = |due: Instant| due + reading_wait(caught_up) <= now;
        let mut released = Vec::new();
        let mut over = self.over.take_if(|over| passed(over.due));
        if self.len() > MAX_HELD && over.is_none() {
            over = self.over.take();
        }
        while let Some(entry) = self.by_due.first_entry()
            && (passed(entry.key().0) || self.held.len() > MAX_HELD)
        {
            let alert_id = entry.remove();
            released.extend(self.held.remove(&alert_id));
        }
        if !released.is_empty() || over.is_some() {
            self.windows.retain(|_, due| *due > now);
        }
        (released, over)
    }

    /// When something is due next.
    pub(super) fn next_due(&self, caught_up: bool) -> Option<Instant> {
        let held = self.by_due.first_key_value().map(|((due, _), _)| *due);
        let first = held.into_iter().chain(self.over.as_ref().map(|over| over.due)).min();
        first.map(|due| due + reading_wait(caught_up))
    }

    /// Drops what lies up to this event; its events, and how many alerts they were about.
    pub(super) fn give_up(&mut self, to: u64) -> Vec<(Vec<u64>, Arc<Alert>, usize)> {
        let mut given_up = Vec::new();
        let old: Vec<_> = self.held.values().filter(|held| held.seq <= to).map(|held| held.alert.alert_id).collect();
        for held in old.iter().filter_map(|alert_id| self.held.remove(alert_id)) {
            self.by_due.remove(&(held.due, held.seq));
            given_up.push((vec![held.seq], held.alert, 1));
        }
        if let Some(over) = self.over.take_if(|over| over.seqs.iter().any(|seq| *seq <= to)) {
            let n_alerts = over.alerts.len() + over.n_more;
            given_up.extend(over.alerts.into_iter().next().map(|first| (over.seqs, first, n_alerts)));
        }
        given_up
    }
}

const fn reading_wait(caught_up: bool) -> Duration {
    if caught_up { Duration::ZERO } else { READING_WAIT }
}
