//! Notices that SQLite's write-ahead log, `journal.db-wal`, is gone with what was committed last.
//!
//! SQLite takes a missing log for an empty one. A young journal has everything in its log, so that it would begin anew in
//! silence. As it starts to be written the file itself so gets a mark, which the first commit in the log takes back: a file
//! that still has it, beside a log without a commit, was robbed of its log. A log that merely lacks its tail looks as after
//! any crash.

use rusqlite::{Connection, OptionalExtension};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS log_mark (is_set INTEGER NOT NULL)";

/// Leaves the mark in the file and takes it back in the log.
pub(super) fn put(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLE)?;
    set(connection, true)?;
    // The log keeps its frames until the next commit begins it anew: a kill in between does not look like a loss.
    checkpoint(connection, "FULL")?;
    set(connection, false)
}

/// Whether the log is gone. If not, the mark is no longer set.
pub(super) fn is_log_gone(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'log_mark'";
    let is_known: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    if is_known.is_none() {
        return Ok(false);
    }
    let is_set: Option<bool> = connection.query_row("SELECT is_set FROM log_mark", [], |row| row.get(0)).optional()?;
    if is_set != Some(true) {
        return Ok(false);
    }
    if checkpoint(connection, "PASSIVE")? == 0 {
        return Ok(true);
    }
    set(connection, false)?;
    Ok(false)
}

fn set(connection: &Connection, is_set: bool) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN; DELETE FROM log_mark; INSERT INTO log_mark (is_set) VALUES ({}); COMMIT",
        u8::from(is_set)
    ))
}

/// How many commits' pages the log holds.
fn checkpoint(connection: &Connection, how: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| row.get(1))
}
