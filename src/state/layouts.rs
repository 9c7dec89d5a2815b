//! The layouts of reports as a lane knows them.

use std::{collections::HashSet, sync::Arc};

use crate::{
    model::{Layout, Readings},
    rules::{Sieve, Sifting},
};

/// No sender can know which layouts collide.
type Seed = foldhash::fast::RandomState;

/// Layouts below which it is not worth looking for those that nobody has any longer.
const MIN_UNTIDY: usize = 256;

/// Times that they are left as they are, however many they were once.
const TIDY_AGAIN: u32 = 60;

/// Each layout of one lane once, so that instances share it and a pointer tells which one it is.
#[derive(Debug, Default)]
pub struct Layouts {
    all: HashSet<Arc<Layout>, Seed>,
    /// How many were left when they were last tidied, and how often they were not since.
    n_tidy: usize,
    n_passed: u32,
}

impl Layouts {
    /// The one of these metrics that is shared. It is the lane's own: of one that another lane had too, nobody could tell
    /// when it is no longer needed, and two threads would count references to it.
    pub fn share(&mut self, layout: &Layout) -> Arc<Layout> {
        if let Some(shared) = self.all.get(layout) {
            return shared.clone();
        }
        let own = Arc::new(layout.clone());
        self.all.insert(own.clone());
        own
    }

    /// Lets go of those that nobody else has: when there are twice as many as last time, and now and then.
    pub fn tidy(&mut self) {
        self.n_passed += 1;
        if self.all.len() >= MIN_UNTIDY && (self.all.len() >= 2 * self.n_tidy || self.n_passed >= TIDY_AGAIN) {
            self.n_passed = 0;
            self.all.retain(|layout| Arc::strong_count(layout) > 1);
            self.all.shrink_to(MIN_UNTIDY);
            self.n_tidy = self.all.len();
        }
    }
}

/// A layout of a stream's reports, and what the rules in force look at in it.
#[derive(Clone, Debug)]
pub struct LaneLayout {
    layout: Arc<Layout>,
    sifting: Sifting,
}

impl LaneLayout {
    /// A layout under rules of this sieve.
    pub fn new(layout: Arc<Layout>, sieve: &Sieve) -> Self {
        Self { sifting: sieve.sifting(&layout), layout }
    }

    /// The readings of a report of this layout.
    pub fn readings<'a>(&'a self, values: &'a [f64]) -> Readings<'a> {
        Readings::new(&self.layout, values)
    }

    /// How many values a report of it has.
    pub fn n_values(&self) -> usize {
        self.layout.len()
    }

    /// What the rules in force look at.
    pub fn sifting(&self) -> &Sifting {
        &self.sifting
    }

    /// From now on it is under other rules.
    pub fn adopt(&mut self, sieve: &Sieve) {
        self.sifting = sieve.sifting(&self.layout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(n: usize) -> Layout {
        Layout::new([format!("metric_{n}").into()])
    }

    #[test]
    fn a_layout_is_shared_for_as_long_as_somebody_has_it() {
        let mut layouts = Layouts::default();
        let kept = layouts.share(&layout(0));
        assert!(Arc::ptr_eq(&kept, &layouts.share(&layout(0))), "of the same metrics");
        (1..MIN_UNTIDY - 1).for_each(|n| drop(layouts.share(&layout(n))));
        layouts.tidy();
        assert_eq!(layouts.all.len(), MIN_UNTIDY - 1, "too few to be looked through");
        drop(layouts.share(&layout(MIN_UNTIDY)));
        layouts.tidy();
        assert_eq!(layouts.all.len(), 1);
        assert!(Arc::ptr_eq(&kept, &layouts.share(&layout(0))));
    }

    /// A stream tells both of its lanes the same: each kept what the other one did.
    #[test]
    fn what_two_lanes_are_told_neither_keeps_for_the_other() {
        let mut lanes = [Layouts::default(), Layouts::default()];
        for told in (0..1_000).map(layout) {
            lanes.iter_mut().for_each(|lane| drop(lane.share(&told)));
        }
        lanes.iter_mut().for_each(Layouts::tidy);
        assert_eq!(lanes.map(|lane| lane.all.len()), [0, 0]);
    }

    #[test]
    fn those_of_a_crowd_that_has_gone_go_too() {
        let mut layouts = Layouts::default();
        let crowd: Vec<_> = (0..1_000).map(|n| layouts.share(&layout(n))).collect();
        layouts.tidy();
        drop(crowd);
        (0..TIDY_AGAIN).for_each(|_| layouts.tidy());
        assert_eq!(layouts.all.len(), 0);
    }
}
