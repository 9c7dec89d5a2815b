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

#[cfg(test)]
mod tests {
    use crate::{
        model::{Name, Row},
        rules::tests::play::rules,
    };

    fn readings(text: &str) -> Vec<(Name, f64)> {
        let reading = |text: &str| {
            let (name, value) = text.split_once('=').expect("name=value");
            (name.into(), value.parse().expect("a number"))
        };
        text.split(',').map(reading).collect()
    }

    /// Whether rules of these conditions need to be asked about a report of these readings: by the sieve, and always.
    fn asked(conditions: &[&str], report: &str) -> (bool, usize) {
        let rule = |(n, when): (usize, &&str)| format!("[[rules]]\nname = \"{n}\"\nwhen = \"{when}\"\n");
        let rules = rules(&conditions.iter().enumerate().map(rule).collect::<String>());
        let row = Row::new(&readings(report));
        let sifting = rules.sieve.sifting(row.layout());
        (sifting.catches(row.readings().values()), rules.everything.asked.len())
    }

    #[test]
    fn a_threshold_catches_what_it_holds_for_and_nothing_else() {
        for (condition, below, at, above) in [
            ("a > 5", false, false, true),
            ("a >= 5", false, true, true),
            ("a < 5", true, false, false),
            ("a <= 5", true, true, false),
            ("5 < a", false, false, true),
            ("5 >= a", true, true, false),
            ("a > 0 - -5", false, false, true),
        ] {
            let caught = ["a=4.999999999", "a=5", "a=5.000000001"].map(|report| asked(&[condition], report));
            assert_eq!(caught, [below, at, above].map(|caught| (caught, 0)), "{condition}");
        }
        assert_eq!(asked(&["a > 0"], "a=0"), (false, 0), "a count that rests at its threshold");
        assert_eq!(asked(&["a > 0"], "a=-0"), (false, 0));
    }

    #[test]
    fn thresholds_on_one_metric_leave_a_span_between_them() {
        let conditions = ["a > 90", "a > 95", "a < 10", "a <= 5", "b > 1"];
        for (report, caught) in [("a=50", false), ("a=90.5", true), ("a=9", true), ("a=50,b=2", true), ("c=99", false)]
        {
            assert_eq!(asked(&conditions, report), (caught, 0), "{report}");
        }
    }

    #[test]
    fn of_and_one_side_is_enough_and_of_or_each_is_needed() {
        assert_eq!(asked(&["a > 5 and b > 5"], "a=1,b=9"), (false, 0));
        assert_eq!(asked(&["a > 5 or b > 5"], "a=1,b=9"), (true, 0));
        assert_eq!(asked(&["a > 5 and (b != 5 or avg(a, 5m) > 1)"], "a=1,b=9"), (false, 0));
        assert_eq!(asked(&["a == 5 and a / b > 1 and b > 5"], "a=5,b=1"), (false, 0));
    }

    #[test]
    fn what_no_thresholds_say_is_asked_always_and_silence_never() {
        for condition in
            ["a == 5", "a != 5", "not (a > 5)", "a > b", "avg(a, 5m) > 5", "a + 1 > 5", "a > 5 or b == 1", "a > 1 / 0"]
        {
            assert_eq!(asked(&[condition, "a > 1e9"], "a=50,b=2"), (false, 1), "{condition}");
        }
        assert_eq!(asked(&["absent()", "absent(a, 30s)"], "b=50"), (false, 0));
    }
}
