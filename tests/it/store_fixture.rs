//! Both alert stores, empty, behind one face; and alerts to put into them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use gopherwatch::{
    model::{
        Alert, EventKind, Evidence, EvidencePoint, InstanceKey, LifeEvent, RaiseId, ResolveReason, Severity, Timestamp,
    },
    store::{AlertStore, HistoryQuery, HistoryRow, MySqlOptions, MySqlStore, SqliteStore},
};
use mysql::prelude::Queryable;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::mariadb::Mariadb;

/// A store, and the way round it to the database itself.
pub(crate) struct Fixture {
    pub(crate) store: Box<dyn AlertStore>,
    pub(crate) database: Database,
}

pub(crate) enum Database {
    MySql { server: Arc<Mariadb>, name: String },
    Sqlite { dir: TempDir },
}

impl Fixture {
    /// A store on a database of its own of the server that the tests share; not prepared.
    pub(crate) fn mysql() -> Self {
        Self::mysql_on(Mariadb::shared())
    }

    /// A store on a database of its own of `server`; not prepared.
    pub(crate) fn mysql_on(server: Arc<Mariadb>) -> Self {
        static N_DATABASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("gw_{}", N_DATABASES.fetch_add(1, Ordering::Relaxed));
        server.create_database(&name);
        Self { store: Box::new(mysql_store(&server, &name)), database: Database::MySql { server, name } }
    }

    /// As [`Self::mysql`], written to as MySQL is: the database here is MariaDB, which knows arrays of rows.
    pub(crate) fn mysql_without_arrays() -> Self {
        let fixture = Self::mysql();
        let Database::MySql { server, name } = &fixture.database else { unreachable!() };
        let options = MySqlOptions::from_url(&server.url(name)).unwrap().without_arrays();
        Self { store: Box::new(MySqlStore::new(options, Uuid::from_u128(7))), ..fixture }
    }

    /// A store in a file of its own; not prepared.
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("alerts.db")).unwrap();
        Self { store: Box::new(store), database: Database::Sqlite { dir } }
    }

    /// Runs statements as another program would.
    pub(crate) fn run_sql(&self, sql: &str) {
        match &self.database {
            Database::MySql { server, name } => {
                let mut conn = server.conn();
                conn.query_drop(format!("USE {name}")).unwrap();
                conn.query_drop("SET time_zone = '+00:00'").unwrap();
                conn.query_drop(sql).unwrap();
            }
            Database::Sqlite { dir } => {
                rusqlite::Connection::open(dir.path().join("alerts.db")).unwrap().execute_batch(sql).unwrap();
            }
        }
    }

    /// One text of the database, `NULL` for none.
    pub(crate) fn text(&self, select: &str) -> String {
        let found: Option<String> = match &self.database {
            Database::MySql { server, name } => {
                let mut conn = server.conn();
                conn.query_drop(format!("USE {name}")).unwrap();
                conn.query_first::<Option<String>, _>(select).unwrap().flatten()
            }
            Database::Sqlite { dir } => {
                let conn = rusqlite::Connection::open(dir.path().join("alerts.db")).unwrap();
                conn.query_row(select, [], |row| row.get(0)).unwrap()
            }
        };
        found.unwrap_or_else(|| "NULL".to_owned())
    }

    pub(crate) fn write(&self, alerts: &[Alert]) {
        let alerts: Vec<_> = alerts.iter().cloned().map(Arc::new).collect();
        self.store.write(&alerts).unwrap();
    }

    /// How many rows there are.
    pub(crate) fn count(&self) -> u64 {
        self.text("SELECT CAST(count(*) AS CHAR) FROM alerts").parse().unwrap()
    }

    pub(crate) fn all(&self) -> Vec<HistoryRow> {
        self.store.history(&HistoryQuery { limit: 1_000, ..HistoryQuery::default() }).unwrap()
    }
}

/// A store on `database` of `server`, not yet connected.
pub(crate) fn mysql_store(server: &Mariadb, database: &str) -> MySqlStore {
    MySqlStore::new(MySqlOptions::from_url(&server.url(database)).unwrap(), Uuid::from_u128(7))
}

/// The same test on both stores, prepared, and on MySQL by both ways of writing.
pub(crate) fn on_both_stores(test: impl Fn(&Fixture)) {
    for fixture in [Fixture::sqlite(), Fixture::mysql(), Fixture::mysql_without_arrays()] {
        fixture.store.prepare().unwrap();
        test(&fixture);
    }
}

/// A firing alert, its `n` and its time telling it from others; microseconds from 2026 on.
pub(crate) fn raised(n: u64, micros: i64) -> Alert {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let id = RaiseId::Counter(n).alert_id(&key, "cpu-high");
    let at = at(micros);
    Alert {
        alert_id: id,
        episode_id: id,
        key,
        rule: "cpu-high".into(),
        metric: "cpu_percent".into(),
        value: 95.5,
        threshold: Some(90.0),
        severity: Severity::Critical,
        labels: Arc::new(BTreeMap::from([("team".to_owned(), "payments".to_owned())])),
        summary: "CPU of web/a is 95.5%".to_owned(),
        runbook_url: None,
        receivers: None,
        evidence: Some(Arc::new(Evidence {
            when: "cpu_percent > 90".into(),
            points: vec![EvidencePoint { at, value: 95.5 }],
        })),
        life: vec![LifeEvent { kind: EventKind::Raise, at, by: None, value: Some(95.5) }],
        late: false,
        triggered_at: at,
        received_at: at.plus(Duration::from_micros(300)),
        resolved_at: None,
        resolve_reason: None,
        last_value: 95.5,
        version: 1,
    }
}

/// It, resolved a second later.
pub(crate) fn resolved(alert: &Alert) -> Alert {
    alert.resolved(alert.triggered_at.plus(Duration::from_secs(1)), ResolveReason::Cleared, Some(20.0))
}

/// Microseconds after the beginning of 2026.
pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000 + micros)
}

/// Waits until `ready` says so.
pub(crate) fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
