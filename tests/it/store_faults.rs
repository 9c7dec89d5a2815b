//! A database that hangs, dies, is not there yet or holds a lock costs time, never a row or a wrong answer.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use gopherwatch::{
    model::Alert,
    store::{AlertStore, HistoryQuery},
};
use mysql::prelude::Queryable;

use crate::{
    store_fixture::{Database, Fixture, at, mysql_store, raised, resolved, wait_until},
    support::mariadb::Mariadb,
};

const ANY: fn() -> HistoryQuery = || HistoryQuery { limit: 1_000, ..HistoryQuery::default() };

fn own_server() -> (Arc<Mariadb>, Fixture) {
    let server = Arc::new(Mariadb::start());
    let fixture = Fixture::mysql_on(server.clone());
    fixture.store.prepare().unwrap();
    (server, fixture)
}

/// The error of a write of one alert, and that it came within `limit`.
fn failing_write(store: &dyn AlertStore, n: u64, limit: Duration) {
    let began = Instant::now();
    let err = store.write(&[Arc::new(raised(n, n as i64))]).unwrap_err();
    assert!(err.is_transient(), "{err:?}");
    assert!(began.elapsed() < limit, "{:?}: {err:?}", began.elapsed());
}

fn written_at_last(store: &dyn AlertStore, n: u64) {
    wait_until("the write succeeds", || store.write(&[Arc::new(raised(n, n as i64))]).is_ok());
}

#[test]
fn a_server_that_is_down_at_the_start_is_used_once_it_comes() {
    let server = Arc::new(Mariadb::start());
    server.create_database("later");
    server.stop();
    let store = mysql_store(&server, "later");
    let began = Instant::now();
    assert!(store.prepare().unwrap_err().is_transient());
    assert!(store.history(&ANY()).unwrap_err().is_transient());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    server.restart();
    wait_until("the schema is made", || store.prepare().is_ok());
    store.write(&[Arc::new(raised(1, 0))]).unwrap();
    wait_until("the history is read", || store.history(&ANY()).is_ok_and(|rows| rows.len() == 1));
}

#[test]
fn a_server_that_hangs_is_given_up_in_time_and_used_again_when_it_goes_on() {
    let (server, fixture) = own_server();
    fixture.write(&[raised(1, 1)]);
    assert_eq!(fixture.all().len(), 1);
    server.pause();
    let (given_up, waiting) = mpsc::sync_channel::<()>(0);
    let reader = thread::scope(|scope| {
        let server = &server;
        // Whoever waits for ever waits as long as the test lets them, and then succeeds.
        scope.spawn(move || {
            if waiting.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
                server.resume();
            }
        });
        let reading = scope.spawn(|| fixture.store.history(&ANY()));
        // First the connection that was open: its read time-out. Then a new one, which the server never greets.
        failing_write(&*fixture.store, 2, Duration::from_secs(7));
        failing_write(&*fixture.store, 3, Duration::from_secs(3));
        let read = reading.join().unwrap();
        drop(given_up);
        read
    });
    assert!(reader.unwrap_err().is_transient());
    server.resume();
    for n in 2..=3 {
        written_at_last(&*fixture.store, n);
    }
    wait_until("the history is read", || fixture.store.history(&ANY()).is_ok_and(|rows| rows.len() == 3));
}

#[test]
fn after_a_kill_each_row_is_there_once() {
    let (server, fixture) = own_server();
    for n in 1..=3 {
        fixture.write(&[raised(n, n as i64)]);
    }
    assert_eq!(fixture.all().len(), 3);
    server.kill9();
    failing_write(&*fixture.store, 4, Duration::from_secs(3));
    server.restart();
    // The connections of the pool are all dead; one read takes a new one instead of failing once for each.
    wait_until("the history is read", || fixture.store.history(&ANY()).is_ok());
    for n in 1..=5 {
        written_at_last(&*fixture.store, n);
        fixture.write(&[resolved(&raised(n, n as i64))]);
    }
    let rows = fixture.all();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row.resolved_at.is_some()));
}

/// r2d2_mysql's own check used to read the late answer of a timed-out write as the answer to its ping, and handed the
/// next user a connection whose answers were each those of the statement before.
#[test]
fn after_a_write_timed_out_on_a_lock_the_next_users_get_their_own_answers() {
    let (server, fixture) = own_server();
    fixture.write(&[resolved(&raised(1, 1)), resolved(&raised(2, 2))]);
    let Database::MySql { name, .. } = &fixture.database else { unreachable!() };
    let mut holder = server.conn();
    holder.query_drop(format!("USE {name}")).unwrap();
    // A lock that outlasts the read time-out, unlike those that the session limits to 3 s.
    holder
        .query_drop("CREATE TRIGGER gate BEFORE INSERT ON alerts FOR EACH ROW SET @got = GET_LOCK('gate', 60)")
        .unwrap();
    let locked: Option<u8> = holder.query_first("SELECT GET_LOCK('gate', 1)").unwrap();
    assert_eq!(locked, Some(1));
    thread::scope(|scope| {
        let writing = scope.spawn(|| failing_write(&*fixture.store, 3, Duration::from_secs(8)));
        // The answer comes when the caller has given up but a ping would still be waiting.
        thread::sleep(Duration::from_millis(6_500));
        holder.query_drop("DO RELEASE_LOCK('gate')").unwrap();
        writing.join().unwrap();
    });
    wait_until("the late write ends", || fixture.all().len() == 3);
    holder.query_drop("DROP TRIGGER gate").unwrap();
    assert_eq!(fixture.store.prune(at(1_000_002), 10).unwrap(), 1);
    assert_eq!(fixture.store.prune(at(1_000_002), 10).unwrap(), 0);
    assert_eq!(fixture.store.prune(at(1_000_003), 10).unwrap(), 1);
    fixture.write(&[raised(3, 3), raised(4, 4)]);
    assert_eq!(fixture.all().len(), 2);
}

