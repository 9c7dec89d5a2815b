//! The alert history in a database: one seam, two stores.
//!
//! Every call blocks: the writer stage owns a thread, REST reads go through `spawn_blocking`. Writing is idempotent and
//! gated by each row's version, so that delivering an event twice, or late, is harmless (I10).

mod error;
mod failure;
mod gate;
mod history;
mod mysql;
mod row;
mod select;
mod sqlite;

use std::{fmt, sync::Arc};

use uuid::Uuid;

pub use error::StoreError;
pub use history::{AlertRecord, AlertState, Cursor, HistoryQuery, HistoryRow};
pub use mysql::{MySqlOptions, MySqlStore, OptionsError};
pub use row::{events_json, evidence_json, labels_json};
pub use sqlite::SqliteStore;

use crate::model::{Alert, Timestamp};

/// What the pipeline asks of a database. Both stores give the same answers to the same calls.
pub trait AlertStore: Send + Sync + fmt::Debug {
    /// Where the rows go, fit for a log line: the kind, address and database, never a password.
    fn describe(&self) -> String;

    /// Creates or widens the schema; idempotent. The writer calls it before its first write and until it succeeds.
    fn prepare(&self) -> Result<(), StoreError>;

    /// Writes each alert's row in one statement: inserts it, or replaces one of a lower version. `alerts` may hold
    /// several versions of one alert, in order.
    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError>;

    /// How many rows a statement may have before it costs each of them more.
    fn max_batch(&self) -> usize {
        1_000
    }

    /// Rows that match, newest first by (triggered_at, id); at most `query.limit`.
    fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError>;

    /// One alert with its life and its evidence; `None`: there is no row of that id.
    fn alert(&self, alert_id: Uuid) -> Result<Option<AlertRecord>, StoreError>;

    /// Begins no further write, of whatever kind; the one in flight may finish. Reads go on.
    fn shut(&self);

    /// Deletes up to `limit` rows that were resolved before `before`, oldest first; returns how many. Rows that fire
    /// and rows without `alert_id` stay.
    fn prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
