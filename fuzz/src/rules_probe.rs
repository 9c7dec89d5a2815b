//! What must hold of any text, whoever wrote it: reading it takes no longer than its length allows, and never panics;
//! what can be read can be written and read again, and means the same.
//!
//! The fuzzer calls this with what it makes up, and `cargo test` with what the fuzzer has found (src/rules/tests/fuzz.rs).

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::gopherwatch::{
    model::{Event, InstanceKey, Name, Row, Timestamp},
    rules::{Hush, Progress, Reading, Rule, RuleSet, evaluate, look, parse_file},
};

/// What reading may take, and for each KiB of text. The first is what a busy machine may take for nothing.
const MOST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(1));
/// The quickest of so many readings counts: one may have lost its processor half-way.
const REPETITIONS: u32 = 5;

/// Panics where something does not hold.
pub(crate) fn probe(text: &str) {
    for file in [text.to_owned(), rule("when", text), format!("{}clear = {}", rule("when", "a > 1"), quoted(text))] {
        takes_no_longer_than_its_length_allows(&file);
        let Some(rules) = parse_file(&file, None).ok().and_then(|content| content.rules) else { continue };
        for rule in &rules {
            is_the_same_written_out(rule);
        }
        play(rules);
    }
}

/// A rule with one field of this text.
fn rule(field: &str, text: &str) -> String {
    format!("[[rules]]\nname = \"rule\"\n{field} = {}\n", quoted(text))
}

/// The text as TOML writes it.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// Panics where reading a file takes longer than 1 ms for each KiB of it.
pub(crate) fn takes_no_longer_than_its_length_allows(file: &str) {
    let kibibytes = u32::try_from(file.len() / 1_024).expect("a text of a few MiB at most");
    let most = MOST.0 + MOST.1 * kibibytes;
    let took = |_| {
        let began = Instant::now();
        let _ = parse_file(file, None);
        began.elapsed()
    };
    // Once is nearly always enough.
    let mut attempts = (0..REPETITIONS).map(took);
    assert!(attempts.any(|took| took <= most), "reading {} bytes takes longer than {most:?}", file.len());
}

/// The rule as [`Display`](std::fmt::Display) has it says the same, and comes out the same.
fn is_the_same_written_out(rule: &Rule) {
    let fields = |when: &str, clear: Option<&str>| {
        let clear = clear.map_or_else(String::new, |clear| format!("clear = {}\n", quoted(clear)));
        format!("[[rules]]\nname = \"rule\"\nwhen = {}\n{clear}", quoted(when))
    };
    let (when, clear) = (rule.when.to_string(), rule.clear.as_ref().map(ToString::to_string));
    let again = read_one(&fields(&when, clear.as_deref()));
    assert_eq!(again.when.to_string(), when);
    assert_eq!(again.clear.as_ref().map(ToString::to_string), clear);
    let original = read_one(&fields(&rule.when_text, rule.clear_text.as_deref()));
    let told = |event: Event| (event.kind, event.alert.metric.clone(), event.alert.value.to_bits());
    let events = |rule| play(vec![rule]).into_iter().map(told).collect::<Vec<_>>();
    assert_eq!(events(again), events(original), "{when}");
}

fn read_one(file: &str) -> Rule {
    let rules = parse_file(file, None).unwrap_or_else(|err| panic!("{err}\n{file}"));
    rules.rules.and_then(|mut rules| rules.pop()).expect("one rule was written")
}

/// Some reports of the metrics that the rules name, some without, and silences between; what they lead to.
fn play(rules: Vec<Rule>) -> Vec<Event> {
    let names: BTreeSet<Name> = rules.iter().flat_map(|rule| &rule.mentions).map(|(name, _)| name.clone()).collect();
    let names: Vec<Name> = names.into_iter().take(256).collect();
    let key = Arc::new(InstanceKey::new("web", "a"));
    let rules = RuleSet::new(rules, "fuzz".to_owned());
    let mut progress = Progress::new(rules.plan(&key));
    let mut events = Vec::new();
    for sequence in 1..=8_u64 {
        // Back and forth, and twice by minutes.
        let seconds = [0, 1, 2, 700, 690, 691, 692, 4_000][sequence as usize - 1];
        let at = Timestamp::from_nanos(1_800_000_000_000_000_000).plus(Duration::from_secs(seconds));
        let value = |place: usize| [0.0, 1.0, 95.0, -3.0, 1e300, 0.5, 95.0, 2.0][(place + sequence as usize) % 8];
        let present = |place: usize| !(place as u64 + sequence).is_multiple_of(3);
        let metrics: Vec<(Name, f64)> = (0..names.len())
            .filter(|place| present(*place))
            .map(|place| (names[place].clone(), value(place)))
            .collect();
        let metrics = Row::new(&metrics);
        let reading = Reading {
            key: &key,
            metrics: metrics.readings(),
            at,
            wire_time: at.as_nanos().unsigned_abs(),
            received_at: at,
            skew_nanos: 0,
            epoch: 1,
            sequence,
        };
        let outcome = evaluate(&progress, &reading);
        events.extend(progress.apply(outcome, metrics.readings(), at));
        let lacking = |_: &str| Some(Duration::from_secs(seconds));
        let hush = Hush { silent: Duration::from_secs(20), patience: Duration::from_secs(30), lacking: &lacking };
        let outcome = look(&progress, &key, Some(hush), at);
        events.extend(progress.apply_look(outcome, at));
    }
    for alert in events.iter().map(|event| &event.alert) {
        assert!(alert.value.is_finite(), "{alert:?}");
        assert!(alert.evidence.as_ref().is_none_or(|evidence| (1..=60).contains(&evidence.points.len())), "{alert:?}");
        assert!(alert.resolved_at.is_none_or(|at| at >= alert.triggered_at), "{alert:?}");
    }
    events
}
