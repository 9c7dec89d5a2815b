//! The wire format, generated from `metrics.proto`, and the few facts about it that both ends must agree on.

/// Messages, client and server of package `gopherwatch.v1`.
pub mod v1 {
    tonic::include_proto!("gopherwatch.v1");
}

pub mod raw;
pub mod wire;

/// The wire format's description, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("metrics.fds");

/// Metadata key: who is calling; names the service of reports that name none.
pub const SERVICE_ID: &str = "service-id";
/// Metadata key: a random u64 in decimal, one per numbering of reports.
pub const AGENT_EPOCH: &str = "agent-epoch";
/// Metadata key: the agent's clock as the stream opens, nanoseconds since 1970 in decimal.
pub const AGENT_TIME: &str = "agent-time-unix-nano";

/// Largest encoded report the server takes, in bytes.
pub const MAX_REPORT_BYTES: usize = 64 * 1024;
/// Most metrics in one report, and of one instance.
pub const MAX_METRICS: usize = 256;
/// Longest name of a service, instance or metric, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The instance of a report that names none.
pub const DEFAULT_INSTANCE: &str = "default";

/// Metrics that agents send, by the names that rules, dashboards and other clients know them by.
pub const WELL_KNOWN_METRICS: [&str; 25] = [
    "cpu_percent",
    "memory_percent",
    "memory_used_bytes",
    "swap_percent",
    "disk_percent",
    "disk_read_bytes",
    "disk_write_bytes",
    "network_rx_bytes",
    "network_tx_bytes",
    "load_1m",
    "load_5m",
    "load_15m",
    "processes",
    "uptime_seconds",
    "threads",
    "open_files",
    "restarts",
    "request_count",
    "request_rate",
    "error_count",
    "error_rate",
    "agent_reports_sent",
    "agent_reports_acknowledged",
    "agent_reports_pending",
    "agent_reports_dropped",
];

/// Whether the server takes `name` for a service, an instance or a metric: 1 to 128 bytes of
/// `A-Z a-z 0-9 _ . : / -`, the first a letter or digit.
pub fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.:/-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::is_valid_name;

    #[test]
    fn names_are_letters_digits_and_a_few_marks() {
        for good in ["a", "9", "checkout", "web-1.eu:8080/path_x", &"x".repeat(128)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", ".a", "a b", "wéb", "a\n", "a\u{202e}b", &"x".repeat(129)] {
            assert!(!is_valid_name(bad), "{bad:?}");
        }
    }
}
