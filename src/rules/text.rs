//! Conditions as text: one form for each meaning, with no more parentheses than it needs.
//!
//! It is what people are shown, and what tells whether a rule has changed: another way of writing the same condition is
//! the same text here.

use std::fmt::{self, Display, Formatter, Write as _};

use super::condition::{Comparison, Condition, Operator, Term, Unknown, When, Window};
use crate::units::show_duration;

impl Display for Term {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{}", Number(*number)),
            Self::Metric(name) => write!(f, "{}", Metric(name)),
            Self::Window(window) => window.fmt(f),
            Self::Negated(term) => {
                f.write_char('-')?;
                write_in(f, term, matches!(**term, Self::Arithmetic { .. }))
            }
            Self::Arithmetic { first, rest } => {
                let is_sum = |rest: &[(Operator, Self)]| rest.iter().any(|(operator, _)| operator.is_sum());
                // A product inside a sum needs no parentheses, nor does what comes first and binds equally.
                let needs = |term: &Self, is_first: bool| match term {
                    Self::Arithmetic { rest: inner, .. } if is_sum(inner) => !(is_first && is_sum(rest)),
                    Self::Arithmetic { .. } => !is_first && !is_sum(rest),
                    _ => false,
                };
                write_in(f, first, needs(first, true))?;
                for (operator, term) in rest {
                    write!(f, " {} ", operator.sign())?;
                    write_in(f, term, needs(term, false))?;
                }
                Ok(())
            }
        }
    }
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}, {})", self.function.name(), Metric(&self.metric), show_duration(self.span))
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.comparator.sign(), self.right)
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |f: &mut Formatter<'_>, conditions: &[Self], word: &str, inner: fn(&Self) -> bool| {
            for (place, condition) in conditions.iter().enumerate() {
                if place > 0 {
                    write!(f, " {word} ")?;
                }
                write_in(f, condition, inner(condition))?;
            }
            Ok(())
        };
        // `and` in `and`, and `or` in `or`, mean the same with parentheses and without.
        match self {
            Self::Compare(comparison) => comparison.fmt(f),
            Self::Not(condition) => {
                f.write_str("not ")?;
                write_in(f, condition, !matches!(**condition, Self::Not(_)))
            }
            Self::All(conditions) => list(f, conditions, "and", |c| matches!(c, Self::Any(_))),
            Self::Any(conditions) => list(f, conditions, "or", |_| false),
        }
    }
}

impl Display for When {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(condition) => condition.fmt(f),
            Self::Silent { after: None } => f.write_str("absent()"),
            Self::Silent { after: Some(after) } => write!(f, "absent({})", show_duration(*after)),
            Self::Lacking { metric, after } => write!(f, "absent({}, {})", Metric(metric), show_duration(*after)),
        }
    }
}

impl Display for Unknown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(metric) => write!(f, "the report has no {metric}"),
            Self::Empty(window) => write!(f, "{window}: no reading lies in the window"),
            Self::TooFew(window) => write!(f, "{window}: it takes two readings at different times"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::NotFinite => f.write_str("the result is no finite number"),
        }
    }
}

impl Operator {
    /// The sign as it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }

    fn is_sum(self) -> bool {
        matches!(self, Self::Add | Self::Subtract)
    }
}

fn write_in(f: &mut Formatter<'_>, inner: &impl Display, parentheses: bool) -> fmt::Result {
    if parentheses { write!(f, "({inner})") } else { inner.fmt(f) }
}

/// A number with all of its digits; very large and very small ones with an exponent.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size != 0.0 && !(1e-6..1e15).contains(&size) { write!(f, "{:e}", self.0) } else { self.0.fmt(f) }
    }
}

/// A metric's name as a rule writes it.
struct Metric<'a>(&'a str);

impl Display for Metric<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if super::parse::is_bare(self.0) { f.write_str(self.0) } else { write!(f, "`{}`", self.0) }
    }
}
