//! Random cases: rules that look at a few metrics, and reports that hit their boundaries.
//!
//! Times are drawn as steps and values as changes, and only then worked out: so a case can step by exactly its rule's
//! `for`, hold a value for long enough to fire, and still shrink report by report.

mod balance;

use std::{ops::Range, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::language::{Case, Comparator, Comparison, Condition, Function, Operator, Report, RuleSpec, Term};

/// Few, so that rules and reports meet; the last cannot be written bare.
const METRICS: [&str; 4] = ["a", "b", "c", "d/e"];
const START: i64 = 1_800_000_000_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Everything the language has, on clocks that mostly go forward.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    cases(condition(any_comparison().boxed()), 1..5, mostly_forward())
}

/// Every comparison looks at a window.
pub(crate) fn window_case() -> impl Strategy<Value = Case> {
    cases(condition(window_comparison().boxed()), 1..3, mostly_forward())
}

/// Simple conditions on clocks that step to and fro.
pub(crate) fn clock_case() -> impl Strategy<Value = Case> {
    let comparison = prop_oneof![3 => metric_comparison(), 1 => window_comparison()];
    cases(comparison.prop_map(Condition::Compare), 1..3, to_and_fro())
}

fn cases(
    condition: impl Strategy<Value = Condition> + Clone + 'static,
    n_rules: Range<usize>,
    step: impl Strategy<Value = Step> + 'static,
) -> impl Strategy<Value = Case> {
    let draft = (step, readings()).prop_map(|(step, readings)| Draft { step, readings });
    (vec(rule(condition), n_rules), vec(draft, 1..40), any::<u64>()).prop_map(|(mut rules, drafts, style)| {
        for (idx, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("rule-{idx}");
        }
        let reports = work_out(&drafts, &spans(&rules));
        Case { rules, reports, style }
    })
}

fn rule(condition: impl Strategy<Value = Condition> + Clone + 'static) -> impl Strategy<Value = RuleSpec> {
    let wait = || {
        prop_oneof![
            3 => Just(0),
            5 => select(vec![500, 1_000, 2_000, 5_000, 10_000]),
            1 => select(vec![60_000, 300_000]),
        ]
    };
    let clear = prop_oneof![
        3 => Just(None),
        3 => hysteresis().prop_map(|comparison| Some(Condition::Compare(comparison))),
        1 => condition.clone().prop_map(Some),
    ];
    (condition, wait(), wait(), clear, any::<bool>()).prop_map(|(when, r#for, keep_firing_for, clear, record_every)| {
        RuleSpec {
            name: String::new(),
            when,
            r#for: Duration::from_millis(r#for),
            keep_firing_for: Duration::from_millis(keep_firing_for),
            clear,
            record_every,
        }
    })
}

fn condition(comparison: BoxedStrategy<Comparison>) -> impl Strategy<Value = Condition> + Clone {
    let one = comparison.prop_map(Condition::Compare);
    one.prop_recursive(3, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(|(left, right)| (Box::new(left), Box::new(right)));
        prop_oneof![
            2 => pair.clone().prop_map(|(left, right)| Condition::Or(left, right)),
            2 => pair.prop_map(|(left, right)| Condition::And(left, right)),
            1 => inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn any_comparison() -> impl Strategy<Value = Comparison> {
    prop_oneof![4 => metric_comparison(), 3 => window_comparison(), 2 => term_comparison()]
}

/// `a > 2`, as most rules are.
fn metric_comparison() -> impl Strategy<Value = Comparison> {
    (metric(), comparator(), number()).prop_map(|(name, comparator, right)| Comparison {
        left: Term::Metric(name),
        comparator,
        right,
    })
}

/// `a < 2`, as most clear conditions are.
fn hysteresis() -> impl Strategy<Value = Comparison> {
    use Comparator::{AtMost, Below, Equal, Unequal};
    (metric_comparison(), select(vec![Below, AtMost, Below, Equal, Unequal]))
        .prop_map(|(comparison, comparator)| Comparison { comparator, ..comparison })
}

/// `avg(a, 5s) > 2`
fn window_comparison() -> impl Strategy<Value = Comparison> {
    (window(), comparator(), number()).prop_map(|(left, comparator, right)| Comparison { left, comparator, right })
}

/// Any terms at all; `a` stands in where neither side names a metric.
fn term_comparison() -> impl Strategy<Value = Comparison> {
    (term(), comparator(), term()).prop_map(|(left, comparator, right)| {
        let named = left.first_metric().or(right.first_metric()).is_some();
        let left = if named { left } else { Term::Metric(METRICS[0].to_owned()) };
        Comparison { left, comparator, right }
    })
}

fn comparator() -> impl Strategy<Value = Comparator> {
    use Comparator::{Above, AtLeast, AtMost, Below, Equal, Unequal};
    select(vec![Above, Above, Above, AtLeast, AtLeast, Below, AtMost, Equal, Unequal])
}

fn term() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![4 => metric().prop_map(Term::Metric), 3 => number(), 2 => window()];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let operator = select(vec![Operator::Plus, Operator::Minus, Operator::Times, Operator::Over]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone())
                .prop_map(|(left, operator, right)| Term::Arithmetic(Box::new(left), operator, Box::new(right))),
            1 => inner.prop_map(|inner| Term::Negate(Box::new(inner))),
        ]
    })
}

