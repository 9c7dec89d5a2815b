//! Says when reports are dropped for want of room, or as too old or too large: once, then seldom.

use std::time::Instant;

use slog::{Logger, warn};

use crate::outbox::Outbox;
use crate::trouble::{Say, Trouble};

/// See the module.
#[derive(Debug)]
pub struct Overflow {
    trouble: Trouble,
    log: Logger,
}

impl Overflow {
    /// Nothing has been dropped yet.
    pub fn new(log: Logger) -> Self {
        Self { trouble: Trouble::default(), log }
    }

    /// The last push dropped so many.
    pub fn note(&mut self, n_dropped: usize, outbox: &Outbox) {
        let now = Instant::now();
        self.trouble.over_if_old(now);
        if n_dropped == 0 {
            return;
        }
        let accounts = outbox.accounts();
        match self.trouble.happened(n_dropped as u64, now) {
            Say::First => {
                warn!(self.log, "reports are dropped, the oldest first: too many wait, or for too long, or one is too large"; accounts);
            }
            Say::Again(episode) => {
                warn!(self.log, "reports are still dropped: too many wait, or for too long, or one is too large";
                "for_seconds" => episode.seconds(), accounts)
            }
            Say::Nothing => {}
        }
    }
}
