//! Where readings come from: a file for each kind of source.
//!
//! At each tick every source adds what it has to a [`Round`]; what several of them say of one instance becomes one report.
//! No source waits: what takes time has a task of its own, and adds what that found last.

pub mod accounts;
mod cgroup;
mod container;
mod disk;
pub mod host;
mod network;
pub mod process;
pub mod roster;
pub mod scrape;
pub mod simulate;
pub mod statsd;
#[cfg(test)]
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use gopherwatch_proto::v1::Metric;

use crate::mapping::Mapping;

/// One kind of source.
pub trait Source: Send {
    /// Adds the figures of now. Those that cannot be had are left out, and never 0 instead.
    fn read(&mut self, round: &mut Round);

    /// Adds the last figures before the agent stops. Instances that are in this round say goodbye; those that were gone
    /// before should not, so that they are missed.
    fn leave(&mut self, round: &mut Round) {
        self.read(round);
    }

    /// From now on figures are called otherwise.
    fn remap(&mut self, _mapping: &Mapping) {}
}

/// What one tick found.
#[derive(Debug, Default)]
pub struct Round {
    readings: BTreeMap<(String, String), Vec<Metric>>,
    outdone: Vec<Outdone>,
}

/// A figure that an earlier source has said already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outdone {
    /// Of this service.
    pub service: String,
    /// And this instance.
    pub instance: String,
    /// The figure.
    pub name: String,
}

impl Round {
    /// Adds to what is known of this instance; what an earlier source has said holds. That it is there is news, even without
    /// a figure.
    pub fn add(&mut self, service: &str, instance: &str, metrics: impl IntoIterator<Item = Metric>) {
        let key = (service.to_owned(), instance.to_owned());
        let readings = self.readings.entry(key).or_default();
        let n_earlier = readings.len();
        for metric in metrics.into_iter().filter(|metric| metric.value.is_finite()) {
            if readings[..n_earlier].iter().any(|earlier| earlier.name == metric.name) {
                let (service, instance) = (service.to_owned(), instance.to_owned());
                self.outdone.push(Outdone { service, instance, name: metric.name });
            } else {
                readings.push(metric);
            }
        }
    }

    /// What was said again, and does not hold.
    pub fn take_outdone(&mut self) -> Vec<Outdone> {
        std::mem::take(&mut self.outdone)
    }

    /// Everything found, by service and instance.
    pub fn into_readings(self) -> impl Iterator<Item = (String, String, Vec<Metric>)> {
        self.readings.into_iter().map(|((service, instance), metrics)| (service, instance, metrics))
    }
}

/// A figure under its name.
pub fn metric(name: impl Into<String>, value: f64) -> Metric {
    Metric { name: name.into(), value }
}

/// A file of `/proc`. It has no size, and `fs::read_to_string` would begin with 32 bytes and double them: a dozen reads.
fn proc_file(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// 0 for a share of nothing: a host without swap uses none of it.
fn percent(used: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { used as f64 / total as f64 * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_nothing_is_zero() {
        assert_eq!(percent(0, 0), 0.0);
        assert_eq!(percent(1, 4), 25.0);
    }
}
