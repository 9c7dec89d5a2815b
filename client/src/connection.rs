//! A connection to a server: how it is found, how long that may take, and what of it is not as it should be.

mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{BoxError, ServiceExt, service_fn};

use crate::address;
use crate::client::locked;
use crate::tls::{Secured, TlsError, TlsFiles};
use wire::Wire;

/// How long one address of the server may take to answer.
const ADDRESS_WAIT: Duration = Duration::from_secs(4);

/// How long finding the server and connecting to it may take. The system's own library asks each name server for 5 s: two of
/// three may be dead. That it has no answer either is worth a word, and a reason to begin anew.
const CONNECT_WAIT: Duration = Duration::from_secs(12);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    /// Somebody said so.
    #[error(transparent)]
    Refused(tonic::transport::Error),
    /// It would not be secured, or only that way.
    #[error(transparent)]
    Tls(TlsError),
    /// Nobody said anything.
    #[error("no answer within {CONNECT_WAIT:?}, of a name server or the server")]
    Silence,
}

impl NoConnection {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            NoConnection::Tls(err) => err.advice(),
            NoConnection::Refused(_) | NoConnection::Silence => {
                "is gopherwatch-server running there? --server says where to look"
            }
        }
    }
}

/// A connection, which is made again by itself when it ends; each time with the files as they are then.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) channel: Channel,
    notes: Notes,
}

impl Connection {
    /// How it is secured, if it is.
    pub fn secured(&self) -> Option<Secured> {
        locked(&self.notes.0).secured
    }

    /// What was wrong about TLS, if something was, since it was asked last.
    pub(crate) fn tls_error(&self) -> Option<TlsError> {
        self.notes.take()
    }
}

/// What a connection's parts found: libraries between them and whoever wants to know make text of it.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    secured: Option<Secured>,
    wrong: Option<TlsError>,
}

impl Notes {
    /// The first thing that is wrong is the cause of the others.
    fn wrong(&self, err: TlsError) {
        locked(&self.0).wrong.get_or_insert(err);
    }

    fn take(&self) -> Option<TlsError> {
        locked(&self.0).wrong.take()
    }
}

/// Connects to `server`, within a bounded time: by TLS if its address says https, and then never without.
///
/// # Errors
/// There is no connection.
pub async fn connect(server: &Uri, files: &TlsFiles) -> Result<Connection, NoConnection> {
    let notes = Notes::default();
    let endpoint = endpoint(server);
    let connecting = endpoint.connect_with_connector(connector(server.clone(), files.clone(), notes.clone()));
    match timeout(CONNECT_WAIT, connecting).await {
        Ok(Ok(channel)) => Ok(Connection { channel, notes }),
        Ok(Err(err)) => Err(notes.take().map_or(NoConnection::Refused(err), NoConnection::Tls)),
        Err(_) => Err(NoConnection::Silence),
    }
}

/// An endpoint that notices a dead peer: TCP alone would take a quarter of an hour.
fn endpoint(server: &Uri) -> Endpoint {
    // TLS is our connector's: tonic would refuse to have another do it.
    let bare = format!("http://{}", server.authority().map_or("", |authority| authority.as_str()));
    let bare: Uri = bare.parse().expect("it is a part of a valid one");
    Endpoint::from(bare)
        .origin(server.clone())
        .user_agent(concat!("gopherwatch-client/", env!("CARGO_PKG_VERSION")))
        .expect("a name and a version are a valid header")
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
}

/// What opens a connection to `server`, the first time and each time that it has ended.
fn connector(
    server: Uri,
    files: TlsFiles,
    notes: Notes,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<Wire>,
    Error = BoxError,
    Future = impl Future<Output = Result<TokioIo<Wire>, BoxError>> + Send,
> + Send {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.set_connect_timeout(Some(ADDRESS_WAIT));
    service_fn(move |address: Uri| {
        let (http, server, files, notes) = (http.clone(), server.clone(), files.clone(), notes.clone());
        async move {
            let stream = http.oneshot(address).await?.into_inner();
            if !address::is_https(&server) {
                return Ok(TokioIo::new(Wire::plain(stream, notes)));
            }
            let (wire, secured) = Wire::secured(stream, &server, &files, notes.clone()).await.map_err(|err| {
                let text = err.to_string();
                notes.wrong(err);
                text
            })?;
            locked(&notes.0).secured = Some(secured);
            Ok(TokioIo::new(wire))
        }
    })
}
