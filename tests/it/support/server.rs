//! The real server, started from outside: its own ports, data, working directory and environment.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use ureq::{http::HeaderMap, tls::TlsConfig};

use super::{
    client::Client,
    history::Row,
    log::LogLines,
    mariadb::Mariadb,
    wait::{SOON, eventually, found},
};

/// How a server is to be started.
#[derive(Clone)]
pub(crate) struct Setup {
    dir: Arc<TempDir>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    /// What `ulimit` is told before it starts.
    limits: Vec<String>,
    /// Kept alive as long as a server may use it.
    _database: Option<Arc<Mariadb>>,
}

impl Setup {
    /// On free ports of loopback, with SQLite, in an empty directory.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gopherwatch-it-").tempdir().unwrap();
        Self { dir: Arc::new(dir), args: Vec::new(), envs: Vec::new(), limits: Vec::new(), _database: None }
    }

    /// Adds arguments, separated by blanks.
    pub(crate) fn args(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// No file may become larger than this, until [`Server::unlimit_files`].
    pub(crate) fn soft_file_limit_kib(self, kib: u32) -> Self {
        self.limit(&format!("-S -f {kib}"))
    }

    /// So few descriptors at once, unless it asks for more.
    pub(crate) fn soft_descriptors(self, n: u32) -> Self {
        self.limit(&format!("-S -n {n}"))
    }

    /// So few descriptors at once, and no more for the asking.
    pub(crate) fn descriptors(self, n: u32) -> Self {
        self.limit(&format!("-n {n}"))
    }

    fn limit(mut self, limit: &str) -> Self {
        self.limits.push(limit.to_owned());
        self
    }

    /// Puts a file into the working directory.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.cwd().join(name), text).unwrap();
        self
    }

    /// Puts a file into the working directory that nobody else may read.
    pub(crate) fn secret(self, name: &str, text: &str) -> Self {
        let path = self.cwd().join(name);
        // A new one, so that a server that reads meanwhile finds the old one or this one, and none that others can read.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, path).unwrap();
        self
    }

    /// With these rules in the file that is read when it is there.
    pub(crate) fn rules(self, text: &str) -> Self {
        self.file("gopherwatch.toml", text)
    }

    /// With a database of `server`, which need not exist yet.
    pub(crate) fn database(self, server: &Arc<Mariadb>, name: &str) -> Self {
        Self { _database: Some(server.clone()), ..self }.env("DATABASE_URL", &server.url(name))
    }

    /// The name of its database.
    pub(crate) fn database_name(&self) -> String {
        let url = self.envs.iter().find(|(name, _)| name == "DATABASE_URL").unwrap();
        url.1.rsplit('/').next().unwrap().to_owned()
    }

    /// The working directory.
    pub(crate) fn cwd(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Server {
        self.start_or_end().unwrap_or_else(|(code, said)| panic!("the server ended, {code}:\n{said}"))
    }

    /// Starts it and waits until it is ready, or has ended by itself: then its exit code and what it said.
    pub(crate) fn start_or_end(&self) -> Result<Server, (i32, String)> {
        let (child, log) = self.spawn();
        let mut server = Server { setup: self.clone(), child, log, grpc: None, http: None };
        let ready = found(SOON, "the server is ready, or has ended", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                server.log.read_to_end();
                return Some(Err((status.code().unwrap(), server.log.text())));
            }
            server.log.lines().into_iter().find(|line| line.contains("ready") && line.contains("grpc")).map(Ok)
        })?;
        server.grpc = Some(from_here(addr_after("grpc", &ready)));
        server.http = Some(from_here(addr_after("http", &ready)));
        Ok(server)
    }

    /// Starts what is expected to end by itself; its exit code and what it said.
    pub(crate) fn run(&self) -> (i32, String) {
        let (mut child, log) = self.spawn();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > SOON {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server did not end by itself:\n{}", log.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        log.read_to_end();
        let stdout = fs::read_to_string(self.dir.path().join("stdout")).unwrap();
        (status.code().unwrap(), log.text() + &stdout)
    }

    fn spawn(&self) -> (Child, LogLines) {
        let program = env!("CARGO_BIN_EXE_gopherwatch-server");
        let mut command = if self.limits.is_empty() {
            Command::new(program)
        } else {
            let limits: String = self.limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
            let mut shell = Command::new("/bin/bash");
            shell.args(["-c", &format!("{limits}exec \"$0\" \"$@\""), program]);
            shell
        };
        // The caller's environment may name a database or set flags.
        command.env_clear().env("RUST_BACKTRACE", "1").envs(self.envs.iter().cloned());
        for flag in ["--grpc-addr", "--http-addr"] {
            if !self.args.iter().any(|arg| arg == flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        let stdout = fs::File::create(self.dir.path().join("stdout")).unwrap();
        let mut child = command
            .args(&self.args)
            .current_dir(self.cwd())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = LogLines::read(child.stderr.take().unwrap());
        (child, log)
    }
}

/// The address behind `key`, in either format.
fn addr_after(key: &str, line: &str) -> SocketAddr {
    let rest = &line[line.rfind(key).unwrap()..];
    let begin = rest.find(|c: char| c.is_ascii_digit()).unwrap();
    let addr: String = rest[begin..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    addr.parse().unwrap()
}

/// Where a listener on every address is asked from this host.
fn from_here(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr }
}

/// A running server. It ends with its value.
pub(crate) struct Server {
    setup: Setup,
    child: Child,
    log: LogLines,
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

/// An answer of REST.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.body))
    }
}

/// Asks the REST of a server that may be gone, with these headers.
pub(crate) fn ask(http: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
    ask_with(TlsConfig::default(), &format!("http://{http}{path}"), method, headers)
}

/// The same, of whomever this `tls` trusts.
pub(crate) fn ask_with(
    tls: TlsConfig,
    url: &str,
    method: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .tls_config(tls)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(()).unwrap())?;
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
    Ok(Answer { code: answer.status().as_u16(), headers: answer.headers().clone(), body })
}

