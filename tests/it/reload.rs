//! The rules are read again when somebody says so and when their file changes: whole, or not at all (CONTRACT §3).

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    client::balanced,
    reports::{Says, cpu, report},
    server::{Server, Setup, ask},
    wait::{SOON, alone, eventually, found},
    workload::{Breach, Workload},
};

/// CONTRACT §3: how soon a changed file is in force.
const NOTICED: Duration = Duration::from_secs(2);
const FILE: &str = "gopherwatch.toml";

/// One rule of this name.
fn rule(name: &str) -> String {
    format!("[[rules]]\nname = \"{name}\"\nwhen = \"cpu_percent > 90\"\n")
}

/// The names of the rules in force.
fn rules(server: &Server) -> Vec<String> {
    let rules = server.get("/rules").json()["rules"].as_array().unwrap().clone();
    rules.iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
}

/// What `/readyz` says of the rules: status and detail.
fn check(server: &Server) -> (String, String) {
    let check = server.get("/readyz").json()["checks"]["rules"].clone();
    (check["status"].as_str().unwrap().to_owned(), check["detail"].as_str().unwrap().to_owned())
}

/// Waits until exactly this rule is in force, as a changed file promises.
fn notices(server: &Server, name: &str, what: &str) {
    eventually(NOTICED, what, || rules(server) == [name]);
}

/// The one row of the history, as REST gives it, once it is there.
fn row(server: &Server, parameters: &str) -> Value {
    found(SOON, "one row", || {
        let rows = server.get(&format!("/alerts/history?{parameters}")).json()["alerts"].as_array().unwrap().clone();
        assert!(rows.len() <= 1, "{rows:?}");
        rows.into_iter().next()
    })
}

/// An emptied file used to mean the built-in rules: a program that emptied it, and wrote it half a second later, resolved
/// every alert.
#[test]
fn a_file_that_is_emptied_before_it_is_written_keeps_its_rules() {
    let _alone = alone();
    let setup = Setup::new().rules(&rule("kept"));
    let server = setup.start();
    server.client().send([cpu("web", 95.0)]).unwrap();
    let raised = row(&server, "rule=kept&state=firing");
    let path = setup.cwd().join(FILE);
    fs::write(&path, "").unwrap();
    eventually(SOON, "it is told", || check(&server).1.contains("has no rules"));
    assert_eq!((check(&server).0.as_str(), rules(&server)), ("degraded", vec!["kept".to_owned()]));
    fs::write(&path, rule("kept")).unwrap();
    eventually(SOON, "all is well", || check(&server).0 == "ok");
    assert_eq!(row(&server, ""), raised, "the alert has not noticed");

    // Whoever means it, says so.
    fs::write(&path, "").unwrap();
    assert_eq!(server.post("/-/reload").json()["rules"], 3);
    eventually(SOON, "it resolves", || row(&server, "rule=kept")["resolve_reason"] == "rule_removed");
}

#[test]
fn a_file_that_appears_is_written_in_place_or_renamed_over_is_noticed() {
    let _alone = alone();
    let setup = Setup::new().args("--log-level debug");
    let server = setup.start();
    assert_eq!(rules(&server), ["cpu-high", "memory-high", "silent"]);
    let path = setup.cwd().join(FILE);
    fs::write(&path, rule("appeared")).unwrap();
    notices(&server, "appeared", "a file where there was none");
    fs::write(&path, rule("written")).unwrap();
    notices(&server, "written", "a write in place");
    fs::write(setup.cwd().join("new"), rule("renamed")).unwrap();
    fs::rename(setup.cwd().join("new"), &path).unwrap();
    notices(&server, "renamed", "a rename over it");
    let lines = server.logged(3, "rules reloaded");
    assert_eq!((&lines[2]["why"], &lines[2]["rules"]), (&json!("file changed"), &json!(1)));
    assert_eq!(server.figure("gopherwatch_rules_reloads_total"), 3.0);

    // The same text once more is no reload.
    fs::write(&path, rule("renamed")).unwrap();
    server.logged(1, "the rule file was written again and says the same");
    fs::write(setup.cwd().join("new"), rule("renamed")).unwrap();
    fs::rename(setup.cwd().join("new"), &path).unwrap();
    server.logged(2, "the rule file was written again and says the same");
    assert_eq!(server.figure("gopherwatch_rules_reloads_total"), 3.0);
}

