//! The real server as a process: its binary, free ports, a data directory that survives it, and every way to end it.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    small_disk::SmallDisk,
    wait::{SOON, found},
};

/// A server that answers at all does so within this.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its binary.
    pub program: PathBuf,
    /// Its working directory: the rule file, the data, the log.
    pub folder: PathBuf,
    /// Of a MySQL; `None`: SQLite.
    pub database_url: Option<String>,
    /// How much room its data has.
    pub room: Room,
}

/// How much room a server's data has.
#[derive(Clone, Debug, Default)]
pub enum Room {
    /// The machine's disk.
    #[default]
    Plenty,
    /// A small disk of its own.
    Disk(Arc<SmallDisk>),
    /// `--journal-max`, in MiB.
    Journal(u64),
}

/// A running (or stopped, or killed) server. It ends with its value.
#[derive(Debug)]
pub struct Server {
    setup: Setup,
    child: Child,
    /// Where in the log this process began.
    log_from: u64,
    grpc: SocketAddr,
    http: SocketAddr,
    peak_kib: AtomicU64,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub fn start(setup: Setup) -> Self {
        let (child, log_from) = spawn(&setup);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let peak_kib = AtomicU64::new(0);
        let mut server = Self { setup, child, log_from, grpc: nowhere, http: nowhere, peak_kib };
        server.wait_until_ready();
        server
    }

    /// Starts it again, after its end, on the same data and other ports; [`Self::wait_until_ready`] tells when it is there.
    pub fn restart(&mut self) {
        (self.child, self.log_from) = spawn(&self.setup);
    }

    /// Waits until it says that it is ready, and where.
    pub fn wait_until_ready(&mut self) {
        if let Err(status) = self.ready_or_ended() {
            panic!("the server ended, {status}: see {}", self.setup.folder.join("server.log").display());
        }
    }

    /// Waits until it is ready, or has ended.
    pub fn ready_or_ended(&mut self) -> Result<(), ExitStatus> {
        let line = found(SOON, "the server is ready", || match self.child.try_wait().unwrap() {
            Some(status) => Some(Err(status)),
            None => self.log("ready").pop().map(Ok),
        })?;
        let addr = |key: &str| line[key].as_str().unwrap().parse().unwrap();
        (self.grpc, self.http) = (addr("grpc"), addr("http"));
        Ok(())
    }

    /// Whether it lives.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Where it takes reports.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Its data, as it is seen from here.
    pub fn data_dir(&self) -> PathBuf {
        match &self.setup.room {
            Room::Disk(disk) => disk.seen_at(),
            Room::Plenty | Room::Journal(_) => self.setup.folder.join("data"),
        }
    }

    /// What this process has said.
    pub fn said(&self) -> String {
        let mut text = String::new();
        let mut file = File::open(self.setup.folder.join("server.log")).unwrap();
        file.seek(SeekFrom::Start(self.log_from)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    /// Its lines with this message, of this process.
    pub fn log(&self, message: &str) -> Vec<Value> {
        let text = self.said();
        let lines = text.lines().filter(|line| line.contains(message));
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line["message"] == message)
            .collect()
    }

    /// Asks REST; what it says if it does not answer in time, or with an error.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        self.ask_within(ANSWER_WAIT, path)
    }

    /// The same, with a time-out.
    pub fn ask_within(&self, within: Duration, path: &str) -> Result<Value, String> {
        serde_json::from_str(&self.text_within(within, path)?).map_err(|err| err.to_string())
    }

    /// Asks REST for what is not JSON.
    pub fn text(&self, path: &str) -> Result<String, String> {
        self.text_within(ANSWER_WAIT, path)
    }

    fn text_within(&self, within: Duration, path: &str) -> Result<String, String> {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(within)).build().into();
        let mut answer = agent.get(format!("http://{}{path}", self.http)).call().map_err(|err| err.to_string())?;
        answer.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|err| err.to_string())
    }

    /// The balance of `/status`.
    pub fn balance(&self, within: Duration) -> Result<Balance, String> {
        // One service is enough: the balance is that of all.
        self.ask_within(within, "/status?limit=1").map(|status| Balance::of(&status["balance"]))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that any process of it has had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        self.look_at_memory();
        self.peak_kib.load(Ordering::Relaxed) / 1024
    }

    /// Notes the largest resident size so far. It is asked before each end: the kernel forgets it with the process.
    fn look_at_memory(&self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        self.peak_kib.fetch_max(peak.unwrap_or(0), Ordering::Relaxed);
    }

    /// Kills it as the kernel would.
    pub fn kill9(&mut self) {
        self.look_at_memory();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        self.look_at_memory();
        send_signal(self.child.id(), name);
    }

    /// Waits for its end; its exit code, `None` if a signal ended it.
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        found(within, "the server ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(setup: &Setup) -> (Child, u64) {
    let log = File::options().create(true).append(true).open(setup.folder.join("server.log")).unwrap();
    let log_from = log.metadata().unwrap().len();
    let mut command = match &setup.room {
        Room::Plenty => Command::new(&setup.program),
        Room::Disk(disk) => disk.command(&setup.program),
        Room::Journal(mib) => {
            let mut command = Command::new(&setup.program);
            command.args(["--journal-max", &format!("{mib}MiB")]);
            command
        }
    };
    // The caller's environment may name a database or set flags.
    command.env_clear().env("RUST_BACKTRACE", "1");
    if let Some(url) = &setup.database_url {
        command.env("DATABASE_URL", url);
    }
    let child = command
        .args(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--log-format", "json"])
        .arg("--config")
        .arg(setup.folder.join("rules.toml"))
        .arg("--data-dir")
        .arg(setup.folder.join("data"))
        .current_dir(&setup.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|err| panic!("{}: {err}; build the server first", setup.program.display()));
    (child, log_from)
}

/// Sends a signal: STOP, CONT, TERM.
pub(crate) fn send_signal(pid: u32, name: &str) {
    let kill = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(kill.success(), "process {pid} is gone");
}

/// The accounts of `/status`.
#[derive(Clone, Debug)]
pub struct Balance(Value);

impl Balance {
    fn of(balance: &Value) -> Self {
        Self(balance.clone())
    }

    /// One figure.
    pub fn get(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("/status has no figure {name}: {}", self.0))
    }

    /// Nothing is on its way any more.
    pub fn is_settled(&self) -> bool {
        self.get("queued") == 0 && self.get("pending") == 0
    }

    /// What does not add up, if anything.
    pub fn fault(&self) -> Option<String> {
        let sum = |names: &[&str]| names.iter().map(|name| self.get(name)).sum::<u64>();
        let received = self.get("received") == sum(&["accepted", "rejected", "duplicates", "queued"]);
        let events = self.get("events") == sum(&["stored", "pending", "dead_letter"]);
        let whole = received && events && self.get("dead_letter") == 0;
        (!whole).then(|| format!("the balance of /status: {}", self.0))
    }
}
