//! An instance's evaluation time: what windows, `for` and `keep_firing_for` run on.
//!
//! It follows the readings' own time and never goes back, so that a clock that was set, or a reading that came out of
//! order, neither freezes an alert nor resolves it (CONTRACT §3, "Time").

use crate::model::Timestamp;

/// How far an instance's evaluation time has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The latest evaluation time; `None`: no reading yet.
    pub latest: Option<Timestamp>,
    /// What is added to a reading's own time; 0 but after readings that lay before the latest time.
    pub offset_nanos: i64,
}

impl Clock {
    /// The clock after a reading at `bare` by the agent's clock, and the reading's evaluation time.
    #[must_use]
    pub fn after(self, bare: Timestamp) -> (Self, Timestamp) {
        let (offset_nanos, now) = match self.latest {
            None => (0, bare),
            Some(latest) if bare >= latest => (0, bare),
            Some(latest) if bare.shifted(self.offset_nanos) >= latest => {
                (self.offset_nanos, bare.shifted(self.offset_nanos))
            }
            Some(latest) => (latest.as_nanos().saturating_sub(bare.as_nanos()), latest),
        };
        (Self { latest: Some(now), offset_nanos }, now)
    }

    /// What the agent's clock, as it stands now, shows at this evaluation time.
    #[must_use]
    pub fn bare(self, time: Timestamp) -> Timestamp {
        time.shifted(self.offset_nanos.saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The evaluation times of readings at these times, from one clock.
    fn times(bare: &[i64]) -> Vec<i64> {
        let mut clock = Clock::default();
        let time = |bare: &i64| {
            let (next, now) = clock.after(Timestamp::from_nanos(*bare));
            clock = next;
            now.as_nanos()
        };
        bare.iter().map(time).collect()
    }

    #[test]
    fn it_is_the_readings_own_time_as_long_as_that_goes_on() {
        assert_eq!(times(&[5, 5, 7, 100]), [5, 5, 7, 100]);
    }

    #[test]
    fn a_clock_set_back_goes_on_from_the_latest_time() {
        assert_eq!(times(&[100, 40, 41, 45]), [100, 100, 101, 105]);
        assert_eq!(times(&[100, 40, 30, 31]), [100, 100, 100, 101], "set back twice");
    }

    #[test]
    fn a_reading_that_reaches_the_latest_time_ends_the_offset() {
        assert_eq!(times(&[100, 40, 45, 104, 105, 106]), [100, 100, 105, 164, 165, 166]);
        assert_eq!(times(&[100, 40, 100, 101]), [100, 100, 100, 101]);
        assert_eq!(times(&[100, 40, 160, 161]), [100, 100, 160, 161]);
    }
}
