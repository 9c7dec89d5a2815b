//! `gopherwatch.toml`: text to rules, or the line, column and field of what is wrong.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use globset::{Glob, GlobSetBuilder};
use serde::Deserialize;
use toml::Spanned;

use super::{Globs, Record, Rule, Summary, condition::Condition, parse::parse_condition};
use crate::model::Severity;

/// A file that cannot be used. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// What is wrong, with the field it is wrong in.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    defaults: RawDefaults,
    rules: Option<Vec<Spanned<RawRule>>>,
    receivers: Option<Spanned<toml::Value>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    severity: Option<Spanned<String>>,
    r#for: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    when: Spanned<String>,
    severity: Option<Spanned<String>>,
    services: Option<Vec<Spanned<String>>>,
    exclude: Option<Vec<Spanned<String>>>,
    instances: Option<Vec<Spanned<String>>>,
    record: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: Option<Spanned<String>>,
    runbook_url: Option<String>,
    // Fields of the contract that this version does not evaluate yet: refused, so that nobody relies on them.
    r#for: Option<Spanned<toml::Value>>,
    keep_firing_for: Option<Spanned<toml::Value>>,
    clear: Option<Spanned<toml::Value>>,
    repeat: Option<Spanned<toml::Value>>,
    receivers: Option<Spanned<toml::Value>>,
}

/// Reads a rule file. `None`: it has no `rules`, and the built-in ones hold. `record`, when given, overrules each
/// rule's own (the flag `--record`).
pub fn parse_file(text: &str, record: Option<Record>) -> Result<Option<Vec<Rule>>, FileError> {
    let reader = Reader { text, record };
    let raw: RawFile = toml::from_str(text).map_err(|err| reader.toml_error(&err))?;
    reader.not_yet("receivers", raw.receivers.as_ref())?;
    reader.not_yet("for", raw.defaults.r#for.as_ref())?;
    let default_severity = match &raw.defaults.severity {
        Some(word) => reader.severity(word)?,
        None => Severity::Critical,
    };
    let Some(raw_rules) = raw.rules else { return Ok(None) };
    let mut rules: Vec<Rule> = Vec::with_capacity(raw_rules.len());
    for raw in raw_rules {
        let span = raw.get_ref().name.span();
        let rule = reader.rule(raw.into_inner(), default_severity)?;
        if rules.iter().any(|other| other.name == rule.name) {
            return Err(reader.error(&span, &format!("name: another rule is called `{}`", rule.name)));
        }
        rules.push(rule);
    }
    Ok(Some(rules))
}

struct Reader<'a> {
    text: &'a str,
    record: Option<Record>,
}

impl Reader<'_> {
    fn rule(&self, raw: RawRule, default_severity: Severity) -> Result<Rule, FileError> {
        for (field, value) in [
            ("for", &raw.r#for),
            ("keep_firing_for", &raw.keep_firing_for),
            ("clear", &raw.clear),
            ("repeat", &raw.repeat),
            ("receivers", &raw.receivers),
        ] {
            self.not_yet(field, value.as_ref())?;
        }
        let name = raw.name.get_ref();
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
            return Err(self.error(&raw.name.span(), "name: use 1 to 128 of A-Z a-z 0-9 _ . -"));
        }
        let condition = self.condition(&raw.when)?;
        let severity = raw.severity.as_ref().map_or(Ok(default_severity), |word| self.severity(word))?;
        let record = match &raw.record {
            None => Record::default(),
            Some(word) => match word.get_ref().as_str() {
                "episode" => Record::Episode,
                "every" => Record::Every,
                _ => return Err(self.error(&word.span(), "record: use \"episode\" or \"every\"")),
            },
        };
        let (text, span) = match raw.summary {
            Some(text) => (text.get_ref().clone(), text.span()),
            None => (default_summary(&condition, raw.when.get_ref()), 0..0),
        };
        Ok(Rule {
            name: name.as_str().into(),
            when: raw.when.get_ref().as_str().into(),
            condition,
            severity,
            services: self.globs("services", raw.services)?,
            exclude: self.globs("exclude", raw.exclude)?,
            instances: self.globs("instances", raw.instances)?,
            record: self.record.unwrap_or(record),
            labels: Arc::new(raw.labels),
            summary: Summary::new(text).map_err(|why| self.error(&span, &format!("summary: {why}")))?,
            runbook_url: raw.runbook_url,
        })
    }

    fn condition(&self, when: &Spanned<String>) -> Result<Condition, FileError> {
        parse_condition(when.get_ref()).map_err(|err| {
            // The span holds the quotes. In a plain string the condition's bytes stand one behind the first quote; in
            // one with escapes the column is only the string's.
            let span = when.span();
            let literal = self.text.get(span.start + 1..).is_some_and(|rest| rest.starts_with(when.get_ref().as_str()));
            let at = if literal { span.start + 1 + err.offset } else { span.start };
            self.error(&(at..at), &format!("when: {}", err.message))
        })
    }

    fn severity(&self, word: &Spanned<String>) -> Result<Severity, FileError> {
        let unknown = |()| self.error(&word.span(), "severity: use \"info\", \"warning\" or \"critical\"");
        word.get_ref().parse().map_err(unknown)
    }

    fn globs(&self, field: &str, patterns: Option<Vec<Spanned<String>>>) -> Result<Option<Globs>, FileError> {
        let Some(patterns) = patterns else { return Ok(None) };
        let mut set = GlobSetBuilder::new();
        for pattern in &patterns {
            let glob = Glob::new(pattern.get_ref());
            set.add(glob.map_err(|err| self.error(&pattern.span(), &format!("{field}: {}", err.kind())))?);
        }
        let set = set.build().map_err(|err| self.error(&(0..0), &format!("{field}: {}", err.kind())))?;
        Ok(Some(Globs { patterns: patterns.into_iter().map(Spanned::into_inner).collect(), set }))
    }

    fn not_yet(&self, field: &str, value: Option<&Spanned<toml::Value>>) -> Result<(), FileError> {
        match value {
            None => Ok(()),
            // No waiting is what this version does.
            Some(value) if field.ends_with("for") && value.get_ref().as_str() == Some("0s") => Ok(()),
            Some(value) => {
                Err(self.error(&value.span(), &format!("{field}: not supported by this version, remove it")))
            }
        }
    }

    /// What the TOML reader says, with the field whose value it speaks of.
    fn toml_error(&self, err: &toml::de::Error) -> FileError {
        let span = err.span().unwrap_or(0..0);
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        match line.split_once('=') {
            Some((field, _)) => self.error(&span, &format!("{}: {}", field.trim(), err.message())),
            None => self.error(&span, err.message()),
        }
    }

    fn error(&self, span: &Range<usize>, message: &str) -> FileError {
        let before = &self.text[..self.text.floor_char_boundary(span.start)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        FileError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.trim_end().to_owned(),
        }
    }
}

/// What an alert says when its rule does not. Braces of the condition would be taken for placeholders, but no
/// condition has any.
fn default_summary(condition: &Condition, when: &str) -> String {
    match condition {
        Condition::Absent { .. } => "{service}/{instance} has been silent for {value} s".to_owned(),
        Condition::Compare { .. } => format!("{{metric}} of {{service}}/{{instance}} is {{value}} ({when})"),
    }
}
