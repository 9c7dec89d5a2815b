//! What a client is told when it does not get what it asked for: RFC 9457, `application/problem+json`.
//!
//! The detail says what the client can do. What went wrong inside is for the log.

use serde::Serialize;
use warp::{
    Reply,
    http::{HeaderValue, StatusCode, header},
    reject::Reject,
    reply::Response,
};

/// Seconds after which a client that met an overload or a deaf store may well have more luck.
const RETRY_AFTER_SECONDS: u16 = 2;

/// An error answer.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    allow: Option<&'static str>,
    /// A stable code for programs, where the status says too little.
    reason: Option<&'static str>,
    /// Line and column.
    place: Option<(usize, usize)>,
}

#[derive(Serialize)]
struct View<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

impl Problem {
    /// An error of this status.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), allow: None, reason: None, place: None }
    }

    /// The same, at this line and column of a file, counted from 1.
    pub(super) fn in_file(self, place: Option<(usize, usize)>) -> Self {
        Self { place, ..self }
    }

    /// 400: the parameter `name` is wrong in this way.
    pub(super) fn bad_parameter(name: &str, what: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{name}: {what}"))
    }

    /// The same with a code for programs.
    #[must_use]
    pub(super) fn with_reason(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405; `allow` lists the methods that there are.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this resource takes {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// 500, with all that a client needs to know about it.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed by a fault of the server; its log says more")
    }

    /// 503: the same request can succeed later.
    pub(super) fn unavailable(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl Reject for Problem {}

impl Reply for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let (line, column) = self.place.unzip();
        let view = View {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            reason: self.reason,
            line,
            column,
        };
        let body = serde_json::to_vec(&view).expect("strings and numbers are JSON");
        let mut response = body.into_response();
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}
