//! Says once that something is wrong, then seldom, then that it is over.

use std::time::{Duration, Instant};

/// How often a lasting trouble is mentioned again.
const REMIND: Duration = Duration::from_secs(60);

/// One kind of trouble, at one time there or not.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    episode: Option<Episode>,
}

/// A trouble's length and count so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Episode {
    began: Instant,
    mentioned: Instant,
    /// How often it happened.
    pub(crate) count: u64,
}

/// Whether to speak.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Say {
    /// The first time.
    First,
    /// It has been a while.
    Again(Episode),
    /// Not now.
    Nothing,
}

impl Episode {
    /// Seconds since the first time.
    pub(crate) fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

impl Trouble {
    /// It happened `count` times more.
    pub(crate) fn happened(&mut self, count: u64) -> Say {
        let now = Instant::now();
        let Some(episode) = &mut self.episode else {
            self.episode = Some(Episode { began: now, mentioned: now, count });
            return Say::First;
        };
        episode.count += count;
        if now - episode.mentioned < REMIND {
            return Say::Nothing;
        }
        episode.mentioned = now;
        Say::Again(*episode)
    }

    /// It is over; what it was, if it was.
    pub(crate) fn over(&mut self) -> Option<Episode> {
        self.episode.take()
    }

    /// It is over if nothing was said for a while: for troubles that come one by one.
    pub(crate) fn over_if_old(&mut self) {
        self.episode = self.episode.take_if(|episode| episode.mentioned.elapsed() < 2 * REMIND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_and_the_next_ones_only_counted() {
        let mut trouble = Trouble::default();
        assert!(matches!(trouble.happened(1), Say::First));
        assert!(matches!(trouble.happened(1), Say::Nothing));
        assert_eq!(trouble.over().map(|episode| episode.count), Some(2));
        assert!(trouble.over().is_none());
        assert!(matches!(trouble.happened(1), Say::First));
    }
}
