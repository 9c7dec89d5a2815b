//! Waiting for a state, and never for a time: what is not so before the deadline ends the run.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Long enough for a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(60);

/// The first value that `look` finds.
pub fn found<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `holds` says so.
pub fn eventually(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    found(deadline, what, || holds().then_some(()));
}
