//! Where a server is: a URL, or a host with or without a port.

use tonic::transport::Uri;

/// The port that a server listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 50051;

/// Why a text is no server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has another shape.
    #[error(
        "not a server's address: write {DEFAULT_PORT} as in http://127.0.0.1:{DEFAULT_PORT} or host:{DEFAULT_PORT}"
    )]
    Shape,
    /// It asks for TLS.
    #[error("https is not spoken yet: use http://, and a tunnel where the network is not trusted")]
    Https,
}

/// The server that `text` names.
///
/// # Errors
/// It names none.
pub fn parse(text: &str) -> Result<Uri, AddressError> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| AddressError::Shape)?;
    if uri.scheme_str() == Some("https") {
        return Err(AddressError::Https);
    }
    let authority = uri.authority().ok_or(AddressError::Shape)?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
    if uri.scheme_str() != Some("http") || !is_bare || authority.host().is_empty() {
        return Err(AddressError::Shape);
    }
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        // "host:" and "host:70000" parse as an authority without a port.
        None if authority.as_str() == authority.host() => DEFAULT_PORT,
        None => return Err(AddressError::Shape),
    };
    format!("http://{}:{port}", authority.host()).parse().map_err(|_| AddressError::Shape)
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
        ] {
            assert_eq!(parse(text).expect(text).to_string(), uri, "{text}");
        }
        for bad in
            ["", "http://", "host:", "host:0x1", "host:70000", "ftp://a:1", "https://a:1", "a:1/path", "u@a:1", "a b"]
        {
            assert!(parse(bad).is_err(), "{bad:?} gave {:?}", parse(bad));
        }
    }
}
