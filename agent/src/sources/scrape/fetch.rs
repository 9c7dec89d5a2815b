//! One GET of a target's metrics: without TLS, without redirects (a target may not send the agent elsewhere), with a new
//! connection each time.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Uri;

/// More than any service has to say: some 40,000 series, twice those that are kept.
const MAX_BODY_BYTES: usize = 4 << 20;
/// All answers that are there at one time: an agent is small, also where it has a hundred targets.
const ROOM_BYTES: usize = 8 << 20;
/// In these an answer gets room.
const STEP_BYTES: usize = 64 << 10;
/// What the connection reads ahead.
const READ_BYTES: usize = 64 << 10;
/// How gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];
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
    #[error("the answers of all targets together take {} MiB already: this one is tried again", ROOM_BYTES >> 20)]
    NoRoom,
    #[error("its answer is encoded ({0}), which it was not asked for")]
    Encoded(String),
}

/// What all targets' answers may take together.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_BYTES / STEP_BYTES)))
    }
}

/// An answer, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) text: Vec<u8>,
    room: Room,
    taken: OwnedSemaphorePermit,
}

impl Body {
    /// Waits for room for what is expected. Whoever waits holds none, so that two never wait for each other.
    async fn expecting(n_bytes: usize, room: &Room) -> Self {
        let n_steps = n_bytes.clamp(1, MAX_BODY_BYTES).div_ceil(STEP_BYTES);
        let taken = Arc::clone(&room.0).acquire_many_owned(n_steps as u32).await.expect("it is never closed");
        Self { text: Vec::with_capacity(n_steps * STEP_BYTES), room: room.clone(), taken }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let n_bytes = self.text.len() + bytes.len();
        if n_bytes > MAX_BODY_BYTES {
            return Err(Error::TooLong);
        }
        let n_more = n_bytes.div_ceil(STEP_BYTES).saturating_sub(self.taken.num_permits());
        if n_more > 0 {
            // Not waited for: others may hold the rest, and wait for what this one has.
            let more = Arc::clone(&self.room.0).try_acquire_many_owned(n_more as u32).map_err(|_| Error::NoRoom)?;
            self.taken.merge(more);
            self.text.reserve_exact(self.taken.num_permits() * STEP_BYTES - self.text.len());
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }
}

/// The body of `url`, which is http and has a host. It is wanted whole: of half a scrape's counters nobody could say later
/// what was reported and what was not. How large it is expected to be is learned from one time to the next.
pub(crate) async fn fetch(url: &Uri, room: &Room, expected: &mut usize) -> Result<Body, Error> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(Error::Connect)?;
    let mut handshake = http1::Builder::new();
    let handshake = handshake.max_buf_size(READ_BYTES).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(Error::Ask)?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority)
        .header(USER_AGENT, concat!("gopherwatch-agent/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, FORMATS)
        .header(ACCEPT_ENCODING, "identity")
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
        let encoding = response.headers().get(CONTENT_ENCODING).map(|it| String::from_utf8_lossy(it.as_bytes()));
        if let Some(encoding) = encoding.filter(|it| !it.eq_ignore_ascii_case("identity")) {
            return Err(Error::Encoded(encoding.into_owned()));
        }
        let mut body = Body::expecting(*expected, room).await;
        let mut frames = response.into_body();
        while let Some(frame) = frames.frame().await {
            let Ok(bytes) = frame.map_err(Error::Read)?.into_data() else { continue };
            *expected = (*expected).max(body.text.len() + bytes.len());
            body.add(&bytes)?;
        }
        if body.text.starts_with(GZIP) {
            return Err(Error::Encoded("gzip".to_owned()));
        }
        *expected = body.text.len();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_never_take_more_than_the_room_for_all_of_them() {
        let room = Room::default();
        let piece = vec![b'x'; STEP_BYTES];
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(Body::expecting(0, &room).await);
        }
        let mut n_bytes = 0;
        let refused = (0..).find_map(|n: usize| match bodies[n % 3].add(&piece) {
            Ok(()) => {
                n_bytes += piece.len();
                None
            }
            Err(err) => Some(err),
        });
        assert!(matches!(refused, Some(Error::NoRoom)), "{refused:?}");
        assert_eq!(n_bytes, ROOM_BYTES);
        let capacity: usize = bodies.iter().map(|body| body.text.capacity()).sum();
        assert!(capacity <= ROOM_BYTES, "{capacity}");
        // What one gives back is there for the others, also for the largest.
        bodies.truncate(1);
        let mut large = Body::expecting(MAX_BODY_BYTES, &room).await;
        assert!((0..MAX_BODY_BYTES / STEP_BYTES).all(|_| large.add(&piece).is_ok()));
        assert!(matches!(large.add(b"x"), Err(Error::TooLong)));
    }
}
