//! What a condition can never be, whatever is reported: small interval reasoning that claims nothing false.
//!
//! It takes a condition apart into the ways in which it can come true, and looks in each for comparisons that exclude
//! each other. What is too large, or needs more thought, it takes to be possible.

use super::{
    condition::{Comparator, Comparison, Condition, Operator, Term},
    range::Range,
};

/// Most ways of coming true that are looked at.
const MAX_WAYS: usize = 256;

/// A comparison that must hold.
#[derive(Clone, Copy)]
struct Demand<'a> {
    left: &'a Term,
    comparator: Comparator,
    right: &'a Term,
}

/// Why no report can make the condition `wanted`; `None`: it is possible, as far as can be seen.
pub(super) fn why_never(condition: &Condition, wanted: bool) -> Option<String> {
    let ways = ways(condition, wanted)?;
    let reasons: Option<Vec<String>> = ways.iter().map(|way| conflict(way)).collect();
    reasons?.into_iter().next()
}

/// Why the comparison can never hold.
pub(super) fn why_comparison_never(comparison: &Comparison) -> Option<String> {
    conflict(&[Demand::of(comparison, true)])
}

/// Whether a report that makes `clear` true always makes `when` true as well.
pub(super) fn is_within(clear: &Condition, when: &Condition) -> bool {
    let mut asked = Vec::new();
    // Arithmetic can be unknown although its metrics are there, which a clear condition need not be.
    if when.comparisons().iter().any(|c| [&c.left, &c.right].into_iter().any(|side| !leaves(side, &mut asked))) {
        return false;
    }
    let (Some(clears), Some(calm)) = (ways(clear, true), ways(when, false)) else { return false };
    clears.iter().all(|clear| {
        let mut known = Vec::new();
        clear.iter().for_each(|demand| {
            leaves(demand.left, &mut known);
            leaves(demand.right, &mut known);
        });
        let both = |calm: &Vec<Demand<'_>>| conflict(&[clear.as_slice(), calm.as_slice()].concat());
        asked.iter().all(|leaf| known.contains(leaf)) && calm.iter().all(|calm| both(calm).is_some())
    })
}

/// The metrics and windows of a term; false: it has arithmetic.
fn leaves<'a>(term: &'a Term, into: &mut Vec<&'a Term>) -> bool {
    match term {
        Term::Number(_) => true,
        Term::Metric(_) | Term::Window(_) => {
            into.push(term);
            true
        }
        Term::Negated(term) => leaves(term, into),
        Term::Arithmetic { first, rest } => {
            leaves(first, into);
            rest.iter().for_each(|(_, term)| {
                leaves(term, into);
            });
            false
        }
    }
}

/// Each way in which the condition is `wanted`: all of these comparisons hold. `None`: there are too many.
fn ways(condition: &Condition, wanted: bool) -> Option<Vec<Vec<Demand<'_>>>> {
    match (condition, wanted) {
        (Condition::Compare(comparison), _) => Some(vec![vec![Demand::of(comparison, wanted)]]),
        (Condition::Not(condition), _) => ways(condition, !wanted),
        (Condition::All(conditions), true) | (Condition::Any(conditions), false) => {
            conditions.iter().try_fold(vec![Vec::new()], |so_far, condition| {
                let more = ways(condition, wanted)?;
                let joined = so_far.iter().flat_map(|way| more.iter().map(move |more| [&way[..], more].concat()));
                (so_far.len() * more.len() <= MAX_WAYS).then(|| joined.collect())
            })
        }
        (Condition::All(conditions), false) | (Condition::Any(conditions), true) => {
            let mut all = Vec::new();
            for condition in conditions {
                all.extend(ways(condition, wanted)?);
            }
            (all.len() <= MAX_WAYS).then_some(all)
        }
    }
}

