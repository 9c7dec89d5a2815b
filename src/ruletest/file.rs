//! A file of tests: text to [`Test`]s, or the line, column and field of what is wrong. README shows the format.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, time::Duration};

use gopherwatch_proto::{DEFAULT_INSTANCE, is_valid_name};
use serde::Deserialize;
use toml::Spanned;

use super::{
    Expected, Report, Test,
    series::{MAX_READINGS, parse_series},
};
use crate::{
    model::{EventKind, InstanceKey, Name, ResolveReason},
    rules::{FileError, Location, RuleSet, nearest},
    units::{parse_duration, show_duration},
};

/// Longest test. Each second of it is looked at.
const MAX_LENGTH: Duration = Duration::from_secs(31 * 86_400);
/// The service of a test that names none.
const DEFAULT_SERVICE: &str = "test";
/// Fields of a moment of `timeline` that are no metrics.
const MOMENT_FIELDS: [&str; 3] = ["at", "metrics", "leaving"];

/// A file of tests, read.
#[derive(Debug)]
pub struct TestFile {
    /// The file of the rules, as the tests name it; `None`: the built-in rules.
    pub rules: Option<PathBuf>,
    /// The tests, in their order.
    pub tests: Vec<Test>,
    /// The rules that the tests name, and where.
    named: Vec<(String, Location)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    rules: Option<String>,
    #[serde(default)]
    tests: Vec<Spanned<RawTest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    name: Option<String>,
    service: Option<Spanned<String>>,
    instance: Option<Spanned<String>>,
    #[serde(default)]
    only: Vec<Spanned<String>>,
    interval: Option<Spanned<String>>,
    #[serde(default)]
    series: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    timeline: Vec<Spanned<BTreeMap<Spanned<String>, Spanned<toml::Value>>>>,
    until: Option<Spanned<String>>,
    expect: Option<Vec<RawExpected>>,
    #[serde(default)]
    firing: Vec<RawFiring>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpected {
    at: Spanned<String>,
    rule: Spanned<String>,
    event: Spanned<String>,
    metric: Option<String>,
    value: Option<f64>,
    severity: Option<Spanned<String>>,
    reason: Option<Spanned<String>>,
    summary: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFiring {
    at: Spanned<String>,
    rules: Vec<Spanned<String>>,
}

/// Reads a file of tests.
pub fn parse_tests(text: &str) -> Result<TestFile, FileError> {
    let raw: RawFile = toml::from_str(text).map_err(|err| FileError::of_toml(text, &err))?;
    if raw.tests.is_empty() {
        return Err(FileError::at(text, &(0..0), "tests: there is none: begin one with [[tests]]"));
    }
    let mut reader = Reader { text, named: Vec::new() };
    let tests: Result<Vec<_>, _> = raw.tests.into_iter().map(|raw| reader.test(raw)).collect();
    Ok(TestFile { rules: raw.rules.map(PathBuf::from), tests: tests?, named: reader.named })
}

impl TestFile {
    /// Whether each rule that the tests name is one of these.
    pub fn check_names(&self, rules: &RuleSet) -> Result<(), FileError> {
        let Some((name, location)) = self.named.iter().find(|(name, _)| rules.rule(name).is_none()) else {
            return Ok(());
        };
        let known = rules.rules.iter().map(|rule| &*rule.name);
        let hint = nearest(name, known).map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        Err(FileError { location: *location, message: format!("rule: there is no rule `{name}`{hint}") })
    }
}

struct Reader<'a> {
    text: &'a str,
    named: Vec<(String, Location)>,
}

impl Reader<'_> {
    fn test(&mut self, spanned: Spanned<RawTest>) -> Result<Test, FileError> {
        let whole = spanned.span();
        let raw = spanned.into_inner();
        let Some(name) = raw.name else {
            return Err(self.error(&whole, "name: a test needs one, such as name = \"a short peak does not fire\""));
        };
        if raw.expect.is_none() && raw.firing.is_empty() {
            return Err(self.error(&whole, "expect: a test says what happens; expect = [] means nothing"));
        }
        let mut reports = self.series(&whole, raw.interval.as_ref(), raw.series)?;
        for moment in raw.timeline {
            reports.push(self.moment(moment)?);
        }
        reports.sort_by_key(|report| report.at);
        let expect = raw.expect.map(|all| all.into_iter().map(|raw| self.expected(raw)).collect()).transpose()?;
        let expect: Option<Vec<Expected>> = expect;
        let mut firing = Vec::new();
        for raw in raw.firing {
            raw.rules.iter().for_each(|rule| self.name(rule));
            let names = raw.rules.into_iter().map(Spanned::into_inner).collect();
            firing.push((self.time("at", &raw.at)?, names));
        }
        raw.only.iter().for_each(|rule| self.name(rule));
        let last_report = reports.last().map(|report| report.at);
        let until =
            raw.until.as_ref().map(|until| self.time("until", until).map(|at| (at, until.span()))).transpose()?;
        if let (Some((until, span)), Some(last)) = (&until, last_report)
            && *until < last
        {
            return Err(self.error(span, &format!("until: a report comes after it, at {}", show_duration(last))));
        }
        let moments = expect.iter().flatten().map(|expected| expected.at).chain(firing.iter().map(|(at, _)| *at));
        let end = moments.chain(last_report).chain(until.map(|(until, _)| until)).max().unwrap_or_default();
        Ok(Test {
            name,
            location: Location::of(self.text, whole.start),
            key: InstanceKey::new(
                &self.named_thing("service", raw.service, DEFAULT_SERVICE)?,
                &self.named_thing("instance", raw.instance, DEFAULT_INSTANCE)?,
            ),
            only: raw.only.into_iter().map(Spanned::into_inner).collect(),
            reports,
            // The second in which it ends has its tick.
            until: Duration::from_secs(end.as_secs() + u64::from(end.subsec_nanos() > 0)),
            expect,
            firing,
        })
    }

