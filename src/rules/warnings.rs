//! What is probably a mistake in rules that are valid: names that nobody sends, conditions that can never be.

use std::{fmt, sync::Arc};

use gopherwatch_proto::WELL_KNOWN_METRICS;

use super::{
    Globs, Location, Rule,
    condition::{Comparator, Comparison, Condition},
    never::{is_within, why_comparison_never, why_never},
    suggest::misspelt_metric,
};
use crate::model::Name;

/// How sure it is that something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is, unless the rule is not meant to work.
    Warning,
    /// It may be as it should.
    Note,
}

/// Something to look at in a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// How sure that is.
    pub doubt: Doubt,
    /// Where it stands.
    pub location: Location,
    /// The rule, the field and what is wrong.
    pub message: String,
}

/// `line 3, column 9: rule `hot`: when: …`
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// What is doubtful in these rules, in their order.
pub fn warnings(rules: &[Arc<Rule>]) -> Vec<Warning> {
    rules.iter().flat_map(|rule| of_rule(rule)).collect()
}

fn of_rule(rule: &Rule) -> Vec<Warning> {
    let mut found = names(rule);
    let here = |message: String| warning(rule, Doubt::Warning, rule.location, &message);
    found.extend(looks_at_nothing(rule).map(here));
    if let Some(when) = rule.when.condition() {
        found.extend(never_or_always(rule, when).map(here));
    }
    if let Some(clear) = &rule.clear {
        let location = rule.clear_location.unwrap_or(rule.location);
        let here = |message: String| warning(rule, Doubt::Warning, location, &message);
        found.extend(never_clear(rule, clear).map(here));
    }
    found
}

fn warning(rule: &Rule, doubt: Doubt, location: Location, message: &str) -> Warning {
    Warning { doubt, location, message: format!("rule `{}`: {message}", rule.name) }
}

/// Metrics that are all but well known, or a rule of which nothing is.
fn names(rule: &Rule) -> Vec<Warning> {
    let mut found: Vec<Warning> = Vec::new();
    for (place, (metric, location)) in rule.mentions.iter().enumerate() {
        if rule.mentions[..place].iter().any(|(other, _)| other == metric) {
            continue;
        }
        if let Some(near) = misspelt_metric(metric) {
            let message = format!("no agent sends `{metric}` by itself: did you mean `{near}`?");
            found.push(warning(rule, Doubt::Warning, *location, &message));
        }
    }
    let is_known = |(metric, _): &(Name, Location)| WELL_KNOWN_METRICS.contains(&&**metric);
    if let Some((metric, location)) = rule.mentions.first()
        && found.is_empty()
        && !rule.mentions.iter().any(is_known)
    {
        let message = format!("no agent of GopherWatch sends `{metric}` by itself: fine if a service of yours does");
        found.push(warning(rule, Doubt::Note, *location, &message));
    }
    found
}

/// Whether its patterns leave it no instance, where that can be seen from the patterns alone.
fn looks_at_nothing(rule: &Rule) -> Option<String> {
    let is_empty = |globs: &Option<Globs>| globs.as_ref().is_some_and(|globs| globs.patterns.is_empty());
    for (field, globs) in [("services", &rule.services), ("instances", &rule.instances)] {
        if is_empty(globs) {
            return Some(format!(
                "{field}: the list is empty, so the rule looks at nothing: leave it out to look at all"
            ));
        }
    }
    let exclude = rule.exclude.as_ref()?;
    let all_gone = exclude.patterns.iter().any(|pattern| ["*", "**"].contains(&pattern.as_str()));
    // A name without wildcards is a service; of two wildcards only the same one is seen to hold the other.
    let is_gone = |pattern: &String| {
        exclude.patterns.contains(pattern)
            || !pattern.contains(['*', '?', '[', ']', '{', '}', '\\']) && exclude.set.is_match(pattern)
    };
    let gone = all_gone || rule.services.as_ref().is_some_and(|services| services.patterns.iter().all(is_gone));
    gone.then(|| "exclude: it names every service of the rule, which so looks at nothing".to_owned())
}

