//! Whether an instance is heard: signs of life, silence, leaving; and the clock that silence is measured on.
//!
//! That clock stands still while the server could not hear: a late tick or a held back lane is our silence, not the
//! agents'.

use std::time::{Duration, Instant};

/// Silence shorter than this is nobody's business, however often an instance usually reports.
const MIN_SILENCE: Duration = Duration::from_secs(30);
/// Silence of this many usual gaps between reports is one.
const USUAL_GAPS: u64 = 3;
/// Reports that an instance must have sent, over at least [`ARMING_SPAN`], before its silence is an alert.
const ARMING_REPORTS: u32 = 3;
const ARMING_SPAN: Duration = Duration::from_secs(10);
/// Outages that come again within so many of their own length are how the instance reports.
const OUTAGES_APART: u64 = 8;
/// How often a lane looks who has been silent.
pub const TICK_EVERY: Duration = Duration::from_secs(1);
/// A tick later than this moved every deadline.
const LATE_TICK: Duration = Duration::from_secs(1);

/// A point on a lane's hearing clock, in nanoseconds from its start: there is one in most of what is kept of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heard(u64);

impl Heard {
    /// So long after the clock began.
    pub fn after(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// The point so many nanoseconds after the lane's start.
    pub(super) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How many nanoseconds after the lane's start it is.
    pub(super) fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// 584 years at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A lane's hearing clock: monotonic time less the time in which the lane could not hear.
#[derive(Clone, Copy, Debug)]
pub struct Hearing {
    start: Instant,
    deaf: Duration,
    last_tick: Instant,
}

impl Hearing {
    /// A clock that starts at `now`, as every instance that the journal remembers was last heard.
    pub fn starting(now: Instant) -> Self {
        Self { start: now, deaf: Duration::ZERO, last_tick: now }
    }

    /// The clock at `now`.
    pub fn at(&self, now: Instant) -> Heard {
        Heard::after(now.saturating_duration_since(self.start).saturating_sub(self.deaf))
    }

    /// The clock for what arrives at `now`. A tick that is overdue will set the clock back: until it comes the clock does
    /// not run on, or what arrives meanwhile would be heard later than it was, and its silence begin as much later.
    pub fn at_arrival(&self, now: Instant) -> Heard {
        self.at(now.min(self.last_tick + TICK_EVERY + LATE_TICK))
    }

    /// Takes note of a tick that was due at `due` and came at `now`; `held_back` for how long since the last tick
    /// reports of this lane waited unread.
    pub fn tick(&mut self, due: Instant, now: Instant, held_back: Duration) {
        let late = now.saturating_duration_since(due);
        let deaf = if late > LATE_TICK { late.max(held_back) } else { held_back };
        self.deaf += deaf;
        self.last_tick = now;
    }
}

/// Whether an instance is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It reports, or should.
    Present,
    /// It left in order at this point of the hearing clock.
    Left(Heard),
    /// It is gone: only its marks are remembered, so that what it sent before is not taken twice.
    Forgotten(Heard),
}

/// The signs of life of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    first: Heard,
    last: Heard,
    reports: u32,
    armed: bool,
    usual_gap_nanos: u64,
    /// When the last gap ended that was longer than the patience.
    outage: Option<Heard>,
}

impl Silence {
    /// Heard for the first time.
    pub fn starting(now: Heard) -> Self {
        Self { first: now, last: now, reports: 0, armed: false, usual_gap_nanos: 0, outage: None }
    }

    /// As the journal remembers it: counting starts anew as the server becomes ready.
    pub fn restored(armed: bool, usual_gap: Duration) -> Self {
        Self { armed, usual_gap_nanos: nanos(usual_gap), ..Self::starting(Heard::default()) }
    }

    /// A report arrived.
    pub fn heard_report(&mut self, now: Heard) {
        if self.reports > 0 {
            self.learn(now);
        }
        self.reports = self.reports.saturating_add(1);
        self.armed = self.armed || self.reports >= ARMING_REPORTS && now.since(self.first) >= ARMING_SPAN;
        self.last = self.last.max(now);
    }

