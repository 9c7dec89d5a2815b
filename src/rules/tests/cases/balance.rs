//! Whether the cases are worth playing: that what they are to try out happens often, and that they say what they are.

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use super::{
    super::{
        language::{Case, Function},
        read,
        reference::{self, Kind},
    },
    case, clock_case, window_case,
};

const N_CASES: usize = 500;

/// In how many of the cases each thing happens. The cases are the same every time.
fn tally(cases: impl Strategy<Value = Case>) -> BTreeMap<&'static str, usize> {
    let mut runner = TestRunner::deterministic();
    let mut tally = BTreeMap::new();
    for _ in 0..N_CASES {
        let case = cases.new_tree(&mut runner).expect("no case is filtered out").current();
        for (happening, happens) in happenings(&case) {
            *tally.entry(happening).or_default() += usize::from(happens);
        }
    }
    tally
}

fn happenings(case: &Case) -> Vec<(&'static str, bool)> {
    let events = reference::run(case);
    let times = reference::evaluation_times(&case.reports);
    let has = |kind| events.iter().any(|event| event.kind == kind);
    let answers: Vec<_> = case.rules.iter().flat_map(|rule| reference::answers(&rule.when, &case.reports)).collect();
    let rule_of =
        |name: &str| case.rules.iter().find(|rule| rule.name == name).expect("events are of the case's rules");
    vec![
        ("raise", has(Kind::Raise)),
        ("resolve", has(Kind::Resolve)),
        ("record", has(Kind::Record)),
        ("raise after waiting", events.iter().any(|e| e.kind == Kind::Raise && !rule_of(&e.rule).r#for.is_zero())),
        (
            "resolve after waiting",
            events.iter().any(|e| e.kind == Kind::Resolve && !rule_of(&e.rule).keep_firing_for.is_zero()),
        ),
        (
            "resolve by a clear condition",
            events.iter().any(|e| e.kind == Kind::Resolve && rule_of(&e.rule).clear.is_some()),
        ),
        (
            "second episode",
            case.rules
                .iter()
                .any(|rule| events.iter().filter(|e| e.rule == rule.name && e.kind == Kind::Raise).count() > 1),
        ),
        ("true", answers.contains(&Some(true))),
        ("false", answers.contains(&Some(false))),
        ("unknown", answers.contains(&None)),
        ("counter reset", has_reset(case)),
        ("gap", times.windows(2).any(|pair| pair[1] - pair[0] > super::MINUTE * 5)),
        ("stepped clock", case.reports.iter().zip(&times).any(|(report, time)| report.at != *time)),
    ]
}

/// Whether a counter that a rule looks at falls.
fn has_reset(case: &Case) -> bool {
    let windows = case.rules.iter().flat_map(|rule| rule.when.windows());
    let mut counters = windows.filter(|(function, ..)| matches!(function, Function::Increase | Function::Rate));
    counters.any(|(_, metric, _)| {
        let readings: Vec<f64> = case.reports.iter().filter_map(|report| report.reading(metric)).collect();
        readings.windows(2).any(|pair| pair[1] < pair[0])
    })
}

#[test]
fn everything_that_a_rule_can_do_happens_in_a_fair_share_of_the_cases() {
    for (kind, tally) in [("case", tally(case())), ("window", tally(window_case())), ("clock", tally(clock_case()))] {
        for (happening, n_cases) in tally {
            let common = ["raise", "true", "false", "unknown"].contains(&happening);
            let wanted = if common { N_CASES / 2 } else { N_CASES / 20 };
            assert!(n_cases >= wanted, "{kind}: {happening} in {n_cases} of {N_CASES} cases");
        }
    }
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_rule_file_says_what_its_case_is(case in case()) {
        let text = case.toml();
        let file: toml::Table = text.parse().expect("TOML");
        let rules = file["rules"].as_array().expect("a list of rules");
        prop_assert_eq!(rules.len(), case.rules.len());
        for (written, rule) in rules.iter().zip(&case.rules) {
            let field = |name: &str| written.get(name).map(|value| value.as_str().expect("a string"));
            let duration = |name: &str| read::duration(field(name).unwrap_or("0s"));
            prop_assert_eq!(field("name"), Some(rule.name.as_str()));
            prop_assert_eq!(&read::condition(field("when").expect("a condition")), &rule.when, "{}", text);
            prop_assert_eq!(&field("clear").map(read::condition), &rule.clear, "{}", text);
            prop_assert_eq!(duration("for"), rule.r#for, "{}", text);
            prop_assert_eq!(duration("keep_firing_for"), rule.keep_firing_for, "{}", text);
            prop_assert_eq!(field("record") == Some("every"), rule.record_every);
        }
    }
}
