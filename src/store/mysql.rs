//! The alert history in MySQL 8.0+ or MariaDB 10.6+.
//!
//! Nothing here connects before it is asked to, so that the server starts with the database down; nothing waits longer
//! than the time-outs of [`MySqlOptions`]; and a connection that met a doubtful error is never used again. Writes are
//! single statements in autocommit, each harmless when repeated (I10).

mod arrays;
mod failure;
mod manager;
mod options;
mod schema;
mod upsert;
mod value;

use std::{fmt, sync::Arc};

use mysql::{Params, Value, prelude::Queryable};
use r2d2::Pool;
use uuid::Uuid;

pub use self::options::{MySqlOptions, OptionsError};
use self::{
    failure::Failure,
    manager::{Connection, Manager},
    options::Purpose,
};
use super::{
    AlertRecord, AlertStore, HistoryQuery, HistoryRow, StoreError,
    gate::Gate,
    row::AlertRow,
    select::{self, Dialect},
};
use crate::model::{Alert, Timestamp};

/// One thread delivers to the store; pruning takes turns with it.
const N_WRITERS: u32 = 1;
/// REST reads at once; more of them wait up to 2 s.
const N_READERS: u32 = 4;

/// A history on a MySQL server.
pub struct MySqlStore {
    options: MySqlOptions,
    server_id: Uuid,
    writer: Pool<Manager>,
    readers: Pool<Manager>,
    gate: Gate,
}

impl MySqlStore {
    /// A store that connects when it is first used. `server_id` marks the rows that this server writes.
    pub fn new(options: MySqlOptions, server_id: Uuid) -> Self {
        let writer = manager::pool(&options, Purpose::Write, N_WRITERS);
        let readers = manager::pool(&options, Purpose::Read, N_READERS);
        Self { options, server_id, writer, readers, gate: Gate::default() }
    }

    fn write_with<T>(&self, work: impl FnOnce(&mut mysql::Conn) -> mysql::Result<T>) -> Result<T, Failure> {
        let mut connection = manager::get(&self.writer)?;
        self.gate.ask()?;
        Ok(connection.run_write(work)?)
    }

    /// Writes these rows in one statement.
    fn write_rows(&self, rows: Vec<Vec<Value>>) -> Result<(), Failure> {
        let mut connection = manager::get(&self.writer)?;
        let as_array = rows.len() > 1 && arrays::n_bytes(&rows) <= connection.most_array_bytes()?;
        self.gate.ask()?;
        connection.run_write(|conn| {
            if as_array {
                conn.exec_batch(upsert::statement(1), rows.into_iter().map(Params::Positional))
            } else {
                let statement = upsert::statement(upsert::padded(rows.len()));
                conn.exec_drop(statement, Params::Positional(upsert::pad(rows)))
            }
        })?;
        Ok(())
    }

    /// Reads on one connection.
    fn read_with<T>(&self, read: impl Fn(&mut mysql::Conn) -> mysql::Result<T>) -> Result<T, StoreError> {
        let attempt = || -> Result<T, Failure> {
            let mut connection = manager::get(&self.readers)?;
            Ok(Connection::run(&mut connection, &read)?)
        };
        // After a restart of the database each pooled connection is dead and says so at its first use. Reading again is
        // harmless, so that the caller need not pay for each of them.
        let mut result = attempt();
        for _ in 0..N_READERS {
            if !result.as_ref().is_err_and(Failure::is_lost_connection) {
                break;
            }
            result = attempt();
        }
        result.map_err(|err| err.into_store("reading the alert history"))
    }
}

fn page(conn: &mut mysql::Conn, query: &HistoryQuery) -> mysql::Result<Vec<HistoryRow>> {
    let mut rows = Vec::new();
    for step in select::steps(query) {
        let n_missing = (query.limit as usize).saturating_sub(rows.len());
        let (sql, args) = select::statement(query, step, n_missing, Dialect::MySql);
        let values = args.iter().map(value::arg).collect();
        // Row by row to its end: only so does an error in the middle of the rows come out.
        for row in conn.exec_iter(sql, Params::Positional(values))? {
            rows.push(value::history_row(row?)?);
        }
        if rows.len() >= query.limit as usize {
            break;
        }
    }
    Ok(rows)
}

impl AlertStore for MySqlStore {
    fn describe(&self) -> String {
        self.options.to_string()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let missing = self.write_with(schema::missing).map_err(|err| err.into_store("reading the table's schema"))?;
        if missing.is_none() { Ok(()) } else { schema::migrate(&self.options, &self.gate) }
    }

    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError> {
        if alerts.is_empty() {
            return Ok(());
        }
        let rows = alerts.iter().map(|alert| upsert::values(&AlertRow::new(alert), self.server_id)).collect();
        self.write_rows(rows).map_err(|err| err.into_store(format!("writing {} alerts", alerts.len())))
    }

    fn shut(&self) {
        self.gate.shut();
    }

    fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        self.read_with(|conn| page(conn, query))
    }

    fn alert(&self, alert_id: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        let (sql, id) = select::record(alert_id);
        self.read_with(|conn| {
            let row = conn.exec_first(&sql, Params::Positional(vec![value::arg(&id)]))?;
            row.map(value::record).transpose()
        })
    }

    fn prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let sql = "DELETE FROM alerts WHERE resolved_at < ? AND alert_id IS NOT NULL ORDER BY resolved_at, id LIMIT ?";
        let values = vec![value::arg(&select::Arg::Time(before)), Value::UInt(u64::from(limit))];
        self.write_with(|conn| {
            conn.exec_drop(sql, Params::Positional(values))?;
            Ok(conn.affected_rows())
        })
        .map_err(|err| err.into_store("pruning the alert history"))
    }
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore").field("options", &self.options).finish_non_exhaustive()
    }
}
