//! Which values a term can have: what is known of the well-known metrics, carried through functions and arithmetic.
//!
//! A range is never too small: every value that a term can have lies in it, rounding included, since each step rounds
//! its ends as it rounds values. Values are finite, anything else is unknown; so the ends are finite too.

use gopherwatch_proto::WELL_KNOWN_METRICS;

use super::{
    condition::{Operator, Term, Window},
    window::Function,
};

/// Values from `low` to `high`, which belong to them unless that end is open. Without a value if `low` is above `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) low: f64,
    pub(super) low_is_open: bool,
    pub(super) high: f64,
    pub(super) high_is_open: bool,
}

impl Range {
    const ANY: Self = Self::new(f64::MIN, f64::MAX);
    const PERCENT: Self = Self::new(0.0, 100.0);
    const NOT_NEGATIVE: Self = Self::new(0.0, f64::MAX);

    const fn new(low: f64, high: f64) -> Self {
        Self { low, low_is_open: false, high, high_is_open: false }
    }

    /// What lies between these results of a step; those that are not finite are no values.
    fn finite(low: f64, high: f64) -> Self {
        Self::new(low.max(f64::MIN), high.min(f64::MAX))
    }

    /// The readings of a metric, as those send it who give the well-known names their meaning.
    fn of_metric(name: &str) -> Self {
        match name {
            "cpu_percent" | "memory_percent" | "swap_percent" | "disk_percent" => Self::PERCENT,
            name if WELL_KNOWN_METRICS.contains(&name) => Self::NOT_NEGATIVE,
            _ => Self::ANY,
        }
    }

    fn of_window(window: &Window) -> Self {
        let metric = Self::of_metric(&window.metric);
        match window.function {
            Function::Avg | Function::Min | Function::Max => metric,
            Function::Sum if metric.low >= 0.0 => Self::NOT_NEGATIVE,
            Function::Sum => Self::ANY,
            // A window without a reading is unknown, not 0.
            Function::Count => Self::new(1.0, f64::MAX),
            Function::Stddev | Function::Rate | Function::Increase => Self::NOT_NEGATIVE,
            Function::Delta => metric.minus(metric),
        }
    }

    /// Every value that the term can have, where `known` says of some terms what else is known of them.
    pub(super) fn of(term: &Term, known: &impl Fn(&Term) -> Option<Self>) -> Self {
        let range = match term {
            Term::Number(number) => Self::new(*number, *number),
            Term::Metric(name) => Self::of_metric(name),
            Term::Window(window) => Self::of_window(window),
            Term::Negated(term) => Self::of(term, known).negated(),
            Term::Arithmetic { first, rest } => {
                rest.iter().fold(Self::of(first, known), |range, (operator, term)| {
                    let operand = Self::of(term, known);
                    // Of what has no value nothing has one.
                    if range.is_empty() || operand.is_empty() {
                        return if range.is_empty() { range } else { operand };
                    }
                    match operator {
                        Operator::Add => Self::finite(range.low + operand.low, range.high + operand.high),
                        Operator::Subtract => range.minus(operand),
                        Operator::Multiply => range.corners(operand, |a, b| a * b),
                        Operator::Divide => range.divided_by(operand),
                    }
                })
            }
        };
        known(term).map_or(range, |known| known.within(range))
    }

    fn negated(self) -> Self {
        let Self { low, low_is_open, high, high_is_open } = self;
        Self { low: -high, low_is_open: high_is_open, high: -low, high_is_open: low_is_open }
    }

    fn minus(self, other: Self) -> Self {
        Self::finite(self.low - other.high, self.high - other.low)
    }

    fn divided_by(self, other: Self) -> Self {
        // 0 divides nothing; next to it stand the least numbers there are.
        let least = f64::from_bits(1);
        match other {
            Self { low: 0.0, high: 0.0, .. } => Self::new(f64::MAX, f64::MIN),
            Self { low, high, .. } if low < 0.0 && high > 0.0 => Self::ANY,
            Self { low: 0.0, high, .. } => self.corners(Self::new(least, high), |a, b| a / b),
            Self { low, high: 0.0, .. } => self.corners(Self::new(low, -least), |a, b| a / b),
            other => self.corners(other, |a, b| a / b),
        }
    }

    /// What a step that rises or falls all along gives at its ends.
    fn corners(self, other: Self, step: impl Fn(f64, f64) -> f64) -> Self {
        let all = [
            step(self.low, other.low),
            step(self.low, other.high),
            step(self.high, other.low),
            step(self.high, other.high),
        ];
        Self::finite(all.into_iter().fold(f64::INFINITY, f64::min), all.into_iter().fold(f64::NEG_INFINITY, f64::max))
    }

    /// What lies in both.
    pub(super) fn within(self, other: Self) -> Self {
        self.from(other.low, other.low_is_open).up_to(other.high, other.high_is_open)
    }

    /// What of it lies above `low`, or is that.
    pub(super) fn from(self, low: f64, is_open: bool) -> Self {
        let tighter = low > self.low || low == self.low && is_open;
        if tighter { Self { low, low_is_open: is_open, ..self } } else { self }
    }

    /// What of it lies below `high`, or is that.
    pub(super) fn up_to(self, high: f64, is_open: bool) -> Self {
        let tighter = high < self.high || high == self.high && is_open;
        if tighter { Self { high, high_is_open: is_open, ..self } } else { self }
    }

    /// Whether it has no value.
    pub(super) fn is_empty(self) -> bool {
        self.low > self.high || self.low == self.high && (self.low_is_open || self.high_is_open)
    }

    /// Its only value.
    pub(super) fn only(self) -> Option<f64> {
        (self.low == self.high && !self.is_empty()).then_some(self.low)
    }
}
