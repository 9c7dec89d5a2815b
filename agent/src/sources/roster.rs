//! Which metrics of each instance are reported: the first 256 that it had.
//!
//! The server keeps that many names of an instance, old ones too, and refuses a report with another one as a whole. So a
//! name that was reported once has its place for good, whatever comes and goes, and what comes too late has none.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use gopherwatch_proto::MAX_METRICS;
use gopherwatch_proto::v1::Metric;

/// Instances that are watched over, 2 KB each: four times what StatsD may bring. Others are reported as they come: a
/// simulated fleet is larger, and never has other names.
const MAX_INSTANCES: usize = 1_024;

/// The names reported so far.
#[derive(Debug, Default)]
pub struct Roster {
    /// By service, then by instance; a name is its hash.
    known: HashMap<String, HashMap<String, HashSet<u64>>>,
    n_instances: usize,
    hasher: RandomState,
}

impl Roster {
    /// Takes out what has no place, and says how many that were.
    pub fn fit(&mut self, service: &str, instance: &str, metrics: &mut Vec<Metric>) -> usize {
        let n_before = metrics.len();
        let is_known = self.known.get(service).is_some_and(|instances| instances.contains_key(instance));
        if !is_known && self.n_instances < MAX_INSTANCES {
            self.n_instances += 1;
            self.known.entry(service.to_owned()).or_default().insert(instance.to_owned(), HashSet::new());
        }
        if let Some(names) = self.known.get_mut(service).and_then(|instances| instances.get_mut(instance)) {
            metrics.retain(|metric| {
                let name = self.hasher.hash_one(&metric.name);
                names.contains(&name) || (names.len() < MAX_METRICS && names.insert(name))
            });
        }
        metrics.truncate(MAX_METRICS);
        n_before - metrics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::metric;

    fn metrics(names: std::ops::Range<usize>) -> Vec<Metric> {
        names.map(|n| metric(format!("m{n}"), 0.0)).collect()
    }

    /// The server would refuse each report from the second one on: 300 names in all.
    #[test]
    fn names_that_come_and_go_are_never_more_than_the_server_keeps() {
        let mut roster = Roster::default();
        let mut first = metrics(0..200);
        assert_eq!(roster.fit("web", "a", &mut first), 0);
        let mut second = metrics(100..300);
        assert_eq!(roster.fit("web", "a", &mut second), 44);
        assert_eq!(second.len(), 156);
        let mut first = metrics(0..200);
        assert_eq!(roster.fit("web", "a", &mut first), 0, "a place is for good");
        let mut other = metrics(200..400);
        assert_eq!(roster.fit("web", "b", &mut other), 0, "each instance has its own");
    }

    #[test]
    fn no_report_has_more_than_the_server_takes_however_many_instances_there_are() {
        let mut roster = Roster::default();
        for n in 0..2 * MAX_INSTANCES {
            assert_eq!(roster.fit("web", &n.to_string(), &mut metrics(0..300)), 44);
        }
        assert_eq!(roster.n_instances, MAX_INSTANCES);
    }
}
