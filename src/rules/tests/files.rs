//! Rule files: what they may say, and what is told of those that cannot be used.

use std::time::Duration;

use expect_test::expect;

use super::play::{rule, rules};
use crate::{
    model::Severity,
    rules::{Record, parse_file},
};

fn refusal(text: &str) -> String {
    parse_file(text, None).expect_err("not a valid file").to_string()
}

fn refused_rule(fields: &str) -> String {
    refusal(&format!("[[rules]]\nname = \"rule\"\n{}", fields.replace("; ", "\n")))
}

#[test]
fn a_condition_that_cannot_be_read_is_told_where_and_what_was_expected() {
    let told = |when: &str| refused_rule(&format!("when = \"{when}\""));
    expect!["line 3, column 21: when: expected one of > >= < <= == !=, found `90`"].assert_eq(&told("cpu_percent 90"));
    expect![[r#"line 3, column 22: when: expected a metric's name or a number, found the end"#]]
        .assert_eq(&told("cpu_percent >"));
    expect![[r#"line 3, column 9: when: expected a metric's name or a number, found the end"#]].assert_eq(&told(""));
    expect!["line 3, column 31: when: expected one of > >= < <= == !=, found the end"]
        .assert_eq(&told("cpu_percent > 90 and x"));
    expect![[r#"line 3, column 9: when: compares two numbers: name a metric on one side"#]].assert_eq(&told("1 > 2"));
    expect!["line 3, column 16: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `30`"]
        .assert_eq(&told("absent(30)"));
    for bad in
        ["nan > 1", "cpu_percent > inf", "`a b` > 1", "`a > 1", "and > 1", "cpu_percent > 90 90", "cpu_percent => 9"]
    {
        if bad.starts_with("nan") || bad.contains("inf") {
            // These are names of metrics, which is what they look like.
            assert!(parse_file(&format!("[[rules]]\nname=\"r\"\nwhen = \"{bad}\""), None).is_ok(), "{bad}");
        } else {
            assert!(told(bad).contains("when:"), "{bad}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_line_column_and_field() {
    expect![[r#"line 4, column 12: severity: use "info", "warning" or "critical""#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; severity = "page""#));
    expect![[r#"line 4, column 10: record: use "episode" or "every""#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; record = "all""#));
    expect![[r#"line 4, column 11: summary: unknown placeholder `{host}`: use one of service, instance, metric, value, threshold, rule, severity"#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; summary = "on {host}""#));
    expect!["line 4, column 7: for: `10` is not a duration: write a whole number and ms, s, m, h or d, such as 30s"]
        .assert_eq(&refused_rule(r#"when = "a > 1"; for = "10""#));
    expect![[r#"line 4, column 13: services: unclosed character class; missing ']'"#]]
        .assert_eq(&refused_rule(r#"when = "a > 1"; services = ["[a"]"#));
    expect![[r#"line 2, column 8: name: use 1 to 128 of A-Z a-z 0-9 _ . -"#]]
        .assert_eq(&refusal("[[rules]]\nname = \"a b\"\nwhen = \"a > 1\""));
    expect![[r#"line 5, column 8: name: another rule is called `a`"#]]
        .assert_eq(&refusal("[[rules]]\nname = \"a\"\nwhen = \"a > 1\"\n[[rules]]\nname = \"a\"\nwhen = \"a > 1\""));
    assert!(refusal("[[rules]]\nname = \"a\"\n").contains("when: a rule needs one"));
    assert!(refusal("rules = 5").starts_with("line 1, column 9"));
    assert!(refusal("= 5").starts_with("line 1, column 1"));
}

#[test]
fn a_field_that_does_not_exist_is_told_with_the_one_it_is_near_to() {
    expect!["line 4, column 1: unknown field `sevrity`, expected one of `name`, `when`, `for`, `keep_firing_for`, `clear`, `repeat`, `severity`, `services`, `exclude`, `instances`, `record`, `labels`, `summary`, `runbook_url`, `receivers`: did you mean `severity`?"].assert_eq(&refused_rule(r#"when = "a > 1"; sevrity = "info""#));
    expect!["line 4, column 1: unknown field `owner`, expected one of `name`, `when`, `for`, `keep_firing_for`, `clear`, `repeat`, `severity`, `services`, `exclude`, `instances`, `record`, `labels`, `summary`, `runbook_url`, `receivers`"].assert_eq(&refused_rule(r#"when = "a > 1"; owner = "ops""#));
    expect!["line 2, column 1: unknown field `repaet`, expected one of `severity`, `for`, `keep_firing_for`, `repeat`, `record`, `runbook_url`, `receivers`: did you mean `repeat`?"].assert_eq(&refusal("[defaults]\nrepaet = \"1h\""));
    // What is wrong with a field that does exist.
    expect!["line 4, column 12: severity: invalid type: integer `5`, expected a string"]
        .assert_eq(&refused_rule(r#"when = "a > 1"; severity = 5"#));
}

#[test]
fn a_repeat_is_a_second_or_more() {
    let too_short = "repeat: use 1s or more, or leave it out to be told once";
    for repeat in ["0s", "999ms"] {
        let told = refused_rule(&format!("when = \"a > 1\"; repeat = \"{repeat}\""));
        assert_eq!(told, format!("line 4, column 10: {too_short}"), "{repeat}");
        assert_eq!(refusal(&format!("[defaults]\nrepeat = \"{repeat}\"")), format!("line 2, column 10: {too_short}"));
    }
    let repeat = |text: &str| rule(&format!("when = \"a > 1\"; repeat = \"{text}\"")).rules[0].repeat;
    assert_eq!(repeat("1s"), Some(Duration::from_secs(1)));
    assert_eq!(repeat("1001ms"), Some(Duration::from_millis(1_001)));
}

#[test]
fn what_a_rule_does_not_say_its_files_defaults_say() {
    let rules = rules(
        "[defaults]\nseverity = \"info\"\nfor = \"10s\"\nkeep_firing_for = \"20s\"\nrepeat = \"30s\"\nrecord = \"every\"\n\
         runbook_url = \"https://runbook\"\n[[rules]]\nname = \"a\"\nwhen = \"x > 1\"\n\
         [[rules]]\nname = \"b\"\nwhen = \"x > 1\"\nfor = \"0s\"\n[[rules]]\nname = \"c\"\nwhen = \"absent()\"",
    );
    let rule = &rules.rules[0];
    assert_eq!((rule.r#for, rule.keep_firing_for), (Duration::from_secs(10), Duration::from_secs(20)));
    assert_eq!((rule.repeat, rule.record), (Some(Duration::from_secs(30)), Record::Every));
    assert_eq!((rule.severity, rule.runbook_url.as_deref()), (Severity::Info, Some("https://runbook")));
    assert_eq!(rules.rules[1].r#for, Duration::ZERO, "at once, since it says so");
    assert_eq!(rules.rules[2].r#for, Duration::ZERO, "absent() says itself how long");
}

#[test]
fn no_rules_in_a_file_is_not_the_same_as_an_empty_list() {
    assert!(parse_file("", None).expect("valid").rules.is_none());
    assert!(parse_file("[defaults]\nseverity = \"info\"", None).expect("valid").rules.is_none());
    assert_eq!(parse_file("rules = []", None).expect("valid").rules.expect("a list").len(), 0);
}

#[test]
fn a_rules_own_severity_wins_over_the_default() {
    let rules = rules(
        "[defaults]\nseverity = \"info\"\n[[rules]]\nname = \"a\"\nwhen = \"x > 1\"\n\
         [[rules]]\nname = \"b\"\nwhen = \"x > 1\"\nseverity = \"warning\"",
    );
    let severities: Vec<_> = rules.rules.iter().map(|rule| rule.severity.as_str()).collect();
    assert_eq!(severities, ["info", "warning"]);
}
