//! Reading events back, each sink with a connection of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    error::JournalError,
    record::{self, RecordError},
    seal,
};
use crate::model::{Event, Timestamp};

/// One event as the journal has it.
#[derive(Debug)]
pub struct Recorded {
    /// Its number.
    pub seq: u64,
    /// When it was journaled, by the server's clock.
    pub at: Timestamp,
    /// What it says, if that can be read.
    pub event: Result<Event, RecordError>,
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
        connection.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Up to `limit` events behind `after`, in order. Numbers have no gaps: one that is
    /// missing between those that are there is a damaged event.
    pub fn read(&self, after: u64, limit: usize) -> Result<Vec<Recorded>, JournalError> {
        // As far as SQLite can count.
        let found = self.read_again(after, u64::MAX >> 1, limit)?;
        let mut events = Vec::with_capacity(found.len());
        let mut expected = after + 1;
        for recorded in found {
            // As many as fit: the others are found missing at the next call.
            while expected < recorded.seq && events.len() < limit {
                let event = Err(RecordError::Missing);
                events.push(Recorded { seq: expected, at: recorded.at, event });
                expected += 1;
            }
            if events.len() >= limit {
                break;
            }
            expected = recorded.seq + 1;
            events.push(recorded);
        }
        Ok(events)
    }

    /// As [`Self::read`], as far as `up_to` at most, and from the first that is kept: what was dropped is not missed.
    pub fn read_again(&self, after: u64, up_to: u64, limit: usize) -> Result<Vec<Recorded>, JournalError> {
        self.rows(
            "SELECT seq, at, body FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
            [after, up_to, limit as u64],
        )
    }

    /// The dead letters of a sink, by number.
    pub fn dead_letters(&self, sink: &str) -> Result<Vec<Recorded>, JournalError> {
        self.rows("SELECT seq, at, body FROM dead_letters WHERE sink = ?1 ORDER BY seq", [sink])
    }

    /// Looks through the file for pages that make no sense; `None`: there are none. Takes long for a large file.
    pub fn find_damage(&self) -> Result<Option<String>, JournalError> {
        let said: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|err| self.failed(err))?;
        Ok((said != "ok").then_some(said))
    }

    fn rows<P: rusqlite::Params>(&self, query: &str, params: P) -> Result<Vec<Recorded>, JournalError> {
        let mut statement = self.connection.prepare_cached(query).map_err(|err| self.failed(err))?;
        let mut rows = statement.query(params).map_err(|err| self.failed(err))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(|err| self.failed(err))? {
            let (seq, at, body): (u64, i64, Vec<u8>) = row.try_into().map_err(|err| self.failed(err))?;
            let event = seal::open(&[&seq.to_le_bytes(), &at.to_le_bytes()], &body).and_then(record::decode_event);
            events.push(Recorded { seq, at: Timestamp::from_micros(at.saturating_mul(1_000)), event });
        }
        Ok(events)
    }

    fn failed(&self, source: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { doing: "reading events from", path: self.path.clone(), source }
    }
}
