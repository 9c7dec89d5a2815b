//! The alert history gives the same answers on both stores: every event once, in its final state, in whole pages.

use std::{collections::BTreeMap, sync::Arc};

use gopherwatch::{
    model::{Alert, InstanceKey, ResolveReason, Severity, Timestamp},
    store::{
        AlertState, AlertStore, Cursor, HistoryQuery, HistoryRow, MySqlOptions, MySqlStore, SqliteStore, events_json,
    },
};
use mysql::prelude::Queryable;
use uuid::Uuid;

use crate::{
    store_fixture::{Database, Fixture, at, mysql_store, on_both_stores, raised, resolved},
    support::mariadb::Mariadb,
};

const ANY: HistoryQuery = HistoryQuery {
    service: None,
    instance: None,
    metric: None,
    rule: None,
    severity: None,
    state: None,
    since: None,
    until: None,
    after: None,
    limit: 1_000,
};

fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let mut items = items.to_vec();
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
    items
}

/// What must not depend on the order of writing.
fn facts(rows: Vec<HistoryRow>) -> Vec<HistoryRow> {
    let mut rows: Vec<_> = rows.into_iter().map(|row| HistoryRow { id: 0, stored_at: None, ..row }).collect();
    rows.sort_by_key(|row| row.alert_id);
    rows
}

#[test]
fn events_in_any_order_and_repeated_end_in_one_result() {
    on_both_stores(|fixture| {
        let mut events = Vec::new();
        for n in 0..6 {
            let raise = raised(n, n as i64 * 1_000);
            let update = Alert { version: 2, severity: Severity::Info, summary: "changed".to_owned(), ..raise.clone() };
            if n % 2 == 0 {
                events.push(resolved(&update));
            }
            events.extend([raise, update]);
        }
        fixture.write(&events);
        let wanted = facts(fixture.all());
        assert_eq!(wanted.len(), 6);
        assert_eq!(wanted.iter().filter(|row| row.resolved_at.is_some()).count(), 3);
        let twice = [events.clone(), events].concat();
        for seed in 1..=60 {
            fixture.run_sql("DELETE FROM alerts");
            for batch in shuffled(&twice, seed).chunks(1 + seed as usize % 7) {
                fixture.write(batch);
            }
            assert_eq!(facts(fixture.all()), wanted, "seed {seed}");
        }
    });
}