#[test]
fn a_config_map_that_is_swapped_is_noticed() {
    let _alone = alone();
    // As Kubernetes mounts one: the file is a link into a directory that is a link, and that one is exchanged.
    let setup = Setup::new().args("--config conf/rules.toml");
    let conf = setup.cwd().join("conf");
    let version = |name: &str| {
        fs::create_dir_all(conf.join(name)).unwrap();
        fs::write(conf.join(name).join("rules.toml"), rule(name)).unwrap();
    };
    version("v1");
    symlink("v1", conf.join("..data")).unwrap();
    symlink("..data/rules.toml", conf.join("rules.toml")).unwrap();
    let server = setup.start();
    assert_eq!(rules(&server), ["v1"]);
    version("v2");
    symlink("v2", conf.join("..new")).unwrap();
    fs::rename(conf.join("..new"), conf.join("..data")).unwrap();
    notices(&server, "v2", "a link that leads elsewhere");
}

#[test]
fn a_file_that_vanishes_keeps_its_rules_until_it_is_back_or_somebody_says_otherwise() {
    let setup = Setup::new().rules(&rule("mine"));
    let path = setup.cwd().join(FILE);
    let server = setup.start();
    fs::remove_file(&path).unwrap();
    eventually(SOON, "the loss is shown", || check(&server).0 == "degraded");
    assert!(check(&server).1.contains("is gone"), "{:?}", check(&server));
    assert_eq!(server.get("/readyz").json()["status"], "degraded");
    assert_eq!(rules(&server), ["mine"]);
    fs::write(&path, rule("mine")).unwrap();
    eventually(SOON, "it is back", || check(&server).0 == "ok");
    fs::remove_file(&path).unwrap();
    eventually(SOON, "the loss is shown again", || check(&server).0 == "degraded");
    assert_eq!(server.logged(2, "the rule file is gone: its rules stay in force until it comes back").len(), 2);

    // Said to read them again without a file, it has the rules that hold when there is none.
    let answer = server.post("/-/reload");
    assert_eq!((answer.code, answer.json()), (200, json!({"rules": 3, "source": "built-in"})));
    assert_eq!((check(&server).0.as_str(), rules(&server).len()), ("ok", 3));

    // A file that was named has to be there.
    let setup = Setup::new().file("named.toml", &rule("named")).args("--config named.toml");
    let server = setup.start();
    fs::remove_file(setup.cwd().join("named.toml")).unwrap();
    let answer = server.post("/-/reload");
    assert_eq!(answer.code, 400, "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("reading the rule file named.toml"), "{answer:?}");
    assert_eq!(rules(&server), ["named"]);
}

#[test]
fn a_signal_and_a_request_reload_at_once() {
    let setup = Setup::new().rules(&rule("first"));
    let server = setup.start();
    let path = setup.cwd().join(FILE);
    fs::write(&path, format!("{}{}", rule("second"), rule("third"))).unwrap();
    let answer = server.post("/-/reload");
    assert_eq!((answer.code, answer.json()), (200, json!({"rules": 2, "source": FILE})));
    // In force in every lane: no report from here on knows the old ones.
    let services: Vec<_> = (0..32).map(|n| format!("s{n}")).collect();
    assert_eq!(server.client().send(services.iter().map(|name| cpu(name, 99.0))).unwrap().alerts_raised, 64);
    assert_eq!(server.history("rule=first").len(), 0);

    server.signal("HUP");
    let by_signal = found(SOON, "a reload by signal", || {
        server.log().with_message("rules reloaded").into_iter().find(|line| line["why"] == "signal")
    });
    assert_eq!(by_signal["rules"], 2);
    for method in ["GET", "DELETE"] {
        let answer = ask(server.http(), method, "/-/reload", &[]).unwrap();
        assert_eq!((answer.code, answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    }
    assert_eq!(ask(server.http(), "POST", "/-/reload", &[("origin", "http://evil.example")]).unwrap().code, 403);
    assert_eq!(server.figure("gopherwatch_rules_reloads_total"), 2.0);
    assert_eq!(server.settle()["events"], 64, "the same rules again are no event");
}

#[test]
fn a_bad_file_leaves_the_old_rules_in_force_and_a_good_one_heals_it() {
    let setup = Setup::new().rules(&rule("good"));
    let server = setup.start();
    let path = setup.cwd().join(FILE);
    let last_good = server.figure("gopherwatch_rules_last_reload_success_timestamp_seconds");
    assert!(last_good > 1.7e9, "{last_good}");
    assert_eq!(server.figure("gopherwatch_rules_last_reload_successful"), 1.0);

    // The first rule is fine: it must not hold without the second.
    let bad = format!("{}[[rules]]\nname = \"bad\"\nwhen = \"cpu_percent >> 90\"\n", rule("fine"));
    fs::write(&path, &bad).unwrap();
    eventually(SOON, "it is shown", || check(&server).0 == "degraded");
    let (_, detail) = check(&server);
    for words in ["old rules stay in force", FILE, "line 6, column 22", "when"] {
        assert!(detail.contains(words), "`{words}` is not in {detail}");
    }
    let logged = &server.logged(1, "the rules were not reloaded: the old ones stay in force")[0];
    assert_eq!((&logged["level"], &logged["line"], &logged["column"]), (&json!("ERROR"), &json!(6), &json!(22)));
    assert!(logged["error"].as_str().unwrap().contains("when"), "{logged}");
    let figures = |server: &Server| {
        ["rules_reloads_total", "rules_reload_failures_total", "rules_last_reload_successful"]
            .map(|name| server.figure(&format!("gopherwatch_{name}")))
    };
    assert_eq!(figures(&server), [0.0, 1.0, 0.0]);
    assert_eq!(server.figure("gopherwatch_rules_last_reload_success_timestamp_seconds"), last_good);

    let answer = server.post("/-/reload");
    assert_eq!((answer.code, answer.headers["content-type"].to_str().unwrap()), (400, "application/problem+json"));
    let problem = answer.json();
    assert_eq!((&problem["line"], &problem["column"], &problem["status"]), (&json!(6), &json!(22), &json!(400)));
    assert!(problem["detail"].as_str().unwrap().contains("when"), "{problem}");
    assert_eq!(figures(&server), [0.0, 2.0, 0.0]);

    assert_eq!(rules(&server), ["good"]);
    assert_eq!(server.client().send([cpu("web", 99.0)]).unwrap().alerts_raised, 1, "the old rule alone");
    fs::write(&path, rule("good")).unwrap();
    eventually(SOON, "it is healed", || check(&server).0 == "ok");
    assert_eq!(figures(&server), [1.0, 2.0, 1.0]);
    assert!(server.figure("gopherwatch_rules_last_reload_success_timestamp_seconds") > last_good);
    assert_eq!(server.get("/readyz").json()["status"], "ready");
    assert_eq!(server.settle()["events"], 1, "the alert never noticed");
}

/// Writes the file and has it read.
fn put(server: &Server, path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let answer = server.post("/-/reload");
    assert_eq!(answer.code, 200, "{answer:?}");
}

const FOUR: &str = r#"
    [[rules]]
    name = "cpu"
    when = "cpu_percent > 90"
    summary = "{service} at {value}"

    [[rules]]
    name = "memory"
    when = "memory_percent > 80"

    [[rules]]
    name = "disk"
    when = "disk_percent > 90"

    [[rules]]
    name = "same"
    when = "load_1m > 4"
"#;

#[test]
fn firing_alerts_go_on_by_the_name_of_their_rule() {
    let setup = Setup::new().rules(FOUR).args("--workers 2");
    let mut server = setup.start();
    let path = setup.cwd().join(FILE);
    let client = server.client();
    for (metric, value) in [("cpu_percent", 97.0), ("memory_percent", 95.0), ("disk_percent", 99.0), ("load_1m", 5.0)] {
        client.send([report("web", metric, value), report("db", metric, value)]).unwrap();
    }
    server.history_of(8, "state=firing");
    let before = ["cpu", "same"].map(|rule| row(&server, &format!("service=web&rule={rule}")));

    // One changed in what it says, one gone, one narrowed; the last one stands in another place.
    let after = FOUR
        .replace("\"{service} at {value}\"", "\"{service} is busy: {value} of {threshold}\"\nseverity = \"warning\"")
        .replace("memory_percent > 80\"", "memory_percent > 80\"\nservices = [\"d*\"]");
    let (kept, gone) = after.split_once("[[rules]]\n    name = \"disk\"").unwrap();
    let (_, last) = gone.split_once("[[rules]]").unwrap();
    put(&server, &path, &format!("[[rules]]{last}{kept}"));
    assert_eq!(rules(&server), ["same", "cpu", "memory"]);
    assert_eq!(server.figure("gopherwatch_alerts_firing"), 5.0);
    assert_eq!(server.get("/alerts/active").json()["alerts"].as_array().unwrap().len(), 5);
    assert_eq!(server.settle()["events"], 8 + 2 + 2 + 1);

    let cpu_now = row(&server, "service=web&rule=cpu");
    assert_eq!((&cpu_now["severity"], &cpu_now["summary"]), (&json!("warning"), &json!("web is busy: 97 of 90")));
    assert_eq!((&cpu_now["metric_value"], &cpu_now["resolved_at"]), (&json!(97.0), &Value::Null));
    for key in ["alert_id", "triggered_at"] {
        assert_eq!(cpu_now[key], before[0][key], "it is the same alert");
    }
    assert_eq!(version(&setup, "web", "cpu"), 2);
    assert_eq!(row(&server, "service=web&rule=same"), before[1], "nothing happened to it");
    assert_eq!(version(&setup, "web", "same"), 1);
    for resolved in ["service=web&rule=disk", "service=db&rule=disk", "service=web&rule=memory"] {
        assert_eq!(row(&server, resolved)["resolve_reason"], "rule_removed", "{resolved}");
    }
    assert_eq!(row(&server, "service=db&rule=memory")["resolved_at"], Value::Null, "it still matches");
    let updated = server.logged(2, "alert updated");
    assert!(updated.iter().all(|line| line["rule"] == "cpu" && line["severity"] == "warning"), "{updated:?}");
    assert_eq!(server.status_of("web"), "critical", "by the load");

    // The same at a restart.
    assert_eq!(server.stop(), 0);
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"warning\"", "\"info\"")).unwrap();
    let server = setup.start();
    eventually(SOON, "the update is delivered", || row(&server, "service=web&rule=cpu")["severity"] == "info");
    assert_eq!(version(&setup, "web", "cpu"), 3);
    assert_eq!(row(&server, "service=web&rule=same"), before[1]);
    client_clears(&server);
}

/// The version of a row, which REST does not show.
fn version(setup: &Setup, service: &str, rule: &str) -> u32 {
    let store = rusqlite::Connection::open(setup.cwd().join("data/alerts.db")).unwrap();
    let sql = "SELECT version FROM alerts WHERE service_name = ?1 AND rule_name = ?2";
    store.query_row(sql, [service, rule], |row| row.get(0)).unwrap()
}

/// An alert that came through it all is resolved by the report that clears it, as any other.
fn client_clears(server: &Server) {
    server.client().send([report("web", "cpu_percent", 10.0)]).unwrap();
    eventually(SOON, "it is cleared", || row(server, "service=web&rule=cpu")["resolve_reason"] == "cleared");
    server.settle();
}

#[test]
fn under_load_rules_change_and_no_report_is_lost_or_judged_twice() {
    let _alone = alone();
    let setup = Setup::new().rules(&rule("cpu-high")).args("--workers 2");
    let server = setup.start();
    let path = setup.cwd().join(FILE);
    let work = Workload::new(200_000, 64, 8, Breach::OneIn(20));
    let done = AtomicBool::new(false);
    let n_reloads = thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                let other = format!("[[rules]]\nname = \"other-{n}\"\nwhen = \"nothing > {n}\"\n");
                // cpu-high stands first and last by turns.
                let both = [rule("cpu-high"), other];
                put(&server, &path, &format!("{}{}", both[n % 2], both[1 - n % 2]));
                n += 1;
            }
            n
        });
        for receipt in work.send(&server, 7) {
            assert_eq!(balanced(receipt.unwrap()).rejected, 0);
        }
        done.store(true, Ordering::Relaxed);
        reloads.join().unwrap()
    });
    assert!(n_reloads > 3, "only {n_reloads} reloads in all that time");
    work.assert_stored(&server);
    assert_eq!(server.figure("gopherwatch_evaluate_panics_total"), 0.0);
    assert!(server.figure("gopherwatch_rules_reloads_total") >= f64::from(u32::try_from(n_reloads).unwrap()));
}

