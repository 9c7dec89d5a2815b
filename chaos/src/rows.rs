//! The rows as the database has them, read past the server.

use std::path::Path;

use mysql::{Conn, Row as SqlRow, prelude::Queryable};

use crate::expected::Key;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which episode it says it is.
    pub key: Key,
    /// As in the table.
    pub alert_id: String,
    /// The metric.
    pub metric: String,
    /// Its reading.
    pub value: f64,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// How bad it is.
    pub severity: String,
    /// Microseconds since 1970.
    pub resolved_at: Option<u64>,
    /// Why it is over.
    pub reason: Option<String>,
    /// How many events it has had.
    pub version: u64,
}

/// The rows of a MySQL or MariaDB.
pub fn of_mysql(conn: &mut Conn, database: &str) -> mysql::Result<Vec<Row>> {
    conn.query_drop("SET time_zone = '+00:00'")?;
    let micros = |column: &str| format!("CAST(UNIX_TIMESTAMP({column}) * 1000000 AS UNSIGNED)");
    let sql = format!(
        "SELECT service_name, instance, rule_name, {}, HEX(alert_id), metric, metric_value, threshold, severity, {}, \
         resolve_reason, CAST(version AS UNSIGNED) FROM {database}.alerts",
        micros("triggered_at"),
        micros("resolved_at")
    );
    // The binary protocol gives numbers as numbers: a text of a double may lose its last digit.
    conn.exec_map(sql, (), |mut row: SqlRow| {
        let mut place = 0..12;
        let mut next = || place.next().unwrap();
        Row {
            key: Key {
                service: row.take(next()).unwrap(),
                instance: row.take::<Option<String>, _>(next()).unwrap().unwrap_or_default(),
                rule: row.take::<Option<String>, _>(next()).unwrap().unwrap_or_default(),
                triggered_at: row.take(next()).unwrap(),
            },
            alert_id: row.take::<Option<String>, _>(next()).unwrap().unwrap_or_default(),
            metric: row.take(next()).unwrap(),
            value: row.take(next()).unwrap(),
            threshold: row.take(next()).unwrap(),
            severity: row.take::<Option<String>, _>(next()).unwrap().unwrap_or_default(),
            resolved_at: row.take(next()).unwrap(),
            reason: row.take(next()).unwrap(),
            version: row.take(next()).unwrap(),
        }
    })
}

/// The rows of an SQLite history.
pub fn of_sqlite(path: &Path) -> rusqlite::Result<Vec<Row>> {
    let conn = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = conn.prepare(
        "SELECT service_name, coalesce(instance, ''), coalesce(rule_name, ''), triggered_at, hex(alert_id), metric, \
         metric_value, threshold, coalesce(severity, ''), resolved_at, resolve_reason, version FROM alerts",
    )?;
    let rows = statement.query_map([], |row| {
        let time = |place: usize| row.get::<_, Option<i64>>(place).map(|time| time.map(i64::cast_unsigned));
        Ok(Row {
            key: Key {
                service: row.get(0)?,
                instance: row.get(1)?,
                rule: row.get(2)?,
                triggered_at: time(3)?.unwrap_or_default(),
            },
            alert_id: row.get(4)?,
            metric: row.get(5)?,
            value: row.get(6)?,
            threshold: row.get(7)?,
            severity: row.get(8)?,
            resolved_at: time(9)?,
            reason: row.get(10)?,
            version: row.get::<_, i64>(11)?.cast_unsigned(),
        })
    })?;
    rows.collect()
}
