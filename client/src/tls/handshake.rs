//! The handshake: TLS 1.2 or 1.3, HTTP/2 by ALPN, and what went wrong in words that help.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, ProtocolVersion, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Secured, TlsError, TlsFiles, files};

/// A server answers within milliseconds, and connecting has a limit of its own around this one.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(4);

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What of a handshake explains an end that comes later: with TLS 1.3 a server refuses a client's certificate after it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    host: String,
    has_ca: bool,
    identity: Arc<Asked>,
}

/// Who connects, and whether that was asked.
#[derive(Debug)]
struct Asked {
    key: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Secures a connection to `host`, with the files as they are now.
pub(crate) async fn secure(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> Result<(TlsStream<TcpStream>, Peer, Secured), TlsError> {
    let host = host.trim_matches(['[', ']']);
    let other = |err: &dyn ToString| TlsError::Other(err.to_string());
    let name = ServerName::try_from(host.to_owned()).map_err(|err| other(&err))?;
    let provider = provider();
    let roots = Arc::new(files::trusted(files)?);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(|err| other(&err))?;
    let key = files.identity().map(|identity| files::certified(identity, &provider)).transpose();
    let key = key.map_err(TlsError::Files)?.map(Arc::new);
    let identity = Arc::new(Asked { key, was_asked: AtomicBool::new(false) });
    let peer = Peer { host: host.to_owned(), has_ca: files.ca().is_some(), identity: Arc::clone(&identity) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| other(&err))?
        .with_webpki_verifier(Arc::clone(&verifier))
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The next connection reads its files anew, and has nothing of this one.
    config.resumption = Resumption::disabled();

    let handshake = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream);
    let stream = match timeout(HANDSHAKE_WAIT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(peer.in_handshake(&err)),
        Err(_) => return Err(TlsError::Silence(HANDSHAKE_WAIT)),
    };
    let connection = stream.get_ref().1;
    if connection.alpn_protocol() != Some(b"h2") {
        return Err(TlsError::NoHttp2);
    }
    let secured = Secured {
        version: if connection.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "TLS 1.2" } else { "TLS 1.3" },
        valid_until: valid_until(connection, &name, &verifier),
        asked_for_certificate: peer.was_asked(),
    };
    Ok((stream, peer, secured))
}

/// The verifier knows, and tells it only of a certificate that has expired: by a time at which each one has.
fn valid_until(
    connection: &ClientConnection,
    name: &ServerName<'_>,
    verifier: &WebPkiServerVerifier,
) -> Option<SystemTime> {
    let (certificate, between) = connection.peer_certificates()?.split_first()?;
    let at_the_end = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match verifier.verify_server_cert(certificate, between, name, &[], at_the_end) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

impl Peer {
    fn was_asked(&self) -> bool {
        self.identity.was_asked.load(Ordering::Relaxed)
    }

    fn in_handshake(&self, err: &io::Error) -> TlsError {
        match tls_error(err) {
            Some(Error::InvalidMessage(_)) => TlsError::NoTls(""),
            Some(err) => self.explain(err),
            // Whoever speaks no TLS and does not answer what he cannot read.
            None => TlsError::NoTls(": it closed the connection in the handshake"),
        }
    }

    /// What the error of a secured connection says about TLS, if anything.
    pub(crate) fn afterwards(&self, err: &io::Error) -> Option<TlsError> {
        tls_error(err).map(|err| self.explain(err))
    }

    /// What it means that the server ended the connection before it said anything: the word that it had for it may have been lost
    /// with the connection.
    pub(crate) fn without_a_word(&self) -> Option<TlsError> {
        self.was_asked().then(|| self.unwelcome("it closed the connection"))
    }

    fn unwelcome(&self, because: &str) -> TlsError {
        if self.identity.key.is_some() { TlsError::Refused(because.to_owned()) } else { TlsError::Demanded }
    }

    fn explain(&self, err: &Error) -> TlsError {
        match err {
            Error::InvalidCertificate(err) => self.certificate(err),
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                TlsError::NoHttp2
            }
            Error::AlertReceived(AlertDescription::UnrecognisedName) => {
                TlsError::OtherName { wanted: self.host.clone(), names: vec!["other names".to_owned()] }
            }
            Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
                TlsError::Incompatible(err.to_string())
            }
            // What a server says of its client's certificate depends on who made it. Before it asked, none of it is about that.
            Error::AlertReceived(alert) if self.was_asked() => self.unwelcome(&format!("{alert:?}")),
            _ => TlsError::Other(err.to_string()),
        }
    }

    fn certificate(&self, err: &CertificateError) -> TlsError {
        match err {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                TlsError::UnknownIssuer { has_ca: self.has_ca }
            }
            CertificateError::NotValidForNameContext { presented, .. } => TlsError::OtherName {
                wanted: self.host.clone(),
                names: presented.iter().map(|name| bare(name).to_owned()).collect(),
            },
            CertificateError::ExpiredContext { time, not_after } => {
                TlsError::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                TlsError::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
            }
            // An error of the library below, which has no name for it here.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                TlsError::IsAuthority
            }
            _ => TlsError::Other(err.to_string()),
        }
    }
}

fn tls_error(err: &io::Error) -> Option<&Error> {
    err.get_ref()?.downcast_ref()
}

/// A name without its kind: `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}
