//! An alert is one line in the log, with every fact, and is never dropped (CONTRACT §3).

use std::collections::HashSet;

use crate::support::{
    reports::{cpu, report},
    server::{Server, Setup},
    wait::{SOON, eventually},
};

#[test]
fn an_alert_is_one_line_at_level_critical_with_all_its_facts() {
    let server = Server::start();
    server.client().send([cpu("web", 97.5)]).unwrap();
    let line = &server.logged(1, "alert raised")[0];
    let row = &server.history_of(1, "")[0];
    let facts = [
        ("level", "CRITICAL"),
        ("alert_id", &row.alert_id),
        ("service", "web"),
        ("instance", "default"),
        ("rule", "cpu-high"),
        ("severity", "critical"),
        ("metric", "cpu_percent"),
    ];
    for (key, value) in facts {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!((line["value"].as_f64(), line["threshold"].as_f64()), (Some(97.5), Some(90.0)));
    assert!(line["summary"].as_str().unwrap().contains("97.5"), "{line}");
    for key in ["triggered_at", "received_at"] {
        assert!(line[key].is_string(), "{key} in {line}");
    }

    server.client().send([cpu("web", 12.0)]).unwrap();
    let line = &server.logged(1, "alert resolved")[0];
    assert_eq!((line["level"].as_str(), line["resolve_reason"].as_str()), (Some("INFO"), Some("cleared")));
    assert_eq!(line["alert_id"], row.alert_id);
    assert_eq!(server.log().with_message("alert raised").len(), 1);
}

#[test]
fn the_word_is_the_severity_in_text_too_and_at_any_log_level() {
    let rules = r#"
        rules = [
            { name = "hot", when = "cpu_percent > 90" },
            { name = "warm", when = "cpu_percent > 80", severity = "warning" },
            { name = "mild", when = "cpu_percent > 70", severity = "info" },
        ]
    "#;
    let server = Setup::new().rules(rules).args("--log-format text").start();
    server.client().send([cpu("web", 97.5)]).unwrap();
    let line_of = |rule: &str| {
        let lines = server.log().lines();
        lines.into_iter().find(|line| line.contains("alert raised") && line.contains(&format!("rule: {rule}")))
    };
    for (rule, word) in [("hot", " CRITICAL "), ("warm", " WARNING "), ("mild", " INFO ")] {
        eventually(SOON, "the line is there", || line_of(rule).is_some());
        let line = line_of(rule).unwrap();
        assert!(line.contains(word), "{line}");
        assert!(line.contains("service: web") && line.contains("97.5"), "{line}");
    }

    let quiet = Setup::new().args("--log-level info").env("GOPHERWATCH_LOG_LEVEL", "critical").start();
    quiet.client().send([cpu("web", 97.5), report("web", "memory_percent", 99.0)]).unwrap();
    quiet.logged(2, "alert raised");
}

#[test]
fn a_slow_reader_of_the_log_loses_no_alert_and_holds_up_nobody() {
    let server = Server::start();
    server.log().pause();
    let client = server.client();
    let n = 4_000;
    let receipt = client.send((0..n).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    assert_eq!(receipt.alerts_raised, n, "the receipt does not wait for the log");
    server.history_of(usize::try_from(n).unwrap(), "");
    assert_eq!(client.send([cpu("s0", 99.0)]).unwrap().accepted, 1);
    assert!(server.log().with_message("alert raised").len() < 3_000, "the pipe held everything: the test is blunt");
    server.log().resume();
    let lines = server.logged(usize::try_from(n).unwrap(), "alert raised");
    let services: HashSet<_> = lines.iter().map(|line| line["service"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), services.len()), (4_000, 4_000));
}

#[test]
fn lines_that_a_kill_cut_off_are_written_at_the_next_start() {
    let mut server = Server::start();
    server.log().pause();
    let receipt = server.client().send((0..2_000).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    assert_eq!(receipt.alerts_raised, 2_000);
    server.kill9();
    server.log().read_to_end();
    let services = |server: &Server| -> HashSet<String> {
        let lines = server.log().with_message("alert raised");
        lines.iter().map(|line| line["service"].as_str().unwrap().to_owned()).collect()
    };
    let before = services(&server);
    assert!(before.len() < 2_000);
    let server = server.start_again("");
    eventually(SOON, "each alert has its line", || before.union(&services(&server)).count() == 2_000);
}
