//! One report, or one silence, against the rules of its instance.

use std::sync::Arc;

use super::{
    Record, Rule,
    condition::{Condition, Held, Truth},
};
use crate::model::{
    Alert, Event, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, Name, RaiseId, ResolveReason, Timestamp,
};

/// Readings received longer than this after they were taken are late.
const LATE_AFTER_NANOS: i64 = 60 * 1_000_000_000;

/// One report as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Whose.
    pub key: &'a Arc<InstanceKey>,
    /// The readings.
    pub metrics: &'a [(Name, f64)],
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

/// An alert that fires, and the place of its rule.
#[derive(Clone, Debug)]
pub struct Firing {
    /// The rule's place in the rule set.
    pub rule: u32,
    /// The alert as it is now.
    pub alert: Arc<Alert>,
}

/// An event, and the place of the rule it belongs to.
#[derive(Clone, Debug)]
pub struct Change {
    /// The rule's place in the rule set.
    pub rule: u32,
    /// What happened.
    pub event: Event,
}

/// What one report does to the alerts of its instance. `applicable` are places in `rules`, `raises` is the instance's
/// count of raises that no numbered report caused; each such raise among the changes adds one to it.
pub fn evaluate(
    rules: &[Rule],
    applicable: &[u32],
    firing: &[Firing],
    raises: u64,
    reading: &Reading<'_>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut raises = raises;
    for &place in applicable {
        let rule = &rules[place as usize];
        let current = firing.iter().find(|f| f.rule == place).map(|f| &f.alert);
        let event = match (rule.condition.ask(reading.metrics), current) {
            (Truth::True(held), None) => raise(rule, &held, reading, &mut raises),
            (Truth::True(held), Some(episode)) if rule.record == Record::Every => {
                record(rule, &held, reading, episode, &mut raises)
            }
            (Truth::False(value), Some(alert)) => {
                let resolved = alert.resolved(reading.at, ResolveReason::Cleared, value);
                Event { kind: EventKind::Resolve, alert: Arc::new(resolved) }
            }
            (Truth::True(_), Some(_)) | (Truth::False(_), None) | (Truth::Unknown, _) => continue,
        };
        changes.push(Change { rule: place, event });
    }
    changes
}

/// What it means that the instance has been silent for `seconds` at `now`: the raise of the silence rule at `place`.
/// The caller has found that it is due and does not fire yet.
pub fn silence(rule: &Rule, place: u32, key: &Arc<InstanceKey>, seconds: f64, raises: u64, now: Timestamp) -> Change {
    debug_assert!(matches!(rule.condition, Condition::Absent { .. }), "only silence rules are raised by silence");
    let threshold = match rule.condition {
        Condition::Absent { after } => after.map(|after| after.as_secs_f64()),
        Condition::Compare { .. } => None,
    };
    let held = Held { metric: "absent".into(), value: seconds, threshold };
    let id = RaiseId::Counter(raises + 1).alert_id(key, &rule.name);
    let times = Times { triggered_at: now, received_at: now, late: false };
    let alert = Alert { evidence: None, ..new_alert(rule, &held, key, id, times) };
    Change { rule: place, event: Event { kind: EventKind::Raise, alert: Arc::new(alert) } }
}

struct Times {
    triggered_at: Timestamp,
    received_at: Timestamp,
    late: bool,
}

fn raise(rule: &Rule, held: &Held, reading: &Reading<'_>, raises: &mut u64) -> Event {
    Event { kind: EventKind::Raise, alert: Arc::new(alert_of(rule, held, reading, raises)) }
}

/// A closed row of its own for one more violating report of `episode`.
fn record(rule: &Rule, held: &Held, reading: &Reading<'_>, episode: &Alert, raises: &mut u64) -> Event {
    let mut row = alert_of(rule, held, reading, raises);
    row.episode_id = episode.alert_id;
    row.resolved_at = Some(row.triggered_at);
    row.resolve_reason = Some(ResolveReason::Recorded);
    row.life.iter_mut().for_each(|event| event.kind = EventKind::Record);
    Event { kind: EventKind::Record, alert: Arc::new(row) }
}

fn alert_of(rule: &Rule, held: &Held, reading: &Reading<'_>, raises: &mut u64) -> Alert {
    let id = match reading.sequence {
        0 => {
            *raises += 1;
            RaiseId::Counter(*raises)
        }
        sequence => RaiseId::Report { reading: reading.wire_time, epoch: reading.epoch, sequence },
    };
    let delay = reading.received_at.as_nanos().saturating_sub(reading.at.as_nanos()).saturating_add(reading.skew_nanos);
    let times = Times { triggered_at: reading.at, received_at: reading.received_at, late: delay > LATE_AFTER_NANOS };
    new_alert(rule, held, reading.key, id.alert_id(reading.key, &rule.name), times)
}

fn new_alert(rule: &Rule, held: &Held, key: &Arc<InstanceKey>, id: uuid::Uuid, times: Times) -> Alert {
    let at = times.triggered_at;
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
        summary: rule.summary.fill(key, &rule.name, rule.severity, held),
        evidence: Some(Arc::new(Evidence {
            when: rule.when.clone(),
            points: vec![EvidencePoint { at, value: held.value }],
        })),
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
