//! The accept loop: so many connections at once, and only those that open TLS, where the server has it, and HTTP/2 in time.
//!
//! tonic has neither limit: it would spin on EMFILE, and a connection that never sends its preface would stay for ever
//! and hold up the graceful stop.

use std::{
    collections::HashSet,
    future::Future,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use slog::{Logger, debug, warn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep, sleep, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{
    doors::{Doors, Port, Wire},
    stats::Stats,
};

/// What every HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For TLS and preface together.
const PREFACE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a peer may take to close its side of a connection that we have closed.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// After an accept failed, for want of descriptors as a rule, the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections with their preface that tonic has not taken yet.
const MAX_READY: usize = 64;
/// Callers of one connection that are remembered as logged.
const MAX_CALLERS: usize = 64;

/// Accepts connections until the token is cancelled; the answer yields those that opened HTTP/2.
pub(super) fn start(
    listener: TcpListener,
    max_connections: usize,
    stop: CancellationToken,
    (doors, stats): (Arc<Doors>, Arc<Stats>),
    log: Logger,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, incoming) = mpsc::channel(MAX_READY);
    let places = Arc::new(Semaphore::new(max_connections));
    tokio::spawn(async move {
        let accepting = async {
            loop {
                // Taken before accepting: a connection too many waits in the kernel's queue.
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((tcp, peer)) => {
                        let place = Place::new(place, stats.clone());
                        let doors = (doors.clone(), stats.clone());
                        tokio::spawn(open(tcp, peer, place, ready.clone(), doors, log.clone()));
                    }
                    Err(err) => {
                        stats.accept_errors.inc();
                        warn!(log, "accepting a connection failed"; "error" => %err);
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        // Returning drops the listener: from now on connecting is refused.
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(incoming)
}

async fn open(
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    ready: mpsc::Sender<io::Result<Connection>>,
    (doors, stats): (Arc<Doors>, Arc<Stats>),
    log: Logger,
) {
    // Small answers must not wait for more of them.
    let _ = tcp.set_nodelay(true);
    let deadline = Instant::now() + PREFACE_WAIT_MAX;
    let Ok(mut wire) = doors.open(Port::Grpc, tcp, peer, deadline).await else { return };
    let mut first = [0; PREFACE.len()];
    match timeout_at(deadline, wire.read_exact(&mut first)).await {
        Ok(Ok(_)) if &first == PREFACE => {}
        outcome => {
            stats.connections_dropped.inc();
            let why = match outcome {
                Ok(Ok(_)) => "it does not speak HTTP/2 as gRPC does",
                Ok(Err(_)) => "it closed before it had opened HTTP/2",
                Err(_) => "it did not open HTTP/2 in time",
            };
            debug!(log, "dropped a connection"; "peer" => %peer, "why" => why);
            return;
        }
    }
    let caller = Caller { peer, seen: Arc::default() };
    // The receiver is gone when the server has stopped; the connection then closes.
    let _ = ready.send(Ok(Connection { replay: 0, wire, caller, linger: None, _place: place })).await;
}

/// A connection's place among those allowed.
struct Place {
    stats: Arc<Stats>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, stats: Arc<Stats>) -> Self {
        stats.connections_open.inc();
        Self { stats, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.connections_open.dec();
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Its address.
    pub(super) peer: SocketAddr,
    seen: Arc<Mutex<HashSet<String>>>,
}

impl Caller {
    /// Whether this connection has not carried this name before.
    pub(super) fn is_new(&self, service_id: &str) -> bool {
        let mut seen = self.seen.lock();
        seen.len() < MAX_CALLERS && !seen.contains(service_id) && seen.insert(service_id.to_owned())
    }
}

/// A connection whose preface has been read; it is read again from here.
pub(super) struct Connection {
    replay: usize,
    wire: Wire,
    caller: Caller,
    linger: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.replay..];
        if rest.is_empty() {
            return Pin::new(&mut self.wire).poll_read(cx, buf);
        }
        let n_bytes = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n_bytes]);
        self.replay += n_bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    /// Closes our side, then reads on until the peer has closed its own. A socket closed with bytes unread is reset,
    /// and the reset overtakes the answer: an agent that was still sending would lose its receipt.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.wire).poll_shutdown(cx))?;
        let mut unread = [MaybeUninit::uninit(); 4_096];
        loop {
            let mut unread = ReadBuf::uninit(&mut unread);
            match Pin::new(&mut self.wire).poll_read(cx, &mut unread) {
                Poll::Ready(Ok(())) if !unread.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER_MAX))).as_mut().poll(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
