//! Certificates of authorities that were made for a test, and clients that trust them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use ureq::tls::{RootCerts, TlsConfig};

use super::server::{Answer, Setup, ask_with};

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's certificate, for `localhost` and 127.0.0.1.
    pub(crate) fn server(&self) -> Pair {
        self.server_until(2040)
    }

    /// The same, until the beginning of this year.
    pub(crate) fn server_until(&self, year: i32) -> Pair {
        self.sign(ExtendedKeyUsagePurpose::ServerAuth, year)
    }

    /// An agent's.
    pub(crate) fn agent(&self) -> Pair {
        self.sign(ExtendedKeyUsagePurpose::ClientAuth, 2040)
    }

    fn sign(&self, usage: ExtendedKeyUsagePurpose, year: i32) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// What a gRPC client trusts, and what it shows of itself.
    pub(crate) fn trusted(&self, shown: Option<&Pair>) -> ClientTlsConfig {
        trusted(&self.pem, shown)
    }

    /// Asks REST by https.
    pub(crate) fn ask(&self, http: SocketAddr, method: &str, path: &str) -> Result<Answer, ureq::Error> {
        ask_trusting(&self.pem, &http.to_string(), method, path, &[])
    }
}

pub(crate) fn trusted(ca: &str, shown: Option<&Pair>) -> ClientTlsConfig {
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    match shown {
        None => config,
        Some(Pair { cert, key }) => config.identity(Identity::from_pem(cert, key)),
    }
}

/// Asks REST at `HOST:PORT` by https.
pub(crate) fn ask_trusting(
    ca: &str,
    at: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer, ureq::Error> {
    let root = ureq::tls::Certificate::from_pem(ca.as_bytes()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![root]))).build();
    ask_with(tls, &format!("https://{at}{path}"), method, headers)
}

/// With TLS by these.
pub(crate) trait WithTls {
    fn pair(self, pair: &Pair) -> Self;
    fn tls(self, pair: &Pair) -> Self;
}

impl WithTls for Setup {
    /// Puts the files there.
    fn pair(self, pair: &Pair) -> Self {
        self.file("server.pem", &pair.cert).secret("server-key.pem", &pair.key)
    }

    /// And has the server take them.
    fn tls(self, pair: &Pair) -> Self {
        self.pair(pair).args("--tls-cert server.pem --tls-key server-key.pem")
    }
}
