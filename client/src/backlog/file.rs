//! The spool's file: SQLite, a row per report, numbered without gaps, so that a position is a number.
//!
//! WAL with synchronous=NORMAL: what is committed survives the end of the process, however sudden. The end of the machine
//! may take what was committed since the last checkpoint, in whole transactions from the end.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, params};

use super::{OVERHEAD, Waiting};
use crate::codec::Encoded;

/// Of the file's form; another one is put aside.
const LAYOUT: i64 = 1;

const SCHEMA: &str = "CREATE TABLE reports (
    id       INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    report   BLOB NOT NULL
) STRICT";

/// Free pages that are given back to the file system once there are so many: 4 MiB.
const MOST_FREE_PAGES: i64 = 1024;

/// Reports that are removed at once. On a full disk the log may have room for a few pages, and these need no more.
const REMOVED_AT_ONCE: i64 = 1000;

/// No row is smaller.
const LEAST_ROW_BYTES: u64 = 16;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("it is not in order: {0}")]
    NotInOrder(String),
    #[error("SQLite")]
    Sqlite(#[from] rusqlite::Error),
}

impl FileError {
    /// Whether trying again would help nobody: what stands in the file is wrong.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            FileError::NotInOrder(_) => true,
            // Without a code SQLite was content, and we are not: a row is missing, or of another shape.
            FileError::Sqlite(err) => err
                .sqlite_error_code()
                .is_none_or(|code| matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)),
        }
    }
}

/// What is in a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Contents {
    /// The number of the oldest report.
    pub(super) first: i64,
    pub(super) n_reports: u64,
    /// What they cost.
    pub(super) bytes: usize,
    pub(super) n_epochs: u64,
}

/// An open file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    connection: Connection,
}

impl SpoolFile {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> Result<(Self, Contents), FileError> {
        let connection = Connection::open(path)?;
        // The directory is ours alone. Without others to share it with, the log's index needs no file.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        // An agent is meant to be small: 256 KiB instead of 2 MiB of pages in memory, and a log of 1 MiB.
        connection.pragma_update(None, "cache_size", -256)?;
        let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let n_tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if n_tables == 0 {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch("PRAGMA wal_autocheckpoint = 256; PRAGMA journal_size_limit = 1048576")?;
        if n_tables == 0 {
            connection.execute_batch(&format!("BEGIN; {SCHEMA}; PRAGMA user_version = {LAYOUT}; COMMIT"))?;
        } else if layout != LAYOUT {
            return Err(FileError::NotInOrder(format!("its layout is {layout}, not {LAYOUT}")));
        }
        let contents = contents(&connection)?;
        Ok((Self { connection }, contents))
    }

    /// Removes what is before the number `first`.
    pub(super) fn remove(&mut self, first: i64) -> Result<(), FileError> {
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM reports WHERE id < ?1 AND id < (SELECT min(id) FROM reports) + ?2")?;
        while delete.execute([first, REMOVED_AT_ONCE])? > 0 {}
        Ok(())
    }

