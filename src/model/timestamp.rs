//! Points in time: nanoseconds since 1970, UTC.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since 1970-01-01 UTC; covers 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The system's clock.
    pub fn now() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n)),
        }
    }

    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From microseconds since 1970, the resolution of the database; saturates.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// From nanoseconds as the wire carries them; `None` past 2262.
    pub fn from_wire(nanos: u64) -> Option<Self> {
        i64::try_from(nanos).ok().map(Self)
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Microseconds since 1970, rounded down.
    pub const fn as_micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Seconds since 1970 with a fraction.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// `self - earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time moved by signed nanoseconds; saturates.
    pub const fn shifted(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// This time and `by` later; saturates.
    pub fn plus(self, by: Duration) -> Self {
        self.shifted(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
    }

    /// This time and `by` earlier; saturates.
    pub fn minus(self, by: Duration) -> Self {
        self.shifted(i64::try_from(by.as_nanos()).map_or(i64::MIN, |n| -n))
    }
}

/// RFC 3339 in UTC with microseconds, such as `2026-11-23T02:39:25.000001Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.as_micros()) {
            Ok(time) => write!(f, "{time:.6}"),
            // Every i64 of nanoseconds lies within jiff's range.
            Err(_) => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc_3339_in_utc_with_microseconds() {
        let time = Timestamp::from_nanos(1_795_401_565_000_001_999);
        assert_eq!(time.to_string(), "2026-11-23T02:39:25.000001Z");
        assert_eq!(Timestamp::from_nanos(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Timestamp::from_nanos(5), Timestamp::from_nanos(9));
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
