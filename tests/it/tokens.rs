//! Tokens: who may report, read and change, what becomes of those who may not, and how tokens change while it runs.

use std::{fs, os::unix::fs::PermissionsExt};

use gopherwatch_proto::v1::Summary;
use tonic::{Code, Status};

use crate::support::{
    client::runtime,
    reports::cpu,
    server::{Answer, Server, Setup, ask},
    wait::{SOON, eventually},
};

const AGENT: &str = "the-token-of-the-agents";
const READ: &str = "the-token-of-readers";
const ADMIN: &str = "the-token-of-the-admin";
const NOBODY: &str = "a-token-that-nobody-has";

/// What needs to be let in to read.
const READING: [&str; 8] = [
    "/status",
    "/status/web",
    "/alerts/history",
    "/alerts/active",
    "/alerts/6b0c1a4e-0000-5000-8000-000000000000",
    "/rules",
    "/explain?service=web",
    "/metrics",
];
/// What changes something.
const CHANGING: [(&str, &str); 2] = [("POST", "/-/reload"), ("DELETE", "/services/web/instances/default")];

fn guarded() -> Setup {
    Setup::new()
        .env("GOPHERWATCH_AGENT_TOKEN", AGENT)
        .env("GOPHERWATCH_READ_TOKEN", READ)
        .env("GOPHERWATCH_ADMIN_TOKEN", ADMIN)
}

/// Asks with this token, or none.
fn ask_as(server: &Server, token: &str, method: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    ask(server.http(), method, path, if token.is_empty() { &[] } else { &headers }).unwrap()
}

/// Sends a report with this token, or none.
fn send_as(server: &Server, token: &str) -> Result<Summary, Status> {
    let bearer = format!("Bearer {token}");
    let metadata = [("authorization", bearer.as_str())];
    server.client().send_with(if token.is_empty() { &[] } else { &metadata }, [cpu("web", 99.0)])
}

fn figure(server: &Server, token: &str, line: &str) -> f64 {
    let text = ask_as(server, token, "GET", "/metrics").body;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.map_or(0.0, |number| number.parse().unwrap())
}

