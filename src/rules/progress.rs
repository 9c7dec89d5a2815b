//! What one instance is going through: what is pending, what fires, its windows, its clock.
//!
//! It changes in two steps. [`super::evaluate`] and [`super::look`] say what a report or the time brings, and change
//! nothing; [`Progress::apply`] takes that over. A fault in the first step so costs one report and no state.

use std::sync::Arc;

use super::{Clock, Coarse, Plan, Point, Series, update::update};
use crate::model::{Alert, Event, EventKind, EvidencePoint, Name, Readings, ResolveReason, Timestamp};

/// Most readings of an alert's evidence (CONTRACT §3).
pub(super) const MAX_EVIDENCE: usize = 60;

/// Readings since a condition became true, at most `MAX_EVIDENCE`: every n-th of them, n doubling as they fill up.
#[derive(Clone, Debug, PartialEq)]
pub struct Trail {
    /// The readings kept.
    pub points: Vec<EvidencePoint>,
    /// Every how many-th is kept.
    pub stride: u64,
    /// How many there were.
    pub seen: u64,
}

impl Default for Trail {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, seen: 0 }
    }
}

impl Trail {
    fn add(&mut self, point: EvidencePoint) {
        if self.seen.is_multiple_of(self.stride) {
            // One place is left for the reading that raises the alert.
            if self.points.len() + 1 == MAX_EVIDENCE {
                let mut place = 0;
                self.points.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.points.push(point);
            }
        }
        self.seen += 1;
    }
}

/// A condition that is true, but not yet for as long as its rule says.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// The rule's place in the plan.
    pub rule: usize,
    /// The evaluation time of the first true report.
    pub since: Timestamp,
    /// What it was true for.
    pub trail: Trail,
}

/// An alert that fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    /// The rule's place in the plan.
    pub rule: usize,
    /// The alert as it is now.
    pub alert: Arc<Alert>,
    /// The evaluation time of the first of the reports in a row for which it is clear.
    pub clear_since: Option<Timestamp>,
    /// When somebody was last told that it fires, by the server's clock.
    pub notified_at: Timestamp,
}

/// What a report, or the time, brings.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The instance's clock after it.
    pub(super) clock: Clock,
    /// Whether the reports before it are too long ago for what was pending.
    pub(super) gap: bool,
    /// The instance's counted raises after it.
    pub(super) raises: u64,
    /// What happens, in the order of the rules.
    pub(super) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It is true, but not long enough yet.
    Pend { rule: usize, since: Timestamp, point: EvidencePoint },
    /// It is no longer true.
    Calm { rule: usize },
    /// The alert is clear since then, but not long enough yet; `None`: it is not clear.
    Clear { rule: usize, since: Option<Timestamp> },
    /// Something that the world hears of.
    Event { rule: usize, event: Event },
}

impl Outcome {
    /// Whether nothing but time has gone on.
    pub fn is_quiet(&self) -> bool {
        !self.gap && self.steps.is_empty()
    }
}

/// What belongs to a rule that may have another place, or be gone, in the next plan.
#[derive(Clone, Debug)]
pub struct Carried<T> {
    /// The rule's name.
    pub rule: Name,
    /// The generation of the rule that it belongs to.
    pub generation: u64,
    /// What belongs to it; its own place counts for nothing.
    pub what: T,
}

/// Points of a window as the journal remembers them: all of them, or those that came behind what it had.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesPart {
    /// The metric.
    pub metric: Name,
    /// The generation of the rules that read them.
    pub generation: u64,
    /// The points, oldest first.
    pub points: Vec<Point>,
    /// What is older than the points; only with all of them.
    pub coarse: Vec<Coarse>,
}

/// What one instance is going through.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The rules that look at it.
    pub plan: Arc<Plan>,
    /// Its evaluation time.
    pub clock: Clock,
    /// What is true and not yet firing.
    pub pending: Vec<Pending>,
    /// What fires.
    pub firing: Vec<Firing>,
    /// Its windows.
    pub series: Vec<Series>,
    /// Raises that no numbered report caused: they make the ids of such alerts unique.
    pub raises: u64,
    /// Whether something has begun or ended to wait, for `for` or `keep_firing_for`, since it was last journaled.
    pub moved: bool,
}