/// A table with a row, somebody else who uses its database, and that one's name.
fn with_a_row() -> (Fixture, mysql::Conn, String) {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    fixture.write(&[raised(1, 1)]);
    let Database::MySql { server, name } = &fixture.database else { unreachable!() };
    let (mut holder, name) = (server.conn(), name.clone());
    holder.query_drop(format!("USE {name}")).unwrap();
    (fixture, holder, name)
}

#[test]
fn a_locked_row_fails_by_the_servers_answer_before_our_own_time_out() {
    let (fixture, mut holder, _) = with_a_row();
    for (lock, free) in [("BEGIN", "ROLLBACK"), ("LOCK TABLES alerts WRITE", "UNLOCK TABLES")] {
        holder.query_drop(lock).unwrap();
        holder.query_drop("UPDATE alerts SET late = 1 - late").unwrap();
        failing_write(&*fixture.store, 1, Duration::from_millis(4_500));
        holder.query_drop(free).unwrap();
        fixture.write(&[raised(1, 1)]);
    }
}

#[test]
fn a_read_that_runs_away_is_ended_by_the_server() {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    fixture.write(&[raised(1, 1)]);
    let Database::MySql { server, name } = &fixture.database else { unreachable!() };
    let mut holder = server.conn();
    holder.query_drop(format!("LOCK TABLES {name}.alerts WRITE")).unwrap();
    let began = Instant::now();
    let err = fixture.store.history(&ANY()).unwrap_err();
    assert!(err.is_transient() && began.elapsed() < Duration::from_millis(2_800), "{:?} {err:?}", began.elapsed());
    assert!(format!("{err:?}").contains("max_statement_time exceeded"), "{err:?}");
    holder.query_drop("UNLOCK TABLES").unwrap();
    assert_eq!(fixture.all().len(), 1);
}

/// The connections to the fixture's database, by the server's numbers.
fn connections(fixture: &Fixture) -> Vec<u64> {
    let Database::MySql { server, name } = &fixture.database else { unreachable!() };
    let sql = format!("SELECT id FROM information_schema.processlist WHERE db = '{name}'");
    server.conn().query(sql).unwrap()
}

/// After a lock wait time-out only the statement is undone: a COMMIT after it once kept half a transaction.
#[test]
fn after_an_error_of_a_write_its_connection_is_not_used_again() {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    fixture.write(&[raised(1, 1)]);
    wait_until("only the writer's connection is left", || connections(&fixture).len() == 1);
    let before = connections(&fixture);
    fixture.write(&[raised(2, 2)]);
    assert_eq!(connections(&fixture), before, "it is kept as long as all is well");
    let too_long = Alert { rule: "x".repeat(200).into(), ..raised(3, 3) };
    assert!(!fixture.store.write(&[Arc::new(too_long)]).unwrap_err().is_transient());
    wait_until("it is gone", || connections(&fixture).is_empty());
    fixture.write(&[raised(4, 4)]);
    assert_ne!(connections(&fixture), before);
}

/// A ping is answered by the late reply to the statement before it, and blocks when the server hangs.
#[test]
fn no_connection_is_asked_whether_it_is_well() {
    let (server, fixture) = own_server();
    // What the server counts a ping as.
    let n_pings = || {
        let counted: Option<(String, u64)> =
            server.conn().query_first("SHOW GLOBAL STATUS LIKE 'Com_admin_commands'").unwrap();
        counted.unwrap().1
    };
    let before = n_pings();
    for n in 1..=5 {
        fixture.write(&[raised(n, n as i64)]);
        assert_eq!(fixture.all().len(), n as usize);
    }
    assert_eq!(n_pings(), before);
}

#[test]
fn while_a_write_waits_for_a_lock_the_history_answers() {
    let (fixture, mut holder, name) = with_a_row();
    holder.query_drop("BEGIN").unwrap();
    holder.query_drop("UPDATE alerts SET late = 1").unwrap();
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND info LIKE 'INSERT INTO alerts%'"
    );
    thread::scope(|scope| {
        let writing = scope.spawn(|| fixture.store.write(&[Arc::new(resolved(&raised(1, 1)))]));
        wait_until("the write waits", || Mariadb::shared().conn().query_first(&waiting).unwrap() == Some(1_u64));
        let began = Instant::now();
        assert_eq!(fixture.all().len(), 1);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(!writing.is_finished(), "the lock was not held for long enough: the test is blunt");
        holder.query_drop("ROLLBACK").unwrap();
        writing.join().unwrap().unwrap();
    });
}

/// The crate's shorter forms drop such an error, and the page would end early without a word.
#[test]
fn an_error_in_the_midst_of_the_rows_is_an_error_of_the_page() {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    fixture.write(&(0..1_000).map(|n| raised(n, n as i64)).collect::<Vec<_>>());
    assert_eq!(fixture.all().len(), 1_000);
    // A column that takes the server some milliseconds a row to work out: its limit of 2 s falls between two rows.
    fixture.run_sql(
        "ALTER TABLE alerts DROP COLUMN summary,
         ADD COLUMN summary TEXT AS (LEFT(SHA2(REPEAT(service_name, 1000000), 512), 10)) VIRTUAL",
    );
    let first = fixture.store.history(&HistoryQuery { limit: 1, ..ANY() }).unwrap();
    assert_eq!(first.len(), 1, "the rows themselves can be read");
    let err = fixture.store.history(&ANY()).unwrap_err();
    assert!(format!("{err:?}").contains("max_statement_time exceeded"), "{err:?}");
}
