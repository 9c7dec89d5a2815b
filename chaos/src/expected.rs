//! What the history must hold: the rules of CONTRACT.md §3 applied to the ledger, by no code of the server.
//!
//! It is kept as plain as the contract's own words: three-valued comparisons, pending, firing, clear. Readings of an
//! instance never go back in time here, so that evaluation time is the reading's own.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use crate::{
    ledger::{Contents, Sent, names},
    rules::{METRICS, RULES, Rule},
};

const NANOS_PER_MS: u64 = 1_000_000;
/// A longer gap between two reports of an instance restarts what is pending.
const MAX_GAP: u64 = 5 * 60 * 1_000 * NANOS_PER_MS;

/// Which episode: no instance begins two of one rule at one time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: String,
    /// The rule.
    pub rule: String,
    /// When it fired, microseconds since 1970.
    pub triggered_at: u64,
}

/// What a row must say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// The metric.
    pub metric: &'static str,
    /// Its reading as it fired.
    pub value: f64,
    /// The rule's threshold.
    pub threshold: f64,
    /// The rule's severity.
    pub severity: &'static str,
    /// When it was clear again; `None`: it still fires.
    pub resolved_at: Option<u64>,
}

/// What an instance is going through by one rule.
#[derive(Clone, Default)]
struct Life {
    /// The readings of the rule's window, and when they were taken.
    window: VecDeque<(u64, f64)>,
    pending_since: Option<u64>,
    /// When it fired, and what it was.
    firing: Option<(u64, f64)>,
    clear_since: Option<u64>,
    last_report: u64,
}

/// Every episode of these ledgers.
pub fn episodes(ledgers: &[Contents]) -> BTreeMap<Key, Episode> {
    let mut episodes = BTreeMap::new();
    for ledger in ledgers {
        let mut lives: BTreeMap<(u32, usize), Life> = BTreeMap::new();
        for sent in &ledger.sent {
            for (place, rule) in RULES.iter().enumerate() {
                let life = lives.entry((sent.instance, place)).or_default();
                if let Some((began, value, ended)) = life.report(rule, sent) {
                    add(&mut episodes, ledger, sent.instance, rule, (began, value), Some(ended));
                }
            }
        }
        for ((instance, place), life) in lives {
            if let Some(firing) = life.firing {
                add(&mut episodes, ledger, instance, &RULES[place], firing, None);
            }
        }
    }
    episodes
}

fn add(
    episodes: &mut BTreeMap<Key, Episode>,
    ledger: &Contents,
    instance: u32,
    rule: &Rule,
    (began, value): (u64, f64),
    ended: Option<u64>,
) {
    let (service, instance) = names(&ledger.stream, instance);
    let key = Key { service, instance, rule: rule.name.to_owned(), triggered_at: began / 1_000 };
    let episode = Episode {
        metric: METRICS[rule.metric],
        value,
        threshold: rule.when.threshold(),
        severity: rule.severity,
        resolved_at: ended.map(|ended| ended / 1_000),
    };
    let before = episodes.insert(key, episode);
    assert!(before.is_none(), "the ledger has two reports of an instance with one time: {before:?}");
}

impl Life {
    /// One report; the episode that it ends.
    fn report(&mut self, rule: &Rule, sent: &Sent) -> Option<(u64, f64, u64)> {
        let now = sent.time;
        if self.pending_since.is_some() && now - self.last_report > MAX_GAP {
            self.pending_since = None;
        }
        self.last_report = now;
        // A report that lacks the metric is no evidence, for or against.
        let value = self.term(rule, sent)?;
        let violated = rule.when.holds(value);
        let Some((began, first)) = self.firing else {
            self.pending_since = if violated { self.pending_since.or(Some(now)) } else { None };
            if self.pending_since.is_some_and(|since| now - since >= rule.for_ms * NANOS_PER_MS) {
                let window = mem::take(&mut self.window);
                *self = Self { firing: Some((now, value)), window, last_report: now, ..Self::default() };
            }
            return None;
        };
        let clear = !violated && rule.clear.is_none_or(|clear| clear.holds(value));
        self.clear_since = if clear { self.clear_since.or(Some(now)) } else { None };
        let done = self.clear_since.is_some_and(|since| now - since >= rule.keep_ms * NANOS_PER_MS);
        done.then(|| {
            let window = mem::take(&mut self.window);
            *self = Self { window, last_report: now, ..Self::default() };
            (began, first, now)
        })
    }

