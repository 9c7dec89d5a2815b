//! The data directory and the journal when something is in their way: another server, a limit on file sizes, damage, and a
//! server that will not come back.

use std::{fs, sync::Arc, time::Duration};

use mysql::prelude::Queryable;

use crate::support::{
    mariadb::Mariadb,
    reports::cpu,
    server::Setup,
    stores::on,
    wait::{SOON, alone, eventually},
};

#[test]
fn a_second_server_on_the_data_directory_is_told_who_has_it() {
    let setup = Setup::new();
    let server = setup.start();
    let (code, said) = setup.run();
    assert_eq!(code, 1, "{said}");
    let http = server.http().to_string();
    assert!(said.contains("is in use by another server (process ") && said.contains(&http), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
}

#[test]
fn a_journal_whose_contents_are_gone_is_refused_with_a_way_out() {
    let setup = Setup::new();
    let mut server = setup.start();
    server.client().send((1..=3).map(|n| cpu(&format!("s{n}"), 95.0))).unwrap();
    server.history_of(3, "");
    server.stop();
    let journal = setup.cwd().join("data/journal.db");
    let whole = fs::read(&journal).unwrap();
    for damage in [Vec::new(), whole[..whole.len() / 2].to_vec()] {
        fs::write(&journal, &damage).unwrap();
        let (code, said) = setup.run();
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("journal.db"), "{said}");
    }
    // Moved away it begins anew; what was delivered is in the store.
    fs::rename(&journal, journal.with_extension("old")).unwrap();
    let server = setup.start();
    server.history_of(3, "");
}

/// SQLite reads it without complaint for as long as nobody needs that page: the start must not wait for a look at all of it.
#[test]
fn a_damaged_page_is_told_beside_the_work() {
    let setup = Setup::new();
    let mut server = setup.start();
    server.client().send((0..500).map(|n| cpu(&format!("s{n}"), 95.0))).unwrap();
    server.history_of(500, "");
    server.stop();
    let journal = setup.cwd().join("data/journal.db");
    let (page, n_bytes) = {
        let conn = rusqlite::Connection::open(&journal).unwrap();
        // The first page of an index of its own that nothing reads, but that is one of the file's.
        conn.execute_batch("CREATE TABLE unread (text); CREATE INDEX unread_index ON unread (text)").unwrap();
        conn.execute_batch("INSERT INTO unread VALUES ('a'), ('b'); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let number = |sql| conn.query_row(sql, [], |row| row.get::<_, usize>(0)).unwrap();
        (number("SELECT rootpage FROM sqlite_schema WHERE name = 'unread_index'"), number("PRAGMA page_size"))
    };
    let mut bytes = fs::read(&journal).unwrap();
    bytes[(page - 1) * n_bytes..page * n_bytes].fill(0xff);
    fs::write(&journal, bytes).unwrap();
    let server = setup.start();
    let check = || server.get("/readyz").json()["checks"]["journal_file"].clone();
    eventually(SOON, "the damage is told", || check()["status"] == "degraded");
    assert!(check()["detail"].as_str().unwrap().contains("move it away"), "{}", check());
    server.logged(
        1,
        "the journal's file is damaged: let the store take what is in it, then move it away and start again",
    );
    assert_eq!(server.client().send([cpu("web", 95.0)]).unwrap().alerts_raised, 1, "it serves meanwhile");
}

#[test]
fn a_journal_that_cannot_be_trusted_any_longer_ends_the_server_with_2() {
    let setup = Setup::new();
    let mut server = setup.start();
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
    // Another hand on the file: what is in it is not what the server knows of.
    let journal = rusqlite::Connection::open(setup.cwd().join("data/journal.db")).unwrap();
    journal.busy_timeout(SOON).unwrap();
    journal.execute_batch("DROP TABLE instances").unwrap();
    assert!(server.client().send([cpu("web", 99.0)]).is_err(), "there is no receipt");
    assert_eq!(server.exit_code(SOON), 2);
    assert_eq!(server.log().with_message("shutdown ended")[0]["outcome"], "StageDied");
}

#[test]
fn at_the_limit_on_file_sizes_receipts_wait_and_come_when_it_is_raised() {
    let _alone = alone();
    let setup = Setup::new().soft_file_limit_kib(1_500);
    let server = setup.start();
    let client = server.client();
    // Each with a long name, until something is in the way.
    let mut n_sent = 0;
    let mut waiting = None;
    for _ in 0..200 {
        let reports = (0..100).map(|_| {
            n_sent += 1;
            cpu(&format!("{n_sent:0>100}"), 95.0)
        });
        let stream = client.stream(&[], reports.collect::<Vec<_>>().into_iter());
        eventually(SOON, "the stream is receipted, or the journal is in trouble", || {
            stream.has_come() || server.figure("gopherwatch_journal_errors_total") > 0.0
        });
        if server.figure("gopherwatch_journal_errors_total") > 0.0 {
            waiting = Some(stream);
            break;
        }
        stream.wait().unwrap();
    }
    let waiting = waiting.expect("a megabyte and a half hold less than 20,000 alerts");
    eventually(SOON, "it says so", || server.get("/readyz").json()["checks"]["journal"]["status"] == "degraded");
    assert_eq!(server.get("/readyz").json()["status"], "degraded", "it lives, and alerts");
    assert_eq!(server.status()["totals"]["services"], n_sent);
    server.unlimit_files();
    assert_eq!(waiting.wait().unwrap().accepted, 100);
    server.settle();
    server.history_of(n_sent, "");
    eventually(SOON, "it is well", || server.get("/readyz").json()["checks"]["journal"]["status"] == "ok");
}

#[test]
fn told_to_drain_it_stops_only_when_the_store_has_everything() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    let setup = on(&mariadb).args("--drain-store --shutdown-timeout 60s");
    let mut server = setup.start();
    server.history_of(0, "");
    mariadb.pause();
    server.client().send((0..2_000).map(|n| cpu(&format!("s{n}"), 95.0))).unwrap();
    server.signal("TERM");
    server.logged(1, "shutdown began");
    eventually(SOON, "it waits for the store", || {
        server.log().with_message("shutdown waits").iter().any(|line| line["for"] == "deliver-store")
    });
    mariadb.resume();
    assert_eq!(server.exit_code(Duration::from_secs(60)), 0);
    let rows: Option<u64> =
        mariadb.conn().query_first(format!("SELECT count(*) FROM {}.alerts", server.database())).unwrap();
    assert_eq!(rows, Some(2_000));
}

#[test]
fn draining_into_a_store_that_stays_away_ends_in_time_and_says_so() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    let setup = on(&mariadb).args("--drain-store --shutdown-timeout 3s");
    let mut server = setup.start();
    server.history_of(0, "");
    mariadb.kill9();
    server.client().send([cpu("web", 95.0)]).unwrap();
    server.signal("TERM");
    assert_eq!(server.exit_code(Duration::from_secs(10)), 3);
    let why = "the store did not take everything in time: start again with a longer --shutdown-timeout";
    assert_eq!(server.log().with_message(why)[0]["events_left"], 1);
    mariadb.restart();
    let again = server.start_again("");
    again.history_of(1, "");
}
