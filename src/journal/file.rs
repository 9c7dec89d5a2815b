//! The journal's SQLite file: opening it, what it remembers, and one commit.

mod schema;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{
    Entry,
    error::JournalError,
    record::{self, CursorRecord, RecordError, RestoredInstance, RuleMessage, WindowsChange},
    seal::{self, seal},
    sinks::{Ahead, Changes, DeadLetter, KEPT_LETTERS, Letters, Saved},
    space::Space,
};
use crate::{model::WallClock, rules::RuleRecord};
use schema::LAYOUT;

const PAGE_BYTES: u64 = 4_096;
/// Delivered events stay this long, to be delivered again: what a database had may be gone with its last second.
const KEEP_DELIVERED_MILLIS: i64 = 10 * 60 * 1_000;
/// And at most so many, of so many bytes.
const KEEP_DELIVERED_MAX: u64 = 200_000;
const KEEP_DELIVERED_BYTES: u64 = 256 << 20;
/// But however short the room is, this long.
const KEEP_ALWAYS_MILLIS: i64 = 2_000;
/// Events dropped in one commit: dropping more would make receipts wait.
const DROP_AT_ONCE: u32 = 5_000;
/// Pages in memory, in KiB: enough for those that a storm comes back to. With SQLite's own 2 MiB a commit of a thousand
/// instances read most of its pages from the file again.
const CACHE_KIB: i64 = 8 << 10;
/// Pages in the log from which on a commit moves them into the file: 16 MiB. An instance's page that many commits change
/// moves once for all of them; with SQLite's own 1,000 every other commit of a storm moved, and synced, the file.
const LOG_PAGES: i64 = 4_000;
/// A commit that does not fit into a file so full has met the file's limit: what is left is less than a commit.
const FULL: f64 = 0.9;

/// The file, open for writing. One writer; readers have connections of their own.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    connection: Connection,
    space: Space,
    max_pages: u64,
    server_id: Uuid,
    last_seq: u64,
    first_seq: u64,
    /// What the events in the file take, without SQLite's own.
    event_bytes: u64,
    /// By this they grow old.
    clock: WallClock,
}

/// Service, instance, part and points.
type WindowsRow = (String, String, u32, Vec<u8>);

/// What one transaction makes durable together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) entries: &'a [Entry],
    pub(super) sinks: &'a Changes,
    /// Drop old events up to this number, which every sink is done with.
    pub(super) drop_to: Option<u64>,
}

/// What a transaction leaves behind.
struct Counts {
    last_seq: u64,
    first_seq: u64,
    event_bytes: u64,
}

