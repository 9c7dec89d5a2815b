//! The journal's SQLite file: its schema, one commit, and reading events back.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{
    Entry,
    record::{self, RecordError, RestoredInstance, WindowsChange},
};
use crate::{
    model::{Event, Timestamp},
    rules::RuleRecord,
};

/// Layout of the file; one of another number is refused.
const LAYOUT: i64 = 1;
const PAGE_BYTES: u64 = 4_096;
/// Delivered events stay this long: what was delivered lately can be looked at where it came from.
const KEEP_DELIVERED_MILLIS: i64 = 10 * 60 * 1_000;
/// And at most so many.
const KEEP_DELIVERED_MAX: u64 = 200_000;
/// Events dropped in one commit: dropping more would make receipts wait.
const DROP_AT_ONCE: u32 = 5_000;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    body BLOB    NOT NULL
);
CREATE TABLE IF NOT EXISTS instances (
    service  TEXT NOT NULL,
    instance TEXT NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (service, instance)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    service  TEXT NOT NULL,
    instance TEXT NOT NULL,
    part     INTEGER NOT NULL,
    body     BLOB NOT NULL,
    PRIMARY KEY (service, instance, part)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rules (
    name       TEXT PRIMARY KEY,
    question   TEXT NOT NULL,
    generation INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS server (id BLOB NOT NULL);
";

/// The journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite said no.
    #[error("{doing} {}", path.display())]
    Sqlite {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is of a layout that this version does not read.
    #[error("{} has layout {found}, this version reads {LAYOUT}: start the version that wrote it, or move the file away", path.display())]
    Layout {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// A record cannot be read.
    #[error("reading a record of {}: the file is damaged; restore it, or move it away to begin anew without it", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
}

impl JournalError {
    /// Whether the same commit can succeed later: the disk is full, or somebody holds the file. Anything else, a
    /// failed fsync above all, leaves us not knowing what is on the disk: start again and read it.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }
}

/// The file, open for writing. One writer; readers have connections of their own.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    connection: Connection,
    server_id: Uuid,
    last_seq: u64,
    first_seq: u64,
}

impl File {
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, JournalError> {
        let fail = |doing| move |source| JournalError::Sqlite { doing, path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(fail("opening the journal"))?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail("reading"))?;
        if found != 0 && found != LAYOUT {
            return Err(JournalError::Layout { path: path.to_owned(), found });
        }
        // FULL: a commit is on the disk before it is receipted (I9).
        let set_up = || -> rusqlite::Result<()> {
            connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
            connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            let max_pages = i64::try_from(max_bytes / PAGE_BYTES).unwrap_or(i64::MAX);
            connection.query_row(&format!("PRAGMA max_page_count = {max_pages}"), [], |_| Ok(()))?;
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "user_version", LAYOUT)
        };
        set_up().map_err(fail("setting up the journal"))?;
        let server_id = server_id(&connection).map_err(fail("reading the server's id from"))?;
        let last_seq = connection
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| row.get(0))
            .optional()
            .map_err(fail("reading the last number from"))?
            .unwrap_or(0);
        let first_seq = first_seq(&connection).map_err(fail("reading the first number from"))?;
        Ok(Self { path: path.to_owned(), connection, server_id, last_seq, first_seq })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn server_id(&self) -> Uuid {
        self.server_id
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn cursor(&self, sink: &str) -> Result<u64, JournalError> {
        let query = "SELECT seq FROM cursors WHERE sink = ?1";
        let found = self.connection.query_row(query, [sink], |row| row.get(0)).optional();
        Ok(found.map_err(|source| self.failed("reading a cursor from", source))?.unwrap_or(0))
    }

    pub(super) fn instances(&self) -> Result<Vec<RestoredInstance>, JournalError> {
        let failed = |source| self.failed("reading instances from", source);
        let damaged = |source| JournalError::Damaged { path: self.path.clone(), source };
        let mut statement = self
            .connection
            .prepare("SELECT service, instance, body FROM instances ORDER BY service, instance")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut windows = self
            .connection
            .prepare("SELECT service, instance, body FROM windows ORDER BY service, instance, part")
            .map_err(failed)?;
        let mut window_rows = windows.query([]).map_err(failed)?;
        let mut next_window = || -> Result<Option<(String, String, Vec<u8>)>, JournalError> {
            window_rows.next().map_err(failed)?.map(|row| row.try_into().map_err(failed)).transpose()
        };
        // Both come in the order of their instances: one walk along both.
        let mut window = next_window()?;
        let mut instances = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (service, instance, body): (String, String, Vec<u8>) = row.try_into().map_err(failed)?;
            let mut parts = Vec::new();
            while let Some((of_service, of_instance, part)) =
                window.take_if(|(s, i, _)| (s.as_str(), i.as_str()) <= (service.as_str(), instance.as_str()))
            {
                if (&of_service, &of_instance) == (&service, &instance) {
                    parts.push(record::decode_windows(&part).map_err(damaged)?);
                }
                window = next_window()?;
            }
            instances.push(record::decode_instance(&service, &instance, &body, parts).map_err(damaged)?);
        }
        Ok(instances)
    }

    pub(super) fn rules(&self) -> Result<Vec<RuleRecord>, JournalError> {
        let failed = |source| self.failed("reading rules from", source);
        let query = "SELECT name, question, generation FROM rules";
        let mut statement = self.connection.prepare(query).map_err(failed)?;
        let record = |row: &rusqlite::Row<'_>| {
            let name: String = row.get(0)?;
            Ok(RuleRecord { name: name.into(), question: row.get(1)?, generation: row.get(2)? })
        };
        statement.query_map([], record).and_then(Iterator::collect).map_err(failed)
    }

    /// Whether more events that every sink has had are kept than may be.
    pub(super) fn has_too_many(&self, delivered: u64) -> bool {
        delivered.saturating_sub(self.first_seq) > KEEP_DELIVERED_MAX
    }

    /// Whether events that every sink has had are old, or too many.
    pub(super) fn has_old(&self, delivered: u64) -> bool {
        self.has_too_many(delivered)
            || delivered >= self.first_seq && self.first_at().is_some_and(|at| at < keep_from())
    }

    /// One transaction. `delivered`: drop old events up to this number, which every sink has had.
    pub(super) fn commit(
        &mut self,
        entries: &[Entry],
        cursors: &[(&str, u64)],
        delivered: Option<u64>,
    ) -> Result<(), JournalError> {
        let (last_seq, first_seq) = self
            .try_commit(entries, cursors, delivered)
            .map_err(|source| self.failed("writing to the journal", source))?;
        (self.last_seq, self.first_seq) = (last_seq, first_seq);
        Ok(())
    }

    fn try_commit(
        &mut self,
        entries: &[Entry],
        cursors: &[(&str, u64)],
        delivered: Option<u64>,
    ) -> rusqlite::Result<(u64, u64)> {
        let mut seq = self.last_seq;
        let mut first = self.first_seq;
        let transaction = self.connection.transaction()?;
        {
            let mut add = transaction.prepare_cached("INSERT INTO events (seq, at, body) VALUES (?1, ?2, ?3)")?;
            let now = now_millis();
            for event in entries.iter().flat_map(|entry| &entry.events) {
                seq += 1;
                first = first.min(seq);
                add.execute(params![seq, now, record::encode_event(event)])?;
            }
            let mut save = transaction
                .prepare_cached("INSERT OR REPLACE INTO instances (service, instance, body) VALUES (?1, ?2, ?3)")?;
            let mut drop = transaction.prepare_cached("DELETE FROM instances WHERE service = ?1 AND instance = ?2")?;
            let mut add_windows = transaction.prepare_cached(
                "INSERT OR REPLACE INTO windows (service, instance, part, body) VALUES (?1, ?2, ?3, ?4)",
            )?;
            let mut drop_windows =
                transaction.prepare_cached("DELETE FROM windows WHERE service = ?1 AND instance = ?2")?;
            for snapshot in entries.iter().flat_map(|entry| &entry.snapshots) {
                let (service, instance) = (snapshot.key.service(), snapshot.key.instance());
                match &snapshot.body {
                    Some(body) => save.execute(params![service, instance, body])?,
                    None => drop.execute(params![service, instance])?,
                };
                match &snapshot.windows {
                    WindowsChange::Keep => {}
                    WindowsChange::Add(part, body) => {
                        add_windows.execute(params![service, instance, part, body])?;
                    }
                    WindowsChange::Replace(body) => {
                        drop_windows.execute(params![service, instance])?;
                        if let Some(body) = body {
                            add_windows.execute(params![service, instance, 0, body])?;
                        }
                    }
                }
            }
            if let Some(rules) = entries.iter().rev().find_map(|entry| entry.rules.as_ref()) {
                save_rules(&transaction, rules)?;
            }
            save_cursors(&transaction, cursors)?;
            if let Some(delivered) = delivered {
                drop_old(&transaction, delivered)?;
                first = first_seq(&transaction)?;
            }
        }
        transaction.commit()?;
        Ok((seq, first))
    }

    /// The disk, or the file's limit, is full: saves the cursors and drops what every sink has had, however young.
    pub(super) fn make_room(&mut self, cursors: &[(&str, u64)], delivered: u64) -> Result<(), JournalError> {
        let dropped = (|| {
            let transaction = self.connection.transaction()?;
            transaction.execute("DELETE FROM events WHERE seq <= ?1", [delivered])?;
            save_cursors(&transaction, cursors)?;
            let first_seq = first_seq(&transaction)?;
            transaction.commit()?;
            Ok(first_seq)
        })();
        self.first_seq = dropped.map_err(|source| self.failed("making room in the journal", source))?;
        Ok(())
    }

    pub(super) fn close(self) -> Result<(), JournalError> {
        let Self { path, connection, .. } = self;
        let fail = |source| JournalError::Sqlite { doing: "closing", path, source };
        connection.close().map_err(|(_, source)| fail(source))
    }

    fn first_at(&self) -> Option<i64> {
        self.connection.query_row("SELECT at FROM events ORDER BY seq LIMIT 1", [], |row| row.get(0)).ok()
    }

    fn failed(&self, doing: &'static str, source: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { doing, path: self.path.clone(), source }
    }
}

