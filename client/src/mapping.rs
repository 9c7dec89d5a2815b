//! What figures are called: the names that rules are written against, whoever reports.
//!
//! A counter `x` is reported as `x_count`, its total, and `x_rate`, its increase per second. What services call their
//! requests and errors goes by one name each, so that one rule fits them all (CONTRACT §1).

use std::borrow::Cow;

use gopherwatch_proto::{MAX_NAME_BYTES, is_valid_name};

/// Room for what is put behind a name: `_count`, `_unique`, `_p99_9`.
const SUFFIX_BYTES: usize = 8;

/// Ends of a counter's name that say no more than that it is one. A dot counts as an underscore.
const SUFFIXES: [&str; 2] = ["_total", "_count"];
/// What services call the requests that they have had.
const REQUESTS: [&str; 8] = [
    "request",
    "requests",
    "http_request",
    "http_requests",
    "http_server_requests",
    "grpc_requests",
    "grpc_server_handled",
    "rpc_requests",
];
/// What they call those that went wrong.
const ERRORS: [&str; 9] = [
    "error",
    "errors",
    "http_error",
    "http_errors",
    "http_requests_errors",
    "http_server_errors",
    "request_errors",
    "requests_failed",
    "failed_requests",
];

/// The name before `_count` and `_rate` for a counter that its service calls so: `http_requests_total` is `request`.
pub fn counter_stem(name: &str) -> &str {
    let stem = SUFFIXES.iter().find_map(|suffix| strip(name, suffix)).unwrap_or(name);
    let is_one_of = |names: &[&str]| names.iter().any(|other| is_same(stem, other));
    match stem {
        _ if is_one_of(&REQUESTS) => "request",
        _ if is_one_of(&ERRORS) => "error",
        "" => name,
        stem => stem,
    }
}

/// The nearest name to `text` that the server takes and that has room for an end such as `_rate`: what it would refuse
/// becomes `_`, but is left out at the beginning. None, if nothing is left.
pub fn valid_name(text: &str) -> Option<Cow<'_, str>> {
    const LENGTH: usize = MAX_NAME_BYTES - SUFFIX_BYTES;
    if text.len() <= LENGTH && is_valid_name(text) {
        return Some(Cow::Borrowed(text));
    }
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_.:/-".contains(c);
    let name: String = text
        .chars()
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .map(|c| if is_fine(c) { c } else { '_' })
        .take(LENGTH)
        .collect();
    (!name.is_empty()).then_some(Cow::Owned(name))
}

fn strip<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    is_same(end, suffix).then_some(stem)
}

fn is_same(name: &str, with_underscores: &str) -> bool {
    let bytes = name.bytes().map(|byte| if byte == b'.' { b'_' } else { byte });
    bytes.eq(with_underscores.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_have_one_name_whatever_they_are_called() {
        for name in
            ["request", "requests", "requests_total", "request_count", "http_requests_total", "http.requests.count"]
        {
            assert_eq!(counter_stem(name), "request", "{name}");
        }
        for name in ["errors", "error_count", "http_errors_total", "request.errors"] {
            assert_eq!(counter_stem(name), "error", "{name}");
        }
        for (name, stem) in [
            ("orders_total", "orders"),
            ("cache.hits", "cache.hits"),
            ("cache.hits.count", "cache.hits"),
            ("_total", "_total"),
            ("", ""),
            ("é_total", "é"),
            ("éééé", "éééé"),
        ] {
            assert_eq!(counter_stem(name), stem);
        }
    }

    #[test]
    fn what_the_server_would_refuse_becomes_an_underscore() {
        for (text, name) in [
            ("cache.hits", "cache.hits"),
            ("cache hits", "cache_hits"),
            ("_private", "private"),
            ("größe", "gr__e"),
            ("a\u{202e}b", "a_b"),
        ] {
            assert_eq!(valid_name(text).as_deref(), Some(name), "{text:?}");
        }
        for nothing in ["", "_", "日本", "--"] {
            assert_eq!(valid_name(nothing), None, "{nothing:?}");
        }
        let long = "x".repeat(300);
        let name = valid_name(&long).expect("a name");
        assert!(is_valid_name(&format!("{name}_unique")), "{} bytes", name.len());
    }
}
