//! What a rule asks of a report, and the answer: true, false, or unknown when nothing says.
//!
//! Three-valued throughout (Kleene): a term that has no value leaves its comparison unknown, and unknown neither raises
//! nor resolves. Asking changes nothing and allocates nothing.

use std::time::Duration;

use super::window::{Function, Series};
use crate::model::{Name, Readings, Timestamp};

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

    /// The sign as it is written.
    pub fn sign(self) -> &'static str {
        Self::SIGNS.iter().find(|(_, comparator)| *comparator == self).map_or("", |(sign, _)| sign)
    }

    /// What holds where this does not.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Above => Self::AtMost,
            Self::AtLeast => Self::Below,
            Self::Below => Self::AtLeast,
            Self::AtMost => Self::Above,
            Self::Equal => Self::Unequal,
            Self::Unequal => Self::Equal,
        }
    }

    /// What says the same with its sides turned round.
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Above => Self::Below,
            Self::AtLeast => Self::AtMost,
            Self::Below => Self::Above,
            Self::AtMost => Self::AtLeast,
            Self::Equal | Self::Unequal => self,
        }
    }

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

/// What stands between two terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
}

/// A function of what a metric was in the last `span`: the times t − span < t' ≤ t.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What is computed.
    pub function: Function,
    /// Of which metric.
    pub metric: Name,
    /// How far back.
    pub span: Duration,
}

/// One side of a comparison, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// A number.
    Number(f64),
    /// The report's reading of a metric.
    Metric(Name),
    /// What a window of a metric's readings comes to.
    Window(Window),
    /// `-term`.
    Negated(Box<Term>),
    /// `first operator term …`, from left to right. Operators of one list bind equally: all of `+ -`, or all of `* /`.
    Arithmetic {
        /// The first operand.
        first: Box<Term>,
        /// What is done to it.
        rest: Vec<(Operator, Term)>,
    },
}

/// Why a term has no value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unknown<'a> {
    /// The report lacks this metric.
    Missing(&'a Name),
    /// No reading of the metric lies in the window.
    Empty(&'a Window),
    /// The function needs two readings at different times.
    TooFew(&'a Window),
    /// Division by zero.
    DivisionByZero,
    /// The result is no finite number.
    NotFinite,
}

/// What a condition is asked about: a report, and the windows of its instance.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The report's readings.
    pub metrics: Readings<'a>,
    /// The windows of the instance.
    pub series: &'a [Series],
    /// Whether the report's readings are in the windows yet; else they count as their newest points.
    pub taken: bool,
    /// Which of the windows are the rule's.
    pub generation: u64,
    /// The report's evaluation time.
    pub now: Timestamp,
}

impl Facts<'_> {
    fn reading(&self, name: &str) -> Option<f64> {
        self.metrics.get(name)
    }
}

impl Term {
    /// Its value.
    pub fn value<'a>(&'a self, facts: &Facts<'_>) -> Result<f64, Unknown<'a>> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Metric(name) => facts.reading(name).ok_or(Unknown::Missing(name)),
            Self::Window(window) => window.value(facts),
            Self::Negated(term) => Ok(-term.value(facts)?),
            Self::Arithmetic { first, rest } => {
                let mut value = first.value(facts)?;
                for (operator, term) in rest {
                    let operand = term.value(facts)?;
                    value = match operator {
                        Operator::Add => value + operand,
                        Operator::Subtract => value - operand,
                        Operator::Multiply => value * operand,
                        Operator::Divide if operand == 0.0 => return Err(Unknown::DivisionByZero),
                        Operator::Divide => value / operand,
                    };
                }
                finite(value)
            }
        }
    }

    /// The first metric that it names, in the order of the text.
    pub fn first_metric(&self) -> Option<&Name> {
        match self {
            Self::Number(_) => None,
            Self::Metric(name) => Some(name),
            Self::Window(window) => Some(&window.metric),
            Self::Negated(term) => term.first_metric(),
            Self::Arithmetic { first, rest } => {
                first.first_metric().or_else(|| rest.iter().find_map(|(_, term)| term.first_metric()))
            }
        }
    }

    /// The first window that it names, in the order of the text.
    pub(super) fn first_window(&self) -> Option<&Window> {
        match self {
            Self::Number(_) | Self::Metric(_) => None,
            Self::Window(window) => Some(window),
            Self::Negated(term) => term.first_window(),
            Self::Arithmetic { first, rest } => {
                first.first_window().or_else(|| rest.iter().find_map(|(_, term)| term.first_window()))
            }
        }
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Term)) {
        see(self);
        match self {
            Self::Number(_) | Self::Metric(_) | Self::Window(_) => {}
            Self::Negated(term) => term.visit(see),
            Self::Arithmetic { first, rest } => {
                first.visit(see);
                rest.iter().for_each(|(_, term)| term.visit(see));
            }
        }
    }
}

