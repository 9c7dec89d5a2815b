//! `doctor`: what is wrong is named, with the way out; exit code 0 only where an agent could work.

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use gopherwatch_client::double::Double;

use crate::support::program;

/// Its exit code, and what it says.
async fn doctor(arguments: &[&str]) -> (i32, String) {
    let output = program().arg("doctor").args(arguments).output().await.unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
    )
}

fn line<'a>(said: &'a str, begin: &str) -> &'a str {
    let words: Vec<_> = begin.split(' ').collect();
    let fits = |line: &&str| line.split_whitespace().take(words.len()).eq(words.iter().copied());
    said.lines().find(fits).unwrap_or_else(|| panic!("no line begins with {begin}: {said}"))
}

#[tokio::test]
async fn where_all_is_well_it_says_so_and_reports_nothing() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let own = std::process::id();
    let process = format!("me=pid:{}", pid_file(own).display());
    let (code, said) =
        doctor(&["--server", &server.addr.to_string(), "--statsd-addr", "127.0.0.1:0", "--process", &process]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.trim_end().ends_with("all is well"), "{said}");
    assert!(line(&said, "ok server").contains("gives receipts"));
    for begin in ["ok address", "ok token", "ok clock", "ok host", "ok statsd", "ok process", "ok buffer"] {
        line(&said, begin);
    }
    assert!(double.receipted().is_empty());
}

fn pid_file(pid: u32) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("gopherwatch-doctor-{pid}.pid"));
    fs::write(&path, pid.to_string()).unwrap();
    path
}

#[tokio::test]
async fn each_way_in_which_the_server_cannot_be_reached_has_its_advice() {
    let (code, said) = doctor(&["--server", "no-such-host.invalid"]).await;
    assert_eq!(code, 1);
    line(&said, "FAIL address");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = doctor(&["--server", &closed.to_string()]).await;
    assert_eq!(code, 1);
    line(&said, "FAIL port");
    assert!(said.contains("is gopherwatch-server running there"), "{said}");

    // REST's port instead of gRPC's.
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = http.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = http.accept().await.unwrap();
            let mut request = [0; 64];
            // A connection that only looks has nothing to say.
            if stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    });
    let (code, said) = doctor(&["--server", &addr.to_string()]).await;
    assert_eq!(code, 1, "{said}");
    line(&said, "FAIL server");
    assert!(said.contains("--grpc-addr"), "{said}");
}

#[tokio::test]
async fn a_missing_and_a_wrong_token_are_told_apart() {
    let double = Double::new([]);
    double.asks_for("s3cret");
    let server = double.listen("127.0.0.1:0").await;
    let server = server.addr.to_string();
    let (code, said) = doctor(&["--server", &server]).await;
    assert_eq!(code, 1);
    assert!(said.contains("by --token-file"), "{said}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "wrong").unwrap();
    let (code, said) = doctor(&["--server", &server, "--token-file", path.to_str().unwrap()]).await;
    assert_eq!(code, 1);
    assert!(said.contains("other agent tokens") && !said.contains("wrong"), "{said}");

    fs::write(&path, "s3cret").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let (code, said) = doctor(&["--server", &server, "--token-file", path.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{said}");
    assert!(line(&said, "warn token").contains("others can read"));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let (_, said) = doctor(&["--server", &server, "--token-file", path.to_str().unwrap()]).await;
    assert!(!said.contains("warn  token"), "{said}");
}

#[tokio::test]
async fn sources_that_give_nothing_are_doubtful_and_no_reason_to_fail() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = doctor(&[
        "--server",
        &server.addr.to_string(),
        "--statsd-addr",
        &taken.local_addr().unwrap().to_string(),
        "--process",
        "ghost=^no such program here$",
        "--scrape",
        &format!("shop=http://{closed}/metrics"),
    ])
    .await;
    assert_eq!(code, 0, "{said}");
    for begin in ["warn statsd", "warn process", "warn scrape"] {
        line(&said, begin);
    }
    assert!(said.contains("ghost: no process fits"), "{said}");
    assert!(said.trim_end().ends_with("3 to look at"), "{said}");
}

/// Everything below a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .flat_map(|entry| {
            let below = if entry.path().is_dir() { tree(&entry.path()) } else { Vec::new() };
            [below, vec![entry.path().display().to_string()]].concat()
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_spool_that_cannot_be_used_fails_with_its_own_advice_and_nothing_stays_behind() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let server = server.addr.to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path).display().to_string();
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("there")).unwrap();
    fs::write(at("there/doctor"), "somebody's own").unwrap();
    let before = tree(folder.path());
    for (dir, begin, says) in [
        (at("there"), "ok buffer", "can be written"),
        (at("new/and/deep"), "ok buffer", "can be made"),
        (at("file"), "FAIL buffer", "a file is in the way"),
        (at("file/below"), "FAIL buffer", "a file is in the way"),
        ("/proc/foo".to_owned(), "FAIL buffer", "give --spool-dir another place"),
    ] {
        let (code, said) = doctor(&["--server", &server, "--statsd-addr", "off", "--spool-dir", &dir]).await;
        assert_eq!(code, i32::from(begin.starts_with("FAIL")), "{dir}: {said}");
        line(&said, begin);
        assert!(said.contains(says), "{dir}: {said}");
    }
    assert_eq!(tree(folder.path()), before);
    assert_eq!(fs::read_to_string(at("there/doctor")).unwrap(), "somebody's own");

    let lock = fs::File::create(at("there/lock")).unwrap();
    fs::write(at("there/lock"), "process 77").unwrap();
    lock.try_lock().unwrap();
    let (code, said) = doctor(&["--server", &server, "--statsd-addr", "off", "--spool-dir", &at("there")]).await;
    assert_eq!(code, 0, "{said}");
    assert!(line(&said, "warn buffer").contains("in use (process 77)"), "{said}");
}

#[tokio::test]
async fn a_socket_for_statsd_is_tried_and_nothing_stays_behind() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let server = server.addr.to_string();
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path).display().to_string();
    let taken = UnixDatagram::bind(at("taken")).unwrap();
    drop(UnixDatagram::bind(at("orphan")).unwrap());
    fs::write(at("file"), "").unwrap();
    let before = tree(folder.path());
    for (path, begin, says) in [
        (at("free"), "ok statsd", "can be made"),
        (at("orphan"), "ok statsd", "can be made"),
        (at("taken"), "warn statsd", "somebody receives there"),
        (at("file"), "warn statsd", "no socket of an agent"),
        (at("nowhere/s"), "warn statsd", "make its directory first"),
        (at(&"long".repeat(40)), "warn statsd", "a shorter one"),
    ] {
        let arguments = ["--server", &server, "--statsd-addr", "off", "--statsd-socket", &path];
        let (code, said) = doctor(&arguments).await;
        assert_eq!(code, 0, "{said}");
        line(&said, begin);
        assert!(said.contains(says), "{path}: {said}");
    }
    drop(taken);
    assert_eq!(tree(folder.path()), before);
}

/// It used to wait for longer than the agent does.
#[tokio::test]
async fn a_target_that_is_too_slow_for_the_interval_is_told() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("shop=http://{}/metrics", slow.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = slow.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n").await;
            });
        }
    });
    let server = server.addr.to_string();
    let (_, said) = doctor(&["--server", &server, "--statsd-addr", "off", "--scrape", &url]).await;
    assert!(line(&said, "warn scrape").contains("no answer within 900ms"), "{said}");
    let (_, said) = doctor(&["--server", &server, "--statsd-addr", "off", "--scrape", &url, "--interval", "5s"]).await;
    line(&said, "ok scrape");
}
