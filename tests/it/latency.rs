//! A lone violation is in the history at once; a storm of them reaches the database in large statements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    figures::say,
    mariadb::Mariadb,
    reports::{Says, cpu, now_nanos},
    server::Server,
    stores::{Store, on},
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload},
};

/// 5,000 reports a second that violate nothing, for as long as it lives.
struct Background {
    stop: Arc<AtomicBool>,
    sender: Option<thread::JoinHandle<u64>>,
}

impl Background {
    fn on(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = server.client();
        let stopped = stop.clone();
        let sender = thread::spawn(move || {
            let stream = client.open(&[]);
            let (began, mut n_sent) = (Instant::now(), 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                while (n_sent as f64) < began.elapsed().as_secs_f64() * 5_000.0 {
                    assert!(stream.push(cpu(&format!("quiet-{}", n_sent % 100), 10.0)));
                    n_sent += 1;
                }
                thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(stream.finish().unwrap().accepted, n_sent);
            n_sent
        });
        Self { stop, sender: Some(sender) }
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().unwrap().join().unwrap()
    }
}

#[test]
fn at_5000_reports_a_second_a_violation_is_in_the_history_within_100_ms() {
    let _alone = alone();
    for store in Store::BOTH {
        let server = store.setup().start();
        let background = Background::on(&server);
        eventually(SOON, "the background flows", || server.status()["balance"]["accepted"].as_u64() > Some(5_000));
        let client = server.client();
        let stream = client.open(&[]);
        let mut took: Vec<_> = (0..20)
            .map(|n| {
                let service = format!("loud-{n}");
                let began = Instant::now();
                assert!(stream.push(cpu(&service, 99.0)));
                found(SOON, "the row is there", || server.history(&format!("service={service}")).pop());
                began.elapsed()
            })
            .collect();
        took.sort();
        stream.finish().unwrap();
        let n_sent = background.stop();
        say(&format!("{store:?}: median {:?}, longest {:?}, beside {n_sent} reports", took[10], took[19]));
        assert!(took[10] <= Duration::from_millis(100), "{store:?}: {took:?}");
        server.settle();
    }
}

#[test]
fn each_hop_of_a_raise_is_timed_once_also_across_a_kill() {
    let mut server = Server::start();
    let two_hours_ago = now_nanos() - 7_200_000_000_000;
    server.client().send([cpu("late", 99.0).at(two_hours_ago), cpu("prompt", 99.0), cpu("prompt", 1.0)]).unwrap();
    server.settle();
    let count = |server: &Server, hop: &str| server.figure(&format!("gopherwatch_raise_{hop}_seconds_count"));
    for hop in ["received", "durable", "stored"] {
        assert_eq!(count(&server, hop), 2.0, "{hop}");
    }
    let text = server.get("/metrics").body;
    for line in ["{le=\"3600.0\"} 1", "{le=\"21600.0\"} 2"] {
        let line = format!("gopherwatch_raise_received_seconds_bucket{line}");
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let stored = server.figure("gopherwatch_raise_stored_seconds_sum");
    assert!(stored > 0.0 && stored < 2.0 * SOON.as_secs_f64(), "{stored} s from arrival to row");

    server.kill9();
    let server = server.start_again("");
    server.client().send([cpu("after", 99.0)]).unwrap();
    server.settle();
    for hop in ["received", "durable", "stored"] {
        assert_eq!(count(&server, hop), 1.0, "{hop}");
    }
}

#[test]
fn in_a_storm_rows_share_statements() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    let server = on(&mariadb).args("--record every").start();
    let general_log = mariadb.general_log();
    let storm = Workload { every: true, ..Workload::new(20_000, 200, 8, Breach::Always) };
    storm.send_all(&server);
    storm.assert_stored(&server);
    let n_inserts = general_log.n_inserts();
    say(&format!("20,000 rows in {n_inserts} statements"));
    assert!((1..=20_000 / 50).contains(&n_inserts), "{n_inserts} statements");
}