impl Window {
    fn value<'a>(&'a self, facts: &Facts<'_>) -> Result<f64, Unknown<'a>> {
        let current = if facts.taken { None } else { facts.reading(&self.metric) };
        let series = facts.series.iter().find(|s| s.generation == facts.generation && s.metric == self.metric);
        // Without a series there is at most the report's own reading: the first of all.
        let value = match series {
            Some(series) => series.value(self.function, self.span, facts.now, current),
            None => Series::lone(self.function, current),
        };
        match value {
            Some(value) => finite(value),
            None if self.function.needs_two() => Err(Unknown::TooFew(self)),
            None => Err(Unknown::Empty(self)),
        }
    }
}

/// An infinity or NaN compares with everything, one way or the other: it must not pass for a reading.
fn finite<'a>(value: f64) -> Result<f64, Unknown<'a>> {
    if value.is_finite() { Ok(value) } else { Err(Unknown::NotFinite) }
}

/// `left comparator right`; at least one side names a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The left side.
    pub left: Term,
    /// How it is compared.
    pub comparator: Comparator,
    /// The right side.
    pub right: Term,
}

impl Comparison {
    /// Whether it holds, or why that is unknown.
    pub fn ask<'a>(&'a self, facts: &Facts<'_>) -> Result<bool, Unknown<'a>> {
        Ok(self.comparator.holds(self.left.value(facts)?, self.right.value(facts)?))
    }

    /// The side that names a metric, the left one if both do; and the other one.
    pub fn sides(&self) -> (&Term, &Term) {
        if self.left.first_metric().is_some() { (&self.left, &self.right) } else { (&self.right, &self.left) }
    }

    /// The first metric that it names.
    pub fn metric(&self) -> Name {
        self.sides().0.first_metric().cloned().unwrap_or_else(|| "".into())
    }

    /// What the metric is compared with, when that is a number or comes to one.
    pub fn threshold(&self) -> Option<f64> {
        let other = self.sides().1;
        if other.first_metric().is_some() {
            return None;
        }
        let nothing =
            Facts { metrics: Readings::default(), series: &[], taken: true, generation: 0, now: Timestamp::default() };
        other.value(&nothing).ok()
    }

    fn held(&self, facts: &Facts<'_>) -> Option<Held> {
        let value = self.sides().0.value(facts).ok()?;
        Some(Held { metric: self.metric(), value, threshold: self.threshold() })
    }
}

/// What a rule asks of each report.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// One comparison.
    Compare(Comparison),
    /// All of them; two or more.
    All(Vec<Condition>),
    /// Any of them; two or more.
    Any(Vec<Condition>),
    /// Not that.
    Not(Box<Condition>),
}

/// The answer of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nothing says.
    Unknown,
}

impl Truth {
    /// Kleene's not.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// The comparison that an alert is about, as the alert shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The first metric that it names.
    pub metric: Name,
    /// The value of the side that names it.
    pub value: f64,
    /// What it was compared with, when that is a number.
    pub threshold: Option<f64>,
}

