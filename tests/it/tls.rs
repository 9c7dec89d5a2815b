//! TLS on both ports: who is let in, who is not and does no harm, and how certificates change while it runs.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::Summary;
use tonic::Status;

use crate::support::{
    client::Client,
    reports::cpu,
    server::{Server, Setup, ask},
    tls::{Authority, Pair, WithTls},
    wait::{SOON, alone, eventually},
};

/// How long a peer may take to open TLS, and how late we may notice on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(5);

/// A stream of one report by TLS; an error also if there is no connection.
fn send(server: &Server, authority: &Authority, shown: Option<&Pair>) -> Result<Summary, Status> {
    let client = Client::connect_tls(server.grpc(), authority.trusted(shown));
    client.map_err(|err| Status::unavailable(err.to_string()))?.send([cpu("web", 1.0)])
}

fn refusals(server: &Server, authority: &Authority, port: &str, reason: &str) -> f64 {
    let text = authority.ask(server.http(), "GET", "/metrics").unwrap().body;
    let line = format!("gopherwatch_door_refusals_total{{port=\"{port}\",reason=\"{reason}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0.0, |n| n.parse().unwrap())
}

#[test]
fn both_ports_speak_tls_to_those_who_trust_its_authority() {
    let (authority, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let server = Setup::new().tls(&authority.server()).start();
    assert_eq!(send(&server, &authority, None).unwrap().accepted, 1);
    let answer = authority.ask(server.http(), "GET", "/status/web").unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
    assert!(send(&server, &foreign, None).is_err(), "its certificate is of another authority");
    assert!(foreign.ask(server.http(), "GET", "/status").is_err());
    eventually(SOON, "both are counted", || {
        ["grpc", "rest"].iter().all(|port| refusals(&server, &authority, port, "tls_failed") >= 1.0)
    });
    let said = server.logged(2, "not let in");
    assert_eq!(said.len(), 2, "a line for each port: {said:?}");
    assert!(
        said.iter().all(|line| line["reason"] == "tls_failed" && !line["why"].as_str().unwrap().is_empty()),
        "{said:?}"
    );
}

#[test]
fn both_versions_of_tls_and_of_http_are_spoken() {
    let authority = Authority::new("ours");
    let setup = Setup::new().tls(&authority.server()).file("ca.pem", &authority.pem);
    let server = setup.start();
    for (options, version) in [
        ("--http1.1 --tlsv1.2 --tls-max 1.2", "1.1"),
        ("--http1.1 --tlsv1.3", "1.1"),
        ("--http2 --tlsv1.2 --tls-max 1.2", "2"),
        ("--http2 --tlsv1.3", "2"),
    ] {
        let url = format!("https://localhost:{}/healthz", server.http().port());
        let said = Command::new("curl")
            .args(options.split(' '))
            .args(["-sS", "--cacert", "ca.pem", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", &url])
            .current_dir(setup.cwd())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), format!("200 {version}"), "{options}: {said:?}");
    }
}

#[test]
fn agents_show_a_certificate_where_it_is_asked_for_and_readers_do_not() {
    let (authority, agents, foreign) = (Authority::new("ours"), Authority::new("agents"), Authority::new("foreign"));
    let setup = Setup::new().tls(&authority.server()).file("agents-ca.pem", &agents.pem);
    let server = setup.clone().args("--tls-client-ca agents-ca.pem").start();
    assert_eq!(send(&server, &authority, Some(&agents.agent())).unwrap().accepted, 1);
    for (shown, who) in [
        (None, "none"),
        (Some(foreign.agent()), "a foreign one"),
        (Some(authority.agent()), "one of the server's authority"),
        (Some(agents.server()), "one for servers"),
    ] {
        assert!(send(&server, &authority, shown.as_ref()).is_err(), "{who}");
    }
    assert_eq!(authority.ask(server.http(), "GET", "/status").unwrap().code, 200);
    eventually(SOON, "they are counted", || refusals(&server, &authority, "grpc", "tls_failed") >= 4.0);
    let said = server.logged(1, "not let in");
    assert!(said.len() == 1 && said[0]["why"].as_str().unwrap().contains("certificate"), "one for all: {said:?}");

    // Another authority for them, and the old one is no more good.
    setup.file("agents-ca.pem", &foreign.pem);
    server.signal("HUP");
    server.logged(1, "certificates read again: new connections get them");
    assert_eq!(send(&server, &authority, Some(&foreign.agent())).unwrap().accepted, 1);
    assert!(send(&server, &authority, Some(&agents.agent())).is_err());
}

#[test]
fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let setup = Setup::new().tls(&first.server_until(2030));
    let server = setup.start();
    let until = |authority: &Authority, seconds: u64| {
        let text = authority.ask(server.http(), "GET", "/metrics").unwrap().body;
        let line = "gopherwatch_tls_certificate_not_after_timestamp_seconds";
        assert!(text.lines().any(|found| found.starts_with(line) && found.ends_with(&format!(" {seconds}"))), "{text}");
    };
    until(&first, 1_893_456_000);
    let open = Client::connect_tls(server.grpc(), first.trusted(None)).unwrap().open(&[]);
    assert!(open.push(cpu("web", 1.0)));

    let setup = setup.pair(&second.server_until(2031));
    assert_eq!(send(&server, &first, None).unwrap().accepted, 1, "nobody said reload");
    server.signal("HUP");
    server.logged(1, "certificates read again: new connections get them");
    assert_eq!(send(&server, &second, None).unwrap().accepted, 1);
    assert!(send(&server, &first, None).is_err() && first.ask(server.http(), "GET", "/status").is_err());
    until(&second, 1_924_992_000);

    let setup = setup.file("server.pem", "no certificate");
    server.signal("HUP");
    let said = &server.logged(1, "the certificates were not read again: the old ones stay in force")[0];
    assert_eq!(said["level"], "ERROR");
    assert!(said["error"].as_str().unwrap().contains("there is no certificate in server.pem"), "{said}");
    let answer = second.ask(server.http(), "POST", "/-/reload").unwrap();
    assert_eq!(answer.code, 400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("server.pem"), "{answer:?}");
    let ready = second.ask(server.http(), "GET", "/readyz").unwrap().json();
    assert_eq!(ready["checks"]["doors"]["status"], "degraded", "{ready}");
    assert_eq!(send(&server, &second, None).unwrap().accepted, 1);

    // Half of a renewal: the key is still that of the certificate before.
    let setup = setup.file("server.pem", &first.server().cert);
    assert_eq!(second.ask(server.http(), "POST", "/-/reload").unwrap().code, 400);
    setup.pair(&first.server());
    assert_eq!(second.ask(server.http(), "POST", "/-/reload").unwrap().code, 200);
    assert_eq!(send(&server, &first, None).unwrap().accepted, 1);
    assert!(open.push(cpu("web", 2.0)), "the stream goes on with the certificate that it began with");
    assert_eq!(open.finish().unwrap().accepted, 2);
}

/// Reads until the server closes; whether it did so in order.
fn read_to_end(tcp: &mut TcpStream) -> (Vec<u8>, bool) {
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let mut bytes = Vec::new();
    match tcp.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(err) if err.kind() == ErrorKind::ConnectionReset => (bytes, false),
        Err(err) => panic!("it is not closed: {err}"),
    }
}