/// Why these cannot hold together.
fn conflict(demands: &[Demand<'_>]) -> Option<String> {
    if let Some(why) = demands.iter().find_map(Demand::why_never) {
        return Some(why);
    }
    if are_possible(demands) {
        return None;
    }
    let pairs = || demands.iter().enumerate().flat_map(|(n, a)| demands[..n].iter().map(move |b| [*b, *a]));
    let shown: Vec<String> = match pairs().find(|pair| !are_possible(pair)) {
        Some(pair) => pair.iter().map(Demand::text).collect(),
        None => demands.iter().map(Demand::text).collect(),
    };
    Some(format!("{} are never true together", shown.join(" and ")))
}

fn are_possible(demands: &[Demand<'_>]) -> bool {
    let mut known: Vec<(&Term, Range)> = Vec::new();
    // Twice: the first demands hear what the last ones say.
    demands.iter().chain(demands).all(|demand| demand.narrow(&mut known))
}

impl<'a> Demand<'a> {
    fn of(comparison: &'a Comparison, wanted: bool) -> Self {
        let Comparison { left, comparator, right } = comparison;
        Self { left, comparator: if wanted { *comparator } else { comparator.opposite() }, right }
    }

    /// Adds what it says to what is known of its sides; false: both cannot be.
    fn narrow(&self, known: &mut Vec<(&'a Term, Range)>) -> bool {
        let range = |term: &Term| {
            Range::of(term, &|inner| known.iter().find(|(known, _)| *known == inner).map(|(_, range)| *range))
        };
        let (left, right) = (range(self.left), range(self.right));
        if left.is_empty() || right.is_empty() {
            return false;
        }
        if self.left == self.right {
            return matches!(self.comparator, Comparator::AtLeast | Comparator::AtMost | Comparator::Equal);
        }
        let (left, right) = match self.comparator {
            Comparator::Above => (left.from(right.low, true), right.up_to(left.high, true)),
            Comparator::AtLeast => (left.from(right.low, right.low_is_open), right.up_to(left.high, left.high_is_open)),
            Comparator::Below => (left.up_to(right.high, true), right.from(left.low, true)),
            Comparator::AtMost => (left.up_to(right.high, right.high_is_open), right.from(left.low, left.low_is_open)),
            Comparator::Equal => (left.within(right), right.within(left)),
            Comparator::Unequal => return left.only().is_none() || left.only() != right.only(),
        };
        for (term, range) in [(self.left, left), (self.right, right)] {
            match known.iter_mut().find(|(known, _)| *known == term) {
                Some((_, known)) => *known = range,
                None => known.push((term, range)),
            }
        }
        // What the one side excludes the other does too: they are without a value together.
        !left.is_empty()
    }

    /// Why it can never hold, whatever else does.
    fn why_never(&self) -> Option<String> {
        if are_possible(&[*self]) {
            return None;
        }
        if self.left == self.right {
            return Some("both sides are the same".to_owned());
        }
        let sides = [self.left, self.right];
        if let Some(side) = sides.into_iter().find(|side| Range::of(side, &|_| None).is_empty()) {
            let why = if divides_by_zero(side) { "it divides by 0" } else { "it comes to no finite number" };
            return Some(format!("`{side}` never has a value: {why}"));
        }
        let facts: Vec<String> = sides.into_iter().filter_map(fact).collect();
        Some(facts.join(" and "))
    }

    fn text(&self) -> String {
        format!("`{} {} {}`", self.left, self.comparator.sign(), self.right)
    }
}

/// What is known of a term's values.
fn fact(term: &Term) -> Option<String> {
    let range = Range::of(term, &|_| None);
    // Nobody counts to -0.
    let (low, high) = (range.low + 0.0, range.high + 0.0);
    match (low > f64::MIN, high < f64::MAX) {
        _ if matches!(term, Term::Number(_)) => None,
        (true, true) if low == high => Some(format!("`{term}` is always {low}")),
        (true, true) => Some(format!("`{term}` lies between {low} and {high}")),
        (true, false) => Some(format!("`{term}` is never below {low}")),
        (false, true) => Some(format!("`{term}` is never above {high}")),
        (false, false) => None,
    }
}

fn divides_by_zero(term: &Term) -> bool {
    match term {
        Term::Number(_) | Term::Metric(_) | Term::Window(_) => false,
        Term::Negated(term) => divides_by_zero(term),
        Term::Arithmetic { first, rest } => {
            let by_zero = |(operator, term): &(Operator, Term)| {
                *operator == Operator::Divide && Range::of(term, &|_| None).only() == Some(0.0) || divides_by_zero(term)
            };
            divides_by_zero(first) || rest.iter().any(by_zero)
        }
    }
}
