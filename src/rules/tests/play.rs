//! Plays a timeline: reports in, events out.
//!
//! A timeline is words. `10s:95` is a report read 10 s after the start with a cpu_percent of 95, `10s:a=1,d/e=2` one with
//! these metrics, `10s:` one without any. `10s@70s:95` was read at 10 s and arrived at 70 s. A time may be negative, and
//! a nanosecond more or less: `10s+1ns`, `10s-1ns`.

use std::{sync::Arc, time::Duration};

use expect_test::Expect;

use crate::{
    model::{Alert, Event, EventKind, InstanceKey, Name, Readings, Row, Timestamp},
    rules::{Facts, Hush, Progress, Reading, Rule, RuleSet, Truth, evaluate, evaluate_sifted, look, parse_file},
    units::parse_duration,
};

/// When timelines start.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

/// The rules of a file.
pub(crate) fn rules(text: &str) -> RuleSet {
    let rules = parse_file(text, None).unwrap_or_else(|err| panic!("{err}\n{text}")).rules.expect("with rules");
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
    pub(super) key: Arc<InstanceKey>,
    sequence: u64,
    events: Vec<(String, Event)>,
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
        let row = Row::new(metrics);
        let reading = Reading {
            key: &self.key,
            metrics: row.readings(),
            at,
            wire_time: at.as_nanos().unsigned_abs(),
            received_at,
            skew_nanos: 0,
            epoch: 1,
            sequence: self.sequence,
        };
        let outcome = evaluate(&self.progress, &reading);
        let sifting = self.rules.sieve.sifting(row.layout());
        let sifted = evaluate_sifted(&self.progress, &reading, &sifting);
        assert_eq!(format!("{sifted:?}"), format!("{outcome:?}"), "what the sieve passes over is quiet");
        self.progress.apply(outcome, row.readings(), received_at)
    }

    /// Other rules come into force.
    pub(super) fn reload(mut self, at: &str, rules: RuleSet) -> Self {
        self.rules = rules.succeeding(&self.rules.records(), time(at));
        let events = self.progress.adopt(self.rules.plan(&self.key), time(at));
        self.note(at, &events);
        self
    }

    /// The instance has been silent, and its reports have lacked some metric, for so long.
    pub(super) fn silent(self, at: &str, silent: &str, lacking: Option<&str>) -> Self {
        let lacking = |_: &str| lacking.map(duration);
        let hush = Hush { silent: duration(silent), patience: Duration::from_secs(30), lacking: &lacking };
        self.look(at, Some(hush))
    }

    /// Somebody looks at an instance whose silence means nothing: it has left, or was never heard enough.
    pub(super) fn unheeded(self, at: &str) -> Self {
        self.look(at, None)
    }

    fn look(mut self, at: &str, hush: Option<Hush<'_>>) -> Self {
        let outcome = look(&self.progress, &self.key, hush, time(at));
        let events = self.progress.apply_look(outcome, time(at));
        self.note(at, &events);
        self
    }

    fn note(&mut self, at: &str, events: &[Event]) {
        self.events.extend(events.iter().map(|event| (at.to_owned(), event.clone())));
    }

    /// What has happened, an event a line.
    pub(super) fn told(&self) -> String {
        let lines: Vec<_> = self.events.iter().map(|(at, event)| format!("{at} {}", told(event))).collect();
        lines.join("\n")
    }

    /// The alerts as they were behind each event of this kind.
    pub(super) fn alerts_of(&self, kind: EventKind) -> Vec<Arc<Alert>> {
        self.events.iter().filter(|(_, event)| event.kind == kind).map(|(_, event)| event.alert.clone()).collect()
    }

    /// The alerts as they were behind each event.
    pub(super) fn alerts(&self) -> Vec<Arc<Alert>> {
        self.events.iter().map(|(_, event)| event.alert.clone()).collect()
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
        EventKind::Repeat | EventKind::Restate => format!("{rule} {}", event.kind.as_str()),
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

/// What each report of a timeline answers to a condition: `T`rue, `F`alse or `?`.
pub(super) fn asked(when: &str, timeline: &str) -> String {
    let mut player = Player::new(rule(&format!("when = '{when}'")));
    let rule = player.rules.rules[0].clone();
    let answer = |step: &str| {
        let (at, values) = step.split_once(':').expect("time:values");
        let (at, metrics) = (time(at), readings(values));
        let (_, now) = player.progress.clock.after(at);
        let row = Row::new(&metrics);
        let before = rule.when.ask(&facts(&player.progress, &rule, row.readings(), now, false));
        player.report(at, at, &metrics);
        let after = rule.when.ask(&facts(&player.progress, &rule, row.readings(), now, true));
        assert_eq!(before, after, "{when}: the report counts once, whether its windows have it yet or not");
        match before {
            Truth::True => 'T',
            Truth::False => 'F',
            Truth::Unknown => '?',
        }
    };
    timeline.split_whitespace().map(answer).collect()
}

fn facts<'a>(progress: &'a Progress, rule: &Rule, metrics: Readings<'a>, now: Timestamp, taken: bool) -> Facts<'a> {
    Facts { metrics, series: &progress.series, taken, generation: rule.generation, now }
}

/// So long after the start; before it with a `-`.
pub(super) fn time(text: &str) -> Timestamp {
    let (text, nudge) = match (text.strip_suffix("+1ns"), text.strip_suffix("-1ns")) {
        (Some(text), _) => (text, 1),
        (None, Some(text)) => (text, -1),
        (None, None) => (text, 0),
    };
    let time = match text.strip_prefix('-') {
        Some(before) => START.minus(duration(before)),
        None => START.plus(duration(text)),
    };
    time.shifted(nudge)
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
