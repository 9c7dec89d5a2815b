//! Journals of the version before `for`, `clear` and windows: what they hold goes on, what they lack begins.

use prost::Message;
use rusqlite::Connection;

use super::*;

/// An instance as that version wrote it. Fields that it did not know are dropped as it is read and written.
#[derive(Clone, PartialEq, Message)]
struct OldInstance {
    #[prost(bytes = "vec", repeated, tag = "1")]
    metrics: Vec<Vec<u8>>,
    #[prost(sfixed64, tag = "2")]
    last_seen: i64,
    #[prost(sint64, optional, tag = "3")]
    skew_nanos: Option<i64>,
    #[prost(bool, tag = "4")]
    armed: bool,
    #[prost(uint64, tag = "5")]
    usual_gap_nanos: u64,
    #[prost(uint32, tag = "6")]
    presence: u32,
    #[prost(bytes = "vec", repeated, tag = "7")]
    marks: Vec<Vec<u8>>,
    #[prost(uint64, tag = "8")]
    raises: u64,
    #[prost(bytes = "vec", repeated, tag = "9")]
    firing: Vec<Vec<u8>>,
}

/// Bytes at the end of a record, which layout 1 had not.
pub(super) const CHECKSUM: usize = 4;

#[test]
fn a_journal_of_layout_1_without_pendings_windows_and_clocks_is_read() {
    let folder = folder();
    let options = journal::Options { data_dir: folder.path().to_owned(), max_bytes: 1 << 30, sinks: &["store"] };
    let rules = "[[rules]]\nname = 'hot'\nwhen = 'a > 90'\nkeep_firing_for = '10s'\n\
                 [[rules]]\nname = 'waits'\nwhen = 'max(a, 1m) > 80'\nfor = '20s'\n";
    let report = |second: u64, value| Report {
        at: play::START.plus(std::time::Duration::from_secs(second)),
        metrics: vec![("a".into(), value)],
    };
    let key = Arc::new(InstanceKey::new("web", "a"));
    // Both rules are under way: one fires and is clearing, one is pending on a window.
    let reports = [report(0, 95.0), report(1, 85.0), report(11, 85.0), report(21, 85.0), report(41, 85.0)];
    let course = Course { batches: vec![1], receipts: vec![true], crashes: vec![] };
    let mut server = Server::start(&options, rules, 0);
    server.take(&key, &reports[..2], &course);
    server.end();

    let file = Connection::open(folder.path().join("journal.db")).expect("it is SQLite");
    let body: Vec<u8> = file.query_row("SELECT body FROM instances", [], |row| row.get(0)).expect("one instance");
    let body = &body[..body.len() - CHECKSUM];
    let old = OldInstance::decode(body).expect("the fields are where they were").encode_to_vec();
    assert!(old.len() < body.len(), "there was something more to forget");
    file.execute("UPDATE instances SET body = ?1", [old]).expect("written");
    file.execute("UPDATE events SET body = substr(body, 1, length(body) - ?1)", [CHECKSUM]).expect("written");
    file.execute_batch(
        "DROP TABLE windows; DROP TABLE rules; DROP TABLE sinks; DROP TABLE dead_letters;
         CREATE TABLE cursors (sink TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO cursors VALUES ('store', 1);
         PRAGMA user_version = 1",
    )
    .expect("as layout 1 was");
    drop(file);

    let journal = Journal::open(&options).expect("a journal");
    let cursor = journal.sinks().add("store");
    assert_eq!((cursor.position(), cursor.n_delivered(), journal.sinks().last_seq()), (1, 1, 1));
    drop(journal);
    let restored = Journal::open(&options).expect("a journal").restore().expect("readable");
    assert_eq!((restored[0].firing.len(), restored[0].marks[0].sequence), (1, 2));
    assert!(restored[0].pending.is_empty() && restored[0].clock.latest.is_none());
    assert_eq!(restored[0].firing[0].what.notified_at, RECEIVED, "as if it had been told when it arrived");
    let mut server = Server::start(&options, rules, 1);
    server.take(&key, &reports, &course);
    server.end();
    let events = Journal::open(&options).expect("a journal").reader().expect("a reader").read(0, 10).expect("readable");
    let told: Vec<_> = events
        .iter()
        .map(|recorded| {
            let event = recorded.event.as_ref().expect("readable");
            let at = event.alert.resolved_at.unwrap_or(event.alert.triggered_at);
            (&*event.alert.rule, event.kind.as_str(), at.since(play::START).as_secs())
        })
        .collect();
    // The clear span and the pending begin anew with the third report.
    assert_eq!(told, [("hot", "raise", 0), ("hot", "resolve", 21), ("waits", "raise", 41)]);
}
