//! The subcommands that need no server: `check` says what rules mean, `test` whether they do what they should, `init` makes
//! what a server needs that other hosts are to reach.
//!
//! They read files and write text; the exit code is 0, or 64 when a file cannot be used or a test fails.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    init,
    log::chain,
    rules::{Doubt, FileError, ReceiverConfig, Record, Rule, RuleSet, Way, parse_file, warnings, words},
    ruletest::{parse_tests, run},
};

/// What a command has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// What it found, for standard output.
    pub text: String,
    /// The files that cannot be used, for standard error.
    pub faults: String,
    /// Whether every file could be used and every test passed.
    pub is_good: bool,
}

impl Said {
    fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    fn fault(&mut self, fault: &FileFault) {
        self.is_good = false;
        self.faults += &format!("{fault}\n");
    }
}

/// A file that cannot be used, said as editors and people find it: `FILE: line L, column C: field: message`.
#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error("{}: {source}", path.display())]
    Content { path: PathBuf, source: FileError },
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl FileFault {
    fn content(path: &Path) -> impl FnOnce(FileError) -> Self {
        move |source| Self::Content { path: path.to_owned(), source }
    }
}

/// Makes certificates and tokens, and says how they are used.
pub fn init(options: &init::Options) -> Said {
    match init::init(options) {
        Ok(text) => Said { text, is_good: true, ..Said::default() },
        Err(err) => Said { faults: format!("gopherwatch-server init: {}\n", chain(&err)), ..Said::default() },
    }
}

/// Says each rule of a file in plain words, and what is doubtful in them.
pub fn check(path: &Path, record: Option<Record>) -> Said {
    let mut said = Said { is_good: true, ..Said::default() };
    match read(path).and_then(|text| rules(path, &text, record)) {
        Ok(rules) => explain(&rules, path, &mut said),
        Err(fault) => said.fault(&fault),
    }
    said
}

fn explain(rules: &RuleSet, path: &Path, said: &mut Said) {
    if rules.source != path.display().to_string() {
        said.line(&format!("{} has no rules of its own: the built-in ones hold.\n", path.display()));
    }
    for rule in &rules.rules {
        said.line(&format!("{} ({}): {}", rule.name, rule.severity, rule.when_text));
        words(rule).iter().for_each(|line| said.line(&format!("  {line}")));
        said.line("");
    }
    rules.receivers.iter().for_each(|receiver| explain_receiver(receiver, rules, said));
    let found = warnings(&rules.rules);
    for warning in &found {
        let doubt = if warning.doubt == Doubt::Warning { "warning" } else { "note" };
        said.line(&format!("{}: {}: {doubt}: {}", rules.source, warning.location, warning.message));
    }
    let n = |doubt| found.iter().filter(|warning| warning.doubt == doubt).count();
    let receivers = match rules.receivers.len() {
        0 => String::new(),
        n => format!(", {}", counted(n, "receiver")),
    };
    said.line(&format!(
        "{}{receivers}, {}, {}",
        counted(rules.rules.len(), "rule"),
        counted(n(Doubt::Warning), "warning"),
        counted(n(Doubt::Note), "note")
    ));
}

/// Says who a receiver is, and which rules it hears of.
fn explain_receiver(receiver: &ReceiverConfig, rules: &RuleSet, said: &mut Said) {
    let Way::Webhook(webhook) = &receiver.way;
    said.line(&format!("receiver {}: a webhook at {}", receiver.name, webhook.shown()));
    let tells = |rule: &&Arc<Rule>| rule.receivers.as_ref().is_none_or(|names| names.contains(&receiver.name));
    let told: Vec<&str> = rules.rules.iter().filter(tells).map(|rule| &*rule.name).collect();
    let of = match told.len() {
        0 => "no rule".to_owned(),
        n if n == rules.rules.len() => "every rule".to_owned(),
        _ => told.join(", "),
    };
    let resolves = if receiver.send_resolved { "and when they resolve" } else { "and not when they resolve" };
    said.line(&format!("  Is told when alerts of {of} fire, {resolves}."));
    said.line(match webhook.secret_file {
        Some(_) => "  What it is told is signed.",
        None => "  What it is told is not signed: there is no secret_file.",
    });
    if webhook.allow_private {
        said.line("  It may be on this host or in its networks.");
    }
    said.line("");
}

/// Plays the tests of these files and says how they went.
pub fn test(paths: &[PathBuf], record: Option<Record>) -> Said {
    let mut said = Said { is_good: true, ..Said::default() };
    let (mut tally, mut n_faults) = (Tally::default(), 0);
    for path in paths {
        if let Err(fault) = test_file(path, record, &mut tally, &mut said) {
            n_faults += 1;
            said.fault(&fault);
        }
    }
    let faults = if n_faults == 0 { String::new() } else { format!(", {} unusable", counted(n_faults, "file")) };
    said.line(&format!("{}, {} failed{faults}", counted(tally.n_tests, "test"), tally.n_failed));
    said.is_good &= tally.n_failed == 0;
    said
}

#[derive(Default)]
struct Tally {
    n_tests: usize,
    n_failed: usize,
}

fn test_file(path: &Path, record: Option<Record>, tally: &mut Tally, said: &mut Said) -> Result<(), FileFault> {
    let file = parse_tests(&read(path)?).map_err(FileFault::content(path))?;
    let rules = match &file.rules {
        None => RuleSet::built_in(record),
        Some(name) => {
            let name = path.parent().unwrap_or(Path::new("")).join(name);
            rules(&name, &read(&name)?, record)?
        }
    };
    file.check_names(&rules).map_err(FileFault::content(path))?;
    let mut raised = BTreeSet::new();
    for test in &file.tests {
        let verdict = run(&rules, test);
        tally.n_tests += 1;
        raised.extend(verdict.raised);
        if verdict.failures.is_empty() {
            said.line(&format!("ok      {}", test.name));
            continue;
        }
        tally.n_failed += 1;
        said.line(&format!("FAILED  {} ({}: {})", test.name, path.display(), test.location));
        verdict.failures.iter().for_each(|line| said.line(&format!("  {line}")));
    }
    let unseen = rules.rules.iter().map(|rule| &*rule.name).filter(|name| !raised.contains(*name));
    let unseen: Vec<&str> = unseen.collect();
    if !unseen.is_empty() {
        said.line(&format!("note: no test of {} saw these rules fire: {}", path.display(), unseen.join(", ")));
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, FileFault> {
    fs::read_to_string(path).map_err(|source| FileFault::Read { path: path.to_owned(), source })
}

fn rules(path: &Path, text: &str, record: Option<Record>) -> Result<RuleSet, FileFault> {
    let content = parse_file(text, record).map_err(FileFault::content(path))?;
    Ok(RuleSet::of_file(content, path.display().to_string(), record))
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
