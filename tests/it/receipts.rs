//! A receipt is kept across `kill -9`, and what is sent again changes nothing (CONTRACT §2, §7.1).

use std::time::Duration;

use crate::support::{
    client::balanced,
    reports::{Says, cpu, now_nanos},
    server::{Server, Setup},
    stores::Store,
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload},
};

#[test]
fn reports_sent_again_are_duplicates_and_raise_nothing() {
    let server = Server::start();
    let client = server.client();
    let reports = || (1..=10).map(|n| cpu("web", if n % 2 == 0 { 99.0 } else { 1.0 }).numbered(n));
    let first = balanced(client.send_epoch(7, reports()).unwrap());
    assert_eq!((first.accepted, first.alerts_raised, first.last_sequence), (10, 5, 10));
    let again = balanced(client.send_epoch(7, reports()).unwrap());
    assert_eq!((again.accepted, again.duplicates, again.alerts_raised, again.last_sequence), (0, 10, 0, 10));
    let overlapping = (8..=12).map(|n| cpu("web", 1.0).numbered(n));
    let overlapping = balanced(client.send_epoch(7, overlapping).unwrap());
    assert_eq!((overlapping.accepted, overlapping.duplicates, overlapping.last_sequence), (2, 3, 12));
    assert_eq!(server.history_of(5, "").len(), 5);
    server.settle();
}

#[test]
fn numbers_may_have_gaps_and_each_instance_has_its_own() {
    let server = Server::start();
    let reports = [5, 9, 7, 100].map(|n| cpu("web", 1.0).of("a").numbered(n));
    let others = [1, 2].map(|n| cpu("web", 1.0).of("b").numbered(n));
    let summary = balanced(server.client().send_epoch(7, reports.into_iter().chain(others)).unwrap());
    assert_eq!((summary.accepted, summary.duplicates, summary.last_sequence), (5, 1, 2));
}

#[test]
fn an_epoch_has_its_own_numbering_and_the_older_one_is_remembered() {
    let mut server = Server::start();
    let reports = || (1..=5).map(|n| cpu("web", 1.0).numbered(n));
    assert_eq!(server.client().send_epoch(7, reports()).unwrap().accepted, 5);
    assert_eq!(server.client().send_epoch(8, reports()).unwrap().accepted, 5);
    server.kill9();
    let server = server.start_again("");
    for epoch in [7, 8] {
        assert_eq!(server.client().send_epoch(epoch, reports()).unwrap().duplicates, 5, "epoch {epoch}");
    }
    assert_eq!(server.client().send_epoch(9, reports()).unwrap().accepted, 5);
}

/// A cloned host, or two replicas under the default name.
#[test]
fn two_agents_under_one_name_lose_no_report_and_are_told_of() {
    let server = Server::start();
    let (client, other) = (server.client(), server.client());
    for n in 1..=12 {
        for (client, epoch) in [(&client, 7), (&other, 8)] {
            assert_eq!(client.send_epoch(epoch, [cpu("web", 1.0).numbered(n)]).unwrap().accepted, 1);
        }
    }
    assert_eq!(server.figure("gopherwatch_numbering_returns_total"), 22.0);
    let warned =
        server.logged(1, "two agents report as the same instance: give each a name of its own with --instance");
    assert_eq!((warned[0]["level"].as_str(), warned[0]["service"].as_str()), (Some("WARNING"), Some("web")));
}

#[test]
fn reports_without_a_number_are_never_duplicates() {
    let server = Server::start();
    let at = now_nanos();
    for _ in 0..3 {
        let summary = balanced(server.client().send([cpu("web", 99.0).at(at), cpu("web", 1.0).at(at)]).unwrap());
        assert_eq!((summary.accepted, summary.alerts_raised, summary.last_sequence), (2, 1, 0));
    }
    let mut ids: Vec<_> = server.history_of(3, "").into_iter().map(|row| row.alert_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "an alert each, though the reports are the same");
}

/// One of the plain clients that the five lines of the service make: no number, and a clock that stands still.
#[test]
fn a_stream_without_numbers_at_one_time_is_a_row_for_each_breach() {
    for store in Store::BOTH {
        let server = store.setup().start();
        let at = now_nanos();
        let summary = server.client().send([95.0, 10.0, 95.0, 10.0].map(|value| cpu("web", value).at(at))).unwrap();
        assert_eq!((summary.accepted, summary.alerts_raised), (4, 2), "{store:?}");
        eventually(SOON, "both are resolved", || server.history_of(2, "").iter().all(|row| row.resolved_at.is_some()));
        let rows = server.history("");
        assert!(rows.iter().all(|row| row.triggered_at == rows[0].triggered_at && row.value == 95.0), "{rows:#?}");
        server.settle();
        assert_eq!(server.history("").len(), 2, "{store:?}");
    }
}

