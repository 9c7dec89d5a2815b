//! TLS on both ports, by rustls: agents' connections may be asked for a certificate, REST's are not.
//!
//! A connection keeps the certificate that it began with; new ones get the newest. Whoever does not open TLS in time, or
//! not at all, is counted and let go.

mod files;
mod validity;
mod wire;

use std::{fmt, sync::Arc};

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;

pub use files::{TlsError, TlsFiles};
pub use wire::Wire;

use super::refusals::{Port, Reason};

/// What the first byte of a connection says that opens TLS: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// How much of what somebody says without TLS is read before the answer: bytes left unread would make it a reset.
const MAX_PLAIN_BYTES: usize = 64 * 1024;

/// What the files make, for both ports.
#[derive(Clone)]
pub struct TlsMaterial {
    grpc: Arc<ServerConfig>,
    rest: Arc<ServerConfig>,
    /// When the first certificate of the chain ends to be valid, in seconds since 1970.
    pub not_after: i64,
    /// What the operator should hear about.
    pub warning: Option<String>,
}

impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsMaterial")
    }
}

/// A connection that did not become one with TLS.
#[derive(Debug)]
pub enum NotOpened {
    /// It speaks something else, of which what had come was read.
    NoTls(TcpStream),
    /// It is gone.
    Gone,
}

/// Why TLS was not opened, for those who look into it.
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) why: String,
}

/// The server's TLS.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    material: RwLock<TlsMaterial>,
}

impl Tls {
    pub(super) fn new(files: TlsFiles, material: TlsMaterial) -> Self {
        Self { files, material: RwLock::new(material) }
    }

    /// Reads the files again. Blocks.
    pub(super) fn reload(&self) -> Result<TlsMaterial, TlsError> {
        let material = self.files.read()?;
        *self.material.write() = material.clone();
        Ok(material)
    }

    /// Whether agents have to show a certificate.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Opens TLS until `deadline`.
    pub(super) async fn open(
        &self,
        port: Port,
        tcp: TcpStream,
        deadline: Instant,
    ) -> Result<Wire, (NotOpened, Option<Failure>)> {
        let failed = |reason, why: String| (NotOpened::Gone, Some(Failure { reason, why }));
        let late = || failed(Reason::TlsLate, "it did not open TLS in time".to_owned());
        let mut first = [0];
        match timeout_at(deadline, tcp.peek(&mut first)).await {
            Err(_elapsed) => return Err(late()),
            // Nothing was asked: so looks a probe of the port.
            Ok(Ok(0) | Err(_)) => return Err((NotOpened::Gone, None)),
            Ok(Ok(_)) if first == [HANDSHAKE] => {}
            Ok(Ok(_)) => {
                let failure = Failure { reason: Reason::NoTls, why: "it speaks without TLS".to_owned() };
                read_what_came(&tcp);
                return Err((NotOpened::NoTls(tcp), Some(failure)));
            }
        }
        let config = {
            let material = self.material.read();
            match port {
                Port::Grpc => material.grpc.clone(),
                Port::Rest => material.rest.clone(),
            }
        };
        match timeout_at(deadline, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(stream)) => Ok(Wire::tls(stream)),
            Ok(Err(err)) => Err(failed(Reason::TlsFailed, err.to_string())),
            Err(_elapsed) => Err(late()),
        }
    }
}

fn read_what_came(tcp: &TcpStream) {
    let (mut bytes, mut n_bytes) = ([0; 4_096], 0);
    while let Ok(n @ 1..) = tcp.try_read(&mut bytes) {
        n_bytes += n;
        if n_bytes >= MAX_PLAIN_BYTES {
            return;
        }
    }
}