fn metric() -> impl Strategy<Value = String> {
    prop_oneof![5 => Just(METRICS[0]), 3 => Just(METRICS[1]), 1 => select(METRICS.to_vec())].prop_map(str::to_owned)
}

/// Thresholds, which readings hit exactly.
fn number() -> impl Strategy<Value = Term> {
    let size = prop_oneof![
        8 => select(vec![1.0, 2.0, 0.0, 3.0, 5.0]),
        2 => select(vec![0.5, 10.0, 90.0, 1_000.0]),
        1 => Just(1e300),
    ];
    (size, prop::bool::weighted(0.1)).prop_map(|(size, negative)| {
        if negative { Term::Negate(Box::new(Term::Number(size))) } else { Term::Number(size) }
    })
}

fn window() -> impl Strategy<Value = Term> {
    let function = select(Function::NAMES.map(|(_, function)| function).to_vec());
    let width = prop_oneof![
        6 => select(vec![2_000, 3_000, 5_000, 10_000]),
        2 => select(vec![500, 60_000, 300_000, 600_000]),
    ];
    (function, metric(), width)
        .prop_map(|(function, metric, width)| Term::Window(function, metric, Duration::from_millis(width)))
}

/// A report before it is known what came before it.
#[derive(Clone, Debug)]
struct Draft {
    step: Step,
    readings: Vec<Change>,
}

/// How much later than the one before a report was taken.
#[derive(Clone, Copy, Debug)]
enum Step {
    Nanos(i64),
    /// By a duration that one of the rules names, and so many nanoseconds more.
    Named(Index, i64),
}

/// What becomes of a metric's reading.
#[derive(Clone, Copy, Debug)]
enum Change {
    Missing,
    Same,
    Up(f64),
    To(f64),
}

fn mostly_forward() -> impl Strategy<Value = Step> {
    prop_oneof![30 => small_step(), 8 => named_step(), 2 => gap_step(), 2 => clock_step()]
}

fn to_and_fro() -> impl Strategy<Value = Step> {
    prop_oneof![6 => small_step(), 3 => named_step(), 2 => gap_step(), 4 => clock_step()]
}

fn small_step() -> impl Strategy<Value = Step> {
    let millis = vec![1_000, 1_000, 1_000, 1_000, 2_000, 500, 5_000, 0, 1];
    select(millis).prop_map(|millis| Step::Nanos(millis * MILLISECOND))
}

fn named_step() -> impl Strategy<Value = Step> {
    (any::<Index>(), select(vec![0, 0, 0, -1, 1])).prop_map(|(index, nudge)| Step::Named(index, nudge))
}

/// As long as a gap may be, and just longer.
fn gap_step() -> impl Strategy<Value = Step> {
    select(vec![5 * MINUTE, 5 * MINUTE + 1]).prop_map(Step::Nanos)
}

fn clock_step() -> impl Strategy<Value = Step> {
    select(vec![-SECOND, -500 * MILLISECOND, -5 * SECOND, -MINUTE, -HOUR, HOUR, 10 * SECOND]).prop_map(Step::Nanos)
}

/// One change per metric; now and then a report holds nothing at all.
fn readings() -> impl Strategy<Value = Vec<Change>> {
    let usual = vec(change(), METRICS.len());
    prop_oneof![15 => usual, 1 => Just(vec![Change::Missing; METRICS.len()])]
}

/// Mostly whole numbers, whose sums are exact; 0.1 and 1e300 show in which order they were added up.
fn change() -> impl Strategy<Value = Change> {
    let to = prop_oneof![
        24 => select(vec![0.0, 1.0, 2.0, 3.0, 5.0, 6.0]),
        4 => select(vec![0.5, 10.0, 90.0, 91.0, 1_000.0, -1.0, -5.0, 0.1, 0.7]),
        1 => select(vec![1e300, -1e300]),
    ];
    prop_oneof![
        5 => Just(Change::Same),
        6 => to.prop_map(Change::To),
        2 => Just(Change::Missing),
        2 => select(vec![1.0, 2.0, 5.0]).prop_map(Change::Up),
    ]
}

/// Every duration that the rules name, in nanoseconds.
fn spans(rules: &[RuleSpec]) -> Vec<i64> {
    let of_rule = |rule: &RuleSpec| {
        let windows = rule.when.windows().into_iter().chain(rule.clear.iter().flat_map(Condition::windows));
        let widths: Vec<Duration> = windows.map(|(_, _, width)| width).collect();
        [vec![rule.r#for, rule.keep_firing_for], widths].concat()
    };
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).expect("durations are minutes at most");
    rules.iter().flat_map(of_rule).map(nanos).collect()
}

fn work_out(drafts: &[Draft], spans: &[i64]) -> Vec<Report> {
    let mut at = START;
    let mut latest = [0.0; METRICS.len()];
    let mut reports = Vec::new();
    for Draft { step, readings } in drafts {
        at += match step {
            Step::Nanos(nanos) => *nanos,
            Step::Named(index, nudge) => index.get(spans) + nudge,
        };
        let mut metrics = Vec::new();
        for ((name, latest), change) in METRICS.iter().zip(&mut latest).zip(readings) {
            *latest = match change {
                Change::Missing => continue,
                Change::Same => *latest,
                Change::Up(by) => *latest + by,
                Change::To(value) => *value,
            };
            metrics.push(((*name).to_owned(), *latest));
        }
        reports.push(Report { at, metrics });
    }
    reports
}
