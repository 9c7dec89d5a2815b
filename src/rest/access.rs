//! What a route asks of whoever asks it.
//!
//! Each route says so itself, by one of the filters here or by `writes`: they give what an answer is made with, so that a
//! route which says nothing does not compile. They stand behind the path and before everything else of a request.

use std::{future::Future, net::SocketAddr, sync::Arc};

use warp::{
    Filter, Rejection, Reply,
    http::{HeaderMap, Method, StatusCode, header},
    path::FullPath,
    reject,
    reply::Response,
};

use super::{Shared, problem::Problem};
use crate::doors::{Access, Doors, Holder, Refused};

/// Who is at the other end of the connection, as the accept loop tells each of its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) SocketAddr);

/// Leave to answer. A change that was allowed is written down with what came of it.
pub(super) struct Granted(Option<Change>);

impl Granted {
    /// Answers. A problem is an answer too, and no rejection: after one of `/alerts/active` the route of
    /// `/alerts/{alert_id}`, which its path fits as well, would be tried.
    pub(super) fn answer(self, result: Result<Response, Problem>) -> Response {
        let response = result.unwrap_or_else(Reply::into_response);
        if let Some(mut change) = self.0 {
            change.outcome = Some(response.status());
        }
        response
    }
}

/// A change that somebody was let in for.
struct Change {
    doors: Arc<Doors>,
    holder: Holder,
    peer: Option<SocketAddr>,
    action: String,
    outcome: Option<StatusCode>,
}

impl Drop for Change {
    /// Here, so that what is cut off is written down, too.
    fn drop(&mut self) {
        self.doors.audit(self.holder, self.peer, &self.action, self.outcome.map(|status| status.as_u16()));
    }
}

/// For everybody: what tells nothing of what is watched.
pub(super) fn open() -> impl Filter<Extract = (Granted,), Error = Rejection> + Clone {
    is_read().map(|| Granted(None))
}

/// For those who may read.
pub(super) fn reads(shared: &Arc<Shared>) -> impl Filter<Extract = (Granted,), Error = Rejection> + Clone + use<> {
    let doors = shared.context.doors.clone();
    is_read().and(warp::header::headers_cloned()).and(warp::ext::optional::<Caller>()).and_then(
        move |headers: HeaderMap, caller| {
            let granted = admit(&doors, Access::Read, &headers, caller).map(|_| Granted(None));
            std::future::ready(granted)
        },
    )
}

/// For those who may change something. `writes` puts it where it belongs.
pub(super) fn changes(shared: &Arc<Shared>) -> impl Filter<Extract = (Granted,), Error = Rejection> + Clone + use<> {
    let doors = shared.context.doors.clone();
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Caller>())
        .and_then(move |method: Method, path: FullPath, headers: HeaderMap, caller: Option<Caller>| {
            let granted = admit(&doors, Access::Admin, &headers, caller).map(|holder| {
                let action = format!("{method} {}", path.as_str());
                let peer = caller.map(|caller| caller.0);
                Granted(Some(Change { doors: doors.clone(), holder, peer, action, outcome: None }))
            });
            std::future::ready(granted)
        })
}

fn admit(doors: &Doors, access: Access, headers: &HeaderMap, caller: Option<Caller>) -> Result<Holder, Rejection> {
    let given = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes());
    doors.admit(access, given, caller.map(|caller| caller.0)).map_err(|why| {
        let (status, detail) = match why {
            Refused::NoToken => {
                (StatusCode::UNAUTHORIZED, "this server asks for a token: send the header `Authorization: Bearer TOKEN`")
            }
            Refused::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "this token is none of the server's: the header must be `Authorization: Bearer TOKEN`, with one of those in \
                 GOPHERWATCH_READ_TOKEN or GOPHERWATCH_ADMIN_TOKEN, or in their files",
            ),
            Refused::LesserToken => (
                StatusCode::FORBIDDEN,
                match access {
                    Access::Read => "this is an agent's token: reading takes that of GOPHERWATCH_READ_TOKEN",
                    Access::Admin => "this token is not for changes: they take that of GOPHERWATCH_ADMIN_TOKEN",
                },
            ),
        };
        reject::custom(Problem::new(status, detail))
    })
}

/// Stands behind the path, so that a wrong method on a known path is told from an unknown path.
fn is_read() -> impl Filter<Extract = (), Error = Rejection> + Copy {
    warp::method().and_then(only_read).untuple_one()
}

fn only_read(method: Method) -> impl Future<Output = Result<(), Rejection>> {
    let is_read = method == Method::GET || method == Method::HEAD;
    std::future::ready(if is_read { Ok(()) } else { Err(reject::custom(Problem::method_not_allowed("GET, HEAD"))) })
}