impl File {
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, JournalError> {
        let fail = |doing| move |source| JournalError::sqlite(doing, path, source);
        let damaged =
            |what: &str, source| JournalError::Damaged { path: path.to_owned(), what: what.to_owned(), source };
        match fs::metadata(path) {
            // What was here is gone: to begin anew unasked would hide that.
            Ok(found) if found.len() == 0 => return Err(damaged("anything", RecordError::Missing)),
            Ok(_) => {}
            // Made aside, so that a crash leaves a whole file or none.
            Err(_) => create(path).map_err(fail("making the journal"))?,
        }
        let mut connection = Connection::open(path).map_err(fail("opening the journal"))?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail("reading"))?;
        if !(0..=LAYOUT).contains(&found) {
            return Err(JournalError::Layout { path: path.to_owned(), found, wanted: LAYOUT });
        }
        let max_pages = max_bytes / PAGE_BYTES;
        // FULL: a commit is on the disk before it is receipted (I9).
        let set_up = |connection: &mut Connection| -> rusqlite::Result<()> {
            connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            let max_pages = i64::try_from(max_pages).unwrap_or(i64::MAX);
            connection.query_row(&format!("PRAGMA max_page_count = {max_pages}"), [], |_| Ok(()))?;
            schema::set_up(connection, found)
        };
        set_up(&mut connection).map_err(fail("setting up the journal"))?;
        let server_id = server_id(&connection).map_err(fail("reading the server's id from"))?;
        let one = |query| connection.query_row(query, [], |row| row.get::<_, Option<u64>>(0)).optional();
        let reading = fail("reading numbers from");
        let in_sequence = one("SELECT seq FROM sqlite_sequence WHERE name = 'events'").map_err(reading)?.flatten();
        let last = one("SELECT max(seq) FROM events").map_err(fail("reading numbers from"))?.flatten();
        let bytes = one("SELECT sum(length(body)) FROM events").map_err(fail("reading sizes from"))?.flatten();
        let first_seq = first_seq(&connection).map_err(fail("reading the first number from"))?;
        let space = Space::new(path.parent().unwrap_or(Path::new(".")));
        Ok(Self {
            path: path.to_owned(),
            space,
            max_pages,
            server_id,
            last_seq: in_sequence.max(last).unwrap_or(0),
            first_seq,
            event_bytes: bytes.unwrap_or(0),
            clock: WallClock::System,
            connection,
        })
    }

    /// The same file by another clock.
    #[cfg(test)]
    pub(crate) fn by(self, clock: WallClock) -> Self {
        Self { clock, ..self }
    }

    /// The same file on a disk of which so many bytes have to stay free.
    #[cfg(test)]
    pub(super) fn keeping_free(self, least_free: u64) -> Self {
        Self { space: self.space.keeping_free(least_free), ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    pub(super) fn server_id(&self) -> Uuid {
        self.server_id
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The first and the last event; without events the first is beyond every number.
    pub(super) fn bounds(&self) -> (u64, u64) {
        (self.first_seq, self.last_seq)
    }

    /// The part of the file's largest size that is in use, from 0 to 1.
    pub(super) fn fill(&self) -> f64 {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0)).unwrap_or(0);
        pragma("page_count").saturating_sub(pragma("freelist_count")) as f64 / self.max_pages as f64
    }

    /// How far each sink has come, and how many dead letters it has.
    pub(super) fn sinks(&self) -> Result<BTreeMap<String, Saved>, JournalError> {
        let failed = |source| self.failed("reading cursors from", source);
        let query = "SELECT name, body, (SELECT count(*) FROM dead_letters WHERE sink = name) FROM sinks";
        let mut statement = self.connection.prepare(query).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut sinks = BTreeMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (name, body, n_dead): (String, Vec<u8>, u64) = row.try_into().map_err(failed)?;
            let record: CursorRecord =
                decode(&[name.as_bytes()], &body).map_err(|err| self.damaged(format!("the cursor of {name}"), err))?;
            let CursorRecord { seq, delivered, identity, dead, ahead_to, mut open } = record;
            open.sort_unstable();
            let ahead = Ahead::new(ahead_to, open.into_iter());
            sinks.insert(name, Saved { seq, ahead, delivered, dead: dead.unwrap_or(n_dead), identity });
        }
        Ok(sinks)
    }

    pub(super) fn instances(&self) -> Result<Vec<RestoredInstance>, JournalError> {
        let failed = |source| self.failed("reading instances from", source);
        let damaged = |service: &str, instance: &str| {
            let what = format!("what is known of {service}/{instance}");
            |source| self.damaged(what, source)
        };
        let mut statement = self
            .connection
            .prepare("SELECT service, instance, body FROM instances ORDER BY service, instance")
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut windows = self
            .connection
            .prepare("SELECT service, instance, part, body FROM windows ORDER BY service, instance, part")
            .map_err(failed)?;
        let mut window_rows = windows.query([]).map_err(failed)?;
        let mut next_window = || -> Result<Option<WindowsRow>, JournalError> {
            window_rows.next().map_err(failed)?.map(|row| row.try_into().map_err(failed)).transpose()
        };
        // Both come in the order of their instances: one walk along both.
        let mut window = next_window()?;
        let mut instances = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (service, instance, body): (String, String, Vec<u8>) = row.try_into().map_err(failed)?;
            let mut parts = Vec::new();
            while let Some((of_service, of_instance, number, part)) =
                window.take_if(|(s, i, ..)| (s.as_str(), i.as_str()) <= (service.as_str(), instance.as_str()))
            {
                if (&of_service, &of_instance) == (&service, &instance) {
                    let key: [&[u8]; 3] = [service.as_bytes(), instance.as_bytes(), &number.to_le_bytes()];
                    let points = seal::open(&key, &part).and_then(record::decode_windows);
                    parts.push(points.map_err(damaged(&service, &instance))?);
                }
                window = next_window()?;
            }
            let restored = seal::open(&[service.as_bytes(), instance.as_bytes()], &body)
                .and_then(|body| record::decode_instance(&service, &instance, body, parts));
            instances.push(restored.map_err(damaged(&service, &instance))?);
        }
        Ok(instances)
    }

    pub(super) fn rules(&self) -> Result<Vec<RuleRecord>, JournalError> {
        let failed = |source| self.failed("reading rules from", source);
        let mut statement = self.connection.prepare("SELECT name, body FROM rules").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut rules = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let (name, body): (String, Vec<u8>) = row.try_into().map_err(failed)?;
            let RuleMessage { question, generation } =
                decode(&[name.as_bytes()], &body).map_err(|err| self.damaged(format!("the rule {name}"), err))?;
            rules.push(RuleRecord { name: name.into(), question, generation });
        }
        Ok(rules)
    }

    /// Whether more events that every sink is done with are kept than may be.
    pub(super) fn has_too_many(&self, delivered: u64) -> bool {
        let n_delivered = (delivered + 1).saturating_sub(self.first_seq);
        n_delivered > KEEP_DELIVERED_MAX || n_delivered > 0 && self.event_bytes > KEEP_DELIVERED_BYTES
    }

    /// Whether events that every sink is done with are old, or too many.
    pub(super) fn has_old(&self, delivered: u64) -> bool {
        self.has_too_many(delivered)
            || delivered >= self.first_seq
                && self.first_at().is_some_and(|at| at < self.clock.now_millis() - KEEP_DELIVERED_MILLIS)
    }

    /// One transaction, if the disk has room for it.
    pub(super) fn commit(&mut self, batch: Batch<'_>) -> Result<(), JournalError> {
        self.space.check().map_err(|source| JournalError::Space { path: self.path.clone(), source })?;
        let counts = self.try_commit(batch).map_err(|source| {
            // A full disk is another matter, with another way out.
            let is_full = source.sqlite_error_code() == Some(ErrorCode::DiskFull) && self.fill() >= FULL;
            let path = self.path.clone();
            if is_full { JournalError::Full { path, source } } else { self.failed("writing to the journal", source) }
        })?;
        self.note(counts);
        Ok(())
    }

    fn try_commit(&mut self, Batch { entries, sinks, drop_to }: Batch<'_>) -> rusqlite::Result<Counts> {
        let Self { last_seq: mut seq, first_seq: mut first, mut event_bytes, .. } = *self;
        let too_many_bytes = event_bytes > KEEP_DELIVERED_BYTES;
        let now = self.clock.now_millis();
        let transaction = self.connection.transaction()?;
        {
            let mut add = transaction.prepare_cached("INSERT INTO events (seq, at, body) VALUES (?1, ?2, ?3)")?;
            for event in entries.iter().flat_map(|entry| &entry.events) {
                seq += 1;
                first = first.min(seq);
                let body = seal(&[&seq.to_le_bytes(), &now.to_le_bytes()], record::encode_event(event));
                event_bytes += body.len() as u64;
                add.execute(params![seq, now, body])?;
            }
            save_instances(&transaction, entries)?;
            if let Some(rules) = entries.iter().rev().find_map(|entry| entry.rules.as_ref()) {
                save_rules(&transaction, rules)?;
            }
            let letters = letters_of(&transaction, sinks, now)?;
            save_sinks(&transaction, sinks, &letters)?;
            if let Some(delivered) = drop_to {
                // By number where there are too many, by age else.
                let spare = if too_many_bytes { delivered } else { delivered.saturating_sub(KEEP_DELIVERED_MAX) };
                event_bytes = event_bytes.saturating_sub(drop_old(&transaction, delivered, spare, now)?);
                first = first_seq(&transaction)?;
            }
        }
        transaction.commit()?;
        Ok(Counts { last_seq: seq, first_seq: first, event_bytes })
    }

    /// Saves the cursors and drops what every sink is done with, but for the last seconds.
    pub(super) fn make_room(&mut self, sinks: &Changes, delivered: u64) -> Result<(), JournalError> {
        // What is committed goes from the log into the file, so that the log can begin anew. It may not be possible.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let Self { last_seq, event_bytes, .. } = *self;
        let now = self.clock.now_millis();
        let dropped = (|| {
            let transaction = self.connection.transaction()?;
            // In this order: what is dropped makes the room for what is saved.
            let letters = letters_of(&transaction, sinks, now)?;
            let dropped = drop_old(&transaction, delivered, delivered, now)?;
            save_sinks(&transaction, sinks, &letters)?;
            let first_seq = first_seq(&transaction)?;
            transaction.commit()?;
            Ok(Counts { last_seq, first_seq, event_bytes: event_bytes.saturating_sub(dropped) })
        })();
        let counts = dropped.map_err(|source| self.failed("making room in the journal", source))?;
        self.note(counts);
        Ok(())
    }

    fn note(&mut self, counts: Counts) {
        (self.last_seq, self.first_seq, self.event_bytes) = (counts.last_seq, counts.first_seq, counts.event_bytes);
    }

    pub(super) fn close(self) -> Result<(), JournalError> {
        let Self { path, connection, .. } = self;
        connection.close().map_err(|(_, source)| JournalError::sqlite("closing", &path, source))
    }

    fn first_at(&self) -> Option<i64> {
        self.connection.query_row("SELECT at FROM events ORDER BY seq LIMIT 1", [], |row| row.get(0)).ok()
    }

    fn failed(&self, doing: &'static str, source: rusqlite::Error) -> JournalError {
        JournalError::sqlite(doing, &self.path, source)
    }

    fn damaged(&self, what: String, source: RecordError) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), what, source }
    }
}

