//! One report, or the time, against the rules of its instance: what it brings, and no more.

use std::{sync::Arc, time::Duration};

use super::{
    Progress, Record, Rule, Sifting,
    condition::{Facts, Held, Truth, When},
    progress::{MAX_EVIDENCE, Outcome, Step},
};
use crate::model::{
    Alert, Event, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, RaiseId, Readings, ResolveReason,
    Timestamp,
};

/// Readings received longer than this after they were taken are late.
const LATE_AFTER_NANOS: i64 = 60 * 1_000_000_000;
/// What was pending begins anew when reports are further apart.
pub(super) const MAX_GAP: Duration = Duration::from_secs(5 * 60);

/// One report as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Whose.
    pub key: &'a Arc<InstanceKey>,
    /// The readings.
    pub metrics: Readings<'a>,
    /// When it was read; the server's time if the report does not say.
    pub at: Timestamp,
    /// The time that the report gave, as it stood on the wire; 0: none.
    pub wire_time: u64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// By how much the agent's clock is ahead of the server's, in nanoseconds; 0 if unknown.
    pub skew_nanos: i64,
    /// The numbering it belongs to.
    pub epoch: u64,
    /// Its number; 0: none.
    pub sequence: u64,
}

/// What a report brings to an instance. Nothing is allocated unless something changes.
pub fn evaluate(progress: &Progress, reading: &Reading<'_>) -> Outcome {
    let mut report = Report::new(progress, reading);
    for (place, rule) in progress.plan.rules.iter().enumerate() {
        report.judge(place, rule);
    }
    report.outcome
}

/// The same, where `sifting` is that of the report's layout by the rules in force: it passes over rules that cannot be
/// true.
pub fn evaluate_sifted(progress: &Progress, reading: &Reading<'_>, sifting: &Sifting) -> Outcome {
    // What is pending may calm down, and what fires may clear.
    let is_calm = progress.pending.is_empty() && progress.firing.is_empty();
    if !is_calm || sifting.catches(reading.metrics.values()) {
        return evaluate(progress, reading);
    }
    let mut report = Report::new(progress, reading);
    for &place in &progress.plan.asked {
        report.judge(place, &progress.plan.rules[place]);
    }
    report.outcome
}

/// What the report brings by the rule at this place of the plan alone: which rule it is that fails.
pub fn evaluate_one(progress: &Progress, reading: &Reading<'_>, place: usize) -> Outcome {
    let mut report = Report::new(progress, reading);
    report.judge(place, &progress.plan.rules[place]);
    report.outcome
}

struct Report<'a> {
    progress: &'a Progress,
    reading: &'a Reading<'a>,
    now: Timestamp,
    outcome: Outcome,
}

impl<'a> Report<'a> {
    fn new(progress: &'a Progress, reading: &'a Reading<'a>) -> Self {
        let (clock, now) = progress.clock.after(reading.at);
        // A gap matters to what is pending alone.
        let gap =
            !progress.pending.is_empty() && progress.clock.latest.is_some_and(|latest| now.since(latest) > MAX_GAP);
        let outcome = Outcome { clock, gap, raises: progress.raises, steps: Vec::new() };
        Self { progress, reading, now, outcome }
    }

    fn judge(&mut self, place: usize, rule: &Rule) {
        let facts = self.facts(rule);
        let truth = rule.when.ask(&facts);
        let Some(firing) = self.progress.firing_of(place) else { return self.wait(place, rule, truth) };
        if truth == Truth::True {
            if firing.clear_since.is_some() {
                self.outcome.steps.push(Step::Clear { rule: place, since: None });
            }
            if rule.record == Record::Every {
                self.record(place, rule, &firing.alert);
            }
            return;
        }
        match rule.clear.as_ref().map_or(truth.negated(), |clear| clear.ask(&facts)) {
            Truth::True => {
                let since = firing.clear_since.unwrap_or(self.now);
                if self.now.since(since) >= rule.keep_firing_for {
                    let value = rule.when.condition().and_then(|c| c.value_of(&firing.alert.metric, &facts));
                    let resolved = firing.alert.resolved(self.reading.at, ResolveReason::Cleared, value);
                    self.event(place, EventKind::Resolve, resolved);
                } else if firing.clear_since.is_none() {
                    self.outcome.steps.push(Step::Clear { rule: place, since: Some(since) });
                }
            }
            Truth::False if firing.clear_since.is_some() => {
                self.outcome.steps.push(Step::Clear { rule: place, since: None });
            }
            Truth::False | Truth::Unknown => {}
        }
    }

