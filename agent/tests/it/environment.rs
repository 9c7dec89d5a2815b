//! `.env` and the environment: what wins, what is refused, what is warned of.

use std::fs;
use std::process::{Output, Stdio};

use gopherwatch_client::double::Double;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::program;

/// A working directory with this `.env`.
fn directory(env_file: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(".env"), env_file).unwrap();
    dir
}

fn agent(dir: &TempDir, arguments: &str) -> Command {
    let mut command = program();
    command.current_dir(dir.path()).args(arguments.split_whitespace());
    command
}

/// Its log up to the line with this in it.
async fn log_until(mut agent: Command, part: &str) -> Vec<String> {
    let mut child = agent.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = Vec::new();
    loop {
        let Some(line) = lines.next_line().await.unwrap() else { panic!("it ended: {log:?}") };
        log.push(line);
        if log.last().is_some_and(|line| line.contains(part)) {
            return log;
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn the_environment_wins_over_the_env_file_and_flags_over_both() {
    let dir = directory("GOPHERWATCH_SERVICE=from-file\nGOPHERWATCH_SERVER='127.0.0.1:1'\n# a comment\n");
    let started = async |arguments: &str, variable: Option<&str>| {
        let mut agent = agent(&dir, arguments);
        agent.args(["--statsd-addr", "off"]).envs(variable.map(|value| ("GOPHERWATCH_SERVICE", value)));
        log_until(agent, "started").await.pop().unwrap()
    };
    let line = started("", None).await;
    assert!(line.contains("from-file") && line.contains("http://127.0.0.1:1/"), "{line}");
    assert!(started("", Some("from-environment")).await.contains("from-environment"));
    assert!(started("--service from-flag", Some("from-environment")).await.contains("from-flag"));
}

#[tokio::test]
async fn send_and_doctor_read_it_too() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let dir = directory(&format!("GOPHERWATCH_SERVER={}\nGOPHERWATCH_SERVICE=checkout\n", server.addr));
    let output = agent(&dir, "send cpu_percent=97").output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(double.receipted()[0].service_name, "checkout");
    let output = agent(&dir, "doctor --statsd-addr 127.0.0.1:0").output().await.unwrap();
    assert!(said(&output).contains(&format!("http://{}/ gives receipts", server.addr)), "{}", said(&output));
    assert!(said(&output).contains("of checkout/"), "{}", said(&output));
}

#[tokio::test]
async fn a_malformed_line_exits_64_and_is_said_by_its_number_without_its_secret() {
    let dir = directory("GOPHERWATCH_SERVICE=web\n\nDATABASE_URL mysql://root:hunter2@db/x\n");
    for arguments in ["", "send --service web cpu_percent=1", "doctor"] {
        let output = agent(&dir, arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments}");
        let said = said(&output);
        assert!(said.contains(".env, line 3") && !said.contains("hunter2"), "{said}");
    }
}

/// What only the server knows is no mistake: one file may serve them both.
#[tokio::test]
async fn an_unknown_variable_is_warned_of_and_the_servers_are_known() {
    let double = Double::new([]);
    let server = double.listen("127.0.0.1:0").await;
    let dir = directory(&format!(
        "GOPHERWATCH_SERVER={}\nGOPHERWATCH_WORKERS=2\nDATABASE_URL=mysql://db/x\nDB_PASSWORD=x\n\
         GOPHERWATCH_ADMIN_TOKEN_FILE=/x\nGOPHERWATCH_SEVRER=x\n",
        server.addr
    ));
    let with_another = |arguments: &str| {
        let mut agent = agent(&dir, arguments);
        agent.env("DATABASE_ULR", "x");
        agent
    };
    let is_warned = |lines: &[String], word: &str| {
        let of = |name: &str| lines.iter().filter(|line| line.contains(name) && line.contains(word)).count();
        assert_eq!((of("DATABASE_ULR"), of("GOPHERWATCH_SEVRER")), (1, 1), "{lines:?}");
        let n_warned = lines.iter().filter(|line| line.contains(word)).count();
        assert_eq!(n_warned, 2, "{lines:?}");
    };
    let log = log_until(with_another("--statsd-addr off --log-format json"), "started").await;
    is_warned(&log, "\"WARN");
    assert!(log[0].contains("unknown environment variable DATABASE_ULR"), "{log:?}");

    let output = with_another("send --service web cpu_percent=1").output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8(output.stderr).unwrap();
    is_warned(&stderr.lines().map(str::to_owned).collect::<Vec<_>>(), "warning: unknown environment variable");

    let output = with_another("doctor --statsd-addr 127.0.0.1:0").output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    is_warned(&said(&output).lines().map(str::to_owned).collect::<Vec<_>>(), "warn  variable");
}

/// Files of variables keep lines for later, and a value over several lines ends in a break.
#[tokio::test]
async fn an_empty_variable_is_as_good_as_none_and_a_break_at_the_end_says_nothing() {
    let dir = directory("");
    let with = |name: &str, value: &str| {
        let mut agent = agent(&dir, "--statsd-addr off --log-format json --service host");
        agent.env(name, value);
        agent
    };
    for name in ["GOPHERWATCH_TOKEN_FILE", "GOPHERWATCH_STATSD_SOCKET", "GOPHERWATCH_MAPPING"] {
        let log = log_until(with(name, ""), "\"started\"").await;
        assert!(!log.concat().contains("WARN"), "{name}: {log:?}");
    }
    // Other tests' agents have patterns in their command lines, which must not be these.
    let processes = format!("web=empty-variable-{0}\n\nshop=empty-variable-{0}\n", std::process::id());
    let log = log_until(with("GOPHERWATCH_PROCESS", &processes), "\"service\":\"shop\"").await;
    assert_eq!(log.iter().filter(|line| line.contains("no process of this service")).count(), 2, "{log:?}");
    let output = agent(&dir, "--token-file").arg("").output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "on the command line it is a mistake: {}", said(&output));
}
