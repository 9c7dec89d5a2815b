//! For tests: how the double speaks TLS.

use std::io;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::{Authority, Issued};

/// Connections that are secured and not yet served.
const MOST_WAITING: usize = 16;

/// Who the double is, and whom it lets in.
#[derive(Debug)]
pub struct Tls {
    identity: Issued,
    /// The authority of those alone who are let in.
    clients: Option<String>,
    is_old: bool,
    hangs_up: bool,
    protocols: Vec<Vec<u8>>,
}

impl Tls {
    pub fn new(identity: Issued) -> Self {
        Self { identity, clients: None, is_old: false, hangs_up: false, protocols: vec![b"h2".to_vec()] }
    }

    /// Only clients with a certificate of this authority are let in.
    #[must_use]
    pub fn asking(self, clients: &Authority) -> Self {
        Self { clients: Some(clients.pem()), ..self }
    }

    /// It speaks TLS 1.2 and nothing newer.
    #[must_use]
    pub fn old(self) -> Self {
        Self { is_old: true, ..self }
    }

    /// It speaks these protocols by TLS (ALPN), if any in particular.
    #[must_use]
    pub fn speaking(self, protocols: &[&str]) -> Self {
        Self { protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    /// It closes each connection behind the handshake without a word, as one whose last word got lost.
    #[must_use]
    pub fn hanging_up(self) -> Self {
        Self { hangs_up: true, ..self }
    }

    pub(super) fn acceptor(&self) -> Acceptor {
        let provider = Arc::new(ring::default_provider());
        let versions = if self.is_old { [&TLS12].to_vec() } else { [&TLS13].to_vec() };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions).unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.hangs_up { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_slice_iter(self.identity.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols.clone_from(&self.protocols);
        Acceptor { tls: TlsAcceptor::from(Arc::new(config)), hangs_up: self.hangs_up }
    }
}

#[derive(Clone)]
pub(super) struct Acceptor {
    tls: TlsAcceptor,
    hangs_up: bool,
}

/// The connections whose handshake went well.
pub(super) fn incoming(listener: TcpListener, acceptor: Acceptor) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (secured, waiting) = mpsc::channel(MOST_WAITING);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, secured) = (acceptor.clone(), secured.clone());
            tokio::spawn(async move {
                let accepted = acceptor.tls.accept(stream).await;
                if let Ok(stream) = accepted
                    && !acceptor.hangs_up
                {
                    let _ = secured.send(Ok(stream)).await;
                }
            });
        }
    });
    ReceiverStream::new(waiting)
}
