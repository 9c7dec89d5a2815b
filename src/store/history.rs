//! What is asked of the alert history, and what a row of it holds.

use uuid::Uuid;

use crate::model::{Severity, Timestamp};

/// Whether an alert still fires. A row of the original schema (no `alert_id`) is in neither state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    /// Not resolved yet.
    Firing,
    /// Resolved.
    Resolved,
}

/// The place in the history after which a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// `triggered_at` of the last row seen, to the microsecond.
    pub triggered_at: Timestamp,
    /// Its id.
    pub id: u64,
}

/// Which rows, all conditions together. Text conditions are exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryQuery {
    /// `service_name` is this.
    pub service: Option<String>,
    /// `instance` is this.
    pub instance: Option<String>,
    /// `metric` is this.
    pub metric: Option<String>,
    /// `rule_name` is this.
    pub rule: Option<String>,
    /// `severity` is this.
    pub severity: Option<Severity>,
    /// Firing or resolved only.
    pub state: Option<AlertState>,
    /// `triggered_at` is this or later.
    pub since: Option<Timestamp>,
    /// `triggered_at` is before this.
    pub until: Option<Timestamp>,
    /// Only rows after this place, in the order of the history.
    pub after: Option<Cursor>,
    /// At most this many rows.
    pub limit: u32,
}

/// One row as the database holds it. What a row of the original schema lacks is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// The database's own number of the row.
    pub id: u64,
    /// `None`: a row that the original program wrote.
    pub alert_id: Option<Uuid>,
    /// The service's name.
    pub service_name: String,
    /// The instance's name.
    pub instance: Option<String>,
    /// The metric.
    pub metric: String,
    /// Its value at the raise.
    pub metric_value: f64,
    /// The rule's name.
    pub rule: Option<String>,
    /// `info`, `warning` or `critical`.
    pub severity: Option<String>,
    /// What the value was compared with.
    pub threshold: Option<f64>,
    /// The reading that raised it.
    pub triggered_at: Timestamp,
    /// When the server got that reading.
    pub received_at: Option<Timestamp>,
    /// When the row was first written.
    pub stored_at: Option<Timestamp>,
    /// When it was resolved; `None`: firing.
    pub resolved_at: Option<Timestamp>,
    /// Why it was resolved.
    pub resolve_reason: Option<String>,
    /// Whether the reading came late.
    pub late: bool,
    /// The rule's labels, a JSON object as text.
    pub labels: Option<String>,
    /// The summary.
    pub summary: Option<String>,
}

/// One alert as the database holds it: its row, and what pages of the history leave out.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRecord {
    /// The row.
    pub row: HistoryRow,
    /// The episode that it belongs to: itself, but for rows of `record = "every"`.
    pub episode_id: Option<Uuid>,
    /// The term's value in the latest event.
    pub last_value: Option<f64>,
    /// How many events it has had.
    pub version: u32,
    /// Its life, a JSON array as text.
    pub events: Option<String>,
    /// What it was raised on, a JSON object as text.
    pub evidence: Option<String>,
}
