//! The tables of the journal's file, and from an older layout to this one.

use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::{
    record::{CursorRecord, RuleMessage},
    seal::seal,
};

/// Layout of the file. Layout 1 had no checksums.
pub(super) const LAYOUT: i64 = 2;

const TABLES: &str = "
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
CREATE TABLE IF NOT EXISTS rules (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sinks (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    sink   TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    reason TEXT NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS server (id BLOB NOT NULL);
";

/// What layout 2 has in another form, put aside; its first files had no rules.
const LAYOUT_1: &str = "
CREATE TABLE IF NOT EXISTS rules (name TEXT PRIMARY KEY, question TEXT NOT NULL, generation INTEGER NOT NULL);
ALTER TABLE rules RENAME TO rules_1;
ALTER TABLE cursors RENAME TO cursors_1;
";

/// Makes the tables, of a new file or of one of an older layout.
pub(super) fn set_up(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    if found == 1 {
        transaction.execute_batch(LAYOUT_1)?;
    }
    transaction.execute_batch(TABLES)?;
    if found == 1 {
        from_layout_1(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    transaction.commit()
}

/// Seals every record, and counts what each sink has been given.
fn from_layout_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    seal_events(transaction)?;
    for (service, instance, body) in
        all::<(String, String, Vec<u8>)>(transaction, "service, instance, body", "instances")?
    {
        let body = seal(&[service.as_bytes(), instance.as_bytes()], body);
        let update = "UPDATE instances SET body = ?3 WHERE service = ?1 AND instance = ?2";
        transaction.execute(update, params![service, instance, body])?;
    }
    let windows = all::<(String, String, u32, Vec<u8>)>(transaction, "service, instance, part, body", "windows")?;
    for (service, instance, part, body) in windows {
        let body = seal(&[service.as_bytes(), instance.as_bytes(), &part.to_le_bytes()], body);
        let update = "UPDATE windows SET body = ?4 WHERE service = ?1 AND instance = ?2 AND part = ?3";
        transaction.execute(update, params![service, instance, part, body])?;
    }
    for (name, question, generation) in
        all::<(String, String, u64)>(transaction, "name, question, generation", "rules_1")?
    {
        let body = seal(&[name.as_bytes()], RuleMessage { question, generation }.encode_to_vec());
        transaction.execute("INSERT INTO rules (name, body) VALUES (?1, ?2)", params![name, body])?;
    }
    for (name, seq) in all::<(String, u64)>(transaction, "sink, seq", "cursors_1")? {
        let record = CursorRecord { seq, delivered: seq, identity: None, dead: None, ..CursorRecord::default() };
        let body = seal(&[name.as_bytes()], record.encode_to_vec());
        transaction.execute("INSERT INTO sinks (name, body) VALUES (?1, ?2)", params![name, body])?;
    }
    transaction.execute_batch("DROP TABLE rules_1; DROP TABLE cursors_1")
}

/// One by one: there may be gigabytes of them.
fn seal_events(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut next = transaction.prepare("SELECT seq, at, body FROM events WHERE seq > ?1 ORDER BY seq LIMIT 1")?;
    let mut update = transaction.prepare("UPDATE events SET body = ?2 WHERE seq = ?1")?;
    let mut after = 0i64;
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(i64, i64, Vec<u8>)> { row.try_into() };
    while let Some((seq, at, body)) = next.query_row([after], read).optional()? {
        update.execute(params![seq, seal(&[&seq.to_le_bytes(), &at.to_le_bytes()], body)])?;
        after = seq;
    }
    Ok(())
}

/// Every row of a table that is small.
fn all<T>(transaction: &Transaction<'_>, columns: &str, table: &str) -> rusqlite::Result<Vec<T>>
where
    T: for<'a> TryFrom<&'a rusqlite::Row<'a>, Error = rusqlite::Error>,
{
    let mut statement = transaction.prepare(&format!("SELECT {columns} FROM {table}"))?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(T::try_from(row)?);
    }
    Ok(all)
}
