//! The SQLite file's schema and its version: the columns of `schema.sql`, times as microseconds since 1970.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA user_version` of a file that this program made.
pub(super) const VERSION: i64 = 1;

/// The indexes are those of `schema.sql`, for the same pages. `id` is written out at their ends, so that a row
/// comparison with (triggered_at, id) is a range in them.
const CREATE: &str = "
CREATE TABLE alerts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  service_name TEXT NOT NULL,
  metric TEXT NOT NULL,
  metric_value REAL NOT NULL,
  triggered_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
  alert_id BLOB UNIQUE CHECK (length(alert_id) = 16),
  instance TEXT,
  rule_name TEXT,
  severity TEXT,
  threshold REAL,
  labels TEXT,
  summary TEXT,
  evidence TEXT,
  events TEXT,
  late INTEGER NOT NULL DEFAULT 0,
  received_at INTEGER,
  stored_at INTEGER,
  resolved_at INTEGER,
  resolve_reason TEXT,
  last_value REAL,
  episode_id BLOB,
  server_id BLOB,
  version INTEGER NOT NULL DEFAULT 0,
  firing INTEGER GENERATED ALWAYS AS (iif(alert_id IS NULL, NULL, resolved_at IS NULL)) VIRTUAL
);
CREATE INDEX idx_service_time ON alerts (service_name, triggered_at, id);
CREATE INDEX idx_time ON alerts (triggered_at, id);
CREATE INDEX idx_open ON alerts (resolved_at);
CREATE INDEX idx_instance_time ON alerts (instance, triggered_at, id);
CREATE INDEX idx_metric_time ON alerts (metric, triggered_at, id);
CREATE INDEX idx_rule_time ON alerts (rule_name, triggered_at, id);
CREATE INDEX idx_severity_time ON alerts (severity, triggered_at, id);
CREATE INDEX idx_firing_time ON alerts (firing, triggered_at, id);
";

/// The schema's version in the file; 0: none yet.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the schema in a file that has none, whole or not at all.
pub(super) fn create(conn: &mut Connection) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked under the lock: another process may have made it meanwhile.
    if version(&transaction)? == 0 {
        transaction.execute_batch(CREATE)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}
