//! Plays a test's reports and the seconds between them.

use std::{sync::Arc, time::Duration};

use super::{Report, Test};
use crate::{
    model::{Event, InstanceKey, Name, Row, Timestamp},
    rules::{Reading, RuleSet, evaluate},
    state::{Arrival, Deadlines, Heard, InstanceState},
};

/// When tests begin; any time would do.
const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
/// The time between two ticks, as the server's.
const TICK: Duration = Duration::from_secs(1);
/// The defaults of the server's flags.
const DEADLINES: Deadlines = Deadlines { stale_after: None, forget_after: Duration::from_secs(86_400) };

/// Something that happened.
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) event: Event,
}

/// What came of a test.
pub(super) struct Played {
    /// In the order in which it happened.
    pub(super) seen: Vec<Seen>,
    /// The rules that fired at each of the test's moments.
    pub(super) firing: Vec<Vec<Name>>,
}

/// Plays the test. At one moment a report comes before the tick, and a look at what fires behind both.
pub(super) fn play(rules: &RuleSet, test: &Test) -> Played {
    let mut player = Player { rules, key: Arc::new(test.key.clone()), instance: None, sequence: 0, seen: Vec::new() };
    let mut looks: Vec<(usize, Duration)> = test.firing.iter().map(|(at, _)| *at).enumerate().collect();
    looks.sort_by_key(|(_, at)| *at);
    let mut firing = vec![Vec::new(); looks.len()];
    let mut looks = looks.into_iter().peekable();
    let mut reports = test.reports.iter().peekable();
    let mut tick = Duration::ZERO;
    while tick <= test.until {
        // What lies between this tick and the one before.
        loop {
            let report_at = reports.peek().map_or(Duration::MAX, |report| report.at);
            let look_at = looks.peek().map_or(Duration::MAX, |(_, at)| *at);
            if report_at <= tick && report_at <= look_at {
                reports.next().into_iter().for_each(|report| player.report(report));
            } else if look_at < tick {
                looks.next().into_iter().for_each(|(place, _)| firing[place] = player.firing());
            } else {
                break;
            }
        }
        player.tick(tick);
        while let Some((place, _)) = looks.next_if(|(_, at)| *at == tick) {
            firing[place] = player.firing();
        }
        tick += TICK;
    }
    Played { seen: player.seen, firing }
}

struct Player<'a> {
    rules: &'a RuleSet,
    key: Arc<InstanceKey>,
    /// `None`: never heard of.
    instance: Option<InstanceState>,
    sequence: u64,
    seen: Vec<Seen>,
}

impl Player<'_> {
    fn report(&mut self, Report { at, metrics, leaving }: &Report) {
        let (heard, now) = (Heard::after(*at), START.plus(*at));
        let fresh = || InstanceState::new(self.key.clone(), self.rules.plan(&self.key), heard);
        let instance = self.instance.get_or_insert_with(fresh);
        if !instance.is_shown() {
            instance.come_back(heard);
        }
        self.sequence += 1;
        let metrics = Row::new(metrics);
        let reading = Reading {
            key: &self.key,
            metrics: metrics.readings(),
            at: now,
            wire_time: now.as_nanos().unsigned_abs(),
            received_at: now,
            skew_nanos: 0,
            epoch: 1,
            sequence: self.sequence,
        };
        let outcome = evaluate(&instance.progress, &reading);
        let arrival = Arrival { metrics: metrics.readings(), at: now, leaving: *leaving, received_at: now, heard };
        let events = instance.take_report(outcome, &arrival);
        self.note(*at, events);
    }

    fn tick(&mut self, at: Duration) {
        let Some(instance) = &mut self.instance else { return };
        let events = instance.take_time(DEADLINES, Heard::after(at), START.plus(at));
        self.note(at, events);
    }

    fn note(&mut self, at: Duration, events: Vec<Event>) {
        self.seen.extend(events.into_iter().map(|event| Seen { at, event }));
    }

    fn firing(&self) -> Vec<Name> {
        let firing = self.instance.iter().flat_map(|instance| &instance.progress.firing);
        firing.map(|firing| firing.alert.rule.clone()).collect()
    }
}
