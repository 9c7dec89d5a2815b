//! What became of the reports of one stream: what its Summary is made of.

use std::sync::atomic::{AtomicU64, Ordering};

use gopherwatch_proto::v1::Summary;
use parking_lot::Mutex;

/// One stream's identity and accounts. Ingest counts what it refuses, lanes what they decide, a turn at a time.
#[derive(Debug, Default)]
pub struct StreamAccount {
    /// The agent's epoch; 0: none.
    pub epoch: u64,
    /// By how much the agent's clock is ahead of the server's, in nanoseconds; `None`: not known.
    pub skew_nanos: Option<i64>,
    admitted: AtomicU64,
    refused: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    duplicates: AtomicU64,
    raised: AtomicU64,
    last: Mutex<Option<Last>>,
}

/// The last report of a stream that was not rejected.
#[derive(Clone, Copy, Debug)]
struct Last {
    place: u64,
    mark: u64,
}

/// What one turn decided about reports of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Evaluated.
    pub accepted: u64,
    /// Refused by the lane.
    pub rejected: u64,
    /// Accepted before.
    pub duplicates: u64,
    /// Alerts raised.
    pub raised: u64,
    /// Place in the stream of the last report not rejected, and the mark of its numbering after the turn.
    pub last: Option<(u64, u64)>,
}

impl Tally {
    /// Takes in what another part of the same turn decided.
    pub fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.duplicates += other.duplicates;
        self.raised += other.raised;
        // Places are unique in a stream, so that the later one decides.
        self.last = self.last.max(other.last);
    }
}

impl StreamAccount {
    /// The account of a stream that has just opened.
    pub fn new(epoch: u64, skew_nanos: Option<i64>) -> Self {
        Self { epoch, skew_nanos, ..Self::default() }
    }

    /// `n` reports were given to a lane.
    pub(super) fn admit(&self, n: u64) {
        self.admitted.fetch_add(n, Ordering::Relaxed);
    }

    /// One report was refused before any lane saw it.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes in what a lane decided.
    pub fn settle(&self, tally: &Tally) {
        self.accepted.fetch_add(tally.accepted, Ordering::Relaxed);
        self.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
        self.duplicates.fetch_add(tally.duplicates, Ordering::Relaxed);
        self.raised.fetch_add(tally.raised, Ordering::Relaxed);
        if let Some((place, mark)) = tally.last {
            let mut last = self.last.lock();
            if last.is_none_or(|last| last.place <= place) {
                *last = Some(Last { place, mark });
            }
        }
    }

    /// The receipt. Call it after the barriers of all lanes: then what was admitted is decided.
    pub fn summary(&self) -> Summary {
        let refused = self.refused.load(Ordering::Relaxed);
        let summary = Summary {
            received: self.admitted.load(Ordering::Relaxed) + refused,
            accepted: self.accepted.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed) + refused,
            duplicates: self.duplicates.load(Ordering::Relaxed),
            alerts_raised: self.raised.load(Ordering::Relaxed),
            last_sequence: self.last.lock().map_or(0, |last| last.mark),
        };
        assert_eq!(
            summary.received,
            summary.accepted + summary.rejected + summary.duplicates,
            "behind the barriers every report is decided (I4)"
        );
        summary
    }
}
