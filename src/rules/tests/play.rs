//! Plays a timeline: reports in, events out.
//!
//! A timeline is words. `10s:95` is a report read 10 s after the start with a cpu_percent of 95, `10s:a=1,d/e=2` one with
//! these metrics, `10s:` one without any. `10s@70s:95` was read at 10 s and arrived at 70 s. A time may be negative.

use std::{sync::Arc, time::Duration};

use expect_test::Expect;

use crate::{
    model::{Event, EventKind, InstanceKey, Name, Timestamp},
    rules::{Hush, Progress, Reading, RuleSet, evaluate, look, parse_file},
    units::parse_duration,
};

/// When timelines start.
pub(super) const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

/// The rules of a file.
pub(super) fn rules(text: &str) -> RuleSet {
    let rules = parse_file(text, None).unwrap_or_else(|err| panic!("{err}\n{text}")).expect("with rules");
    RuleSet::new(rules, "test".to_owned())
}

/// One rule of these fields, `; ` between them.
pub(super) fn rule(fields: &str) -> RuleSet {
    rules(&format!("[[rules]]\nname = \"rule\"\n{}", fields.replace("; ", "\n")))
}

/// One instance, `web/a`, and what is left of the events that came of its reports.
pub(super) struct Player {
    pub(super) progress: Progress,
    pub(super) rules: RuleSet,
    key: Arc<InstanceKey>,
    sequence: u64,
    events: Vec<String>,
}

impl Player {
    pub(super) fn new(rules: RuleSet) -> Self {
        let key = Arc::new(InstanceKey::new("web", "a"));
        let rules = rules.succeeding(&[], START);
        let progress = Progress::new(rules.plan(&key));
        Self { progress, rules, key, sequence: 0, events: Vec::new() }
    }

    /// Plays a timeline.
    pub(super) fn play(mut self, timeline: &str) -> Self {
        for step in timeline.split_whitespace() {
            let (times, values) = step.split_once(':').expect("times:values");
            let (read, arrived) = times.split_once('@').unwrap_or((times, times));
            let events = self.report(time(read), time(arrived), &readings(values));
            self.note(times, &events);
        }
        self
    }

    /// One report; what came of it.
    pub(super) fn report(&mut self, at: Timestamp, received_at: Timestamp, metrics: &[(Name, f64)]) -> Vec<Event> {
        self.sequence += 1;
        let reading = Reading {
            key: &self.key,
            metrics,
            at,
            wire_time: at.as_nanos().unsigned_abs(),
            received_at,
            skew_nanos: 0,
            epoch: 1,
            sequence: self.sequence,
        };
        let outcome = evaluate(&self.progress, &reading);
        self.progress.apply(outcome, metrics, received_at)
    }

    /// Other rules come into force.
    pub(super) fn reload(mut self, at: &str, rules: RuleSet) -> Self {
        self.rules = rules.succeeding(&self.rules.records(), time(at));
        let events = self.progress.adopt(self.rules.plan(&self.key), time(at));
        self.note(at, &events);
        self
    }

    /// The instance has been silent, and its reports have lacked some metric, for so long.
    pub(super) fn silent(mut self, at: &str, silent: &str, lacking: Option<&str>) -> Self {
        let lacking = |_: &str| lacking.map(duration);
        let hush = Hush { silent: duration(silent), patience: Duration::from_secs(30), lacking: &lacking };
        let outcome = look(&self.progress, &self.key, Some(hush), time(at));
        let events = self.progress.apply_look(outcome, time(at));
        self.note(at, &events);
        self
    }

    fn note(&mut self, at: &str, events: &[Event]) {
        self.events.extend(events.iter().map(|event| format!("{at} {}", told(event))));
    }

    /// What has happened, an event a line.
    pub(super) fn told(&self) -> String {
        self.events.join("\n")
    }
}

/// An event in a line.
fn told(event: &Event) -> String {
    let alert = &event.alert;
    let rule = &alert.rule;
    match event.kind {
        EventKind::Raise => format!("{rule} raise {} {} {}", alert.severity, alert.metric, alert.value),
        EventKind::Resolve => {
            let why = alert.resolve_reason.expect("resolved");
            format!("{rule} resolve {why} {}", alert.last_value)
        }
        EventKind::Record => format!("{rule} record {}", alert.value),
        EventKind::Update => format!("{rule} update {} {}", alert.severity, alert.summary),
        EventKind::Repeat => format!("{rule} repeat"),
    }
}

/// Plays the timeline and writes down every event.
pub(super) fn play(rules: RuleSet, timeline: &str) -> String {
    Player::new(rules).play(timeline).told()
}

/// What one rule makes of a timeline.
pub(super) fn check(fields: &str, timeline: &str, expected: &Expect) {
    expected.assert_eq(&play(rule(fields), timeline));
}

/// So long after the start; before it with a `-`.
pub(super) fn time(text: &str) -> Timestamp {
    match text.strip_prefix('-') {
        Some(before) => START.minus(duration(before)),
        None => START.plus(duration(text)),
    }
}

fn duration(text: &str) -> Duration {
    parse_duration(text).expect("a duration")
}

pub(super) fn readings(text: &str) -> Vec<(Name, f64)> {
    if text.is_empty() {
        return Vec::new();
    }
    let reading = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.into(), value.parse().expect("a number")),
        None => ("cpu_percent".into(), text.parse().expect("a number")),
    };
    text.split(',').map(reading).collect()
}
