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
use crate::model::{Event, EventKind, Timestamp};

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

const EVENTS: &str = "SELECT seq, at, body FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";

/// Number, time, and the event unless it is of a kind that is not wanted.
type Row = (u64, Timestamp, Result<Option<Event>, RecordError>);

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
        self.read_only(after, limit, |_| true).map(|(events, _)| events)
    }

    /// As [`Self::read`], without events of kinds that the sink has no use for: these are checked, and not put together. Also
    /// the number of the last event that was looked at, wanted or not; `after`: there was none.
    pub fn read_only(
        &self,
        after: u64,
        limit: usize,
        is_wanted: impl Fn(EventKind) -> bool,
    ) -> Result<(Vec<Recorded>, u64), JournalError> {
        let mut events = Vec::new();
        let mut last = after;
        // As far as SQLite can count.
        for (seq, at, event) in self.rows(EVENTS, [after, u64::MAX >> 1, limit as u64], is_wanted)? {
            // As many as fit: the others are found missing at the next call.
            let fits = |last: u64| last - after < limit as u64;
            while last + 1 < seq && fits(last) {
                last += 1;
                events.push(Recorded { seq: last, at, event: Err(RecordError::Missing) });
            }
            if !fits(last) {
                break;
            }
            last = seq;
            events.extend(event.transpose().map(|event| Recorded { seq, at, event }));
        }
        Ok((events, last))
    }

    /// As [`Self::read`], as far as `up_to` at most, and from the first that is kept: what was dropped is not missed.
    pub fn read_again(&self, after: u64, up_to: u64, limit: usize) -> Result<Vec<Recorded>, JournalError> {
        self.all(EVENTS, [after, up_to, limit as u64])
    }

    /// The dead letters of a sink, by number.
    pub fn dead_letters(&self, sink: &str) -> Result<Vec<Recorded>, JournalError> {
        self.all("SELECT seq, at, body FROM dead_letters WHERE sink = ?1 ORDER BY seq", [sink])
    }

    /// Looks through the file for pages that make no sense; `None`: there are none. Takes long for a large file.
    pub fn find_damage(&self) -> Result<Option<String>, JournalError> {
        let said: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|err| self.failed(err))?;
        Ok((said != "ok").then_some(said))
    }

    fn all<P: rusqlite::Params>(&self, query: &str, params: P) -> Result<Vec<Recorded>, JournalError> {
        let rows = self.rows(query, params, |_| true)?;
        Ok(rows
            .into_iter()
            .filter_map(|(seq, at, event)| Some(Recorded { seq, at, event: event.transpose()? }))
            .collect())
    }

    fn rows<P: rusqlite::Params>(
        &self,
        query: &str,
        params: P,
        is_wanted: impl Fn(EventKind) -> bool,
    ) -> Result<Vec<Row>, JournalError> {
        let mut statement = self.connection.prepare_cached(query).map_err(|err| self.failed(err))?;
        let mut rows = statement.query(params).map_err(|err| self.failed(err))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(|err| self.failed(err))? {
            let read = || -> rusqlite::Result<Row> {
                let (seq, at): (u64, i64) = (row.get(0)?, row.get(1)?);
                // Where it lies: a copy of each record would cost as much as its checksum.
                let sealed = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
                let event = seal::open(&[&seq.to_le_bytes(), &at.to_le_bytes()], sealed).and_then(|body| {
                    let is_left_out = record::kind_of(body).is_some_and(|kind| !is_wanted(kind));
                    if is_left_out { Ok(None) } else { record::decode_event(body).map(Some) }
                });
                Ok((seq, Timestamp::from_micros(at.saturating_mul(1_000)), event))
            };
            events.push(read().map_err(|err| self.failed(err))?);
        }
        Ok(events)
    }

    fn failed(&self, source: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { doing: "reading events from", path: self.path.clone(), source }
    }
}
