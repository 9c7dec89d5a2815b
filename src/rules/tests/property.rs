//! The engine says what the reference says, on random rules and reports.

use proptest::prelude::*;

use super::{
    cases::{case, clock_case, window_case},
    language::Case,
    play::{Player, rules},
    reference::{self, Expected, Kind},
};
use crate::model::{Event, EventKind, Name, Timestamp};

const CASES: u32 = 2_000;

/// What the engine makes of a case, in the reference's words.
fn engine(case: &Case) -> Vec<Expected> {
    let mut player = Player::new(rules(&case.toml()));
    let mut told = Vec::new();
    for (place, report) in case.reports.iter().enumerate() {
        let metrics: Vec<(Name, f64)> = report.metrics.iter().map(|(n, v)| (n.as_str().into(), *v)).collect();
        let at = Timestamp::from_nanos(report.at);
        told.extend(player.report(at, at, &metrics).iter().map(|event| expected(place, event)));
    }
    told
}

fn expected(report: usize, event: &Event) -> Expected {
    let alert = &event.alert;
    let (kind, value, at) = match event.kind {
        EventKind::Raise => (Kind::Raise, Some(alert.value), alert.triggered_at),
        EventKind::Record => (Kind::Record, Some(alert.value), alert.triggered_at),
        // The value at the resolve is for people; which comparison's it is, is not of the contract.
        EventKind::Resolve => (Kind::Resolve, None, alert.resolved_at.expect("resolved")),
        EventKind::Update | EventKind::Repeat | EventKind::Restate => unreachable!("no report causes {:?}", event.kind),
    };
    let (rule, metric) = (alert.rule.to_string(), alert.metric.to_string());
    Expected { report, rule, kind, metric, value, threshold: alert.threshold, at: at.as_nanos() }
}

fn agrees(case: &Case) -> Result<(), TestCaseError> {
    let mut wanted = reference::run(case);
    wanted.iter_mut().filter(|e| e.kind == Kind::Resolve).for_each(|e| e.value = None);
    prop_assert_eq!(engine(case), wanted, "{}", case.toml());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_reference(case in case()) {
        agrees(&case)?;
    }

    #[test]
    fn the_engine_agrees_with_the_reference_on_windows(case in window_case()) {
        agrees(&case)?;
    }

    #[test]
    fn the_engine_agrees_with_the_reference_on_clocks_that_jump(case in clock_case()) {
        agrees(&case)?;
    }
}
