//! A graceful stop: begun at once, done in time whatever the peers do, no database write begun in it, and nothing lost
//! that was receipted (CONTRACT §7.6).

use std::{
    io::Write,
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::Summary;
use mysql::prelude::Queryable;
use tonic::Code;

use crate::support::{
    client::balanced,
    history::micros,
    mariadb::Mariadb,
    reports::{Says, cpu, now_nanos},
    server::{Server, Setup},
    stores::{Store, on},
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload, assert_rows},
};

/// Stops the server; asserts that the stop began at once and ended clean, and in time. The answer: when it began, in
/// microseconds since 1970.
fn stops(server: &mut Server, within: Duration) -> i64 {
    let signalled = i64::try_from(now_nanos() / 1_000).unwrap();
    let signalled_at = Instant::now();
    server.signal("TERM");
    let code = server.exit_code(within);
    let took = signalled_at.elapsed();
    assert_eq!(code, 0, "after {took:?}");
    assert!(took < within, "{took:?}");
    let began = micros(&server.log().with_message("shutdown began")[0]["time"]).unwrap();
    assert!((0..=100_000).contains(&(began - signalled)), "the stop began {} µs after the signal", began - signalled);
    assert_eq!(server.log().with_message("shutdown ended")[0]["outcome"], "Clean");
    began
}

#[test]
fn an_idle_server_stops_at_once() {
    let _alone = alone();
    for store in Store::BOTH {
        let mut server = store.setup().start();
        server.history_of(0, "");
        stops(&mut server, Duration::from_secs(3));
    }
}

#[test]
fn under_load_streams_get_an_early_receipt_and_nothing_receipted_is_lost() {
    let _alone = alone();
    for store in Store::BOTH {
        let setup = store.setup();
        let mut server = setup.start();
        // Far more than can be sent before the signal.
        let work = Workload::new(2_000_000, 64, 16, Breach::OneIn(50));
        let first = thread::scope(|scope| {
            let sending = scope.spawn(|| work.send(&server, 7));
            // Every stream has been read from: one that only opens in the stop is refused.
            eventually(SOON, "reports of all services flow", || {
                server.figure("gopherwatch_reports_accepted_total") > 20_000.0
                    && server.status()["totals"]["services"] == 64
            });
            server.signal("TERM");
            sending.join().unwrap()
        });
        assert_eq!(server.exit_code(Duration::from_secs(10)), 0);
        let receipts: Vec<Summary> = first.into_iter().map(|answer| balanced(answer.unwrap())).collect();
        assert!(receipts.iter().all(|receipt| receipt.received < work.n_reports() / 16), "the stop came too late");

        // What the receipts count is a prefix of what was sent, and the next start knows it: only the rest is news.
        let server = setup.start();
        let clients: Vec<_> = receipts.iter().map(|_| server.client()).collect();
        let n_more = 200;
        let again: Vec<_> = receipts
            .iter()
            .zip(&clients)
            .enumerate()
            .map(|(n, (receipt, client))| {
                let n_reports = usize::try_from(receipt.received + n_more).unwrap();
                client.stream(&[("agent-epoch", "7")], work.reports(n).take(n_reports))
            })
            .collect();
        for (receipt, again) in receipts.iter().zip(again) {
            let again = balanced(again.wait().unwrap());
            assert_eq!((again.duplicates, again.accepted), (receipt.received, n_more), "{store:?}");
        }
        // Each stream's services have come equally far, as whole rounds of them and a rest.
        let sent: Vec<_> = receipts.iter().map(|receipt| receipt.received + n_more).collect();
        server.settle();
        assert_rows(&server.history(""), work.rows_of_prefixes(&sent));
    }
}

#[test]
fn no_write_to_the_database_begins_in_a_stop() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    let setup = on(&mariadb).args("--record every");
    let mut server = setup.start();
    let general_log = mariadb.general_log();
    let work = Workload { every: true, ..Workload::new(30_000, 64, 16, Breach::Always) };
    let receipts = thread::scope(|scope| {
        let sending = scope.spawn(|| work.send(&server, 7));
        eventually(SOON, "rows are written", || server.figure("gopherwatch_store_rows_total") > 2_000.0);
        let balance = server.status()["balance"].clone();
        assert!(balance["pending"].as_u64() > Some(0), "a backlog makes the test sharp: {balance}");
        server.signal("TERM");
        sending.join().unwrap()
    });
    assert_eq!(server.exit_code(Duration::from_secs(10)), 0);
    let began = micros(&server.log().with_message("shutdown began")[0]["time"]).unwrap();
    // The time of a row is that of the statement that inserted it, by the same clock.
    let mut conn = mariadb.conn();
    conn.query_drop("SET time_zone = '+00:00'").unwrap();
    let sql = format!(
        "SELECT COUNT(DISTINCT stored_at) FROM {}.alerts WHERE stored_at > '{}'",
        server.database(),
        jiff::Timestamp::from_microsecond(began).unwrap().strftime("%Y-%m-%d %H:%M:%S.%6f")
    );
    let n_statements: u64 = conn.query_first(sql).unwrap().unwrap();
    assert!(n_statements <= 1, "{n_statements} statements began after the stop");
    let n_inserts = general_log.n_inserts();

    // The journal kept the rest, and the next start delivers it.
    for receipt in receipts.into_iter().flatten() {
        balanced(receipt);
    }
    let server = setup.start();
    for answer in work.send(&server, 7) {
        balanced(answer.unwrap());
    }
    work.assert_stored(&server);
    assert!(general_log.n_inserts() > n_inserts, "something was left to deliver");
}

