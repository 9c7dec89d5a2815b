//! 64 streams, 1,000 services, 1 % violating: every account balances and every episode is one row, on both stores and
//! with one worker and two.

use std::{env, time::Instant};

use crate::support::{
    client::balanced,
    figures::say,
    reports::{Says, cpu},
    server::Server,
    stores::Store,
    wait::alone,
    workload::{Breach, Workload},
};

/// Reports of one run; 1,000,000 for the whole claim.
fn n_reports() -> u64 {
    env::var("GOPHERWATCH_IT_REPORTS").map_or(200_000, |n| n.parse().expect("a number of reports"))
}

fn work() -> Workload {
    Workload::new(n_reports(), 1_000, 64, Breach::OneIn(100))
}

fn run(server: &Server, work: Workload) {
    let began = Instant::now();
    work.send_all(server);
    let receipted = began.elapsed().as_secs_f64();
    work.assert_stored(server);
    let status = server.status();
    assert_eq!(status["totals"]["services"], 1_000);
    assert_eq!(status["balance"]["accepted"], work.n_reports());
    let firing = work.rows().iter().filter(|(_, _, resolved_at, _)| resolved_at.is_none()).count();
    assert_eq!(status["totals"]["firing"], firing);
    assert_eq!(server.figure("gopherwatch_alerts_firing"), firing as f64);
    say(&format!(
        "{} reports receipted in {receipted:.2} s ({:.0}/s), {} rows, {:.2} s in all, {} MiB",
        work.n_reports(),
        work.n_reports() as f64 / receipted,
        work.rows().len(),
        began.elapsed().as_secs_f64(),
        server.peak_mib()
    ));
}

#[test]
fn every_episode_of_64_streams_and_1000_services_is_one_row() {
    let _alone = alone();
    let mut n_parallel = 0.0;
    for store in Store::BOTH {
        for workers in [1, 2] {
            say(&format!("{store:?}, {workers} workers"));
            let server = store.setup().args(&format!("--workers {workers}")).start();
            run(&server, work());
            n_parallel += server.figure("gopherwatch_evaluate_parallel_turns_total");
        }
    }
    say(&format!("{n_parallel} parallel turns"));
    assert!(n_parallel > 0.0, "no turn was shared out over the rayon pool");
}

#[test]
fn with_record_every_each_violating_report_of_them_is_one_row() {
    let _alone = alone();
    for store in Store::BOTH {
        say(&format!("{store:?}, record every"));
        let server = store.setup().args("--record every").start();
        run(&server, Workload { every: true, ..work() });
    }
}

#[test]
fn started_again_with_100_000_alerts_firing_it_knows_them_all() {
    const N: usize = 100_000;
    let _alone = alone();
    let mut server = Server::start();
    let client = server.client();
    let reports = |from: usize| (from..from + 10_000).map(|n| cpu(&format!("service-{n}"), 95.0).numbered(1));
    let streams: Vec<_> =
        (0..N).step_by(10_000).map(|from| client.stream(&[("agent-epoch", "7")], reports(from))).collect();
    let raised: u64 = streams.into_iter().map(|stream| balanced(stream.wait().unwrap()).alerts_raised).sum();
    assert_eq!(raised, N as u64);
    server.kill9();
    let began = Instant::now();
    let server = server.start_again("");
    let took = began.elapsed();
    assert_eq!(server.figure("gopherwatch_alerts_firing"), N as f64);
    let again = server.client().send_epoch(7, reports(0)).unwrap();
    assert_eq!((again.duplicates, again.alerts_raised), (10_000, 0));
    let cleared =
        server.client().send_epoch(7, (0..10).map(|n| cpu(&format!("service-{n}"), 5.0).numbered(2))).unwrap();
    assert_eq!(cleared.accepted, 10);
    let balance = server.settle();
    assert_eq!(balance["events"], N + 10, "none of them was raised twice");
    assert_eq!(server.history("state=resolved").len(), 10);
    say(&format!("ready with {N} alerts firing after {took:?}, {} MiB", server.peak_mib()));
    assert!(server.peak_mib() < 1_024, "{} MiB", server.peak_mib());
}
