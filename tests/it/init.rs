//! `init`: what it makes is what a server needs that other hosts are to reach, and its words can be used as they are.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tonic::Code;

use crate::support::{
    client::Client,
    log::LogLines,
    reports::cpu,
    tls::{ask_trusting, trusted},
    wait::{SOON, found},
};

const FILES: [&str; 8] =
    ["admin.token", "agent.token", "ca-key.pem", "ca.pem", "read.token", "server-key.pem", "server.env", "server.pem"];

/// Its exit code, what it said, and what it complained of.
fn init(cwd: &Path, args: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gopherwatch-server"));
    let done = command.env_clear().arg("init").args(args.split_whitespace()).current_dir(cwd).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// Each file of the directory, with its content and mode.
fn files(dir: &Path) -> BTreeMap<String, (String, u32)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let file = |entry: fs::DirEntry| {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        (
            entry.file_name().into_string().unwrap(),
            (String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned(), mode),
        )
    };
    entries.map(file).collect()
}

/// The command below the line that begins like this.
fn command_below(said: &str, begin: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.starts_with(begin));
    lines.nth(1).unwrap_or_else(|| panic!("{begin}: {said}")).trim().to_owned()
}

/// What was printed, run by a shell; it ends with its value.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

fn shell(cwd: &Path, line: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).env_clear().env("PATH", "/usr/bin:/bin").current_dir(cwd);
    shell
}

fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn what_it_prints_starts_a_server_that_agents_and_readers_reach() {
    let dir = TempDir::with_prefix("gopherwatch init ").unwrap();
    let (grpc, http) = (free_port(), free_port());
    let args =
        format!("--listen 0.0.0.0:{grpc} --http-port {http} --host localhost --host monitor.example --data-dir data");
    let (code, said, complained) = init(dir.path(), &args);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    let data = dir.path().join("data");
    let made = files(&data);
    assert_eq!(made.keys().collect::<Vec<_>>(), FILES.iter().collect::<Vec<_>>());
    for (name, (content, mode)) in &made {
        let is_public = ["ca.pem", "server.pem"].contains(&name.as_str());
        assert_eq!(*mode, if is_public { 0o644 } else { 0o600 }, "{name}");
        // Secrets are in their files, and nowhere else.
        assert!(is_public || name == "server.env" || !said.contains(content.trim()), "{name} is in: {said}");
    }
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);

    let line = command_below(&said, "The server");
    let mut server = shell(dir.path(), &line);
    let mut server = Shell(server.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let log = LogLines::read(server.0.stderr.take().unwrap());
    found(SOON, "the server is ready", || {
        assert!(server.0.try_wait().unwrap().is_none(), "{}", log.text());
        log.with_message("ready").pop()
    });
    assert!(!log.text().contains("unknown environment variable"), "{}", log.text());

    // What the agent's line says is what a client needs.
    let agent = command_below(&said, "An agent");
    assert_eq!(
        agent,
        format!("gopherwatch-agent --server https://localhost:{grpc} --ca ca.pem --token-file agent.token")
    );
    let (ca, token) = (&made["ca.pem"].0, made["agent.token"].0.trim());
    let addr = format!("127.0.0.1:{grpc}").parse().unwrap();
    for name in ["localhost", "monitor.example"] {
        let client = Client::connect_tls(addr, trusted(ca, None).domain_name(name)).unwrap();
        let bearer = format!("Bearer {token}");
        assert_eq!(client.send_with(&[("authorization", &bearer)], [cpu("web", 99.0)]).unwrap().accepted, 1, "{name}");
        assert_eq!(client.send([cpu("web", 99.0)]).unwrap_err().code(), Code::Unauthenticated);
    }
    assert!(Client::connect_tls(addr, trusted(ca, None).domain_name("other.example")).is_err());

    let reading = command_below(&said, "Reading");
    let read = || String::from_utf8(shell(dir.path(), &reading).output().unwrap().stdout).unwrap();
    assert!(read().contains("\"service\":\"web\""), "{}", read());

    // And the agent's own programs take it as it is printed.
    let program = Path::new(env!("CARGO_BIN_EXE_gopherwatch-server")).with_file_name("gopherwatch-agent");
    let (_, parameters) = agent.split_once(' ').unwrap();
    let agent = |command: &str| {
        let mut line = shell(&data, &format!("exec '{}' {command} {parameters}", program.display()));
        line.stdin(Stdio::null());
        line
    };
    let sent = agent("send --service by-hand cpu_percent=42").output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let doctor = agent("doctor").output().unwrap();
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.status.success() && told.contains("trusted by ca.pem"), "{told}");
    let mut running = agent("--service by-agent");
    let _running = Shell(running.process_group(0).stderr(Stdio::null()).spawn().unwrap());
    for service in ["by-hand", "by-agent"] {
        found(SOON, service, || read().contains(&format!("\"service\":\"{service}\"")).then_some(()));
    }

    let at = format!("localhost:{http}");
    for (token, method, path, code) in [
        ("read.token", "GET", "/status", 200),
        ("read.token", "POST", "/-/reload", 403),
        ("admin.token", "POST", "/-/reload", 200),
        ("agent.token", "GET", "/status", 403),
    ] {
        let bearer = format!("Bearer {}", made[token].0.trim());
        let answer = ask_trusting(ca, &at, method, path, &[("authorization", &bearer)]).unwrap();
        assert_eq!(answer.code, code, "{token} {method} {path}");
    }

    // A new certificate of the same authority, which agents trust as they are.
    for name in ["server.pem", "server-key.pem"] {
        fs::rename(data.join(name), dir.path().join(name)).unwrap();
    }
    let (code, said, complained) = init(dir.path(), &format!("{args} --keep"));
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    let renewed = files(&data);
    for name in FILES {
        assert_eq!(renewed[name] != made[name], name.starts_with("server") && name.ends_with("pem"), "{name}");
    }
    let admin = format!("Bearer {}", made["admin.token"].0.trim());
    let answer = ask_trusting(ca, &at, "POST", "/-/reload", &[("authorization", &admin)]).unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(ask_trusting(ca, &at, "GET", "/healthz", &[]).unwrap().code, 200);
}