    /// Learns from the gap that a report ends. The usual gap is the longest of late, which passes by an eighth of the time
    /// that goes by: reports that come in bursts, or a backlog delivered at once, are no habit of their own. A gap longer
    /// than the patience is an outage and no habit either, until it comes again soon.
    fn learn(&mut self, now: Heard) {
        let gap = now.nanos_since(self.last);
        let patience = self.patience_nanos();
        if self.armed && gap > patience {
            let soon = gap.saturating_mul(OUTAGES_APART);
            let again = self.outage.replace(now).is_some_and(|before| now.nanos_since(before) <= soon);
            if again {
                self.usual_gap_nanos = gap.min(patience.saturating_mul(2));
            }
            return;
        }
        self.usual_gap_nanos = self.usual_gap_nanos.saturating_sub(gap / 8).max(gap);
    }

    /// Something else arrived that shows that it is alive, such as a refused report.
    pub fn heard_sign(&mut self, now: Heard) {
        self.last = self.last.max(now);
    }

    /// Whether silence would be an alert.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// Its usual gap between reports; zero: not known yet.
    pub fn usual_gap(&self) -> Duration {
        Duration::from_nanos(self.usual_gap_nanos)
    }

    /// How long it has been silent at `now`.
    pub fn length(&self, now: Heard) -> Duration {
        now.since(self.last)
    }

    /// How long it may be silent when nobody says how long (CONTRACT §3, `absent()`).
    pub fn patience(&self) -> Duration {
        Duration::from_nanos(self.patience_nanos())
    }

    fn patience_nanos(&self) -> u64 {
        nanos(MIN_SILENCE).max(self.usual_gap_nanos.saturating_mul(USUAL_GAPS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Heard {
        Heard::after(Duration::from_millis(millis))
    }

    #[test]
    fn silence_is_armed_after_three_reports_over_ten_seconds() {
        let mut silence = Silence::starting(at(0));
        for millis in [0, 1, 2, 3, 9_999] {
            silence.heard_report(at(millis));
            assert!(!silence.is_armed(), "after {millis} ms");
        }
        silence.heard_report(at(10_000));
        assert!(silence.is_armed());

        let mut slow = Silence::starting(at(0));
        slow.heard_report(at(0));
        slow.heard_report(at(60_000));
        assert!(!slow.is_armed(), "two reports are no habit");
        slow.heard_report(at(120_000));
        assert!(slow.is_armed());
        assert_eq!(slow.patience(), Duration::from_secs(180));
    }

    /// How long an instance may be silent that reported at these times, in seconds.
    fn patience_after(seconds: impl IntoIterator<Item = u64>) -> u64 {
        let mut silence = Silence::starting(at(0));
        seconds.into_iter().for_each(|second| silence.heard_report(at(second * 1_000)));
        silence.patience().as_secs()
    }

    #[test]
    fn the_usual_gap_is_the_one_between_bursts_and_an_outage_is_none() {
        assert_eq!(patience_after((0..20).map(|n| n * 35)), 105);
        // It used to be an average: a backlog delivered at once made it 0, and partial reports in bursts all but 0.
        assert_eq!(patience_after((0..20).map(|n| n * 35).chain([665; 11])), 105, "a backlog");
        assert_eq!(patience_after((0..5).flat_map(|n| [n * 60, n * 60 + 1, n * 60 + 2])), 173, "bursts");
        // And a third of an outage, for many reports after it.
        assert_eq!(patience_after((0..60).chain(3_660..3_665)), 30, "an hour's outage of a second's reporter");
        // Who takes to reporting once a minute is missed twice at most.
        assert_eq!(patience_after((0..60).chain([120, 180, 240, 300])), 180, "a new habit");
        assert_eq!(patience_after((0..10).map(|n| n * 60).chain(541..1_100)), 30, "and back to the old one");
    }

    #[test]
    fn a_deaf_server_does_not_take_its_own_silence_for_the_agents() {
        let start = Instant::now();
        let mut hearing = Hearing::starting(start);
        let sec = |n| start + Duration::from_secs(n);
        hearing.tick(sec(1), sec(1), Duration::ZERO);
        assert_eq!(hearing.at(sec(1)), at(1_000));
        // Stopped for a minute: the tick due at 2 s comes at 62 s.
        let stopped = hearing;
        hearing.tick(sec(2), sec(62), Duration::ZERO);
        assert_eq!(hearing.at(sec(62)), at(2_000));
        // What arrived as it went on, before the tick did, is not heard a minute later than that.
        assert_eq!(stopped.at_arrival(sec(62)), at(3_000));
        hearing.tick(sec(63), sec(63), Duration::from_secs(1));
        assert_eq!(hearing.at(sec(63)), at(2_000), "held back the whole second");
    }
}
