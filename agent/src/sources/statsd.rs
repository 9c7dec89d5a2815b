//! StatsD: what programs of this host send by UDP or through a Unix socket, reported at each tick.
//!
//! Receiving is a task on the agent's one thread: it reads what is there, gives way to the others now and then (tokio
//! makes it), and never waits for anything but packets. What is received is the kernel's to keep until then, so its
//! buffer is enlarged.

mod figures;
mod intake;
mod parse;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gopherwatch_client::trouble::{Say, Trouble};
use slog::{Logger, info, o, warn};
use socket2::{Domain, Socket, Type};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::task::JoinHandle;

use super::{Round, Source};
use crate::mapping::Mapping;
use intake::{Intake, Problems};

/// The largest packet there is.
const PACKET_BYTES: usize = 64 * 1024;
/// Asked of the kernel, which may give less (`net.core.rmem_max`): some 10,000 packets, at 50,000/s for 200 ms.
const RECEIVE_BUFFER: usize = 4 << 20;

/// After an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// By UDP.
    pub addr: Option<SocketAddr>,
    /// Through a Unix datagram socket.
    pub socket: Option<PathBuf>,
}

/// The source.
#[derive(Debug)]
pub struct Statsd {
    intake: Arc<Mutex<Intake>>,
    receivers: Vec<JoinHandle<()>>,
    /// To be removed at the end.
    socket: Option<PathBuf>,
    malformed: Trouble,
    beyond: Trouble,
    log: Logger,
}

impl Statsd {
    /// Listens, inside a tokio runtime. Where it cannot, a warning says so, and the agent goes on without.
    ///
    /// Lines without a tag are about this service and instance, valid names.
    pub fn new(options: Options, service: String, instance: String, mapping: Mapping, log: &Logger) -> Self {
        let intake = Arc::new(Mutex::new(Intake::new(service, instance, mapping, Instant::now())));
        let log = log.new(o!("source" => "statsd"));
        let mut receivers = Vec::new();
        if let Some(addr) = options.addr {
            match bind_udp(addr) {
                Ok(socket) => {
                    let addr = socket.local_addr().unwrap_or(addr);
                    info!(log, "taking StatsD by UDP"; "addr" => %addr);
                    receivers.push(tokio::spawn(receive(Receiver::Udp(socket), Arc::clone(&intake), log.clone())));
                }
                Err(err) => warn!(log, "no StatsD by UDP: --statsd-addr says where to take it, or off";
                    "addr" => %addr, "error" => %err),
            }
        }
        let mut bound = None;
        if let Some(path) = options.socket {
            match bind_unix(&path) {
                Ok(socket) => {
                    info!(log, "taking StatsD through a socket"; "path" => %path.display());
                    receivers.push(tokio::spawn(receive(Receiver::Unix(socket), Arc::clone(&intake), log.clone())));
                    bound = Some(path);
                }
                Err(err) => warn!(log, "no StatsD through a socket: --statsd-socket says where to take it";
                    "path" => %path.display(), "error" => %err),
            }
        }
        let (malformed, beyond) = (Trouble::default(), Trouble::default());
        Self { intake, receivers, socket: bound, malformed, beyond, log }
    }

    fn tell(&mut self, problems: Problems, now: Instant) {
        self.malformed.over_if_old(now);
        self.beyond.over_if_old(now);
        if problems.malformed > 0 {
            let example = problems.example.unwrap_or_default();
            match self.malformed.happened(problems.malformed, now) {
                Say::First => warn!(self.log, "malformed StatsD lines are ignored";
                    "example" => example, "lines" => problems.malformed),
                Say::Again(episode) => warn!(self.log, "malformed StatsD lines are ignored";
                    "example" => example, "lines" => episode.count, "for_seconds" => episode.seconds()),
                Say::Nothing => {}
            }
        }
        if problems.beyond > 0 {
            match self.beyond.happened(problems.beyond, now) {
                Say::First => warn!(self.log, "more StatsD names or values than are kept: the others are ignored";
                    "lines" => problems.beyond),
                Say::Again(episode) => warn!(self.log, "still more StatsD names or values than are kept";
                    "lines" => episode.count, "for_seconds" => episode.seconds()),
                Say::Nothing => {}
            }
        }
    }
}

impl Source for Statsd {
    fn read(&mut self, round: &mut Round) {
        let now = Instant::now();
        let problems = lock(&self.intake).tick(round, now);
        self.tell(problems, now);
    }

    fn remap(&mut self, mapping: &Mapping) {
        lock(&self.intake).remap(mapping);
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        self.receivers.iter().for_each(JoinHandle::abort);
        if let Some(path) = &self.socket {
            // Whoever finds it there next time tries it first.
            let _ = fs::remove_file(path);
        }
    }
}

#[derive(Debug)]
enum Receiver {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Receiver {
    async fn packet(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer).await,
            Self::Unix(socket) => socket.recv(buffer).await,
        }
    }
}

async fn receive(from: Receiver, intake: Arc<Mutex<Intake>>, log: Logger) {
    let mut buffer = vec![0; PACKET_BYTES];
    let mut failing = Trouble::default();
    loop {
        match from.packet(&mut buffer).await {
            Ok(n_bytes) => lock(&intake).packet(&buffer[..n_bytes], Instant::now()),
            Err(err) => {
                if let Say::First | Say::Again(_) = failing.happened(1, Instant::now()) {
                    warn!(log, "receiving StatsD failed"; "error" => %err);
                }
                // One that comes at once again must not keep the thread to itself.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn lock(intake: &Mutex<Intake>) -> MutexGuard<'_, Intake> {
    intake.lock().expect("nothing panics while it holds this lock")
}

fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    enlarge(&socket);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that programs of every user may send to, as they may by UDP.
fn bind_unix(path: &Path) -> io::Result<UnixDatagram> {
    let socket = match UnixDatagram::bind(path) {
        Err(err) if err.kind() == io::ErrorKind::AddrInUse && is_orphaned(path) => {
            fs::remove_file(path)?;
            UnixDatagram::bind(path)?
        }
        other => other?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let socket = Socket::from(socket.into_std()?);
    enlarge(&socket);
    UnixDatagram::from_std(socket.into())
}

fn enlarge(socket: &Socket) {
    // As much as is given: the agent works with less, too.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
}

/// Whether it is a socket that an agent left behind, with nobody to receive.
pub(crate) fn is_orphaned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let try_it = || std::os::unix::net::UnixDatagram::unbound()?.connect(path);
    is_socket && try_it().is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused)
}
