//! The end of a run: every fault is healed, everything is sent and delivered, and then all of it must be right.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{disk::Fault, oracle::in_one_go, rules, server::RECEIVER, store::Mood, world::World};
use crate::{
    deliver::STORE,
    model::{Alert, Event, EventKind, InstanceKey, Timestamp},
};

/// Rounds in which everything must be through.
const ROUNDS: usize = 400;

impl World {
    /// Heals, drains, restarts once more, and checks.
    pub(super) fn end(&mut self) {
        self.ground.wire.fault.set(Fault::None);
        if self.store.mood() != Mood::Well {
            self.store.set_mood(Mood::Broken);
        }
        self.drain();
        // Dead letters are tried again at a start, and what is restored must still be all of it.
        self.crash();
        self.pass(Duration::from_secs(1));
        self.start();
        self.drain();
        self.check();
    }

    fn drain(&mut self) {
        for _ in 0..ROUNDS {
            for agent_idx in 0..self.agents.len() {
                self.send_of(agent_idx, usize::MAX);
                self.end_stream_of(agent_idx);
            }
            assert!(self.work_off(), "the journal ended, and the disk is well");
            self.poll(false);
            let is_done = self.server.as_ref().is_some_and(|server| server.is_idle());
            if is_done && self.agents.iter().all(|agent| agent.buffer.is_empty()) {
                return self.deliver();
            }
        }
        panic!("{ROUNDS} rounds, and there are still reports without a receipt");
    }

    fn deliver(&mut self) {
        // What a store may have lost is delivered again once a minute at most: two of these, and both are seen through.
        for _ in 0..2 {
            self.pass(Duration::from_secs(61));
            let mut n_steps = 0;
            while !self.deliver_step() {
                n_steps += 1;
                assert!(n_steps < 20_000, "the writer never ends");
            }
        }
        let Self { server, ledger, .. } = self;
        let server = server.as_mut().expect("it runs");
        for log in [true, false] {
            server.run_sinks(ledger, log, usize::MAX >> 1);
        }
        // The cursors are saved.
        self.pass(Duration::from_secs(2));
        assert!(self.work_off(), "the journal ended, and the disk is well");
    }

    fn deliver_step(&mut self) -> bool {
        self.pass(Duration::from_millis(25));
        let now = self.moment();
        self.server.as_mut().expect("it runs").run_writer(now)
    }

    fn check(&mut self) {
        let server = self.server.as_ref().expect("it runs");
        server.check_accounts();
        let balance = server.stats.balance();
        assert_eq!((balance.queued, balance.pending), (0, 0), "everything is through: {balance:?}");
        let events = &self.ledger.log;
        let numbers: Vec<_> = events.keys().copied().collect();
        assert_eq!(numbers, (1..=balance.events).collect::<Vec<_>>(), "the log has every event");
        self.check_letters(events);
        let mut news = events.clone();
        news.retain(|_, event| event.kind != EventKind::Restate);
        self.check_events(&news);
        self.check_reports(&news);
        self.check_rows(&news);
    }

    /// The journal's events are those of the oracle, once each and in order, to the last field.
    fn check_events(&self, events: &BTreeMap<u64, Event>) {
        let mut by_instance: BTreeMap<Arc<InstanceKey>, Vec<Event>> = BTreeMap::new();
        for event in events.values() {
            by_instance.entry(event.alert.key.clone()).or_default().push(event.clone());
        }
        let wanted = self.oracle.events();
        for (key, wanted) in &wanted {
            let found = by_instance.remove(key).unwrap_or_default();
            for (place, wanted) in wanted.iter().enumerate() {
                assert_eq!(found.get(place), Some(wanted), "event {place} of {key} (left: the journal's)");
            }
            assert_eq!(found.len(), wanted.len(), "events of {key}");
        }
        assert!(by_instance.is_empty(), "events of nobody: {by_instance:?}");
    }

