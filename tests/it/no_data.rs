//! No evidence is no verdict: silence raises once and resolves nothing, and a server that could not hear blames nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::{Metric, MetricReport};

use crate::{
    agent::Agent,
    support::{
        client::OpenStream,
        figures,
        reports::{Says, cpu},
        server::{Server, Setup},
        wait::{SOON, alone, eventually, found},
    },
};

/// How long the server is deaf; 60 s and more in a long run (`GOPHERWATCH_IT_SECONDS`).
fn deaf() -> Duration {
    Duration::from_secs(figures::seconds(12))
}

/// Five rules that one report can break, and silence.
const FIVE: &str = r#"
    [[rules]]
    name = "one"
    when = "a > 1"
    [[rules]]
    name = "two"
    when = "b > 1"
    [[rules]]
    name = "three"
    when = "c > 1"
    [[rules]]
    name = "four"
    when = "avg(a, 1m) > 1 and b + c > 2"
    clear = "a < 1"
    [[rules]]
    name = "five"
    when = "a > 1"
    for = "2s"
    [[rules]]
    name = "silent"
    when = "absent()"
    severity = "warning"
"#;

fn readings(service: &str, value: f64) -> MetricReport {
    let metrics = ["a", "b", "c"].map(|name| Metric { name: name.to_owned(), value });
    MetricReport { service_name: service.to_owned(), metrics: metrics.into(), ..MetricReport::default() }
}

#[test]
fn silence_resolves_nothing_and_one_report_makes_no_habit() {
    let server = Setup::new().rules(FIVE).start();
    let client = server.client();
    client.send([readings("once", 9.0), cpu("twice", 5.0), cpu("twice", 5.0)]).unwrap();
    let began = Instant::now();
    let mut leaves = Agent::start(&server, "--service leaves");

    // Fifteen seconds of breaches, then the agent is gone in the middle of its stream.
    let stream = client.open(&[]);
    found(SOON, "fifteen seconds of reports", || {
        assert!(stream.push(readings("five", 9.0)));
        thread::sleep(Duration::from_millis(500));
        (began.elapsed() > Duration::from_secs(15)).then_some(())
    });
    server.history_of(5, "service=five");
    stream.abort();
    leaves.stop();
    let died = Instant::now();
    let silent =
        found(Duration::from_secs(60), "its silence is an alert", || server.history("service=five&rule=silent").pop());
    assert!(died.elapsed() > Duration::from_secs(29), "after {:?}", died.elapsed());
    assert_eq!((silent.metric.as_str(), silent.resolved_at), ("absent", None));
    assert_eq!(server.history("service=five&state=resolved"), [], "no evidence, no resolve");

    // One report, or two, and 60 s of silence; and one that said goodbye.
    eventually(Duration::from_secs(60), "a minute", || began.elapsed() > Duration::from_secs(61));
    assert_eq!(server.history("rule=silent").len(), 1);
    assert_eq!(server.history("service=five&state=firing").len(), 6);
    let one_reports_alerts = server.history("service=once");
    assert!(one_reports_alerts.iter().all(|row| row.resolved_at.is_none() && row.metric != "absent"));

    client.send([readings("five", 0.0)]).unwrap();
    let rows = found(SOON, "all resolve", || {
        let rows = server.history("service=five");
        rows.iter().all(|row| row.resolved_at.is_some()).then_some(rows)
    });
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| row.reason.as_deref() == Some("cleared")), "{rows:#?}");
    server.settle();
}

/// A rule that has little patience, so that a short deafness would be enough for it.
const IMPATIENT: &str = r#"
    [[rules]]
    name = "gone"
    when = "absent(4s)"
"#;

/// Two hundred instances that report each second, over twenty streams.
struct Fleet {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let streams = (0..20).map(|n| (n, server.client().open(&[])));
        let threads = streams.map(|(n, stream)| {
            let stop = stop.clone();
            thread::spawn(move || report_each_second(n, stream, &stop))
        });
        Self { threads: threads.collect(), stop }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn report_each_second(n: usize, stream: OpenStream, stop: &AtomicBool) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for instance in 0..10 {
            assert!(stream.push(cpu("fleet", 5.0).of(&format!("{n}-{instance}"))), "the stream goes on");
        }
        due += Duration::from_secs(1);
        // What was held up comes at once, as from an agent that catches up.
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    stream.finish().unwrap();
}

fn armed(server: &Server) -> bool {
    let explained = server.get("/explain?service=fleet&instance=7-7&rule=gone");
    explained.code == 200 && explained.json()["reason"] == "heard"
}

#[test]
fn a_server_that_was_stopped_does_not_take_its_own_silence_for_the_agents() {
    let server = Setup::new().rules(IMPATIENT).start();
    let fleet = Fleet::start(&server);
    eventually(SOON, "they would be missed", || armed(&server));
    server.signal("STOP");
    thread::sleep(deaf());
    server.signal("CONT");
    let resumed = Instant::now();
    eventually(SOON, "two silences have had their time", || resumed.elapsed() > Duration::from_secs(10));
    assert_eq!(server.history(""), []);
    fleet.stop();
    // What it is for: they are missed once they really stop.
    eventually(SOON, "all are missed", || server.history("").len() == 200);
}

#[test]
fn a_server_that_is_flooded_does_not_take_its_own_silence_for_the_agents() {
    let _alone = alone();
    let server = Setup::new().rules(IMPATIENT).args("--workers 1 --queue-reports 512").start();
    let fleet = Fleet::start(&server);
    eventually(SOON, "they would be missed", || armed(&server));
    let stop = Arc::new(AtomicBool::new(false));
    let flood = (0..4).map(|n| {
        let stop = stop.clone();
        let service = format!("flood-{n}");
        let reports = std::iter::from_fn(move || (!stop.load(Ordering::Relaxed)).then(|| cpu(&service, 5.0)));
        let client = server.client();
        (client.stream(&[], reports), client)
    });
    let flood: Vec<_> = flood.collect();
    let began = Instant::now();
    eventually(deaf() + SOON, "the flood has lasted", || began.elapsed() > deaf());
    assert!(server.figure("gopherwatch_dispatch_wait_seconds_count") > 0.0, "it was held back");
    assert_eq!(server.history("service=fleet"), []);
    stop.store(true, Ordering::Relaxed);
    for (answer, _client) in flood {
        // Refused or receipted: either ends it.
        let _ = answer.wait();
    }
    fleet.stop();
    assert_eq!(server.history("service=fleet"), []);
}
