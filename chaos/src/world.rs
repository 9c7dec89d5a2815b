//! Everything that a scenario breaks, in one folder: a database, the server, agents, and a proxy before each of the two
//! that others connect to.
//!
//! A run ends by healing every fault, draining the agents and letting the store catch up, so that what must be in the
//! history is known exactly. A folder in which something was found stays for those who look into it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Load},
    checker::{Verdict, check, check_active},
    expected::Key,
    ledger::{Tail, read_all},
    listener::Listener,
    mariadb::Mariadb,
    proxy::Proxy,
    rows::{of_mysql, of_sqlite},
    rules,
    server::{Room, Server, Setup},
    wait::found,
};

/// By then an ensemble without faults has caught up.
const CATCH_UP: Duration = Duration::from_secs(180);
const DATABASE: &str = "gopherwatch";
/// Whom the server is for the database: somebody who may do no more than it needs.
pub const USER: &str = "watcher";
/// More memory than that no run may make it take: the loads here are small, and all queues have bounds.
pub const MEMORY_CAP_MIB: u64 = 384;

/// The binaries under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The server.
    pub server: PathBuf,
    /// This crate's own binary, for agents.
    pub chaos: PathBuf,
}

/// Which store the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A private MariaDB behind a proxy.
    Mariadb,
    /// The server's own file.
    Sqlite,
}

/// A running ensemble.
#[derive(Debug)]
pub struct World {
    programs: Programs,
    folder: Option<TempDir>,
    /// Before the server.
    pub front: Proxy,
    /// Before the database.
    pub back: Proxy,
    /// The server.
    pub server: Server,
    /// The database, unless it is SQLite.
    pub mariadb: Option<Mariadb>,
    /// Whom the server tells, if anybody.
    pub listener: Option<Listener>,
    /// The agents.
    pub agents: Vec<Agent>,
    tail: Tail,
}

impl World {
    /// Starts all of it but the agents.
    pub fn start(programs: &Programs, name: &str, store: Store, listener: Option<Listener>) -> Self {
        Self::start_in(programs, name, store, listener, |_| Room::Plenty)
    }

