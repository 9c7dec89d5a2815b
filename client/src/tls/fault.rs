//! What can go wrong with TLS, in words, and what to do about it.

use std::time::Duration;

use super::TlsFilesError;
use crate::clock::utc;

/// Why a connection is not secured as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our own side.
    #[error(transparent)]
    Files(TlsFilesError),
    /// This host trusts nobody.
    #[error("this host has no certificates of authorities that it trusts")]
    NoAuthorities,
    /// No way leads from the server's certificate to one that is trusted.
    #[error("the server's certificate is from an issuer that is not trusted here")]
    UnknownIssuer {
        /// Whether certain ones alone are trusted.
        has_ca: bool,
    },
    /// The certificate is another server's, or this server has other names.
    #[error("the server's certificate is not for {wanted}, but for {}", list(.names))]
    OtherName {
        /// By which name it was called.
        wanted: String,
        /// Which it has, as far as known.
        names: Vec<String>,
    },
    /// It was valid once.
    #[error("the server's certificate expired on {}; this host's clock says {}", utc(*.not_after), utc(*.now))]
    Expired {
        /// When its last second was, seconds since 1970.
        not_after: u64,
        /// What time it is here.
        now: u64,
    },
    /// It will be valid.
    #[error("the server's certificate is not valid before {}; this host's clock says {}", utc(*.not_before), utc(*.now))]
    NotYetValid {
        /// When its first second is, seconds since 1970.
        not_before: u64,
        /// What time it is here.
        now: u64,
    },
    /// `openssl req -x509` makes such ones.
    #[error("the server shows the certificate of an authority (CA:TRUE) as its own")]
    IsAuthority,
    /// https, and nobody who speaks it.
    #[error("what listens there speaks no TLS{0}")]
    NoTls(&'static str),
    /// http, and somebody who speaks nothing but TLS.
    #[error("what listens there speaks TLS, and was spoken to without")]
    OnlyTls,
    /// http, and somebody who does not understand it and does not say so: OpenSSL's servers do that.
    #[error("the connection was closed before the server said a word")]
    Unheard,
    /// There is no version of TLS, or no cipher, that both sides know.
    #[error("the server speaks neither TLS 1.2 nor 1.3 as this side does: {0}")]
    Incompatible(String),
    /// Another service than ours.
    #[error("what listens there speaks TLS, but not HTTP/2")]
    NoHttp2,
    /// Neither yes nor no.
    #[error("no answer to the TLS handshake within {0:?}")]
    Silence(Duration),
    /// The server wants to know who connects.
    #[error("the server asks for a client certificate, and there is none to show it")]
    Demanded,
    /// The server knows who connects, and does not want it.
    #[error("the server does not take the client certificate: {0}")]
    Refused(String),
    /// The rest.
    #[error("TLS: {0}")]
    Other(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "no name at all (only its subjectAltName counts)".to_owned() } else { names.join(", ") }
}

impl TlsError {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            TlsError::Files(_) => "mend the file; it is read again for the next attempt",
            TlsError::NoAuthorities => "give the CA of the server's certificate with --ca, or install ca-certificates",
            TlsError::UnknownIssuer { has_ca: false } => "give its CA with --ca",
            TlsError::UnknownIssuer { has_ca: true } => {
                "give its CA with --ca: only what is in that file is trusted; it may have several, and the server must send \
                 the certificates between its own and the CA"
            }
            TlsError::OtherName { .. } => {
                "call the server by one of the names of its certificate with --server, or give it a certificate for this one"
            }
            TlsError::Expired { .. } => {
                "renew the server's certificate; if it is not that old, the clock of this host is wrong: let NTP set it"
            }
            TlsError::NotYetValid { .. } => {
                "the clock of this host is probably behind: let NTP set it; or else the server's certificate is for later"
            }
            TlsError::IsAuthority => {
                "give the server a certificate that its CA has issued, or make the self-signed one with \
                 `-addext basicConstraints=critical,CA:FALSE`"
            }
            TlsError::NoTls(_) => {
                "say http:// if the server has no certificate, or give it one; is --server its gRPC port (50051)?"
            }
            TlsError::OnlyTls => "say https:// in --server",
            TlsError::Unheard => {
                "is gopherwatch-server running there, and is this its gRPC port (50051)? If it has a certificate, say https://"
            }
            TlsError::Incompatible(_) => "bring the server's TLS up to date: 1.2 is from 2008, 1.3 from 2018",
            TlsError::NoHttp2 => {
                "is --server the address that agents connect to (port 50051), not that of REST (8080)?"
            }
            TlsError::Silence(_) => {
                "the server may be stuck, or something between hold up TLS; is --server its gRPC port?"
            }
            TlsError::Demanded => "give one that the server trusts with --cert and --key",
            TlsError::Refused(_) => {
                "give another one with --cert and --key, of a CA that the server trusts and not expired; its log says more"
            }
            TlsError::Other(_) => "the server's log may say more; `gopherwatch-agent doctor` looks at every step",
        }
    }
}
