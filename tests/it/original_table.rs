//! A table that the original program made goes on being one: its rows stay, its INSERT works, and each row has its place in
//! the history.

use std::sync::Arc;

use mysql::prelude::Queryable;
use serde_json::Value;

use crate::support::{
    mariadb::Mariadb,
    reports::cpu,
    server::{Server, Setup},
    stores::on,
    wait::{SOON, eventually},
};

const TABLE: &str = "CREATE TABLE alerts (
    id INT AUTO_INCREMENT PRIMARY KEY, service_name VARCHAR(255) NOT NULL, metric VARCHAR(50) NOT NULL,
    metric_value FLOAT NOT NULL, triggered_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    INDEX idx_service_time (service_name, triggered_at))";
const INSERT: &str = "INSERT INTO alerts (service_name, metric, metric_value) VALUES ('web', 'cpu', 97.5)";

/// A server on a database in which these statements have run.
fn after(mariadb: &Arc<Mariadb>, statements: &[&str]) -> Setup {
    let setup = on(mariadb);
    run(mariadb, &setup.database_name(), statements);
    setup
}

/// Runs statements as the original program's session did.
fn run(mariadb: &Mariadb, database: &str, statements: &[&str]) {
    let mut conn = mariadb.conn();
    conn.query_drop(format!("USE {database}")).unwrap();
    conn.query_drop("SET sql_mode = '', time_zone = '+00:00'").unwrap();
    statements.iter().for_each(|statement| conn.query_drop(statement).unwrap());
}

/// Every row, in pages of `limit`. More than there can be: the pages go round in a circle.
fn pages(server: &Server, limit: usize) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = server.get(&format!("/alerts/history?limit={limit}{cursor}"));
        assert_eq!(answer.code, 200, "{answer:?}");
        let page = answer.json();
        rows.extend(page["alerts"].as_array().unwrap().iter().cloned());
        assert!(rows.len() <= 20, "pages without end: {rows:#?}");
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

fn is_migrated(server: &Server) -> bool {
    server.get("/readyz").json()["checks"]["store"]["status"] == "ok"
}

#[test]
fn its_rows_stay_through_two_starts_and_its_insert_still_works() {
    let mariadb = Mariadb::shared();
    let setup = after(
        &mariadb,
        &[
            TABLE,
            "INSERT INTO alerts (service_name, metric, metric_value, triggered_at) VALUES
             ('web', 'cpu', 91.5, '2020-02-29 12:00:00'), ('Web', 'memory', 85.25, '2026-01-01 00:00:00'),
             ('db', 'cpu', 99, '2026-06-30 23:59:59')",
        ],
    );
    for _ in 0..2 {
        let mut server = setup.start();
        eventually(SOON, "the table is widened", || is_migrated(&server));
        assert_eq!(pages(&server, 100).len(), 3);
        assert_eq!(server.stop(), 0);
    }
    run(&mariadb, &setup.database_name(), &[INSERT]);
    let server = setup.start();
    eventually(SOON, "the store answers", || is_migrated(&server));
    let rows = pages(&server, 100);
    let shown: Vec<_> =
        rows.iter().map(|row| (row["service_name"].as_str().unwrap(), row["metric_value"].as_f64().unwrap())).collect();
    assert_eq!(shown, [("web", 97.5), ("db", 99.0), ("Web", 85.25), ("web", 91.5)]);
    assert_eq!(rows[3]["triggered_at"], "2020-02-29T12:00:00.000000Z");
    assert!(rows.iter().all(|row| row["alert_id"].is_null()), "{rows:#?}");
    server.client().send([cpu("web", 95.0)]).unwrap();
    eventually(SOON, "ours stand beside them", || pages(&server, 2).len() == 5);
}

/// The migration used to fail on such a row, again and again without a pause, and pages of more than one of them began
/// anew at each.
#[test]
fn rows_with_a_zero_date_or_none_are_kept_and_paged_through_once() {
    let mariadb = Mariadb::shared();
    let setup = after(
        &mariadb,
        &[
            TABLE,
            "ALTER TABLE alerts MODIFY triggered_at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
            "INSERT INTO alerts (service_name, metric, metric_value, triggered_at) VALUES
             ('a', 'cpu', 91, '0000-00-00 00:00:00'), ('b', 'cpu', 92, '0000-00-00 00:00:00'),
             ('c', 'cpu', 93, '1970-01-01 00:00:01'), ('d', 'cpu', 94, NULL), ('e', 'cpu', 95, '2026-01-01 00:00:00')",
        ],
    );
    let server = setup.start();
    eventually(SOON, "the table is widened", || is_migrated(&server));
    for limit in [1, 2, 3, 100] {
        let rows = pages(&server, limit);
        let names: Vec<_> = rows.iter().map(|row| row["service_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["e", "c", "d", "b", "a"], "in pages of {limit}");
        assert_eq!(rows[4]["triggered_at"], "1970-01-01T00:00:00.000000Z");
    }
    let n_rows = |query: &str| {
        server.get(&format!("/alerts/history?{query}")).json()["alerts"].as_array().map(Vec::len).unwrap()
    };
    assert_eq!(n_rows("since=1960-01-01T00:00:00Z"), 5, "they are shown as of 1970");
    assert_eq!(n_rows("since=1970-01-01T00:00:01Z"), 2);
    assert_eq!(n_rows("until=1970-01-01T00:00:01Z"), 3);
    assert_eq!(n_rows("until=1960-01-01T00:00:00Z"), 0);
    server.client().send([cpu("web", 95.0)]).unwrap();
    eventually(SOON, "alerts are written", || pages(&server, 100).len() == 6);
}

/// An ALTER that the rows stand against waits for somebody, with its reason told and pauses between the tries.
#[test]
fn a_migration_that_its_rows_stand_against_is_told_and_not_tried_in_a_circle() {
    let mariadb = Mariadb::shared();
    let wide = "ALTER TABLE alerts MODIFY service_name VARCHAR(300) NOT NULL";
    let insert = "INSERT INTO alerts (service_name, metric, metric_value) VALUES (REPEAT('x', 300), 'cpu', 97.5)";
    let setup = after(&mariadb, &[TABLE, wide, insert]);
    let server = setup.start();
    let check = || server.get("/readyz").json()["checks"]["store"].clone();
    eventually(SOON, "it says why", || check()["detail"].as_str().unwrap_or_default().contains("service_name"));
    assert_eq!(check()["status"], "degraded");
    eventually(SOON, "some tries", || server.figure("gopherwatch_store_errors_total") >= 4.0);
    // After 100, 200 and 400 ms, of which jitter takes up to a half.
    assert_eq!(server.client().send([cpu("web", 95.0)]).unwrap().alerts_raised, 1, "alerting goes on");
    assert!(server.figure("gopherwatch_store_errors_total") < 20.0, "it is tried without a pause");
    run(&mariadb, &setup.database_name(), &["UPDATE alerts SET service_name = 'x'"]);
    eventually(SOON, "it is mended", || is_migrated(&server) && pages(&server, 100).len() == 2);
}