#[test]
fn without_an_epoch_a_later_reading_numbered_1_begins_anew_with_a_warning() {
    let server = Server::start();
    let at = now_nanos() - 1_000_000_000;
    let reports = |at: u64| (1..=3).map(move |n| cpu("web", 1.0).numbered(n).at(at + n));
    assert_eq!(server.client().send(reports(at)).unwrap().accepted, 3);
    assert_eq!(server.client().send(reports(at)).unwrap().duplicates, 3, "the same readings again");
    assert_eq!(server.client().send(reports(at + 500)).unwrap().accepted, 3, "a sender that started again");
    let warned = server.logged(1, "reports without an agent-epoch are numbered from 1 again");
    assert_eq!(warned[0]["service"], "web");
}

#[test]
fn after_kill_9_a_receipt_holds_and_the_alert_keeps_its_id() {
    for store in Store::BOTH {
        let mut server = store.setup().start();
        let begin = now_nanos() - 10_000_000_000;
        let reports =
            || (1..=20).map(|n| cpu("web", if n < 15 { 1.0 } else { 99.0 }).numbered(n).at(begin + n * 1_000_000));
        let receipt = balanced(server.client().send_epoch(7, reports()).unwrap());
        assert_eq!((receipt.accepted, receipt.alerts_raised), (20, 1));
        let active = |server: &Server| server.get("/alerts/active").json()["alerts"].clone();
        let before = active(&server);
        server.kill9();

        let server = server.start_again("");
        assert_eq!(active(&server)[0]["alert_id"], before[0]["alert_id"], "{store:?}");
        assert_eq!(active(&server)[0]["triggered_at"], before[0]["triggered_at"]);
        let again = balanced(server.client().send_epoch(7, reports()).unwrap());
        assert_eq!((again.duplicates, again.alerts_raised, again.last_sequence), (20, 0, 20), "{store:?}");
        let rows = server.history_of(1, "");
        assert_eq!(rows[0].alert_id, before[0]["alert_id"].as_str().unwrap());
        assert_eq!(server.status_of("web"), "critical");

        let clear = cpu("web", 1.0).numbered(21).at(begin + 21_000_000);
        assert_eq!(server.client().send_epoch(7, [clear]).unwrap().accepted, 1);
        eventually(SOON, "it resolves", || server.history_of(1, "")[0].resolved_at.is_some());
        server.settle();
    }
}

#[test]
fn after_kill_9_in_mid_stream_sending_again_gives_each_episode_one_row() {
    let _alone = alone();
    for store in Store::BOTH {
        let work = Workload::new(30_000, 40, 4, Breach::OneIn(5));
        let mut server = store.setup().start();
        // Killed at three points of the same work, which is sent anew each time, as agents do.
        for n_taken in [2_000, 9_000, 18_000] {
            let clients: Vec<_> = (0..work.n_streams).map(|_| server.client()).collect();
            let streams: Vec<_> =
                clients.iter().enumerate().map(|(n, c)| c.stream(&[("agent-epoch", "7")], work.reports(n))).collect();
            let taken = || {
                server.figure("gopherwatch_reports_accepted_total")
                    + server.figure("gopherwatch_reports_duplicate_total")
            };
            found(SOON, "reports are taken", || (taken() >= f64::from(n_taken)).then_some(()));
            server.kill9();
            for stream in streams {
                // A receipt that came before the kill is a good one.
                let _ = stream.wait();
            }
            server = server.start_again("");
        }
        let summaries: Vec<_> = work.send(&server, 7).into_iter().map(|answer| balanced(answer.unwrap())).collect();
        let taken: u64 = summaries.iter().map(|summary| summary.accepted + summary.duplicates).sum();
        assert_eq!(taken, work.n_reports(), "{store:?}: {summaries:?}");
        work.assert_stored(&server);
    }
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let setup = Setup::new();
    let server = setup.start();
    let (code, said) = setup.run();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("data directory"), "{said}");
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
}

#[test]
fn a_broken_off_stream_leaves_its_reports_to_be_sent_again() {
    let server = Server::start();
    let client = server.client();
    let open = client.open(&[("agent-epoch", "7")]);
    for n in 1..=5 {
        assert!(open.push(cpu("web", 99.0).numbered(n)));
    }
    eventually(SOON, "they are evaluated", || server.figure("gopherwatch_reports_accepted_total") == 5.0);
    // Dropped without an end: the stream is reset.
    open.abort();
    eventually(Duration::from_secs(5), "the stream is gone", || server.figure("gopherwatch_streams_open") == 0.0);
    let again = client.send_epoch(7, (1..=6).map(|n| cpu("web", 99.0).numbered(n))).unwrap();
    assert_eq!((again.duplicates, again.accepted, again.alerts_raised), (5, 1, 0));
    server.history_of(1, "");
    server.settle();
}