    /// The same, with so much room for the server's data, whose folder is there and empty.
    pub fn start_in(
        programs: &Programs,
        name: &str,
        store: Store,
        listener: Option<Listener>,
        room: impl FnOnce(&Path) -> Room,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("gopherwatch-chaos-{name}-")).tempdir().unwrap();
        let path = folder.path();
        for inner in ["ledgers", "mariadb", "data"] {
            fs::create_dir(path.join(inner)).unwrap();
        }
        let receivers = listener.as_ref().map(Listener::toml).unwrap_or_default();
        fs::write(path.join("rules.toml"), rules::toml() + &receivers).unwrap();
        let (front, back) = (Proxy::start(), Proxy::start());
        let mariadb = (store == Store::Mariadb).then(|| Mariadb::start_in(&path.join("mariadb")));
        let database_url = mariadb.as_ref().map(|mariadb| {
            mariadb.create_database(DATABASE);
            mariadb.create_user(DATABASE, USER);
            back.lead_to(Some(mariadb.addr()));
            format!("mysql://{USER}@{}/{DATABASE}", back.addr())
        });
        let room = room(&path.join("data"));
        let (program, folder_path) = (programs.server.clone(), path.to_owned());
        let server = Server::start(Setup { program, folder: folder_path, database_url, room });
        front.lead_to(Some(server.grpc()));
        let tail = Tail::new(&path.join("ledgers"));
        let programs = programs.clone();
        Self { programs, folder: Some(folder), front, back, server, mariadb, listener, agents: Vec::new(), tail }
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("only the end takes it").path()
    }

    /// The address that agents are given.
    pub fn address(&self) -> String {
        format!("http://{}", self.front.addr())
    }

    /// The name of the database.
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// Starts one more agent, and waits until it has a receipt.
    pub fn add_agent(&mut self, load: Load) {
        let (_, receipted) = self.look();
        // Streams are named after their agent and a number.
        let name = ["amber", "birch", "cedar", "delta"][self.agents.len()];
        let agent = Agent::start(&self.programs.chaos, name, &self.address(), self.folder(), load);
        self.agents.push(agent);
        self.wait_for_receipts(receipted + 1);
    }

    /// Reports sent, and receipted, so far.
    pub fn look(&mut self) -> (u64, u64) {
        self.tail.look()
    }

    /// Waits until so many reports were sent.
    pub fn wait_for_reports(&mut self, n: u64) {
        let tail = &mut self.tail;
        found(CATCH_UP, "agents send", || (tail.look().0 >= n).then_some(()));
    }

    /// Waits until so many reports have receipts.
    pub fn wait_for_receipts(&mut self, n: u64) {
        let tail = &mut self.tail;
        found(CATCH_UP, "agents get receipts", || (tail.look().1 >= n).then_some(()));
    }

    /// Starts the server again, and leads agents to it.
    pub fn restart_server(&mut self) {
        self.server.restart();
        self.server.wait_until_ready();
        self.front.lead_to(Some(self.server.grpc()));
    }

    /// Kills the server; agents are turned away until it is there again.
    pub fn kill_server(&mut self) {
        self.server.kill9();
        self.front.lead_to(None);
    }

    /// The database of a run that has one.
    pub fn mariadb(&self) -> &Mariadb {
        self.mariadb.as_ref().expect("this scenario runs with MariaDB")
    }

    /// Ends the faults, drains everything and compares. The folder is removed if all is well; otherwise, where it is.
    pub fn finish(mut self) -> (Verdict, Option<PathBuf>) {
        self.front.heal();
        self.back.heal();
        self.agents.iter().for_each(|agent| agent.signal("TERM"));
        self.agents.iter_mut().for_each(|agent| agent.wait_drained(CATCH_UP));
        let mut balance_fault = None;
        found(CATCH_UP, "the store catches up, and the accounts balance", || {
            // The figures are read one after the other: only what does not add up for long is a fault.
            let balance = self.server.balance(Duration::from_secs(10)).ok()?;
            balance_fault = balance.fault();
            (balance.is_settled() && balance_fault.is_none()).then_some(())
        });
        let ledgers = read_all(&self.folder().join("ledgers")).unwrap();
        let rows = match &self.mariadb {
            Some(mariadb) => of_mysql(&mut mariadb.conn(), DATABASE).unwrap(),
            None => of_sqlite(&self.alerts_db()).unwrap(),
        };
        let mut verdict = check(&ledgers, &rows);
        if let Some(listener) = &self.listener {
            listener.wait_until_told(&ledgers, CATCH_UP);
            verdict.broken.extend(listener.told().faults(&ledgers));
        }
        match self.active() {
            Ok(active) => check_active(&ledgers, &active, &mut verdict),
            Err(err) => verdict.and_broken(format!("/alerts/active: {err}")),
        }
        verdict.peak_mib = self.server.peak_mib();
        if verdict.peak_mib > MEMORY_CAP_MIB {
            let peak = verdict.peak_mib;
            verdict.and_broken(format!("the server took {peak} MiB of memory, the cap is {MEMORY_CAP_MIB}"));
        }
        let folder = self.folder.take().expect("only the end takes it");
        if verdict.is_clean() {
            return (verdict, None);
        }
        (verdict, Some(folder.keep()))
    }

    /// The server's own history. That of a small disk is copied: SQLite follows a path into another namespace's files by
    /// name, and finds our own there.
    fn alerts_db(&self) -> PathBuf {
        let data = self.server.data_dir();
        if data.starts_with(self.folder()) {
            return data.join("alerts.db");
        }
        let copy = self.folder().join("copy");
        fs::create_dir(&copy).unwrap();
        for name in ["alerts.db", "alerts.db-wal"] {
            if data.join(name).exists() {
                fs::copy(data.join(name), copy.join(name)).unwrap();
            }
        }
        copy.join("alerts.db")
    }

    /// What `/alerts/active` shows.
    fn active(&self) -> Result<BTreeSet<Key>, String> {
        let answer = self.server.ask("/alerts/active")?;
        let alerts = answer["alerts"].as_array().ok_or("no list of alerts")?;
        let text = |alert: &Value, key: &str| alert[key].as_str().unwrap_or_default().to_owned();
        alerts
            .iter()
            .map(|alert| {
                Ok(Key {
                    service: text(alert, "service_name"),
                    instance: text(alert, "instance"),
                    rule: text(alert, "rule"),
                    triggered_at: micros(&text(alert, "triggered_at"))?,
                })
            })
            .collect()
    }
}

/// A time of REST or of the log, in microseconds since 1970.
pub fn micros(time: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = time.parse().map_err(|err| format!("{time}: {err}"))?;
    u64::try_from(time.as_microsecond()).map_err(|err| err.to_string())
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take().filter(|_| thread::panicking()) {
            say(&format!("what there is of this run stays in {}", folder.keep().display()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a run that cannot go on says where its evidence is")]
fn say(text: &str) {
    eprintln!("{text}");
}
