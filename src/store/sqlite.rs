//! The alert history in a local SQLite file: what serves when no MySQL is configured.
//!
//! Same columns, same answers as MySQL. WAL lets pages be read while alerts are written. `synchronous = FULL`: the
//! journal's cursor moves past a row once it is written here, so that a power cut must not take it back.

mod failure;
mod schema;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use r2d2::{NopErrorHandler, Pool, PooledConnection};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{
    Connection, OptionalExtension, Row, TransactionBehavior, params, params_from_iter,
    types::{ToSqlOutput, Value, ValueRef},
};
use uuid::Uuid;

use self::failure::Failure;
use super::{
    AlertRecord, AlertStore, HistoryQuery, HistoryRow, StoreError,
    gate::Gate,
    row::{self, AlertRow},
    select::{self, Arg, Dialect},
};
use crate::model::{Alert, Timestamp};

/// REST reads at once; more of them wait.
const N_READERS: u32 = 4;
/// How long a caller waits for a connection.
const GET_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a statement waits for another process that holds the file.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A page of the history that takes longer is ended.
const READ_WAIT_MAX: Duration = Duration::from_secs(2);
/// Instructions of SQLite between two looks at the clock: about 100 µs.
const N_OPS_PER_LOOK: i32 = 10_000;

/// Rows of one transaction in a storm. Each touches a page of its own in the indexes by id and by service; the more rows
/// there are, the more of them share one.
const MAX_BATCH: usize = 2_000;
/// The writer comes back to the pages of its indexes: 16 MiB of them stay in memory, and what changed goes from the log
/// into the file from 32 MiB on, once for many transactions. With SQLite's own 2 and 4 MiB a storm's time was copying pages.
const WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384;
                      PRAGMA wal_autocheckpoint = 8000;";

/// Inserts a row or replaces one of a lower version; `alert_id` and `stored_at` are the insert's alone.
const UPSERT: &str = "
INSERT INTO alerts (service_name, instance, metric, metric_value, rule_name, severity, threshold, labels, summary,
  evidence, events, late, triggered_at, received_at, resolved_at, resolve_reason, last_value, episode_id, alert_id,
  version, stored_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)
ON CONFLICT (alert_id) DO UPDATE SET
  service_name = excluded.service_name, instance = excluded.instance, metric = excluded.metric,
  metric_value = excluded.metric_value, rule_name = excluded.rule_name, severity = excluded.severity,
  threshold = excluded.threshold, labels = excluded.labels, summary = excluded.summary, evidence = excluded.evidence,
  events = excluded.events, late = excluded.late, triggered_at = excluded.triggered_at,
  received_at = excluded.received_at, resolved_at = excluded.resolved_at, resolve_reason = excluded.resolve_reason,
  last_value = excluded.last_value, episode_id = excluded.episode_id, version = excluded.version
WHERE excluded.version > alerts.version";

/// A history in a file.
pub struct SqliteStore {
    path: PathBuf,
    writer: Pool<SqliteConnectionManager>,
    readers: Pool<SqliteConnectionManager>,
    gate: Gate,
}

impl SqliteStore {
    /// Opens the file, or makes an empty one; its folder must exist. Refuses what is not a SQLite file, and a file that
    /// a newer version of this program made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        // Whatever it is, it ends the start: nobody waits for a file to become another one.
        let refused = |source| StoreError::Permanent {
            doing: format!("opening the alert history in {}", path.display()),
            source,
        };
        let found = found_version(&path).map_err(|err| refused(err.into()))?;
        refuse_newer(found).map_err(|why| refused(why.into()))?;
        let writer = pool(&path, 1, WRITER);
        let readers = pool(&path, N_READERS, "PRAGMA query_only = ON;");
        Ok(Self { path, writer, readers, gate: Gate::default() })
    }

    fn write_with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let mut conn = get(&self.writer)?;
        self.gate.ask()?;
        Ok(work(&mut conn)?)
    }

    fn read_with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let read = || -> Result<T, Failure> {
            let conn = get(&self.readers)?;
            let deadline = Instant::now() + READ_WAIT_MAX;
            conn.progress_handler(N_OPS_PER_LOOK, Some(move || Instant::now() > deadline))?;
            Ok(read(&conn)?)
        };
        read().map_err(|err| err.into_store("reading the alert history"))
    }
}

