//! TLS: from the flags to the receipt, files that are replaced beneath a running agent, and what `doctor` says of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use gopherwatch_client::double::{Authority, Double, Issued, Listening, Tls};
use tempfile::{NamedTempFile, TempDir};
use tokio::process::Command;

use crate::support::program;

const HERE: &str = "127.0.0.1:0";

/// Files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn identity(&self, issued: &Issued) -> [String; 4] {
        let (cert, key) = (self.write("cert.pem", &issued.cert), self.write("key.pem", &issued.key));
        ["--cert".into(), cert, "--key".into(), key]
    }
}

fn https(server: &Listening) -> String {
    format!("https://{}", server.addr)
}

/// What ends by itself: its exit code and everything that it says.
async fn outcome(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let output: Output = program().args(arguments).envs(environment.iter().copied()).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

async fn send(server: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let words = [&["send", "--server", server, "--service", "web", "cpu_percent=1"], arguments].concat();
    outcome(&words, environment).await
}

async fn doctor(server: &str, arguments: &[&str]) -> (i32, String) {
    outcome(&[&["doctor", "--server", server, "--statsd-addr", "off"], arguments].concat(), &[]).await
}

fn has(said: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A server that is let go and comes back with a certificate of another authority, and asks who connects.
#[tokio::test]
async fn an_agent_whose_ca_is_replaced_goes_on_without_a_restart_and_loses_nothing() {
    let (old, new, clients, files) =
        (Authority::new("old"), Authority::new("new"), Authority::new("clients"), Files::new());
    let ca = files.write("ca.pem", &old.pem());
    let identity = files.identity(&old.issue(&["agent"]));
    let double = Double::new([]);
    let server = double.listen_secured(HERE, &Tls::new(old.issue(&["127.0.0.1"]))).await;
    let log = NamedTempFile::new().unwrap();
    let mut agent = program()
        .args(["--server", &https(&server), "--service", "web", "--interval", "50ms", "--statsd-addr", "off"])
        .args(["--log-format", "json", "--ca", &ca])
        .args(&identity)
        .stderr(Stdio::from(log.reopen().unwrap()))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    double.until("a receipt", |streams| streams.iter().any(|seen| seen.receipted > 0)).await;

    let addr = server.addr.to_string();
    drop(server);
    let _server = double.listen_secured(&addr, &Tls::new(new.issue(&["127.0.0.1"])).asking(&clients)).await;
    let lines = |part: &str| -> Vec<String> {
        let log = fs::read_to_string(log.path()).unwrap();
        log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while lines("cannot deliver").is_empty() {
        assert!(Instant::now() < deadline, "no warning");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let n_streams = double.streams().len();
    files.write("ca.pem", &new.pem());
    files.identity(&clients.issue(&["agent"]));
    double.until("more streams", |streams| streams[n_streams..].iter().any(|seen| seen.receipted > 0)).await;

    let pid = agent.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(agent.wait().await.unwrap().code(), Some(0));
    let receipted: Vec<u64> = double.receipted().iter().map(|report| report.sequence).collect();
    assert!(receipted.iter().copied().eq(1..=receipted.len() as u64), "{receipted:?}");
    assert!(double.receipted().last().unwrap().leaving);
    assert_eq!(lines("cannot deliver").len(), 1, "once in an outage");
    assert_eq!(lines("delivering again").len(), 1);
}

#[tokio::test]
async fn send_goes_by_tls_and_trusts_the_file_or_else_the_system() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let double = Double::new([]);
    let server = double.listen_secured(HERE, &Tls::new(authority.issue(&["127.0.0.1"]))).await;
    let server = https(&server);
    let (code, said) = send(&server, &["--ca", &ca], &[]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = send(&server, &[], &[("GOPHERWATCH_CA", &ca)]).await;
    assert_eq!(code, 0, "{said}");
    // The system's, where the usual variable says what that is.
    let (code, said) = send(&server, &[], &[("SSL_CERT_FILE", &ca)]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(double.receipted().len(), 3);

    let other = files.write("other.pem", &Authority::new("another CA").pem());
    let (code, said) = send(&server, &["--ca", &other], &[("SSL_CERT_FILE", &ca)]).await;
    assert_eq!(code, 1, "only what is in the file is trusted: {said}");
    has(&said, &["connecting to https://", "not trusted here", "give its CA with --ca"]);
    let (code, said) = send(&server, &[], &[("SSL_CERT_FILE", &other)]).await;
    assert_eq!(code, 1);
    has(&said, &["give its CA with --ca"]);
    let (code, said) = send(&server.replace("https", "http"), &[], &[]).await;
    assert_eq!(code, 1);
    has(&said, &["sending to http://", "say https://"]);
    assert_eq!(double.receipted().len(), 3);
}

#[tokio::test]
async fn flags_that_make_no_sense_together_and_files_that_cannot_be_used_are_usage_errors() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let empty = files.write("empty.pem", "");
    let [_, cert, _, key] = files.identity(&authority.issue(&["agent"]));
    let server = ["--server", "https://127.0.0.1:1"];
    for (arguments, says) in [
        (&["--ca", &ca][..], &["--ca: certificates are for TLS", "write the server as https://127.0.0.1:50051"][..]),
        (&["--server", "watch:1", "--cert", &cert, "--key", &key], &["--cert and --key:", "https://watch:1"]),
        (&[server[0], server[1], "--ca", &empty], &["--ca: ", "empty.pem has no certificate in it"]),
        (&[server[0], server[1], "--ca", "/no/such/file"], &["reading /no/such/file"]),
        (&[server[0], server[1], "--cert", &cert], &["--cert needs the private key", "--key FILE"]),
        (&[server[0], server[1], "--key", &key], &["--key needs the certificate", "--cert FILE"]),
        (&[server[0], server[1], "--cert", &ca, "--key", &key], &["is not that of the certificate"]),
    ] {
        for command in [&[][..], &["doctor"], &["send", "--service", "web", "a=1"]] {
            let (code, said) = outcome(&[command, arguments].concat(), &[]).await;
            assert_eq!(code, 64, "{arguments:?}: {said}");
            has(&said, says);
        }
    }
    // A line that is kept for later.
    let environment = [("GOPHERWATCH_CA", ""), ("GOPHERWATCH_CERT", ""), ("GOPHERWATCH_KEY", "")];
    let double = Double::new([]);
    let plain = double.listen(HERE).await;
    let (code, said) = send(&plain.addr.to_string(), &[], &environment).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_token_that_goes_in_the_clear_is_warned_of() {
    let files = Files::new();
    let token = files.write("token", "s3cret");
    let (code, said) = send("http://no-such-host.invalid", &["--token-file", &token], &[]).await;
    assert_eq!(code, 1);
    has(&said, &["warning: the token goes to http://no-such-host.invalid", "say https://"]);
    for server in ["https://no-such-host.invalid", "http://127.0.0.1:1"] {
        let (_, said) = send(server, &["--token-file", &token], &[]).await;
        assert!(!said.contains("warning"), "{said}");
    }
}

#[tokio::test]
async fn doctor_says_who_is_trusted_until_when_and_whether_the_server_asks() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let double = Double::new([]);
    let server = double.listen_secured(HERE, &Tls::new(authority.issue(&["127.0.0.1"]))).await;
    let (code, said) = doctor(&https(&server), &["--ca", &ca]).await;
    assert_eq!(code, 0, "{said}");
    let trusted = format!("TLS 1.3; the certificate is for 127.0.0.1 and trusted by {ca}, until 20");
    has(&said, &[&trusted, "asks for no client certificate", "gives receipts", "all is well"]);

    // Longer than the two weeks, and shorter.
    let server = double.listen_secured(HERE, &Tls::new(authority.issue_for(&["127.0.0.1"], -1.0, 14.5)).old()).await;
    let (_, said) = doctor(&https(&server), &["--ca", &ca]).await;
    has(&said, &["TLS 1.2; ", "all is well"]);
    let server = double.listen_secured(HERE, &Tls::new(authority.issue_for(&["127.0.0.1"], -1.0, 13.5))).await;
    let (code, said) = doctor(&https(&server), &["--ca", &ca]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["warn  tls", "for 13 days more", "renew the server's certificate", "1 to look at"]);
}

#[tokio::test]
async fn doctor_looks_at_the_clients_certificate_and_its_key() {
    let (authority, clients, files) = (Authority::new("CA"), Authority::new("clients"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let double = Double::new([]);
    let tls = Tls::new(authority.issue(&["127.0.0.1"]));
    let unasking = double.listen_secured(HERE, &tls).await;
    let asking = double.listen_secured(HERE, &tls.asking(&clients)).await;
    let (code, said) = doctor(&https(&asking), &["--ca", &ca]).await;
    assert_eq!(code, 1, "{said}");
    has(
        &said,
        &["FAIL  tls", "asks for a client certificate", "-> give one that the server trusts with --cert and --key"],
    );

    let identity = files.identity(&authority.issue(&["agent"]));
    let (code, said) = doctor(&https(&asking), &[&["--ca", &ca][..], &words(&identity)].concat()).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["FAIL  tls", "does not take the client certificate", "-> give another one"]);

    let identity = files.identity(&clients.issue(&["agent"]));
    let with = [&["--ca", &ca][..], &words(&identity)].concat();
    let (code, said) = doctor(&https(&asking), &with).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["takes that of --cert", "all is well"]);
    fs::set_permissions(&identity[3], Permissions::from_mode(0o640)).unwrap();
    let (code, said) = doctor(&https(&unasking), &with).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["--cert and --key are not used", "warn  tls", "others can read", "chmod 600"]);
}

#[tokio::test]
async fn doctor_says_what_is_wrong_with_tls_and_what_to_do() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let ca = files.write("ca.pem", &authority.pem());
    let double = Double::new([]);
    for (identity, says) in [
        (Authority::new("foreign").issue(&["127.0.0.1"]), &["not trusted here", "-> give its CA with --ca"][..]),
        (
            authority.issue(&["watch.example"]),
            &["not for 127.0.0.1, but for watch.example", "-> call the server by one"],
        ),
        (authority.issue_for(&["127.0.0.1"], -9.0, -1.0), &["expired on", "-> renew the server's certificate"]),
        (authority.issue_for(&["127.0.0.1"], 1.0, 9.0), &["not valid before", "-> the clock of this host"]),
    ] {
        let server = double.listen_secured(HERE, &Tls::new(identity)).await;
        let (code, said) = doctor(&https(&server), &["--ca", &ca]).await;
        assert_eq!(code, 1, "{said}");
        has(&said, &[&["FAIL  tls", "does not work here: 1 to mend"], says].concat());
    }
    let secured = double.listen_secured(HERE, &Tls::new(authority.issue(&["127.0.0.1"]))).await;
    let (code, said) = doctor(&secured.addr.to_string(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["FAIL  tls        what listens there speaks TLS", "-> say https://"]);

    let plain = double.listen(HERE).await;
    let (code, said) = doctor(&https(&plain), &["--ca", &ca]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["FAIL  tls        what listens there speaks no TLS", "-> say http://"]);
    let (code, said) = doctor(&plain.addr.to_string(), &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["ok    tls        not encrypted: nothing leaves this host", "all is well"]);
}
