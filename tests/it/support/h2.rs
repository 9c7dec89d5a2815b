//! HTTP/2 by hand: frames that no honest client sends (RFC 9113, 4.1 and 6).

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A server that takes longer than this to take or to say something has stopped doing so.
const PATIENCE: Duration = Duration::from_secs(10);

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header fields of a call of SendMetrics (RFC 7541: each a literal, or a number of the static table).
pub(crate) fn call() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], "/gopherwatch.v1.MetricsService/SendMetrics"),
        (&[0x01], "localhost"),
        (&[0x0f, 0x10], "application/grpc"),
        (b"\x00\x02te", "trailers"),
    ] {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    block
}

/// A connection that has opened HTTP/2.
pub(crate) fn open(addr: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    tcp.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    tcp
}

/// Reads frames until `is_wanted` says so: their kind, flags and stream. `None`: the server closed first.
pub(crate) fn read_until(tcp: &mut TcpStream, is_wanted: impl Fn(u8, u8, u32) -> bool) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        match tcp.read_exact(&mut head) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => panic!("the server says nothing"),
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        tcp.read_exact(&mut payload).ok()?;
        if is_wanted(head[3], head[4], u32::from_be_bytes(head[5..].try_into().unwrap())) {
            return Some(payload);
        }
    }
}
