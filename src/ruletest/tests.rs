//! What files of tests may say, what is told of those that cannot be used, and how a failed test reads.

use expect_test::{Expect, expect};

use super::*;
use crate::rules::parse_file;

const RULES: &str = r#"
[[rules]]
name = "hot"
when = "cpu_percent > 90"
for = "10s"
record = "every"
repeat = "1m"

[[rules]]
name = "silent"
when = "absent()"
severity = "warning"
services = ["w*"]
"#;

fn rules() -> RuleSet {
    RuleSet::new(parse_file(RULES, None).expect("valid").rules.expect("with rules"), "rules.toml".to_owned())
}

/// Plays one test of these fields, `; ` between them; what was not as expected.
fn check(fields: &str, expected: &Expect) {
    let text = format!("[[tests]]\nname = \"t\"\n{}", fields.replace("; ", "\n"));
    let file = parse_tests(&text).unwrap_or_else(|err| panic!("{err}\n{text}"));
    let rules = rules();
    file.check_names(&rules).unwrap_or_else(|err| panic!("{err}\n{text}"));
    expected.assert_eq(&run(&rules, &file.tests[0]).failures.join("\n"));
}

/// What is told of a file that cannot be used.
fn refused(text: &str) -> String {
    parse_tests(text).and_then(|file| file.check_names(&rules())).expect_err("not a valid file").to_string()
}

fn refused_test(fields: &str) -> String {
    refused(&format!("[[tests]]\nname = \"t\"\n{}", fields.replace("; ", "\n")))
}

#[test]
fn every_kind_of_event_is_seen() {
    check(
        r#"service = "w"; interval = "10s"; series = { cpu_percent = "95x2 50 95x1 _ 95 50" }; only = ["hot"]; expect = [
            { at = "10s", rule = "hot", event = "raise", metric = "cpu_percent", value = 95, severity = "critical" },
            { at = "20s", rule = "hot", event = "record" },
            { at = "30s", rule = "hot", event = "resolve", value = 50, reason = "cleared" },
            { at = "50s", rule = "hot", event = "raise", summary = "cpu_percent of w/default is 95 (cpu_percent > 90)" },
            { at = "70s", rule = "hot", event = "record" },
            { at = "80s", rule = "hot", event = "resolve" },
        ]"#,
        &expect![[""]],
    );
    check(
        r#"service = "w"; interval = "10s"; series = { cpu_percent = "95x2" }; until = "2m"; expect = [
            { at = "10s", rule = "hot", event = "raise" },
            { at = "20s", rule = "hot", event = "record" },
            { at = "50s", rule = "silent", event = "raise", metric = "absent", value = 30 },
            { at = "70s", rule = "hot", event = "repeat" },
        ]"#,
        &expect![""],
    );
}

