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

/// Seconds since 1970 as people read them: `2026-11-23T04:05:06Z`. The date by the algorithm of Howard Hinnant's
/// `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
pub(crate) fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, so that a leap day is the last one.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_as_a_date() {
        for (seconds, said) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_406_706, "2026-11-23T04:05:06Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), said);
        }
    }
}