    /// A rule that does not fire.
    fn wait(&mut self, place: usize, rule: &Rule, truth: Truth) {
        let pending = self.progress.pending_of(place).filter(|_| !self.outcome.gap);
        match truth {
            Truth::True => {
                let since = pending.map_or(self.now, |pending| pending.since);
                let Some(held) = self.held(rule) else { return };
                let point = EvidencePoint { at: self.reading.at, value: held.value };
                if self.now.since(since) < rule.r#for {
                    self.outcome.steps.push(Step::Pend { rule: place, since, point });
                    return;
                }
                let points = if rule.r#for.is_zero() {
                    self.window_evidence(rule).unwrap_or_else(|| vec![point])
                } else {
                    let mut points = pending.map(|pending| pending.trail.points.clone()).unwrap_or_default();
                    points.push(point);
                    points
                };
                let alert = self.raise(rule, &held, points);
                self.event(place, EventKind::Raise, alert);
            }
            Truth::False if pending.is_some() => self.outcome.steps.push(Step::Calm { rule: place }),
            Truth::False | Truth::Unknown => {}
        }
    }

    /// A closed row of its own for one more violating report of `episode`.
    fn record(&mut self, place: usize, rule: &Rule, episode: &Alert) {
        let Some(held) = self.held(rule) else { return };
        let point = EvidencePoint { at: self.reading.at, value: held.value };
        let mut row = self.raise(rule, &held, vec![point]);
        row.episode_id = episode.alert_id;
        row.resolved_at = Some(row.triggered_at);
        row.resolve_reason = Some(ResolveReason::Recorded);
        row.life.iter_mut().for_each(|event| event.kind = EventKind::Record);
        self.event(place, EventKind::Record, row);
    }

    fn raise(&mut self, rule: &Rule, held: &Held, points: Vec<EvidencePoint>) -> Alert {
        let reading = self.reading;
        let id = match reading.sequence {
            0 => {
                self.outcome.raises += 1;
                RaiseId::Counter(self.outcome.raises)
            }
            sequence => RaiseId::Report { reading: reading.wire_time, epoch: reading.epoch, sequence },
        };
        let delay =
            reading.received_at.as_nanos().saturating_sub(reading.at.as_nanos()).saturating_add(reading.skew_nanos);
        let times =
            Times { triggered_at: reading.at, received_at: reading.received_at, late: delay > LATE_AFTER_NANOS };
        let evidence = Evidence { when: rule.when_text.clone(), points };
        Alert { evidence: Some(Arc::new(evidence)), ..new_alert(rule, held, reading.key, id, times) }
    }

    fn held(&self, rule: &Rule) -> Option<Held> {
        rule.when.condition()?.held(&self.facts(rule))
    }

    /// The points of the window that the alert is about, if it is about one.
    fn window_evidence(&self, rule: &Rule) -> Option<Vec<EvidencePoint>> {
        let subject = rule.when.condition()?.subject(&self.facts(rule))?;
        let window = subject.sides().0.first_window()?;
        let current = self.reading.metrics.get(&window.metric);
        let of_rule = |s: &&super::Series| s.generation == rule.generation && s.metric == window.metric;
        let mut points = match self.progress.series.iter().find(of_rule) {
            Some(series) => series.evidence(window.span, self.now, current, MAX_EVIDENCE),
            None => current.map(|value| EvidencePoint { at: self.now, value }).into_iter().collect(),
        };
        // By the agent's clock as it stands now, as the row's own times are.
        points.iter_mut().for_each(|point| point.at = self.outcome.clock.bare(point.at));
        Some(points)
    }

    fn facts(&self, rule: &Rule) -> Facts<'_> {
        Facts {
            metrics: self.reading.metrics,
            series: &self.progress.series,
            taken: false,
            generation: rule.generation,
            now: self.now,
        }
    }

    fn event(&mut self, rule: usize, kind: EventKind, alert: Alert) {
        self.outcome.steps.push(Step::Event { rule, event: Event { kind, alert: Arc::new(alert) } });
    }
}

