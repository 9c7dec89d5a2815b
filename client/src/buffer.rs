//! The accounted buffer: every report from the moment it is made until its receipt, or until it is dropped.
//!
//! Pure and bounded. The oldest report goes first, also when it is on the current stream, and
//! sent = acknowledged + pending + dropped holds after every call (promise 7).

use std::collections::VecDeque;

use crate::codec::Encoded;

/// How much the buffer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Reports.
    pub reports: usize,
    /// Bytes, each report with an allowance for what is kept around it.
    pub bytes: usize,
}

impl Default for Limits {
    /// 64 MiB: about 40 hours of one host's reports at 1 s, 20 s of 10,000 simulated services. The count alone would
    /// only bind for reports smaller than any the agent makes.
    fn default() -> Self {
        Self { reports: 500_000, bytes: 64 << 20 }
    }
}

/// Where the reports made so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounts {
    /// Handed over for delivery.
    pub sent: u64,
    /// Counted in a receipt.
    pub acknowledged: u64,
    /// Neither acknowledged nor given up.
    pub pending: u64,
    /// Given up for want of room.
    pub dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Buffer {
    limits: Limits,
    queue: VecDeque<Encoded>,
    bytes: usize,
    /// So many of the queue's first are on the current stream.
    taken: usize,
    /// Reports on the current stream, ahead of those taken, whose copy made room for newer ones. Its receipt may still
    /// cover them, so they stay pending until it ends.
    adrift: u64,
    sent: u64,
    acknowledged: u64,
    dropped: u64,
}

/// What a report in the buffer costs: its bytes, and the handle and allocation around them.
fn cost(report: &Encoded) -> usize {
    const OVERHEAD: usize = 80;
    report.len() + OVERHEAD
}

impl Buffer {
    /// An empty buffer.
    pub fn new(limits: Limits) -> Self {
        Self { limits, queue: VecDeque::new(), bytes: 0, taken: 0, adrift: 0, sent: 0, acknowledged: 0, dropped: 0 }
    }

    /// Adds a report and returns how many older ones had to make room for it.
    pub fn push(&mut self, report: Encoded) -> usize {
        self.sent += 1;
        self.bytes += cost(&report);
        self.queue.push_back(report);
        let mut n_evicted = 0;
        while self.queue.len() > self.limits.reports || self.bytes > self.limits.bytes {
            let on_stream = self.taken > 0;
            if !self.pop() {
                break;
            }
            n_evicted += 1;
            if on_stream {
                self.taken -= 1;
                self.adrift += 1;
            } else {
                self.dropped += 1;
            }
        }
        n_evicted
    }

    /// The next report for the current stream, oldest first.
    pub fn take(&mut self) -> Option<Encoded> {
        let report = self.queue.get(self.taken)?.clone();
        self.taken += 1;
        Some(report)
    }

    /// How many reports the current stream has taken.
    pub fn on_stream(&self) -> u64 {
        self.adrift + self.taken as u64
    }

    /// Whether the current stream has nothing left to take.
    pub fn is_drained(&self) -> bool {
        self.taken == self.queue.len()
    }

    /// Ends the current stream: its first `received` reports are acknowledged, the others wait for the next stream.
    /// Returns how many were acknowledged; 0 for a stream that ended without a receipt.
    pub fn settle(&mut self, received: u64) -> u64 {
        let covered = received.min(self.on_stream());
        let covered_adrift = covered.min(self.adrift);
        for _ in covered_adrift..covered {
            self.pop();
        }
        self.acknowledged += covered;
        self.dropped += self.adrift - covered_adrift;
        self.adrift = 0;
        self.taken = 0;
        // After an outage the queue's own allocation would otherwise keep its largest size for ever.
        if self.queue.capacity() > 1024 && self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        covered
    }

