//! An agent: a process of its own, so that it can be killed; `chaos agent` is what it runs.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    generator::Shape,
    sender::{Options, Sender},
    server::send_signal,
    wait::found,
};

/// What an agent says once it listens to signals.
const READY: &[u8] = b"ready\n";

/// What an agent is to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// Calls at once.
    #[arg(long, default_value_t = 2)]
    pub streams: u32,
    /// Instances of each stream.
    #[arg(long, default_value_t = 20)]
    pub instances: u32,
    /// Milliseconds from one report of each instance to the next.
    #[arg(long, default_value_t = 40)]
    pub pace_ms: u64,
    /// Milliseconds after which a call ends at the latest, for its receipt.
    #[arg(long, default_value_t = 1_000)]
    pub rotate_ms: u64,
    /// What instances report.
    #[arg(long, value_enum, default_value_t = Shape::Walk)]
    pub shape: Shape,
    /// Of everything that is random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Sends until SIGTERM, and then until everything has its receipt.
pub fn run(name: &str, server: &str, ledgers: &Path, load: &Load) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut terminate = runtime.block_on(async { signal(SignalKind::terminate()) })?;
    // From here on a SIGTERM is heard: whoever started this process waits for that.
    io::stdout().write_all(READY)?;
    io::stdout().flush()?;
    let (stop, stopped) = watch::channel(false);
    // A thread for each stream: it blocks while its ledger goes to the disk, and must not hold up the others.
    let streams: Vec<_> = (0..load.streams)
        .map(|n| {
            let options = Options {
                server: server.to_owned(),
                stream: format!("{name}{n}"),
                n_instances: load.instances,
                shape: load.shape,
                pace: Duration::from_millis(load.pace_ms),
                rotate: Duration::from_millis(load.rotate_ms),
                seed: load.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(n)),
            };
            let (ledgers, stopped) = (ledgers.to_owned(), stopped.clone());
            thread::Builder::new().name(format!("stream-{n}")).spawn(move || {
                let sender = Sender::open(options, &ledgers)?;
                Builder::new_current_thread().enable_all().build()?.block_on(sender.run(stopped))
            })
        })
        .collect::<io::Result<_>>()?;
    runtime.block_on(terminate.recv());
    // Nobody listens any more once every stream has ended.
    let _ = stop.send(true);
    streams.into_iter().try_for_each(|stream| stream.join().map_err(|_| io::Error::other("a stream's thread died"))?)
}

/// A running agent process. It ends with its value.
#[derive(Debug)]
pub struct Agent {
    program: PathBuf,
    name: String,
    server: String,
    folder: PathBuf,
    load: Load,
    child: Child,
}

impl Agent {
    /// Starts it: `program` is the chaos binary, `folder` has a folder `ledgers`.
    pub fn start(program: &Path, name: &str, server: &str, folder: &Path, load: Load) -> Self {
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let child = spawn(&program, name, server, &folder, &load);
        Self { program, name: name.to_owned(), server: server.to_owned(), folder, load, child }
    }

    /// Kills it as the kernel would.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on its ledgers.
    pub fn restart(&mut self) {
        self.child = spawn(&self.program, &self.name, &self.server, &self.folder, &self.load);
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    /// Waits until it has stopped by itself: all that it sent has receipts.
    pub fn wait_drained(&mut self, within: Duration) {
        let status = found(within, "an agent's last reports have receipts", || self.child.try_wait().unwrap());
        assert!(status.success(), "{} ended, {status}: see {}.log", self.name, self.name);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, name: &str, server: &str, folder: &Path, load: &Load) -> Child {
    let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
    let shape = if load.shape == Shape::Storm { "storm" } else { "walk" };
    let mut child = Command::new(program)
        .args(["agent", "--name", name, "--server", server, "--shape", shape])
        .arg("--ledgers")
        .arg(folder.join("ledgers"))
        .args(["--streams", &load.streams.to_string(), "--instances", &load.instances.to_string()])
        .args(["--pace-ms", &load.pace_ms.to_string(), "--rotate-ms", &load.rotate_ms.to_string()])
        .args(["--seed", &load.seed.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut said = [0; READY.len()];
    let read = child.stdout.take().unwrap().read_exact(&mut said);
    assert!(read.is_ok() && said == READY, "{name} does not start: see {name}.log");
    child
}