    /// The reports of `series`: one at each step at which at least one metric has a reading.
    fn series(
        &self,
        whole: &Range<usize>,
        interval: Option<&Spanned<String>>,
        series: BTreeMap<Spanned<String>, Spanned<String>>,
    ) -> Result<Vec<Report>, FileError> {
        let mut metrics: Vec<(Name, Vec<Option<f64>>)> = Vec::new();
        for (name, text) in series {
            let readings = parse_series(text.get_ref());
            let readings = readings.map_err(|why| self.error(&text.span(), &format!("series: {why}")))?;
            metrics.push((self.metric(name.get_ref(), &name.span())?, readings));
        }
        let n_steps = metrics.iter().map(|(_, readings)| readings.len()).max().unwrap_or(0);
        let step = match interval {
            _ if n_steps == 0 => return Ok(Vec::new()),
            None => return Err(self.error(whole, "interval: `series` needs one, such as interval = \"10s\"")),
            Some(interval) => self.time("interval", interval)?,
        };
        let span = interval.map_or(0..0, Spanned::span);
        if step.is_zero() {
            return Err(self.error(&span, "interval: use 1ms or more"));
        }
        if n_steps * metrics.len() > MAX_READINGS || step.saturating_mul(n_steps as u32) > MAX_LENGTH {
            let most = show_duration(MAX_LENGTH);
            return Err(
                self.error(&span, &format!("series: it has more than {MAX_READINGS} readings or lasts over {most}"))
            );
        }
        let report = |n: usize| {
            let reading = |(name, all): &(Name, Vec<Option<f64>>)| Some((name.clone(), (*all.get(n)?)?));
            let metrics: Vec<_> = metrics.iter().filter_map(reading).collect();
            (!metrics.is_empty()).then(|| Report { at: step * n as u32, metrics, leaving: false })
        };
        Ok((0..n_steps).filter_map(report).collect())
    }

