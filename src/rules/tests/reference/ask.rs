//! What one report, with the history before it, answers to a condition: true, false, or `None` for unknown.
//!
//! Every window is gathered anew from the whole history, and nothing is cut short: both sides of an `and` are asked.

use std::time::Duration;

use super::{
    super::language::{Comparator, Comparison, Condition, Function, Operator, Report, Term},
    nanos,
};

/// A report and everything that arrived before it.
pub(super) struct Moment<'a> {
    current: &'a Report,
    /// Up to and with the current report, in order of arrival.
    reports: &'a [Report],
    /// Their evaluation times.
    times: &'a [i64],
    now: i64,
}

impl<'a> Moment<'a> {
    pub(super) fn of(reports: &'a [Report], times: &'a [i64], at: usize) -> Self {
        Self { current: &reports[at], reports: &reports[..=at], times: &times[..=at], now: times[at] }
    }

    /// The points of the metric in (now - width, now].
    fn window(&self, metric: &str, width: Duration) -> Vec<Point> {
        let within = |time: i64| self.now - nanos(width) < time && time <= self.now;
        let points = self.reports.iter().zip(self.times).filter(|(_, time)| within(**time));
        points.filter_map(|(report, &time)| Some(Point { time, value: report.reading(metric)? })).collect()
    }
}

struct Point {
    time: i64,
    value: f64,
}

/// What an alert says of the comparison it is about.
pub(super) struct Held {
    pub(super) metric: String,
    pub(super) value: f64,
    pub(super) threshold: Option<f64>,
}

/// Kleene's logic.
pub(super) fn truth(condition: &Condition, moment: &Moment<'_>) -> Option<bool> {
    match condition {
        Condition::Compare(comparison) => compare(comparison, moment),
        Condition::And(left, right) => match (truth(left, moment), truth(right, moment)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        },
        Condition::Or(left, right) => match (truth(left, moment), truth(right, moment)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            (None, _) | (_, None) => None,
        },
        Condition::Not(inner) => truth(inner, moment).map(|holds| !holds),
    }
}

/// The first comparison that is true by itself; if none is, as under `not`, the first that is known.
pub(super) fn held(condition: &Condition, moment: &Moment<'_>) -> Option<Held> {
    let comparisons = condition.comparisons();
    let first_true = comparisons.iter().find(|comparison| compare(comparison, moment) == Some(true));
    match first_true {
        Some(comparison) => describe(comparison, moment),
        None => first_known(condition, moment),
    }
}

/// The first comparison that is known.
pub(super) fn first_known(condition: &Condition, moment: &Moment<'_>) -> Option<Held> {
    condition.comparisons().iter().find_map(|comparison| describe(comparison, moment))
}

fn describe(Comparison { left, right, .. }: &Comparison, moment: &Moment<'_>) -> Option<Held> {
    let (left_value, right_value) = (value(left, moment)?, value(right, moment)?);
    Some(match (left.first_metric(), right.first_metric()) {
        (Some(metric), None) => Held { metric: metric.to_owned(), value: left_value, threshold: Some(right_value) },
        (Some(metric), Some(_)) => Held { metric: metric.to_owned(), value: left_value, threshold: None },
        (None, Some(metric)) => Held { metric: metric.to_owned(), value: right_value, threshold: Some(left_value) },
        (None, None) => panic!("a comparison that names no metric is no rule"),
    })
}

fn compare(comparison: &Comparison, moment: &Moment<'_>) -> Option<bool> {
    let (left, right) = (value(&comparison.left, moment)?, value(&comparison.right, moment)?);
    Some(match comparison.comparator {
        Comparator::Above => left > right,
        Comparator::AtLeast => left >= right,
        Comparator::Below => left < right,
        Comparator::AtMost => left <= right,
        Comparator::Equal => left == right,
        Comparator::Unequal => left != right,
    })
}

fn value(term: &Term, moment: &Moment<'_>) -> Option<f64> {
    let result = match term {
        Term::Metric(name) => moment.current.reading(name)?,
        Term::Number(number) => *number,
        Term::Negate(inner) => -value(inner, moment)?,
        Term::Arithmetic(left, operator, right) => {
            let (left, right) = (value(left, moment)?, value(right, moment)?);
            match operator {
                Operator::Plus => left + right,
                Operator::Minus => left - right,
                Operator::Times => left * right,
                Operator::Over if right == 0.0 => return None,
                Operator::Over => left / right,
            }
        }
        Term::Window(function, metric, width) => over(*function, &moment.window(metric, *width))?,
    };
    result.is_finite().then_some(result)
}

fn over(function: Function, points: &[Point]) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    let enough_for_a_step = points.len() >= 2;
    Some(match function {
        Function::Count => points.len() as f64,
        Function::Sum => sum(points),
        Function::Avg => mean(points),
        Function::Min => points.iter().map(|point| point.value).fold(f64::INFINITY, f64::min),
        Function::Max => points.iter().map(|point| point.value).fold(f64::NEG_INFINITY, f64::max),
        Function::Stddev => stddev(points),
        Function::Increase if enough_for_a_step => increase(points),
        Function::Delta if enough_for_a_step => last.value - first.value,
        Function::Rate if enough_for_a_step && last.time != first.time => {
            let seconds = (last.time - first.time) as f64 / 1e9;
            increase(points) / seconds
        }
        Function::Increase | Function::Delta | Function::Rate => return None,
    })
}

fn sum(points: &[Point]) -> f64 {
    let mut sum = 0.0;
    for point in points {
        sum += point.value;
    }
    sum
}

fn mean(points: &[Point]) -> f64 {
    sum(points) / points.len() as f64
}

/// Of the population, in two passes.
fn stddev(points: &[Point]) -> f64 {
    let mean = mean(points);
    let mut squares = 0.0;
    for point in points {
        squares += (point.value - mean) * (point.value - mean);
    }
    (squares / points.len() as f64).sqrt()
}

/// A counter that falls was reset to 0 and has since risen to where it is.
fn increase(points: &[Point]) -> f64 {
    let mut increase = 0.0;
    for step in points.windows(2) {
        let (before, after) = (step[0].value, step[1].value);
        increase += if after >= before { after - before } else { after.max(0.0) };
    }
    increase
}
