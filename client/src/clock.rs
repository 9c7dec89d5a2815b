//! The two times of a report: when it was read, by the wall clock as the wire wants it, and how long it waits, by a clock
//! that nobody sets.

#[cfg(any(test, feature = "test-util"))]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970 by this host's clock; 0, which the wire reads as "not known", when it stands before that.
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// This host's clock. Tests set it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    #[cfg(any(test, feature = "test-util"))]
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// [`unix_nanos`].
    pub fn unix_nanos(&self) -> u64 {
        #[cfg(any(test, feature = "test-util"))]
        let nanos = unix_nanos().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed) * 1_000_000);
        #[cfg(not(any(test, feature = "test-util")))]
        let nanos = unix_nanos();
        nanos
    }

    /// Milliseconds since 1970.
    pub(crate) fn unix_millis(&self) -> u64 {
        self.unix_nanos() / 1_000_000
    }

    /// For tests: sets this clock and its clones so much forward, or back.
    #[cfg(any(test, feature = "test-util"))]
    pub fn step(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The time by which reports grow old: it begins where it is told to, and goes on by the monotonic clock. A wall clock that
/// is set makes nothing old or young, and a host that sleeps does not age what it has not sent.
#[derive(Debug)]
pub(crate) struct Ages {
    began: Instant,
    began_ms: u64,
}

impl Ages {
    pub(crate) fn from(began_ms: u64) -> Self {
        Self { began: Instant::now(), began_ms }
    }

    /// Milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.began_ms.saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
