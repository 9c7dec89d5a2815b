//! Conditions as text: what is told of those that cannot be read, and where it stands.

use expect_test::expect;

use super::play::rules;
use crate::rules::{Location, parse_file};

fn refusal(fields: &str) -> String {
    let text = format!("[[rules]]\nname = \"rule\"\n{fields}");
    parse_file(&text, None).expect_err(fields).to_string()
}

/// What is told of each of these conditions; its first character is in column 9 of line 3.
fn told(conditions: &[&str]) -> String {
    let line = |when: &&str| {
        let told = refusal(&format!("when = '{when}'"));
        format!("{when}\n  {}", told.strip_prefix("line 3, ").unwrap_or(&told))
    };
    conditions.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_missing_is_told() {
    expect![[r#"
        cpu_percent
          column 20: when: expected one of > >= < <= == !=, found the end
        cpu_percent >
          column 22: when: expected a metric's name or a number, found the end
        cpu_percent > 90 and
          column 29: when: expected a metric's name or a number, found the end
        not
          column 12: when: expected a metric's name or a number, found the end
        -
          column 10: when: expected a metric's name or a number, found the end
        cpu_percent > 90 or not
          column 32: when: expected a metric's name or a number, found the end
        (cpu_percent > 90
          column 26: when: expected `)`, found the end
        (cpu_percent > 90 and load_1m > 4
          column 42: when: expected `)`, found the end
        cpu_percent > (90
          column 26: when: expected `)`, found the end
        cpu_percent > 90)
          column 25: when: expected `and`, `or` or the end, found `)`
        a + > 1
          column 13: when: expected a metric's name or a number, found `>`
        a > 1 b > 1
          column 15: when: expected `and`, `or` or the end, found `b`
        and a > 1
          column 9: when: expected a metric's name or a number, found the keyword `and`: a metric of that name stands in backquotes
        a > 1 and and b > 1
          column 19: when: expected a metric's name or a number, found the keyword `and`: a metric of that name stands in backquotes
        > 90
          column 9: when: expected a metric's name or a number, found `>`
        `a > 1
          column 9: when: expected a metric's name in backquotes: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit
        `` > 1
          column 9: when: expected a metric's name in backquotes: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit"#]].assert_eq(&told(&[
        "cpu_percent",
        "cpu_percent >",
        "cpu_percent > 90 and",
        "not",
        "-",
        "cpu_percent > 90 or not",
        "(cpu_percent > 90",
        "(cpu_percent > 90 and load_1m > 4",
        "cpu_percent > (90",
        "cpu_percent > 90)",
        "a + > 1",
        "a > 1 b > 1",
        "and a > 1",
        "a > 1 and and b > 1",
        "> 90",
        "`a > 1",
        "`` > 1",
    ]));
    for (blank, column) in [("", 9), ("   ", 12)] {
        let told = refusal(&format!("when = '{blank}'"));
        assert_eq!(told, format!("line 3, column {column}: when: expected a metric's name or a number, found the end"));
    }
}

#[test]
fn what_other_languages_write_is_told_how_it_is_written_here() {
    expect![[r#"
        cpu_percent => 90
          column 21: when: expected one of > >= < <= == !=, found `=>`: write >=
        cpu_percent =< 90
          column 21: when: expected one of > >= < <= == !=, found `=<`: write <=
        cpu_percent = 90
          column 21: when: expected one of > >= < <= == !=, found `=`: write ==
        cpu_percent === 90
          column 21: when: expected one of > >= < <= == !=, found `===`: write ==
        cpu_percent <> 90
          column 21: when: expected one of > >= < <= == !=, found `<>`: write !=
        cpu_percent > 90%
          column 25: when: expected `and`, `or` or the end, found `%`: write the number alone: percentages have no sign
        cpu_percent % 2 == 0
          column 21: when: expected one of > >= < <= == !=, found `%`: write the number alone: percentages have no sign
        a > 1 && b > 1
          column 15: when: expected `and`, `or` or the end, found `&&`: write and
        a > 1 || b > 1
          column 15: when: expected `and`, `or` or the end, found `||`: write or
        !(a > 1)
          column 9: when: expected a metric's name or a number, found `!(a`: write not
        a > 1 AND b > 1
          column 15: when: expected `and`, `or` or the end, found `AND`: words of the language are in lower case, `and`
        a > 1 Or b > 1
          column 15: when: expected `and`, `or` or the end, found `Or`: words of the language are in lower case, `or`
        a > 1 annd b > 1
          column 15: when: expected `and`, `or` or the end, found `annd`: did you mean `and`?
        a < b < c
          column 15: when: expected `and`, `or` or the end: a comparison has two sides, found `<`
        1 < a <= 5
          column 15: when: expected `and`, `or` or the end: a comparison has two sides, found `<=`
        a > 1, b > 1
          column 14: when: expected `and`, `or` or the end, found `,`
        a ≥ 1
          column 11: when: expected one of > >= < <= == !=, found `≥`"#]]
    .assert_eq(&told(&[
        "cpu_percent => 90",
        "cpu_percent =< 90",
        "cpu_percent = 90",
        "cpu_percent === 90",
        "cpu_percent <> 90",
        "cpu_percent > 90%",
        "cpu_percent % 2 == 0",
        "a > 1 && b > 1",
        "a > 1 || b > 1",
        "!(a > 1)",
        "a > 1 AND b > 1",
        "a > 1 Or b > 1",
        "a > 1 annd b > 1",
        "a < b < c",
        "1 < a <= 5",
        "a > 1, b > 1",
        "a ≥ 1",
    ]));
}

#[test]
fn numbers_and_names_are_told_apart() {
    expect![[r#"
        cpu_percent > 5m
          column 23: when: expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit stands in backquotes
        cpu_percent > 1.2.3
          column 23: when: expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit stands in backquotes
        cpu_percent > 1_000
          column 23: when: expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit stands in backquotes
        cpu_percent > 0x10
          column 23: when: expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit stands in backquotes
        cpu_percent > 1e999
          column 23: when: expected a number such as 90, 0.5 or 1e9
        cpu_percent > 90 90
          column 26: when: expected `and`, `or` or the end, found `90`
        1 > 2
          column 9: when: compares two numbers: name a metric on one side
        1 > 2 and a > 1
          column 9: when: compares two numbers: name a metric on one side
        a > 1 and 3 == 3
          column 19: when: compares two numbers: name a metric on one side
        5xx > 1
          column 9: when: expected a number such as 90, 0.5 or 1e9: numbers have no unit, and a metric whose name begins with a digit stands in backquotes
        `a b` > 1
          column 9: when: expected a metric's name in backquotes: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit
        `-a` > 1
          column 9: when: expected a metric's name in backquotes: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit
        disk.used > 90
          column 13: when: expected one of > >= < <= == !=, found `.used`
        avg > 1
          column 9: when: `avg` is a function: write avg(metric, 5m), or `avg` in backquotes if it is a metric
        not > 1
          column 13: when: expected a metric's name or a number, found `>`
        a > and
          column 13: when: expected a metric's name or a number, found the keyword `and`: a metric of that name stands in backquotes"#]].assert_eq(&told(&[
        "cpu_percent > 5m",
        "cpu_percent > 1.2.3",
        "cpu_percent > 1_000",
        "cpu_percent > 0x10",
        "cpu_percent > 1e999",
        "cpu_percent > 90 90",
        "1 > 2",
        "1 > 2 and a > 1",
        "a > 1 and 3 == 3",
        "5xx > 1",
        "`a b` > 1",
        "`-a` > 1",
        "disk.used > 90",
        "avg > 1",
        "not > 1",
        "a > and",
    ]));
}

#[test]
fn conditions_are_no_terms_and_terms_no_conditions() {
    expect![[r#"
        (a > 1) > 1
          column 9: when: expected a metric or a number, found the condition `a > 1`
        (a > 1) + 2 > 3
          column 9: when: expected a metric or a number, found the condition `a > 1`
        -(a > 1) > 1
          column 10: when: expected a metric or a number, found the condition `a > 1`
        a > (b > 1)
          column 13: when: expected a metric or a number, found the condition `b > 1`
        a and b > 1
          column 11: when: expected one of > >= < <= == !=, found `and`
        not a
          column 14: when: expected one of > >= < <= == !=, found the end
        (a) and b > 1
          column 13: when: expected one of > >= < <= == !=, found `and`
        a + b
          column 14: when: expected one of > >= < <= == !=, found the end
        not a > 1 > 2
          column 19: when: expected `and`, `or` or the end: a comparison has two sides, found `>`"#]]
    .assert_eq(&told(&[
        "(a > 1) > 1",
        "(a > 1) + 2 > 3",
        "-(a > 1) > 1",
        "a > (b > 1)",
        "a and b > 1",
        "not a",
        "(a) and b > 1",
        "a + b",
        "not a > 1 > 2",
    ]));
}

#[test]
fn windows_and_functions_are_told_what_they_lack() {
    expect![[r#"
        averge(cpu, 5m) > 1
          column 9: when: unknown function `averge`: did you mean `avg`?
        mean(cpu, 5m) > 1
          column 9: when: unknown function `mean`: did you mean `avg`?
        avg_over_time(cpu, 5m) > 1
          column 9: when: unknown function `avg_over_time`: did you mean `avg`?
        stdev(cpu, 5m) > 1
          column 9: when: unknown function `stdev`: did you mean `stddev`?
        Avg(cpu, 5m) > 1
          column 9: when: unknown function `Avg`: did you mean `avg`?
        quantile_over_time(cpu, 5m) > 1
          column 9: when: unknown function `quantile_over_time`: there are avg, min, max, sum, count, stddev, rate, increase, delta
        rate(cpu_percent) > 1
          column 25: when: expected `,` and a window such as `5m`, found `)`
        rate() > 1
          column 14: when: expected a metric's name, found `)`
        rate(, 5m) > 1
          column 14: when: expected a metric's name, found `,`
        rate(5m) > 1
          column 14: when: expected a metric's name, found `5m)`
        rate(a, b) > 1
          column 17: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `b`
        rate(a, 5) > 1
          column 17: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `5`
        rate(a, 1.5m) > 1
          column 17: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `1.5m`
        rate(a, 5m > 1
          column 20: when: expected `)`, found `>`
        rate(a, 5m, 6m) > 1
          column 19: when: expected `)`, found `,`
        rate(a + b, 5m) > 1
          column 16: when: expected `,` and a window such as `5m`, found `+`
        rate(avg(a, 5m), 5m) > 1
          column 14: when: expected a metric's name or a number, found the keyword `avg`: a metric of that name stands in backquotes
        avg(a, 25h) > 1
          column 16: when: a window is at most 24h
        avg(a, 2d) > 1
          column 16: when: a window is at most 24h
        avg(a, 86400001ms) > 1
          column 16: when: a window is at most 24h
        avg(a, 0s) > 1
          column 16: when: expected a duration longer than 0
        avg(a, -5m) > 1
          column 16: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `-5m)`
        avg(a, 99999999999999999999s) > 1
          column 16: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `99999999999999999999s`
        avg a > 1
          column 9: when: `avg` is a function: write avg(metric, 5m), or `avg` in backquotes if it is a metric"#]].assert_eq(&told(&[
        "averge(cpu, 5m) > 1",
        "mean(cpu, 5m) > 1",
        "avg_over_time(cpu, 5m) > 1",
        "stdev(cpu, 5m) > 1",
        "Avg(cpu, 5m) > 1",
        "quantile_over_time(cpu, 5m) > 1",
        "rate(cpu_percent) > 1",
        "rate() > 1",
        "rate(, 5m) > 1",
        "rate(5m) > 1",
        "rate(a, b) > 1",
        "rate(a, 5) > 1",
        "rate(a, 1.5m) > 1",
        "rate(a, 5m > 1",
        "rate(a, 5m, 6m) > 1",
        "rate(a + b, 5m) > 1",
        "rate(avg(a, 5m), 5m) > 1",
        "avg(a, 25h) > 1",
        "avg(a, 2d) > 1",
        "avg(a, 86400001ms) > 1",
        "avg(a, 0s) > 1",
        "avg(a, -5m) > 1",
        "avg(a, 99999999999999999999s) > 1",
        "avg a > 1",
    ]));
    assert!(parse_file("rules = [{ name = 'a', when = 'avg(a, 24h) + min(a, 1d) + max(a, 1ms) > 1' }]", None).is_ok());
}

#[test]
fn absent_stands_alone() {
    expect![[r#"
        absent
          column 15: when: expected `(`, found the end
        absent(
          column 16: when: expected a duration such as `30s`, a metric, or `)`, found the end
        absent() and a > 1
          column 18: when: absent() stands alone: give what is beside it a rule of its own
        absent(30s) or a > 1
          column 21: when: absent() stands alone: give what is beside it a rule of its own
        a > 1 and absent()
          column 19: when: absent() stands alone: give what is beside it a rule of its own
        not absent()
          column 13: when: absent() stands alone: give what is beside it a rule of its own
        (absent())
          column 10: when: absent() stands alone: give what is beside it a rule of its own
        absent() > 1
          column 18: when: expected `and`, `or` or the end, found `>`
        absent(30)
          column 16: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `30`
        absent(0s)
          column 16: when: expected a duration longer than 0
        absent(cpu_percent)
          column 27: when: expected `,` and a duration such as `30s`, found `)`
        absent(cpu_percent, 5)
          column 29: when: expected a duration such as 500ms, 30s, 5m, 1h or 7d, found `5`
        absent(cpu_percent, 0s)
          column 29: when: expected a duration longer than 0
        absent(cpu_percent 5m)
          column 28: when: expected `,` and a duration such as `30s`, found `5m)`
        absent(30s, cpu_percent)
          column 19: when: expected `)`, found `,`
        absent(> 1)
          column 16: when: expected a duration such as `30s`, a metric, or `)`, found `>`
        absent() absent()
          column 18: when: expected `and`, `or` or the end, found `absent()`
        absent > 1
          column 16: when: expected `(`, found `>`"#]]
    .assert_eq(&told(&[
        "absent",
        "absent(",
        "absent() and a > 1",
        "absent(30s) or a > 1",
        "a > 1 and absent()",
        "not absent()",
        "(absent())",
        "absent() > 1",
        "absent(30)",
        "absent(0s)",
        "absent(cpu_percent)",
        "absent(cpu_percent, 5)",
        "absent(cpu_percent, 0s)",
        "absent(cpu_percent 5m)",
        "absent(30s, cpu_percent)",
        "absent(> 1)",
        "absent() absent()",
        "absent > 1",
    ]));
    expect!["line 4, column 9: clear: absent() is cleared by the next report: remove it"]
        .assert_eq(&refusal("when = 'absent()'\nclear = 'a > 1'"));
    expect!["line 4, column 10: clear: absent() stands alone: give what is beside it a rule of its own"]
        .assert_eq(&refusal("when = 'a > 1'\nclear = 'absent()'"));
    expect!["line 4, column 7: for: absent() says itself how long, as in absent(40s): remove it"]
        .assert_eq(&refusal("when = 'absent(40s)'\nfor = '10s'"));
    expect!["line 4, column 7: for: absent() says itself how long, as in absent(40s): remove it"]
        .assert_eq(&refusal("when = 'absent(a, 40s)'\nfor = '10s'"));
    let waits = rules("[defaults]\nfor = '10s'\n[[rules]]\nname = 'a'\nwhen = 'absent()'");
    assert!(waits.rules[0].r#for.is_zero(), "the file's default is for reports");
    assert!(parse_file("rules = [{ name = 'a', when = 'absent()', for = '0s' }]", None).is_ok());
}

#[test]
fn a_condition_is_nested_at_most_32_deep() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        parse_file(&format!("[[rules]]\nname = 'a'\nwhen = '{}{inner}{}'", open.repeat(n), close.repeat(n)), None)
    };
    for (open, inner, close) in [("(", "a > 1", ")"), ("not ", "a > 1", ""), ("-", "a > 1", ""), ("not(", "a > 1", ")")]
    {
        let deepest = if open == "not(" { 16 } else { 32 };
        assert!(nested(open, inner, close, deepest).is_ok(), "{open}");
        let message = nested(open, inner, close, deepest + 1).expect_err("too deep").to_string();
        assert!(message.ends_with("when: nested more than 32 deep"), "{message}");
    }
    let side_by_side = "(a > 1) and ".repeat(1_000) + "a > 1";
    assert!(parse_file(&format!("rules = [{{ name = 'a', when = '{side_by_side}' }}]"), None).is_ok());
}

#[test]
fn what_is_told_of_a_long_text_is_short() {
    let long = "a".repeat(5_000);
    for when in [
        format!("{long}("),
        format!("{long}(b, 5m) > 1"),
        format!("a > 1 {long}"),
        format!("({long} > 1) + 1 > 1"),
        format!("avg(a, 5{long}) > 1"),
        format!("`{long}` > 1"),
    ] {
        let told = refusal(&format!("when = '{when}'"));
        assert!(told.len() < 300, "{} bytes: {told}", told.len());
    }
}

/// Where the condition's third word stands, which is no word of the language.
#[test]
fn a_fault_is_told_where_it_stands_in_the_file() {
    for (when, place) in [
        (r#""a > $""#, "line 3, column 13"),
        ("'a > $'", "line 3, column 13"),
        (r#""""a > $""""#, "line 3, column 15"),
        ("'''a > $'''", "line 3, column 15"),
        ("\"\"\"\na > $\n\"\"\"", "line 4, column 5"),
        ("'''\n\n  a\n    > $'''", "line 6, column 7"),
        ("\"\"\"\r\na >\r\n$\"\"\"", "line 5, column 1"),
        ("'`é` > 1'", "line 3, column 9"),
        ("'a > 1 and é > 1'", "line 3, column 19"),
        ("'''a > 1\nand é > $'''", "line 4, column 5"),
        // The escapes are gone when it is read: the string itself is where to look.
        (r#""\u0061 > $""#, "line 3, column 8"),
        ("\"\"\"a \\\n   > $\"\"\"", "line 3, column 8"),
        ("''", "line 3, column 9"),
        ("''''''", "line 3, column 11"),
    ] {
        let told = refusal(&format!("when = {when}"));
        assert!(told.starts_with(&format!("{place}: when: ")), "{when}: {told}");
    }
    let told = refusal("clear = 'b > $'\nwhen = 'a > 1'");
    assert!(told.starts_with("line 3, column 14: clear: "), "{told}");
}

#[test]
fn every_metric_is_known_by_its_place() {
    let text =
        "[[rules]]\nname = 'rule'\nclear = 'cpu < 1'\nwhen = '''\n  avg(load, 5m) > é_`x/y` and\n  `x/y` > cpu'''\n";
    let text = text.replace("é_", "1 + ");
    let rules = rules(&text);
    let mentions: Vec<_> = rules.rules[0].mentions.iter().map(|(name, at)| (&**name, at.line, at.column)).collect();
    assert_eq!(mentions, [("load", 5, 7), ("x/y", 5, 23), ("x/y", 6, 3), ("cpu", 6, 11), ("cpu", 3, 10)]);
    assert_eq!(rules.rules[0].location, Location { line: 4, column: 8 });
}