#[test]
fn started_again_under_load_with_other_rules_it_loses_no_report_and_judges_none_twice() {
    let _alone = alone();
    let other = |n: usize| format!("[[rules]]\nname = \"other-{n}\"\nwhen = \"cpu_percent > {}\"\n", 200 + n);
    let text = |n: usize| if n.is_multiple_of(2) { rule("cpu-high") + &other(n) } else { other(n) + &rule("cpu-high") };
    let setup = Setup::new().rules(&text(0)).args("--workers 2");
    let mut server = setup.start();
    let work = Workload::new(400_000, 64, 8, Breach::OneIn(20));
    for n in 1..=4 {
        thread::scope(|scope| {
            let sending = scope.spawn(|| work.send(&server, 7));
            let before = server.figure("gopherwatch_reports_accepted_total");
            eventually(SOON, "reports come in", || {
                server.figure("gopherwatch_reports_accepted_total") > before + 5_000.0
            });
            // In order and by force, by turns.
            server.signal(if n % 2 == 0 { "TERM" } else { "KILL" });
            for receipt in sending.join().unwrap().into_iter().flatten() {
                assert_eq!(balanced(receipt).rejected, 0);
            }
        });
        server.ended(Duration::from_secs(15));
        fs::write(setup.cwd().join(FILE), text(n)).unwrap();
        server = setup.start();
        assert!(rules(&server).contains(&format!("other-{n}")));
    }
    for receipt in work.send(&server, 7) {
        assert_eq!(balanced(receipt.unwrap()).rejected, 0);
    }
    work.assert_stored(&server);
}

