//! Receivers of notifications: one that takes every webhook and notes when it came, and one that is dead all along.
//!
//! The clock is the machine's, in microseconds since 1970, as in the ledgers: what lies between a report's way into its
//! call and the end of the request that tells of it can be read off the two.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    expected::{Key, episodes},
    generator::now_us,
    ledger::{Contents, names},
    wait::found,
    world::micros,
};

/// Nobody listens here, and an ordinary program cannot begin to.
const DEAD: &str = "127.0.0.1:1";
/// Longer than from one request to the next while there is anything to tell.
const QUIET: Duration = Duration::from_millis(200);

/// What an alert's notifications told, and when each came first, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// That it began.
    pub raise: Option<u64>,
    /// That it ended.
    pub resolve: Option<u64>,
}

/// Everything that was told so far.
#[derive(Clone, Debug, Default)]
pub struct Told {
    alerts: HashMap<Key, Times>,
    /// Requests, of which some may tell again what others told.
    pub n_posts: u64,
    /// Requests that tell nothing that can be understood, and what came before what it follows from.
    faults: Vec<String>,
}

/// A running listener. It ends with the process; all clones are one.
#[derive(Clone, Debug)]
pub struct Listener {
    addr: SocketAddr,
    told: Arc<Mutex<Told>>,
}

impl Listener {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let told = Arc::<Mutex<Told>>::default();
        let shared = told.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = shared.clone();
                thread::spawn(move || serve(&stream, &told));
            }
        });
        Self { addr, told }
    }

    /// Both receivers, for the rule file: every rule's alerts go to each.
    pub fn toml(&self) -> String {
        let receiver = |name: &str, addr: &str| {
            format!(
                "\n[[receivers]]\nname = \"{name}\"\ntype = \"webhook\"\nurl = \"http://{addr}/\"\n\
                 send_resolved = true\nallow_private = true\n"
            )
        };
        receiver("alive", &self.addr.to_string()) + &receiver("dead", DEAD)
    }

    /// What was told so far.
    pub fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Waits until everything that these ledgers demand was told, or nothing more has come for `patience`.
    pub fn wait_until_told(&self, ledgers: &[Contents], patience: Duration) {
        let (mut n_posts, mut last, mut looked) = (0, Instant::now(), None);
        found(Duration::MAX, "as long as something comes", || {
            let n_now = self.told.lock().unwrap().n_posts;
            if n_now != n_posts {
                (n_posts, last) = (n_now, Instant::now());
            }
            // Looking through all of it takes a while: only once nothing comes for the moment.
            let is_quiet = last.elapsed() >= QUIET && looked != Some(n_now);
            let is_all = is_quiet && self.told().missing(ledgers).is_empty();
            looked = if is_quiet { Some(n_now) } else { looked };
            (is_all || last.elapsed() >= patience).then_some(())
        });
    }
}

impl Told {
    /// What the ledgers demand and nobody was told, and what was told wrongly.
    pub fn faults(&self, ledgers: &[Contents]) -> Vec<String> {
        let missing = self.missing(ledgers).into_iter().map(|what| format!("nobody was told: {what}"));
        missing.chain(self.faults.iter().cloned()).collect()
    }

    fn missing(&self, ledgers: &[Contents]) -> Vec<String> {
        let mut missing = Vec::new();
        for (key, episode) in episodes(ledgers) {
            let times = self.alerts.get(&key).copied().unwrap_or_default();
            if times.raise.is_none() {
                missing.push(format!("the raise of {key:?}"));
            }
            if episode.resolved_at.is_some() && times.resolve.is_none() {
                missing.push(format!("the resolve of {key:?}"));
            }
        }
        missing
    }