fn page(conn: &Connection, query: &HistoryQuery) -> rusqlite::Result<Vec<HistoryRow>> {
    let mut rows = Vec::new();
    for step in select::steps(query) {
        let n_missing = (query.limit as usize).saturating_sub(rows.len());
        let (sql, args) = select::statement(query, step, n_missing, Dialect::Sqlite);
        let mut statement = conn.prepare_cached(&sql)?;
        for row in statement.query_map(params_from_iter(&args), history_row)? {
            rows.push(row?);
        }
        if rows.len() >= query.limit as usize {
            break;
        }
    }
    Ok(rows)
}

fn found_version(path: &Path) -> rusqlite::Result<i64> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_WAIT_MAX)?;
    schema::version(&conn)
}

fn refuse_newer(found: i64) -> Result<(), String> {
    if found <= schema::VERSION {
        return Ok(());
    }
    Err(format!(
        "its schema is version {found}, this program knows {} and older: it needs a newer one",
        schema::VERSION
    ))
}

fn pool(path: &Path, n_connections: u32, pragmas: &'static str) -> Pool<SqliteConnectionManager> {
    let manager = SqliteConnectionManager::file(path).with_init(move |conn| {
        conn.busy_timeout(BUSY_WAIT_MAX)?;
        conn.execute_batch(pragmas)?;
        conn.execute_batch("PRAGMA synchronous = FULL;")
    });
    Pool::builder()
        .max_size(n_connections)
        .min_idle(Some(0))
        .connection_timeout(GET_WAIT_MAX)
        .test_on_check_out(false)
        .error_handler(Box::new(NopErrorHandler))
        .build_unchecked(manager)
}

fn get(pool: &Pool<SqliteConnectionManager>) -> Result<PooledConnection<SqliteConnectionManager>, Failure> {
    pool.get().map_err(Failure::NoConnection)
}

impl AlertStore for SqliteStore {
    fn describe(&self) -> String {
        format!("sqlite in {}", self.path.display())
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let preparing = || format!("preparing the alert history in {}", self.path.display());
        let found = self.write_with(|conn| match schema::version(conn)? {
            0 => schema::create(conn).map(|()| schema::VERSION),
            found => Ok(found),
        });
        let found = found.map_err(|err| err.into_store(preparing()))?;
        refuse_newer(found).map_err(|source| StoreError::Permanent { doing: preparing(), source: source.into() })
    }

    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError> {
        if alerts.is_empty() {
            return Ok(());
        }
        let stored_at = Timestamp::now().as_micros();
        self.write_with(|conn| {
            // All or none, so that an error means that nothing was written; dropping it rolls back.
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut upsert = transaction.prepare_cached(UPSERT)?;
            for alert in alerts {
                bind_and_run(&mut upsert, &AlertRow::new(alert), stored_at)?;
            }
            drop(upsert);
            transaction.commit()
        })
        .map_err(|err| err.into_store(format!("writing {} alerts", alerts.len())))
    }

    fn max_batch(&self) -> usize {
        MAX_BATCH
    }

    fn shut(&self) {
        self.gate.shut();
    }

    fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        self.read_with(|conn| page(conn, query))
    }

    fn alert(&self, alert_id: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        let (sql, id) = select::record(alert_id);
        self.read_with(|conn| conn.prepare_cached(&sql)?.query_row([id], record).optional())
    }

    fn prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let sql = "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts \
                   WHERE resolved_at < ? AND alert_id IS NOT NULL ORDER BY resolved_at, id LIMIT ?)";
        self.write_with(|conn| conn.prepare_cached(sql)?.execute((before.as_micros(), limit)))
            .map(|n_rows| n_rows as u64)
            .map_err(|err| err.into_store("pruning the alert history"))
    }
}

fn bind_and_run(
    upsert: &mut rusqlite::CachedStatement<'_>,
    row: &AlertRow<'_>,
    stored_at: i64,
) -> rusqlite::Result<usize> {
    let alert = row.alert;
    upsert.execute(params![
        alert.key.service(),
        alert.key.instance(),
        &*alert.metric,
        row.metric_value(),
        &*alert.rule,
        alert.severity.as_str(),
        row.threshold(),
        row.labels,
        alert.summary,
        row.evidence,
        row.events,
        alert.late,
        alert.triggered_at.as_micros(),
        alert.received_at.as_micros(),
        alert.resolved_at.map(Timestamp::as_micros),
        row.resolve_reason(),
        row.last_value(),
        row.episode_id(),
        row.alert_id(),
        alert.version,
        stored_at,
    ])
}

