//! From listener to connections: who may come in, for how long, and how they are sent home.
//!
//! `warp::serve` limits neither connections nor the time for a head, and its graceful stop waits for half a head
//! without end; therefore hyper is driven here. Each connection watches itself, so that stopping needs no list of them.

use std::{io, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use slog::{Logger, warn};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Options,
    access::Caller,
    connections::{Connections, Place},
    front::Front,
};
use crate::doors::{Doors, NotOpened, Port};

/// After an error that lasts, such as too many open files: asking again at once would keep a core busy.
const PAUSE_ON_ERROR: Duration = Duration::from_millis(100);
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// While stopping, how long a client may take to read an answer that is ready.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// Serves until `stop`, then until the requests under way are answered.
pub(super) async fn run(
    listener: TcpListener,
    doors: (Arc<Doors>, Arc<Front>),
    connections: Arc<Connections>,
    options: Options,
    stop: CancellationToken,
    log: Logger,
) {
    let options = Arc::new(options);
    let tasks = TaskTracker::new();
    let mut failing = false;
    for id in 0.. {
        // Room comes before accepting: whoever finds none waits in the kernel's queue, not in our memory.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = async { (connections.room().await, listener.accept().await) } => accepted,
        };
        match accepted {
            (permit, Ok((tcp, caller))) => {
                failing = false;
                let place = connections.admit(id, permit);
                tasks.spawn(serve(tcp, Caller(caller), place, doors.clone(), options.clone(), stop.clone()));
            }
            (_, Err(err)) if is_the_peers(&err) => {}
            (_, Err(err)) => {
                if !failing {
                    warn!(log, "rest cannot accept connections"; "error" => %err);
                }
                failing = true;
                sleep(PAUSE_ON_ERROR).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Whether the peer went away while it waited, which is no trouble of ours.
fn is_the_peers(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn serve(
    tcp: TcpStream,
    caller: Caller,
    place: Place,
    (doors, front): (Arc<Doors>, Arc<Front>),
    options: Arc<Options>,
    stop: CancellationToken,
) {
    // It only makes small answers faster, so that a failure is none.
    let _ = tcp.set_nodelay(true);
    let peer = place.peer();
    let deadline = Instant::now() + options.header_read;
    let opened = tokio::select! {
        opened = doors.open(Port::Rest, tcp, caller.0, deadline) => opened,
        () = peer.evicted() => return,
        () = stop.cancelled() => return,
    };
    let wire = match opened {
        Ok(wire) => wire,
        Err(NotOpened::NoTls(tcp)) => return say_tls(tcp).await,
        Err(NotOpened::Gone) => return,
    };
    let asking = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        let busy = asking.begin();
        let front = front.clone();
        async move {
            let answer = front.answer(request).await;
            drop(busy);
            answer
        }
    });
    let builder = builder(&options);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    tokio::select! {
        // Its errors are the client's: it went away, or it does not speak HTTP.
        _ = connection.as_mut() => return,
        () = peer.evicted() => return,
        () = peer.quiet(options.header_read, options.request) => {}
        () = stop.cancelled() => {}
    }
    // An idle connection ends at once, one with a request after its answer. Half a head, or an answer that nobody
    // reads, would hold it: neither is waited for.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        // First, so that a head which has arrived in full is a request under way when the other looks.
        biased;
        _ = connection => {}
        () = peer.quiet(Duration::ZERO, LAST_ANSWER) => {}
    }
}

/// What somebody hears who asks without TLS: a browser or curl would show nothing but a broken connection.
async fn say_tls(mut tcp: TcpStream) {
    const BODY: &str =
        r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"this port speaks TLS: ask by https"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    // Whoever does not take it has no need of it.
    let _ = timeout(LAST_ANSWER, async {
        tcp.write_all(answer.as_bytes()).await?;
        tcp.shutdown().await
    })
    .await;
}

fn builder(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_read)
        .max_buf_size(options.max_header_bytes)
        // A client may close its half once it has asked, as `nc -N` does.
        .half_close(true);
    let max_header_bytes = u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(max_header_bytes);
    builder
}