    /// What the rule compares: the reading of the report, or the largest in (t − w, t], which a report that lacks the metric
    /// moves on, too.
    fn term(&mut self, rule: &Rule, sent: &Sent) -> Option<f64> {
        let reading = sent.values[rule.metric];
        if rule.over_ms == 0 {
            return reading;
        }
        self.window.extend(reading.map(|value| (sent.time, value)));
        let over = rule.over_ms * NANOS_PER_MS;
        while self.window.front().is_some_and(|(at, _)| at + over <= sent.time) {
            self.window.pop_front();
        }
        self.window.iter().map(|(_, value)| *value).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Test;

    /// When episodes begin and end, in milliseconds, for readings of one metric at these milliseconds; `None`: the
    /// report lacks it.
    fn lives(rule: Rule, readings: &[(u64, Option<f64>)]) -> Vec<(u64, Option<u64>)> {
        let mut life = Life::default();
        let mut episodes = Vec::new();
        for (at, value) in readings {
            let sent =
                Sent { instance: 0, epoch: 1, sequence: 1, time: at * NANOS_PER_MS, values: [*value, None, None] };
            if let Some((began, _, ended)) = life.report(&rule, &sent) {
                episodes.push((began / NANOS_PER_MS, Some(ended / NANOS_PER_MS)));
            }
        }
        episodes.extend(life.firing.map(|(began, _)| (began / NANOS_PER_MS, None)));
        episodes
    }

    const PLAIN: Rule = RULES[0];

    #[test]
    fn a_plain_threshold_fires_and_resolves_at_once() {
        let readings = [(0, Some(90.0)), (1, Some(90.5)), (2, None), (3, Some(95.0)), (4, Some(90.0)), (5, Some(91.0))];
        assert_eq!(lives(PLAIN, &readings), [(1, Some(4)), (5, None)]);
    }

    #[test]
    fn between_threshold_and_clear_nothing_changes() {
        let rule = Rule { clear: Some(Test::Below(80.0)), ..PLAIN };
        assert_eq!(lives(rule, &[(0, Some(91.0)), (1, Some(85.0)), (2, Some(95.0)), (3, Some(79.0))]), [(0, Some(3))]);
    }

    #[test]
    fn for_counts_from_the_first_true_report_and_only_false_ends_it() {
        let rule = Rule { for_ms: 10, ..PLAIN };
        assert_eq!(lives(rule, &[(0, Some(91.0)), (9, Some(91.0)), (10, Some(91.0))]), [(10, None)]);
        assert_eq!(lives(rule, &[(0, Some(91.0)), (5, Some(10.0)), (10, Some(91.0))]), []);
        assert_eq!(lives(rule, &[(0, Some(91.0)), (5, None), (10, Some(91.0))]), [(10, None)]);
        assert_eq!(lives(rule, &[(0, Some(91.0)), (300_001, Some(91.0)), (300_011, Some(91.0))]), [(300_011, None)]);
    }

    #[test]
    fn a_window_holds_what_is_younger_than_its_length_and_moves_with_every_report() {
        let rule = Rule { over_ms: 10, ..PLAIN };
        let readings =
            [(0, None), (1, Some(95.0)), (5, Some(5.0)), (10, None), (11, None), (20, Some(91.0)), (30, None)];
        // At 30 nothing is left in it, which says nothing.
        assert_eq!(lives(rule, &readings), [(1, Some(11)), (20, None)]);
    }

    #[test]
    fn it_must_be_clear_for_as_long_as_it_keeps_firing() {
        let rule = Rule { keep_ms: 10, ..PLAIN };
        let readings = [(0, 91.0), (1, 5.0), (5, 91.0), (6, 5.0), (15, 5.0), (16, 5.0), (17, 5.0)];
        assert_eq!(lives(rule, &readings.map(|(at, value)| (at, Some(value)))), [(0, Some(16))]);
    }
}