/// How an instance is heard.
#[derive(Clone, Copy)]
pub struct Hush<'a> {
    /// How long it has been silent.
    pub silent: Duration,
    /// How long it may be silent when its rule does not say.
    pub patience: Duration,
    /// For how long its reports have lacked a metric; `None`: they never had it.
    pub lacking: &'a dyn Fn(&str) -> Option<Duration>,
}

/// What the time brings to an instance: silence, and telling again. `hush` is `None` for an instance whose silence means
/// nothing: it has left, or has not reported often enough to be missed.
pub fn look(progress: &Progress, key: &Arc<InstanceKey>, hush: Option<Hush<'_>>, now: Timestamp) -> Outcome {
    let mut outcome = Outcome { clock: progress.clock, gap: false, raises: progress.raises, steps: Vec::new() };
    for (place, rule) in progress.plan.rules.iter().enumerate() {
        let event = match (progress.firing_of(place), hush) {
            (Some(firing), _) => {
                let due = rule.repeat.is_some_and(|repeat| now.since(firing.notified_at) >= repeat);
                due.then(|| Event { kind: EventKind::Repeat, alert: firing.alert.clone() })
            }
            (None, Some(hush)) => silence(rule, &hush).map(|held| {
                outcome.raises += 1;
                let id = RaiseId::Counter(outcome.raises);
                let times = Times { triggered_at: now, received_at: now, late: false };
                let alert = new_alert(rule, &held, key, id, times);
                Event { kind: EventKind::Raise, alert: Arc::new(alert) }
            }),
            (None, None) => None,
        };
        outcome.steps.extend(event.map(|event| Step::Event { rule: place, event }));
    }
    outcome
}

/// What a rule on silence finds.
fn silence(rule: &Rule, hush: &Hush<'_>) -> Option<Held> {
    let held = |value: Duration, threshold: Option<Duration>| Held {
        metric: "absent".into(),
        value: value.as_secs_f64(),
        threshold: threshold.map(|threshold| threshold.as_secs_f64()),
    };
    match &rule.when {
        When::Report(_) => None,
        When::Silent { after } => (hush.silent >= after.unwrap_or(hush.patience)).then(|| held(hush.silent, *after)),
        When::Lacking { metric, after } => {
            let lacking = (hush.lacking)(metric)?;
            // The reports since then must have lacked it: where there are none, it is the instance that is silent.
            let heard = hush.silent < hush.patience.min(*after);
            (heard && lacking >= *after).then(|| held(lacking, Some(*after)))
        }
    }
}

struct Times {
    triggered_at: Timestamp,
    received_at: Timestamp,
    late: bool,
}

fn new_alert(rule: &Rule, held: &Held, key: &Arc<InstanceKey>, id: RaiseId, times: Times) -> Alert {
    let at = times.triggered_at;
    let id = id.alert_id(key, &rule.name);
    Alert {
        alert_id: id,
        episode_id: id,
        key: key.clone(),
        rule: rule.name.clone(),
        metric: held.metric.clone(),
        value: held.value,
        threshold: held.threshold,
        severity: rule.severity,
        labels: rule.labels.clone(),
        summary: rule.summary.fill(key, rule, &held.metric, held.value, held.threshold),
        runbook_url: rule.runbook_url.clone(),
        receivers: rule.receivers.clone(),
        evidence: None,
        life: vec![LifeEvent { kind: EventKind::Raise, at, by: None, value: Some(held.value) }],
        late: times.late,
        triggered_at: at,
        received_at: times.received_at,
        resolved_at: None,
        resolve_reason: None,
        last_value: held.value,
        version: 1,
    }
}
