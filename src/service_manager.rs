//! What the service manager, systemd, is told: that the server is ready, lives, stops. Without one nobody is told anything.

use std::io;

use sd_notify::{NotifyState, notify, watchdog_enabled};

/// The listeners answer, and rules are in force.
///
/// # Errors
/// There is a service manager, and it cannot be told.
pub fn ready() -> io::Result<()> {
    notify(&[NotifyState::Ready])
}

/// Every stage works. It is to be said more often than twice in `WatchdogSec=`, else the server is killed and started anew.
pub fn lives() {
    if watchdog_enabled().is_some() {
        // Whoever hears nothing acts on that.
        let _ = notify(&[NotifyState::Watchdog]);
    }
}

/// A graceful stop has begun.
pub fn stopping() {
    let _ = notify(&[NotifyState::Stopping]);
}
