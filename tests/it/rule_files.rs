//! `gopherwatch-server check` and `test`, as they are run by hand and in CI; and the rule files that come with us.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a command said, and its exit code.
struct Said {
    code: i32,
    text: String,
    faults: String,
}

/// Runs the server's binary in `cwd`, with no environment.
fn run(cwd: &Path, args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_gopherwatch-server"))
        .env_clear()
        .current_dir(cwd)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), text: text(output.stdout), faults: text(output.stderr) }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A new directory with these files.
fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// Our own rule files, and their tests.
fn contributed() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let files = fs::read_dir(repository().join("contrib/rules")).unwrap().map(|entry| entry.unwrap().path());
    let tomls = files.filter(|path| path.extension().is_some_and(|ext| ext == "toml"));
    tomls.partition(|path| !path.to_str().unwrap().ends_with("_test.toml"))
}

#[test]
fn the_rules_that_come_with_us_are_without_doubts() {
    let (rules, _) = contributed();
    assert!(!rules.is_empty());
    for path in rules {
        let said = run(repository(), &["check", path.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.faults);
        assert!(said.text.ends_with("rules, 0 warnings, 0 notes\n"), "{}", said.text);
    }
}

#[test]
fn each_rule_that_comes_with_us_is_seen_to_fire_to_be_quiet_and_to_resolve() {
    let (rules, tests) = contributed();
    assert_eq!(rules.len(), tests.len(), "each file of rules has one of tests");
    for path in tests {
        let said = run(repository(), &["test", path.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}{}", said.text, said.faults);
        assert!(said.text.ends_with("tests, 0 failed\n"), "{}", said.text);
        assert!(!said.text.contains("note:"), "a rule that no test saw fire: {}", said.text);
        let text = fs::read_to_string(&path).unwrap();
        let rules = fs::read_to_string(path.to_str().unwrap().replace("_test.toml", ".toml")).unwrap();
        for name in rules.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')) {
            let resolves = format!("rule = \"{name}\", event = \"resolve\"");
            assert!(text.contains(&resolves), "no test shows how {name} resolves");
            let quiet = |test: &str| test.contains(&format!("\"{name}\"")) && test.contains("expect = []");
            assert!(text.split("[[tests]]").any(quiet), "no test shows where {name} is quiet");
        }
    }
}

#[test]
fn a_rule_of_ours_that_is_changed_fails_its_tests() {
    let read = |name: &str| fs::read_to_string(repository().join("contrib/rules").join(name)).unwrap();
    let (rules, tests) = (read("host.toml"), read("host_test.toml"));
    let changed = rules.replace("when = \"memory_percent > 95\"", "when = \"memory_percent > 98\"");
    assert_ne!(rules, changed);
    let dir = with(&[("host.toml", &changed), ("host_test.toml", &tests)]);
    let said = run(dir.path(), &["test", "host_test.toml"]);
    assert_eq!(said.code, 64, "{}", said.text);
    assert!(said.text.contains("FAILED  memory-critical fires after a minute (host_test.toml: line "), "{}", said.text);
    assert!(said.text.contains("- { at = \"1m\", rule = \"memory-critical\", event = \"raise\""), "{}", said.text);
    assert!(!said.text.contains("FAILED  disk-full"), "{}", said.text);
}

#[test]
fn the_example_file_is_valid_without_its_comment_marks() {
    let text = fs::read_to_string(repository().join("gopherwatch.toml")).unwrap();
    let is_example = |line: &&str| line.starts_with('#') && !line[1..].starts_with([' ', '#']) && line.len() > 1;
    let example: Vec<&str> = text.lines().filter(is_example).map(|line| &line[1..]).collect();
    let dir = with(&[("gopherwatch.toml", &example.join("\n")), ("as_it_is.toml", &text)]);
    let said = run(dir.path(), &["check", "gopherwatch.toml"]);
    assert_eq!(said.code, 0, "{}", said.faults);
    assert!(said.text.contains(" 0 warnings"), "{}", said.text);
    let said = run(dir.path(), &["check", "as_it_is.toml"]);
    assert_eq!(said.code, 0, "{}", said.faults);
    assert!(said.text.contains("the built-in ones hold") && said.text.contains("cpu-high"), "{}", said.text);
}

#[test]
fn what_the_readme_says_of_check_and_test_is_so() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```").skip(1).step_by(2).collect();
    let block = |kind: &str, what: &str| {
        let found = blocks.iter().find(|block| block.starts_with(kind) && block.contains(what)).unwrap();
        found.strip_prefix(kind).unwrap()
    };
    let rules =
        "[[rules]]\nname = \"cpu-hot\"\nwhen = \"cpu_percnt > 90\"\nfor = \"10s\"\nclear = \"cpu_percent < 80\"\n";
    let mended = rules.replace("percnt", "percent");
    let dir = with(&[("rules.toml", rules), ("language.toml", block("toml\n", "name = \"errors-high\""))]);
    let said = run(dir.path(), &["check", "rules.toml"]);
    for line in block("text\n", "gopherwatch-server check").lines().skip(1).filter(|line| line.trim() != "...") {
        assert!(said.text.lines().any(|said| said == line), "`{line}` is not in:\n{}", said.text);
    }
    let said = run(dir.path(), &["check", "language.toml"]);
    assert!(said.code == 0 && said.text.ends_with("1 rule, 0 warnings, 0 notes\n"), "{}{}", said.text, said.faults);
    let dir = with(&[("rules.toml", &mended), ("t.toml", block("toml\n", "[[tests]]"))]);
    let said = run(dir.path(), &["test", "t.toml"]);
    assert_eq!(said.code, 0, "{}{}", said.text, said.faults);
}

#[test]
fn doubts_are_told_with_their_place_and_are_no_failure() {
    let rules = "[[rules]]\nname = \"a\"\nwhen = \"cpu_percnt > 90 or memory_percent > 800\"\n\
                 [[rules]]\nname = \"b\"\nwhen = \"queue_length > 90\"\n";
    let dir = with(&[("rules.toml", rules)]);
    let said = run(dir.path(), &["check", "rules.toml"]);
    assert_eq!(said.code, 0);
    for line in [
        "a (critical): cpu_percnt > 90 or memory_percent > 800\n  Fires at the first report in which cpu_percnt is above 90",
        "rules.toml: line 3, column 9: warning: rule `a`: no agent sends `cpu_percnt` by itself: did you mean `cpu_percent`?",
        "rules.toml: line 3, column 8: warning: rule `a`: when: its part `memory_percent > 800` is never true",
        "rules.toml: line 6, column 9: note: rule `b`: no agent of GopherWatch sends `queue_length` by itself",
        "\n2 rules, 2 warnings, 1 note\n",
    ] {
        assert!(said.text.contains(line), "`{line}` is not in:\n{}", said.text);
    }
    assert_eq!(said.faults, "");
}

#[test]
fn a_file_that_cannot_be_used_is_told_on_standard_error() {
    let tests = "rules = \"bad.toml\"\n[[tests]]\nname = \"t\"\nexpect = []\n";
    let bad = "[[rules]]\nname = \"a\"\nwhn = \"cpu_percent > 9\"\n";
    let dir = with(&[("bad.toml", bad), ("of_bad.toml", tests), ("bad_test.toml", "tests = 3")]);
    let fault = "bad.toml: line 3, column 1: unknown field `whn`";
    for (args, fault) in [
        (["check", "bad.toml"], fault),
        (["test", "of_bad.toml"], fault),
        (["test", "bad_test.toml"], "bad_test.toml: line 1, column 9: tests: "),
        (["check", "nowhere.toml"], "reading nowhere.toml: "),
        (["test", "nowhere.toml"], "reading nowhere.toml: "),
    ] {
        let said = run(dir.path(), &args);
        assert_eq!(said.code, 64, "{args:?}");
        assert!(said.faults.starts_with(fault), "{args:?}: {}", said.faults);
    }
    assert!(run(dir.path(), &["check", "bad.toml"]).faults.contains("did you mean `when`?"));
}

#[test]
fn tests_of_several_files_are_counted_together_and_one_that_fails_is_64() {
    let good = "[[tests]]\nname = \"good\"\nonly = [\"cpu-high\"]\ntimeline = [{ at = \"1s\", cpu_percent = 91 }]\n\
                expect = [{ at = \"1s\", rule = \"cpu-high\", event = \"raise\" }]\n";
    let bad = good.replace("good", "bad").replace("91", "89");
    let dir = with(&[("good.toml", good), ("bad.toml", &bad)]);
    let said = run(dir.path(), &["test", "good.toml"]);
    assert_eq!((said.code, said.faults.as_str()), (0, ""));
    assert!(said.text.starts_with("ok      good\n"), "{}", said.text);
    let said = run(dir.path(), &["test", "good.toml", "bad.toml", "nowhere.toml"]);
    assert_eq!(said.code, 64);
    assert!(said.text.ends_with("\n2 tests, 1 failed, 1 file unusable\n"), "{}", said.text);
    assert!(said.faults.contains("nowhere.toml"));
}

#[test]
fn record_is_honoured_and_neither_data_nor_ports_are_touched() {
    let tests = "[[tests]]\nname = \"t\"\nonly = [\"cpu-high\"]\ninterval = \"1s\"\nseries = { cpu_percent = \"95x1\" }\n\
                 expect = [{ at = \"0s\", rule = \"cpu-high\", event = \"raise\" }, { at = \"1s\", rule = \"cpu-high\", event = \"record\" }]\n";
    let dir = with(&[("t.toml", tests), ("rules.toml", "")]);
    assert_eq!(run(dir.path(), &["test", "t.toml"]).code, 64);
    assert_eq!(run(dir.path(), &["test", "--record", "every", "t.toml"]).code, 0);
    assert_eq!(run(dir.path(), &["--record", "every", "test", "t.toml"]).code, 0);
    assert!(run(dir.path(), &["check", "--record", "every", "rules.toml"]).text.contains("a row of its own"));
    assert!(!dir.path().join("data").exists());
}

#[test]
fn the_help_shows_both_and_a_file_is_required() {
    let dir = with(&[]);
    let said = run(dir.path(), &["-h"]);
    assert_eq!(said.code, 0);
    assert!(said.text.contains("\n  check ") && said.text.contains("\n  test "), "{}", said.text);
    for args in [&["check"][..], &["test"]] {
        assert_eq!(run(dir.path(), args).code, 64);
    }
}