    /// One moment of `timeline`.
    fn moment(&self, spanned: Spanned<BTreeMap<Spanned<String>, Spanned<toml::Value>>>) -> Result<Report, FileError> {
        let whole = spanned.span();
        let (mut at, mut leaving, mut metrics) = (None, false, Vec::new());
        for (field, value) in spanned.into_inner() {
            let span = value.span();
            match (field.get_ref().as_str(), value.into_inner()) {
                ("at", toml::Value::String(text)) => at = Some(self.time("at", &Spanned::new(span, text))?),
                ("leaving", toml::Value::Boolean(yes)) => leaving = yes,
                ("metrics", toml::Value::Table(table)) => {
                    for (name, value) in table {
                        metrics.push((self.metric(&name, &span)?, self.reading(&name, &value, &span)?));
                    }
                }
                ("at", _) => return Err(self.error(&span, "at: expected a time such as \"10s\"")),
                ("leaving", _) => return Err(self.error(&span, "leaving: expected true or false")),
                ("metrics", _) => return Err(self.error(&span, "metrics: expected a table, metrics = { name = 1 }")),
                (name, value) => {
                    metrics.push((self.metric(name, &field.span())?, self.reading(name, &value, &field.span())?));
                }
            }
        }
        let Some(at) = at else {
            return Err(self.error(&whole, "at: a moment of the timeline needs one, such as at = \"10s\""));
        };
        Ok(Report { at, metrics, leaving })
    }

    fn metric(&self, name: &str, span: &Range<usize>) -> Result<Name, FileError> {
        if is_valid_name(name) {
            return Ok(name.into());
        }
        Err(self.error(span, &format!("`{name}` is no name of a metric: use 1 to 128 of A-Z a-z 0-9 _ . : / -")))
    }

    fn reading(&self, name: &str, value: &toml::Value, span: &Range<usize>) -> Result<f64, FileError> {
        let number = match value {
            toml::Value::Integer(number) => Some(*number as f64),
            toml::Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        };
        number.ok_or_else(|| {
            let meant = nearest(name, MOMENT_FIELDS);
            let hint = meant.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
            self.error(span, &format!("{name}: a reading is a number{hint}"))
        })
    }

    fn expected(&mut self, raw: RawExpected) -> Result<Expected, FileError> {
        self.name(&raw.rule);
        let kind = match raw.event.get_ref().as_str() {
            "raise" => EventKind::Raise,
            "resolve" => EventKind::Resolve,
            "repeat" => EventKind::Repeat,
            "record" => EventKind::Record,
            other => {
                let known = ["raise", "resolve", "repeat", "record"];
                let hint = nearest(other, known).map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
                return Err(self.error(&raw.event.span(), &format!("event: use one of {}{hint}", known.join(", "))));
            }
        };
        if let Some(reason) = &raw.reason {
            if kind != EventKind::Resolve {
                return Err(self.error(&reason.span(), "reason: only a resolve has one"));
            }
            if reason.get_ref().parse::<ResolveReason>().is_err() {
                return Err(self.error(&reason.span(), "reason: use \"cleared\", \"left\" or \"forgotten\""));
            }
        }
        let severity = raw.severity.map(|word| {
            let unknown = || self.error(&word.span(), "severity: use \"info\", \"warning\" or \"critical\"");
            word.get_ref().parse().map_err(|()| unknown())
        });
        Ok(Expected {
            at: self.time("at", &raw.at)?,
            rule: raw.rule.into_inner(),
            kind,
            metric: raw.metric,
            value: raw.value,
            severity: severity.transpose()?,
            reason: raw.reason.map(Spanned::into_inner),
            summary: raw.summary,
        })
    }

    /// Remembers a rule's name, to be looked up when there are rules.
    fn name(&mut self, rule: &Spanned<String>) {
        self.named.push((rule.get_ref().clone(), Location::of(self.text, rule.span().start)));
    }

    fn named_thing(&self, field: &str, name: Option<Spanned<String>>, default: &str) -> Result<String, FileError> {
        match name {
            None => Ok(default.to_owned()),
            Some(name) if is_valid_name(name.get_ref()) => Ok(name.into_inner()),
            Some(name) => Err(self.error(&name.span(), &format!("{field}: use 1 to 128 of A-Z a-z 0-9 _ . : / -"))),
        }
    }

    fn time(&self, field: &str, text: &Spanned<String>) -> Result<Duration, FileError> {
        match parse_duration(text.get_ref()) {
            Ok(time) if time <= MAX_LENGTH => Ok(time),
            Ok(_) => Err(self.error(&text.span(), &format!("{field}: use {} or less", show_duration(MAX_LENGTH)))),
            Err(why) => Err(self.error(&text.span(), &format!("{field}: {why}"))),
        }
    }

    fn error(&self, span: &Range<usize>, message: &str) -> FileError {
        FileError::at(self.text, span, message)
    }
}