#[test]
fn a_row_holds_what_the_alert_held() {
    on_both_stores(|fixture| {
        let alert = Alert { late: true, ..raised(1, 123_456) };
        fixture.write(&[resolved(&alert)]);
        let [row] = fixture.all().try_into().unwrap();
        assert_eq!(row.alert_id, Some(alert.alert_id));
        assert_eq!((row.service_name.as_str(), row.instance.as_deref()), ("web", Some("a")));
        assert_eq!((row.metric.as_str(), row.metric_value, row.threshold), ("cpu_percent", 95.5, Some(90.0)));
        assert_eq!((row.rule.as_deref(), row.severity.as_deref()), (Some("cpu-high"), Some("critical")));
        assert_eq!((row.triggered_at, row.received_at), (at(123_456), Some(at(123_756))));
        assert_eq!((row.resolved_at, row.resolve_reason.as_deref()), (Some(at(1_123_456)), Some("cleared")));
        assert_eq!((row.late, row.labels.as_deref()), (true, Some(r#"{"team":"payments"}"#)));
        assert_eq!(row.summary.as_deref(), Some("CPU of web/a is 95.5%"));
        assert!(row.stored_at.unwrap() > at(0), "{row:?}");
        assert_eq!(
            fixture.text("SELECT evidence FROM alerts"),
            r#"{"when":"cpu_percent > 90","points":[[1767225600123,95.5]]}"#
        );
        assert_eq!(
            fixture.text("SELECT events FROM alerts"),
            r#"[{"kind":"raise","at":"2026-01-01T00:00:00.123456Z","by":null,"value":95.5},{"kind":"resolve","at":"2026-01-01T00:00:01.123456Z","by":null,"value":20.0}]"#
        );
        assert_eq!(
            fixture.text("SELECT CAST(last_value + version AS CHAR(9)) FROM alerts").trim_end_matches(".0"),
            "22"
        );
        assert_eq!(fixture.text("SELECT LOWER(HEX(episode_id)) FROM alerts"), alert.alert_id.simple().to_string());
    });
}

#[test]
fn one_alert_is_found_by_its_id_with_its_life_and_its_evidence() {
    on_both_stores(|fixture| {
        let alert = raised(1, 0);
        let further = Alert { episode_id: alert.alert_id, ..raised(2, 5) };
        let bare = Alert { evidence: None, ..raised(3, 9) };
        fixture.run_sql("INSERT INTO alerts (service_name, metric, metric_value) VALUES ('web', 'cpu', 97.5)");
        fixture.write(&[resolved(&alert), further.clone(), bare.clone()]);
        let find = |alert: &Alert| fixture.store.alert(alert.alert_id).unwrap().unwrap();

        let found = find(&alert);
        let rows = fixture.all();
        assert_eq!(Some(&found.row), rows.iter().find(|row| row.alert_id == Some(alert.alert_id)));
        assert_eq!((found.episode_id, found.last_value, found.version), (Some(alert.alert_id), Some(20.0), 2));
        assert_eq!(found.events.as_deref(), Some(events_json(&resolved(&alert).life).as_str()));
        assert_eq!(found.evidence.as_deref(), Some(r#"{"when":"cpu_percent > 90","points":[[1767225600000,95.5]]}"#));
        assert_eq!((find(&further).episode_id, find(&further).row.metric_value), (Some(alert.alert_id), 95.5));
        assert_eq!((find(&bare).evidence, find(&bare).version), (None, 1));

        for unknown in [raised(4, 0).alert_id, Uuid::nil(), Uuid::max()] {
            assert_eq!(fixture.store.alert(unknown).unwrap(), None);
        }
    });
}

#[test]
fn the_time_of_storing_and_the_number_stay_those_of_the_first_write() {
    on_both_stores(|fixture| {
        fixture.write(&[raised(1, 0)]);
        let before = fixture.all();
        fixture.write(&[resolved(&raised(1, 0))]);
        let after = fixture.all();
        assert_eq!((after[0].id, after[0].stored_at), (before[0].id, before[0].stored_at));
        assert!(after[0].resolved_at.is_some());
    });
}

#[test]
fn raise_and_resolve_in_one_batch_leave_one_resolved_row() {
    on_both_stores(|fixture| {
        fixture.write(&[raised(1, 0), resolved(&raised(1, 0)), raised(2, 5)]);
        let rows = fixture.all();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].resolve_reason.as_deref(), Some("cleared"));
        assert_eq!(rows[0].resolve_reason, None);
    });
}

#[test]
fn a_batch_of_a_thousand_is_one_call_and_none_is_lost() {
    on_both_stores(|fixture| {
        let alerts: Vec<_> = (0..1_000).map(|n| raised(n, n as i64)).collect();
        for n_rows in [0, 1, 2, 5, 7, 9, 100, 999, 1_000] {
            fixture.write(&alerts[..n_rows]);
            assert_eq!(fixture.all().len(), n_rows);
        }
    });
}

#[test]
fn rows_of_the_original_program_appear_without_an_alert_id() {
    on_both_stores(|fixture| {
        fixture.run_sql("INSERT INTO alerts (service_name, metric, metric_value) VALUES ('web', 'cpu', 97.5)");
        fixture.write(&[raised(1, 0), resolved(&raised(2, 1))]);
        let row = fixture.all().into_iter().find(|row| row.alert_id.is_none()).unwrap();
        assert_eq!((row.service_name.as_str(), row.metric.as_str(), row.metric_value), ("web", "cpu", 97.5));
        assert_eq!((row.instance, row.rule, row.severity, row.late, row.labels), (None, None, None, false, None));
        assert!(row.triggered_at > at(0), "the database's clock");
        for state in [AlertState::Firing, AlertState::Resolved] {
            let rows = fixture.store.history(&HistoryQuery { state: Some(state), ..ANY }).unwrap();
            assert_eq!(rows.len(), 1, "{state:?}");
            assert!(rows[0].alert_id.is_some());
        }
        // It is never pruned either.
        assert_eq!(fixture.store.prune(at(i64::from(i32::MAX) * 1_000_000), 10).unwrap(), 1);
        assert_eq!(fixture.all().len(), 2);
    });
}

/// Alerts that differ in every filter, several at each time.
fn varied() -> Vec<Alert> {
    let pick = |n: u64, names: [&'static str; 3]| names[n as usize % 3];
    (0..90)
        .map(|n| {
            let alert = Alert {
                key: Arc::new(InstanceKey::new(pick(n, ["web", "Web", "db"]), pick(n / 3, ["a", "b", "A"]))),
                metric: pick(n / 2, ["cpu_percent", "memory_percent", "absent"]).into(),
                rule: pick(n / 5, ["cpu-high", "memory-high", "silent"]).into(),
                severity: [Severity::Info, Severity::Warning, Severity::Critical][n as usize / 7 % 3],
                ..raised(n, n as i64 / 8 * 10)
            };
            if n % 4 == 0 { alert } else { resolved(&alert) }
        })
        .collect()
}

fn matches(query: &HistoryQuery, row: &HistoryRow) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
    is(&query.service, Some(&row.service_name))
        && is(&query.instance, row.instance.as_deref())
        && is(&query.metric, Some(&row.metric))
        && is(&query.rule, row.rule.as_deref())
        && is(&query.severity.map(|s| s.to_string()), row.severity.as_deref())
        && query.state.is_none_or(|s| (s == AlertState::Firing) == row.resolved_at.is_none())
        && query.since.is_none_or(|since| row.triggered_at >= since)
        && query.until.is_none_or(|until| row.triggered_at < until)
}

/// Each filter alone, and some together.
fn queries() -> Vec<HistoryQuery> {
    let name = |name: &str| Some(name.to_owned());
    vec![
        ANY,
        HistoryQuery { service: name("web"), ..ANY },
        HistoryQuery { service: name("WEB"), ..ANY },
        HistoryQuery { service: name("web "), ..ANY },
        HistoryQuery { instance: name("a"), ..ANY },
        HistoryQuery { metric: name("absent"), ..ANY },
        HistoryQuery { rule: name("memory-high"), ..ANY },
        HistoryQuery { severity: Some(Severity::Warning), ..ANY },
        HistoryQuery { state: Some(AlertState::Firing), ..ANY },
        HistoryQuery { state: Some(AlertState::Resolved), ..ANY },
        HistoryQuery { since: Some(at(50)), ..ANY },
        HistoryQuery { until: Some(at(50)), ..ANY },
        HistoryQuery { since: Some(at(30)), until: Some(at(80)), ..ANY },
        HistoryQuery { since: Some(at(80)), until: Some(at(30)), ..ANY },
        HistoryQuery { service: name("db"), instance: name("b"), state: Some(AlertState::Resolved), ..ANY },
        HistoryQuery { metric: name("cpu_percent"), severity: Some(Severity::Info), until: Some(at(70)), ..ANY },
        HistoryQuery { rule: name("silent"), state: Some(AlertState::Firing), since: Some(at(20)), ..ANY },
    ]
}

#[test]
fn every_filter_gives_exactly_its_rows_newest_first() {
    on_both_stores(|fixture| {
        fixture.write(&varied());
        let all = fixture.all();
        assert_eq!(all.len(), 90);
        assert!(all.is_sorted_by_key(|row| std::cmp::Reverse((row.triggered_at, row.id))));
        for query in queries() {
            let wanted: Vec<_> = all.iter().filter(|row| matches(&query, row)).cloned().collect();
            assert_eq!(fixture.store.history(&query).unwrap(), wanted, "{query:?}");
        }
    });
}

#[test]
fn pages_have_neither_gap_nor_repeat_also_among_equal_times() {
    on_both_stores(|fixture| {
        fixture.write(&varied());
        for query in queries() {
            let whole = fixture.store.history(&query).unwrap();
            for limit in [1, 7] {
                let mut paged: Vec<HistoryRow> = Vec::new();
                loop {
                    let after = paged.last().map(|row| Cursor { triggered_at: row.triggered_at, id: row.id });
                    let page = fixture.store.history(&HistoryQuery { limit, after, ..query.clone() }).unwrap();
                    if page.is_empty() {
                        break;
                    }
                    paged.extend(page);
                }
                assert_eq!(paged, whole, "{query:?}");
            }
        }
    });
}

#[test]
fn filters_and_cursors_at_the_ends_of_time_are_answered() {
    on_both_stores(|fixture| {
        fixture.write(&[raised(1, 0)]);
        let (first, last) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
        let count = |query| fixture.store.history(&query).unwrap().len();
        assert_eq!(count(HistoryQuery { since: Some(first), until: Some(last), ..ANY }), 1);
        assert_eq!(count(HistoryQuery { since: Some(last), ..ANY }), 0);
        assert_eq!(count(HistoryQuery { until: Some(first), ..ANY }), 0);
        let after = |triggered_at, id| HistoryQuery { after: Some(Cursor { triggered_at, id }), ..ANY };
        assert_eq!(count(after(last, u64::MAX)), 1);
        assert_eq!(count(after(first, 0)), 0);
        assert_eq!(count(after(at(0), u64::MAX)), 1);
    });
}

#[test]
fn hostile_text_is_stored_as_it_is() {
    let texts = [
        "'; DROP TABLE alerts; --",
        "\" \\ \\' %s ? :name `x`",
        "<script>alert(1)</script>",
        "\u{1b}[31mred\u{1b}[0m\r\n\t",
        "\u{202e}right to left, 🐹, e\u{301}, \u{0} NUL, \u{feff}",
        "trailing space ",
        &"long ".repeat(20_000),
    ];
    on_both_stores(|fixture| {
        for (n, text) in texts.iter().enumerate() {
            let labels = Arc::new(BTreeMap::from([((*text).to_owned(), (*text).to_owned())]));
            let alert = Alert { summary: (*text).to_owned(), labels, ..raised(n as u64, n as i64) };
            fixture.write(&[alert]);
            let row = &fixture.all()[0];
            assert_eq!(row.summary.as_deref(), Some(*text));
            let labels: BTreeMap<String, String> = serde_json::from_str(row.labels.as_deref().unwrap()).unwrap();
            assert_eq!(labels[*text], *text);
            let query = HistoryQuery { service: Some((*text).to_owned()), rule: Some((*text).to_owned()), ..ANY };
            assert_eq!(fixture.store.history(&query).unwrap(), []);
        }
        assert_eq!(fixture.all().len(), texts.len());
    });
}

#[test]
fn names_that_differ_in_case_accent_or_a_trailing_space_are_different_names() {
    on_both_stores(|fixture| {
        for (n, name) in ["web", "Web", "web ", "wéb"].into_iter().enumerate() {
            let key = Arc::new(InstanceKey::new(name, name));
            fixture.write(&[Alert { key, ..raised(n as u64, 0) }]);
        }
        for name in ["web", "Web", "web ", "wéb"] {
            let query = HistoryQuery { service: Some(name.to_owned()), ..ANY };
            let rows = fixture.store.history(&query).unwrap();
            assert_eq!(rows.iter().map(|row| row.service_name.as_str()).collect::<Vec<_>>(), [name]);
        }
    });
}

/// Bytes of an id are no text: neither case nor a blank at the end makes two of them one.
#[test]
fn ids_that_would_be_one_as_text_are_different_ids() {
    on_both_stores(|fixture| {
        let ids = [*b"aaaaaaaaaaaaaaaa", *b"AAAAAAAAAAAAAAAA", *b"aaaaaaaaaaaaaaa ", *b"aaaaaaaaaaaaaaa\0"];
        for (n, id) in (0..).zip(ids) {
            fixture.write(&[Alert { alert_id: Uuid::from_bytes(id), ..raised(n, 0) }]);
        }
        for id in ids {
            let found = fixture.store.alert(Uuid::from_bytes(id)).unwrap();
            assert_eq!(found.unwrap().row.alert_id, Some(Uuid::from_bytes(id)));
        }
        assert_eq!(fixture.all().len(), 4);
    });
}

/// Incidents at one time are different incidents, whatever else they have in common.
#[test]
fn nothing_but_its_id_makes_two_alerts_one() {
    on_both_stores(|fixture| {
        let at_once: Vec<_> = (0..5).map(|n| raised(n, 0)).collect();
        fixture.write(&at_once);
        fixture.write(&at_once.iter().map(resolved).collect::<Vec<_>>());
        assert_eq!(fixture.all().len(), 5);
    });
}

/// The mysql crate's shorter forms panic on it.
#[test]
fn a_value_that_no_row_of_ours_has_is_an_error() {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    fixture.write(&[raised(1, 0)]);
    fixture.run_sql("ALTER TABLE alerts MODIFY metric_value DOUBLE NULL");
    fixture.run_sql("UPDATE alerts SET metric_value = NULL");
    assert!(fixture.store.history(&ANY).is_err());
    assert!(fixture.store.alert(raised(1, 0).alert_id).is_err());
    fixture.run_sql("UPDATE alerts SET metric_value = 95.5");
    assert_eq!(fixture.all().len(), 1);
}

#[test]
fn pruning_takes_the_longest_resolved_first_and_never_what_fires() {
    on_both_stores(|fixture| {
        let alerts: Vec<_> = (0..10).map(|n| raised(n, n as i64)).collect();
        let closed: Vec<_> = alerts[..8].iter().map(resolved).collect();
        fixture.write(&alerts);
        fixture.write(&closed);
        let before = at(1_000_005);
        assert_eq!(fixture.store.prune(before, 2).unwrap(), 2);
        let left = |fixture: &Fixture| fixture.all().iter().map(|row| row.triggered_at).collect::<Vec<_>>();
        assert_eq!(left(fixture), (2..10).rev().map(at).collect::<Vec<_>>());
        assert_eq!(fixture.store.prune(before, 100).unwrap(), 3);
        assert_eq!(fixture.store.prune(before, 100).unwrap(), 0);
        assert_eq!(left(fixture), (5..10).rev().map(at).collect::<Vec<_>>());
    });
}

#[test]
fn a_rows_own_fault_is_permanent_and_the_batch_around_it_is_not_written() {
    on_both_stores(|fixture| {
        // MySQL's column has 128 characters; the trigger makes SQLite as strict.
        if let Database::Sqlite { .. } = fixture.database {
            fixture.run_sql(
                "CREATE TRIGGER short BEFORE INSERT ON alerts WHEN length(new.rule_name) > 128
                 BEGIN SELECT RAISE(ABORT, 'too long'); END",
            );
        }
        let poison = Alert { rule: "x".repeat(200).into(), ..raised(2, 0) };
        let alerts: Vec<_> = [raised(1, 0), poison, raised(3, 0)].into_iter().map(Arc::new).collect();
        let err = fixture.store.write(&alerts).unwrap_err();
        assert!(!err.is_transient(), "{err:?}");
        assert_eq!(err.to_string(), "writing 3 alerts");
        assert_eq!(fixture.all().len(), 0);
    });
}

#[test]
fn a_batch_is_one_statement_whichever_way_it_is_sent() {
    let server = Arc::new(Mariadb::start());
    let arrays = Fixture::mysql_on(server.clone());
    let Database::MySql { name, .. } = &arrays.database else { unreachable!() };
    let options = MySqlOptions::from_url(&server.url(name)).unwrap();
    let url = format!("{}?max_allowed_packet=1048576", server.url(name));
    let small_packets = MySqlOptions::from_url(&url).unwrap();
    arrays.store.prepare().unwrap();
    let log = server.general_log();
    let mut n_rows = 0;
    for options in [options.clone(), options.without_arrays(), small_packets] {
        let store: Box<dyn AlertStore> = Box::new(MySqlStore::new(options, Uuid::from_u128(7)));
        for n in [1, 2, 5, 1_000] {
            let before = log.n_inserts();
            let alerts: Vec<_> = (n_rows..n_rows + n).map(|n| Arc::new(raised(n, 0))).collect();
            store.write(&alerts).unwrap();
            n_rows += n;
            assert_eq!(log.n_inserts() - before, 1, "{n} rows");
            assert_eq!(arrays.count(), n_rows);
        }
    }
}

#[test]
fn what_fits_no_packet_is_refused_whole_and_not_sent_in_pieces() {
    let fixture = Fixture::mysql();
    fixture.store.prepare().unwrap();
    let Database::MySql { server, name } = &fixture.database else { unreachable!() };
    let url = format!("{}?max_allowed_packet=65536", server.url(name));
    let store: Box<dyn AlertStore> =
        Box::new(MySqlStore::new(MySqlOptions::from_url(&url).unwrap(), Uuid::from_u128(7)));
    let large = |n| Arc::new(Alert { summary: "x".repeat(1_000), ..raised(n, 0) });
    let err = store.write(&(0..100).map(large).collect::<Vec<_>>()).unwrap_err();
    assert!(!err.is_transient(), "half of it may fit: {err:?}");
    assert_eq!(fixture.count(), 0);
    store.write(&(0..20).map(large).collect::<Vec<_>>()).unwrap();
    assert_eq!(fixture.count(), 20);
}

#[test]
fn numbers_beyond_a_column_become_the_nearest_that_fits() {
    on_both_stores(|fixture| {
        let alert = Alert { value: f64::INFINITY, threshold: Some(f64::NEG_INFINITY), ..raised(1, 0) };
        fixture.write(&[alert]);
        assert_eq!((fixture.all()[0].metric_value, fixture.all()[0].threshold), (f64::MAX, Some(f64::MIN)));
    });
}

#[test]
fn preparing_again_changes_nothing() {
    on_both_stores(|fixture| {
        fixture.write(&[raised(1, 0)]);
        fixture.store.prepare().unwrap();
        assert_eq!(fixture.all().len(), 1);
    });
}

#[test]
fn a_schema_that_is_right_sees_no_ddl() {
    let server = Arc::new(Mariadb::start());
    let fixture = Fixture::mysql_on(server.clone());
    let log = server.general_log();
    let ddl = || {
        let text = log.text().to_ascii_uppercase();
        ["CREATE ", "ALTER ", "DROP "].map(|word| text.matches(word).count()).iter().sum::<usize>()
    };
    fixture.store.prepare().unwrap();
    assert_eq!(ddl(), 1);
    fixture.store.prepare().unwrap();
    let Database::MySql { name, .. } = &fixture.database else { unreachable!() };
    let another: Box<dyn AlertStore> = Box::new(mysql_store(&server, name));
    another.prepare().unwrap();
    another.write(&[Arc::new(raised(1, 0))]).unwrap();
    assert_eq!(ddl(), 1);
}

#[test]
fn the_schema_file_runs_by_hand_and_again_and_the_server_adds_nothing_to_it() {
    let server = Arc::new(Mariadb::start());
    let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.sql")).unwrap();
    let mut conn = server.conn();
    for _ in 0..2 {
        let code: String = script.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        for statement in code.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            conn.query_drop(statement).unwrap();
        }
    }
    let log = server.general_log();
    let store: Box<dyn AlertStore> = Box::new(mysql_store(&server, "gopherwatch"));
    store.prepare().unwrap();
    assert!(!log.text().contains("ALTER"));
}

const ORIGINAL_TABLE: &str = "CREATE TABLE alerts (
    id INT AUTO_INCREMENT PRIMARY KEY, service_name VARCHAR(255) NOT NULL, metric VARCHAR(50) NOT NULL,
    metric_value FLOAT NOT NULL, triggered_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    INDEX idx_service_time (service_name, triggered_at)) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_general_ci";

#[test]
fn a_table_of_the_original_program_is_widened_and_keeps_its_rows() {
    let fixture = Fixture::mysql();
    fixture.run_sql(ORIGINAL_TABLE);
    fixture.run_sql(
        "INSERT INTO alerts (service_name, metric, metric_value, triggered_at) VALUES
         ('web', 'cpu', 97.5, '2026-01-01 00:00:01'), ('Web', 'cpu', 98.5, '2026-01-01 00:00:02')",
    );
    fixture.store.prepare().unwrap();
    fixture.store.prepare().unwrap();
    fixture.run_sql("INSERT INTO alerts (service_name, metric, metric_value) VALUES ('web', 'cpu', 16777217)");
    fixture.write(&[raised(1, 0)]);
    let rows = fixture.all();
    assert_eq!(rows.len(), 4);
    assert_eq!((rows[0].metric_value, rows[0].alert_id), (16_777_217.0, None));
    assert_eq!((rows[1].service_name.as_str(), rows[1].triggered_at), ("Web", at(2_000_000)));
    let web = fixture.store.history(&HistoryQuery { service: Some("web".to_owned()), ..ANY }).unwrap();
    assert_eq!(web.len(), 3);
}

#[test]
fn refused_ddl_names_the_statement_to_run() {
    let fixture = Fixture::mysql();
    fixture.run_sql(ORIGINAL_TABLE);
    let Database::MySql { server, name } = &fixture.database else { unreachable!() };
    let mut conn = server.conn();
    conn.query_drop("CREATE USER IF NOT EXISTS 'plain'@'%' IDENTIFIED BY 'secret'").unwrap();
    conn.query_drop(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO 'plain'@'%'")).unwrap();
    conn.query_drop("CREATE USER IF NOT EXISTS 'plain'@'localhost' IDENTIFIED BY 'secret'").unwrap();
    conn.query_drop(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO 'plain'@'localhost'")).unwrap();
    let url = server.url(name).replace("root@", "plain:secret@");
    let options = MySqlOptions::from_url(&url).unwrap();
    let store = MySqlStore::new(options, Uuid::nil());
    let err = AlertStore::prepare(&store).unwrap_err();
    let text = err.to_string();
    assert!(text.contains("ALTER TABLE alerts MODIFY COLUMN id BIGINT UNSIGNED"), "{text}");
    assert!(text.contains("ADD COLUMN alert_id BINARY(16) NULL"), "{text}");
    assert!(!text.contains("secret") && !format!("{store:?}").contains("secret"));
}

#[test]
fn a_file_of_a_newer_program_or_of_another_kind_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alerts.db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let err = SqliteStore::open(&path).unwrap_err();
    assert!(err.to_string().contains("alerts.db") && !err.is_transient(), "{err}");
    assert!(format!("{err:?}").contains("its schema is version 2, this program knows 1"), "{err:?}");
    let path = dir.path().join("text.db");
    std::fs::write(&path, "not a database, only text. ".repeat(100)).unwrap();
    assert!(SqliteStore::open(&path).unwrap_err().to_string().contains("text.db"));
    assert!(SqliteStore::open(dir.path().join("no/such/folder.db")).is_err());
}

#[test]
fn every_reason_and_severity_fits_its_column() {
    on_both_stores(|fixture| {
        use ResolveReason::{Cleared, Forgotten, Left, Recorded, RuleRemoved};
        for (n, reason) in [Cleared, Left, Forgotten, RuleRemoved, Recorded].into_iter().enumerate() {
            let alert = raised(n as u64, n as i64);
            fixture.write(&[alert.resolved(alert.triggered_at, reason, None)]);
            assert_eq!(fixture.all()[0].resolve_reason.as_deref(), Some(reason.as_str()));
        }
    });
}

#[test]
fn a_store_that_is_shut_answers_and_begins_no_write() {
    on_both_stores(|fixture| {
        fixture.write(&[raised(1, 0)]);
        fixture.store.shut();
        let refused = fixture.store.write(&[Arc::new(raised(2, 0))]).expect_err("shut");
        assert!(refused.is_transient());
        assert!(fixture.store.prune(at(i64::MAX / 2_000), 10).is_err());
        assert_eq!(fixture.all().len(), 1);
    });
}
