//! One instance: its last readings, how far it has come, what its rules have made of it, whether it is there.

use std::{hint::black_box, sync::Arc, time::Duration};

use super::{Heard, Latest, Marks, Presence, Silence};
use crate::{
    model::{Event, InstanceKey, Name, Readings, ResolveReason, Timestamp},
    rules::{Explanation, Hush, Plan, Progress, Rule, RuleSet, Situation, explain},
};

/// What the journal has of an instance's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowRows {
    /// Nothing.
    None,
    /// So many rows, to which what came since can be added.
    Parts(u32),
    /// Rows that no longer say how its windows are.
    Outdated,
}

impl WindowRows {
    /// The windows are no longer what the rows say, and points more.
    fn outdate(&mut self) {
        if matches!(self, Self::Parts(_)) {
            *self = Self::Outdated;
        }
    }
}

/// What the server knows of one instance.
#[derive(Clone, Debug)]
pub struct InstanceState {
    /// Who it is.
    pub key: Arc<InstanceKey>,
    /// The last known value of each metric.
    pub latest: Latest,
    /// When that report was read; `None`: there was none.
    pub read_at: Option<Timestamp>,
    /// When the server last heard of it, by its own clock.
    pub last_seen: Timestamp,
    /// By how much its clock is ahead of the server's, in nanoseconds; `None`: not known.
    pub skew_nanos: Option<i64>,
    /// Its signs of life.
    pub silence: Silence,
    /// When each metric that a rule watches for its absence was last in a report.
    pub watched: Vec<(Name, Heard)>,
    /// Whether it is there.
    pub presence: Presence,
    /// Whether it has been silent for long.
    pub stale: bool,
    /// How far its numberings have come.
    pub marks: Marks,
    /// What its rules have made of its reports.
    pub progress: Progress,
    /// Whether the journal does not know it as it is now.
    pub unsaved: bool,
    /// Whether the journal knows that it is there.
    pub journaled: bool,
    /// What the journal has of its windows.
    pub window_rows: WindowRows,
}

impl InstanceState {
    /// An instance heard of for the first time.
    pub fn new(key: Arc<InstanceKey>, plan: Arc<Plan>, now: Heard) -> Self {
        Self {
            key,
            latest: Latest::default(),
            read_at: None,
            last_seen: Timestamp::default(),
            skew_nanos: None,
            silence: Silence::starting(now),
            watched: Vec::new(),
            presence: Presence::Present,
            stale: false,
            marks: Marks::default(),
            progress: Progress::new(plan),
            unsaved: true,
            journaled: false,
            window_rows: WindowRows::None,
        }
    }

    /// Reads something of every part that a report changes.
    pub(super) fn touch(&self) {
        let Self { latest, last_seen, silence, marks, progress, .. } = self;
        black_box((last_seen, silence.is_armed(), marks.of(0), latest.iter().next().map(|(_, value)| value)));
        black_box((progress.clock, progress.pending.len(), progress.firing.len()));
    }

    /// Whether REST shows it.
    pub fn is_shown(&self) -> bool {
        !matches!(self.presence, Presence::Forgotten(_))
    }

    /// Takes over the readings of a report.
    pub fn take_readings(&mut self, metrics: Readings<'_>, at: Timestamp, now: Heard) {
        self.read_at = Some(at);
        self.latest.take(metrics);
        // The plan is shared by all lanes: counting a reference to it at each report would make them wait for each other.
        if !self.progress.plan.watched.is_empty() {
            let plan = self.progress.plan.clone();
            let seen = |metric: &&Name| metrics.get(metric).is_some();
            plan.watched.iter().filter(seen).for_each(|metric| self.watch(metric, now));
        }
    }

    fn watch(&mut self, metric: &Name, now: Heard) {
        match self.watched.iter_mut().find(|(name, _)| name == metric) {
            Some((_, heard)) => *heard = now,
            None => self.watched.push((metric.clone(), now)),
        }
    }