#[test]
fn who_left_is_forgotten_after_ten_minutes_and_comes_back_as_new() {
    check(
        r#"service = "w"; interval = "10s"; series = { cpu_percent = "95x2" }; timeline = [
            { at = "30s", cpu_percent = 95, leaving = true },
            { at = "20m", cpu_percent = 95 },
            { at = "1210s", metrics = { cpu_percent = 95, "disk/sda" = 3 } },
        ]; only = ["hot", "silent"]; expect = []"#,
        &expect![[r#"
              - was expected and did not happen, + happened and was not expected:
                + { at = "10s", rule = "hot", event = "raise", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "20s", rule = "hot", event = "record", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "30s", rule = "hot", event = "record", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "70s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "130s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "190s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "250s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "310s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "370s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "430s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "490s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "550s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "610s", rule = "hot", event = "repeat", metric = "cpu_percent", value = 95, severity = "critical" }
                + { at = "630s", rule = "hot", event = "resolve", value = 95, reason = "left" }
                + { at = "1210s", rule = "hot", event = "raise", metric = "cpu_percent", value = 95, severity = "critical" }"#]],
    );
}

#[test]
fn who_is_silent_for_a_day_is_forgotten() {
    check(
        r#"service = "w"; interval = "10s"; series = { cpu_percent = "50x3" }; until = "25h"; expect = []"#,
        &expect![[r#"
              - was expected and did not happen, + happened and was not expected:
                + { at = "1m", rule = "silent", event = "raise", metric = "absent", value = 30, severity = "warning" }
                + { at = "86430s", rule = "silent", event = "resolve", value = 30, reason = "forgotten" }"#]],
    );
}

#[test]
fn a_failed_test_shows_what_was_expected_beside_what_happened() {
    check(
        r#"service = "db"; interval = "10s"; series = { cpu_percent = "95x2 50" }; expect = [
            { at = "0s", rule = "hot", event = "raise" },
            { at = "20s", rule = "hot", event = "record", value = 96 },
            { at = "30s", rule = "hot", event = "resolve", reason = "left" },
            { at = "60s", rule = "silent", event = "raise" },
        ]; firing = [{ at = "15s", rules = [] }, { at = "35s", rules = ["hot"] }]"#,
        &expect![[r#"
              - was expected and did not happen, + happened and was not expected:
                - { at = "0s", rule = "hot", event = "raise" }
                + { at = "10s", rule = "hot", event = "raise", metric = "cpu_percent", value = 95, severity = "critical" }
                - { at = "20s", rule = "hot", event = "record", value = 96 }
                + { at = "20s", rule = "hot", event = "record", metric = "cpu_percent", value = 95, severity = "critical" }
                - { at = "30s", rule = "hot", event = "resolve", reason = "left" }
                + { at = "30s", rule = "hot", event = "resolve", value = 50, reason = "cleared" }
                - { at = "1m", rule = "silent", event = "raise" }
              rule `silent` does not look at db/default, by its `services`
              at 15s there fire hot; expected no rules
              at 35s there fire no rules; expected hot"#]],
    );
}

#[test]
fn a_moment_between_two_seconds_is_looked_at_too() {
    check(
        r#"timeline = [{ at = "500ms", cpu_percent = 95 }, { at = "10500ms", cpu_percent = 95 }]; only = ["hot"]; expect = [{ at = "10500ms", rule = "hot", event = "raise" }]; firing = [{ at = "10499ms", rules = [] }, { at = "10500ms", rules = ["hot"] }, { at = "11s", rules = ["hot"] }]"#,
        &expect![[""]],
    );
}

#[test]
fn a_file_of_tests_that_cannot_be_used_is_told_line_column_and_field() {
    let all = [
        refused("rules = \"x\""),
        refused("[[tests]]\nexpect = []"),
        refused("[[tests]]\nname = \"t\""),
        refused_test("expect = []; intervall = \"1s\""),
        refused_test("expect = []; series = { a = \"1\" }"),
        refused_test("expect = []; series = { a = \"1 x\" }; interval = \"1s\""),
        refused_test("expect = []; series = { \"a b\" = \"1\" }; interval = \"1s\""),
        refused_test("expect = []; series = { a = \"1\" }; interval = \"0s\""),
        refused_test("expect = []; series = { a = \"1x900000\" }; interval = \"1d\""),
        refused_test("expect = []; timeline = [{ a = 1 }]"),
        refused_test("expect = []; timeline = [{ at = 1 }]"),
        refused_test("expect = []; timeline = [{ at = \"1\" }]"),
        refused_test("expect = []; timeline = [{ at = \"1s\", leaving = 1 }]"),
        refused_test("expect = []; timeline = [{ at = \"1s\", metrics = 1 }]"),
        refused_test("expect = []; timeline = [{ at = \"1s\", leavin = true }]"),
        refused_test("expect = []; timeline = [{ at = \"1s\", cpu_percent = \"9\" }]"),
        refused_test("expect = []; timeline = [{ at = \"1s\", metrics = { b = nan } }]"),
        refused_test("expect = []; timeline = [{ at = \"9s\", a = 1 }]; until = \"5s\""),
        refused_test("expect = []; until = \"32d\""),
        refused_test("expect = []; service = \"a b\""),
        refused_test("expect = []; only = [\"hto\"]"),
        refused_test("expect = [{ at = \"1s\", rule = \"cold\", event = \"raise\" }]"),
        refused_test("expect = [{ at = \"1s\", rule = \"hot\", event = \"rise\" }]"),
        refused_test("expect = [{ at = \"1s\", rule = \"hot\" }]"),
        refused_test("expect = [{ at = \"1s\", rule = \"hot\", event = \"raise\", reason = \"left\" }]"),
        refused_test("expect = [{ at = \"1s\", rule = \"hot\", event = \"resolve\", reason = \"gone\" }]"),
        refused_test("expect = [{ at = \"1s\", rule = \"hot\", event = \"raise\", severity = \"page\" }]"),
        refused_test("firing = [{ at = \"1s\", rules = [\"silence\"] }]"),
    ];
    expect![[r#"
        line 1, column 1: tests: there is none: begin one with [[tests]]
        line 1, column 1: name: a test needs one, such as name = "a short peak does not fire"
        line 1, column 1: expect: a test says what happens; expect = [] means nothing
        line 4, column 1: unknown field `intervall`, expected one of `name`, `service`, `instance`, `only`, `interval`, `series`, `timeline`, `until`, `expect`, `firing`: did you mean `interval`?
        line 1, column 1: interval: `series` needs one, such as interval = "10s"
        line 4, column 16: series: `x` is no part of a series: write 5, 5x3 (5 and 3 more), 5+2x3, 5-2x3, _ (missing) or _x3
        line 4, column 12: `a b` is no name of a metric: use 1 to 128 of A-Z a-z 0-9 _ . : / -
        line 5, column 12: interval: use 1ms or more
        line 5, column 12: series: it has more than 1000000 readings or lasts over 31d
        line 4, column 13: at: a moment of the timeline needs one, such as at = "10s"
        line 4, column 20: at: expected a time such as "10s"
        line 4, column 20: at: `1` is not a duration: write a whole number and ms, s, m, h or d, such as 30s
        line 4, column 36: leaving: expected true or false
        line 4, column 36: metrics: expected a table, metrics = { name = 1 }
        line 4, column 26: leavin: a reading is a number: did you mean `leaving`?
        line 4, column 26: cpu_percent: a reading is a number
        line 4, column 36: b: a reading is a number
        line 5, column 9: until: a report comes after it, at 9s
        line 4, column 9: until: use 31d or less
        line 4, column 11: service: use 1 to 128 of A-Z a-z 0-9 _ . : / -
        line 4, column 9: rule: there is no rule `hto`: did you mean `hot`?
        line 3, column 31: rule: there is no rule `cold`
        line 3, column 46: event: use one of raise, resolve, repeat, record: did you mean `raise`?
        line 3, column 11: expect: missing field `event`
        line 3, column 64: reason: only a resolve has one
        line 3, column 66: reason: use "cleared", "left" or "forgotten"
        line 3, column 66: severity: use "info", "warning" or "critical"
        line 3, column 33: rule: there is no rule `silence`: did you mean `silent`?"#]].assert_eq(&all.join("\n"));
}
