//! What a test expected beside what it saw, in the file's own notation: a line that was seen can be copied into the test.

use std::time::Duration;

use super::{
    Expected, Test,
    play::{Played, Seen},
};
use crate::{
    model::{Alert, EventKind, Name},
    rules::{Mismatch, RuleSet},
    units::show_duration,
};

/// Values further apart than this share of them are not the same: tests write fewer digits than arithmetic gives.
const TOLERANCE: f64 = 1e-9;

/// What was not as expected; empty: nothing.
pub(super) fn failures(rules: &RuleSet, test: &Test, played: &Played) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(expected) = &test.expect {
        failures.extend(events(rules, test, expected, &played.seen));
    }
    for ((at, wanted), fired) in test.firing.iter().zip(&played.firing) {
        let (wanted, fired) = (sorted(wanted), sorted(fired));
        if wanted != fired {
            let at = show_duration(*at);
            failures.push(format!("at {at} there fire {}; expected {}", list(&fired), list(&wanted)));
        }
    }
    failures
}

fn events(rules: &RuleSet, test: &Test, expected: &[Expected], seen: &[Seen]) -> Vec<String> {
    let mut left: Vec<&Seen> = seen.iter().collect();
    let mut lines: Vec<(Duration, char, String)> = Vec::new();
    let with_summary = expected.iter().any(|expected| expected.summary.is_some());
    for expected in expected {
        match left.iter().position(|seen| fits(expected, seen)) {
            Some(place) => {
                let seen = left.remove(place);
                lines.push((seen.at, ' ', show_seen(seen, with_summary)));
            }
            None => lines.push((expected.at, '-', show(expected))),
        }
    }
    lines.extend(left.iter().map(|seen| (seen.at, '+', show_seen(seen, with_summary))));
    if lines.iter().all(|(_, sign, _)| *sign == ' ') {
        return Vec::new();
    }
    lines.sort_by_key(|(at, sign, _)| (*at, *sign == '+'));
    let mut told = vec!["- was expected and did not happen, + happened and was not expected:".to_owned()];
    told.extend(lines.iter().map(|(_, sign, line)| format!("  {sign} {line}")));
    told.extend(not_looked_at(rules, test, expected));
    told
}

/// Rules from which something was expected that do not look at the test's instance at all.
fn not_looked_at(rules: &RuleSet, test: &Test, expected: &[Expected]) -> Vec<String> {
    let mut names: Vec<&str> = expected.iter().map(|expected| expected.rule.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let why = |name: &str| {
        let field = match rules.rule(name)?.applies_to(&test.key).err()? {
            Mismatch::Service => "services",
            Mismatch::Excluded => "exclude",
            Mismatch::Instance => "instances",
        };
        Some(format!("rule `{name}` does not look at {}, by its `{field}`", test.key))
    };
    names.into_iter().filter_map(why).collect()
}

fn fits(expected: &Expected, Seen { at, event }: &Seen) -> bool {
    let alert = &event.alert;
    let value = value(event.kind, alert);
    let same = |wanted: f64| (wanted - value).abs() <= TOLERANCE * wanted.abs().max(value.abs()).max(1.0);
    expected.at == *at
        && expected.kind == event.kind
        && *expected.rule == *alert.rule
        && expected.metric.as_ref().is_none_or(|metric| **metric == *alert.metric)
        && expected.value.is_none_or(same)
        && expected.severity.is_none_or(|severity| severity == alert.severity)
        && expected.reason.as_ref().is_none_or(|reason| alert.resolve_reason.is_some_and(|why| why.as_str() == reason))
        && expected.summary.as_ref().is_none_or(|summary| *summary == alert.summary)
}

/// What an alert says at this event.
fn value(kind: EventKind, alert: &Alert) -> f64 {
    if kind == EventKind::Resolve { alert.last_value } else { alert.value }
}

fn show_seen(Seen { at, event }: &Seen, with_summary: bool) -> String {
    let alert = &event.alert;
    let is_resolve = event.kind == EventKind::Resolve;
    show(&Expected {
        at: *at,
        rule: alert.rule.to_string(),
        kind: event.kind,
        metric: Some(alert.metric.to_string()).filter(|_| !is_resolve),
        value: Some(value(event.kind, alert)),
        severity: Some(alert.severity).filter(|_| !is_resolve),
        reason: alert.resolve_reason.map(|why| why.as_str().to_owned()).filter(|_| is_resolve),
        summary: Some(alert.summary.clone()).filter(|_| with_summary),
    })
}

fn show(Expected { at, rule, kind, metric, value, severity, reason, summary }: &Expected) -> String {
    let mut text = format!("{{ at = \"{}\", rule = \"{rule}\", event = \"{}\"", show_duration(*at), kind.as_str());
    let fields = [
        ("metric", metric.as_ref().map(|metric| format!("{metric:?}"))),
        ("value", value.map(|value| value.to_string())),
        ("severity", severity.map(|severity| format!("{:?}", severity.as_str()))),
        ("reason", reason.as_ref().map(|reason| format!("{reason:?}"))),
        ("summary", summary.as_ref().map(|summary| format!("{summary:?}"))),
    ];
    for (field, shown) in fields {
        text.extend(shown.map(|shown| format!(", {field} = {shown}")));
    }
    text + " }"
}

fn sorted(names: &[impl AsRef<str>]) -> Vec<Name> {
    let mut names: Vec<Name> = names.iter().map(|name| name.as_ref().into()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn list(names: &[Name]) -> String {
    if names.is_empty() { "no rules".to_owned() } else { names.join(", ") }
}