/// An empty journal, under its name once it is whole.
fn create(path: &Path) -> rusqlite::Result<()> {
    let aside = path.with_extension("new");
    // What a start that was cut short has left.
    let _ = fs::remove_file(&aside);
    let mut connection = Connection::open(&aside)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
    schema::set_up(&mut connection, 0)?;
    connection.close().map_err(|(_, err)| err)?;
    fs::rename(&aside, path).map_err(|err| rusqlite::Error::ToSqlConversionFailure(Box::new(err)))
}

fn decode<M: Message + Default>(of: &[&[u8]], body: &[u8]) -> Result<M, RecordError> {
    M::decode(seal::open(of, body)?).map_err(RecordError::Decode)
}

fn save_instances(transaction: &Transaction<'_>, entries: &[Entry]) -> rusqlite::Result<()> {
    let mut save =
        transaction.prepare_cached("INSERT OR REPLACE INTO instances (service, instance, body) VALUES (?1, ?2, ?3)")?;
    let mut drop = transaction.prepare_cached("DELETE FROM instances WHERE service = ?1 AND instance = ?2")?;
    let mut add_windows = transaction
        .prepare_cached("INSERT OR REPLACE INTO windows (service, instance, part, body) VALUES (?1, ?2, ?3, ?4)")?;
    let mut drop_windows = transaction.prepare_cached("DELETE FROM windows WHERE service = ?1 AND instance = ?2")?;
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
    Ok(())
}

