//! `/metrics`: the server's own figures in the format that the scraper asks for.
//!
//! The figures are written as OpenMetrics 1.0.0; the older text format 0.0.4 differs in its comments only, so that it
//! is made from that. Sources: prometheus.io/docs/instrumenting/exposition_formats, and the OpenMetrics specification.

use warp::{
    Reply,
    http::{HeaderValue, header},
    reply::Response,
};

use super::Shared;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// GET /metrics
pub(super) fn metrics(shared: &Shared, accept: Option<&str>) -> Response {
    let exposition = shared.context.stats.exposition();
    let (body, content_type) = match accept {
        Some(accept) if prefers_open_metrics(accept) => (exposition, OPEN_METRICS),
        _ => (plain_text(&exposition), TEXT),
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Whether OpenMetrics is named, and not below plain text. A bare `*/*` gets plain text, which people can read.
fn prefers_open_metrics(accept: &str) -> bool {
    let quality = |wanted: &str| accept.split(',').filter_map(|range| quality_of(range, wanted)).fold(0.0, f64::max);
    let open_metrics = quality("application/openmetrics-text");
    open_metrics > 0.0 && open_metrics >= quality("text/plain")
}

/// The quality that a media range gives to exactly the type `wanted`.
fn quality_of(range: &str, wanted: &str) -> Option<f64> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
}

/// OpenMetrics as text format 0.0.4: a counter's comments carry its samples' name, an info is a gauge, and there is
/// neither UNIT nor EOF.
fn plain_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP stands before TYPE, which says what HELP's name is to be.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take().and_then(|help| help.split_once(' ')) {
                text.extend(["# HELP ", name, suffix, " ", words, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_as_their_samples_and_has_no_unit_nor_end() {
        let open_metrics = "\
# HELP a_build Version.
# TYPE a_build info
a_build_info{version=\"1\"} 1
# HELP a_reports Reports, all.
# TYPE a_reports counter
a_reports_total{why=\"# TYPE\"} 3
# HELP a_wait_seconds Waits.
# TYPE a_wait_seconds histogram
# UNIT a_wait_seconds seconds
a_wait_seconds_sum 0.5
a_wait_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open 2
# EOF
";
        let text = "\
# HELP a_build_info Version.
# TYPE a_build_info gauge
a_build_info{version=\"1\"} 1
# HELP a_reports_total Reports, all.
# TYPE a_reports_total counter
a_reports_total{why=\"# TYPE\"} 3
# HELP a_wait_seconds Waits.
# TYPE a_wait_seconds histogram
a_wait_seconds_sum 0.5
a_wait_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open 2
";
        assert_eq!(plain_text(open_metrics), text);
    }

    #[test]
    fn the_scraper_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for accept in [prometheus, "application/openmetrics-text", "Application/OpenMetrics-Text; q=1, text/plain"] {
            assert!(prefers_open_metrics(accept), "{accept}");
        }
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "text/html,*/*;q=0.8"] {
            assert!(!prefers_open_metrics(accept), "{accept}");
        }
        assert!(!prefers_open_metrics("application/openmetrics-text;q=0.2, text/plain;q=0.9"));
    }
}
