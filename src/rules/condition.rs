//! What a rule asks of a report, and the answer: true, false, or unknown when the report does not say.

use std::time::Duration;

use crate::model::Name;

/// How two terms are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    Unequal,
}

impl Comparator {
    /// Every comparator with its sign; a sign stands before its own prefix.
    pub(super) const SIGNS: [(&'static str, Self); 6] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        (">", Self::Above),
        ("<", Self::Below),
    ];

    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Above => left > right,
            Self::AtLeast => left >= right,
            Self::Below => left < right,
            Self::AtMost => left <= right,
            Self::Equal => left == right,
            Self::Unequal => left != right,
        }
    }
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// The report's reading of a metric.
    Metric(Name),
    /// A number.
    Number(f64),
}

impl Term {
    fn value(&self, metrics: &[(Name, f64)]) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Metric(name) => metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value),
        }
    }
}

/// What a rule asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// `left comparator right`, of the report itself.
    Compare {
        /// The left side.
        left: Term,
        /// How it is compared.
        comparator: Comparator,
        /// The right side.
        right: Term,
    },
    /// `absent(after)`: the instance has been silent that long; `None`: as long as its usual gap suggests.
    Absent {
        /// How long.
        after: Option<Duration>,
    },
}

/// The comparison that held, as an alert shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The metric's name.
    pub metric: Name,
    /// Its term's value.
    pub value: f64,
    /// What it was compared with, when that is a number.
    pub threshold: Option<f64>,
}

/// The answer of a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// It holds, and this is what held.
    True(Held),
    /// It does not hold; the compared value, when there is one.
    False(Option<f64>),
    /// The report does not say.
    Unknown,
}

impl Condition {
    /// Asks one report. A report, whatever is in it, is the end of a silence.
    pub fn ask(&self, metrics: &[(Name, f64)]) -> Truth {
        let Self::Compare { left, comparator, right } = self else { return Truth::False(None) };
        let (Some(left_value), Some(right_value)) = (left.value(metrics), right.value(metrics)) else {
            return Truth::Unknown;
        };
        // The metric and its value are of the side that names one; the parser sees to it that one does.
        let (name, value, other) = match (left, right) {
            (Term::Metric(name), other) => (name, left_value, other),
            (other, Term::Metric(name)) => (name, right_value, other),
            (Term::Number(_), Term::Number(_)) => return Truth::Unknown,
        };
        if !comparator.holds(left_value, right_value) {
            return Truth::False(Some(value));
        }
        let threshold = match other {
            Term::Number(number) => Some(*number),
            Term::Metric(_) => None,
        };
        Truth::True(Held { metric: name.clone(), value, threshold })
    }
}
