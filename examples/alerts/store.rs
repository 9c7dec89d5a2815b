//! A fresh server with its store, and a connection of our own to the store.

use std::fs;

use clap::ValueEnum;
use gopherwatch_chaos::{
    mariadb::Mariadb,
    server::{Room, Server, Setup},
};
use mysql::{Conn, prelude::Queryable};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// Where the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Sqlite,
    Mysql,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Mysql => "MariaDB",
        }
    }
}

/// The rules of a storm: a row for each violating report, so that the store has as much to do as there can be.
pub(crate) const A_ROW_EACH: &str = "[[rules]]\nname = \"cpu-high\"\nwhen = \"cpu_percent > 90\"\nrecord = \"every\"\n";

/// A server with empty data.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) store: Store,
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) fn start(kind: Kind, rules: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("gopherwatch-bench-").tempdir().unwrap();
        fs::write(folder.path().join("rules.toml"), rules).unwrap();
        let program = std::env::current_exe().unwrap().with_file_name("../gopherwatch-server").canonicalize().unwrap();
        let mariadb = (kind == Kind::Mysql).then(Mariadb::start);
        let database_url = mariadb.as_ref().map(|mariadb| {
            mariadb.create_database(DATABASE);
            mariadb.url(DATABASE)
        });
        let setup = Setup { program, folder: folder.path().to_owned(), database_url, room: Room::Plenty };
        let server = Server::start(setup);
        let store = match mariadb {
            None => {
                let path = server.data_dir().join("alerts.db");
                Store::Sqlite(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap())
            }
            Some(mariadb) => {
                let mut conn = mariadb.conn();
                conn.query_drop(format!("USE {DATABASE}")).unwrap();
                Store::Mysql { conn: Box::new(conn), _server: mariadb }
            }
        };
        Self { server, store, folder }
    }
}

const DATABASE: &str = "bench";

/// Our own connection.
pub(crate) enum Store {
    Sqlite(Connection),
    Mysql { conn: Box<Conn>, _server: Mariadb },
}

impl Store {
    /// Whether a service has a row.
    pub(crate) fn has(&mut self, service: &str) -> bool {
        let sql = "SELECT 1 FROM alerts WHERE service_name = ? LIMIT 1";
        match self {
            Self::Sqlite(conn) => conn.prepare_cached(sql).unwrap().exists([service]).unwrap(),
            Self::Mysql { conn, .. } => conn.exec_first::<u8, _, _>(sql, (service,)).unwrap().is_some(),
        }
    }

    /// The process of the database's server, if it is one.
    pub(crate) fn server_pid(&mut self) -> Option<String> {
        match self {
            Self::Sqlite(_) => None,
            Self::Mysql { conn, .. } => {
                let file: String = conn.query_first("SELECT @@pid_file").unwrap().unwrap();
                Some(fs::read_to_string(file).unwrap().trim().to_owned())
            }
        }
    }

    /// Rows of the services whose names begin so.
    pub(crate) fn count(&mut self, prefix: &str) -> u64 {
        let (sql, pattern) = ("SELECT count(*) FROM alerts WHERE service_name LIKE ?", format!("{prefix}%"));
        match self {
            Self::Sqlite(conn) => conn.query_row(sql, [pattern], |row| row.get(0)).unwrap(),
            Self::Mysql { conn, .. } => conn.exec_first(sql, (pattern,)).unwrap().unwrap(),
        }
    }

    /// Seconds from the statement that stored the first rows to the one that stored the last.
    pub(crate) fn seconds_of_storing(&mut self) -> f64 {
        let micros: i64 = match self {
            Self::Sqlite(conn) => {
                let sql = "SELECT max(stored_at) - min(stored_at) FROM alerts";
                conn.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Self::Mysql { conn, .. } => {
                let sql = "SELECT TIMESTAMPDIFF(MICROSECOND, MIN(stored_at), MAX(stored_at)) FROM alerts";
                conn.query_first(sql).unwrap().unwrap()
            }
        };
        micros as f64 / 1e6
    }
}
