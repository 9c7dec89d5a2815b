//! What a report and the time do to an instance: the lanes' part, and that of rule tests, which play both.
//!
//! No lock, no counter, no journal: what the world hears of comes back as events.

use std::time::Duration;

use super::{Heard, InstanceState, Presence};
use crate::{
    model::{Event, Readings, ResolveReason, Timestamp},
    rules::{Outcome, look},
};

/// An instance that left and did not come back is forgotten after this long (CONTRACT §3).
const LEFT_FOR: Duration = Duration::from_secs(10 * 60);

/// A report that an instance takes over.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The readings.
    pub metrics: Readings<'a>,
    /// When they were read.
    pub at: Timestamp,
    /// Whether it is the last one of an orderly stop.
    pub leaving: bool,
    /// When it arrived, by the server's clock.
    pub received_at: Timestamp,
    /// When it arrived, by the hearing clock.
    pub heard: Heard,
}

/// After how long a silence means something, whatever the rules say.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Silence after which it is stale; `None`: as long as `absent()` waits.
    pub stale_after: Option<Duration>,
    /// Silence after which it is forgotten.
    pub forget_after: Duration,
}

impl InstanceState {
    /// Takes over a report, and what the rules found in it; returns what the world hears of.
    pub fn take_report(&mut self, outcome: Outcome, arrival: &Arrival<'_>) -> Vec<Event> {
        self.take_readings(arrival.metrics, arrival.at, arrival.heard);
        self.silence.heard_report(arrival.heard);
        self.presence = if arrival.leaving { Presence::Left(arrival.heard) } else { Presence::Present };
        self.stale = false;
        self.unsaved = true;
        self.progress.apply(outcome, arrival.metrics, arrival.received_at)
    }

    /// Takes over that it is later: silence, telling again, being forgotten. Returns what the world hears of.
    pub fn take_time(&mut self, deadlines: Deadlines, heard: Heard, now: Timestamp) -> Vec<Event> {
        match self.presence {
            Presence::Present => {
                let silent = self.silent_for(heard);
                self.stale = silent >= deadlines.stale_after.unwrap_or(self.silence.patience());
                if silent >= deadlines.forget_after {
                    return self.forget(now, heard, ResolveReason::Forgotten);
                }
            }
            Presence::Left(since) if heard.since(since) >= LEFT_FOR => {
                return self.forget(now, heard, ResolveReason::Left);
            }
            Presence::Left(_) => {}
            Presence::Forgotten(_) => return Vec::new(),
        }
        if !self.progress.plan.is_timed {
            return Vec::new();
        }
        let outcome = self.with_hush(heard, |hush| look(&self.progress, &self.key, hush, now));
        if outcome.is_quiet() { Vec::new() } else { self.progress.apply_look(outcome, now) }
    }
}