    /// For each raise when its report went into the call, and how long after that it was told, in microseconds.
    pub fn raises(&self, ledgers: &[Contents]) -> Vec<(u64, u64)> {
        let mut given = BTreeMap::new();
        for ledger in ledgers {
            for (place, sent) in ledger.sent.iter().enumerate() {
                if let Some(at_us) = ledger.given_at(place) {
                    let (service, instance) = names(&ledger.stream, sent.instance);
                    given.insert((service, instance, sent.time / 1_000), at_us);
                }
            }
        }
        let mut raises = Vec::new();
        for (key, times) in &self.alerts {
            let report = (key.service.clone(), key.instance.clone(), key.triggered_at);
            if let (Some(given), Some(told)) = (given.get(&report), times.raise) {
                raises.push((*given, told.saturating_sub(*given)));
            }
        }
        raises
    }

    /// Notes a notification that came at this time.
    fn take(&mut self, body: &[u8], at_us: u64) {
        self.n_posts += 1;
        let Some((event, keys)) = understood(body) else {
            self.faults.push(format!("no notification: {}", String::from_utf8_lossy(body)));
            return;
        };
        for key in keys {
            let times = self.alerts.entry(key.clone()).or_default();
            // A digest tells of both.
            if event != "resolve" {
                times.raise.get_or_insert(at_us);
            }
            if event != "raise" {
                times.resolve.get_or_insert(at_us);
            }
            if times.raise.is_none() {
                self.faults.push(format!("told of its end before its beginning: {key:?}"));
            }
        }
    }
}

/// Which event of which alerts.
fn understood(body: &[u8]) -> Option<(String, Vec<Key>)> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let alerts = body["alerts"].as_array()?;
    let key = |alert: &Value| {
        let label = |name: &str| alert["labels"][name].as_str().map(str::to_owned);
        Some(Key {
            service: label("service")?,
            instance: label("instance")?,
            rule: label("alertname")?,
            triggered_at: micros(alert["startsAt"].as_str()?).ok()?,
        })
    };
    let event = body["gopherwatch"]["event"].as_str()?;
    Some((event.to_owned(), alerts.iter().map(key).collect::<Option<_>>()?))
}

/// Takes the requests of one connection.
fn serve(stream: &TcpStream, told: &Mutex<Told>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let at_us = now_us();
        let mut stream = stream;
        // Noted before it is answered: what was answered is not told again.
        told.lock().unwrap().take(&body, at_us);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Sent, read_all};

    fn ledgers() -> Vec<Contents> {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), "web").unwrap();
        ledger.epoch(7).unwrap();
        for (n, cpu) in (1..).zip([95.0, 10.0]) {
            let values = [Some(cpu), None, None];
            ledger.sent(&[Sent { instance: 0, epoch: 7, sequence: n, time: n * 1_000_000, values }]).unwrap();
            ledger.given(1, n * 1_000 + 5).unwrap();
        }
        read_all(folder.path()).unwrap()
    }

    fn post(addr: SocketAddr, event: &str) {
        let labels = r#"{"service": "web-0", "instance": "i0", "alertname": "cpu-high"}"#;
        let alert = format!(r#"{{"labels": {labels}, "startsAt": "1970-01-01T00:00:00.001Z"}}"#);
        let body = format!(r#"{{"alerts": [{alert}], "gopherwatch": {{"event": "{event}"}}}}"#);
        ureq::post(format!("http://{addr}/")).send(&body[..]).unwrap();
    }

    #[test]
    fn what_nobody_was_told_is_missed() {
        let listener = Listener::start();
        let n_faults = || listener.told().faults(&ledgers()).len();
        assert_eq!(n_faults(), 2);
        post(listener.addr, "raise");
        assert_eq!(n_faults(), 1);
        post(listener.addr, "resolve");
        post(listener.addr, "resolve");
        listener.wait_until_told(&ledgers(), Duration::from_secs(60));
        assert_eq!((n_faults(), listener.told().n_posts), (0, 3));
        let [(given, took)] = listener.told().raises(&ledgers()).try_into().unwrap();
        assert_eq!(given, 1_005);
        assert!(took > 0);
    }

    #[test]
    fn an_end_that_is_told_before_its_beginning_is_a_fault() {
        let listener = Listener::start();
        post(listener.addr, "resolve");
        post(listener.addr, "raise");
        let faults = listener.told().faults(&ledgers());
        assert!(faults.len() == 1 && faults[0].contains("before its beginning"), "{faults:?}");
    }
}
