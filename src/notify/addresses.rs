//! Where a receiver may be: its name is looked up for each connection, and what is found is what is connected to.
//!
//! A check of the name alone would be no check: whoever serves that name could answer it once with an address of the
//! internet and then with one of ours.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::model::is_internal;

/// Finds the addresses of a host, but for those that are not allowed.
#[derive(Debug)]
pub(super) struct Addresses<R = DefaultResolver> {
    pub(super) allow_private: bool,
    pub(super) resolver: R,
}

impl<R: Resolver> Resolver for Addresses<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // An address needs nobody to look it up, nor the thread on which that is done.
        let found = match literal(uri) {
            Some(address) => {
                let mut one = self.empty();
                one.push(address);
                one
            }
            None => self.resolver.resolve(uri, config, timeout)?,
        };
        if self.allow_private {
            return Ok(found);
        }
        let mut allowed = self.empty();
        found.iter().filter(|address| !is_internal(address.ip())).for_each(|address| allowed.push(*address));
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        let internal = Internal(found.iter().map(SocketAddr::ip).next());
        Err(ureq::Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, internal)))
    }
}

fn literal(uri: &Uri) -> Option<SocketAddr> {
    let authority = uri.authority()?;
    let ip: IpAddr = authority.host().trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some(SocketAddr::new(ip, authority.port_u16().unwrap_or(default)))
}

/// A name that leads inside.
#[derive(Debug)]
struct Internal(Option<IpAddr>);

impl fmt::Display for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => write!(f, "its name leads to {ip}, ")?,
            None => f.write_str("its name leads nowhere, ")?,
        }
        f.write_str("an address of this host or its networks: say allow_private = true if you mean it")
    }
}

impl std::error::Error for Internal {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every name with these.
    #[derive(Debug)]
    struct Says(Vec<&'static str>);

    impl Resolver for Says {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut found = self.empty();
            self.0.iter().for_each(|ip| found.push(SocketAddr::new(ip.parse().expect("an address"), 80)));
            Ok(found)
        }
    }

    fn resolve(allow_private: bool, url: &str, says: &[&'static str]) -> Result<Vec<String>, String> {
        let timeout = NextTimeout {
            after: ureq::unversioned::transport::time::Duration::NotHappening,
            reason: ureq::Timeout::Global,
            ..NextTimeout::default()
        };
        let addresses = Addresses { allow_private, resolver: Says(says.to_vec()) };
        let found = addresses.resolve(&url.parse().expect("a URL"), &Config::default(), timeout);
        found.map(|found| found.iter().map(ToString::to_string).collect()).map_err(|err| err.to_string())
    }

    #[test]
    fn only_the_public_addresses_of_a_name_are_connected_to() {
        let told = resolve(false, "http://x.example/", &["10.0.0.1", "1.1.1.1", "::1"]);
        assert_eq!(told, Ok(vec!["1.1.1.1:80".to_owned()]));
        let told = resolve(false, "http://x.example/", &["169.254.169.254"]).expect_err("inside");
        assert!(told.contains("169.254.169.254") && told.contains("allow_private"), "{told}");
        assert_eq!(resolve(true, "http://x.example/", &["10.0.0.1"]), Ok(vec!["10.0.0.1:80".to_owned()]));
    }

    #[test]
    fn an_address_in_the_url_is_held_to_the_same() {
        assert_eq!(resolve(true, "https://127.0.0.1/", &[]), Ok(vec!["127.0.0.1:443".to_owned()]));
        assert_eq!(resolve(true, "http://[::1]:99/", &[]), Ok(vec!["[::1]:99".to_owned()]));
        assert!(resolve(false, "http://[::ffff:127.0.0.1]/", &[]).is_err());
        assert_eq!(resolve(false, "http://1.1.1.1/", &[]), Ok(vec!["1.1.1.1:80".to_owned()]));
    }
}
