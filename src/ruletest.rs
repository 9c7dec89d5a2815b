//! Tests of rules: what an instance reports, and what the rules are expected to make of it.
//!
//! A test is played on the server's own code, [`crate::rules`] and an instance's state, with invented time: the server's
//! clock is the readings' own, and each second of it has its tick. What is not in it is what lies around that: lanes,
//! journal, numbering. One instance per test is enough, since no rule looks at two.

mod compare;
mod file;
mod play;
mod series;

use std::{collections::BTreeSet, time::Duration};

pub use file::{TestFile, parse_tests};

use crate::{
    model::{EventKind, InstanceKey, Name, Severity},
    rules::{Location, RuleSet},
};

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    /// What it shows.
    pub name: String,
    /// Where it begins in its file.
    pub location: Location,
    /// Whose reports they are.
    key: InstanceKey,
    /// The rules that it is about; empty: all.
    only: Vec<String>,
    /// In the order of their times.
    reports: Vec<Report>,
    /// When it ends.
    until: Duration,
    /// Everything that happens; `None`: it does not say.
    expect: Option<Vec<Expected>>,
    /// The rules that fire at a moment, by name.
    firing: Vec<(Duration, Vec<String>)>,
}

/// One report.
#[derive(Clone, Debug, PartialEq)]
struct Report {
    at: Duration,
    metrics: Vec<(Name, f64)>,
    leaving: bool,
}

/// An event as the test describes it; what is `None` may be anything.
#[derive(Clone, Debug)]
struct Expected {
    at: Duration,
    rule: String,
    kind: EventKind,
    metric: Option<String>,
    value: Option<f64>,
    severity: Option<Severity>,
    reason: Option<String>,
    summary: Option<String>,
}

/// How a test went.
#[derive(Debug)]
pub struct Verdict {
    /// What was not as expected, in lines; empty: it passed.
    pub failures: Vec<String>,
    /// The rules that it saw raise an alert.
    pub raised: BTreeSet<Name>,
}

/// Plays a test against these rules.
pub fn run(rules: &RuleSet, test: &Test) -> Verdict {
    let about = |name: &str| test.only.is_empty() || test.only.iter().any(|only| only == name);
    let chosen = rules.rules.iter().filter(|rule| about(&rule.name)).map(|rule| (**rule).clone());
    let rules = RuleSet::new(chosen.collect(), rules.source.clone());
    let played = play::play(&rules, test);
    let raises = played.seen.iter().filter(|seen| seen.event.kind == EventKind::Raise);
    let raised = raises.map(|seen| seen.event.alert.rule.clone()).collect();
    Verdict { failures: compare::failures(&rules, test, &played), raised }
}

#[cfg(test)]
mod tests;