    /// Adds `reports` from the number `next` on: all of them, or none.
    pub(super) fn add<'a>(&mut self, next: i64, reports: impl Iterator<Item = &'a Waiting>) -> Result<(), FileError> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO reports VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (id, waiting) in (next..).zip(reports) {
                insert.execute(params![
                    id,
                    waiting.epoch.cast_signed(),
                    waiting.since_ms.cast_signed(),
                    checksum(id, waiting),
                    &waiting.report[..]
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Gives back to the file system what is free, if that is much.
    pub(super) fn shrink(&self) -> Result<(), FileError> {
        let n_free: i64 = self.connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        if n_free > MOST_FREE_PAGES {
            // It frees a page with each step.
            let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum(1024)")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(())
    }

    /// The reports from the number `first` on, to `most_bytes` of them, and at least one.
    pub(super) fn read(&self, first: i64, most_bytes: usize) -> Result<Vec<Waiting>, FileError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT id, epoch, since_ms, crc, report FROM reports WHERE id >= ?1 ORDER BY id")?;
        let mut rows = select.query([first])?;
        let mut found = Vec::new();
        let mut bytes = 0;
        while bytes < most_bytes {
            let Some(row) = rows.next()? else { break };
            let id: i64 = row.get(0)?;
            let waiting = Waiting {
                epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                since_ms: row.get::<_, i64>(2)?.cast_unsigned(),
                report: Encoded::copy_from_slice(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?),
            };
            // A damaged report could not be decoded: the server would refuse the stream that brings it, for ever.
            if id != first + found.len() as i64 || row.get::<_, i64>(3)? != checksum(id, &waiting) {
                return Err(FileError::NotInOrder(format!("report {id} is not what was written")));
            }
            bytes += waiting.cost();
            found.push(waiting);
        }
        if found.is_empty() {
            return Err(FileError::NotInOrder(format!("report {first} is missing")));
        }
        Ok(found)
    }

    /// Since when report `id` waits.
    pub(super) fn since_ms(&self, id: i64) -> Result<u64, FileError> {
        let mut select = self.connection.prepare_cached("SELECT since_ms FROM reports WHERE id = ?1")?;
        Ok(select.query_row([id], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// What the reports from number `first` up to, not with, `end` cost.
    pub(super) fn cost(&self, first: i64, end: i64) -> Result<usize, FileError> {
        let mut select = self.connection.prepare_cached(
            "SELECT count(*), ifnull(sum(length(report)), 0) FROM reports WHERE id >= ?1 AND id < ?2",
        )?;
        let (n_reports, bytes): (i64, i64) = select.query_row([first, end], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(bytes as usize + n_reports as usize * OVERHEAD)
    }

    /// How many reports a file had that cannot be opened, as far as that can be seen: from the number of the first one to that of
    /// the last, which are read without what lies between.
    pub(super) fn n_in_damaged(path: &Path) -> Option<u64> {
        let connection = Connection::open(path).ok()?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").ok()?;
        let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).ok();
        let (first, last) = (number("SELECT min(id) FROM reports")?, number("SELECT max(id) FROM reports")?);
        // A damaged number may be anything.
        let most = std::fs::metadata(path).ok()?.len() / LEAST_ROW_BYTES;
        u64::try_from(last.checked_sub(first)?).ok().map(|n_others| n_others + 1).filter(|n_reports| *n_reports <= most)
    }

    /// For tests: the file may not grow any more, as on a full disk.
    #[cfg(test)]
    pub(super) fn fill_disk(&self, is_full: bool) {
        let pages = if is_full { 1 } else { 1 << 20 };
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).expect("it is set");
    }

    /// For tests: nothing may be written, as on a disk without a page left.
    #[cfg(test)]
    pub(super) fn refuse_writes(&self) {
        self.connection.pragma_update(None, "query_only", true).expect("it is set");
    }
}

fn contents(connection: &Connection) -> Result<Contents, FileError> {
    let sql = "SELECT count(*), ifnull(min(id), 1), ifnull(max(id), 0), ifnull(sum(length(report)), 0), \
               count(DISTINCT epoch) FROM reports";
    let (n_reports, first, last, bytes, n_epochs): (i64, i64, i64, i64, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
    if last - first + 1 != n_reports {
        return Err(FileError::NotInOrder(format!("{n_reports} reports are numbered {first} to {last}")));
    }
    Ok(Contents {
        first,
        n_reports: n_reports as u64,
        bytes: bytes as usize + n_reports as usize * OVERHEAD,
        n_epochs: n_epochs as u64,
    })
}

fn checksum(id: i64, waiting: &Waiting) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.to_be_bytes());
    hasher.update(&waiting.epoch.to_be_bytes());
    hasher.update(&waiting.since_ms.to_be_bytes());
    hasher.update(&waiting.report);
    i64::from(hasher.finalize())
}
