//! TLS: who is trusted, who is not and why, files that change, and that nothing is ever sent without.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gopherwatch_client::double::{Authority, Double, Issued, Listening, Tls};
use gopherwatch_client::tls::TlsFilesError;
use gopherwatch_client::{Builder, Client, ConnectError};
use slog::{Drain, KV, Logger, OwnedKVList, Record, Serializer, o};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HERE: &str = "127.0.0.1:0";

/// Its lines, each with its keys.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn logger(&self) -> Logger {
        Logger::root(self.clone().fuse(), o!())
    }

    fn with(&self, part: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    async fn until(&self, part: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(line) = self.with(part).first() {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "no line has {part:?}: {:#?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        // Debug lines tell each attempt.
        if record.level().is_at_least(slog::Level::Info) {
            let mut line = Line(format!("{} {}", record.level(), record.msg()));
            record.kv().serialize(record, &mut line).unwrap();
            self.0.lock().unwrap().push(line.0);
        }
        Ok(())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0 += &format!(", {key}: {value}");
        Ok(())
    }
}

/// Files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn identity(&self, issued: &Issued) -> (PathBuf, PathBuf) {
        (self.write("cert.pem", &issued.cert), self.write("key.pem", &issued.key))
    }
}

fn fast(server: &str) -> Builder {
    Client::builder(server, "checkout").instance("a").interval(Duration::from_millis(20))
}

fn https(server: &Listening) -> String {
    format!("https://{}", server.addr)
}

async fn until_receipt(double: &Double) {
    double.until("a receipt", |streams| streams.iter().any(|seen| seen.receipted > 0)).await;
}

/// Closes it once everything has its receipt; each report arrived, once.
async fn all_arrived(client: Client, double: &Double) {
    let accounts = tokio::task::spawn_blocking(move || client.close(Duration::from_secs(20))).await.unwrap();
    assert_eq!((accounts.acknowledged, accounts.dropped), (accounts.sent, 0), "{accounts:?}");
    let receipted: Vec<u64> = double.receipted().iter().map(|report| report.sequence).collect();
    assert!(receipted.iter().copied().eq(1..=accounts.sent), "{receipted:?}");
}

#[tokio::test]
async fn reports_arrive_by_both_versions_of_tls_under_a_name_and_an_address() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    for old in [false, true] {
        for host in ["127.0.0.1", "localhost"] {
            let (double, tls) = (Double::new([]), Tls::new(authority.issue(&[host])));
            let server = double.listen_secured(HERE, &if old { tls.old() } else { tls }).await;
            let client = fast(&format!("https://{host}:{}", server.addr.port())).ca_file(&ca).connect().unwrap();
            until_receipt(&double).await;
            all_arrived(client, &double).await;
        }
    }
}

/// What a client says that cannot connect: the one warning, with what is wrong and what to do. It keeps its reports.
async fn said(builder: Builder, double: &Double) -> String {
    let lines = Lines::default();
    let client = builder.logger(lines.logger()).connect().unwrap();
    let line = lines.until("cannot deliver").await;
    let accounts = tokio::task::spawn_blocking(move || client.close(Duration::from_millis(300))).await.unwrap();
    assert_eq!((accounts.acknowledged, accounts.dropped), (0, 0), "{accounts:?}");
    assert!(double.streams().is_empty(), "nothing is sent to whom is not trusted");
    assert_eq!(lines.with("cannot deliver").len(), 1, "once in an outage");
    line
}

fn has(line: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(line.contains(word), "{word:?} is not in: {line}"));
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_trusted_is_said_with_the_reason_and_the_way_out() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let foreign = Authority::new("another CA");
    for (identity, words) in [
        (
            foreign.issue(&["127.0.0.1"]),
            &["issuer that is not trusted", "give its CA with --ca", "only what is in that file"][..],
        ),
        (
            authority.issue(&["watch.example", "10.1.2.3"]),
            &["not for 127.0.0.1, but for watch.example, 10.1.2.3", "by one of the names"],
        ),
        (authority.issue_for(&["127.0.0.1"], -30.0, -2.0), &["expired on 20", "clock says 20", "renew"]),
        (authority.issue_for(&["127.0.0.1"], 2.0, 30.0), &["not valid before 20", "probably behind"]),
        (authority.itself(), &["of an authority (CA:TRUE)", "CA:FALSE"]),
    ] {
        let double = Double::new([]);
        let server = double.listen_secured(HERE, &Tls::new(identity)).await;
        has(&said(fast(&https(&server)).ca_file(&ca), &double).await, words);
    }
}

