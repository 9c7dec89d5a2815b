//! An authority for one server, and the certificate that it signs.

use std::{sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use time::OffsetDateTime;

const DAY: Duration = Duration::from_secs(86_400);
/// Agents keep a copy of it, so that it should outlive them.
const AUTHORITY_DAYS: u32 = 3_650;
/// The most that systems take of a certificate of an authority of one's own.
const SERVER_DAYS: u32 = 825;
/// By so much a peer's clock may be behind.
const EARLIER: Duration = Duration::from_secs(86_400);
/// The authority's name. All have the same: they are told apart by their keys.
const NAME: &str = "GopherWatch CA";

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// By the library that makes them.
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    /// What is there is of something else.
    #[error(
        "ca.pem and ca-key.pem are not those that `init` made together: a certificate signed with them would not be trusted \
         ({0}); put the right ones there, or move both away to have them made anew"
    )]
    NotTrusted(String),
}

/// An authority, which can sign.
pub(super) struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate.
pub(super) struct Signed {
    pub(super) cert_pem: String,
    pub(super) key_pem: String,
    /// Its last day.
    pub(super) until: String,
}

impl Authority {
    /// A new one.
    pub(super) fn new() -> Result<Self, CertificateError> {
        let (params, key) = (params(), KeyPair::generate()?);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { cert_pem, issuer: Issuer::new(params, key) })
    }

    /// The one of these files.
    pub(super) fn kept(cert_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key_pem).map_err(|err| CertificateError::NotTrusted(err.to_string()))?;
        Ok(Self { cert_pem: cert_pem.to_owned(), issuer: Issuer::new(params(), key) })
    }

    pub(super) fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a server of these names, and its key.
    pub(super) fn sign(&self, names: &[String]) -> Result<Signed, CertificateError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "GopherWatch server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, SERVER_DAYS);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        self.is_trusted(&cert)?;
        Ok(Signed { cert_pem: cert.pem(), key_pem: key.serialize_pem(), until: params.not_after.date().to_string() })
    }

    /// Whether whoever trusts the authority's certificate trusts this one.
    fn is_trusted(&self, cert: &Certificate) -> Result<(), CertificateError> {
        let trusted = || {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).map_err(|err| err.to_string())?)
                .map_err(|err| err.to_string())?;
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let name = ServerName::try_from("localhost").map_err(|err| err.to_string())?;
            let verified = verifier.map_err(|err| err.to_string())?.verify_server_cert(
                cert.der(),
                &[],
                &name,
                &[],
                UnixTime::now(),
            );
            verified.map(|_| ()).map_err(|err| err.to_string())
        };
        trusted().map_err(CertificateError::NotTrusted)
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, NAME);
    // It signs no other authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, AUTHORITY_DAYS);
    params
}

fn valid(params: &mut CertificateParams, days: u32) {
    let from = OffsetDateTime::now_utc() - EARLIER;
    params.not_before = from;
    params.not_after = from + DAY * days;
}