impl Progress {
    /// Nothing yet, under these rules.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan, ..Self::default() }
    }

    /// The alert that the rule at this place of the plan has firing.
    pub fn firing_of(&self, rule: usize) -> Option<&Firing> {
        self.firing.iter().find(|firing| firing.rule == rule)
    }

    /// What the rule at this place of the plan has pending.
    pub fn pending_of(&self, rule: usize) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.rule == rule)
    }

    /// Takes over what a report with these readings brought; returns what the world hears of.
    pub fn apply(&mut self, outcome: Outcome, metrics: Readings<'_>, received_at: Timestamp) -> Vec<Event> {
        self.clock = outcome.clock;
        if let Some(now) = outcome.clock.latest
            && !self.plan.windows.is_empty()
        {
            self.remember(metrics, now);
        }
        self.take(outcome, received_at)
    }

    /// Takes over what the time brought, without a report; returns what the world hears of.
    pub fn apply_look(&mut self, outcome: Outcome, now: Timestamp) -> Vec<Event> {
        self.take(outcome, now)
    }

    fn take(&mut self, outcome: Outcome, server_time: Timestamp) -> Vec<Event> {
        self.raises = outcome.raises;
        if outcome.gap {
            self.pending.clear();
            self.moved = true;
        }
        let mut events = Vec::new();
        for step in outcome.steps {
            match step {
                Step::Pend { rule, since, point } => match self.pending.iter_mut().find(|p| p.rule == rule) {
                    Some(pending) => pending.trail.add(point),
                    None => {
                        let mut trail = Trail::default();
                        trail.add(point);
                        self.pending.push(Pending { rule, since, trail });
                        self.moved = true;
                    }
                },
                Step::Calm { rule } => {
                    self.pending.retain(|pending| pending.rule != rule);
                    self.moved = true;
                }
                Step::Clear { rule, since } => {
                    self.moved = true;
                    self.firing.iter_mut().filter(|f| f.rule == rule).for_each(|f| f.clear_since = since);
                }
                Step::Event { rule, event } => {
                    self.happen(rule, &event, server_time);
                    events.push(event);
                }
            }
        }
        events
    }

    fn happen(&mut self, rule: usize, event: &Event, server_time: Timestamp) {
        let mine = self.firing.iter_mut().filter(|firing| firing.rule == rule);
        match event.kind {
            EventKind::Raise => {
                self.pending.retain(|pending| pending.rule != rule);
                let alert = event.alert.clone();
                self.firing.push(Firing { rule, alert, clear_since: None, notified_at: server_time });
            }
            EventKind::Resolve => self.firing.retain(|firing| firing.rule != rule),
            EventKind::Update => mine.for_each(|firing| firing.alert = event.alert.clone()),
            EventKind::Repeat => mine.for_each(|firing| firing.notified_at = server_time),
            EventKind::Record | EventKind::Restate => {}
        }
    }

    /// Adds the readings to the windows that read them. A window begins with the first reading that it could use.
    fn remember(&mut self, metrics: Readings<'_>, now: Timestamp) {
        for wanted in &self.plan.windows {
            let Some(value) = metrics.get(&wanted.metric) else { continue };
            let is_it = |s: &&mut Series| s.generation == wanted.generation && s.metric == wanted.metric;
            let point = Point { at: now, value };
            match self.series.iter_mut().find(is_it) {
                Some(series) => series.push(point),
                None => {
                    let mut series = Series::new(wanted.metric.clone(), wanted.generation, &wanted.spans);
                    series.push(point);
                    self.series.push(series);
                }
            }
        }
    }

    /// Goes on under other rules (CONTRACT §3, "Reload and restart"): what belongs to a rule that asks the same goes on
    /// to the instant, what a changed rule had pending begins anew, and alerts whose rule is gone or no longer looks at
    /// the instance resolve. Returns what the world hears of.
    pub fn adopt(&mut self, plan: Arc<Plan>, now: Timestamp) -> Vec<Event> {
        let old = std::mem::replace(&mut self.plan, plan);
        let carried = |rule: usize| (old.rules[rule].name.clone(), old.rules[rule].generation);
        let pending = std::mem::take(&mut self.pending).into_iter().map(|what| {
            let (rule, generation) = carried(what.rule);
            Carried { rule, generation, what }
        });
        let firing = std::mem::take(&mut self.firing).into_iter().map(|what| {
            let (rule, generation) = carried(what.rule);
            Carried { rule, generation, what }
        });
        self.settle(pending.collect(), firing.collect(), now)
    }

    /// Gives what is carried its places in the plan.
    pub fn settle(
        &mut self,
        pending: Vec<Carried<Pending>>,
        firing: Vec<Carried<Firing>>,
        now: Timestamp,
    ) -> Vec<Event> {
        for Carried { rule, generation, what } in pending {
            if let Some(place) = self.plan.place(&rule)
                && self.plan.rules[place].generation == generation
            {
                self.pending.push(Pending { rule: place, ..what });
            }
        }
        let mut events = Vec::new();
        for Carried { rule, generation, what } in firing {
            let Some(place) = self.plan.place(&rule) else {
                let resolved = what.alert.resolved(now, ResolveReason::RuleRemoved, None);
                events.push(Event { kind: EventKind::Resolve, alert: Arc::new(resolved) });
                continue;
            };
            let rule = &self.plan.rules[place];
            let clear_since = what.clear_since.filter(|_| rule.generation == generation);
            let mut firing = Firing { rule: place, clear_since, ..what };
            if let Some(event) = update(rule, &firing.alert, now) {
                firing.alert = event.alert.clone();
                events.push(event);
            }
            self.firing.push(firing);
        }
        let windows = &self.plan.windows;
        self.series.retain_mut(|series| {
            let wanted = windows.iter().find(|w| w.generation == series.generation && w.metric == series.metric);
            wanted.inspect(|wanted| series.serve(&wanted.spans)).is_some()
        });
        events
    }

    /// Takes over the points of a window that the journal remembers, if a rule still reads them.
    pub fn restore_series(&mut self, part: SeriesPart) {
        let SeriesPart { metric, generation, points, coarse } = part;
        let wanted = self.plan.windows.iter().find(|w| w.generation == generation && w.metric == metric);
        let Some(wanted) = wanted else { return };
        let place = self.series.iter().position(|s| s.generation == generation && s.metric == metric);
        let place = place.unwrap_or_else(|| {
            let mut series = Series::new(metric, generation, &[]);
            series.coarse = coarse;
            series.serve(&wanted.spans);
            self.series.push(series);
            self.series.len() - 1
        });
        let series = &mut self.series[place];
        points.into_iter().for_each(|point| series.push(point));
        series.n_unsaved = 0;
    }

    /// The instance is forgotten: its alerts resolve, and all but the count of its raises begins anew.
    pub fn forget(&mut self, now: Timestamp, why: ResolveReason) -> Vec<Event> {
        let (plan, raises) = (std::mem::take(&mut self.plan), self.raises);
        let firing = std::mem::take(self).firing;
        (self.plan, self.raises) = (plan, raises);
        let resolved = firing.iter().map(|firing| Arc::new(firing.alert.resolved(now, why, None)));
        resolved.map(|alert| Event { kind: EventKind::Resolve, alert }).collect()
    }
}
