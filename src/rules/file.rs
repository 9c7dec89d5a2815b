//! `gopherwatch.toml`: text to rules, or the line, column and field of what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use globset::{Glob, GlobSetBuilder};
use serde::Deserialize;
use toml::Spanned;

use super::{
    Globs, Record, Rule, Summary,
    condition::When,
    fault::{FileError, Location},
    lines::Lines,
    parse::{Mention, SyntaxError, parse_clear, parse_when},
    receiver::{RawReceiver, ReceiverConfig},
};
use crate::{
    model::{Name, Severity},
    units::parse_duration,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    defaults: RawDefaults,
    rules: Option<Vec<Spanned<RawRule>>>,
    #[serde(default)]
    receivers: Vec<Spanned<RawReceiver>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDefaults {
    severity: Option<Spanned<String>>,
    r#for: Option<Spanned<String>>,
    keep_firing_for: Option<Spanned<String>>,
    repeat: Option<Spanned<String>>,
    record: Option<Spanned<String>>,
    runbook_url: Option<String>,
    receivers: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Option<Spanned<String>>,
    when: Option<Spanned<String>>,
    r#for: Option<Spanned<String>>,
    keep_firing_for: Option<Spanned<String>>,
    clear: Option<Spanned<String>>,
    repeat: Option<Spanned<String>>,
    severity: Option<Spanned<String>>,
    services: Option<Vec<Spanned<String>>>,
    exclude: Option<Vec<Spanned<String>>>,
    instances: Option<Vec<Spanned<String>>>,
    record: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: Option<Spanned<String>>,
    runbook_url: Option<String>,
    receivers: Option<Vec<Spanned<String>>>,
}

/// What a rule file says.
#[derive(Debug)]
pub struct FileContent {
    /// Its rules; `None`: it has no `rules`, and the built-in ones hold.
    pub rules: Option<Vec<Rule>>,
    /// Its receivers.
    pub receivers: Vec<ReceiverConfig>,
}

/// Reads a rule file. `record`, when given, overrules each rule's own (the flag `--record`).
pub fn parse_file(text: &str, record: Option<Record>) -> Result<FileContent, FileError> {
    let reader = Reader { text, lines: Lines::new(text), record };
    let raw: RawFile = toml::from_str(text).map_err(|err| FileError::of_toml(text, &err))?;
    let receivers = reader.receivers(raw.receivers)?;
    let defaults = reader.defaults(&raw.defaults, &receivers)?;
    let Some(raw_rules) = raw.rules else { return Ok(FileContent { rules: None, receivers }) };
    let mut rules: Vec<Rule> = Vec::with_capacity(raw_rules.len());
    let mut names = BTreeSet::new();
    for raw in raw_rules {
        let span = raw.get_ref().name.as_ref().map_or(raw.span(), Spanned::span);
        let rule = reader.rule(raw, &defaults, &receivers)?;
        if !names.insert(rule.name.clone()) {
            return Err(reader.error(&span, &format!("name: another rule is called `{}`", rule.name)));
        }
        rules.push(rule);
    }
    Ok(FileContent { rules: Some(rules), receivers })
}

/// What rules have that do not say otherwise.
struct Defaults {
    severity: Severity,
    r#for: Duration,
    keep_firing_for: Duration,
    repeat: Option<Duration>,
    record: Record,
    runbook_url: Option<Name>,
    receivers: Option<Arc<[Name]>>,
}

pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) lines: Lines<'a>,
    record: Option<Record>,
}

