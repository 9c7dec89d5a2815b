//! `/rules`: the rules in force, where they come from, and which of them fire.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use warp::reply::Response;

use super::{
    Shared,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::json,
};
use crate::rules::{Globs, Rule};

#[derive(Serialize)]
struct RulesView<'a> {
    source: &'a str,
    rules: Vec<RuleView<'a>>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    when: &'a str,
    severity: &'static str,
    services: Vec<&'a str>,
    exclude: Vec<&'a str>,
    instances: Vec<&'a str>,
    record: &'static str,
    labels: &'a BTreeMap<String, String>,
    summary: &'a str,
    runbook_url: Option<&'a str>,
    state: &'static str,
    firing: usize,
}

/// GET /rules
pub(super) fn list(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let rules = shared.context.rules.read().clone();
    let alerts = shared.context.state.active_alerts();
    let mut firing: HashMap<&str, usize> = HashMap::new();
    for alert in &alerts {
        *firing.entry(&alert.rule).or_default() += 1;
    }
    let count = |rule: &Rule| firing.get(&*rule.name).copied().unwrap_or(0);
    let views = rules.rules.iter().map(|rule| rule_view(rule, count(rule)));
    json(&RulesView { source: &rules.source, rules: views.collect() })
}

fn rule_view(rule: &Rule, firing: usize) -> RuleView<'_> {
    RuleView {
        name: &rule.name,
        when: &rule.when_text,
        severity: rule.severity.as_str(),
        services: patterns(rule.services.as_ref(), &["*"]),
        exclude: patterns(rule.exclude.as_ref(), &[]),
        instances: patterns(rule.instances.as_ref(), &["*"]),
        record: rule.record.as_str(),
        labels: &rule.labels,
        summary: rule.summary.text(),
        runbook_url: rule.runbook_url.as_deref(),
        state: if firing > 0 { "firing" } else { "ok" },
        firing,
    }
}

/// The globs as written, or what their absence means.
fn patterns<'a>(globs: Option<&'a Globs>, absent: &[&'a str]) -> Vec<&'a str> {
    globs.map_or_else(|| absent.to_vec(), |globs| globs.patterns().iter().map(String::as_str).collect())
}
