//! The wall clock, as the wire wants it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970 by this host's clock; 0, which the wire reads as "not known", when it stands before that.
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 by this host's clock.
pub(crate) fn unix_millis() -> u64 {
    unix_nanos() / 1_000_000
}