#[test]
fn without_tls_the_connection_is_closed_in_order_and_rest_says_why() {
    let authority = Authority::new("ours");
    let server = Setup::new().tls(&authority.server()).start();
    let answer = ask(server.http(), "GET", "/status", &[]).unwrap();
    assert_eq!(answer.code, 400);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert!(answer.json()["detail"].as_str().unwrap().contains("https"), "{answer:?}");
    for (addr, port) in [(server.grpc(), "grpc"), (server.http(), "rest")] {
        let mut tcp = TcpStream::connect(addr).unwrap();
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        assert!(read_to_end(&mut tcp).1, "{port} is reset");
        assert!(refusals(&server, &authority, port, "no_tls") >= 1.0, "{port}");
    }
    // As probes of a port do.
    drop(TcpStream::connect(server.grpc()).unwrap());
    assert!(Client::connect(server.grpc()).send([cpu("web", 1.0)]).is_err());
    assert_eq!(send(&server, &authority, None).unwrap().accepted, 1);
}

/// How long the server bears a peer that sends the beginning of a handshake, byte by byte.
fn borne(addr: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    tcp.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    let mut answer = [0; 64];
    while began.elapsed() < SOON {
        if tcp.write_all(&[0]).is_err() || matches!(tcp.read(&mut answer), Ok(0)) {
            break;
        }
    }
    began.elapsed()
}

#[test]
fn a_handshake_that_does_not_end_is_cut_off_in_time_on_both_ports() {
    let _alone = alone();
    let authority = Authority::new("ours");
    let server = Setup::new().tls(&authority.server()).start();
    for (addr, port) in [(server.grpc(), "grpc"), (server.http(), "rest")] {
        let borne = borne(addr);
        assert!(borne + Duration::from_millis(500) > HANDSHAKE && borne < HANDSHAKE + LATE, "{port}: {borne:?}");
        eventually(SOON, "it is counted", || refusals(&server, &authority, port, "tls_late") >= 1.0);
    }
}

