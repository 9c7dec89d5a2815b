//! Instances that two live agents report as, such as a cloned host: their numberings take turns, over and over.
//!
//! No report is dropped for it, but what one of them says of the service the other denies: the operator has to know.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::InstanceKey;

/// An agent that was started anew goes back once or twice, for what its earlier life had left.
const OFTEN: u32 = 10;
/// Turns are counted for so long, and each pair is told of once in that time.
const WINDOW: Duration = Duration::from_secs(60);
/// Instances that are counted at once, and told of.
const MAX_COUNTED: usize = 1_000;
const MAX_TOLD: usize = 10;

/// How often each instance went back to an earlier numbering of late.
#[derive(Debug)]
pub(super) struct Twins {
    since: Instant,
    turns: HashMap<Arc<InstanceKey>, u32>,
    n_told: usize,
}

impl Twins {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, turns: HashMap::new(), n_told: 0 }
    }

    /// Counts these turns back; answers the instances that have now gone back too often for one agent.
    pub(super) fn count(&mut self, went_back: Vec<Arc<InstanceKey>>, now: Instant) -> Vec<Arc<InstanceKey>> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let mut found = Vec::new();
        for key in went_back {
            if self.turns.len() >= MAX_COUNTED && !self.turns.contains_key(&key) {
                continue;
            }
            let turns = self.turns.entry(key.clone()).or_default();
            *turns += 1;
            if *turns == OFTEN && self.n_told < MAX_TOLD {
                self.n_told += 1;
                found.push(key);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(services: impl IntoIterator<Item = u32>) -> Vec<Arc<InstanceKey>> {
        services.into_iter().map(|n| Arc::new(InstanceKey::new(&format!("service-{n}"), "a"))).collect()
    }

    #[test]
    fn one_that_goes_back_often_is_told_of_once_a_minute_and_one_that_does_so_twice_is_not() {
        let now = Instant::now();
        let mut twins = Twins::new(now);
        assert!(twins.count(keys([1, 2, 2]), now).is_empty());
        assert_eq!(twins.count(keys([1; 20]), now), keys([1]));
        assert!(twins.count(keys([1; 20]), now + Duration::from_secs(59)).is_empty(), "known");
        assert_eq!(twins.count(keys([1; 20]), now + WINDOW), keys([1]), "still so");
        assert!(twins.count(keys([2; 9]), now + WINDOW).is_empty(), "counting has begun anew");
    }

    #[test]
    fn however_many_there_are_some_are_told_of_and_few_are_remembered() {
        let now = Instant::now();
        let mut twins = Twins::new(now);
        let mut n_told = 0;
        for _ in 0..OFTEN {
            n_told += twins.count(keys(0..2_000), now).len();
        }
        assert_eq!((n_told, twins.turns.len()), (MAX_TOLD, MAX_COUNTED));
    }
}
