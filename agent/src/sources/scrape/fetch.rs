//! One GET of a target's metrics: without TLS, without redirects (a target may not send the agent elsewhere), with a new
//! connection each time.

use std::io;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Uri;

/// More than any service has to say.
const MAX_BODY_BYTES: usize = 16 << 20;
/// The text format first, OpenMetrics rather than protobuf.
const FORMATS: &str = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1";

/// Why there is nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("connecting")]
    Connect(#[source] io::Error),
    #[error("asking")]
    Ask(#[source] hyper::Error),
    #[error("it answers {0}, and redirects are not followed")]
    Redirected(StatusCode),
    #[error("it answers {0}")]
    Refused(StatusCode),
    #[error("reading its answer")]
    Read(#[source] hyper::Error),
    #[error("it has more than {} MiB to say", MAX_BODY_BYTES >> 20)]
    TooLong,
}

/// The body of `url`, which is http and has a host. It is wanted whole: of half a scrape's counters nobody could say later
/// what was reported and what was not.
pub(crate) async fn fetch(url: &Uri) -> Result<Vec<u8>, Error> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Ask)?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority)
        .header(USER_AGENT, concat!("gopherwatch-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, FORMATS)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a parsed URL makes a request");
    let exchange = async {
        let response = sender.send_request(request).await.map_err(Error::Ask)?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(Error::Redirected(status)),
            status => return Err(Error::Refused(status)),
        }
        let mut frames = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = frames.frame().await {
            let Ok(bytes) = frame.map_err(Error::Read)?.into_data() else { continue };
            if body.len() + bytes.len() > MAX_BODY_BYTES {
                return Err(Error::TooLong);
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    };
    // In this task, so that giving up on the answer gives up the connection.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        // It ended; what it read before is still to be had.
        _ = connection => exchange.await,
    }
}
