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
    protocol: &'static [u8],
}

impl Tls {
    pub fn new(identity: Issued) -> Self {
        Self { identity, clients: None, is_old: false, protocol: b"h2" }
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

    /// It speaks HTTP/1.1 by TLS, as REST would.
    #[must_use]
    pub fn http1(self) -> Self {
        Self { protocol: b"http/1.1", ..self }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let versions = if self.is_old { [&TLS12].to_vec() } else { [&TLS13].to_vec() };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions).unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = CertificateDer::pem_slice_iter(self.identity.cert.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![self.protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The connections whose handshake went well.
pub(super) fn incoming(
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (secured, waiting) = mpsc::channel(MOST_WAITING);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, secured) = (acceptor.clone(), secured.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = secured.send(Ok(stream)).await;
                }
            });
        }
    });
    ReceiverStream::new(waiting)
}
