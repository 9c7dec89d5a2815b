//! The one statement that writes alerts: a multi-row insert that replaces rows of a lower version.

use mysql::Value;
use uuid::Uuid;

use super::value;
use crate::store::row::AlertRow;

/// The columns that are replaced by a higher version, in the order of [`values`]. `alert_id` is the key, `stored_at` the
/// insert's own time, and `version` is assigned last: the columns before it are compared with the version of the row
/// as it was. With `version` first they saw the new one, and a resolve vanished.
const COLUMNS: [&str; 19] = [
    "service_name",
    "instance",
    "metric",
    "metric_value",
    "rule_name",
    "severity",
    "threshold",
    "labels",
    "summary",
    "evidence",
    "events",
    "late",
    "triggered_at",
    "received_at",
    "resolved_at",
    "resolve_reason",
    "last_value",
    "episode_id",
    "server_id",
];

/// The statement for `n_rows` rows.
pub(super) fn statement(n_rows: usize) -> String {
    let columns = COLUMNS.join(", ");
    let row = format!("({}?, ?, CURRENT_TIMESTAMP(6))", "?, ".repeat(COLUMNS.len()));
    let rows = vec![row.as_str(); n_rows].join(", ");
    let update: String = COLUMNS
        .iter()
        .map(|column| format!("{column} = IF(VALUES(version) > version, VALUES({column}), {column}), "))
        .collect();
    format!(
        "INSERT INTO alerts ({columns}, alert_id, version, stored_at) VALUES {rows} \
         ON DUPLICATE KEY UPDATE {update}version = IF(VALUES(version) > version, VALUES(version), version)"
    )
}

/// How many rows the statement for `n_rows` has: a few sizes, so that each is prepared once and kept. The rest is
/// filled by repeating the last row, which changes nothing.
pub(super) fn padded(n_rows: usize) -> usize {
    let power = n_rows.next_power_of_two();
    let three_quarters = power / 4 * 3;
    if three_quarters >= n_rows { three_quarters } else { power }
}

/// The values of the statement for as many rows as [`padded`] says.
pub(super) fn pad(rows: Vec<Vec<Value>>) -> Vec<Value> {
    let n_missing = padded(rows.len()) - rows.len();
    let last = rows.last().cloned();
    rows.into_iter().chain(last.into_iter().cycle().take(n_missing)).flatten().collect()
}

/// One row's values.
pub(super) fn values(row: &AlertRow<'_>, server_id: Uuid) -> Vec<Value> {
    let alert = row.alert;
    vec![
        value::text(alert.key.service()),
        value::text(alert.key.instance()),
        value::text(&alert.metric),
        Value::Double(row.metric_value()),
        value::text(&alert.rule),
        value::text(alert.severity.as_str()),
        row.threshold().map_or(Value::NULL, Value::Double),
        value::text(&row.labels),
        value::text(&alert.summary),
        row.evidence.as_deref().map_or(Value::NULL, value::text),
        value::text(&row.events),
        Value::Int(i64::from(alert.late)),
        value::time(alert.triggered_at),
        value::time(alert.received_at),
        alert.resolved_at.map_or(Value::NULL, value::time),
        row.resolve_reason().map_or(Value::NULL, value::text),
        Value::Double(row.last_value()),
        Value::Bytes(row.episode_id().to_vec()),
        Value::Bytes(server_id.as_bytes().to_vec()),
        Value::Bytes(row.alert_id().to_vec()),
        Value::UInt(u64::from(alert.version)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_few_sizes_none_far_above_its_rows() {
        let mut sizes: Vec<_> = (1..=1_000).map(padded).collect();
        assert!((1..=1_000).zip(&sizes).all(|(n, &size)| size >= n && size <= n + n / 2));
        sizes.dedup();
        assert_eq!(sizes.len(), 20, "{sizes:?}");
        assert!(statement(1_024).matches('?').count() < 65_535);
    }

    #[test]
    fn the_version_is_assigned_last_and_the_key_and_first_time_never() {
        let update = statement(2);
        let (_, update) = update.split_once("ON DUPLICATE KEY UPDATE ").expect("an upsert");
        assert!(update.ends_with(", version = IF(VALUES(version) > version, VALUES(version), version)"));
        assert!(!update.contains("alert_id =") && !update.contains("stored_at"));
    }
}