    /// Where nothing but reports has had a say, the events are those of the reports alone, whatever has been between.
    /// That is not so where the rules were changed or an instance was forgotten, since where in the order of its reports
    /// that came is up to the schedule; nor of reports without a number, which may be lost before their receipt; nor of
    /// silence, which begins anew with the server. There the other oracle alone speaks.
    fn check_reports(&self, events: &BTreeMap<u64, Event>) {
        if self.has_reloaded {
            return;
        }
        let rules = self.rules();
        for agent in self.agents.iter().filter(|agent| agent.is_numbered) {
            for key in agent.keys().filter(|key| !self.oracle.was_forgotten(key)) {
                let of_reports = |event: &&Event| event.alert.key == *key && rules::is_about_reports(&event.alert.rule);
                let found: Vec<_> = events.values().filter(of_reports).map(without_arrival).collect();
                let wanted: Vec<_> = in_one_go(&rules, key, &agent.made).iter().map(without_arrival).collect();
                assert_eq!(found, wanted, "events of {key}'s reports (left: the journal's)");
            }
        }
    }

    /// Dead letters of the store are exactly the events that it refuses for ever, of those that came while it was there.
    fn check_letters(&self, events: &BTreeMap<u64, Event>) {
        let server = self.server.as_ref().expect("it runs");
        let letters = server.dead_letters(&self.ground.dir.join("journal.db"));
        let of = |name: &str| letters.iter().filter(|(sink, _)| sink == name).map(|(_, seq)| *seq).collect::<Vec<_>>();
        let dead = of(STORE);
        for seq in &dead {
            assert!(self.store.refuses(events[seq].alert.alert_id), "event {seq} is a dead letter, and is not refused");
        }
        for (seq, event) in events.range(self.store_since + 1..) {
            let must = self.store.refuses(event.alert.alert_id) && event.kind != EventKind::Repeat;
            assert!(!must || dead.contains(seq), "event {seq} is refused, and is no dead letter");
        }
        assert_eq!(server.stats.balance().dead_letter, dead.len() as u64, "dead letters are counted");
        // The receiver has had, or given up, every event.
        let given_up = of(RECEIVER);
        for seq in events.keys() {
            let known = self.ledger.receiver.contains_key(seq) || given_up.contains(seq);
            assert!(known, "the receiver has neither had event {seq} nor given it up");
        }
    }

    /// The store has each row once, as it was after its last event: all that came while it was there, and what fired as
    /// it came.
    fn check_rows(&self, events: &BTreeMap<u64, Event>) {
        let mut last: BTreeMap<_, (u64, &Arc<Alert>)> = BTreeMap::new();
        for (seq, event) in events.iter().filter(|(_, event)| event.kind != EventKind::Repeat) {
            let known = last.insert(event.alert.alert_id, (*seq, &event.alert));
            let before = known.map_or(0, |(_, alert)| alert.version);
            assert_eq!(event.alert.version, before + 1, "each event of {} is the next version", event.alert.alert_id);
        }
        let rows = self.store.rows();
        for (alert_id, row) in &rows {
            let wanted = last.get(alert_id).map(|(_, alert)| *alert);
            assert_eq!(Some(row), wanted, "the row of {alert_id} (left: the store's)");
            assert!(!self.store.refuses(*alert_id), "a row of {alert_id}, which is refused");
        }
        for (alert_id, (seq, alert)) in &last {
            let must = *seq > self.store_since || alert.resolved_at.is_none() || self.introduced.contains(alert_id);
            let is_there = rows.contains_key(alert_id) || self.store.refuses(*alert_id);
            assert!(!must || is_there, "the store lacks the row of event {seq}: {alert:?}");
        }
    }
}

fn without_arrival(event: &Event) -> Event {
    let alert = Alert { received_at: Timestamp::default(), late: false, ..(*event.alert).clone() };
    Event { kind: event.kind, alert: Arc::new(alert) }
}
