//! The server is away while a breach begins and ends: one alert, with its true times, whatever becomes of the agent.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    agent::Agent,
    support::{
        figures,
        server::{Server, Setup},
        wait::{SOON, eventually, found},
    },
};

/// Before the breach, the breach, and behind it: ten minutes with one of breach in a long run (`GOPHERWATCH_IT_SECONDS=600`),
/// and in any case long enough for an agent to end and begin in the breach, and for its end to be read.
fn times() -> [Duration; 3] {
    let whole = Duration::from_secs(figures::seconds(0));
    [(1, 1), (1, 4), (8, 3)].map(|(tenths, least)| (whole * tenths / 10).max(Duration::from_secs(least)))
}

/// A service of this host that sends its gauge to whichever agent has the socket.
struct Service(PathBuf);

impl Service {
    fn says(&self, queue: u32) {
        // While there is no agent it goes nowhere.
        let _ = UnixDatagram::unbound().unwrap().send_to(format!("queue:{queue}|g").as_bytes(), &self.0);
    }

    /// Sends it often, for so long.
    fn says_for(&self, queue: u32, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.says(queue);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn now_micros() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

fn figure(server: &Server, name: &str) -> Option<f64> {
    server.service("shop")?["instances"][0]["metrics"][name].as_f64()
}

/// An outage with a breach in it. The agent is killed in the midst of that, and another one started, if it has a spool.
fn breach_in_an_outage(spool: Option<&Path>) {
    let [before, breach, behind] = times();
    let held = breach / 2;
    let rule = format!("[[rules]]\nname = \"long\"\nwhen = \"queue > 90\"\nfor = \"{}ms\"\n", held.as_millis());
    let setup = Setup::new().rules(&rule);
    let service = Service(setup.cwd().join("statsd.sock"));
    let mut server = setup.start();
    let spool = spool.map_or(String::new(), |dir| format!("--spool-dir {}", dir.display()));
    let socket = format!("--statsd-addr off --statsd-socket {}", service.0.display());
    let start = |server: &Server| {
        Agent::start(server, &format!("--service shop --instance a --interval 50ms {socket} {spool}"))
    };
    let mut agent = start(&server);
    eventually(SOON, "the gauge on /status", || {
        service.says(5);
        figure(&server, "queue") == Some(5.0)
    });
    assert_eq!(server.stop(), 0);

    service.says_for(5, before);
    let began = now_micros();
    service.says_for(95, breach * 3 / 8);
    if !spool.is_empty() {
        agent.kill9();
        agent = start(&server);
        eventually(SOON, "the agent takes StatsD", || agent.log.text().contains("taking StatsD through a socket"));
    }
    service.says_for(95, breach * 5 / 8);
    let ended = now_micros();
    service.says_for(5, behind);
    let back = now_micros();
    let server = server.start_again(&format!("--grpc-addr {}", server.grpc()));

    let row =
        found(SOON, "the alert, which is over", || server.history("").pop().filter(|row| row.resolved_at.is_some()));
    agent.stop();
    let balance = server.settle();
    assert_eq!(server.history(""), std::slice::from_ref(&row), "one alert, once");
    let (triggered, resolved) = (row.triggered_at, row.resolved_at.unwrap());
    assert!((began + micros(held)..ended).contains(&triggered), "{began} to {ended}: {row:?}");
    assert!((ended..back).contains(&resolved), "{ended} to {back}: {row:?}");
    assert!(row.received_at >= back, "{row:?}");
    assert_eq!(row.late, row.received_at - triggered > 60_000_000, "{row:?}");

    let stopped = &agent.log.with_message("stopped")[0];
    let count = |name: &str| stopped[name].as_u64().unwrap_or_else(|| panic!("{name} in {stopped}"));
    assert_eq!((count("acknowledged"), count("pending"), count("dropped")), (count("sent"), 0, 0));
    assert_eq!(figure(&server, "agent_reports_dropped"), Some(0.0));
    assert_eq!((&balance["rejected"], &balance["duplicates"]), (&0.into(), &0.into()), "{balance}");
}

#[test]
fn a_breach_in_an_outage_is_one_alert_with_its_true_times() {
    breach_in_an_outage(None);
}

#[test]
fn so_it_is_when_the_agent_is_killed_in_the_midst_of_it_and_has_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    breach_in_an_outage(Some(dir.path()));
}
