//! A TCP proxy on loopback that does to a connection what networks do: stall, delay, swallow, cut, close one half,
//! turn away. What it does can be changed while connections are open.
//!
//! Two threads carry each connection. A cut counts the bytes of each connection from its first; the cut of a reply
//! waits for a long enough request and then lets so many bytes of its answer through.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// More than any run opens at once: what is beyond is turned away.
const MAX_CONNECTIONS: usize = 256;
/// How soon a change is noticed by a connection on which nothing moves.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// They wait; the connection stays open.
    Stall,
    /// They come so much later.
    Delay(Duration),
    /// They vanish; the connection stays open.
    Blackhole,
    /// After so many of them, of each connection, both ends are closed.
    CutAfter(u64),
    /// This way is closed; the other one stays open.
    HalfClose,
}

/// Cuts replies: of requests that are at least so long in one piece, the answer after so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyCut {
    /// Shorter requests are left alone: of MySQL's, only a write carries rows.
    pub request_bytes: usize,
    /// What of the reply gets through.
    pub reply_bytes: usize,
}

#[derive(Debug)]
struct Control {
    target: Option<SocketAddr>,
    refusing: bool,
    faults: [Fault; 2],
    reply_cut: Option<ReplyCut>,
}

#[derive(Debug)]
struct Shared {
    control: Mutex<Control>,
    changed: Condvar,
    over: AtomicBool,
    n_open: AtomicUsize,
    n_bytes: [AtomicU64; 2],
    n_replies_cut: AtomicU64,
}

