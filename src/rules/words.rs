//! A rule in plain words, for whoever is woken by it: when it fires, when that ends, what it looks at.

use super::{
    Globs, Record, Rule,
    condition::{Comparator, Comparison, Condition, Operator, Term, When, Window},
    evaluate::MAX_GAP,
    window::Function,
};
use crate::units::show_duration;

/// What the rule does, a sentence or two an item.
pub fn words(rule: &Rule) -> Vec<String> {
    let mut told = Vec::new();
    match &rule.when {
        When::Report(when) => on_reports(rule, when, &mut told),
        When::Silent { after } => {
            told.push(match after {
                Some(after) => format!("Fires once an instance has been silent for {}.", show_duration(*after)),
                None => {
                    "Fires once an instance has been silent for 30s, or for three of its usual gaps between reports \
                         where that is longer."
                        .to_owned()
                }
            });
            told.push(
                "It counts instances that have sent three reports over at least 10s, and not those that said goodbye."
                    .to_owned(),
            );
            told.push(resolves(rule, "a report comes", "reports come"));
        }
        When::Lacking { metric, after } => {
            let after = show_duration(*after);
            told.push(format!(
                "Fires once reports have come without {metric} for {after}, from an instance that has sent it before."
            ));
            told.push(resolves(rule, &format!("a report has {metric}"), &format!("reports have {metric}")));
        }
    }
    told.push(scope(rule));
    if let Some(repeat) = rule.repeat {
        told.push(format!("While it fires it is told of again every {}.", show_duration(repeat)));
    }
    if rule.record == Record::Every {
        told.push("While it fires each further report that makes it true gets a row of its own.".to_owned());
    }
    match rule.receivers.as_deref() {
        None => {}
        Some([]) => told.push("Tells no receiver of it.".to_owned()),
        Some(names) => told.push(format!("Tells {}.", listed(names, "and"))),
    }
    if !rule.labels.is_empty() {
        let labels: Vec<String> = rule.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        told.push(format!("Labels: {}.", labels.join(", ")));
    }
    told.push(format!("Says: {}", rule.summary.text()));
    told.extend(rule.runbook_url.as_ref().map(|url| format!("What to do: {url}")));
    told
}

fn on_reports(rule: &Rule, when: &Condition, told: &mut Vec<String>) {
    let fires = condition(when, true);
    told.push(if rule.r#for.is_zero() {
        format!("Fires at the first report in which {fires}.")
    } else {
        let span = show_duration(rule.r#for);
        let gap = format!(", and so does a gap of more than {} between reports", show_duration(MAX_GAP));
        format!("Fires once {fires} for {span}: a report in which that is not so starts the {span} anew{gap}.")
    });
    let clear = rule.clear.as_ref().map_or_else(|| condition(when, false), |clear| condition(clear, true));
    told.push(if rule.keep_firing_for.is_zero() {
        format!("Resolves at the first report in which {clear}.")
    } else {
        format!("Resolves once {clear} for {}.", show_duration(rule.keep_firing_for))
    });
    if rule.clear.is_some() {
        told.push("Between the two it stays as it is.".to_owned());
    }
    told.extend(unknown(rule));
}

/// The end of a silence.
fn resolves(rule: &Rule, report: &str, reports: &str) -> String {
    if rule.keep_firing_for.is_zero() {
        format!("Resolves as soon as {report}.")
    } else {
        format!("Resolves once {reports} for {}.", show_duration(rule.keep_firing_for))
    }
}

