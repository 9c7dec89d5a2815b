//! A server that asks for a token: the agent keeps what it has until it is let in.

use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use gopherwatch_client::double::Double;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::program;

async fn send(server: &str, token_file: &str) -> Output {
    let arguments = ["send", "--server", server, "--service", "web", "--token-file", token_file, "cpu_percent=1"];
    program().args(arguments).output().await.unwrap()
}

fn folder_with(token: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, token).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// A wrong token does not end the agent, and the right one, put into the same file, needs no restart.
#[tokio::test]
async fn with_a_wrong_token_reports_wait_and_with_the_right_one_they_arrive() {
    let double = Double::new([]);
    double.asks_for("s3cret");
    let server = double.listen("127.0.0.1:0").await;
    let (_folder, path) = folder_with("wrong\n");
    let address = server.addr.to_string();
    let mut agent = program()
        .args(["--server", &address, "--service", "web", "--interval", "100ms", "--token-file", &path])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    let refused = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it runs");
            if line.contains("cannot deliver") {
                return line;
            }
        }
    };
    let line = tokio::time::timeout(Duration::from_secs(10), refused).await.expect("a warning");
    assert!(line.contains("another token") && line.contains("--token-file"), "{line}");
    assert!(!line.contains("wrong"), "the token is nobody's business: {line}");
    assert!(double.streams().is_empty());

    fs::write(&path, "s3cret\n").unwrap();
    double.until("the first report", |streams| streams.iter().any(|seen| seen.receipted > 0)).await;
    assert_eq!(double.receipted()[0].sequence, 1, "nothing was dropped meanwhile");
}

#[tokio::test]
async fn send_says_that_the_token_is_wrong_and_a_missing_file_is_a_usage_error() {
    let double = Double::new([]);
    double.asks_for("s3cret");
    let server = double.listen("127.0.0.1:0").await;
    let address = server.addr.to_string();
    let (folder, path) = folder_with("wrong");
    let refused = send(&address, &path).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unauthenticated"), "{refused:?}");

    let missing = send(&address, folder.path().join("none").to_str().unwrap()).await;
    assert_eq!(missing.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--token-file"), "{missing:?}");

    let (_folder, path) = folder_with("s3cret");
    assert_eq!(send(&address, &path).await.status.code(), Some(0));
}
