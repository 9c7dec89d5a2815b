//! Journals whose records were changed, with checksums that fit: what is read makes sense or is refused, and nothing panics.

use proptest::sample::Index;
use rusqlite::Connection;

use super::*;
use crate::journal::simulated::seal;

const RULES: &str = "[[rules]]\nname = 'hot'\nwhen = 'a > 90'\nkeep_firing_for = '10s'\n\
                     [[rules]]\nname = 'waits'\nwhen = 'rate(a, 1h) > 0.1 or max(a, 1m) > 80'\nfor = '20s'\n";

/// What happens to one byte of a record.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Put(Index, u8),
    Double(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Put(at, byte)),
        1 => any::<Index>().prop_map(Damage::Double),
    ]
}

/// The body of a record, changed so.
fn damaged(mut body: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if body.is_empty() {
            break;
        }
        let len = body.len();
        match damage {
            Damage::Flip(at, mask) => body[at.index(len)] ^= mask,
            Damage::Cut(at) => body.truncate(at.index(len)),
            Damage::Put(at, byte) => body.insert(at.index(len), *byte),
            Damage::Double(at) => body.extend_from_within(at.index(len)..),
        }
    }
    body
}

/// A journal with an alert that fires, one that is pending, and windows.
fn written(options: &journal::Options) {
    let mut server = Server::start(options, RULES, 0);
    let key = Arc::new(InstanceKey::new("web", "a"));
    let report = |n: u64| Report {
        at: play::START.plus(std::time::Duration::from_secs(7 * n)),
        metrics: vec![("a".into(), if n < 300 { 10.0 + n as f64 / 10.0 } else { 95.0 })],
    };
    let reports: Vec<_> = (0..302).map(report).collect();
    server.take(&key, &reports, &Course { batches: vec![1], receipts: vec![true, false, false], crashes: vec![] });
    server.end();
}

/// Changes the records of a journal, and gives them checksums that fit.
fn damage_file(file: &Connection, damages: &[Damage]) {
    let bodies = |query: &str| -> Vec<(i64, i64, Vec<u8>)> {
        let mut query = file.prepare(query).expect("a table");
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    let again = |of: &[&[u8]], mut body: Vec<u8>| {
        body.truncate(body.len() - old::CHECKSUM);
        seal(of, damaged(body, damages))
    };
    let put = |update: &str, place: i64, body: Vec<u8>| {
        assert_eq!(file.execute(update, (body, place)).expect("written"), 1);
    };
    for (seq, at, body) in bodies("SELECT seq, at, body FROM events") {
        put("UPDATE events SET body = ?1 WHERE seq = ?2", seq, again(&[&seq.to_le_bytes(), &at.to_le_bytes()], body));
    }
    for (part, _, body) in bodies("SELECT part, 0, body FROM windows") {
        let number = u32::try_from(part).expect("small").to_le_bytes();
        put("UPDATE windows SET body = ?1 WHERE part = ?2", part, again(&[b"web", b"a", &number], body));
    }
    for (one, _, body) in bodies("SELECT 1, 0, body FROM instances") {
        put("UPDATE instances SET body = ?1 WHERE ?2", one, again(&[b"web", b"a"], body));
    }
}

/// Starts on the journal, goes on with it, and starts once more; or is refused.
fn go_on(options: &journal::Options) {
    let journal = Journal::open(options).expect("it is a journal");
    let events = journal.reader().expect("a reader").read(0, 100).expect("it is a table");
    assert!(!events.is_empty(), "damaged or not, they are there");
    if journal.restore().is_err() {
        return;
    }
    drop(journal);
    let rules = play::rules(RULES);
    let later = RECEIVED.plus(std::time::Duration::from_secs(60));
    let journal = Journal::open(options).expect("it is a journal");
    let rules = rules.succeeding(&journal.rules().expect("readable"), later);
    let state = State::new(1, 1_000);
    let restored = restore(journal.restore().expect("read a moment ago"), &rules, &state, later);
    let running = journal.start(Arc::new(Stats::new()), Health::new(), &Logger::root(Discard, o!())).expect("a thread");
    running.entries.send(restored.entry).expect("it runs");
    let mut server = Server { state, rules, journal: running };
    let report = |n: u64| Report {
        at: play::START.plus(std::time::Duration::from_secs(2_200 + 10 * n)),
        metrics: vec![("a".into(), if n.is_multiple_of(3) { 95.0 } else { 5.0 })],
    };
    let reports: Vec<_> = (0..20).map(report).collect();
    let key = Arc::new(InstanceKey::new("web", "a"));
    server.take(&key, &reports, &Course { batches: vec![3], receipts: vec![true], crashes: vec![] });
    server.end();
    Journal::open(options).expect("it is a journal").restore().expect("what we have written ourselves is readable");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_records_say_a_start_reads_it_or_refuses_it(damages in vec(damage(), 1..4)) {
        let folder = folder();
        let options = journal::Options { data_dir: folder.path().to_owned(), max_bytes: 1 << 30, sinks: &["store"] };
        written(&options);
        damage_file(&Connection::open(folder.path().join("journal.db")).expect("it is SQLite"), &damages);
        go_on(&options);
    }
}