impl Server {
    /// With nothing said: SQLite, the built-in rules.
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.grpc.unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http.unwrap()
    }

    /// A new connection of an agent.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.grpc())
    }

    /// Asks REST.
    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(self.http(), "GET", path, &[]).unwrap_or_else(|err| panic!("{path}: {err}"))
    }

    /// The same, if it answers well.
    pub(crate) fn try_get(&self, path: &str) -> Option<Answer> {
        ask(self.http(), "GET", path, &[]).ok().filter(|answer| answer.code == 200)
    }

    /// Has REST change something.
    pub(crate) fn post(&self, path: &str) -> Answer {
        ask(self.http(), "POST", path, &[]).unwrap_or_else(|err| panic!("{path}: {err}"))
    }

    /// Has REST remove something.
    pub(crate) fn delete(&self, path: &str) -> Answer {
        ask(self.http(), "DELETE", path, &[]).unwrap_or_else(|err| panic!("{path}: {err}"))
    }

    /// `/status`.
    pub(crate) fn status(&self) -> Value {
        self.get("/status").json()
    }

    /// One service of `/status`, if it is known.
    pub(crate) fn service(&self, name: &str) -> Option<Value> {
        let answer = self.get(&format!("/status/{name}"));
        (answer.code == 200).then(|| answer.json())
    }

    /// The status of one service, or nothing.
    pub(crate) fn status_of(&self, name: &str) -> String {
        self.service(name).map_or_else(String::new, |service| service["status"].as_str().unwrap().to_owned())
    }

    /// Every row of `/alerts/history` for these parameters, newest first, paged through to the end.
    pub(crate) fn history(&self, parameters: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/alerts/history?limit=1000&{parameters}{cursor}");
            // A database that has just come, or is in trouble, is asked again, as Retry-After says.
            let answer =
                found(SOON, "the history answers", || Some(self.get(&path)).filter(|answer| answer.code != 503));
            assert_eq!(answer.code, 200, "{answer:?}");
            let page = answer.json();
            rows.extend(page["alerts"].as_array().unwrap().iter().map(Row::of));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// The history, once it has `n` rows. More are a fault at once.
    pub(crate) fn history_of(&self, n: usize, parameters: &str) -> Vec<Row> {
        found(SOON, &format!("{n} rows in the history"), || {
            let rows = self.history(parameters);
            assert!(rows.len() <= n, "{} rows instead of {n}: {rows:#?}", rows.len());
            (rows.len() == n).then_some(rows)
        })
    }

    /// Waits until every event is in the store and the accounts balance (I4).
    pub(crate) fn settle(&self) -> Value {
        found(Duration::from_secs(90), "the accounts balance and nothing is pending", || {
            let balance = self.status()["balance"].clone();
            let count = |name: &str| balance[name].as_u64().unwrap();
            let decided = count("accepted") + count("rejected") + count("duplicates");
            let done = count("received") == decided && count("queued") == 0 && count("pending") == 0;
            assert_eq!(count("dead_letter"), 0, "{balance}");
            (done && count("events") == count("stored")).then_some(balance)
        })
    }

    /// A figure of `/metrics`, all of its series added up.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let series = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// What it has logged since its start.
    pub(crate) fn log(&self) -> &LogLines {
        &self.log
    }

    /// The lines of one message, once there are `n` of them.
    pub(crate) fn logged(&self, n: usize, message: &str) -> Vec<Value> {
        found(SOON, &format!("{n} lines `{message}` in the log"), || {
            let lines = self.log.with_message(message);
            (lines.len() >= n).then_some(lines)
        })
    }

    /// Sends it a signal: TERM, INT, HUP, STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
    }

    /// Raises the limit on file sizes to what it was before the test set one.
    pub(crate) fn unlimit_files(&self) {
        self.limit("--fsize=unlimited:");
    }

    /// From here on it may have only so many files and connections open; what is open stays so.
    pub(crate) fn limit_open_files(&self, n: u32) {
        self.limit(&format!("--nofile={n}:"));
    }

    fn limit(&self, limit: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("prlimit").args(["--pid", &pid, limit]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Waits for its end; its exit code.
    pub(crate) fn exit_code(&mut self, within: Duration) -> i32 {
        let code = self.exit_code_unread(within);
        self.log.read_to_end();
        code
    }

    /// The same, while nobody reads its log.
    pub(crate) fn exit_code_unread(&mut self, within: Duration) -> i32 {
        let status = found(within, "the server ends", || self.child.try_wait().unwrap());
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }

    /// Waits for its end, of whatever kind.
    pub(crate) fn ended(&mut self, within: Duration) {
        found(within, "the server ends", || self.child.try_wait().unwrap());
    }

    /// Ends it in order, and says with which code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal("TERM");
        self.exit_code(Duration::from_secs(15))
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another one on the same data, on ports of its own unless `args` say otherwise. This one must have ended.
    pub(crate) fn start_again(&mut self, args: &str) -> Self {
        assert!(self.child.try_wait().unwrap().is_some(), "two servers on one journal");
        self.setup.clone().args(args).start()
    }

    /// The largest resident memory so far, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Seconds of processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which is in parentheses: user and system time, in hundredths of a second.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// The name of its database.
    pub(crate) fn database(&self) -> String {
        self.setup.database_name()
    }

    /// Waits until connecting is refused.
    pub(crate) fn refuses_connections(&self) {
        eventually(SOON, "new connections are refused", || TcpStream::connect(self.grpc()).is_err());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.log.read_to_end();
            let lines = self.log.lines();
            let shown: Vec<_> = lines.iter().map(|line| line.chars().take(600).collect::<String>()).collect();
            let from = shown.len().saturating_sub(100);
            print_log(&format!("the server's log, its last lines of {}:\n{}", shown.len(), shown[from..].join("\n")));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows the log of its server")]
fn print_log(text: &str) {
    eprintln!("{text}");
}
