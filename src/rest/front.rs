//! What every request meets before and after the routes: limits, the time it may take, the headers of all answers.

use std::{convert::Infallible, error::Error, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use hyper::{Request, body::Body};
use slog::{Logger, error};
use tokio::{sync::Semaphore, time::timeout};
use tower::ServiceExt;
use warp::{
    Reply,
    filters::BoxedFilter,
    http::{HeaderValue, Method, StatusCode, header},
    reply::Response,
};

use super::{
    Options,
    problem::Problem,
    room::{Budget, Roomy},
};

/// A whole answer: warp's, in its room.
pub(super) type Answer = hyper::Response<Roomy<warp::Error>>;

/// The routes, behind their limits.
pub(super) struct Front {
    routes: BoxedFilter<(Response,)>,
    places: Semaphore,
    room: Budget,
    max_uri_bytes: usize,
    request: Duration,
    log: Logger,
}

impl Front {
    /// Puts the limits of `options` before `routes`.
    pub(super) fn new(routes: BoxedFilter<(Response,)>, options: &Options, log: Logger) -> Self {
        let places = Semaphore::new(options.max_requests);
        let room = Budget::new(options.max_answer_bytes);
        Self { routes, places, room, max_uri_bytes: options.max_uri_bytes, request: options.request, log }
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
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
        Front::new(routes, options, Logger::root(Discard, o!()))
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
