//! The readings of a report: which metrics, which it has in common with many others, and their values.

use std::{
    hash::{Hash, Hasher},
    ptr,
    sync::{Arc, LazyLock},
};

use indexmap::{IndexMap, IndexSet};

use super::Name;

/// Metrics up to which a layout is looked through for one that it may have under the same pointer.
const FEW: usize = 8;

/// No sender can know which names collide.
type Seed = foldhash::fast::RandomState;

static NOTHING: LazyLock<Arc<Layout>> = LazyLock::new(Arc::default);

/// Metrics in an order, each once: what the reports of an instance have in common, and often those of many instances.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    names: IndexSet<Name, Seed>,
}

impl Layout {
    /// No metric at all.
    pub fn nothing() -> Arc<Self> {
        NOTHING.clone()
    }

    /// These metrics; of one that comes twice the first place counts.
    pub fn new(names: impl IntoIterator<Item = Name>) -> Self {
        let mut names: IndexSet<_, _> = names.into_iter().collect();
        names.shrink_to_fit();
        Self { names }
    }

    /// Adds a metric that it has not.
    pub fn push(&mut self, name: Name) {
        self.names.insert(name);
    }

    /// How many metrics it has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether it has no metric at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The metrics, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.names.iter()
    }

    /// The metric at this place.
    pub fn name(&self, place: usize) -> Option<&Name> {
        self.names.get_index(place)
    }

    /// Whether the metric at this place is this very one: told by the pointer, so that no name is read.
    pub fn is_at(&self, place: usize, name: &Name) -> bool {
        self.names.get_index(place).is_some_and(|own| Arc::ptr_eq(own, name))
    }

    /// Where a metric is.
    pub fn place(&self, name: &str) -> Option<usize> {
        // A report's name is as a rule the very one that the instance has, from the same stream: then a pointer tells.
        let same = |own: &Name| ptr::eq(&raw const **own, name);
        let seen = if self.len() <= FEW { self.names.iter().position(same) } else { None };
        seen.or_else(|| self.names.get_index_of(name))
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        // In order, which sets of their own do not look at.
        self.len() == other.len() && self.names.iter().eq(&other.names)
    }
}

impl Eq for Layout {}

impl Hash for Layout {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names.iter().for_each(|name| name.hash(state));
    }
}

/// The readings of one report: its metrics, and a value for each.
#[derive(Clone, Copy, Debug)]
pub struct Readings<'a> {
    names: Names<'a>,
    values: &'a [f64],
}

#[derive(Clone, Copy, Debug)]
enum Names<'a> {
    Layout(&'a Arc<Layout>),
    Loose(&'a [&'a Name]),
}

impl<'a> Readings<'a> {
    /// A value for each metric of the layout.
    pub fn new(layout: &'a Arc<Layout>, values: &'a [f64]) -> Self {
        assert_eq!(layout.len(), values.len(), "each metric has a value");
        Self { names: Names::Layout(layout), values }
    }

    /// A value for each of these metrics, each of which comes once: those of a report that is like no other.
    pub fn loose(names: &'a [&'a Name], values: &'a [f64]) -> Self {
        assert_eq!(names.len(), values.len(), "each metric has a value");
        Self { names: Names::Loose(names), values }
    }

    /// The metrics, if they are a layout.
    pub fn layout(self) -> Option<&'a Arc<Layout>> {
        match self.names {
            Names::Layout(layout) => Some(layout),
            Names::Loose(_) => None,
        }
    }

    /// The values, in the order of the metrics.
    pub fn values(self) -> &'a [f64] {
        self.values
    }

    /// The metrics with their values.
    pub fn iter(self) -> impl Iterator<Item = (&'a Name, f64)> {
        self.values.iter().enumerate().filter_map(move |(place, value)| Some((self.name(place)?, *value)))
    }

    fn name(self, place: usize) -> Option<&'a Name> {
        match self.names {
            Names::Layout(layout) => layout.name(place),
            Names::Loose(names) => names.get(place).copied(),
        }
    }

    /// The value of a metric.
    pub fn get(self, name: &str) -> Option<f64> {
        let place = match self.names {
            Names::Layout(layout) => layout.place(name),
            Names::Loose(names) => names.iter().position(|own| ***own == *name),
        };
        place.and_then(|place| self.values.get(place)).copied()
    }
}

impl Default for Readings<'_> {
    fn default() -> Self {
        Self { names: Names::Loose(&[]), values: &[] }
    }
}

/// The readings of a report that is at hand by name.
#[derive(Clone, Debug)]
pub struct Row {
    layout: Arc<Layout>,
    values: Vec<f64>,
}

impl Row {
    /// Of a metric that comes twice the last value counts.
    pub fn new(metrics: &[(Name, f64)]) -> Self {
        let metrics: IndexMap<&Name, f64> = metrics.iter().map(|(name, value)| (name, *value)).collect();
        let layout = Arc::new(Layout::new(metrics.keys().map(|name| Name::clone(name))));
        Self { layout, values: metrics.into_values().collect() }
    }

    /// Its metrics.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Its readings.
    pub fn readings(&self) -> Readings<'_> {
        Readings::new(&self.layout, &self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Layout {
        Layout::new(names.iter().map(|name| Name::from(*name)))
    }

    #[test]
    fn a_metric_is_found_in_few_and_in_many_under_another_pointer_too() {
        let many: Vec<String> = (0..100).map(|n| format!("metric_{n}")).collect();
        for n in [4, FEW, FEW + 1, 100] {
            let layout = Layout::new(many[..n].iter().map(|name| Name::from(name.as_str())));
            for (place, name) in many.iter().enumerate() {
                assert_eq!(layout.place(name), (place < n).then_some(place), "{name} of {n}");
            }
            let own = layout.name(n - 1).cloned().expect("the last one");
            assert_eq!(layout.place(&own), Some(n - 1));
        }
        assert_eq!(names(&["ab", "b"]).place("a"), None, "the beginning of a name is another one");
    }

    #[test]
    fn layouts_are_the_same_in_the_same_order_alone() {
        assert_eq!(names(&["a", "b"]), names(&["a", "b"]));
        assert_ne!(names(&["a", "b"]), names(&["b", "a"]));
        assert_ne!(names(&["a", "b"]), names(&["a"]));
    }

    #[test]
    fn of_a_metric_that_comes_twice_the_last_value_counts_where_the_first_one_was() {
        let row = Row::new(&[("a".into(), 1.0), ("b".into(), 2.0), ("a".into(), 3.0)]);
        assert_eq!(row.readings().values(), [3.0, 2.0]);
        assert_eq!(row.readings().get("a"), Some(3.0));
        assert_eq!(row.readings().get("c"), None);
        assert_eq!(Readings::default().get("a"), None);
    }
}
