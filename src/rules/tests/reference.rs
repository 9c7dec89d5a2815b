//! What a case must lead to, worked out the slow way: the measure of the engine.
//!
//! The engine carries pendings, spans and windows from report to report. The reference carries nothing: it asks every
//! report everything first, from the whole history, and then looks back from each report for where a pending or a
//! clear span began. A mistake in what is carried along cannot be made in both.

mod ask;
mod timelines;

use std::time::Duration;

use self::ask::{Held, Moment};
use super::language::{Case, Condition, Report, RuleSpec};

/// A longer time between two reports starts every pending anew.
const GAP: Duration = Duration::from_secs(300);

/// An event that the engine must bring forth.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expected {
    /// The place in the case of the report that causes it.
    pub(super) report: usize,
    pub(super) rule: String,
    pub(super) kind: Kind,
    /// Of a resolve: that of the raise.
    pub(super) metric: String,
    /// `None`: a resolve by a report that no comparison of `when` can be read from, whose value is not laid down.
    pub(super) value: Option<f64>,
    /// Of a resolve: that of the raise.
    pub(super) threshold: Option<f64>,
    /// The bare reading of the report; of a resolve: `resolved_at`.
    pub(super) at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Raise,
    Resolve,
    Record,
}

/// The events of the case, report by report, each report's in the order of the rules.
pub(super) fn run(case: &Case) -> Vec<Expected> {
    let mut events: Vec<_> = case.rules.iter().flat_map(|rule| events_of(rule, &case.reports)).collect();
    // A stable sort: what one report causes stays in the order of the rules.
    events.sort_by_key(|event| event.report);
    events
}

/// The instance's evaluation time at each report.
pub(super) fn evaluation_times(reports: &[Report]) -> Vec<i64> {
    let mut times: Vec<i64> = Vec::new();
    let mut offset = 0;
    for report in reports {
        let time = match times.last().copied() {
            None => report.at,
            Some(latest) if report.at >= latest => {
                offset = 0;
                report.at
            }
            Some(latest) if report.at + offset >= latest => report.at + offset,
            Some(latest) => {
                offset = latest - report.at;
                latest
            }
        };
        times.push(time);
    }
    times
}

/// The answer of each report: true, false, or `None` for unknown.
pub(super) fn answers(condition: &Condition, reports: &[Report]) -> Vec<Option<bool>> {
    let times = evaluation_times(reports);
    (0..reports.len()).map(|at| ask::truth(condition, &Moment::of(reports, &times, at))).collect()
}

struct Episode {
    raised: usize,
    held: Held,
}

fn events_of(rule: &RuleSpec, reports: &[Report]) -> Vec<Expected> {
    let times = evaluation_times(reports);
    let not_when = Condition::Not(Box::new(rule.when.clone()));
    let whens = answers(&rule.when, reports);
    let clears = answers(rule.clear.as_ref().unwrap_or(&not_when), reports);
    let lasted = |since: usize, until: usize, wanted: Duration| times[until] - times[since] >= nanos(wanted);
    let event = |report: usize, kind, held: &Held, value, at| Expected {
        report,
        rule: rule.name.clone(),
        kind,
        metric: held.metric.clone(),
        value,
        threshold: held.threshold,
        at,
    };

    let mut events = Vec::new();
    let mut episode: Option<Episode> = None;
    // The first report that may belong to a pending: the one after the last resolve.
    let mut free_from = 0;
    for (at, report) in reports.iter().enumerate() {
        let moment = Moment::of(reports, &times, at);
        match &episode {
            None if whens[at] == Some(true) => {
                if lasted(pending_since(&whens, &times, free_from, at), at, rule.r#for) {
                    let held = ask::held(&rule.when, &moment).expect("a true condition has a known comparison");
                    events.push(event(at, Kind::Raise, &held, Some(held.value), report.at));
                    episode = Some(Episode { raised: at, held });
                }
            }
            Some(_) if whens[at] == Some(true) => {
                if rule.record_every {
                    let held = ask::held(&rule.when, &moment).expect("a true condition has a known comparison");
                    events.push(event(at, Kind::Record, &held, Some(held.value), report.at));
                }
            }
            Some(Episode { raised, held }) if clears[at] == Some(true) => {
                if lasted(clear_since(&whens, &clears, *raised, at), at, rule.keep_firing_for) {
                    let value = ask::first_known(&rule.when, &moment).map(|known| known.value);
                    let resolved_at = report.at.max(reports[*raised].at);
                    events.push(event(at, Kind::Resolve, held, value, resolved_at));
                    episode = None;
                    free_from = at + 1;
                }
            }
            None | Some(_) => {}
        }
    }
    events
}

/// The earliest true report from which on, until the true report `at`, none was false and none came after a gap.
fn pending_since(whens: &[Option<bool>], times: &[i64], free_from: usize, at: usize) -> usize {
    let mut since = at;
    for earlier in (free_from..at).rev() {
        if whens[earlier] == Some(false) || times[earlier + 1] - times[earlier] > nanos(GAP) {
            break;
        }
        if whens[earlier] == Some(true) {
            since = earlier;
        }
    }
    since
}

/// The earliest clear report after the raise from which on, until the clear report `at`, `when` was never true and
/// `clear` never false. A gap is no hindrance.
fn clear_since(whens: &[Option<bool>], clears: &[Option<bool>], raised: usize, at: usize) -> usize {
    let mut since = at;
    for earlier in (raised + 1..at).rev() {
        if whens[earlier] == Some(true) || clears[earlier] == Some(false) {
            break;
        }
        if clears[earlier] == Some(true) {
            since = earlier;
        }
    }
    since
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).expect("a case spans hours")
}