fn save_rules(transaction: &Transaction<'_>, rules: &[RuleRecord]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM rules", [])?;
    let mut save = transaction.prepare_cached("INSERT INTO rules (name, question, generation) VALUES (?1, ?2, ?3)")?;
    for rule in rules {
        save.execute(params![&*rule.name, rule.question, rule.generation])?;
    }
    Ok(())
}

fn save_cursors(transaction: &Transaction<'_>, cursors: &[(&str, u64)]) -> rusqlite::Result<()> {
    let mut save = transaction.prepare_cached("INSERT OR REPLACE INTO cursors (sink, seq) VALUES (?1, ?2)")?;
    for (sink, position) in cursors {
        save.execute(params![sink, position])?;
    }
    Ok(())
}

fn drop_old(transaction: &Transaction<'_>, delivered: u64) -> rusqlite::Result<()> {
    let spare = delivered.saturating_sub(KEEP_DELIVERED_MAX);
    transaction
        .prepare_cached(
            "DELETE FROM events WHERE seq IN
                (SELECT seq FROM events WHERE seq <= ?1 AND (at < ?2 OR seq <= ?3) ORDER BY seq LIMIT ?4)",
        )?
        .execute(params![delivered, keep_from(), spare, DROP_AT_ONCE])?;
    Ok(())
}

