//! Reads certificates and keys. What they are is said with the file's name, and of a key nothing else.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::{Identity, TlsError, TlsFiles, TlsFilesError};

/// Whether all of them can be used now.
pub(super) fn look(files: &TlsFiles) -> Result<(), TlsFilesError> {
    if let Some(path) = files.ca() {
        authorities(path)?;
    }
    files.identity().map(|identity| certified(identity, &super::handshake::provider())).transpose().map(|_| ())
}

/// Whom a connection with these files trusts.
pub(super) fn trusted(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    if let Some(path) = files.ca() {
        return authorities(path).map_err(TlsError::Files);
    }
    let mut roots = RootCertStore::empty();
    // One that cannot be read is one that is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsFilesError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|err| damaged(path, &err))?;
    }
    Ok(roots)
}

/// Who it is that connects.
pub(super) fn certified(identity: &Identity, provider: &Arc<CryptoProvider>) -> Result<CertifiedKey, TlsFilesError> {
    let Identity { cert, key } = identity;
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(|err| match err {
        PemError::NoItemsFound => TlsFilesError::NoKey { path: key.clone() },
        // It would say what the line is that it stumbled over.
        _ => TlsFilesError::Damaged { path: key.clone(), because: "it is no PEM".to_owned() },
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|err| match err {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsFilesError::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        Error::InvalidCertificate(_) => damaged(cert, &err),
        _ => damaged(key, &err),
    })
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsFilesError::NoCertificate { path: path.to_owned() }),
        Ok(found) => Ok(found),
        Err(err) => Err(damaged(path, &err)),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsFilesError> {
    fs::read(path).map_err(|source| TlsFilesError::Read { path: path.to_owned(), source })
}

fn damaged(path: &Path, because: &impl ToString) -> TlsFilesError {
    TlsFilesError::Damaged { path: path.to_owned(), because: because.to_string() }
}