    /// The accounts as they stand.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            sent: self.sent,
            acknowledged: self.acknowledged,
            pending: self.adrift + self.queue.len() as u64,
            dropped: self.dropped,
        }
    }

    fn pop(&mut self) -> bool {
        let Some(report) = self.queue.pop_front() else { return false };
        self.bytes -= cost(&report);
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const ROOMY: Limits = Limits { reports: 1000, bytes: 1 << 20 };

    fn report(n: u64) -> Encoded {
        Encoded::copy_from_slice(&n.to_be_bytes())
    }

    fn number(report: &Encoded) -> u64 {
        u64::from_be_bytes(report[..].try_into().expect("eight bytes"))
    }

    fn filled(limits: Limits, n: u64) -> Buffer {
        let mut buffer = Buffer::new(limits);
        for i in 1..=n {
            buffer.push(report(i));
        }
        buffer
    }

    fn take_all(buffer: &mut Buffer) -> Vec<u64> {
        std::iter::from_fn(|| buffer.take()).map(|r| number(&r)).collect()
    }

    #[test]
    fn reports_leave_in_the_order_they_came() {
        let mut buffer = filled(ROOMY, 4);
        assert_eq!(take_all(&mut buffer), [1, 2, 3, 4]);
        assert!(buffer.is_drained());
    }

    #[test]
    fn a_full_receipt_empties_the_buffer() {
        let mut buffer = filled(ROOMY, 3);
        take_all(&mut buffer);
        assert_eq!(buffer.settle(3), 3);
        assert_eq!(buffer.accounts(), Accounts { sent: 3, acknowledged: 3, pending: 0, dropped: 0 });
    }

    #[test]
    fn a_stream_without_a_receipt_is_sent_again_from_its_first_report() {
        let mut buffer = filled(ROOMY, 3);
        take_all(&mut buffer);
        buffer.settle(0);
        buffer.push(report(4));
        assert_eq!(take_all(&mut buffer), [1, 2, 3, 4]);
    }

    #[test]
    fn a_prefix_receipt_leaves_the_rest_for_the_next_stream() {
        let mut buffer = filled(ROOMY, 5);
        take_all(&mut buffer);
        assert_eq!(buffer.settle(2), 2);
        assert_eq!(take_all(&mut buffer), [3, 4, 5]);
    }

    #[test]
    fn a_receipt_never_covers_a_report_that_was_not_taken() {
        let mut buffer = filled(ROOMY, 3);
        buffer.take();
        assert_eq!(buffer.settle(3), 1);
        assert_eq!(take_all(&mut buffer), [2, 3]);
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        let mut buffer = filled(Limits { reports: 3, ..ROOMY }, 5);
        assert_eq!(buffer.accounts(), Accounts { sent: 5, acknowledged: 0, pending: 3, dropped: 2 });
        assert_eq!(take_all(&mut buffer), [3, 4, 5]);
    }

    #[test]
    fn bytes_bind_as_well_as_the_count() {
        let each = cost(&report(0));
        let mut buffer = filled(Limits { bytes: 2 * each, ..ROOMY }, 5);
        assert_eq!(take_all(&mut buffer), [4, 5]);
    }

    #[test]
    fn a_report_dropped_while_on_the_stream_still_counts_in_the_receipts_prefix() {
        let mut buffer = filled(Limits { reports: 4, ..ROOMY }, 4);
        buffer.take();
        buffer.take();
        buffer.take();
        // 1 and 2 make room; they were sent, so a receipt for three covers 1, 2 and 3.
        buffer.push(report(5));
        buffer.push(report(6));
        assert_eq!(buffer.accounts(), Accounts { sent: 6, acknowledged: 0, pending: 6, dropped: 0 });
        assert_eq!(buffer.settle(3), 3);
        assert_eq!(take_all(&mut buffer), [4, 5, 6]);
        assert_eq!(buffer.accounts(), Accounts { sent: 6, acknowledged: 3, pending: 3, dropped: 0 });
    }

    #[test]
    fn a_report_dropped_while_on_a_stream_that_fails_is_lost_and_counted() {
        let mut buffer = filled(Limits { reports: 2, ..ROOMY }, 2);
        take_all(&mut buffer);
        buffer.push(report(3));
        buffer.settle(0);
        assert_eq!(buffer.accounts(), Accounts { sent: 3, acknowledged: 0, pending: 2, dropped: 1 });
        assert_eq!(take_all(&mut buffer), [2, 3]);
    }

    /// A model that remembers every stream's reports by number, against any sequence of calls.
    #[test]
    fn the_accounts_balance_and_the_order_holds_whatever_happens() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut buffer = Buffer::new(Limits { reports: rng.random_range(1..20), bytes: 2000 });
            let (mut made, mut stream, mut receipted) = (0_u64, Vec::new(), Vec::new());
            for _ in 0..400 {
                match rng.random_range(0..10) {
                    0..5 => {
                        made += 1;
                        buffer.push(report(made));
                    }
                    5..9 => stream.extend(buffer.take().map(|r| number(&r))),
                    _ => {
                        assert_eq!(buffer.on_stream(), stream.len() as u64, "seed {seed}");
                        let received = rng.random_range(0..=stream.len());
                        buffer.settle(received as u64);
                        receipted.extend_from_slice(&stream[..received]);
                        stream.clear();
                    }
                }
                let accounts = buffer.accounts();
                assert_eq!(accounts.sent, accounts.acknowledged + accounts.pending + accounts.dropped, "seed {seed}");
                assert_eq!(accounts.sent, made);
                assert_eq!(accounts.acknowledged, receipted.len() as u64);
                assert!(stream.is_sorted_by(|a, b| a < b), "seed {seed}: {stream:?}");
                assert!(receipted.is_sorted_by(|a, b| a < b), "seed {seed}: {receipted:?}");
            }
        }
    }
}
