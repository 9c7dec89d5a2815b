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
pub mod scrape;
pub mod simulate;
pub mod statsd;
#[cfg(test)]
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use gopherwatch_proto::MAX_METRICS;
use gopherwatch_proto::v1::Metric;

/// One kind of source.
pub trait Source: Send {
    /// Adds the figures of now. Those that cannot be had are left out, and never 0 instead.
    fn read(&mut self, round: &mut Round);

    /// Adds the last figures before the agent stops. Instances that are in this round say goodbye; those that were gone
    /// before should not, so that they are missed.
    fn leave(&mut self, round: &mut Round) {
        self.read(round);
    }
}

/// What one tick found.
#[derive(Debug, Default)]
pub struct Round {
    readings: BTreeMap<(String, String), Vec<Metric>>,
    n_left_out: usize,
}

impl Round {
    /// Adds to what is known of this instance. That it is there is news, even without a figure. What is more than the
    /// server takes of an instance is left out: it would refuse the whole report.
    pub fn add(&mut self, service: &str, instance: &str, metrics: impl IntoIterator<Item = Metric>) {
        let key = (service.to_owned(), instance.to_owned());
        let reading = self.readings.entry(key).or_default();
        reading.extend(metrics.into_iter().filter(|metric| metric.value.is_finite()));
        self.n_left_out += reading.len().saturating_sub(MAX_METRICS);
        reading.truncate(MAX_METRICS);
    }

    /// How many figures were left out.
    pub fn n_left_out(&self) -> usize {
        self.n_left_out
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

    #[test]
    fn what_several_sources_say_of_an_instance_is_one_report_that_the_server_takes() {
        let mut round = Round::default();
        round.add("web", "a", [metric("cpu_percent", 1.0), metric("nothing", f64::NAN)]);
        round.add("web", "a", (0..300).map(|n| metric(format!("m{n}"), 0.0)));
        assert_eq!(round.n_left_out(), 45);
        let readings: Vec<_> = round.into_readings().collect();
        assert_eq!(readings.len(), 1);
        assert_eq!(readings[0].2.len(), MAX_METRICS);
        assert_eq!(readings[0].2[1].name, "m0");
    }
}
