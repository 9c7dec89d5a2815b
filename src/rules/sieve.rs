//! Which reports no rule needs to be asked about: all plain thresholds on a metric together leave a span of values
//! between them, within which none of them holds.
//!
//! It may ask a rule in vain; what it passes over must be quiet (a property test holds it against [`super::evaluate`]).

use std::{collections::HashMap, sync::Arc};

use super::{Comparator, Comparison, Condition, Rule, Term, condition::When};
use crate::model::{Layout, Name};

/// The values of a metric at which no plain threshold holds: between these two.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    /// No threshold at all.
    const ALL: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    fn narrow(&mut self, comparator: Comparator, threshold: f64) {
        match comparator {
            Comparator::AtLeast => self.high = self.high.min(threshold),
            Comparator::Above => self.high = self.high.min(threshold.next_up()),
            Comparator::AtMost => self.low = self.low.max(threshold),
            Comparator::Below => self.low = self.low.max(threshold.next_down()),
            Comparator::Equal | Comparator::Unequal => unreachable!("their rules are always asked"),
        }
    }
}

/// The spans of every metric that a plain threshold of some rule in force looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sieve(HashMap<Name, Span>);

/// The spans of one layout's metrics: what its reports are held against.
#[derive(Clone, Debug, Default)]
pub struct Sifting(Box<[(usize, Span)]>);

impl Sieve {
    /// The sieve of these rules.
    pub(super) fn new(rules: &[Arc<Rule>]) -> Self {
        let mut spans: HashMap<Name, Span> = HashMap::new();
        for needed in rules.iter().filter_map(|rule| needed_by(rule)).flatten() {
            spans.entry(needed.metric.clone()).or_insert(Span::ALL).narrow(needed.comparator, needed.threshold);
        }
        Self(spans)
    }

    /// What is to be looked at in reports of this layout.
    pub fn sifting(&self, layout: &Layout) -> Sifting {
        let spans = layout.names().enumerate().filter_map(|(place, name)| Some((place, *self.0.get(name)?)));
        Sifting(spans.collect())
    }
}

impl Sifting {
    /// Whether a report of these values, in the order of the layout, may make a rule true that the sieve knows.
    pub(super) fn catches(&self, values: &[f64]) -> bool {
        // Written so that a value which is no number is caught.
        self.0.iter().any(|(place, span)| !values.get(*place).is_some_and(|v| span.low < *v && *v < span.high))
    }
}

/// Whether a rule must be asked about every report, since no plain thresholds say when it is not true.
pub(super) fn must_be_asked(rule: &Rule) -> bool {
    // The server's own rules are in no sieve: it is made of those in force.
    let is_own = rule.place == usize::MAX;
    match rule.when {
        When::Report(_) => is_own || needed_by(rule).is_none(),
        // No report makes them true.
        When::Silent { .. } | When::Lacking { .. } => false,
    }
}

/// A comparison of a metric with a number.
struct Plain<'a> {
    metric: &'a Name,
    comparator: Comparator,
    threshold: f64,
}

/// Plain comparisons of which at least one holds whenever the rule is true; `None`: it may be true without any.
fn needed_by(rule: &Rule) -> Option<Vec<Plain<'_>>> {
    rule.when.condition().and_then(needed)
}

fn needed(condition: &Condition) -> Option<Vec<Plain<'_>>> {
    match condition {
        Condition::Compare(comparison) => plain(comparison).map(|plain| vec![plain]),
        Condition::All(conditions) => conditions.iter().find_map(needed),
        Condition::Any(conditions) => {
            let needed: Option<Vec<_>> = conditions.iter().map(needed).collect();
            needed.map(|needed| needed.into_iter().flatten().collect())
        }
        Condition::Not(_) => None,
    }
}

fn plain(comparison: &Comparison) -> Option<Plain<'_>> {
    let threshold = comparison.threshold()?;
    let (metric, comparator) = match (&comparison.left, &comparison.right) {
        (Term::Metric(metric), _) => (metric, comparison.comparator),
        (_, Term::Metric(metric)) => (metric, comparison.comparator.turned()),
        _ => return None,
    };
    let is_one_sided = !matches!(comparator, Comparator::Equal | Comparator::Unequal);
    is_one_sided.then_some(Plain { metric, comparator, threshold })
}
