//! What the operator got wrong is said before anything starts, with the way out; exit codes as CONTRACT §6 has them.

use std::net::TcpListener;

use crate::support::server::Setup;

/// Asserts that the server does not start, exits with `code`, and says each of `words`.
fn refuses(setup: &Setup, code: i32, words: &[&str]) -> String {
    let (got, said) = setup.run();
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    said
}

#[test]
fn help_and_version_are_answers() {
    refuses(&Setup::new().args("--help"), 0, &["--grpc-addr", "--data-dir", "GOPHERWATCH_WORKERS", "--record"]);
    refuses(&Setup::new().args("--version"), 0, &["gopherwatch-server", env!("CARGO_PKG_VERSION")]);
}

#[test]
fn an_unknown_flag_and_a_bad_value_are_usage_errors() {
    refuses(&Setup::new().args("--colour blue"), 64, &["--colour"]);
    refuses(&Setup::new().args("--workers 0"), 64, &["--workers"]);
    refuses(&Setup::new().args("--record sometimes"), 64, &["--record", "episode or every"]);
    refuses(&Setup::new().env("GOPHERWATCH_WORKERS", "many"), 64, &["workers"]);
}

#[test]
fn a_bad_rule_file_names_file_line_column_and_field() {
    let rules = "[[rules]]\nname = \"hot\"\nwhen = \"cpu_percent >> 90\"\n";
    refuses(&Setup::new().rules(rules), 64, &["gopherwatch.toml", "line 3, column 22", "when"]);
    let rules = "[[rules]]\nname = \"hot\"\nwhen = \"cpu_percent > 90\"\ncolour = 1\n";
    refuses(
        &Setup::new().file("other.toml", rules).args("--config other.toml"),
        64,
        &["other.toml", "line 4", "colour"],
    );
}

#[test]
fn a_rule_file_that_was_named_must_exist() {
    refuses(&Setup::new().args("--config nowhere.toml"), 64, &["nowhere.toml"]);
    refuses(&Setup::new().env("GOPHERWATCH_CONFIG", "nowhere.toml"), 64, &["nowhere.toml"]);
}

#[test]
fn a_taken_port_is_said_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in ["--grpc-addr", "--http-addr"] {
        refuses(&Setup::new().args(&format!("{flag} {addr}")), 1, &[flag, &addr]);
    }
}

#[test]
fn an_address_that_others_can_reach_is_refused_unless_insecure() {
    for flag in ["--grpc-addr", "--http-addr"] {
        refuses(&Setup::new().args(&format!("{flag} 0.0.0.0:0")), 64, &[flag, "--insecure", "127.0.0.1"]);
    }
    let mut server = Setup::new().args("--grpc-addr 0.0.0.0:0 --http-addr 0.0.0.0:0 --insecure").start();
    assert_eq!(server.get("/healthz").code, 200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_malformed_env_file_is_said_by_line_without_its_secrets() {
    let setup = Setup::new().file(".env", "GOPHERWATCH_WORKERS=1\n\nDATABASE_URL mysql://root:hunter2@db/x\n");
    let said = refuses(&setup, 64, &[".env", "line 3"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_environment_wins_over_the_env_file_and_flags_over_both() {
    let setup = Setup::new().file(".env", "GOPHERWATCH_WORKERS=3\n");
    let workers = |setup: &Setup| setup.start().logged(1, "starting")[0]["workers"].as_u64().unwrap();
    assert_eq!(workers(&setup), 3);
    let setup = setup.env("GOPHERWATCH_WORKERS", "2");
    assert_eq!(workers(&setup), 2);
    assert_eq!(workers(&setup.args("--workers 1")), 1);
}

#[test]
fn an_unknown_variable_of_ours_is_warned_about() {
    let setup = Setup::new().env("GOPHERWATCH_WORKRES", "2").env("DATABASE_ULR", "x").env("UNRELATED", "1");
    let server = setup.start();
    for name in ["GOPHERWATCH_WORKRES", "DATABASE_ULR"] {
        let warned = server.logged(1, &format!("unknown environment variable {name}"));
        assert_eq!(warned[0]["level"], "WARNING");
    }
    assert!(!server.log().text().contains("UNRELATED"));
}

#[test]
fn rules_that_cannot_work_are_warned_about_and_hold() {
    let rules =
        "[[rules]]\nname = \"hot\"\nwhen = \"cpu_percnt > 90\"\n\n[[rules]]\nname = \"own\"\nwhen = \"queue > 1\"\n";
    let setup = Setup::new().rules(rules);
    let server = setup.start();
    let warned = server.logged(
        1,
        "gopherwatch.toml: line 3, column 9: rule `hot`: no agent sends `cpu_percnt` by itself: did you mean \
         `cpu_percent`?",
    );
    assert_eq!(warned[0]["level"], "WARNING");
    assert!(!server.log().text().contains("`queue`"), "metrics of one's own are nothing to warn of");
    // A reload says the same of the new rules.
    setup.rules(&rules.replace("cpu_percnt", "cpu_percent").replace("queue", "memory_percent > 500 or queue"));
    assert_eq!(server.post("/-/reload").code, 200);
    server.logged(
        1,
        "gopherwatch.toml: line 7, column 8: rule `own`: when: its part `memory_percent > 500` is never true: \
         `memory_percent` lies between 0 and 100",
    );
}

#[test]
fn a_bad_database_address_is_refused_without_showing_the_password() {
    let setup = Setup::new().env("DATABASE_URL", "postgres://root:hunter2@db/x");
    let said = refuses(&setup, 64, &["database"]);
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_start_says_store_data_rules_and_listeners() {
    let server = Setup::new().start();
    let starting = &server.logged(1, "starting")[0];
    assert_eq!(starting["level"], "INFO");
    assert_eq!(starting["rules"], 3);
    assert_eq!(starting["data"], "./data");
    assert!(starting["store"].as_str().unwrap().to_lowercase().contains("sqlite"), "{starting}");
    assert!(starting["rules_from"].as_str().unwrap().contains("built"), "{starting}");
    let ready = &server.logged(1, "ready")[0];
    assert_eq!(ready["grpc"], server.grpc().to_string());
    assert_eq!(ready["http"], server.http().to_string());
}

#[test]
fn the_history_of_a_new_server_is_empty_and_not_unavailable() {
    let answer = Setup::new().start().get("/alerts/history");
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(answer.json(), serde_json::json!({"alerts": [], "next_cursor": null}));
}