/// What a report does that does not say enough.
fn unknown(rule: &Rule) -> Vec<String> {
    let conditions: Vec<&Condition> = rule.when.condition().into_iter().chain(&rule.clear).collect();
    let comparisons: Vec<&Comparison> = conditions.iter().flat_map(|condition| condition.comparisons()).collect();
    let mut parts = Parts::default();
    comparisons.iter().for_each(|comparison| {
        parts.collect(&comparison.left);
        parts.collect(&comparison.right);
    });
    let mut told = Vec::new();
    let one_asks = comparisons.len() == 1;
    match parts.metrics.as_slice() {
        [] => {}
        [metric] if one_asks || parts.windows.is_empty() => {
            told.push(format!("A report without {metric} changes nothing."));
        }
        metrics if one_asks => told.push(format!("A report without {} changes nothing.", listed(metrics, "or"))),
        metrics => told.push(format!(
            "Where a report lacks {}, the rest decides if it can; if it cannot, nothing changes.",
            listed(metrics, "or")
        )),
    }
    if let Some(window) = parts.windows.first() {
        let needs_two = parts.windows.iter().any(|window| window.function.needs_two());
        let from = if needs_two { "its second reading" } else { "its first reading" };
        told.push(format!("A window such as the last {} counts from {from} on, before it is full.", show(window)));
    }
    if parts.divides {
        told.push("Where it would have to divide by 0, nothing changes.".to_owned());
    }
    told
}

fn show(window: &Window) -> String {
    show_duration(window.span)
}

fn scope(rule: &Rule) -> String {
    let patterns = |globs: &Globs, word| listed(globs.patterns(), word);
    let mut text = match &rule.services {
        None => "Looks at every service".to_owned(),
        Some(services) => format!("Looks at the services {}", patterns(services, "and")),
    };
    if let Some(exclude) = &rule.exclude {
        text += &format!(" but {}", patterns(exclude, "and"));
    }
    if let Some(instances) = &rule.instances {
        text += &format!(", there at the instances {}", patterns(instances, "and"));
    }
    text + "."
}

/// `a, b and c`.
fn listed(items: &[impl AsRef<str>], word: &str) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

/// What terms are made of.
#[derive(Default)]
struct Parts<'a> {
    metrics: Vec<String>,
    windows: Vec<&'a Window>,
    divides: bool,
}

impl<'a> Parts<'a> {
    fn collect(&mut self, term: &'a Term) {
        match term {
            Term::Number(_) => {}
            Term::Metric(name) => {
                if !self.metrics.iter().any(|metric| **metric == **name) {
                    self.metrics.push(name.to_string());
                }
            }
            Term::Window(window) => self.windows.push(window),
            Term::Negated(term) => self.collect(term),
            Term::Arithmetic { first, rest } => {
                self.collect(first);
                for (operator, term) in rest {
                    self.divides |= *operator == Operator::Divide && !matches!(term, Term::Number(_));
                    self.collect(term);
                }
            }
        }
    }
}

/// The condition, or where it is not `wanted` its opposite. A `not` goes to the comparisons, which it turns round: that
/// is the same in three-valued logic too.
fn condition(what: &Condition, wanted: bool) -> String {
    let list = |conditions: &[Condition], word: &str| {
        let part = |part: &Condition| match part {
            Condition::All(_) | Condition::Any(_) => format!("({})", condition(part, wanted)),
            Condition::Not(inner) if !matches!(**inner, Condition::Compare(_)) => {
                format!("({})", condition(part, wanted))
            }
            Condition::Compare(_) | Condition::Not(_) => condition(part, wanted),
        };
        conditions.iter().map(part).collect::<Vec<_>>().join(word)
    };
    match (what, wanted) {
        (Condition::Compare(comparison), _) => compare(comparison, wanted),
        (Condition::Not(inner), _) => condition(inner, !wanted),
        (Condition::All(conditions), true) | (Condition::Any(conditions), false) => list(conditions, " and "),
        (Condition::All(conditions), false) | (Condition::Any(conditions), true) => list(conditions, " or "),
    }
}

fn compare(Comparison { left, comparator, right }: &Comparison, wanted: bool) -> String {
    let is = match if wanted { *comparator } else { comparator.opposite() } {
        Comparator::Above => "is above",
        Comparator::AtLeast => "is at least",
        Comparator::Below => "is below",
        Comparator::AtMost => "is at most",
        Comparator::Equal => "is exactly",
        Comparator::Unequal => "is not",
    };
    format!("{} {is} {}", value(left), value(right))
}