    /// The readings of its last report.
    pub fn last_report(&self) -> impl Iterator<Item = (Name, f64)> {
        self.latest.of_last_report().map(|(name, value)| (name.clone(), value))
    }

    /// How it is heard, as far as that can mean something: it has not left, and has reported often enough to be missed.
    pub fn with_hush<T>(&self, now: Heard, use_it: impl FnOnce(Option<Hush<'_>>) -> T) -> T {
        let lacking = |metric: &str| self.lacking(metric, now);
        let (silent, patience) = (self.silence.length(now), self.silence.patience());
        let hush = Hush { silent, patience, lacking: &lacking };
        let counts = self.presence == Presence::Present && self.silence.is_armed();
        use_it(counts.then_some(hush))
    }

    /// Why each rule that `select` picks fires, or why it does not.
    pub fn explain(&self, now: Heard, select: impl Fn(&Rule) -> bool) -> Vec<(Arc<Rule>, Explanation)> {
        let last: Vec<_> = self.last_report().collect();
        let lacking = |metric: &str| self.lacking(metric, now);
        let situation = Situation {
            last_report: self.read_at.map(|read_at| (read_at, last.as_slice())),
            left: matches!(self.presence, Presence::Left(_)),
            stale: self.stale,
            armed: self.silence.is_armed(),
            silent: self.silence.length(now),
            patience: self.silence.patience(),
            lacking: &lacking,
        };
        let rules = self.progress.plan.rules.iter().enumerate().filter(|(_, rule)| select(rule));
        rules.map(|(place, rule)| (rule.clone(), explain(&self.progress, place, &situation))).collect()
    }

    /// For how long its reports have lacked a metric that is watched; `None`: they never had it.
    fn lacking(&self, metric: &str, now: Heard) -> Option<Duration> {
        self.watched.iter().find(|(name, _)| **name == *metric).map(|(_, heard)| now.since(*heard))
    }

    /// How long it has been silent.
    pub fn silent_for(&self, now: Heard) -> Duration {
        self.silence.length(now)
    }

    /// A forgotten instance is heard of again: all but its marks begins anew.
    pub fn come_back(&mut self, now: Heard) {
        self.presence = Presence::Present;
        self.silence = Silence::starting(now);
        self.journaled = false;
    }

    /// Whether a start would have to know of it though no receipt or event saves it: a sender that never ends its stream
    /// has neither, and would not be missed, or would wait anew for what it has waited for.
    pub fn needs_saving(&self) -> bool {
        self.progress.moved || self.silence.is_armed() && !self.journaled
    }

    /// Goes on under other rules; returns what the world hears of.
    pub fn adopt(&mut self, rules: &RuleSet, now: Timestamp, heard: Heard) -> Vec<Event> {
        let plan = rules.plan(&self.key);
        if plan.windows != self.progress.plan.windows {
            // Some are gone, or have other lengths: the journal gets them anew.
            self.window_rows.outdate();
        }
        let events = self.progress.adopt(plan, now);
        self.rewatch(heard);
        self.unsaved = true;
        events
    }

    /// Watches what its rules watch. Of a metric that it has sent, counting begins now.
    pub fn rewatch(&mut self, now: Heard) {
        let plan = self.progress.plan.clone();
        self.watched.retain(|(name, _)| plan.watched.contains(name));
        for metric in &plan.watched {
            let sent = self.latest.has(metric);
            if sent && !self.watched.iter().any(|(name, _)| name == metric) {
                self.watch(metric, now);
            }
        }
    }

    /// Forgets all but the marks; returns the events that resolve its alerts.
    pub fn forget(&mut self, now: Timestamp, heard: Heard, why: ResolveReason) -> Vec<Event> {
        self.latest = Latest::default();
        self.watched = Vec::new();
        self.read_at = None;
        self.presence = Presence::Forgotten(heard);
        self.stale = false;
        self.unsaved = true;
        self.window_rows.outdate();
        self.progress.forget(now, why)
    }
}
