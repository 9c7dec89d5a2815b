//! The database may be slow, stopped, killed or not there yet: alerting goes on, and no row is missing or doubled when
//! it is back (CONTRACT §7.1, §7.3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mysql::prelude::Queryable;

use crate::support::{
    client::balanced,
    mariadb::Mariadb,
    reports::{Says, cpu, now_nanos},
    server::{Server, Setup},
    stores::on,
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload},
};

/// What the probe says of the server and of its store.
fn ready(server: &Server) -> (u16, String, String) {
    let answer = server.get("/readyz");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let json = answer.json();
    (answer.code, text(&json["status"]), text(&json["checks"]["store"]["status"]))
}

#[test]
fn with_the_database_down_alerts_are_raised_and_receipted_and_stored_when_it_comes() {
    let mariadb = Arc::new(Mariadb::start());
    mariadb.create_database("later");
    mariadb.stop();
    let mut server = Setup::new().database(&mariadb, "later").start();
    let client = server.client();
    let begin = now_nanos() - 10_000_000_000;
    let report = |n: u64, value| cpu("web", value).numbered(n).at(begin + n * 1_000_000);
    let receipt = balanced(client.send_epoch(7, [report(1, 99.0), report(2, 1.0), report(3, 99.0)]).unwrap());
    assert_eq!((receipt.accepted, receipt.alerts_raised), (3, 2));
    assert_eq!(server.logged(2, "alert raised").len(), 2);
    assert_eq!(server.status_of("web"), "critical");
    eventually(SOON, "readiness is degraded", || ready(&server) == (200, "degraded".to_owned(), "degraded".to_owned()));
    let history = server.get("/alerts/history");
    assert_eq!(history.code, 503, "{history:?}");
    assert!(history.headers.contains_key("retry-after"));
    // What waits for the database survives a kill, too.
    server.kill9();
    let server = server.start_again("");
    let receipt = server.client().send_epoch(7, [report(4, 1.0), report(5, 99.0)]).unwrap();
    assert_eq!(receipt.alerts_raised, 1);

    mariadb.restart();
    eventually(SOON, "readiness is whole again", || ready(&server) == (200, "ready".to_owned(), "ok".to_owned()));
    let rows = server.history_of(3, "");
    let micros = |n: u64| i64::try_from((begin + n * 1_000_000) / 1_000).unwrap();
    let life: Vec<_> = rows.iter().rev().map(|row| (row.triggered_at, row.resolved_at)).collect();
    assert_eq!(life, [(micros(1), Some(micros(2))), (micros(3), Some(micros(4))), (micros(5), None)]);
    server.settle();
}

/// Sends a workload in several streams one after the other, as agents do, with `trouble` in the midst of it.
fn under_load(mariadb: &Arc<Mariadb>, trouble: impl FnOnce(&Server)) {
    let server = on(mariadb).start();
    let work = Workload::new(60_000, 60, 6, Breach::OneIn(6));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| work.send_all(&server));
        eventually(SOON, "rows are written", || server.figure("gopherwatch_store_rows_total") > 0.0);
        trouble(&server);
        sending.join().unwrap();
    });
    work.assert_stored(&server);
    let sql = format!("SELECT COUNT(*), COUNT(DISTINCT alert_id) FROM {}.alerts", server.database());
    let (n_rows, n_ids): (usize, usize) = mariadb.conn().query_first(sql).unwrap().unwrap();
    assert_eq!((n_rows, n_ids), (work.rows().len(), n_rows));
}

#[test]
fn a_database_that_hangs_for_three_seconds_costs_no_row() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    under_load(&mariadb, |server| {
        mariadb.pause();
        let paused = Instant::now();
        // Alerting does not wait for it.
        let receipt = server.client().send([cpu("meanwhile", 50.0)]).unwrap();
        assert_eq!(receipt.accepted, 1);
        assert_eq!(server.status_of("meanwhile"), "ok");
        found(SOON, "three seconds have passed", || (paused.elapsed() > Duration::from_secs(3)).then_some(()));
        mariadb.resume();
    });
}

#[test]
fn a_database_that_is_killed_under_load_costs_no_row() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    under_load(&mariadb, |server| {
        mariadb.kill9();
        eventually(SOON, "the writer has noticed", || server.figure("gopherwatch_store_errors_total") > 0.0);
        mariadb.restart();
    });
}
