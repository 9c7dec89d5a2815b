//! `/explain`: why a rule fires for an instance, or why it does not.

use std::sync::Arc;

use serde::Serialize;
use warp::{http::StatusCode, reply::Response};

use super::{
    Shared,
    parameters::{Pairs, Parameters, shown},
    problem::Problem,
    views::{Time, json},
};
use crate::{
    model::{InstanceKey, Timestamp},
    rules::{Compared, Explanation, Mismatch, Reason, Rule},
};

/// Codes of what cannot be explained, since it is not there.
const SERVICE_UNKNOWN: &str = "service_unknown";
const INSTANCE_UNKNOWN: &str = "instance_unknown";
const RULE_UNKNOWN: &str = "rule_unknown";

#[derive(Serialize)]
struct OneView<'a> {
    service: &'a str,
    instance: &'a str,
    generated_at: Time,
    #[serde(flatten)]
    rule: RuleView<'a>,
}

#[derive(Serialize)]
struct AllView<'a> {
    service: &'a str,
    instance: &'a str,
    generated_at: Time,
    rules: Vec<RuleView<'a>>,
}

#[derive(Serialize)]
struct RuleView<'a> {
    rule: &'a str,
    severity: &'static str,
    when: &'a str,
    clear: Option<&'a str>,
    r#for: f64,
    keep_firing_for: f64,
    state: &'static str,
    reason: &'static str,
    explanation: &'a str,
    pending_since: Option<Time>,
    fires_at: Option<Time>,
    clear_since: Option<Time>,
    resolves_at: Option<Time>,
    comparisons: Vec<ComparisonView<'a>>,
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct ComparisonView<'a> {
    comparison: &'a str,
    left: Option<f64>,
    right: Option<f64>,
    holds: Option<bool>,
    unknown: Option<&'a str>,
}

#[derive(Serialize)]
struct StepView<'a> {
    step: &'static str,
    found: &'a str,
}

/// GET /explain
pub(super) fn explain(shared: &Shared, pairs: Pairs) -> Result<Response, Problem> {
    let parameters = Parameters::new(pairs, &["service", "instance", "rule"])?;
    let service = parameters.text("service").ok_or_else(|| Problem::bad_parameter("service", "say which service"))?;
    let wanted = parameters.text("rule");
    let rules = shared.context.rules.read().clone();
    if let Some(name) = wanted.filter(|name| rules.rule(name).is_none()) {
        let known: Vec<&str> = rules.rules.iter().map(|rule| &*rule.name).collect();
        let detail = format!("no rule `{}` is in force; there are: {}", shown(name), list(&known));
        return Err(Problem::not_found(detail).with_reason(RULE_UNKNOWN));
    }
    let instance = instance(shared, service, parameters.text("instance"))?;
    let key = InstanceKey::new(service, &instance);
    let select = |rule: &Rule| wanted.is_none_or(|name| &*rule.name == name);
    let explained = shared.context.state.with_instance(&key, |instance, heard| instance.explain(heard, select));
    let explained = explained.ok_or_else(|| unknown_instance(service, &instance, &[]))?;
    // Rules that do not look at the instance are not in its plan.
    let answers: Vec<(Arc<Rule>, Explanation)> = rules
        .rules
        .iter()
        .filter(|rule| select(rule))
        .map(|rule| {
            let found = explained.iter().find(|(of, _)| of.name == rule.name);
            found.cloned().unwrap_or_else(|| (rule.clone(), beside(rule, &key)))
        })
        .collect();
    let generated_at = Time(Timestamp::now());
    let mut views: Vec<RuleView<'_>> = answers.iter().map(|(rule, explanation)| view(rule, explanation)).collect();
    match (wanted, views.pop()) {
        (Some(_), Some(rule)) => json(&OneView { service, instance: &instance, generated_at, rule }),
        (_, last) => {
            views.extend(last);
            json(&AllView { service, instance: &instance, generated_at, rules: views })
        }
    }
}

/// The instance that is meant: the one that was named, or a service's only one.
fn instance(shared: &Shared, service: &str, named: Option<&str>) -> Result<String, Problem> {
    let views = shared.context.state.view(|key| key.service() == service);
    let known: Vec<&str> = views.iter().map(|view| view.key.instance()).collect();
    match (named, known.as_slice()) {
        (_, []) => {
            let detail = format!("no instance of service `{}` is known: has it reported?", shown(service));
            Err(Problem::not_found(detail).with_reason(SERVICE_UNKNOWN))
        }
        (Some(named), known) if known.contains(&named) => Ok(named.to_owned()),
        (Some(named), known) => Err(unknown_instance(service, named, known)),
        (None, [only]) => Ok((*only).to_owned()),
        (None, known) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("instance: say which; there are: {}", list(known))))
        }
    }
}

fn unknown_instance(service: &str, instance: &str, known: &[&str]) -> Problem {
    let detail = format!("no instance `{}` of service `{}` is known", shown(instance), shown(service));
    let detail = if known.is_empty() { detail } else { format!("{detail}; there are: {}", list(known)) };
    Problem::not_found(detail).with_reason(INSTANCE_UNKNOWN)
}

/// A rule that is not in the plan of the instance.
fn beside(rule: &Rule, key: &InstanceKey) -> Explanation {
    let (reason, sentence) = match rule.applies_to(key) {
        Err(Mismatch::Service) => {
            (Reason::ServiceNotMatched, format!("none of the rule's `services` matches {}", key.service()))
        }
        Err(Mismatch::Excluded) => (Reason::ServiceExcluded, format!("the rule's `exclude` matches {}", key.service())),
        Err(Mismatch::Instance) => {
            (Reason::InstanceNotMatched, format!("none of the rule's `instances` matches {}", key.instance()))
        }
        Ok(()) => (Reason::AwaitingReport, "the rule is coming into force just now".to_owned()),
    };
    Explanation {
        state: "ok",
        reason,
        steps: vec![("match", sentence.clone())],
        sentence,
        comparisons: Vec::new(),
        pending_since: None,
        clear_since: None,
    }
}

fn view<'a>(rule: &'a Rule, explanation: &'a Explanation) -> RuleView<'a> {
    let Explanation { state, reason, sentence, steps, comparisons, pending_since, clear_since } = explanation;
    RuleView {
        rule: &rule.name,
        severity: rule.severity.as_str(),
        when: &rule.when_text,
        clear: rule.clear_text.as_deref(),
        r#for: rule.r#for.as_secs_f64(),
        keep_firing_for: rule.keep_firing_for.as_secs_f64(),
        state,
        reason: reason.code(),
        explanation: sentence,
        pending_since: pending_since.map(Time),
        fires_at: pending_since.map(|since| Time(since.plus(rule.r#for))),
        clear_since: clear_since.map(Time),
        resolves_at: clear_since.map(|since| Time(since.plus(rule.keep_firing_for))),
        comparisons: comparisons.iter().map(comparison_view).collect(),
        steps: steps.iter().map(|(step, found)| StepView { step, found }).collect(),
    }
}

fn comparison_view(compared: &Compared) -> ComparisonView<'_> {
    let Compared { text, left, right, holds, unknown } = compared;
    ComparisonView { comparison: text, left: *left, right: *right, holds: *holds, unknown: unknown.as_deref() }
}

/// Some names for people; a server can have thousands.
fn list(names: &[&str]) -> String {
    const MOST: usize = 20;
    let more = if names.len() > MOST { ", …" } else { "" };
    names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ") + more
}
