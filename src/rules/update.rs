//! An alert that fires, and its rule as it is written now.

use std::sync::Arc;

use super::Rule;
use crate::model::{Alert, Event, EventKind, Timestamp};

/// The update that `rule`, of the alert's own name, means to it at `at`: another severity, other labels or another
/// summary. `None`: it says the same as before. What was measured stays as it was.
pub(super) fn update(rule: &Rule, alert: &Alert, at: Timestamp) -> Option<Event> {
    let summary = rule.summary.fill(&alert.key, rule, &alert.metric, alert.value, alert.threshold);
    if (rule.severity, &rule.labels, &summary) == (alert.severity, &alert.labels, &alert.summary) {
        return None;
    }
    let alert = alert.updated(rule.severity, rule.labels.clone(), summary, at);
    Some(Event { kind: EventKind::Update, alert: Arc::new(alert) })
}
