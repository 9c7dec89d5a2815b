//! Rows of `/alerts/history` as tests compare them.

use serde_json::Value;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) alert_id: String,
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) rule: String,
    pub(crate) metric: String,
    pub(crate) value: f64,
    /// Microseconds since 1970.
    pub(crate) triggered_at: i64,
    pub(crate) resolved_at: Option<i64>,
    pub(crate) reason: Option<String>,
    pub(crate) received_at: i64,
    pub(crate) stored_at: i64,
    pub(crate) late: bool,
}

impl Row {
    pub(crate) fn of(row: &Value) -> Self {
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} in {row}")).to_owned();
        Self {
            alert_id: text("alert_id"),
            service: text("service_name"),
            instance: text("instance"),
            rule: text("rule"),
            metric: text("metric"),
            value: row["metric_value"].as_f64().unwrap(),
            triggered_at: micros(&row["triggered_at"]).unwrap(),
            resolved_at: micros(&row["resolved_at"]),
            reason: row["resolve_reason"].as_str().map(str::to_owned),
            received_at: micros(&row["received_at"]).unwrap(),
            stored_at: micros(&row["stored_at"]).unwrap(),
            late: row["late"].as_bool().unwrap(),
        }
    }
}

/// A time of REST or of the log, in microseconds since 1970.
pub(crate) fn micros(time: &Value) -> Option<i64> {
    time.as_str().map(|text| text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}