fn never_or_always(rule: &Rule, when: &Condition) -> Option<String> {
    if let Some(why) = why_never(when, true) {
        return Some(format!("when: no report makes it true, so the rule never fires: {why}"));
    }
    if let Some(why) = why_never(when, false) {
        let end = if rule.clear.is_none() { ", and the alert never resolves" } else { "" };
        return Some(format!("when: every report that decides it makes it true, so the rule always fires{end}: {why}"));
    }
    never_in(when).map(|part| format!("when: {part}"))
}

fn never_clear(rule: &Rule, clear: &Condition) -> Option<String> {
    if let Some(why) = why_never(clear, true) {
        return Some(format!("clear: no report makes it true, so the alert never resolves: {why}"));
    }
    if rule.when.condition().is_some_and(|when| is_within(clear, when)) {
        return Some(
            "clear: it is true only where `when` is true too, and there the alert goes on: it never resolves"
                .to_owned(),
        );
    }
    if let Some(Condition::Compare(when)) = rule.when.condition()
        && let Condition::Compare(clear) = clear
        && same_direction(when, clear)
    {
        let sign = clear.comparator.sign();
        return Some(format!(
            "clear: it looks the same way as `when`: an alert whose value moves past both never resolves; did you mean \
             the opposite of `{sign}`?"
        ));
    }
    never_in(clear).map(|part| format!("clear: {part}"))
}

/// Whether both hold one term against a number, and both look above it or both below it.
fn same_direction(when: &Comparison, clear: &Comparison) -> bool {
    let direction = |comparison: &Comparison| {
        let up = match comparison.comparator {
            Comparator::Above | Comparator::AtLeast => true,
            Comparator::Below | Comparator::AtMost => false,
            Comparator::Equal | Comparator::Unequal => return None,
        };
        let number_first = comparison.left.first_metric().is_none();
        comparison.threshold().map(|_| if number_first { !up } else { up })
    };
    when.sides().0 == clear.sides().0 && direction(when).is_some() && direction(when) == direction(clear)
}

