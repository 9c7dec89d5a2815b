//! For tests: authorities and what they issue, made when they are needed.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// Who issues certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Itself, for a server that takes that for its certificate.
    pub fn itself(&self) -> Issued {
        Issued { cert: self.pem(), key: self.0.key().serialize_pem() }
    }

    /// A certificate for these names and addresses, valid for a year.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, -1.0, 365.0)
    }

    /// One that is valid from so many days after now to so many.
    pub fn issue_for(&self, names: &[&str], from_days: f64, until_days: f64) -> Issued {
        let day = |days: f64| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
            date_time_ymd(1970, 1, 1) + Duration::from_secs_f64(now + days * 86_400.0)
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (day(from_days), day(until_days));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }
}
