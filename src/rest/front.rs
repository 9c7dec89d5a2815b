//! What every request meets before and after the routes: limits, the host that it is for, the time it may take, the headers of
//! all answers.

use std::{convert::Infallible, error::Error, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use hyper::{Request, body::Body};
use slog::{Logger, error};
use tokio::{sync::Semaphore, time::timeout};
use tower::ServiceExt;
use warp::{
    Reply,
    filters::BoxedFilter,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Options,
    access::Caller,
    problem::Problem,
    room::{Budget, Roomy},
};
use crate::doors::Doors;

/// What browsers are told with every answer: it is what it says, nobody's frame, loads nothing, and is not kept.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];
/// So much of a foreign host is said back.
const MAX_HOST_BYTES: usize = 100;

/// A whole answer: warp's, in its room.
pub(super) type Answer = hyper::Response<Roomy<warp::Error>>;

/// The routes, behind their limits.
pub(super) struct Front {
    routes: BoxedFilter<(Response,)>,
    doors: Arc<Doors>,
    places: Semaphore,
    room: Budget,
    max_uri_bytes: usize,
    request: Duration,
    log: Logger,
}

impl Front {
    /// Puts the limits of `options` before `routes`.
    pub(super) fn new(routes: BoxedFilter<(Response,)>, doors: Arc<Doors>, options: &Options, log: Logger) -> Self {
        let places = Semaphore::new(options.max_requests);
        let room = Budget::new(options.max_answer_bytes);
        Self { routes, doors, places, room, max_uri_bytes: options.max_uri_bytes, request: options.request, log }
    }

    /// Answers one request, whatever happens.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Result<Answer, Infallible>
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let is_head = request.method() == Method::HEAD;
        let mut response = match self.routed(request).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let response = if is_head { without_body(response) } else { response };
        Ok(self.in_room(response))
    }

    /// Takes the room of the answer; without any, the client is told to come again.
    fn in_room(&self, response: Response) -> Answer {
        let (parts, body) = response.into_parts();
        if let Ok(body) = self.room.admit(body) {
            return Answer::from_parts(parts, body);
        }
        let (parts, body) = Problem::unavailable("too many large answers are being read").into_response().into_parts();
        let body = self.room.admit(body).unwrap_or_else(|_| unreachable!("a problem is small"));
        Answer::from_parts(parts, body)
    }

    /// Whether every host that the request names is one of ours. Browsers always name one; a request without is a program's.
    fn is_for_us<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let peer = request.extensions().get::<Caller>().map(|caller| caller.0);
        let in_headers = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
        for host in in_headers.chain(request.uri().authority().map(|authority| authority.as_str())) {
            if !self.doors.admit_host(host, peer) {
                let said: String = host.chars().take(MAX_HOST_BYTES).collect();
                let detail = format!(
                    "this server does not answer to the host `{said}`: if it should, start it with --allowed-host NAME"
                );
                return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
            }
        }
        Ok(())
    }

    async fn routed<B>(&self, request: Request<B>) -> Result<Response, Problem>
    where
        B: Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let uri_bytes = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
        if uri_bytes > self.max_uri_bytes {
            let detail = format!("path and query have {uri_bytes} bytes, the most is {}", self.max_uri_bytes);
            return Err(Problem::new(StatusCode::URI_TOO_LONG, detail));
        }
        self.is_for_us(&request)?;
        // HTTP/2 puts many requests on one connection, so that the limit of connections does not bound these.
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Problem::unavailable("too many requests at once"));
        };
        let path = request.uri().path().to_owned();
        let answering = warp::service(self.routes.clone()).oneshot(request);
        match timeout(self.request, AssertUnwindSafe(answering).catch_unwind()).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Err(_panic)) => {
                error!(self.log, "answering a request panicked"; "path" => path);
                Err(Problem::internal())
            }
            Err(_elapsed) => Err(Problem::unavailable("the answer took too long")),
        }
    }
}

/// What HEAD gets: all that GET would, without the body.
fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let (mut parts, _) = response.into_parts();
    if let Some(length) = length {
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Vec::<u8>::new().into())
}

#[cfg(test)]
mod tests {
    use slog::{Discard, o};
    use tokio::sync::Notify;
    use warp::Filter;

    use super::*;
    use crate::{doors, stats::Stats};

    /// What `GET /path` gets from routes of which one panics and one never answers.
    async fn get(front: &Front, path: &str) -> Answer {
        let request = Request::get(path).body(String::new()).expect("a valid request");
        front.answer(request).await.expect("every request is answered")
    }

    fn front(options: &Options) -> Front {
        let panics = warp::path!("panics").map(|| -> Response { panic!("a fault of ours") });
        let hangs = warp::path!("hangs").and_then(async || {
            Notify::new().notified().await;
            Ok::<_, warp::Rejection>("never".into_response())
        });
        let routes = panics.or(hangs).unify().boxed();
        let log = Logger::root(Discard, o!());
        let doors = Doors::new(doors::Settings::default(), Arc::new(Stats::new()), &log);
        Front::new(routes, Arc::new(doors), options, log)
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_not_the_end_of_the_connection() {
        let front = front(&Options::default());
        let response = get(&front, "/panics").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[tokio::test]
    async fn a_request_ends_in_time_and_one_too_many_is_told_to_come_again() {
        let options = Options { request: Duration::from_millis(200), max_requests: 1, ..Options::default() };
        let front = front(&options);
        let (hung, refused) = tokio::join!(get(&front, "/hangs"), get(&front, "/panics"));
        for response in [hung, refused] {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
        }
        assert_eq!(get(&front, "/panics").await.status(), StatusCode::INTERNAL_SERVER_ERROR, "its place is free again");
    }
}
