//! From PEM files to what rustls is told; whatever is wrong with them is said with the way out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{TlsMaterial, validity::validity};
use crate::doors::secret_file::{SecretFileError, read_public, read_secret};

/// What each port speaks (RFC 7301).
const GRPC: [&[u8]; 1] = [b"h2"];
const REST: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Certificates of authorities, whose names are told to each agent that connects.
const MAX_AUTHORITIES: usize = 64;

/// Where the parts of TLS are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those that lead to its authority's.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of agents' certificates; `None`: agents need none.
    pub client_ca: Option<PathBuf>,
}

/// A file of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file, whatever should be in it.
    #[error("{flag}")]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// What is wrong with it.
        source: SecretFileError,
    },
    /// There is none where there should be some.
    #[error(
        "{flag}: there is no certificate in {}: it should be PEM, with lines `-----BEGIN CERTIFICATE-----`",
        path.display()
    )]
    NoCertificate {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It has a beginning and no sense.
    #[error("{flag}: {} is damaged: make it anew, or copy it again", path.display())]
    Damaged {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// There is none where there should be one.
    #[error(
        "--tls-key: there is no private key in {} that could be used: it should be PEM, with a line such as \
         `-----BEGIN PRIVATE KEY-----`, and without a passphrase",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Both are good, and not for each other.
    #[error(
        "the key in {} is not that of the first certificate in {}: the server's own certificate comes first in its file, and \
         the key is the one that it was made with",
        key.display(), cert.display()
    )]
    Mismatch {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// rustls takes neither.
    #[error("--tls-cert {} with --tls-key {} cannot be used", cert.display(), key.display())]
    Unusable {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Agents could not be told from others by it.
    #[error("--tls-client-ca: {} cannot be used as an authority of agents' certificates: {why}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl TlsFiles {
    /// Reads all of them.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn read(&self) -> Result<TlsMaterial, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("--tls-cert", &self.cert)?;
        let (not_after, warning) = self.validity_of(&chain)?;
        let key = self.certified_key(chain, &provider)?;
        let resolver = Arc::new(SingleCertAndKey::from(key));
        let config = |client_ca: Option<&Path>, alpn: &[&[u8]]| {
            // All versions that are safe: 1.2 and 1.3.
            let builder = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .expect("ring has ciphers for both versions");
            let builder = match client_ca {
                None => builder.with_no_client_auth(),
                Some(path) => builder.with_client_cert_verifier(verifier(path, &provider)?),
            };
            let mut config = builder.with_cert_resolver(resolver.clone());
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Ok(Arc::new(config))
        };
        let grpc = config(self.client_ca.as_deref(), &GRPC)?;
        Ok(TlsMaterial { grpc, rest: config(None, &REST)?, not_after, warning })
    }

    /// When the first certificate of the chain ends to be valid, and what is to be said about that.
    fn validity_of(&self, chain: &[CertificateDer<'_>]) -> Result<(i64, Option<String>), TlsError> {
        let damaged = || TlsError::Damaged { flag: "--tls-cert", path: self.cert.clone() };
        let ends = chain.iter().map(|der| validity(der).ok_or_else(damaged)).collect::<Result<Vec<_>, _>>()?;
        let not_before = ends.iter().map(|(from, _)| *from).max().ok_or_else(damaged)?;
        let not_after = ends.iter().map(|(_, until)| *until).min().ok_or_else(damaged)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let said = |seconds| jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |at| at.to_string());
        let path = self.cert.display();
        let warning = if not_after < now {
            Some(format!(
                "the certificate in {path} expired at {}: nobody will trust it; make a new one",
                said(not_after)
            ))
        } else if not_before > now {
            Some(format!(
                "the certificate in {path} is valid from {} on: nobody will trust it before",
                said(not_before)
            ))
        } else {
            None
        };
        Ok((not_after, warning))
    }

    fn certified_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        let (cert, key) = (&self.cert, &self.key);
        let text = read_secret(key).map_err(|source| TlsError::File { flag: "--tls-key", source })?;
        // What its parser says of it may have a line of it.
        let der = PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey { path: key.clone() })?;
        let signing = provider.key_provider.load_private_key(der).map_err(|_| TlsError::NoKey { path: key.clone() })?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch { cert: cert.clone(), key: key.clone() }),
            Err(source) => Err(TlsError::Unusable { cert: cert.clone(), key: key.clone(), source }),
        }
    }
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_public(path).map_err(|source| TlsError::File { flag, source })?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate { flag, path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::Damaged { flag, path: path.to_owned() }),
    }
}

fn verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |why: String| TlsError::ClientCa { path: path.to_owned(), why };
    let authorities = certificates("--tls-client-ca", path)?;
    if authorities.len() > MAX_AUTHORITIES {
        return Err(unusable(format!("it has more than {MAX_AUTHORITIES} certificates")));
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|err| unusable(err.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|err| unusable(err.to_string()))
}
