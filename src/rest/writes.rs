//! What a request that changes something has to pass before it is looked at: method, origin, token, body.
//!
//! A page on the web can have a browser post to an address that only its user can reach, this server's among them. The
//! browser then says whose page it is, and a page of another origin is refused. Programs say no origin.

use std::{pin::pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use hyper::body::Buf;
use warp::{
    Filter, Rejection,
    host::Authority,
    http::{HeaderMap, Method, StatusCode, header},
    reject,
};

use super::{
    Shared,
    access::{Caller, Granted, changes},
    problem::Problem,
};
use crate::doors::{Port, Reason};

/// Nothing is read from the bodies of these requests; a client that sends one by habit sends a short one.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Stands behind the path, and lets `method` pass.
pub(super) fn writes(
    shared: &Arc<Shared>,
    method: Method,
    allow: &'static str,
) -> impl Filter<Extract = (Granted,), Error = Rejection> + Clone + use<> {
    let is_it = move |asked: Method| {
        let is_it = asked == method;
        std::future::ready(if is_it { Ok(()) } else { Err(reject::custom(Problem::method_not_allowed(allow))) })
    };
    // A host that cannot be read is nobody's own.
    let host = warp::host::optional().or_else(async |_| Ok::<_, Rejection>((None,)));
    let doors = shared.context.doors.clone();
    let from_here = move |headers: HeaderMap, caller: Option<Caller>, host: Option<Authority>| {
        std::future::ready(if is_foreign(&headers, host.as_ref()) {
            doors.note(Port::Rest, Reason::ForeignOrigin, caller.map(|caller| caller.0));
            Err(reject::custom(Problem::new(StatusCode::FORBIDDEN, "a page of another origin may not ask this")))
        } else {
            Ok(())
        })
    };
    warp::method()
        .and_then(is_it)
        .untuple_one()
        .and(
            warp::header::headers_cloned()
                .and(warp::ext::optional::<Caller>())
                .and(host)
                .and_then(from_here)
                .untuple_one(),
        )
        .and(changes(shared))
        .and(warp::body::stream().and_then(async |body| ignored(body).await).untuple_one())
}

/// Whether a browser asks for a page of another origin than this server's. Scheme and host make an origin; the scheme
/// is not compared, for a proxy may speak TLS in our place.
fn is_foreign(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = || {
        let (_, origin) = origin.to_str().ok()?.split_once("://")?;
        Some(origin.eq_ignore_ascii_case(host?.as_str()))
    };
    own() != Some(true)
}

/// Reads the body to its end, so that the answer does not meet a client that still sends.
async fn ignored(body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Result<(), Rejection> {
    let mut body = pin!(body);
    let mut n_bytes = 0;
    while let Some(piece) = body.next().await {
        let refuse = |status, detail: String| reject::custom(Problem::new(status, detail));
        n_bytes += piece.map_err(|_| refuse(StatusCode::BAD_REQUEST, "the body broke off".to_owned()))?.remaining();
        if n_bytes > MAX_BODY_BYTES {
            let detail = format!("this needs no body; one of more than {MAX_BODY_BYTES} bytes is not read");
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
    }
    Ok(())
}