fn save_rules(transaction: &Transaction<'_>, rules: &[RuleRecord]) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM rules", [])?;
    let mut save = transaction.prepare_cached("INSERT INTO rules (name, body) VALUES (?1, ?2)")?;
    for RuleRecord { name, question, generation } in rules {
        let message = RuleMessage { question: question.clone(), generation: *generation };
        save.execute(params![&**name, seal(&[name.as_bytes()], message.encode_to_vec())])?;
    }
    Ok(())
}

/// A dead letter as a row: sink, number, time, reason, body.
type LetterRow = (Arc<str>, u64, i64, String, Vec<u8>);

/// New dead letters, while their events are there: with those where they are kept with them, readable or not.
fn letters_of(transaction: &Transaction<'_>, changes: &Changes, now: i64) -> rusqlite::Result<Vec<LetterRow>> {
    let mut event = transaction.prepare_cached("SELECT at, body FROM events WHERE seq = ?1")?;
    let mut rows = Vec::new();
    for Letters { sink, letters, with_events } in &changes.buried {
        let n_kept = if *with_events { letters.len() } else { KEPT_LETTERS };
        for DeadLetter { seq, reason } in letters.iter().rev().take(n_kept) {
            let found = event.query_row([seq], |row| row.try_into()).optional()?;
            let (at, body): (i64, Vec<u8>) = found.unwrap_or((now, Vec::new()));
            rows.push((sink.clone(), *seq, at, reason.clone(), if *with_events { body } else { Vec::new() }));
        }
    }
    Ok(rows)
}

