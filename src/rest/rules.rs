//! `/rules`: the rules in force, where they come from, how often they were asked, and what they have firing.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use warp::reply::Response;

use super::{
    Shared,
    parameters::{Pairs, Parameters},
    problem::Problem,
    views::{Time, json},
};
use crate::{
    model::Name,
    rules::{Globs, Rule},
    state::RuleCount,
    stats::{RuleError, Stats},
};

#[derive(Serialize)]
struct RulesView<'a> {
    source: &'a str,
    rules: Vec<RuleView<'a>>,
}

/// Durations are in seconds.
#[derive(Serialize)]
struct RuleView<'a> {
    name: &'a str,
    when: &'a str,
    r#for: f64,
    keep_firing_for: f64,
    clear: Option<&'a str>,
    repeat: Option<f64>,
    severity: &'static str,
    services: Vec<&'a str>,
    exclude: Vec<&'a str>,
    instances: Vec<&'a str>,
    record: &'static str,
    labels: &'a BTreeMap<String, String>,
    summary: &'a str,
    runbook_url: Option<&'a str>,
    /// Null: every receiver there is.
    receivers: Option<Vec<&'a str>>,
    state: &'static str,
    /// How many instances it looks at.
    matching: usize,
    pending: usize,
    firing: usize,
    evaluations: u64,
    last_error: Option<ErrorView>,
}

#[derive(Serialize)]
struct ErrorView {
    at: Time,
    message: String,
}

/// GET /rules
pub(super) fn list(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    Parameters::new(pairs, &[])?;
    let rules = shared.context.rules.read().clone();
    let counts = shared.context.state.count_by_rule();
    let views = rules.rules.iter().map(|rule| rule_view(rule, &counts, &shared.context.stats));
    json(&RulesView { source: &rules.source, rules: views.collect() })
}

fn rule_view<'a>(rule: &'a Rule, counts: &HashMap<Name, RuleCount>, stats: &Stats) -> RuleView<'a> {
    let RuleCount { matching, pending, firing } = counts.get(&rule.name).copied().unwrap_or_default();
    RuleView {
        name: &rule.name,
        when: &rule.when_text,
        r#for: rule.r#for.as_secs_f64(),
        keep_firing_for: rule.keep_firing_for.as_secs_f64(),
        clear: rule.clear_text.as_deref(),
        repeat: rule.repeat.map(|repeat| repeat.as_secs_f64()),
        severity: rule.severity.as_str(),
        services: patterns(rule.services.as_ref(), &["*"]),
        exclude: patterns(rule.exclude.as_ref(), &[]),
        instances: patterns(rule.instances.as_ref(), &["*"]),
        record: rule.record.as_str(),
        labels: &rule.labels,
        summary: rule.summary.text(),
        runbook_url: rule.runbook_url.as_deref(),
        receivers: rule.receivers.as_ref().map(|names| names.iter().map(|name| &**name).collect()),
        state: match (firing, pending) {
            (0, 0) => "ok",
            (0, _) => "pending",
            _ => "firing",
        },
        matching,
        pending,
        firing,
        evaluations: stats.rule_evaluations(&rule.name).get(),
        last_error: stats.rule_error(&rule.name).map(|RuleError { at, message }| ErrorView { at: Time(at), message }),
    }
}

/// The globs as written, or what their absence means.
fn patterns<'a>(globs: Option<&'a Globs>, absent: &[&'a str]) -> Vec<&'a str> {
    globs.map_or_else(|| absent.to_vec(), |globs| globs.patterns().iter().map(String::as_str).collect())
}
