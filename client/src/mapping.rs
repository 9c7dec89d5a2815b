//! What figures are called: the names that rules are written against, whoever reports.
//!
//! A counter `x` is reported as `x_count`, its total, and `x_rate`, its increase per second. What services call their
//! requests and errors goes by one name each, so that one rule fits them all (CONTRACT §1).

/// Ends of a counter's name that say no more than that it is one.
const SUFFIXES: [&str; 2] = ["_total", "_count"];
/// What services call the requests that they have had.
const REQUESTS: [&str; 4] = ["request", "requests", "http_requests", "http_server_requests"];
/// What they call those that went wrong.
const ERRORS: [&str; 4] = ["error", "errors", "http_errors", "http_requests_errors"];

/// The name before `_count` and `_rate` for a counter that its service calls so: `http_requests_total` is `request`.
pub fn counter_stem(name: &str) -> &str {
    let stem = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    match stem {
        _ if REQUESTS.contains(&stem) => "request",
        _ if ERRORS.contains(&stem) => "error",
        "" => name,
        stem => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_errors_have_one_name_whatever_they_are_called() {
        for name in ["request", "requests", "requests_total", "request_count", "http_requests_total"] {
            assert_eq!(counter_stem(name), "request", "{name}");
        }
        for name in ["errors", "error_count", "http_errors_total"] {
            assert_eq!(counter_stem(name), "error", "{name}");
        }
        for (name, stem) in [("orders_total", "orders"), ("cache.hits", "cache.hits"), ("_total", "_total")] {
            assert_eq!(counter_stem(name), stem);
        }
    }
}