fn save_sinks(transaction: &Transaction<'_>, changes: &Changes, letters: &[LetterRow]) -> rusqlite::Result<()> {
    // Before what is saved: one of the same name may have come since.
    for name in &changes.removed {
        transaction.execute("DELETE FROM sinks WHERE name = ?1", [&**name])?;
        transaction.execute("DELETE FROM dead_letters WHERE sink = ?1", [&**name])?;
    }
    let mut save = transaction.prepare_cached("INSERT OR REPLACE INTO sinks (name, body) VALUES (?1, ?2)")?;
    for (name, Saved { seq, ahead, delivered, dead, identity }) in &changes.moved {
        let (seq, delivered, dead) = (*seq, *delivered, Some(*dead));
        let (ahead_to, open) = (ahead.to(), ahead.open().to_vec());
        let record = CursorRecord { seq, delivered, identity: identity.clone(), dead, ahead_to, open };
        save.execute(params![&**name, seal(&[name.as_bytes()], record.encode_to_vec())])?;
    }
    let mut add = transaction.prepare_cached(
        "INSERT OR REPLACE INTO dead_letters (sink, seq, at, reason, body) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (sink, seq, at, reason, body) in letters {
        add.execute(params![&**sink, seq, at, reason, body])?;
    }
    let mut trim = transaction.prepare_cached(
        "DELETE FROM dead_letters WHERE sink = ?1 AND seq <=
            (SELECT seq FROM dead_letters WHERE sink = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?;
    for Letters { sink, .. } in changes.buried.iter().filter(|letters| !letters.with_events) {
        trim.execute(params![&**sink, KEPT_LETTERS as u64])?;
    }
    for (name, seqs) in &changes.exhumed {
        for seq in seqs {
            transaction.execute("DELETE FROM dead_letters WHERE sink = ?1 AND seq = ?2", params![&**name, seq])?;
        }
    }
    Ok(())
}

/// Drops delivered events that are old or, up to `spare`, merely not new; returns their bytes.
fn drop_old(transaction: &Transaction<'_>, delivered: u64, spare: u64, now: i64) -> rusqlite::Result<u64> {
    let mut drop = transaction.prepare_cached(
        "DELETE FROM events WHERE seq IN
            (SELECT seq FROM events WHERE seq <= ?1 AND (at < ?2 OR seq <= ?3 AND at < ?4) ORDER BY seq LIMIT ?5)
         RETURNING length(body)",
    )?;
    let (old, new) = (now - KEEP_DELIVERED_MILLIS, now - KEEP_ALWAYS_MILLIS);
    let mut rows = drop.query(params![delivered, old, spare, new, DROP_AT_ONCE])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.get::<_, u64>(0)?;
    }
    Ok(bytes)
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