/// A comparison that says nothing in a condition that does.
fn never_in(condition: &Condition) -> Option<String> {
    let never = |comparison| why_comparison_never(comparison).map(|why| (comparison, why));
    let (comparison, why) = condition.comparisons().into_iter().find_map(never)?;
    Some(format!("its part `{comparison}` is never true: {why}"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::Timestamp,
        rules::{Facts, RuleSet, Truth, parse_file},
    };

    fn found(text: &str) -> Vec<Warning> {
        let rules = parse_file(text, None).unwrap_or_else(|err| panic!("{err}\n{text}")).rules.expect("with rules");
        warnings(&RuleSet::new(rules, "test".to_owned()).rules)
    }

    /// What is told of a rule of these fields, `; ` between them.
    fn check(fields: &str, expected: &Expect) {
        let text = format!("[[rules]]\nname = \"r\"\n{}", fields.replace("; ", "\n"));
        let told: Vec<String> = found(&text).iter().map(ToString::to_string).collect();
        expected.assert_eq(&told.join("\n"));
    }

    #[test]
    fn a_sensible_rule_is_let_be() {
        for fields in [
            r#"when = "cpu_percent > 90"; clear = "cpu_percent < 80""#,
            r#"when = "cpu_percent > 90"; clear = "cpu_percent < 95""#,
            r#"when = "cpu_percent >= 100 or memory_percent > 0""#,
            r#"when = "error_rate / request_rate > 0.05 and request_rate > 1""#,
            r#"when = "not (cpu_percent <= 90)"; clear = "cpu_percent < 95 and load_1m > 0""#,
            r#"when = "delta(memory_percent, 1h) < -50""#,
            r#"when = "load_1m == 1 or load_1m == 2""#,
            r#"when = "count(cpu_percent, 5m) < 2""#,
            r#"when = "cpu_percent > 90"; services = ["a-*", "b"]; exclude = ["a-canary", "a-*-x"]"#,
            r#"when = "cpu_percent > 90"; services = ["web", "db-*"]; exclude = ["w", "db-?"]"#,
            r#"when = "sum(x, 5m) < 0 and cpu_percent < 50""#,
            r#"when = "cpu_percent / (load_1m - load_5m) < -5""#,
            r#"when = "absent()""#,
            r#"when = "absent(cpu_percent, 1m)""#,
        ] {
            check(fields, &expect![[""]]);
        }
    }

    #[test]
    fn a_metric_that_is_all_but_well_known_is_told_once_and_where() {
        check(
            r#"when = "cpu_percnt > 90 or cpu_percnt < 1 or cpu_percent > 3"; clear = "memory_precent < 5""#,
            &expect![[r#"
                line 3, column 9: rule `r`: no agent sends `cpu_percnt` by itself: did you mean `cpu_percent`?
                line 4, column 10: rule `r`: no agent sends `memory_precent` by itself: did you mean `memory_percent`?"#]],
        );
        check(
            r#"when = "absent(request_rates, 1m)""#,
            &expect![
                "line 3, column 16: rule `r`: no agent sends `request_rates` by itself: did you mean `request_rate`?"
            ],
        );
    }

    #[test]
    fn a_rule_that_names_only_metrics_of_ones_own_gets_a_note() {
        check(
            r#"when = "queue_length > 90""#,
            &expect![
                "line 3, column 9: rule `r`: no agent of GopherWatch sends `queue_length` by itself: fine if a service of yours does"
            ],
        );
        check(r#"when = "queue_length > 90 and cpu_percent > 1""#, &expect![[""]]);
    }

    #[test]
    fn what_can_never_be_true_never_fires() {
        check(
            r#"when = "cpu_percent > 120""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `cpu_percent` lies between 0 and 100"
            ],
        );
        check(
            r#"when = "cpu_percent > 100""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `cpu_percent` lies between 0 and 100"
            ],
        );
        check(
            r#"when = "-1 >= request_count""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `request_count` is never below 0"
            ],
        );
        check(
            r#"when = "x > 5 and x < 3""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `x > 5` and `x < 3` are never true together"#]],
        );
        check(
            r#"when = "x > 5 and y > 1 and x <= 5""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `x > 5` and `x <= 5` are never true together"#]],
        );
        check(
            r#"when = "x == 5 and not (x == 5)""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `x == 5` and `x != 5` are never true together"#]],
        );
        check(
            r#"when = "x > y and y > 7 and x < 6""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `x > y` and `y > 7` and `x < 6` are never true together"#]],
        );
        check(
            r#"when = "x > x""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: both sides are the same"#]],
        );
        check(
            r#"when = "avg(x, 5m) < avg(x, 5m)""#,
            &expect![[r#"
            line 3, column 13: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: both sides are the same"#]],
        );
        check(
            r#"when = "x / 0 > 1""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `x / 0` never has a value: it divides by 0"#]],
        );
        check(
            r#"when = "x > 1 / (3 - 3)""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `1 / (3 - 3)` never has a value: it divides by 0"#]],
        );
        check(
            r#"when = "x > 1e308 * 10""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `1e308 * 10` never has a value: it comes to no finite number"#]],
        );
        check(
            r#"when = "error_rate / request_rate < 0""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `error_rate / request_rate` is never below 0"
            ],
        );
        check(
            r#"when = "stddev(x, 5m) < 0 or rate(x, 5m) < 0""#,
            &expect![[r#"
            line 3, column 16: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `stddev(x, 5m)` is never below 0"#]],
        );
        check(
            r#"when = "count(x, 5m) < 1""#,
            &expect![[r#"
            line 3, column 15: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `count(x, 5m)` is never below 1"#]],
        );
        check(
            r#"when = "delta(cpu_percent, 5m) > 100""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `delta(cpu_percent, 5m)` lies between -100 and 100"
            ],
        );
        check(
            r#"when = "cpu_percent + memory_percent > 200""#,
            &expect![
                "line 3, column 8: rule `r`: when: no report makes it true, so the rule never fires: `cpu_percent + memory_percent` lies between 0 and 200"
            ],
        );
    }

    /// What is said of a rule that never fires, of metrics that are well known.
    fn why_never_fires(when: &str) -> String {
        let told = found(&format!("[[rules]]\nname = \"r\"\nwhen = \"{when}\""));
        let why = |warning: &Warning| {
            let (_, why) = warning.message.split_once("so the rule never fires: ")?;
            Some(why.to_owned())
        };
        told.iter().find_map(why).unwrap_or_default()
    }

    #[test]
    fn what_arithmetic_can_come_to_is_told() {
        for (when, expected) in [
            ("-cpu_percent > 0", expect!["`-cpu_percent` lies between -100 and 0"]),
            ("-load_1m > 0", expect!["`-load_1m` is never above 0"]),
            ("-count(load_1m, 5m) > -1", expect!["`-count(load_1m, 5m)` is never above -1"]),
            ("sum(cpu_percent, 5m) < 0", expect!["`sum(cpu_percent, 5m)` is never below 0"]),
            ("cpu_percent * 0 > 1", expect!["`cpu_percent * 0` is always 0"]),
            ("load_1m * 0 != 0", expect!["`load_1m * 0` is always 0"]),
            ("5 / cpu_percent < 0.05", expect!["`5 / cpu_percent` is never below 0.05"]),
            ("5 / -cpu_percent > -0.05", expect!["`5 / -cpu_percent` is never above -0.05"]),
            ("cpu_percent / -load_1m > 0", expect!["`cpu_percent / -load_1m` is never above 0"]),
            (
                "cpu_percent / count(load_1m, 5m) > 100",
                expect!["`cpu_percent / count(load_1m, 5m)` lies between 0 and 100"],
            ),
        ] {
            expected.assert_eq(&why_never_fires(when));
        }
    }

    #[test]
    fn a_side_without_a_value_is_told_and_why_it_has_none() {
        for (when, expected) in [
            ("load_1m / 0 != 1", expect!["`load_1m / 0` never has a value: it divides by 0"]),
            ("x / 0 + y > 1", expect!["`x / 0 + y` never has a value: it divides by 0"]),
            ("y + x / 0 > 1", expect!["`y + x / 0` never has a value: it divides by 0"]),
            ("load_1m > 1e308 / 0.1", expect!["`1e308 / 0.1` never has a value: it comes to no finite number"]),
            ("load_1m > 0 + 1e308 * 10", expect!["`0 + 1e308 * 10` never has a value: it comes to no finite number"]),
        ] {
            expected.assert_eq(&why_never_fires(when));
        }
    }

    #[test]
    fn a_bound_is_handed_on_from_one_metric_to_the_next() {
        for (when, excluded) in [
            ("load_1m > 5 and load_1m >= 5 and load_1m <= load_5m and load_5m <= 5", true),
            ("load_1m < 5 and load_1m <= 5 and load_1m >= load_5m and load_5m >= 5", true),
            ("load_1m >= 5 and load_1m > 4 and load_1m <= load_5m and load_5m < 5", true),
            ("load_1m <= 5 and load_1m < 6 and load_1m >= load_5m and load_5m > 5", true),
            ("load_1m > 5 and load_1m <= load_5m and load_5m <= 5", true),
            ("load_1m < 5 and load_1m >= load_5m and load_5m >= 5", true),
            ("load_1m > 5 and load_1m >= 4 and load_1m <= load_5m and load_5m <= 6", false),
            ("load_1m >= 5 and load_1m > 4 and load_1m <= load_5m and load_5m <= 5", false),
            ("load_1m <= 5 and load_1m < 6 and load_1m >= load_5m and load_5m >= 5", false),
        ] {
            assert_eq!(!why_never_fires(when).is_empty(), excluded, "{when}");
        }
    }

    #[test]
    fn what_is_always_true_always_fires() {
        check(
            r#"when = "cpu_percent >= 0""#,
            &expect![
                "line 3, column 8: rule `r`: when: every report that decides it makes it true, so the rule always fires, and the alert never resolves: `cpu_percent` lies between 0 and 100"
            ],
        );
        check(
            r#"when = "cpu_percent >= 0"; clear = "load_1m < 1""#,
            &expect![
                "line 3, column 8: rule `r`: when: every report that decides it makes it true, so the rule always fires: `cpu_percent` lies between 0 and 100"
            ],
        );
        check(
            r#"when = "x > 3 or x < 5""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 3, column 8: rule `r`: when: every report that decides it makes it true, so the rule always fires, and the alert never resolves: `x <= 3` and `x >= 5` are never true together"#]],
        );
        check(
            r#"when = "not (memory_percent > 100)""#,
            &expect![
                "line 3, column 8: rule `r`: when: every report that decides it makes it true, so the rule always fires, and the alert never resolves: `memory_percent` lies between 0 and 100"
            ],
        );
    }

    #[test]
    fn a_part_that_is_never_true_is_told_although_the_rest_works() {
        check(
            r#"when = "cpu_percent > 95 or memory_percent > 800""#,
            &expect![
                "line 3, column 8: rule `r`: when: its part `memory_percent > 800` is never true: `memory_percent` lies between 0 and 100"
            ],
        );
    }

    #[test]
    fn a_clear_that_never_comes_is_told_where_it_stands() {
        check(
            r#"when = "cpu_percent > 90"; clear = "cpu_percent < 0""#,
            &expect![
                "line 4, column 9: rule `r`: clear: no report makes it true, so the alert never resolves: `cpu_percent` lies between 0 and 100"
            ],
        );
        check(
            r#"when = "cpu_percent > 90"; clear = "cpu_percent > 95""#,
            &expect![
                "line 4, column 9: rule `r`: clear: it is true only where `when` is true too, and there the alert goes on: it never resolves"
            ],
        );
        check(
            r#"when = "x > 90 or y > 3"; clear = "x > 95 and y > 1""#,
            &expect![[r#"
            line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
            line 4, column 9: rule `r`: clear: it is true only where `when` is true too, and there the alert goes on: it never resolves"#]],
        );
        // A report may lack x: then `when` is unknown, and clear does its work.
        check(
            r#"when = "x > 90 or y > 3"; clear = "y > 5""#,
            &expect![
                "line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does"
            ],
        );
        check(
            r#"when = "x / y > 1"; clear = "x / y > 2""#,
            &expect![[r#"
                line 3, column 9: rule `r`: no agent of GopherWatch sends `x` by itself: fine if a service of yours does
                line 4, column 9: rule `r`: clear: it looks the same way as `when`: an alert whose value moves past both never resolves; did you mean the opposite of `>`?"#]],
        );
    }

    #[test]
    fn a_clear_that_looks_the_same_way_as_when_is_told() {
        let inverted = |clear: &str| {
            let rule = format!("[[rules]]\nname = \"r\"\nwhen = \"cpu_percent > 90\"\nclear = \"{clear}\"");
            found(&rule).iter().any(|warning| warning.message.contains("looks the same way"))
        };
        assert!(inverted("cpu_percent > 80") && inverted("cpu_percent >= 80") && inverted("80 < cpu_percent"));
        assert!(!inverted("cpu_percent < 80") && !inverted("80 > cpu_percent") && !inverted("load_1m > 2"));
    }

    #[test]
    fn a_rule_whose_patterns_leave_no_service_is_told() {
        check(
            r#"when = "cpu_percent > 1"; exclude = ["*"]"#,
            &expect![
                "line 3, column 8: rule `r`: exclude: it names every service of the rule, which so looks at nothing"
            ],
        );
        check(
            r#"when = "cpu_percent > 1"; services = ["web", "db-*"]; exclude = ["w*", "db-*"]"#,
            &expect![
                "line 3, column 8: rule `r`: exclude: it names every service of the rule, which so looks at nothing"
            ],
        );
        check(
            r#"when = "cpu_percent > 1"; services = []"#,
            &expect![
                "line 3, column 8: rule `r`: services: the list is empty, so the rule looks at nothing: leave it out to look at all"
            ],
        );
        check(
            r#"when = "cpu_percent > 1"; instances = []"#,
            &expect![
                "line 3, column 8: rule `r`: instances: the list is empty, so the rule looks at nothing: leave it out to look at all"
            ],
        );
    }

    #[test]
    fn a_condition_with_too_many_ways_to_come_true_is_let_be() {
        let pair = |n| format!("(a{n} > 1 or b{n} > 1)");
        let all: Vec<String> = (0..20).map(pair).collect();
        check(&format!("when = \"cpu_percent > 1 and {} and cpu_percent < 0.5\"", all.join(" and ")), &expect![[""]]);
        // Two choices of n each are n² ways.
        let choice = |n: u32| (1..=n).map(|n| format!("load_1m == {n}")).collect::<Vec<_>>().join(" or ");
        let is_told = |n| {
            let when = format!("cpu_percent > 1 and cpu_percent < 0.5 and ({0}) and ({0})", choice(n));
            !why_never_fires(&when).is_empty()
        };
        assert!(is_told(16) && !is_told(17));
    }

    fn term() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (-3..4_i32).prop_map(|n| n.to_string()),
            Just("1e308".to_owned()),
            proptest::sample::select(vec!["cpu_percent", "load_1m", "x", "y"]).prop_map(str::to_owned),
            proptest::sample::select(vec!["avg", "sum", "count", "stddev", "delta", "rate"])
                .prop_map(|function| format!("{function}(x, 5m)")),
        ];
        leaf.prop_recursive(2, 6, 2, |inner| {
            (inner.clone(), proptest::sample::select(vec!["+", "-", "*", "/"]), inner)
                .prop_map(|(left, sign, right)| format!("({left} {sign} {right})"))
        })
    }

    fn condition() -> impl Strategy<Value = String> {
        let sign = proptest::sample::select(vec![">", ">=", "<", "<=", "==", "!="]);
        // `0 * z` so that one side names a metric.
        let comparison = (term(), sign, term()).prop_map(|(l, sign, r)| {
            if (l.clone() + &r).contains(|c: char| "xyp_".contains(c)) {
                format!("{l} {sign} {r}")
            } else {
                format!("x {sign} {r}")
            }
        });
        comparison.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|c| format!("not ({c})")),
                (inner.clone(), proptest::sample::select(vec!["and", "or"]), inner)
                    .prop_map(|(l, word, r)| format!("({l}) {word} ({r})")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        /// It may overlook what can never be; it must not claim it of what can.
        #[test]
        fn what_is_said_never_to_be_never_is(
            when in condition(),
            cpu in prop_oneof![Just(0.0), Just(100.0), 0.0..100.0_f64],
            load in prop_oneof![Just(0.0), Just(1e308), 0.0..4.0_f64],
            x in prop_oneof![(-3..4_i32).prop_map(f64::from), Just(1e308), Just(-1e308)],
            y in proptest::option::of(prop_oneof![(-3..4_i32).prop_map(f64::from), Just(f64::MIN_POSITIVE)]),
        ) {
            let text = format!("[[rules]]\nname = \"r\"\nwhen = \"{when}\"");
            let rules = parse_file(&text, None).expect("valid").rules.expect("with rules");
            let condition = rules[0].when.condition().expect("on reports");
            let mut metrics: Vec<(Name, f64)> =
                vec![("cpu_percent".into(), cpu), ("load_1m".into(), load), ("x".into(), x)];
            metrics.extend(y.map(|y| ("y".into(), y)));
            let metrics = crate::model::Row::new(&metrics);
            let facts = Facts { metrics: metrics.readings(), series: &[], taken: false, generation: 0, now: Timestamp::default() };
            let truth = condition.ask(&facts);
            prop_assert!(why_never(condition, true).is_none() || truth != Truth::True, "{when}");
            prop_assert!(why_never(condition, false).is_none() || truth != Truth::False, "{when}");
        }
    }
}
