//! Says once that something is wrong, then seldom, then that it is over.

use std::time::{Duration, Instant};

/// How often a lasting trouble is mentioned again.
const REMIND: Duration = Duration::from_secs(60);

/// One kind of trouble, at one time there or not.
#[derive(Debug, Default)]
pub struct Trouble {
    episode: Option<Episode>,
}

/// A trouble's length and count so far.
#[derive(Debug, Clone, Copy)]
pub struct Episode {
    began: Instant,
    mentioned: Instant,
    /// How often it happened.
    pub count: u64,
    /// How much of that was said.
    told: u64,
}

/// Whether to speak.
#[derive(Debug, Clone, Copy)]
pub enum Say {
    /// The first time.
    First,
    /// It has been a while.
    Again(Episode),
    /// Not now.
    Nothing,
}

impl Episode {
    /// Seconds since the first time.
    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Whether it happened more often than was said.
    pub fn is_untold(&self) -> bool {
        self.told < self.count
    }
}

impl Trouble {
    /// It happened `count` times more.
    pub fn happened(&mut self, count: u64, now: Instant) -> Say {
        let Some(episode) = &mut self.episode else {
            self.episode = Some(Episode { began: now, mentioned: now, count, told: count });
            return Say::First;
        };
        episode.count += count;
        if now - episode.mentioned < REMIND {
            return Say::Nothing;
        }
        episode.mentioned = now;
        episode.told = episode.count;
        Say::Again(*episode)
    }

    /// What was only counted so far, once it has been a while: it may not happen again, and so would never be said.
    pub fn untold(&mut self, now: Instant) -> Option<Episode> {
        let episode =
            self.episode.as_mut().filter(|episode| episode.is_untold() && now - episode.mentioned >= REMIND)?;
        (episode.mentioned, episode.told) = (now, episode.count);
        Some(*episode)
    }

    /// Whether it happened and is not over.
    pub fn is_there(&self) -> bool {
        self.episode.is_some()
    }

    /// It is over; what it was, if it was.
    pub fn over(&mut self) -> Option<Episode> {
        self.episode.take()
    }

    /// It is over if nothing was said for a while: for troubles that come one by one and have no end of their own.
    pub fn over_if_old(&mut self, now: Instant) {
        self.episode = self.episode.filter(|episode| now - episode.mentioned < 2 * REMIND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_told_the_next_ones_are_counted_and_a_minute_later_it_is_told_again() {
        let mut trouble = Trouble::default();
        let began = Instant::now();
        assert!(matches!(trouble.happened(1, began), Say::First));
        assert!(matches!(trouble.happened(2, began + REMIND / 2), Say::Nothing));
        assert!(matches!(trouble.happened(1, began + REMIND), Say::Again(Episode { count: 4, .. })));
        assert!(matches!(trouble.happened(1, began + REMIND), Say::Nothing));
    }

    #[test]
    fn what_was_only_counted_is_told_a_minute_later_though_nothing_happens_any_more() {
        let mut trouble = Trouble::default();
        let began = Instant::now();
        trouble.happened(1, began);
        assert!(trouble.untold(began + REMIND).is_none(), "all was said");
        trouble.happened(2, began + REMIND / 2);
        assert!(trouble.untold(began + REMIND / 2).is_none(), "not yet");
        assert_eq!(trouble.untold(began + REMIND).map(|episode| episode.count), Some(3));
        assert!(trouble.untold(began + 2 * REMIND).is_none());
    }

    #[test]
    fn once_over_it_begins_anew() {
        let mut trouble = Trouble::default();
        trouble.happened(3, Instant::now());
        assert_eq!(trouble.over().map(|episode| episode.count), Some(3));
        assert!(trouble.over().is_none());
        assert!(matches!(trouble.happened(1, Instant::now()), Say::First));
    }

    #[test]
    fn what_was_not_mentioned_for_long_is_over() {
        let mut trouble = Trouble::default();
        let began = Instant::now();
        trouble.happened(1, began);
        trouble.over_if_old(began + REMIND);
        assert!(matches!(trouble.happened(1, began + REMIND / 2), Say::Nothing));
        trouble.over_if_old(began + 2 * REMIND);
        assert!(matches!(trouble.happened(1, began + 2 * REMIND), Say::First));
    }
}
