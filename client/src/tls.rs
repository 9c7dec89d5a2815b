//! Which files make a TLS connection one's own: whom it trusts, and who it says it is.
//!
//! The files are read for each connection, so that others may be put there at any time; what is wrong with them is known
//! before there is one. There is no way from https to anything less.

mod fault;
#[cfg(feature = "tls")]
pub(crate) mod files;
#[cfg(feature = "tls")]
pub(crate) mod handshake;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tonic::transport::Uri;

pub use fault::TlsError;

use crate::address;

/// The files of a TLS connection; without any it trusts whom the system trusts, and does not say who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    ca: Option<PathBuf>,
    identity: Option<Identity>,
}

/// By which a server knows who connects to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// It is not there, or closed to us.
    #[error("reading {}", .path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// Nothing in it is a certificate.
    #[error(
        "{} has no certificate in it: PEM is wanted, with -----BEGIN CERTIFICATE----- (of DER, `openssl x509 -inform der` makes it)",
        .path.display()
    )]
    NoCertificate {
        /// Where it is.
        path: PathBuf,
    },
    /// Nothing in it is a private key.
    #[error(
        "{} has no private key in it that can be used: PEM is wanted, with -----BEGIN PRIVATE KEY-----, without a passphrase",
        .path.display()
    )]
    NoKey {
        /// Where it is.
        path: PathBuf,
    },
    /// It looks like what is wanted, and is not.
    #[error("{} is damaged: {because}", .path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What does not fit.
        because: String,
    },
    /// Two files that do not belong together.
    #[error("the key in {} is not that of the certificate in {}", .key.display(), .cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// There would be no TLS to use them for.
    #[error("certificates are for TLS, and {server} asks for none: write the server as https://{}", authority(.server))]
    NotHttps {
        /// The server.
        server: Uri,
    },
}

fn authority(server: &Uri) -> &str {
    server.authority().map_or("", |authority| authority.as_str())
}

impl TlsFiles {
    /// The files for connections to `server`, which must be usable now: `ca` has the certificates (PEM, at least one) that
    /// alone are trusted, and `identity` a certificate, with those between it and its authority behind it, and its private key.
    ///
    /// # Errors
    /// One of them cannot be used, or the server is not reached by https.
    pub fn for_server(
        server: &Uri,
        ca: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, TlsFilesError> {
        let files = Self { ca, identity: identity.map(|(cert, key)| Identity { cert, key }) };
        if files != Self::default() && !address::is_https(server) {
            return Err(TlsFilesError::NotHttps { server: server.clone() });
        }
        #[cfg(feature = "tls")]
        files::look(&files)?;
        Ok(files)
    }

    /// Whose certificates alone are trusted, if not those that the system trusts.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The private key of the one who connects, if it has one.
    pub fn key(&self) -> Option<&Path> {
        self.identity.as_ref().map(|identity| &*identity.key)
    }

    /// The certificate of the one who connects, and its key.
    #[cfg(feature = "tls")]
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// What is known of a connection that is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secured {
    /// `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// Until when the server's certificate is valid, if that can be said.
    pub valid_until: Option<SystemTime>,
    /// Whether the server asked for a certificate, be it that it must have one or that it may.
    pub asked_for_certificate: bool,
}
