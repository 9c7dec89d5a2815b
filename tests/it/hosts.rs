//! Pages of the web: under which hosts REST answers, which origins may ask for changes, and what browsers are told.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
};

use crate::support::{
    server::{Server, Setup, ask},
    wait::SOON,
};

/// The status and the body of a request made of these lines.
fn spoken(http: SocketAddr, lines: &[&str]) -> (u16, String) {
    let mut tcp = TcpStream::connect(http).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    tcp.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{lines:?}: {answer}")).parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn get(http: SocketAddr, host: &str) -> u16 {
    spoken(http, &["GET /status HTTP/1.1", &format!("Host: {host}"), "Connection: close"]).0
}

const OWN: [&str; 6] = ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1", "127.0.0.1:1", "[::1]:8080"];
const FOREIGN: [&str; 6] =
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "user@localhost", ""];

#[test]
fn on_loopback_rest_answers_to_its_own_names_alone() {
    let server = Server::start();
    for host in OWN {
        assert_eq!(get(server.http(), host), 200, "{host}");
    }
    for host in FOREIGN.into_iter().chain(["192.0.2.7", "monitor.example"]) {
        assert_eq!(get(server.http(), host), 421, "{host}");
    }
    let (code, body) = spoken(server.http(), &["GET /healthz HTTP/1.1", "Host: evil.example", "Connection: close"]);
    assert_eq!(code, 421);
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&421.into(), &"Misdirected Request".into()));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`evil.example`") && detail.contains("--allowed-host"), "{detail}");
    assert!(server.figure("gopherwatch_door_refusals_total") >= 9.0);
    assert_eq!(server.logged(1, "not let in")[0]["reason"], "foreign_host");
    // All of them count; none is what programs say.
    let both = ["GET /status HTTP/1.1", "Host: localhost", "Host: evil.example", "Connection: close"];
    assert!([400, 421].contains(&spoken(server.http(), &both).0));
    let whole = ["GET http://evil.example/status HTTP/1.1", "Host: localhost", "Connection: close"];
    assert_eq!(spoken(server.http(), &whole).0, 421);
    assert_eq!(spoken(server.http(), &["GET /status HTTP/1.0"]).0, 200);
}

#[test]
fn by_http_2_the_authority_is_the_host() {
    let server = Server::start();
    for (host, code) in [("localhost", "200"), ("evil.example", "421")] {
        let said = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["-H", &format!("Host: {host}"), &format!("http://{}/status", server.http())])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), code, "{host}: {said:?}");
    }
}

#[test]
fn names_can_be_allowed_and_on_wide_addresses_they_take_the_place_of_addresses() {
    let own = |server: &Server| OWN.iter().for_each(|host| assert_eq!(get(server.http(), host), 200, "{host}"));
    let foreign = |server: &Server| FOREIGN.iter().for_each(|host| assert_eq!(get(server.http(), host), 421, "{host}"));
    let server = Setup::new().args("--allowed-host monitor.example --allowed-host 192.0.2.7").start();
    own(&server);
    foreign(&server);
    assert_eq!(["Monitor.Example:80", "192.0.2.7", "192.0.2.8"].map(|host| get(server.http(), host)), [200, 200, 421]);
    drop(server);
    let wide = Setup::new().args("--http-addr 0.0.0.0:0 --insecure");
    let server = wide.start();
    own(&server);
    foreign(&server);
    assert_eq!(["192.0.2.7:8080", "monitor.example"].map(|host| get(server.http(), host)), [200, 421]);
    drop(server);
    let server = wide.env("GOPHERWATCH_ALLOWED_HOST", "monitor.example,other.example").start();
    own(&server);
    foreign(&server);
    let asked = ["monitor.example", "other.example:8080", "192.0.2.7:8080"];
    assert_eq!(asked.map(|host| get(server.http(), host)), [200, 200, 421]);
    let (code, said) = Setup::new().args("--allowed-host https://monitor.example").run();
    assert!(code == 64 && said.contains("--allowed-host `https://monitor.example`"), "{code}: {said}");
}

#[test]
fn a_page_of_another_origin_changes_nothing() {
    let server = Setup::new().args("--allowed-host monitor.example").start();
    let post = |host: &str, origin: &str| {
        let lines = ["POST /-/reload HTTP/1.1", &format!("Host: {host}"), &format!("Origin: {origin}")];
        spoken(server.http(), &[&lines[..], &["Content-Length: 0", "Connection: close"]].concat()).0
    };
    for origin in ["http://evil.example", "null", "http://localhost:1", "http://monitor.example.evil.example"] {
        assert_eq!(post("localhost:8080", origin), 403, "{origin}");
    }
    assert_eq!(post("evil.example", "http://evil.example"), 421, "its own name led here");
    assert_eq!(server.figure("gopherwatch_rules_reloads_total"), 0.0);
    assert_eq!(post("localhost:8080", "http://localhost:8080"), 200);
    assert_eq!(post("monitor.example", "https://monitor.example"), 200);
    let refused = server.get("/metrics").body;
    assert!(
        refused.contains("gopherwatch_door_refusals_total{port=\"rest\",reason=\"foreign_origin\"} 4"),
        "{refused}"
    );
}

#[test]
fn every_answer_tells_browsers_to_do_nothing_with_it() {
    let server = Setup::new().env("GOPHERWATCH_ADMIN_TOKEN", "the-token-of-the-admin").start();
    let bearer = [("authorization", "Bearer the-token-of-the-admin")];
    for (method, path, headers, code) in [
        ("GET", "/status", &bearer[..], 200),
        ("HEAD", "/status", &bearer, 200),
        ("GET", "/healthz", &[], 200),
        ("GET", "/status", &[], 401),
        ("GET", "/nowhere", &[], 404),
        ("PUT", "/status", &[], 405),
        ("POST", "/-/reload", &bearer, 200),
    ] {
        let answer = ask(server.http(), method, path, headers).unwrap();
        assert_eq!(answer.code, code, "{method} {path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            let found = answer.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(found, Some(value), "{method} {path}: {name}");
        }
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{method} {path}");
    }
}
