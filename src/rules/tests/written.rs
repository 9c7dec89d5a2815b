//! Conditions written out: one form for each, which means the same.

use proptest::prelude::*;

use super::{
    cases::{case, window_case},
    language::Case,
    play::{Player, rule, rules},
};
use crate::{
    model::{Event, Name, Timestamp},
    rules::{Rule, RuleSet},
};

#[test]
fn every_form_is_written_out_in_one_way() {
    for (written, out) in [
        ("a>1", "a > 1"),
        ("((a) > (1))", "a > 1"),
        ("`a` >= 1.50", "a >= 1.5"),
        ("`a/b` == 1e3", "`a/b` == 1000"),
        ("`and` != 1e300", "`and` != 1e300"),
        ("a < 1e-9", "a < 1e-9"),
        ("a > --5", "a > 5"),
        ("a > -(5)", "a > -5"),
        ("-(a) < -(a + b)", "-a < -(a + b)"),
        ("--a < -(a * b)", "--a < -(a * b)"),
        ("(a * b) + (c / d) > 1", "a * b + c / d > 1"),
        ("(a + b) * c > 1", "(a + b) * c > 1"),
        ("a * (b * c) > 1", "a * (b * c) > 1"),
        ("(a * b) * c > 1", "a * b * c > 1"),
        ("a - (b - c) > 1", "a - (b - c) > 1"),
        ("a + (b + c) > 1", "a + (b + c) > 1"),
        ("a / (b + c) > 1", "a / (b + c) > 1"),
        ("(a > 1) and (b > 1)", "a > 1 and b > 1"),
        ("(a > 1 and b > 1) or c > 1", "a > 1 and b > 1 or c > 1"),
        ("a > 1 and (b > 1 or c > 1)", "a > 1 and (b > 1 or c > 1)"),
        ("(a > 1 and b > 1) and c > 1", "a > 1 and b > 1 and c > 1"),
        ("a > 1 or (b > 1 or (c > 1))", "a > 1 or b > 1 or c > 1"),
        ("not (a > 1)", "not (a > 1)"),
        ("not a > 1 and b > 1", "not (a > 1) and b > 1"),
        ("not (a > 1 and b > 1)", "not (a > 1 and b > 1)"),
        ("not not a > 1", "not not (a > 1)"),
        ("avg( `a` ,60s )>1", "avg(a, 1m) > 1"),
        ("rate(`avg`, 86400s) > 1", "rate(`avg`, 1d) > 1"),
        (" absent ( ) ", "absent()"),
        ("absent(120s)", "absent(2m)"),
        ("absent(`a` , 1500ms)", "absent(a, 1500ms)"),
    ] {
        let read = rule(&format!("when = '{written}'"));
        assert_eq!(read.rules[0].when.to_string(), out, "{written}");
        let again = rule(&format!("when = '{out}'"));
        assert_eq!(again.rules[0].question(), read.rules[0].question(), "{written}");
    }
}

/// The file of the rules as they are written out.
fn written_out(rules: &RuleSet) -> String {
    let text = |rule: &Rule| {
        let clear = rule.clear.as_ref().map_or_else(String::new, |clear| format!("clear = '{clear}'\n"));
        let millis = |duration: std::time::Duration| format!("{}ms", duration.as_millis());
        format!(
            "[[rules]]\nname = '{}'\nwhen = '{}'\n{clear}for = '{}'\nkeep_firing_for = '{}'\nrecord = '{}'\n",
            rule.name,
            rule.when,
            millis(rule.r#for),
            millis(rule.keep_firing_for),
            rule.record.as_str()
        )
    };
    rules.rules.iter().map(|rule| text(rule)).collect()
}

fn is_the_same_written_out(case: &Case) -> Result<(), TestCaseError> {
    let original = rules(&case.toml());
    let again = rules(&written_out(&original));
    for (rule, again) in original.rules.iter().zip(&again.rules) {
        prop_assert_eq!(again.question(), rule.question());
    }
    let events = |rules: RuleSet| -> Vec<Event> {
        let mut player = Player::new(rules);
        let mut events = Vec::new();
        for report in &case.reports {
            let metrics: Vec<(Name, f64)> = report.metrics.iter().map(|(n, v)| (n.as_str().into(), *v)).collect();
            let at = Timestamp::from_nanos(report.at);
            events.extend(player.report(at, at, &metrics));
        }
        events
    };
    // Evidence has the condition as it was written, which is not the same.
    let without_evidence = |event: Event| {
        let mut alert = (*event.alert).clone();
        let points = alert.evidence.take().map(|evidence| evidence.points.clone());
        (event.kind, alert, points)
    };
    let told = |rules| events(rules).into_iter().map(without_evidence).collect::<Vec<_>>();
    prop_assert_eq!(told(again), told(original), "{}", case.toml());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_condition_written_out_means_the_same(case in case()) {
        is_the_same_written_out(&case)?;
    }

    #[test]
    fn a_condition_on_windows_written_out_means_the_same(case in window_case()) {
        is_the_same_written_out(&case)?;
    }
}