#[test]
fn a_stalled_database_does_not_hold_up_the_stop_and_its_rows_come_after_it() {
    let _alone = alone();
    let mariadb = Arc::new(Mariadb::start());
    let setup = on(&mariadb);
    let mut server = setup.start();
    server.history_of(0, "");
    let client = server.client();
    client.send_epoch(7, [cpu("before", 99.0).numbered(1)]).unwrap();
    server.history_of(1, "");
    mariadb.pause();
    let receipt = client.send_epoch(7, (1..=50).map(|n| cpu(&format!("s{n}"), 99.0).numbered(1))).unwrap();
    assert_eq!(receipt.alerts_raised, 50, "alerting and receipts go on");
    stops(&mut server, Duration::from_secs(8));
    mariadb.resume();
    let server = setup.start();
    assert_eq!(server.history_of(51, "state=firing").len(), 51);
    server.settle();
}

#[test]
fn a_stream_open_at_the_stop_gets_ok_and_its_summary() {
    let _alone = alone();
    let mut server = Server::start();
    let client = server.client();
    let streams: Vec<_> = (0..5)
        .map(|n| {
            let stream = client.open(&[("agent-epoch", "7")]);
            assert!(stream.push(cpu(&format!("s{n}"), 99.0).numbered(1)));
            assert!(stream.push(cpu(&format!("s{n}"), 98.0).numbered(2)));
            stream
        })
        .collect();
    let silent = client.open(&[]);
    eventually(SOON, "they are taken", || server.figure("gopherwatch_reports_accepted_total") == 10.0);
    assert!(streams.iter().all(|stream| !stream.has_answer()));
    stops(&mut server, Duration::from_secs(3));
    for stream in streams {
        let summary = balanced(stream.answer().unwrap());
        assert_eq!((summary.accepted, summary.alerts_raised, summary.last_sequence), (2, 1, 2));
    }
    // A stream that has sent nothing may have been answered, or never have begun for the server.
    if let Ok(summary) = silent.answer() {
        assert_eq!(summary, Summary::default());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start();
    // The stop waits for alert lines that nobody reads.
    server.log().pause();
    let receipt = server.client().send((0..2_000).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    assert_eq!(receipt.alerts_raised, 2_000);
    server.signal("TERM");
    server.refuses_connections();
    let second = Instant::now();
    server.signal("TERM");
    assert_eq!(server.exit_code(Duration::from_secs(3)), 3);
    assert!(second.elapsed() < Duration::from_secs(1), "{:?}", second.elapsed());
    let server = server.start_again("");
    server.history_of(2_000, "state=firing");
}

#[test]
fn a_stop_that_cannot_finish_ends_in_time_and_says_so() {
    let mut server = Setup::new().args("--shutdown-timeout 1s").start();
    server.log().pause();
    server.client().send((0..2_000).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    let began = Instant::now();
    server.signal("INT");
    let code = server.exit_code_unread(Duration::from_secs(6));
    assert_eq!(code, 3, "the alert lines were not all written");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[test]
fn hostile_peers_do_not_hold_up_the_stop() {
    let _alone = alone();
    let mut server = Server::start();
    let idle: Vec<_> =
        (0..500).flat_map(|_| [server.grpc(), server.http()]).map(|addr| TcpStream::connect(addr).unwrap()).collect();
    let half_sent: Vec<_> = (0..20)
        .map(|_| {
            let mut tcp = TcpStream::connect(server.http()).unwrap();
            tcp.write_all(b"GET /status HTTP/1.1\r\nHost: loc").unwrap();
            tcp
        })
        .collect();
    let half_preface: Vec<_> = (0..20)
        .map(|_| {
            let mut tcp = TcpStream::connect(server.grpc()).unwrap();
            tcp.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
            tcp
        })
        .collect();
    // The preface, and never a word more.
    let mut opened = TcpStream::connect(server.grpc()).unwrap();
    opened.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let client = server.client();
    let stalled: Vec<_> = (0..50).map(|_| client.open(&[])).collect();
    assert!(stalled.iter().all(|stream| stream.push(cpu("stalled", 1.0))));
    let endless = client.stream(&[], (1..).map(|n| cpu("endless", 1.0).numbered(n)));
    eventually(SOON, "the endless stream flows", || server.figure("gopherwatch_reports_accepted_total") > 10_000.0);
    stops(&mut server, Duration::from_secs(4));
    assert!(balanced(endless.wait().unwrap()).accepted > 10_000);
    for stream in stalled {
        assert_eq!(balanced(stream.answer().unwrap()).accepted, 1);
    }
    drop((idle, half_sent, half_preface, opened));
}

#[test]
fn in_a_stop_new_streams_are_refused_as_unavailable() {
    let mut server = Server::start();
    let client = server.client();
    server.log().pause();
    client.send((0..2_000).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    server.signal("TERM");
    server.refuses_connections();
    let status = found(SOON, "the client has noticed that its connection was closed", || {
        Some(client.send([cpu("late", 1.0)]).unwrap_err()).filter(|status| status.code() != Code::Cancelled)
    });
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let ready = server.get("/readyz");
    assert_eq!((ready.code, ready.json()["status"].clone()), (503, "not_ready".into()));
    assert_eq!(server.status_of("s0"), "critical", "REST answers to the last");
    server.log().resume();
    assert_eq!(server.exit_code(Duration::from_secs(12)), 0);
}
