//! Waiting for a state, and never for a time: what is not so before the deadline fails the test.

use std::{
    sync::{Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// Long enough for a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The first value that `look` finds.
pub(crate) fn found<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
pub(crate) fn eventually(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    found(deadline, what, || holds().then_some(()));
}

/// Lets one heavy or time-critical test run at a time: they measure the server, not each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // One failed test is no reason for the others to fail.
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
