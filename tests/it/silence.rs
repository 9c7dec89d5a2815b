//! Silence is an alert, unless it was announced; and it is the instance's own, not the server's.

use std::time::{Duration, Instant};

use crate::support::{
    reports::{Says, cpu},
    server::Setup,
    wait::{SOON, eventually, found},
};

const RULES: &str = r#"
    [[rules]]
    name = "gone"
    when = "absent(2s)"
    severity = "warning"
"#;

#[test]
fn an_instance_that_dies_is_missed_and_one_that_leaves_is_not() {
    let setup = Setup::new().rules(RULES).args("--stale-after 2s");
    let mut server = setup.start();
    let client = server.client();
    // Armed after three reports over ten seconds; `young` has no habit yet when it falls silent.
    let began = Instant::now();
    let fell_silent = found(SOON, "eleven seconds of reports", || {
        let sent_at = Instant::now();
        let reports = ["dies", "leaves", "outage"].map(|service| cpu(service, 10.0));
        assert_eq!(client.send(reports).unwrap().accepted, 3);
        (began.elapsed() > Duration::from_secs(11)).then_some(sent_at)
    });
    client.send([cpu("leaves", 10.0).leaving(), cpu("young", 10.0), cpu("young", 10.0)]).unwrap();
    assert_eq!(server.status_of("leaves"), "left");
    assert_eq!(server.status_of("dies"), "ok");

    let row = found(Duration::from_secs(10), "the silence is an alert", || server.history("service=dies").pop());
    assert!(fell_silent.elapsed() >= Duration::from_millis(1_900), "{:?}", fell_silent.elapsed());
    assert_eq!((row.rule.as_str(), row.metric.as_str(), row.resolved_at), ("gone", "absent", None));
    assert!((2.0..6.0).contains(&row.value), "silent for {} s", row.value);
    let raised = &server.logged(1, "alert raised")[0];
    assert_eq!(raised["level"], "WARNING");
    let dies = server.service("dies").unwrap();
    assert_eq!((dies["status"].as_str(), dies["instances"][0]["stale"].as_bool()), (Some("stale"), Some(true)));
    eventually(SOON, "the young one is stale", || server.status_of("young") == "stale");

    client.send([cpu("dies", 10.0)]).unwrap();
    eventually(SOON, "it resolves", || server.history("service=dies")[0].resolved_at.is_some());
    assert_eq!(server.status_of("dies"), "ok");
    // `outage` is silent by now as well; the others never are.
    eventually(SOON, "the other is missed", || server.history("service=outage").len() == 1);
    assert_eq!(server.history("service=leaves").len() + server.history("service=young").len(), 0);

    // One that dies while the server is down is missed, too: the roster of known instances is durable.
    server.kill9();
    let server = server.start_again("");
    let again = found(Duration::from_secs(10), "it is missed", || server.history("service=dies&state=firing").pop());
    assert_eq!(again.metric, "absent");
    assert_eq!(server.history("service=outage").len(), 1, "the one that fired before the kill still does");
    assert_eq!(server.history("service=leaves").len() + server.history("service=young").len(), 0);
    server.settle();
}