fn first_seq(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(min(seq), 9223372036854775807) FROM events", [], |row| row.get(0))
}

fn server_id(connection: &Connection) -> rusqlite::Result<Uuid> {
    let found: Option<[u8; 16]> = connection.query_row("SELECT id FROM server", [], |row| row.get(0)).optional()?;
    if let Some(bytes) = found {
        return Ok(Uuid::from_bytes(bytes));
    }
    let id = Uuid::new_v4();
    connection.execute("INSERT INTO server (id) VALUES (?1)", [id.as_bytes()])?;
    Ok(id)
}

fn now_millis() -> i64 {
    Timestamp::now().as_micros() / 1_000
}

fn keep_from() -> i64 {
    now_millis() - KEEP_DELIVERED_MILLIS
}

/// Reads events by number, for one sink.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let fail = |source| JournalError::Sqlite { doing: "opening for reading", path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(fail)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(fail)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Up to `limit` events behind `after`, in order, each with its number.
    pub fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, JournalError> {
        let failed = |source| JournalError::Sqlite { doing: "reading events from", path: self.path.clone(), source };
        let query = "SELECT seq, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = self.connection.prepare_cached(query).map_err(failed)?;
        let mut rows = statement.query(params![after, limit as u64]).map_err(failed)?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (seq, body): (u64, Vec<u8>) = row.try_into().map_err(failed)?;
            let damaged = |source| JournalError::Damaged { path: self.path.clone(), source };
            events.push((seq, record::decode_event(&body).map_err(damaged)?));
        }
        Ok(events)
    }
}