impl Condition {
    /// Whether it holds.
    pub fn ask(&self, facts: &Facts<'_>) -> Truth {
        match self {
            Self::Compare(comparison) => match comparison.ask(facts) {
                Ok(true) => Truth::True,
                Ok(false) => Truth::False,
                Err(_) => Truth::Unknown,
            },
            Self::Not(condition) => condition.ask(facts).negated(),
            Self::All(conditions) => decide(conditions, Truth::False, facts),
            Self::Any(conditions) => decide(conditions, Truth::True, facts),
        }
    }

    /// Every comparison, in the order of the text.
    pub fn comparisons(&self) -> Vec<&Comparison> {
        let mut found = Vec::new();
        self.visit(&mut |comparison| found.push(comparison));
        found
    }

    /// Every window that it reads, in the order of the text.
    pub(super) fn windows(&self) -> Vec<&Window> {
        let mut found = Vec::new();
        self.visit(&mut |comparison| {
            for side in [&comparison.left, &comparison.right] {
                side.visit(&mut |term| {
                    if let Term::Window(window) = term {
                        found.push(window);
                    }
                });
            }
        });
        found
    }

    /// The comparison that an alert raised by these facts is about: the first that holds or, when the condition is true
    /// only for what does not (`not`), the first that is known.
    pub fn subject(&self, facts: &Facts<'_>) -> Option<&Comparison> {
        let comparisons = self.comparisons();
        let first = |wanted: fn(&Result<bool, Unknown<'_>>) -> bool| {
            comparisons.iter().find(|comparison| wanted(&comparison.ask(facts))).copied()
        };
        first(|answer| *answer == Ok(true)).or_else(|| first(|answer| answer.is_ok()))
    }

    /// The value that an alert on this metric has now, if that is known.
    pub(super) fn value_of(&self, metric: &str, facts: &Facts<'_>) -> Option<f64> {
        let of_metric = |comparison: &&Comparison| *comparison.metric() == *metric;
        self.comparisons().into_iter().filter(of_metric).find_map(|comparison| Some(comparison.held(facts)?.value))
    }

    /// What an alert raised by these facts shows.
    pub(super) fn held(&self, facts: &Facts<'_>) -> Option<Held> {
        self.subject(facts)?.held(facts)
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Comparison)) {
        match self {
            Self::Compare(comparison) => see(comparison),
            Self::Not(condition) => condition.visit(see),
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().for_each(|c| c.visit(see)),
        }
    }
}

/// Kleene's and (`decisive` is false) and or (`decisive` is true).
fn decide(conditions: &[Condition], decisive: Truth, facts: &Facts<'_>) -> Truth {
    let mut answer = decisive.negated();
    for condition in conditions {
        match condition.ask(facts) {
            truth if truth == decisive => return decisive,
            Truth::Unknown => answer = Truth::Unknown,
            _ => {}
        }
    }
    answer
}

/// What makes a rule's condition true.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// What reports say.
    Report(Condition),
    /// `absent(after)`: the instance has been silent that long; `None`: as long as its usual gap suggests.
    Silent {
        /// How long.
        after: Option<Duration>,
    },
    /// `absent(metric, after)`: its reports have lacked the metric that long.
    Lacking {
        /// The metric.
        metric: Name,
        /// How long.
        after: Duration,
    },
}

impl When {
    /// Whether a report makes it true. A report, whatever is in it, is the end of a silence.
    pub fn ask(&self, facts: &Facts<'_>) -> Truth {
        match self {
            Self::Report(condition) => condition.ask(facts),
            Self::Silent { .. } => Truth::False,
            Self::Lacking { metric, .. } if facts.reading(metric).is_some() => Truth::False,
            Self::Lacking { .. } => Truth::Unknown,
        }
    }

    /// The condition on reports, if it is one.
    pub fn condition(&self) -> Option<&Condition> {
        match self {
            Self::Report(condition) => Some(condition),
            Self::Silent { .. } | Self::Lacking { .. } => None,
        }
    }
}