fn value(term: &Term) -> String {
    match term {
        Term::Number(_) | Term::Metric(_) => term.to_string(),
        Term::Window(window) => past(window),
        _ if !has_window(term) => term.to_string(),
        Term::Negated(term) => format!("-{}", operand(term)),
        Term::Arithmetic { first, rest } => rest
            .iter()
            .fold(operand(first), |text, (operator, term)| format!("{text} {} {}", operator.sign(), operand(term))),
    }
}

fn operand(term: &Term) -> String {
    match term {
        Term::Number(_) | Term::Metric(_) => term.to_string(),
        term => format!("({})", value(term)),
    }
}

fn has_window(term: &Term) -> bool {
    match term {
        Term::Number(_) | Term::Metric(_) => false,
        Term::Window(_) => true,
        Term::Negated(term) => has_window(term),
        Term::Arithmetic { first, rest } => has_window(first) || rest.iter().any(|(_, term)| has_window(term)),
    }
}

fn past(window: &Window) -> String {
    let (metric, span) = (Term::Metric(window.metric.clone()), show(window));
    match window.function {
        Function::Avg => format!("the average of {metric} over the last {span}"),
        Function::Min => format!("the lowest {metric} of the last {span}"),
        Function::Max => format!("the highest {metric} of the last {span}"),
        Function::Sum => format!("the sum of {metric} over the last {span}"),
        Function::Count => format!("the number of readings of {metric} in the last {span}"),
        Function::Stddev => format!("the standard deviation of {metric} over the last {span}"),
        Function::Rate => format!("the growth per second of the counter {metric} over the last {span}"),
        Function::Increase => format!("the growth of the counter {metric} over the last {span}"),
        Function::Delta => format!("the change of {metric} over the last {span}"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{model::Timestamp, rules::parse_file};

    /// What is said of a rule of these fields, `; ` between them.
    fn check(fields: &str, expected: &Expect) {
        let text = format!("[[rules]]\nname = \"r\"\nsummary = \"s\"\n{}", fields.replace("; ", "\n"));
        let rules = parse_file(&text, None).unwrap_or_else(|err| panic!("{err}\n{text}")).rules.expect("with rules");
        let told = words(&rules[0]);
        let told: Vec<_> =
            told.iter().filter(|line| *line != "Looks at every service." && *line != "Says: s").collect();
        expected.assert_eq(&told.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_plain_threshold() {
        check(
            r#"when = "cpu_percent > 90""#,
            &expect![[r#"
            Fires at the first report in which cpu_percent is above 90.
            Resolves at the first report in which cpu_percent is at most 90.
            A report without cpu_percent changes nothing."#]],
        );
        check(
            r#"when = "10 >= `disk/sda-used`""#,
            &expect![[r#"
            Fires at the first report in which 10 is at least `disk/sda-used`.
            Resolves at the first report in which 10 is below `disk/sda-used`.
            A report without disk/sda-used changes nothing."#]],
        );
    }

    #[test]
    fn waiting_holding_on_and_clearing_elsewhere() {
        check(
            r#"when = "cpu_percent > 90"; for = "5m"; keep_firing_for = "30s"; clear = "cpu_percent < 80""#,
            &expect![[r#"
                Fires once cpu_percent is above 90 for 5m: a report in which that is not so starts the 5m anew, and so does a gap of more than 5m between reports.
                Resolves once cpu_percent is below 80 for 30s.
                Between the two it stays as it is.
                A report without cpu_percent changes nothing."#]],
        );
        check(
            r#"when = "cpu_percent > 90"; for = "10s""#,
            &expect![[r#"
                Fires once cpu_percent is above 90 for 10s: a report in which that is not so starts the 10s anew, and so does a gap of more than 5m between reports.
                Resolves at the first report in which cpu_percent is at most 90.
                A report without cpu_percent changes nothing."#]],
        );
    }

    #[test]
    fn and_or_and_not() {
        check(
            r#"when = "a > 1 and b < 2 and c == 3""#,
            &expect![[r#"
            Fires at the first report in which a is above 1 and b is below 2 and c is exactly 3.
            Resolves at the first report in which a is at most 1 or b is at least 2 or c is not 3.
            Where a report lacks a, b or c, the rest decides if it can; if it cannot, nothing changes."#]],
        );
        check(
            r#"when = "a > 1 and (b < 2 or c != 3)""#,
            &expect![[r#"
            Fires at the first report in which a is above 1 and (b is below 2 or c is not 3).
            Resolves at the first report in which a is at most 1 or (b is at least 2 and c is exactly 3).
            Where a report lacks a, b or c, the rest decides if it can; if it cannot, nothing changes."#]],
        );
        check(
            r#"when = "not (a > 1 or not b < 2)""#,
            &expect![[r#"
            Fires at the first report in which a is at most 1 and b is below 2.
            Resolves at the first report in which a is above 1 or b is at least 2.
            Where a report lacks a or b, the rest decides if it can; if it cannot, nothing changes."#]],
        );
        check(
            r#"when = "a > 1 or not (b < 2 and a < 0)""#,
            &expect![[r#"
            Fires at the first report in which a is above 1 or (b is at least 2 or a is at least 0).
            Resolves at the first report in which a is at most 1 and (b is below 2 and a is below 0).
            Where a report lacks a or b, the rest decides if it can; if it cannot, nothing changes."#]],
        );
    }

    #[test]
    fn arithmetic_and_windows() {
        check(
            r#"when = "error_rate / request_rate > 0.05""#,
            &expect![[r#"
            Fires at the first report in which error_rate / request_rate is above 0.05.
            Resolves at the first report in which error_rate / request_rate is at most 0.05.
            A report without error_rate or request_rate changes nothing.
            Where it would have to divide by 0, nothing changes."#]],
        );
        check(
            r#"when = "memory_percent * 2 + 1 > load_1m""#,
            &expect![[r#"
            Fires at the first report in which memory_percent * 2 + 1 is above load_1m.
            Resolves at the first report in which memory_percent * 2 + 1 is at most load_1m.
            A report without memory_percent or load_1m changes nothing."#]],
        );
        check(
            r#"when = "avg(cpu_percent, 5m) > 90""#,
            &expect![[r#"
            Fires at the first report in which the average of cpu_percent over the last 5m is above 90.
            Resolves at the first report in which the average of cpu_percent over the last 5m is at most 90.
            A window such as the last 5m counts from its first reading on, before it is full."#]],
        );
        check(
            r#"when = "increase(error_count, 5m) / increase(request_count, 5m) > 0.05""#,
            &expect![[r#"
            Fires at the first report in which (the growth of the counter error_count over the last 5m) / (the growth of the counter request_count over the last 5m) is above 0.05.
            Resolves at the first report in which (the growth of the counter error_count over the last 5m) / (the growth of the counter request_count over the last 5m) is at most 0.05.
            A window such as the last 5m counts from its second reading on, before it is full.
            Where it would have to divide by 0, nothing changes."#]],
        );
        check(
            r#"when = "load_15m > 3 * avg(load_15m, 24h) and load_15m > 4""#,
            &expect![[r#"
            Fires at the first report in which load_15m is above 3 * (the average of load_15m over the last 1d) and load_15m is above 4.
            Resolves at the first report in which load_15m is at most 3 * (the average of load_15m over the last 1d) or load_15m is at most 4.
            Where a report lacks load_15m, the rest decides if it can; if it cannot, nothing changes.
            A window such as the last 1d counts from its first reading on, before it is full."#]],
        );
        check(
            r#"when = "-min(a, 1m) < 1 or max(b, 2m) > sum(c, 3m)""#,
            &expect![[r#"
            Fires at the first report in which -(the lowest a of the last 1m) is below 1 or the highest b of the last 2m is above the sum of c over the last 3m.
            Resolves at the first report in which -(the lowest a of the last 1m) is at least 1 and the highest b of the last 2m is at most the sum of c over the last 3m.
            A window such as the last 1m counts from its first reading on, before it is full."#]],
        );
        check(
            r#"when = "count(a, 1m) < 3 and stddev(a, 1h) > 2""#,
            &expect![[r#"
            Fires at the first report in which the number of readings of a in the last 1m is below 3 and the standard deviation of a over the last 1h is above 2.
            Resolves at the first report in which the number of readings of a in the last 1m is at least 3 or the standard deviation of a over the last 1h is at most 2.
            A window such as the last 1m counts from its first reading on, before it is full."#]],
        );
        check(
            r#"when = "rate(a, 1m) > 3 or delta(a, 1h) < -2""#,
            &expect![[r#"
            Fires at the first report in which the growth per second of the counter a over the last 1m is above 3 or the change of a over the last 1h is below -2.
            Resolves at the first report in which the growth per second of the counter a over the last 1m is at most 3 and the change of a over the last 1h is at least -2.
            A window such as the last 1m counts from its second reading on, before it is full."#]],
        );
    }

    #[test]
    fn absent_in_its_three_forms() {
        check(
            r#"when = "absent()""#,
            &expect![[r#"
            Fires once an instance has been silent for 30s, or for three of its usual gaps between reports where that is longer.
            It counts instances that have sent three reports over at least 10s, and not those that said goodbye.
            Resolves as soon as a report comes."#]],
        );
        check(
            r#"when = "absent(2m)"; keep_firing_for = "30s""#,
            &expect![[r#"
            Fires once an instance has been silent for 2m.
            It counts instances that have sent three reports over at least 10s, and not those that said goodbye.
            Resolves once reports come for 30s."#]],
        );
        check(
            r#"when = "absent(cpu_percent, 90s)""#,
            &expect![[r#"
            Fires once reports have come without cpu_percent for 90s, from an instance that has sent it before.
            Resolves as soon as a report has cpu_percent."#]],
        );
    }

    #[test]
    fn every_other_field() {
        let fields = "[[rules]]\nname = \"r\"\nwhen = \"absent()\"\nservices = [\"a-*\", \"b\"]\nexclude = [\"a-x\"]\n\
                      instances = [\"1\"]\nrepeat = \"1h\"\nrecord = \"every\"\nlabels = { team = \"a\", tier = \"1\" }\n\
                      runbook_url = \"https://example.com\"";
        let rules = parse_file(fields, None).expect("valid").rules.expect("with rules");
        expect![[r#"
            Looks at the services a-* and b but a-x, there at the instances 1.
            While it fires it is told of again every 1h.
            While it fires each further report that makes it true gets a row of its own.
            Labels: team=a, tier=1.
            Says: {service}/{instance} has been silent for {value} s
            What to do: https://example.com"#]]
        .assert_eq(&words(&rules[0])[3..].join("\n"));
    }

    #[test]
    fn an_opposite_in_words_is_the_opposite_of_the_condition() {
        // The words turn comparisons round instead of saying "not": the language itself must agree.
        use crate::rules::{Facts, Truth, parse::parse_clear};
        let (one, _) = parse_clear("a > 1 or not (b < 2 and a < 0)").expect("valid");
        let (other, _) = parse_clear("a <= 1 and b < 2 and a < 0").expect("valid");
        for a in [Some(-1.0), Some(0.5), Some(2.0), None] {
            for b in [Some(1.0), Some(3.0), None] {
                let reading = |name: &str, value: Option<f64>| value.map(|value| (name.into(), value));
                let metrics: Vec<_> = reading("a", a).into_iter().chain(reading("b", b)).collect();
                let metrics = crate::model::Row::new(&metrics);
                let facts = Facts {
                    metrics: metrics.readings(),
                    series: &[],
                    taken: false,
                    generation: 0,
                    now: Timestamp::default(),
                };
                let opposite: Truth = one.ask(&facts).negated();
                assert_eq!(opposite, other.ask(&facts), "{a:?} {b:?}");
            }
        }
    }
}
