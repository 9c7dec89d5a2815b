//! What others do to a database that lives: make it read-only, change its table behind an open transaction, take all of
//! its connections.

use std::thread::{self, JoinHandle};

use mysql::{Conn, prelude::Queryable};

use super::Outage;
use crate::{
    wait::{SOON, eventually},
    world::{USER, World},
};

/// So few connections are soon taken. The database takes no smaller number.
const FEW_CONNECTIONS: usize = 10;
/// What there are as a rule.
const USUAL_CONNECTIONS: usize = 151;

/// One of them, under way.
#[derive(Debug)]
pub(super) enum Trouble {
    /// `SET GLOBAL read_only`: the server's user may not write.
    ReadOnly(Conn),
    /// An ALTER waits for a transaction that has read the table, and everybody else waits behind the ALTER.
    Altered {
        /// Whose transaction it is.
        reader: Conn,
        /// Who alters.
        alter: JoinHandle<()>,
    },
    /// Somebody else has every connection there is.
    Crowded {
        /// The one place that is kept for whom may do everything.
        admin: Conn,
        /// The others.
        guests: Vec<Conn>,
    },
}

impl Trouble {
    /// Begins it; `None` for outages of another kind.
    pub(super) fn begin(how: Outage, world: &World) -> Option<Self> {
        // Not before it is known who asks: one that is stopped or dead greets nobody.
        let connect = || world.mariadb().conn();
        let table = format!("{}.alerts", world.database());
        match how {
            Outage::ReadOnly => {
                let mut conn = connect();
                conn.query_drop("SET GLOBAL read_only = 1").unwrap();
                Some(Self::ReadOnly(conn))
            }
            Outage::Altered => {
                let (mut conn, mut other) = (connect(), connect());
                conn.query_drop("START TRANSACTION").unwrap();
                let _: Option<u64> = conn.query_first(format!("SELECT id FROM {table} LIMIT 1")).unwrap();
                let sql = format!("ALTER TABLE {table} ADD COLUMN operators_note VARCHAR(20) NULL");
                let alter = thread::spawn(move || other.query_drop(sql).unwrap());
                eventually(SOON, "the ALTER waits", || {
                    let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'ALTER%' \
                               AND state = 'Waiting for table metadata lock'";
                    world.mariadb().conn().query_first::<u64, _>(sql).unwrap() == Some(1)
                });
                Some(Self::Altered { reader: conn, alter })
            }
            Outage::Crowded => {
                let mut conn = connect();
                conn.query_drop(format!("SET GLOBAL max_connections = {FEW_CONNECTIONS}")).unwrap();
                let mut crowded = Self::Crowded { admin: conn, guests: Vec::new() };
                crowded.go_on(world);
                Some(crowded)
            }
            Outage::Stopped | Outage::Killed | Outage::Locked | Outage::RepliesCut => None,
        }
    }

    /// Keeps it up: what the server has of connections is taken from it, and used.
    pub(super) fn go_on(&mut self, world: &World) {
        let Self::Crowded { admin, guests } = self else { return };
        let ids: Vec<u64> =
            admin.query(format!("SELECT id FROM information_schema.processlist WHERE user = '{USER}'")).unwrap();
        for id in ids {
            // Gone by itself by now, maybe.
            let _ = admin.query_drop(format!("KILL {id}"));
        }
        while guests.len() < FEW_CONNECTIONS {
            match world.mariadb().try_conn() {
                Ok(guest) => guests.push(guest),
                Err(_) => break,
            }
        }
    }

    /// Ends it.
    pub(super) fn end(self) {
        match self {
            Self::ReadOnly(mut conn) => conn.query_drop("SET GLOBAL read_only = 0").unwrap(),
            Self::Altered { mut reader, alter } => {
                reader.query_drop("COMMIT").unwrap();
                alter.join().unwrap();
            }
            Self::Crowded { mut admin, guests } => {
                drop(guests);
                admin.query_drop(format!("SET GLOBAL max_connections = {USUAL_CONNECTIONS}")).unwrap();
            }
        }
    }
}
