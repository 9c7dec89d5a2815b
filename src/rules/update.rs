//! An alert that fires, and its rule as it is written now.

use std::sync::Arc;

use super::{Rule, condition::Held};
use crate::model::{Alert, Event, EventKind, Timestamp};

/// The update that `rule`, of the alert's own name, means to it at `at`: another severity, other labels or another
/// summary. `None`: it says the same as before. What was measured stays as it was.
pub fn update(rule: &Rule, alert: &Alert, at: Timestamp) -> Option<Event> {
    let held = Held { metric: alert.metric.clone(), value: alert.value, threshold: alert.threshold };
    let summary = rule.summary.fill(&alert.key, &rule.name, rule.severity, &held);
    if (rule.severity, &rule.labels, &summary) == (alert.severity, &alert.labels, &alert.summary) {
        return None;
    }
    let alert = alert.updated(rule.severity, rule.labels.clone(), summary, at);
    Some(Event { kind: EventKind::Update, alert: Arc::new(alert) })
}