/// A running proxy. It ends with its value, and all connections with it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy on a port of its own; it turns everybody away until it has a target.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let control = Control { target: None, refusing: false, faults: [Fault::Pass; 2], reply_cut: None };
        let shared = Arc::new(Shared {
            control: Mutex::new(control),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            n_open: AtomicUsize::new(0),
            n_bytes: [AtomicU64::new(0), AtomicU64::new(0)],
            n_replies_cut: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        thread::spawn(move || accept(&listener, &accepting));
        Self { addr, shared }
    }

    /// Where clients are to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where new connections lead; `None`: nowhere.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        self.shared.control().target = target;
    }

    /// Does this to bytes that go this way, on open connections and new ones.
    pub fn set(&self, way: Way, fault: Fault) {
        self.shared.control().faults[way as usize] = fault;
        self.shared.changed.notify_all();
    }

    /// Turns new connections away, or takes them again.
    pub fn refuse(&self, refusing: bool) {
        self.shared.control().refusing = refusing;
    }

    /// Cuts the next reply like this, and no other; `None`: no reply any more.
    pub fn cut_reply(&self, cut: Option<ReplyCut>) {
        self.shared.control().reply_cut = cut;
    }

    /// Whether a reply still waits to be cut.
    pub fn waits_to_cut(&self) -> bool {
        self.shared.control().reply_cut.is_some()
    }

    /// Lets everything pass.
    pub fn heal(&self) {
        let mut control = self.shared.control();
        control.faults = [Fault::Pass; 2];
        control.refusing = false;
        control.reply_cut = None;
        drop(control);
        self.shared.changed.notify_all();
    }

    /// Bytes carried this way so far.
    pub fn n_bytes(&self, way: Way) -> u64 {
        self.shared.n_bytes[way as usize].load(Ordering::Relaxed)
    }

    /// Replies cut so far.
    pub fn n_replies_cut(&self) -> u64 {
        self.shared.n_replies_cut.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// What is to be done to bytes that go this way, once it is not to hold them.
    fn fault(&self, way: Way) -> Fault {
        let mut control = self.control();
        while control.faults[way as usize] == Fault::Stall && !self.is_over() {
            control = self.changed.wait(control).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        control.faults[way as usize]
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_over() {
            return;
        }
        let Ok(client) = client else { continue };
        let target = {
            let control = shared.control();
            control.target.filter(|_| !control.refusing)
        };
        // Dropped, and so closed, where there is nothing to lead to.
        let Some(target) = target.filter(|_| shared.n_open.load(Ordering::Relaxed) < MAX_CONNECTIONS) else { continue };
        let shared = shared.clone();
        shared.n_open.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            if let Ok(server) = TcpStream::connect(target) {
                carry_both(&client, &server, &shared);
            }
            shared.n_open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// What the two ways of one connection know of each other: how much of the next reply may still pass.
type ReplyBudget = Mutex<Option<usize>>;

fn carry_both(client: &TcpStream, server: &TcpStream, shared: &Shared) {
    for stream in [client, server] {
        // Small pieces must not wait for each other: time is part of what is tested.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(LOOK_AGAIN));
    }
    let budget = ReplyBudget::default();
    thread::scope(|scope| {
        scope.spawn(|| carry(client, server, Way::Up, shared, &budget));
        carry(server, client, Way::Down, shared, &budget);
    });
}

/// Carries bytes until there are no more; closes both ends where the connection is cut.
fn carry(mut from: &TcpStream, mut to: &TcpStream, way: Way, shared: &Shared, budget: &ReplyBudget) {
    let cut = || {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    let mut buffer = vec![0; 64 * 1024];
    let mut n_carried = 0;
    loop {
        let n_read = match from.read(&mut buffer) {
            Ok(0) => {
                // The other way may go on.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(n_read) => n_read,
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => return cut(),
        };
        if shared.is_over() {
            return cut();
        }
        let mut piece = &buffer[..n_read];
        let mut ends = false;
        match shared.fault(way) {
            Fault::Pass | Fault::Stall => {}
            Fault::Delay(delay) if n_read > 0 => thread::sleep(delay),
            Fault::Delay(_) => {}
            Fault::Blackhole => continue,
            Fault::CutAfter(limit) => {
                let left = usize::try_from(limit.saturating_sub(n_carried)).unwrap_or(usize::MAX);
                ends = left <= n_read;
                piece = &piece[..left.min(n_read)];
            }
            Fault::HalfClose => {
                let _ = to.shutdown(Shutdown::Write);
                let _ = from.shutdown(Shutdown::Read);
                return;
            }
        }
        if n_read > 0 {
            ends |= cut_reply(way, &mut piece, shared, budget);
        }
        n_carried += piece.len() as u64;
        shared.n_bytes[way as usize].fetch_add(piece.len() as u64, Ordering::Relaxed);
        if to.write_all(piece).is_err() || ends {
            return cut();
        }
    }
}

/// Shortens what comes of a reply that is to be cut; whether it ends here.
fn cut_reply(way: Way, piece: &mut &[u8], shared: &Shared, budget: &ReplyBudget) -> bool {
    let mut budget = budget.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if way == Way::Up {
        let mut control = shared.control();
        if let Some(cut) = control.reply_cut.filter(|cut| piece.len() >= cut.request_bytes) {
            control.reply_cut = None;
            *budget = Some(cut.reply_bytes);
        }
        return false;
    }
    let Some(left) = *budget else { return false };
    let passes = left.min(piece.len());
    *piece = &piece[..passes];
    *budget = Some(left - passes);
    let ends = left == passes;
    if ends {
        shared.n_replies_cut.fetch_add(1, Ordering::Relaxed);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{SOON, eventually};

    /// A server that answers each piece with itself, through a proxy.
    fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut piece = [0; 1_024];
                    while let Ok(n) = (&stream).read(&mut piece) {
                        if n == 0 || (&stream).write_all(&piece[..n]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let proxy = Proxy::start();
        proxy.lead_to(Some(target));
        let client = TcpStream::connect(proxy.addr()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (proxy, client)
    }

    /// What comes back until the connection ends or nothing comes.
    fn answer(mut client: &TcpStream, piece: &[u8]) -> Vec<u8> {
        let _ = client.write_all(piece);
        let mut all = Vec::new();
        let mut buffer = [0; 64];
        while all.len() < piece.len() {
            match client.read(&mut buffer) {
                Ok(n) if n > 0 => all.extend(&buffer[..n]),
                _ => break,
            }
        }
        all
    }

    #[test]
    fn it_carries_both_ways() {
        let (proxy, client) = echo();
        assert_eq!(answer(&client, b"hello"), b"hello");
        assert_eq!((proxy.n_bytes(Way::Up), proxy.n_bytes(Way::Down)), (5, 5));
    }

    #[test]
    fn a_stall_holds_what_a_heal_lets_go() {
        let (proxy, client) = echo();
        proxy.set(Way::Down, Fault::Stall);
        assert_eq!(answer(&client, b"hello"), b"");
        proxy.heal();
        eventually(SOON, "what was held comes", || answer(&client, b"!").starts_with(b"h"));
    }

    #[test]
    fn what_is_swallowed_does_not_come_back() {
        let (proxy, client) = echo();
        proxy.set(Way::Up, Fault::Blackhole);
        assert_eq!(answer(&client, b"hello"), b"");
        proxy.heal();
        assert_eq!(answer(&client, b"world"), b"world");
    }

    #[test]
    fn a_cut_lets_just_so_many_bytes_through() {
        let (proxy, client) = echo();
        proxy.set(Way::Up, Fault::CutAfter(3));
        answer(&client, b"hello");
        assert_eq!(proxy.n_bytes(Way::Up), 3);
        let (proxy, client) = echo();
        proxy.set(Way::Down, Fault::CutAfter(2));
        assert_eq!(answer(&client, b"hello"), b"he");
        assert_eq!(proxy.n_bytes(Way::Down), 2);
    }

    #[test]
    fn the_reply_to_a_long_request_is_cut_once() {
        let (proxy, client) = echo();
        proxy.cut_reply(Some(ReplyCut { request_bytes: 5, reply_bytes: 1 }));
        assert_eq!(answer(&client, b"hi"), b"hi");
        assert_eq!(answer(&client, b"hello"), b"h");
        assert!(!proxy.waits_to_cut() && proxy.n_replies_cut() == 1);
        let client = TcpStream::connect(proxy.addr()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(answer(&client, b"hello"), b"hello");
    }

    #[test]
    fn half_a_connection_closes_and_nobody_new_is_let_in() {
        let (proxy, client) = echo();
        assert_eq!(answer(&client, b"hello"), b"hello");
        proxy.set(Way::Up, Fault::HalfClose);
        client.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!((&client).read(&mut [0; 8]).unwrap(), 0, "the server has seen the end, and ended");
        proxy.heal();
        proxy.refuse(true);
        let client = TcpStream::connect(proxy.addr()).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!((&client).read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