impl Reader<'_> {
    fn defaults(&self, raw: &RawDefaults, receivers: &[ReceiverConfig]) -> Result<Defaults, FileError> {
        Ok(Defaults {
            severity: self.severity(raw.severity.as_ref())?.unwrap_or(Severity::Critical),
            r#for: self.duration("for", raw.r#for.as_ref())?.unwrap_or_default(),
            keep_firing_for: self.duration("keep_firing_for", raw.keep_firing_for.as_ref())?.unwrap_or_default(),
            repeat: self.repeat(raw.repeat.as_ref())?,
            record: self.record(raw.record.as_ref())?.unwrap_or_default(),
            runbook_url: raw.runbook_url.as_deref().map(Into::into),
            receivers: self.told(raw.receivers.as_ref(), receivers)?,
        })
    }

    fn rule(
        &self,
        spanned: Spanned<RawRule>,
        defaults: &Defaults,
        receivers: &[ReceiverConfig],
    ) -> Result<Rule, FileError> {
        let whole = spanned.span();
        let raw = spanned.into_inner();
        let missing =
            |field, example| self.error(&whole, &format!("{field}: a rule needs one, such as {field} = {example}"));
        let name = self.name(raw.name.as_ref().ok_or_else(|| missing("name", "\"cpu-high\""))?)?;
        let when_text = raw.when.as_ref().ok_or_else(|| missing("when", "\"cpu_percent > 90\""))?;
        let (when, mut mentions) = self.read("when", when_text, parse_when)?;
        let clear = match &raw.clear {
            None => None,
            Some(text) if when.condition().is_none() => {
                return Err(self.error(&text.span(), "clear: absent() is cleared by the next report: remove it"));
            }
            Some(text) => {
                let (clear, more) = self.read("clear", text, parse_clear)?;
                mentions.extend(more);
                Some(clear)
            }
        };
        let r#for = match self.duration("for", raw.r#for.as_ref())? {
            // absent() is a duration of its own, to which the file's default adds nothing.
            None if when.condition().is_none() => Duration::ZERO,
            None => defaults.r#for,
            Some(r#for) if when.condition().is_none() && !r#for.is_zero() => {
                let span = raw.r#for.as_ref().map_or(0..0, Spanned::span);
                return Err(self.error(&span, "for: absent() says itself how long, as in absent(40s): remove it"));
            }
            Some(r#for) => r#for,
        };
        let (summary, span) = match raw.summary {
            Some(text) => (text.get_ref().clone(), text.span()),
            None => (default_summary(&when), 0..0),
        };
        Ok(Rule {
            name,
            place: 0,
            generation: 0,
            when_text: when_text.get_ref().as_str().into(),
            when,
            clear_text: raw.clear.as_ref().map(|text| text.get_ref().as_str().into()),
            clear,
            r#for,
            keep_firing_for: self
                .duration("keep_firing_for", raw.keep_firing_for.as_ref())?
                .unwrap_or(defaults.keep_firing_for),
            repeat: self.repeat(raw.repeat.as_ref())?.or(defaults.repeat),
            severity: self.severity(raw.severity.as_ref())?.unwrap_or(defaults.severity),
            services: self.globs("services", raw.services)?,
            exclude: self.globs("exclude", raw.exclude)?,
            instances: self.globs("instances", raw.instances)?,
            record: self.record.or(self.record(raw.record.as_ref())?).unwrap_or(defaults.record),
            labels: Arc::new(raw.labels),
            summary: Summary::new(summary).map_err(|why| self.error(&span, &format!("summary: {why}")))?,
            runbook_url: raw.runbook_url.as_deref().map(Into::into).or_else(|| defaults.runbook_url.clone()),
            receivers: self.told(raw.receivers.as_ref(), receivers)?.or_else(|| defaults.receivers.clone()),
            location: self.lines.location(when_text.span().start),
            clear_location: raw.clear.as_ref().map(|text| self.lines.location(text.span().start)),
            mentions,
        })
    }

    /// The name of a rule or receiver.
    pub(super) fn name(&self, name: &Spanned<String>) -> Result<Name, FileError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(1..=128).contains(&name.get_ref().len()) || !name.get_ref().chars().all(fits) {
            return Err(self.error(&name.span(), "name: use 1 to 128 of A-Z a-z 0-9 _ . -"));
        }
        Ok(name.get_ref().as_str().into())
    }

    /// Reads a condition; returns with it the metrics that it names, and where they stand.
    #[expect(clippy::type_complexity, reason = "two results of one reading, named here and nowhere else")]
    fn read<T>(
        &self,
        field: &str,
        text: &Spanned<String>,
        parse: fn(&str) -> Result<(T, Vec<Mention>), SyntaxError>,
    ) -> Result<(T, Vec<(Name, Location)>), FileError> {
        let span = text.span();
        let start = self.start_of_content(text);
        let at = |offset| start.map_or(span.start, |start| start + offset);
        let (condition, mentions) = parse(text.get_ref())
            .map_err(|err| self.error(&(at(err.offset)..at(err.offset)), &format!("{field}: {}", err.message)))?;
        let mention = |m: Mention| (m.metric.as_str().into(), self.lines.location(at(m.offset)));
        Ok((condition, mentions.into_iter().map(mention).collect()))
    }

    /// Where a string's bytes begin, if the file has them as they are: with escapes, only the string has a place.
    fn start_of_content(&self, text: &Spanned<String>) -> Option<usize> {
        let (content, span) = (text.get_ref().as_str(), text.span());
        let literal = self.text.get(span.clone())?;
        let quotes = if ["\"\"\"", "'''"].iter().any(|quotes| literal.starts_with(quotes)) && literal.len() >= 6 {
            3
        } else {
            1
        };
        let inside = literal.get(quotes..literal.len() - quotes)?;
        // The line break behind the opening quotes is not part of the string.
        let before = inside.strip_suffix(content)?;
        ["", "\n", "\r\n"].contains(&before).then_some(span.start + quotes + before.len())
    }

    fn severity(&self, word: Option<&Spanned<String>>) -> Result<Option<Severity>, FileError> {
        let unknown =
            |word: &Spanned<String>| self.error(&word.span(), "severity: use \"info\", \"warning\" or \"critical\"");
        word.map(|word| word.get_ref().parse().map_err(|()| unknown(word))).transpose()
    }

    fn record(&self, word: Option<&Spanned<String>>) -> Result<Option<Record>, FileError> {
        let read = |word: &Spanned<String>| match word.get_ref().as_str() {
            "episode" => Ok(Record::Episode),
            "every" => Ok(Record::Every),
            _ => Err(self.error(&word.span(), "record: use \"episode\" or \"every\"")),
        };
        word.map(read).transpose()
    }

    fn duration(&self, field: &str, text: Option<&Spanned<String>>) -> Result<Option<Duration>, FileError> {
        let read = |text: &Spanned<String>| {
            parse_duration(text.get_ref()).map_err(|why| self.error(&text.span(), &format!("{field}: {why}")))
        };
        text.map(read).transpose()
    }

    fn repeat(&self, text: Option<&Spanned<String>>) -> Result<Option<Duration>, FileError> {
        match (self.duration("repeat", text)?, text) {
            (Some(repeat), Some(text)) if repeat < MIN_REPEAT => {
                Err(self.error(&text.span(), "repeat: use 1s or more, or leave it out to be told once"))
            }
            (repeat, _) => Ok(repeat),
        }
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

    pub(super) fn error(&self, span: &Range<usize>, message: &str) -> FileError {
        FileError { location: self.lines.location(span.start), message: message.trim_end().to_owned() }
    }
}

/// A shorter one would do nothing else: whether it is due is looked at once a second.
const MIN_REPEAT: Duration = Duration::from_secs(1);

/// What an alert says when its rule does not. Braces of the condition would be taken for placeholders, but no
/// condition has any. It is not the condition as it was written, so that writing it otherwise is no news of the alert.
fn default_summary(when: &When) -> String {
    match when {
        When::Silent { .. } => "{service}/{instance} has been silent for {value} s".to_owned(),
        When::Lacking { metric, .. } => {
            format!("reports of {{service}}/{{instance}} have lacked {metric} for {{value}} s")
        }
        When::Report(condition) => format!("{{metric}} of {{service}}/{{instance}} is {{value}} ({condition})"),
    }
}