#[tokio::test]
async fn without_a_ca_those_of_the_system_are_trusted_and_no_others() {
    let double = Double::new([]);
    let server = double.listen_secured(HERE, &Tls::new(Authority::new("CA").issue(&["127.0.0.1"]))).await;
    has(&said(fast(&https(&server)), &double).await, &["--ca"]);
}

#[tokio::test]
async fn a_server_without_tls_and_one_with_it_are_told_from_each_other() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());

    let double = Double::new([]);
    let server = double.listen(HERE).await;
    has(&said(fast(&https(&server)).ca_file(&ca), &double).await, &["speaks no TLS", "say http://"]);

    let double = Double::new([]);
    let server = double.listen_secured(HERE, &Tls::new(authority.issue(&["127.0.0.1"]))).await;
    has(&said(fast(&server.addr.to_string()), &double).await, &["speaks TLS", "say https://"]);

    for protocols in [&["http/1.1"][..], &[]] {
        let double = Double::new([]);
        let tls = Tls::new(authority.issue(&["127.0.0.1"])).speaking(protocols);
        let server = double.listen_secured(HERE, &tls).await;
        has(&said(fast(&https(&server)).ca_file(&ca), &double).await, &["not HTTP/2", "port 50051"]);
    }
}

/// One that closes each connection, and one that answers none: what they get to see is a handshake, each time.
#[tokio::test]
async fn there_is_no_falling_back_from_tls() {
    let listener = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let lines = Lines::default();
    let client = fast(&server).logger(lines.logger()).connect().unwrap();
    for n in 0..5 {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0x16, "a TLS handshake, connection {n}");
    }
    has(&lines.until("cannot deliver").await, &["no TLS", "closed the connection in the handshake"]);
    client.close(Duration::ZERO);
    // What it was still trying.
    let listener = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());

    // A fatal alert: protocol_version.
    let client = fast(&server).logger(lines.logger()).connect().unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).await.unwrap();
    has(&lines.until("neither TLS 1.2 nor 1.3").await, &["cannot deliver", "up to date"]);
    client.close(Duration::ZERO);
    drop(stream);
    let listener = tokio::net::TcpListener::bind(HERE).await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());

    let client = fast(&server).logger(lines.logger()).connect().unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0x16);
    has(&lines.until("no answer to the TLS handshake").await, &["cannot deliver", "stuck"]);
    client.close(Duration::ZERO);
}