impl rusqlite::ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match *self {
            Arg::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Arg::Time(time) => ToSqlOutput::Owned(Value::Integer(time.as_micros())),
            Arg::Id(id) => ToSqlOutput::Owned(Value::Blob(id.as_bytes().to_vec())),
            // An id beyond SQLite's own range is after every row, which the largest number is too.
            Arg::Number(number) => ToSqlOutput::Owned(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))),
        })
    }
}

/// A row of the history, its columns in the order of the SELECT.
fn history_row(row: &Row<'_>) -> rusqlite::Result<HistoryRow> {
    let time = |column| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
    };
    Ok(HistoryRow {
        id: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
        alert_id: row.get::<_, Option<Vec<u8>>>(1)?.and_then(|bytes| row::uuid(&bytes)),
        service_name: row.get(2)?,
        instance: row.get(3)?,
        metric: row.get(4)?,
        metric_value: row.get(5)?,
        rule: row.get(6)?,
        severity: row.get(7)?,
        threshold: row.get(8)?,
        triggered_at: time(9)?.unwrap_or_default(),
        received_at: time(10)?,
        stored_at: time(11)?,
        resolved_at: time(12)?,
        resolve_reason: row.get(13)?,
        late: row.get(14)?,
        labels: row.get(15)?,
        summary: row.get(16)?,
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<AlertRecord> {
    Ok(AlertRecord {
        row: history_row(row)?,
        episode_id: row.get::<_, Option<Vec<u8>>>("episode_id")?.and_then(|bytes| row::uuid(&bytes)),
        last_value: row.get("last_value")?,
        version: row.get("version")?,
        events: row.get("events")?,
        evidence: row.get("evidence")?,
    })
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Severity,
        store::{AlertState, Cursor},
    };

    /// With the row comparison that stood here before, SQLite stepped over all rows of the cursor's time.
    #[test]
    fn each_filter_alone_is_a_range_of_its_index_and_needs_no_sorting() {
        let mut conn = Connection::open_in_memory().expect("memory");
        schema::create(&mut conn).expect("a schema");
        let any = HistoryQuery {
            after: Some(Cursor { triggered_at: Timestamp::from_micros(5), id: 5 }),
            limit: 10,
            ..HistoryQuery::default()
        };
        let name = || Some("x".to_owned());
        let queries = [
            (any.clone(), "idx_time (triggered_at"),
            (HistoryQuery { service: name(), ..any.clone() }, "idx_service_time (service_name=? AND triggered_at"),
            (HistoryQuery { instance: name(), ..any.clone() }, "idx_instance_time (instance=? AND triggered_at"),
            (HistoryQuery { metric: name(), ..any.clone() }, "idx_metric_time (metric=? AND triggered_at"),
            (HistoryQuery { rule: name(), ..any.clone() }, "idx_rule_time (rule_name=? AND triggered_at"),
            (
                HistoryQuery { severity: Some(Severity::Info), ..any.clone() },
                "idx_severity_time (severity=? AND triggered_at",
            ),
            (
                HistoryQuery { state: Some(AlertState::Firing), ..any.clone() },
                "idx_firing_time (firing=? AND triggered_at",
            ),
            (
                HistoryQuery { state: Some(AlertState::Resolved), ..any.clone() },
                "idx_firing_time (firing=? AND triggered_at",
            ),
        ];
        for (query, range) in queries {
            for (step, end) in select::steps(&query).zip(["=? AND id<?)", "<?)"]) {
                let (sql, args) = select::statement(&query, step, 10, Dialect::Sqlite);
                let plan: String = conn
                    .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                    .and_then(|mut explain| {
                        explain.query_map(params_from_iter(&args), |row| row.get::<_, String>(3))?.collect()
                    })
                    .expect("a plan");
                assert_eq!(plan, format!("SEARCH alerts USING INDEX {range}{end}"));
            }
        }
    }
}
