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

/// Each layout once, so that instances share it and a pointer tells which one it is.
#[derive(Debug, Default)]
pub struct Layouts {
    all: HashSet<Arc<Layout>, Seed>,
    /// How many were left when they were last tidied.
    n_tidy: usize,
}

impl Layouts {
    /// The one that is shared, which is this one if there was none of its metrics.
    pub fn share(&mut self, layout: Arc<Layout>) -> Arc<Layout> {
        if let Some(shared) = self.all.get(&layout) {
            return shared.clone();
        }
        self.all.insert(layout.clone());
        layout
    }

    /// Lets go of those that nobody else has, when there are twice as many as last time.
    pub fn tidy(&mut self) {
        if self.all.len() >= MIN_UNTIDY.max(2 * self.n_tidy) {
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

    fn layout(n: usize) -> Arc<Layout> {
        Arc::new(Layout::new([format!("metric_{n}").into()]))
    }

    #[test]
    fn a_layout_is_shared_for_as_long_as_somebody_has_it() {
        let mut layouts = Layouts::default();
        let kept = layouts.share(layout(0));
        assert!(Arc::ptr_eq(&kept, &layouts.share(layout(0))), "of the same metrics");
        (1..MIN_UNTIDY - 1).for_each(|n| drop(layouts.share(layout(n))));
        layouts.tidy();
        assert_eq!(layouts.all.len(), MIN_UNTIDY - 1, "too few to be looked through");
        drop(layouts.share(layout(MIN_UNTIDY)));
        layouts.tidy();
        assert_eq!(layouts.all.len(), 1);
        assert!(Arc::ptr_eq(&kept, &layouts.share(layout(0))));
    }
}
