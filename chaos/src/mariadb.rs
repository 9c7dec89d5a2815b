//! A private MariaDB server: its own data, its own port, and every way to fail.
//!
//! Making a data directory takes a second, so it is made once per version and copied. A server ends with its value.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

use mysql::{Conn, OptsBuilder, prelude::Queryable};
use tempfile::TempDir;

const START_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running (or stopped, or killed) server.
#[derive(Debug)]
pub struct Mariadb {
    dir: PathBuf,
    /// Removed with the server, unless somebody else gave it.
    _temporary: Option<TempDir>,
    port: u16,
    child: Mutex<Child>,
}

impl Mariadb {
    /// A new server, ready for connections.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("gopherwatch-mariadb-").tempdir().unwrap();
        let mut server = Self::start_in(dir.path());
        server._temporary = Some(dir);
        server
    }

    /// The same, with its files in this folder, which is left behind.
    pub fn start_in(dir: &Path) -> Self {
        let data = dir.join("data");
        run(Command::new("cp").arg("-r").arg(template()).arg(&data));
        // Between looking for a free port and taking it, another test can take it: then look again.
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let mut child = spawn(dir, port);
            match wait_until_ready(&mut child, port) {
                Ok(()) => {
                    return Self { dir: dir.to_owned(), _temporary: None, port, child: Mutex::new(child) };
                }
                Err(Gone) => continue,
            }
        }
        panic!("mariadbd does not start:\n{}", error_log(dir));
    }

    /// A server that several tests use at once, each with a database of its own. It ends with its last user.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Mariadb>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Where it takes connections.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The URL of `database`.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of the test's own, to no database.
    pub fn conn(&self) -> Conn {
        connect(self.port).unwrap()
    }

    /// The same, where it may be refused.
    pub fn try_conn(&self) -> mysql::Result<Conn> {
        connect(self.port)
    }

    /// Makes an empty database, in the character set that the server would choose.
    pub fn create_database(&self, database: &str) {
        self.conn().query_drop(format!("CREATE DATABASE {database}")).unwrap();
    }

    /// Makes a user who may do anything to `database`, and nothing else.
    pub fn create_user(&self, database: &str, user: &str) {
        let mut conn = self.conn();
        // Both, because the server knows its own address by either name.
        for host in ["127.0.0.1", "localhost"] {
            conn.query_drop(format!("CREATE USER '{user}'@'{host}'")).unwrap();
            conn.query_drop(format!("GRANT ALL ON {database}.* TO '{user}'@'{host}'")).unwrap();
        }
    }

    /// Stops it in mid-air: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
        // The signal is on its way to each thread; one that has not stopped yet may still answer.
        let tasks = format!("/proc/{}/task", self.child.lock().unwrap().id());
        let deadline = Instant::now() + START_WAIT_MAX;
        while !fs::read_dir(&tasks).unwrap().all(|task| is_stopped(&task.unwrap().path())) {
            assert!(Instant::now() < deadline, "mariadbd does not stop in mid-air");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills it as the kernel would.
    pub fn kill9(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it in order.
    pub fn stop(&self) {
        self.signal("TERM");
        self.child.lock().unwrap().wait().unwrap();
    }

    /// Starts it again after [`Self::kill9`] or [`Self::stop`]: same data, same port.
    pub fn restart(&self) {
        let mut child = spawn(&self.dir, self.port);
        let ready = wait_until_ready(&mut child, self.port);
        *self.child.lock().unwrap() = child;
        assert!(ready.is_ok(), "mariadbd does not start again:\n{}", error_log(&self.dir));
    }

    /// Begins to log every statement.
    pub fn general_log(&self) -> GeneralLog {
        let path = self.dir.join("general.log");
        let file = path.display();
        self.conn()
            .query_drop(format!("SET GLOBAL log_output = 'FILE', general_log_file = '{file}', general_log = ON"))
            .unwrap();
        GeneralLog(path)
    }

    fn signal(&self, name: &str) {
        let pid = self.child.lock().unwrap().id();
        run(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()));
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Errors mean that it is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Every statement that the server was sent, as it logs them.
#[derive(Debug)]
pub struct GeneralLog(PathBuf);

impl GeneralLog {
    /// The log so far. Ids stand in it as bytes.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap()).into_owned()
    }

    /// Executions so far of statements that insert alerts.
    pub fn n_inserts(&self) -> usize {
        let text = self.text();
        text.lines().filter(|line| line.contains("Execute") && line.contains("INSERT INTO alerts")).count()
    }
}

/// Whether a thread is stopped by a signal, or gone.
fn is_stopped(task: &Path) -> bool {
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    // The state stands behind the name, which is in parentheses.
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('T'))
}

/// The server ended before it was ready.
struct Gone;

fn spawn(dir: &Path, port: u16) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("error.log")).unwrap();
    Command::new(program("mariadbd"))
        .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1"])
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", dir.join("data").display()))
        .arg(format!("--socket={}", dir.join("mysqld.sock").display()))
        .arg(format!("--pid-file={}", dir.join("mysqld.pid").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn wait_until_ready(child: &mut Child, port: u16) -> Result<(), Gone> {
    let deadline = Instant::now() + START_WAIT_MAX;
    while connect(port).is_err() {
        if child.try_wait().unwrap().is_some() {
            return Err(Gone);
        }
        assert!(Instant::now() < deadline, "mariadbd takes no connection within {START_WAIT_MAX:?}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn connect(port: u16) -> mysql::Result<Conn> {
    let opts = OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(port)
        .user(Some("root"))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(Duration::from_secs(3)));
    Conn::new(opts)
}

fn error_log(dir: &Path) -> String {
    fs::read_to_string(dir.join("error.log")).unwrap_or_default()
}

/// A fresh data directory that nothing has run on, kept where Cargo keeps the files of tests.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let version = Command::new(program("mariadbd")).arg("--version").output().unwrap().stdout;
        let version = String::from_utf8_lossy(&version);
        let version = version.split_whitespace().nth(2).unwrap_or("unknown");
        let root = scratch();
        fs::create_dir_all(&root).unwrap();
        let template = root.join(format!("mariadb-{version}"));
        if !template.exists() {
            // Made aside and renamed, so that two test runs at once, or one cut short, leave a whole one or none.
            let aside = tempfile::Builder::new().prefix("mariadb-new-").tempdir_in(&root).unwrap();
            let data = aside.path().join("data");
            run(Command::new(program("mariadb-install-db"))
                .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"])
                .arg(format!("--datadir={}", data.display())));
            if let Err(err) = fs::rename(&data, &template) {
                assert!(template.exists(), "cannot keep the data directory: {err}");
            }
        }
        template
    })
}

/// The folder for tests' files of the target directory that this program was built into; the system's if it has left it.
fn scratch() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map_or_else(std::env::temp_dir, |target| target.join("tmp"))
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("this needs {name}: apt-get install mariadb-server"))
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
