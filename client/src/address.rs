//! Where a server is: a URL, or a host with or without a port.

use std::net::IpAddr;

use tonic::transport::Uri;

/// The port that a server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 50051;

/// Why a text is no server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has another shape.
    #[error(
        "not a server's address: write {DEFAULT_PORT} as in http://127.0.0.1:{DEFAULT_PORT}, https://host:{DEFAULT_PORT} or host:{DEFAULT_PORT}"
    )]
    Shape,
    /// It asks for TLS, which was left out.
    #[error("https needs the feature `tls` of gopherwatch-client, without which this program was built")]
    NoTls,
}

/// The server that `text` names: without a scheme by http, without a port at [`DEFAULT_PORT`].
///
/// # Errors
/// It names none, or one by https where that was left out.
pub fn parse(text: &str) -> Result<Uri, AddressError> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| AddressError::Shape)?;
    if is_https(&uri) && !cfg!(feature = "tls") {
        return Err(AddressError::NoTls);
    }
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(AddressError::Shape)?;
    let authority = uri.authority().ok_or(AddressError::Shape)?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
    if !is_bare || authority.host().is_empty() {
        return Err(AddressError::Shape);
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // "host:" and "host:70000" parse as an authority without a port.
        None if authority.as_str() == authority.host() => DEFAULT_PORT,
        None => return Err(AddressError::Shape),
    };
    format!("{scheme}://{}:{port}", authority.host()).parse().map_err(|_| AddressError::Shape)
}

/// Whether it is to be spoken to by TLS.
pub fn is_https(server: &Uri) -> bool {
    server.scheme_str() == Some("https")
}

/// Whether what is sent to it can be read on the way: by plain http, over something else than this host's loopback.
pub fn is_exposed(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !is_https(server) && !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_or_a_host_with_or_without_port() {
        for (text, uri) in [
            ("http://10.0.0.1:4000", "http://10.0.0.1:4000/"),
            ("http://10.0.0.1:4000/", "http://10.0.0.1:4000/"),
            ("watch.example:4000", "http://watch.example:4000/"),
            ("watch.example", "http://watch.example:50051/"),
            ("http://watch.example", "http://watch.example:50051/"),
            ("[::1]:4000", "http://[::1]:4000/"),
            ("[::1]", "http://[::1]:50051/"),
            ("https://watch.example:4000", "https://watch.example:4000/"),
            ("https://watch.example/", "https://watch.example:50051/"),
            ("HTTPS://[::1]", "https://[::1]:50051/"),
        ] {
            assert_eq!(parse(text).expect(text).to_string(), uri, "{text}");
        }
        for bad in [
            "",
            "http://",
            "https://",
            "host:",
            "host:0x1",
            "host:70000",
            "ftp://a:1",
            "https://a:1/b",
            "a:1/path",
            "u@a:1",
            "a b",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} gave {:?}", parse(bad));
        }
    }

    #[test]
    fn plain_http_is_exposed_unless_it_stays_on_this_host() {
        for (text, exposed) in [
            ("127.0.0.1", false),
            ("127.8.0.1", false),
            ("[::1]", false),
            ("localhost", false),
            ("https://watch.example", false),
            ("watch.example", true),
            ("localhost.example", true),
            ("10.0.0.1", true),
            ("[fe80::1]", true),
        ] {
            assert_eq!(is_exposed(&parse(text).expect(text)), exposed, "{text}");
        }
    }
}
