//! Where a part gets the time of day from that has nobody to tell it.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::Timestamp;

/// The system's clock, and in simulations one whose hand is moved by the schedule. In the server there is but the one,
/// so that asking costs what [`Timestamp::now`] does.
#[derive(Clone, Debug, Default)]
pub enum WallClock {
    /// The system's.
    #[default]
    System,
    /// One that stands where it was put, in nanoseconds since 1970.
    #[cfg(test)]
    Hand(Arc<AtomicI64>),
}

impl WallClock {
    /// What it shows, in milliseconds since 1970.
    pub fn now_millis(&self) -> i64 {
        let now = match self {
            Self::System => Timestamp::now(),
            #[cfg(test)]
            Self::Hand(nanos) => Timestamp::from_nanos(nanos.load(Ordering::Relaxed)),
        };
        now.as_micros() / 1_000
    }
}