#[test]
fn half_open_handshakes_hold_no_place_for_long_and_hold_up_no_stop() {
    let _alone = alone();
    let authority = Authority::new("ours");
    // There are 100 places for agents, and 256 for readers.
    let mut server = Setup::new().descriptors(400).tls(&authority.server()).start();
    let half_open = |addr, n| -> Vec<_> {
        let open = |_| {
            let mut tcp = TcpStream::connect(addr).unwrap();
            tcp.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
            tcp
        };
        (0..n).map(open).collect()
    };
    let began = Instant::now();
    let peers = [half_open(server.grpc(), 150), half_open(server.http(), 300)];
    assert_eq!(send(&server, &authority, None).unwrap().accepted, 1);
    assert_eq!(authority.ask(server.http(), "GET", "/status").unwrap().code, 200);
    assert!(began.elapsed() < 4 * (HANDSHAKE + LATE), "{:?}", began.elapsed());
    drop(peers);
    let _peers = [half_open(server.grpc(), 20), half_open(server.http(), 20)];
    let began = Instant::now();
    assert_eq!(server.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn files_that_cannot_be_used_are_refused_with_the_fix() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let pair = authority.server();
    let refused = |setup: Setup, words: &[&str]| {
        let (code, said) = setup.run();
        assert_eq!(code, 64, "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "`{word}` is not in: {said}"));
    };
    let tls = |pair: &Pair| Setup::new().tls(pair);
    refused(Setup::new().pair(&pair).args("--tls-cert server.pem"), &["--tls-cert needs --tls-key", "init"]);
    refused(Setup::new().pair(&pair).args("--tls-key server-key.pem"), &["--tls-key needs --tls-cert", "init"]);
    refused(Setup::new().args("--tls-client-ca ca.pem"), &["--tls-client-ca needs --tls-cert and --tls-key"]);
    refused(Setup::new().args("--tls-cert none.pem --tls-key none.pem"), &["--tls-cert", "none.pem", "No such file"]);
    refused(tls(&pair).file("server.pem", "hello"), &["--tls-cert", "no certificate in server.pem"]);
    refused(tls(&pair).file("server.pem", &pair.key), &["--tls-cert", "no certificate in server.pem"]);
    let cut = &pair.cert[..pair.cert.len() / 2];
    refused(tls(&pair).file("server.pem", cut), &["--tls-cert", "server.pem is damaged"]);
    refused(tls(&pair).secret("server-key.pem", &pair.cert), &["--tls-key", "no private key in server-key.pem"]);
    let mixed = Pair { cert: pair.cert.clone(), key: other.server().key };
    refused(tls(&mixed), &["server-key.pem is not that of the first certificate in server.pem"]);
    let open = tls(&pair);
    fs::set_permissions(open.cwd().join("server-key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    refused(open, &["others can read server-key.pem", "chmod 600 server-key.pem"]);
    let ca = |text: &str| tls(&pair).file("ca.pem", text).args("--tls-client-ca ca.pem");
    refused(ca("hello"), &["--tls-client-ca", "no certificate in ca.pem"]);
    refused(
        ca("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"),
        &["--tls-client-ca", "ca.pem cannot be used as an authority"],
    );
}

#[test]
fn an_expired_certificate_is_warned_of() {
    let authority = Authority::new("ours");
    let server = Setup::new().tls(&authority.server_until(2021)).start();
    let said = "the certificate in server.pem expired at 2021-01-01T00:00:00Z: nobody will trust it; make a new one";
    assert_eq!(server.logged(1, said)[0]["level"], "WARNING");
}

#[test]
fn an_address_that_others_can_reach_needs_tls_and_the_ports_token() {
    let authority = Authority::new("ours");
    let refused = |setup: Setup, flag: &str, words: &[&str]| {
        let (code, said) = setup.args(&format!("{flag} 0.0.0.0:0")).run();
        assert_eq!(code, 64, "{said}");
        for word in words.iter().chain(&[flag, "gopherwatch-server init --listen", "--insecure", "127.0.0.1"]) {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    };
    let token = "a-token-of-some-length";
    let (agent, read, admin) = ("GOPHERWATCH_AGENT_TOKEN", "GOPHERWATCH_READ_TOKEN", "GOPHERWATCH_ADMIN_TOKEN");
    let tls = || Setup::new().tls(&authority.server());
    refused(Setup::new(), "--grpc-addr", &["no TLS", agent]);
    refused(Setup::new(), "--http-addr", &["no TLS", read, admin]);
    refused(tls(), "--grpc-addr", &[agent]);
    refused(tls(), "--http-addr", &[read, admin]);
    refused(Setup::new().env(agent, token), "--grpc-addr", &["no TLS"]);
    refused(Setup::new().env(read, token), "--http-addr", &["no TLS"]);
    // Another port's token is none.
    refused(tls().env(read, token), "--grpc-addr", &[agent]);
    refused(tls().env(agent, token), "--http-addr", &[read, admin]);
    let wide = "--grpc-addr 0.0.0.0:0 --http-addr 0.0.0.0:0";
    for rest_token in [read, admin] {
        let server = tls().env(agent, token).env(rest_token, "another-token-of-some-length").args(wide).start();
        assert!(send(&server, &authority, None).is_err(), "the token is asked for");
        assert_eq!(authority.ask(server.http(), "GET", "/status").unwrap().code, 401);
        assert!(!server.log().text().contains("--insecure"), "nothing to warn of");
    }
    // What is waived is the refusal, and no token.
    let server = Setup::new().env(agent, token).args(wide).args("--insecure").start();
    let bearer = format!("Bearer {token}");
    assert!(server.client().send([cpu("web", 1.0)]).is_err());
    assert_eq!(server.client().send_with(&[("authorization", &bearer)], [cpu("web", 1.0)]).unwrap().accepted, 1);
    assert!(server.log().text().contains("can be reached from other hosts"), "{}", server.log().text());
}
