//! By how much each series of a counter grew since the last scrape: a fall is a counter that began anew, at 0.
//!
//! Kept by series and not by sum: one network interface that goes away would make the sum fall, and look like all of
//! them beginning anew.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Series of one target: what a large service has; 24 bytes each.
const MAX_SERIES: usize = 20_000;
/// Scrapes for which a series that is not there any more is remembered: what comes back has not begun anew.
const REMEMBERED: u64 = 300;

/// The last value of each.
#[derive(Debug, Default)]
pub(crate) struct Series {
    seen: HashMap<u64, Seen>,
    /// A series' 64 bits of hash are its name: of 20,000, two are the same once in 10¹¹ targets.
    hasher: RandomState,
    scrape: u64,
}

#[derive(Debug)]
struct Seen {
    value: f64,
    scrape: u64,
}

impl Series {
    /// A scrape begins.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
        if self.scrape.is_multiple_of(REMEMBERED) {
            let oldest = self.scrape - REMEMBERED;
            self.seen.retain(|_, seen| seen.scrape >= oldest);
        }
    }

    /// Whether this is the target's first scrape, from which on there is growth.
    pub(crate) fn is_first_scrape(&self) -> bool {
        self.scrape == 1
    }

    /// How much this series grew; 0 in the first scrape. None, if there are too many.
    pub(crate) fn growth(&mut self, name: &str, labels: &str, value: f64) -> Option<f64> {
        let key = self.hasher.hash_one((name, labels));
        let n_seen = self.seen.len();
        let now = Seen { value, scrape: self.scrape };
        if let Some(before) = self.seen.get_mut(&key) {
            let before = std::mem::replace(before, now);
            let grew = value - before.value;
            return Some(if grew >= 0.0 { grew } else { value });
        }
        if n_seen >= MAX_SERIES {
            return None;
        }
        self.seen.insert(key, now);
        // One that appears later was at 0 before: `http_requests_total{code="500"}` is there from the first error on.
        Some(if self.is_first_scrape() { 0.0 } else { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_from_the_last_scrape_and_a_fall_a_new_beginning() {
        let mut series = Series::default();
        let mut scrape = |value: f64| {
            series.begin();
            series.growth("a", "x", value)
        };
        assert_eq!([100.0, 103.0, 103.0, 5.0].map(&mut scrape), [Some(0.0), Some(3.0), Some(0.0), Some(5.0)]);
    }

    #[test]
    fn a_series_that_appears_later_began_at_zero_and_one_that_comes_back_did_not() {
        let mut series = Series::default();
        series.begin();
        series.growth("a", "", 50.0);
        series.begin();
        assert_eq!(series.growth("b", "", 2.0), Some(2.0));
        series.begin();
        assert_eq!(series.growth("a", "", 51.0), Some(1.0));
    }

    #[test]
    fn too_many_series_are_not_kept_and_old_ones_make_room() {
        let mut series = Series::default();
        series.begin();
        let n_kept = (0..30_000).filter(|n| series.growth("a", &n.to_string(), 1.0).is_some()).count();
        assert_eq!(n_kept, MAX_SERIES);
        (0..2 * REMEMBERED).for_each(|_| series.begin());
        assert_eq!(series.growth("b", "", 1.0), Some(1.0));
        assert_eq!(series.seen.len(), 1);
    }
}