#[test]
fn what_is_there_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(init(dir.path(), "--listen monitor.example --dir made").0, 0);
    let data = dir.path().join("made");
    let before = files(&data);
    let (code, said, complained) = init(dir.path(), "--listen monitor.example --dir made");
    assert_eq!((code, said.as_str()), (64, ""));
    for word in FILES.iter().chain(&["--keep", "--data-dir", "nothing is written over"]) {
        assert!(complained.contains(word), "`{word}` is not in: {complained}");
    }
    assert_eq!(files(&data), before);
    let (code, said, _) = init(dir.path(), "--listen monitor.example --dir made --keep");
    assert!(code == 0 && said.contains("kept") && !said.contains("wrote"), "{said}");
    assert_eq!(files(&data), before);
    // Half of a pair, and an authority that is another one's.
    fs::remove_file(data.join("server-key.pem")).unwrap();
    let (code, _, complained) = init(dir.path(), "--listen monitor.example --dir made --keep");
    assert!(code == 64 && complained.contains("has server.pem and not server-key.pem"), "{complained}");
    fs::remove_file(data.join("server.pem")).unwrap();
    assert_eq!(init(dir.path(), "--listen monitor.example --dir other").0, 0);
    fs::copy(dir.path().join("other/ca-key.pem"), data.join("ca-key.pem")).unwrap();
    let (code, _, complained) = init(dir.path(), "--listen monitor.example --dir made --keep");
    assert!(code == 64 && complained.contains("are not those that `init` made together"), "{complained}");
    assert!(!data.join("server.pem").exists());
}

#[test]
fn what_it_cannot_use_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (args, words) in [
        ("", "--listen"),
        ("--listen https://monitor.example", "HOST:PORT"),
        ("--listen :port", "HOST:PORT"),
        ("--listen monitor.example --host https://other.example", "--host `https://other.example`"),
        ("--listen monitor.example --data-dir a'b", "quote"),
        ("--listen monitor.example --data-dir /dev/null/x", "/dev/null/x"),
    ] {
        let (code, said, complained) = init(dir.path(), args);
        assert!(code == 64 && said.is_empty() && complained.contains(words), "{args}: {code} {complained}");
    }
}