#[test]
fn reports_take_an_agents_token_and_none_is_read_without_it() {
    let server = guarded().start();
    for token in ["", NOBODY, READ, ADMIN, "the-token-of-the-agent"] {
        let status = send_as(&server, token).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{token}: {status:?}");
        assert!(status.message().contains("authorization: Bearer TOKEN") || !token.is_empty(), "{status:?}");
    }
    assert_eq!(figure(&server, READ, "gopherwatch_streams_total"), 0.0, "no stream was opened");
    assert_eq!(figure(&server, READ, "gopherwatch_reports_received_total"), 0.0, "no report was read");
    assert_eq!(send_as(&server, AGENT).unwrap().accepted, 1);
    // What is wrong with the rest is not for strangers.
    let status = server.client().send_with(&[("service-id", "a b")], [cpu("web", 1.0)]).unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[test]
fn health_by_grpc_is_open() {
    let server = guarded().start();
    let channel = server.client().channel();
    let answer = runtime().block_on(async move {
        let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
        tonic_health::pb::health_client::HealthClient::new(channel).check(request).await
    });
    assert_eq!(answer.unwrap().into_inner().status, 1);
}

#[test]
fn each_resource_asks_for_its_scope() {
    let server = guarded().start();
    assert_eq!(send_as(&server, AGENT).unwrap().accepted, 1);
    let problem = |answer: Answer, code: u16, what: &str| {
        assert_eq!(answer.code, code, "{what}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(answer.json()["status"], code, "{what}");
        let asks = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(asks, (code == 401).then_some("Bearer"), "{what}");
    };
    for path in READING {
        for method in ["GET", "HEAD"] {
            let what = format!("{method} {path}");
            for token in [READ, ADMIN] {
                let code = ask_as(&server, token, method, path).code;
                assert!([200, 404].contains(&code), "{what}: {code}");
            }
            for (token, code) in [("", 401), (NOBODY, 401), (AGENT, 403)] {
                let answer = ask_as(&server, token, method, path);
                if method == "HEAD" {
                    assert_eq!(answer.code, code, "{what}");
                } else {
                    problem(answer, code, &what);
                }
            }
        }
    }
    for (method, path) in CHANGING {
        for (token, code) in [("", 401), (NOBODY, 401), (AGENT, 403), (READ, 403)] {
            problem(ask_as(&server, token, method, path), code, path);
        }
    }
    assert_eq!(ask_as(&server, READ, "GET", "/status/web").code, 200, "it was not forgotten");
    assert_eq!(figure(&server, READ, "gopherwatch_rules_reloads_total"), 0.0);
    for ((method, path), code) in CHANGING.into_iter().zip([200, 204]) {
        assert_eq!(ask_as(&server, ADMIN, method, path).code, code, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        for token in ["", NOBODY, AGENT] {
            assert_eq!(ask_as(&server, token, "GET", path).code, 200, "{path}");
        }
    }
}

#[test]
fn a_token_for_changes_alone_closes_reading_and_one_for_agents_alone_does_not() {
    let server = Setup::new().env("GOPHERWATCH_ADMIN_TOKEN", ADMIN).start();
    assert_eq!(ask_as(&server, "", "GET", "/status").code, 401);
    assert_eq!(ask_as(&server, ADMIN, "GET", "/status").code, 200);
    assert_eq!(send_as(&server, "").unwrap().accepted, 1, "agents are not asked for a token");
    let server = Setup::new().env("GOPHERWATCH_AGENT_TOKEN", AGENT).start();
    assert_eq!(server.get("/status").code, 200);
    assert_eq!(send_as(&server, "").unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(server.post("/-/reload").code, 200);
    let server = Setup::new().env("GOPHERWATCH_READ_TOKEN", READ).start();
    assert_eq!(ask_as(&server, "", "POST", "/-/reload").code, 401);
    assert_eq!(ask_as(&server, READ, "POST", "/-/reload").code, 403, "nobody may");
}

/// The token comes first: a stranger's body is not read.
#[test]
fn a_body_without_a_token_is_not_waited_for() {
    let server = guarded().start();
    let mut tcp = std::net::TcpStream::connect(server.http()).unwrap();
    let head = "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    std::io::Write::write_all(&mut tcp, head.as_bytes()).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let mut answer = [0; 12];
    let began = std::time::Instant::now();
    std::io::Read::read_exact(&mut tcp, &mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_sighup_brings_other_tokens_and_a_bad_file_keeps_the_old_ones() {
    let setup = Setup::new()
        .secret("agent.token", &format!("{AGENT}\n"))
        .secret("admin.token", ADMIN)
        .env("GOPHERWATCH_AGENT_TOKEN_FILE", "agent.token")
        .env("GOPHERWATCH_ADMIN_TOKEN_FILE", "admin.token");
    let server = setup.start();
    assert_eq!(send_as(&server, AGENT).unwrap().accepted, 1);
    let client = server.client();
    let bearer = format!("Bearer {AGENT}");
    let open = client.open(&[("authorization", &bearer)]);
    assert!(open.push(cpu("web", 1.0)));

    // Both, for as long as agents change over.
    let setup = setup.secret("agent.token", &format!("{AGENT}\nanother-token-of-the-agents\n"));
    server.signal("HUP");
    server.logged(1, "tokens read again");
    for token in [AGENT, "another-token-of-the-agents"] {
        assert_eq!(send_as(&server, token).unwrap().accepted, 1, "{token}");
    }
    let setup = setup.secret("agent.token", "another-token-of-the-agents\n");
    assert_eq!(ask_as(&server, ADMIN, "POST", "/-/reload").code, 200);
    assert_eq!(send_as(&server, AGENT).unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(send_as(&server, "another-token-of-the-agents").unwrap().accepted, 1);
    assert_eq!(open.finish().unwrap().accepted, 1, "an open stream was let in already");

    let setup = setup.secret("admin.token", "short");
    server.signal("HUP");
    let said = &server.logged(1, "the tokens were not read again: the old ones stay in force")[0];
    assert_eq!(said["level"], "ERROR");
    assert!(said["error"].as_str().unwrap().contains("admin.token has fewer than 16"), "{said}");
    let answer = ask_as(&server, ADMIN, "POST", "/-/reload");
    assert_eq!(answer.code, 400, "the old one stays: {answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("admin.token"), "{answer:?}");
    let ready = ask_as(&server, "", "GET", "/readyz").json();
    assert_eq!((&ready["status"], &ready["checks"]["doors"]["status"]), (&"degraded".into(), &"degraded".into()));
    assert_eq!(send_as(&server, "another-token-of-the-agents").unwrap().accepted, 1);
    setup.secret("admin.token", "a-new-token-of-the-admin");
    server.signal("HUP");
    eventually(SOON, "the new token is in force", || {
        ask_as(&server, "a-new-token-of-the-admin", "GET", "/status").code == 200
    });
    assert_eq!(ask_as(&server, ADMIN, "GET", "/status").code, 401);
    eventually(SOON, "and all is well", || ask_as(&server, "", "GET", "/readyz").json()["status"] == "ready");
}

#[test]
fn tokens_that_cannot_be_used_are_refused_with_the_fix_and_not_shown() {
    let refused = |setup: &Setup, words: &[&str]| {
        let (code, said) = setup.run();
        assert_eq!(code, 64, "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "`{word}` is not in: {said}"));
        assert!(!said.contains("hunter2"), "{said}");
    };
    let fix = "openssl rand -hex 16";
    refused(&Setup::new().env("GOPHERWATCH_AGENT_TOKEN", ""), &["GOPHERWATCH_AGENT_TOKEN is empty", fix]);
    refused(
        &Setup::new().env("GOPHERWATCH_AGENT_TOKEN", "hunter2"),
        &["GOPHERWATCH_AGENT_TOKEN", "fewer than 16", fix],
    );
    refused(&Setup::new().env("GOPHERWATCH_READ_TOKEN", "hunter2 hunter2 hunter2"), &["printable ASCII", fix]);
    let both = guarded().env("GOPHERWATCH_ADMIN_TOKEN_FILE", "admin.token");
    refused(&both, &["GOPHERWATCH_ADMIN_TOKEN and GOPHERWATCH_ADMIN_TOKEN_FILE are both set"]);
    refused(&guarded().env("GOPHERWATCH_ADMIN_TOKEN", READ), &["a token in common"]);
    let from_file = Setup::new().env("GOPHERWATCH_READ_TOKEN_FILE", "read.token");
    refused(&from_file, &["GOPHERWATCH_READ_TOKEN_FILE", "read.token"]);
    let from_file = from_file.secret("read.token", "\n");
    refused(&from_file, &["read.token is empty", fix]);
    let from_file = from_file.secret("read.token", "hunter2-hunter2-hunter2");
    fs::set_permissions(from_file.cwd().join("read.token"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&from_file, &["others can read read.token", "chmod 600 read.token"]);
    fs::set_permissions(from_file.cwd().join("read.token"), fs::Permissions::from_mode(0o600)).unwrap();
    let server = from_file.start();
    assert_eq!(ask_as(&server, "hunter2-hunter2-hunter2", "GET", "/status").code, 200);
}

#[test]
fn who_is_not_let_in_is_counted_and_does_not_fill_the_log() {
    let server = guarded().args("--log-level debug").start();
    for _ in 0..20 {
        assert_eq!(ask_as(&server, NOBODY, "GET", "/status").code, 401);
        assert_eq!(send_as(&server, NOBODY).unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(ask_as(&server, "", "GET", "/status").code, 401);
    assert_eq!(ask_as(&server, READ, "POST", "/-/reload").code, 403);
    for (port, reason, n) in [
        ("rest", "wrong_token", 20.0),
        ("grpc", "wrong_token", 20.0),
        ("rest", "no_token", 1.0),
        ("rest", "lesser_token", 1.0),
    ] {
        let line = format!("gopherwatch_door_refusals_total{{port=\"{port}\",reason=\"{reason}\"}}");
        assert_eq!(figure(&server, READ, &line), n, "{line}");
    }
    let said = server.logged(4, "not let in");
    assert_eq!(said.len(), 4, "one line of each kind: {said:?}");
    assert!(said.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")), "{said:?}");
    // Whatever was said, it was no token.
    ask_as(&server, ADMIN, "POST", "/-/reload");
    send_as(&server, AGENT).unwrap();
    server.logged(1, "audit");
    for token in [AGENT, READ, ADMIN, NOBODY] {
        assert!(!server.log().text().contains(token), "{token} is in the log");
    }
}

#[test]
fn each_change_is_written_down_with_who_what_and_outcome() {
    let setup = guarded().rules("rules = []");
    let server = setup.start();
    assert_eq!(ask_as(&server, ADMIN, "POST", "/-/reload").code, 200);
    setup.rules("rules = 1");
    assert_eq!(ask_as(&server, ADMIN, "POST", "/-/reload").code, 400);
    assert_eq!(ask_as(&server, ADMIN, "DELETE", "/services/web/instances/a").code, 404);
    // These come to nothing, and are the door's to tell of.
    assert_eq!(ask_as(&server, READ, "POST", "/-/reload").code, 403);
    let lines = server.logged(3, "audit");
    let facts: Vec<_> = lines.iter().map(|line| (&line["action"], &line["outcome"], &line["status"])).collect();
    let expected = [
        ("POST /-/reload", "done", 200),
        ("POST /-/reload", "failed", 400),
        ("DELETE /services/web/instances/a", "failed", 404),
    ]
    .map(|(action, outcome, status)| (action.into(), outcome.into(), status.into()));
    assert_eq!(facts, expected.iter().map(|(a, o, s)| (a, o, s)).collect::<Vec<_>>());
    for line in &lines {
        assert_eq!(line["scope"], "admin");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    let server = Server::start();
    assert_eq!(server.post("/-/reload").code, 200);
    assert_eq!(server.logged(1, "audit")[0]["scope"], "anyone");
}