#[test]
fn a_stop_in_the_middle_of_reloads_is_clean_and_in_time() {
    let _alone = alone();
    let setup = Setup::new().rules(&rule("cpu-high")).args("--workers 2");
    let mut server = setup.start();
    let http = server.http();
    let load = server.client().stream(&[("agent-epoch", "7")], (1..).map(|n| cpu("endless", 99.0).numbered(n)));
    eventually(SOON, "the stream flows", || server.figure("gopherwatch_reports_accepted_total") > 1_000.0);
    let done = AtomicBool::new(false);
    let (n_good, code) = thread::scope(|scope| {
        let reload = || {
            let mut n_good = 0;
            while !done.load(Ordering::Relaxed) {
                // The server may be gone by now.
                if let Ok(answer) = ask(http, "POST", "/-/reload", &[]) {
                    assert!([200, 503].contains(&answer.code), "{answer:?}");
                    n_good += u32::from(answer.code == 200);
                }
            }
            n_good
        };
        let reloads: Vec<_> = (0..4).map(|_| scope.spawn(reload)).collect();
        eventually(SOON, "reloads come through", || server.figure("gopherwatch_rules_reloads_total") > 20.0);
        server.signal("HUP");
        server.signal("TERM");
        server.signal("HUP");
        let code = server.exit_code(Duration::from_secs(5));
        done.store(true, Ordering::Relaxed);
        (reloads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>(), code)
    });
    assert!(n_good > 10);
    assert_eq!(code, 0);
    assert_eq!(server.log().with_message("shutdown ended")[0]["outcome"], "Clean");
    let receipt = balanced(load.wait().unwrap());
    let server = setup.start();
    let again = server.client().send_epoch(7, (1..=receipt.received).map(|n| cpu("endless", 99.0).numbered(n)));
    assert_eq!(again.unwrap().duplicates, receipt.received, "what was receipted is known");
    assert_eq!(server.history_of(1, "")[0].resolved_at, None);
}