#[tokio::test]
async fn a_server_that_asks_who_connects_takes_those_alone_whom_its_authority_knows() {
    let (authority, clients, files) = (Authority::new("CA"), Authority::new("CA of clients"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    for old in [false, true] {
        let tls = Tls::new(authority.issue(&["127.0.0.1"])).asking(&clients);
        let tls = if old { tls.old() } else { tls };
        // Where the server's word gets lost with the connection it is said all the same.
        let speechless = Tls::new(authority.issue(&["127.0.0.1"])).asking(&clients).hanging_up();
        for tls in [&tls, &tls, &speechless] {
            let double = Double::new([]);
            let server = double.listen_secured(HERE, tls).await;
            has(
                &said(fast(&https(&server)).ca_file(&ca), &double).await,
                &["asks for a client certificate", "--cert and --key"],
            );
            let (cert, key) = files.identity(&authority.issue(&["agent"]));
            let foreign = fast(&https(&server)).ca_file(&ca).identity_files(cert, key);
            has(&said(foreign, &double).await, &["does not take the client certificate", "another one", "--cert"]);
        }
        let double = Double::new([]);
        let server = double.listen_secured(HERE, &tls).await;
        let (cert, key) = files.identity(&clients.issue(&["agent"]));
        let client = fast(&https(&server)).ca_file(&ca).identity_files(cert, key).connect().unwrap();
        until_receipt(&double).await;
        all_arrived(client, &double).await;
    }
}

/// The server comes back with a certificate of another authority: from when that is in the file, everything arrives.
#[tokio::test]
async fn files_that_are_replaced_are_taken_without_a_restart_and_nothing_is_lost() {
    let (old, new, clients, files) =
        (Authority::new("old"), Authority::new("new"), Authority::new("clients"), Files::new());
    let ca = files.write("ca.pem", &old.pem());
    let (double, lines) = (Double::new([]), Lines::default());
    let server = double.listen_secured(HERE, &Tls::new(old.issue(&["127.0.0.1"]))).await;
    let (cert, key) = files.identity(&old.issue(&["agent"]));
    let builder = fast(&https(&server)).ca_file(&ca).identity_files(cert, key).logger(lines.logger());
    let client = builder.connect().unwrap();
    until_receipt(&double).await;

    let addr = server.addr.to_string();
    drop(server);
    let server = double.listen_secured(&addr, &Tls::new(new.issue(&["127.0.0.1"])).asking(&clients)).await;
    lines.until("cannot deliver").await;
    let n_streams = double.streams().len();
    files.write("ca.pem", &(old.pem() + &new.pem()));
    files.identity(&clients.issue(&["agent"]));
    double.until("more streams", |streams| streams[n_streams..].iter().any(|seen| seen.receipted > 0)).await;
    lines.until("delivering again").await;
    all_arrived(client, &double).await;
    drop(server);
}

/// Another process is halfway through writing it: it is named, and what waits is kept until it is whole.
#[tokio::test]
async fn a_file_that_breaks_while_it_runs_is_named_and_waited_for() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let (double, lines) = (Double::new([]), Lines::default());
    let tls = Tls::new(authority.issue(&["127.0.0.1"]));
    let server = double.listen_secured(HERE, &tls).await;
    let client = fast(&https(&server)).ca_file(&ca).logger(lines.logger()).connect().unwrap();
    until_receipt(&double).await;
    files.write("ca.pem", &authority.pem()[..100]);
    let addr = server.addr.to_string();
    drop(server);
    let n_streams = double.streams().len();
    let _server = double.listen_secured(&addr, &tls).await;
    lines.until("cannot deliver").await;
    files.write("ca.pem", &authority.pem());
    double.until("more streams", |streams| streams[n_streams..].iter().any(|seen| seen.receipted > 0)).await;
    all_arrived(client, &double).await;
}

#[test]
fn files_that_cannot_be_used_are_refused_at_once() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let (ca, key_alone) = (files.write("ca.pem", &authority.pem()), files.write("k.pem", &authority.itself().key));
    let issued = authority.issue(&["agent"]);
    let (cert, key) = files.identity(&issued);
    let refused = |builder: Builder| match builder.connect() {
        Err(ConnectError::Tls(err)) => err,
        other => panic!("{other:?}"),
    };
    let server = "https://127.0.0.1:1";
    let text = |err: TlsFilesError| gopherwatch_client::error::chain(&err);

    let plain = text(refused(fast("127.0.0.1:1").ca_file(&ca)));
    has(&plain, &["http://127.0.0.1:1/ asks for none", "write the server as https://127.0.0.1:1"]);
    assert!(matches!(refused(fast("http://a").identity_files(&cert, &key)), TlsFilesError::NotHttps { .. }));

    has(&text(refused(fast(server).ca_file(files.0.path().join("none")))), &["reading", "none", "No such file"]);
    for no_certificate in ["", "some text", "0\u{82}\u{3}"] {
        let path = files.write("no.pem", no_certificate);
        has(&text(refused(fast(server).ca_file(path))), &["no.pem has no certificate in it", "-----BEGIN CERTIFICATE"]);
    }
    has(&text(refused(fast(server).ca_file(&key_alone))), &["k.pem has no certificate"]);
    let cut = files.write("cut.pem", &authority.pem()[..200]);
    has(&text(refused(fast(server).ca_file(cut))), &["cut.pem is damaged"]);
    let other = files.write("other.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    has(&text(refused(fast(server).ca_file(other))), &["other.pem is damaged"]);

    has(
        &text(refused(fast(server).identity_files(&cert, &cert))),
        &["cert.pem has no private key", "without a passphrase"],
    );
    let sealed = issued.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let sealed = files.write("sealed.pem", &sealed);
    has(&text(refused(fast(server).identity_files(&cert, sealed))), &["sealed.pem has no private key", "passphrase"]);
    let mismatch = text(refused(fast(server).identity_files(&cert, &key_alone)));
    has(&mismatch, &["k.pem is not that of the certificate in", "cert.pem"]);
    let broken = files.write("broken.pem", &issued.key[..60]);
    let broken = text(refused(fast(server).identity_files(&cert, broken)));
    has(&broken, &["broken.pem is damaged"]);
    assert!(!broken.contains(&issued.key[40..50]), "a key is nobody's business: {broken}");
}

#[tokio::test]
async fn a_token_that_others_can_read_is_warned_of_once() {
    let files = Files::new();
    let token = files.write("token", "s3cret");
    for (server, warned) in
        [("http://no-such-host.invalid", 1), ("https://no-such-host.invalid", 0), ("http://127.0.0.1:1", 0)]
    {
        let lines = Lines::default();
        let client = fast(server).token_file(&token).logger(lines.logger()).connect().unwrap();
        lines.until("cannot deliver").await;
        client.close(Duration::ZERO);
        assert_eq!(lines.with("the token goes over the network in the clear").len(), warned, "{server}");
    }
}
