//! A breach is one episode and one row, from raise to resolve, on both stores.

use crate::support::{
    client::balanced,
    reports::{Says, cpu, now_nanos, report},
    server::Setup,
    stores::Store,
    wait::{SOON, eventually},
};

/// The `n`-th second of a minute that has just passed.
fn second(minute: u64, n: u64) -> u64 {
    minute + n * 1_000_000_000
}

fn last_minute() -> u64 {
    now_nanos() - 50_000_000_000
}

#[test]
fn a_breach_is_one_row_with_its_true_times_however_long_it_lasts() {
    for store in Store::BOTH {
        let server = store.setup().start();
        let minute = last_minute();
        let values = [20.0, 95.5, 97.0, 99.0, 30.0, 91.0];
        let reports =
            (0..).zip(values).map(|(n, value)| cpu("web", value).of("a").numbered(n + 1).at(second(minute, n)));
        let summary = balanced(server.client().send_epoch(7, reports).unwrap());
        assert_eq!((summary.accepted, summary.alerts_raised, summary.last_sequence), (6, 2, 6), "{store:?}");

        eventually(SOON, "the first episode is resolved", || server.history_of(2, "")[1].resolved_at.is_some());
        let rows = server.history("");
        let [second_row, first] = &rows[..] else { panic!("{rows:#?}") };
        let micros = |n| i64::try_from(second(minute, n) / 1_000).unwrap();
        assert_eq!((first.service.as_str(), first.instance.as_str(), first.rule.as_str()), ("web", "a", "cpu-high"));
        assert_eq!((first.metric.as_str(), first.value), ("cpu_percent", 95.5));
        assert_eq!((first.triggered_at, first.resolved_at), (micros(1), Some(micros(4))));
        assert_eq!(first.reason.as_deref(), Some("cleared"));
        assert_eq!((second_row.triggered_at, second_row.resolved_at), (micros(5), None));
        assert!(first.received_at <= first.stored_at, "{first:?}");
        assert_eq!(server.history("state=firing").len(), 1);

        let active = server.get("/alerts/active").json();
        assert_eq!(active["alerts"].as_array().map(Vec::len), Some(1), "{active}");
        assert_eq!(server.status_of("web"), "critical");
        server.settle();
    }
}

#[test]
fn with_record_every_each_violating_report_has_a_row() {
    for store in Store::BOTH {
        let server = store.setup().args("--record every").start();
        let minute = last_minute();
        let values = [95.0, 96.0, 97.0, 10.0];
        let reports = (0..).zip(values).map(|(n, value)| cpu("web", value).numbered(n + 1).at(second(minute, n)));
        let summary = server.client().send_epoch(7, reports).unwrap();
        assert_eq!(summary.alerts_raised, 1, "further rows are readings of the same alert");
        eventually(SOON, "all rows are closed", || {
            server.history_of(3, "").iter().all(|row| row.resolved_at.is_some())
        });
        let mut rows = server.history("");
        rows.reverse();
        let told: Vec<_> = rows.iter().map(|row| (row.value, row.reason.as_deref().unwrap())).collect();
        assert_eq!(told, [(95.0, "cleared"), (96.0, "recorded"), (97.0, "recorded")], "{store:?}");
        for row in &rows[1..] {
            assert_eq!(row.resolved_at, Some(row.triggered_at));
        }
        server.settle();
    }
}

#[test]
fn rules_of_a_file_replace_the_built_in_ones() {
    let rules = r#"
        [defaults]
        severity = "warning"
        [[rules]]
        name = "queue-long"
        when = "`queue/depth` >= 100"
        services = ["pay*"]
        exclude = ["pay-canary"]
        labels = { team = "payments" }
        summary = "{service} has {value} waiting"
    "#;
    let server = Setup::new().rules(rules).start();
    let reports = [
        report("pay-web", "queue/depth", 100.0),
        report("pay-web", "queue/depth", 99.0),
        report("pay-canary", "queue/depth", 500.0),
        report("other", "queue/depth", 500.0),
        cpu("pay-web", 100.0),
    ];
    let summary = server.client().send(reports).unwrap();
    assert_eq!((summary.accepted, summary.alerts_raised), (5, 1));
    let row = &server.history_of(1, "")[0];
    assert_eq!(
        (row.service.as_str(), row.rule.as_str(), row.metric.as_str()),
        ("pay-web", "queue-long", "queue/depth")
    );
    eventually(SOON, "it is resolved", || server.history("")[0].resolved_at.is_some());
    let raised = &server.logged(1, "alert raised")[0];
    assert_eq!(
        (raised["level"].as_str(), raised["summary"].as_str()),
        (Some("WARNING"), Some("pay-web has 100 waiting"))
    );
    assert_eq!(server.settle()["events"], 2);
}

#[test]
fn a_report_without_the_metric_changes_nothing() {
    let server = Setup::new().start();
    let client = server.client();
    client.send([cpu("web", 99.0)]).unwrap();
    client.send([report("web", "memory_percent", 10.0)]).unwrap();
    assert_eq!(server.status_of("web"), "critical");
    assert_eq!(server.history_of(1, "")[0].resolved_at, None);
    let metrics = server.service("web").unwrap()["instances"][0]["metrics"].clone();
    assert_eq!(metrics, serde_json::json!({"cpu_percent": 99.0, "memory_percent": 10.0}));
}

#[test]
fn a_rule_that_is_gone_at_the_next_start_resolves_its_alerts() {
    let setup = Setup::new();
    let mut server = setup.clone().start();
    server.client().send([cpu("web", 99.0), report("web", "memory_percent", 99.0)]).unwrap();
    server.history_of(2, "state=firing");
    assert_eq!(server.stop(), 0);
    let setup = setup.rules("[[rules]]\nname = \"memory-high\"\nwhen = \"memory_percent > 80\"\n");
    let server = setup.start();
    eventually(SOON, "cpu-high is resolved", || {
        server.history("rule=cpu-high")[0].reason.as_deref() == Some("rule_removed")
    });
    assert_eq!(server.history("rule=memory-high")[0].resolved_at, None);
    assert_eq!(server.status_of("web"), "critical");
}
