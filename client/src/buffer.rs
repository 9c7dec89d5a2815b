//! The accounted buffer: every report from the moment it is made until its receipt, or until it is dropped.
//!
//! Bounded by size and age, in memory or on disk (`backlog`). The oldest report goes first, also when it is on the
//! current stream, and sent = acknowledged + pending + dropped holds after every call (promise 7). A stream carries one
//! numbering: what earlier processes left in the spool goes first, each epoch on a stream of its own.
//!
//! How long a report waits is reckoned in a time of the buffer's own, which goes on through a step of the wall clock and, in
//! a spool, from one process to the next. A stream also carries the readings of one clock: the server takes the
//! difference between its clock and ours as the stream opens, and readings from before a step have another one.

#[cfg(feature = "spool")]
use std::path::PathBuf;
use std::time::Duration;

use gopherwatch_proto::MAX_REPORT_BYTES;
#[cfg(feature = "spool")]
use slog::{Logger, error};

#[cfg(feature = "spool")]
pub use crate::backlog::Taken;
use crate::backlog::{Backlog, Memory, Waiting};
#[cfg(feature = "spool")]
use crate::backlog::{Spool, SpoolError};
use crate::codec::{Encoded, reading_ms};
#[cfg(feature = "spool")]
use crate::error::chain;

/// How much the buffer may hold, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, each report with an allowance for what is kept around it.
    pub bytes: usize,
    /// How long a report may wait.
    pub age: Duration,
}

/// Older readings are history that nobody waits for, and would hold up the present.
const USUAL_AGE: Duration = Duration::from_secs(24 * 3600);

impl Limits {
    /// In memory: about 40 hours of one host's reports at 1 s, 20 s of 10,000 simulated services.
    pub const IN_MEMORY: Self = Self { bytes: 64 << 20, age: USUAL_AGE };
    /// On disk.
    pub const ON_DISK: Self = Self { bytes: 256 << 20, age: USUAL_AGE };
}

/// Where the buffer is, and how much it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The directory of the spool; none: the buffer is in memory.
    #[cfg(feature = "spool")]
    pub spool_dir: Option<PathBuf>,
    /// Other limits than the usual ones.
    pub limits: Option<Limits>,
}

/// Where the reports made so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounts {
    /// Handed over for delivery, by this process or left in the spool by earlier ones.
    pub sent: u64,
    /// Counted in a receipt.
    pub acknowledged: u64,
    /// Neither acknowledged nor given up.
    pub pending: u64,
    /// Given up for want of room, or as too old or too large, or lost with a damaged spool.
    pub dropped: u64,
}

/// How far the clock of two readings may have moved between them and count as one: less than a server cares about.
const SAME_CLOCK_MS: u64 = 10_000;

/// A stream, as it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The numbering that all of its reports belong to.
    pub epoch: u64,
    /// What the clock says now by which its readings were taken, milliseconds since 1970.
    pub clock_ms: u64,
    /// How many were too old to go on it.
    pub n_too_old: usize,
}

/// What a stream draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drawn {
    /// The next report.
    Report(Encoded),
    /// No more for now.
    Nothing,
    /// No more for this stream: the next report belongs to another numbering, or was read by another clock.
    OtherStream,
}

/// See the module.
#[derive(Debug)]
pub struct Buffer {
    limits: Limits,
    backlog: Box<dyn Backlog>,
    /// The numbering of the reports that are pushed.
    epoch: u64,
    /// The numbering of the current stream.
    stream_epoch: u64,
    /// How far its readings' clock is ahead of the buffer's time, milliseconds.
    stream_lead: i64,
    /// So many of the backlog's first are on the current stream.
    taken: u64,
    /// Reports on the current stream, ahead of those taken, whose copy made room for newer ones. Its receipt may still
    /// cover them, so they stay pending until it ends.
    adrift: u64,
    sent: u64,
    acknowledged: u64,
    dropped: u64,
}

impl Buffer {
    /// An empty buffer in memory, for reports of the numbering `epoch`.
    pub fn new(limits: Limits, epoch: u64) -> Self {
        Self::over(Box::<Memory>::default(), limits, epoch)
    }

    /// A buffer for reports of the numbering `epoch`, and for what the spool has. A spool that cannot be used is told of,
    /// and the buffer is in memory: who watches a host with a broken disk must go on.
    ///
    /// # Errors
    /// Another process has the spool.
    #[cfg(feature = "spool")]
    pub fn open(options: &Options, epoch: u64, log: &Logger) -> Result<Self, Taken> {
        let in_memory = || Self::new(options.limits.unwrap_or(Limits::IN_MEMORY), epoch);
        let Some(dir) = &options.spool_dir else { return Ok(in_memory()) };
        match Spool::open(dir, log.clone()) {
            Ok(spool) => Ok(Self::over(Box::new(spool), options.limits.unwrap_or(Limits::ON_DISK), epoch)),
            Err(SpoolError::Taken(taken)) => Err(taken),
            Err(err) => {
                error!(log, "no spool: until the next start, reports are kept in memory"; "error" => chain(&err));
                let Limits { bytes, age } = options.limits.unwrap_or(Limits::IN_MEMORY);
                Ok(Self::new(Limits { bytes: bytes.min(Limits::IN_MEMORY.bytes), age }, epoch))
            }
        }
    }

    fn over(mut backlog: Box<dyn Backlog>, limits: Limits, epoch: u64) -> Self {
        let dropped = backlog.take_lost();
        let sent = backlog.len() + dropped;
        Self {
            limits,
            backlog,
            epoch,
            stream_epoch: epoch,
            stream_lead: 0,
            taken: 0,
            adrift: 0,
            sent,
            acknowledged: 0,
            dropped,
        }
    }

    /// Where this buffer's time goes on while the wall clock says `wall_ms`: behind what earlier processes left, by as much
    /// as the wall clock went on since the last of it was read.
    pub(crate) fn time_goes_on_at(&mut self, wall_ms: u64) -> u64 {
        let Some(last) = self.backlog.len().checked_sub(1) else { return wall_ms };
        let Some(last) = self.backlog.get(last) else { return wall_ms };
        wall_ms.saturating_add_signed(lead(&last).map_or(0, i64::saturating_neg)).max(last.since_ms)
    }

    /// Adds reports, made at `now_ms` of the buffer's time, and returns how many were dropped: older ones that made
    /// room or were too old, and those that are larger than a server takes. On disk it is one transaction.
    pub fn push(&mut self, reports: impl IntoIterator<Item = Encoded>, now_ms: u64) -> usize {
        let mut n_too_large = 0;
        for report in reports {
            self.sent += 1;
            // The server would refuse the stream that brings it, and so everything behind it, for ever.
            if report.len() > MAX_REPORT_BYTES {
                n_too_large += 1;
                continue;
            }
            self.backlog.push(Waiting { epoch: self.epoch, since_ms: now_ms, report });
        }
        self.dropped += n_too_large as u64;
        let n_dropped = n_too_large + self.make_room(now_ms);
        self.backlog.flush();
        self.write_off_lost();
        n_dropped
    }

    /// Begins a stream of the oldest report's numbering and clock, at `now_ms` of the buffer's time, while the wall clock says
    /// `wall_ms`.
    pub fn open_stream(&mut self, now_ms: u64, wall_ms: u64) -> Opened {
        let n_too_old = self.make_room(now_ms);
        if n_too_old > 0 {
            self.backlog.flush();
        }
        let oldest = self.next();
        let lead_now = wall_ms.cast_signed().saturating_sub(now_ms.cast_signed());
        self.stream_lead = match oldest.as_ref().and_then(lead) {
            // The usual case: one clock, and it says what time it is.
            Some(lead) if !is_same_clock(lead, lead_now) => lead,
            Some(_) | None => lead_now,
        };
        self.stream_epoch = oldest.map_or(self.epoch, |waiting| waiting.epoch);
        let clock_ms = now_ms.saturating_add_signed(self.stream_lead);
        Opened { epoch: self.stream_epoch, clock_ms, n_too_old }
    }

    /// The next report for the current stream, oldest first.
    pub fn take(&mut self) -> Drawn {
        match self.next() {
            None => Drawn::Nothing,
            Some(waiting) if waiting.epoch != self.stream_epoch => Drawn::OtherStream,
            Some(waiting) if !self.is_by_the_streams_clock(&waiting) => Drawn::OtherStream,
            Some(waiting) => {
                self.taken += 1;
                Drawn::Report(waiting.report)
            }
        }
    }

    /// How many reports the current stream has taken.
    pub fn on_stream(&self) -> u64 {
        self.adrift + self.taken
    }

    /// Whether the current stream has nothing left to take, and the next one neither.
    pub fn is_drained(&self) -> bool {
        self.taken == self.backlog.len()
    }

    /// Ends the current stream: its first `received` reports are acknowledged, the others wait for the next stream.
    /// Returns how many were acknowledged; 0 for a stream that ended without a receipt.
    pub fn settle(&mut self, received: u64) -> u64 {
        let covered = received.min(self.on_stream());
        let covered_adrift = covered.min(self.adrift);
        self.backlog.pop(covered - covered_adrift);
        self.acknowledged += covered;
        self.dropped += self.adrift - covered_adrift;
        self.adrift = 0;
        self.taken = 0;
        if covered > 0 {
            self.backlog.flush();
        }
        self.write_off_lost();
        covered
    }

    /// The accounts as they stand.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            sent: self.sent,
            acknowledged: self.acknowledged,
            pending: self.adrift + self.backlog.len(),
            dropped: self.dropped,
        }
    }

    /// How many of the pending reports are there for the next process if this one ends now.
    pub fn n_lasting(&self) -> u64 {
        self.backlog.n_lasting()
    }

    fn is_by_the_streams_clock(&self, waiting: &Waiting) -> bool {
        lead(waiting).is_none_or(|lead| is_same_clock(lead, self.stream_lead))
    }

    fn next(&mut self) -> Option<Waiting> {
        loop {
            let next = self.backlog.get(self.taken);
            // What is next has another place now.
            if self.write_off_lost() == 0 {
                return next;
            }
        }
    }

    fn make_room(&mut self, now_ms: u64) -> usize {
        let longest_ms = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let mut n_evicted = 0;
        loop {
            let since_ms = self.backlog.oldest_since_ms();
            if self.write_off_lost() > 0 {
                continue;
            }
            let Some(since_ms) = since_ms else { break };
            let is_too_old = now_ms.saturating_sub(since_ms) > longest_ms;
            if !is_too_old && !self.backlog.is_over(self.limits.bytes) {
                break;
            }
            self.backlog.pop(1);
            self.gone(1);
            n_evicted += 1;
        }
        n_evicted
    }

    /// Counts what the backlog has lost, and returns how many.
    fn write_off_lost(&mut self) -> u64 {
        let n_lost = self.backlog.take_lost();
        self.gone(n_lost);
        n_lost
    }

    /// The oldest are no longer in the backlog, and have no receipt.
    fn gone(&mut self, n_reports: u64) {
        let on_stream = n_reports.min(self.taken);
        self.taken -= on_stream;
        self.adrift += on_stream;
        self.dropped += n_reports - on_stream;
    }
}

/// How far the clock by which it was read was ahead of the buffer's time, milliseconds: it is pushed when it is read.
fn lead(waiting: &Waiting) -> Option<i64> {
    Some(reading_ms(&waiting.report)?.cast_signed().saturating_sub(waiting.since_ms.cast_signed()))
}

fn is_same_clock(lead: i64, other: i64) -> bool {
    lead.abs_diff(other) <= SAME_CLOCK_MS
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use slog::{Discard, o};
    use tempfile::TempDir;

    use gopherwatch_proto::v1::MetricReport;

    use super::*;
    use crate::backlog::OVERHEAD;
    use crate::codec::encode;

    const ROOMY: Limits = Limits::IN_MEMORY;
    const EACH: usize = 8 + OVERHEAD;
    const NOW: u64 = 1_800_000_000_000;

    fn room_for(n_reports: usize) -> Limits {
        Limits { bytes: n_reports * EACH, ..ROOMY }
    }

    fn report(n: u64) -> Encoded {
        Encoded::copy_from_slice(&n.to_be_bytes())
    }

    fn number(report: &Encoded) -> u64 {
        u64::from_be_bytes(report[..].try_into().expect("eight bytes"))
    }

    fn spooled(dir: &TempDir, limits: Limits, epoch: u64) -> Buffer {
        let options = Options { spool_dir: Some(dir.path().join("spool")), limits: Some(limits) };
        Buffer::open(&options, epoch, &Logger::root(Discard, o!())).expect("nobody else has it")
    }

    fn filled(mut buffer: Buffer, n: u64) -> Buffer {
        for i in 1..=n {
            buffer.push([report(i)], NOW);
        }
        buffer.open_stream(NOW, NOW);
        buffer
    }

    /// Runs a test with a buffer in memory, and with one on disk.
    fn with_both(limits: Limits, test: impl Fn(Buffer)) {
        test(Buffer::new(limits, 1));
        let dir = TempDir::new().expect("a folder");
        test(spooled(&dir, limits, 1));
    }

    fn take(buffer: &mut Buffer) -> Option<u64> {
        match buffer.take() {
            Drawn::Report(report) => Some(number(&report)),
            Drawn::Nothing | Drawn::OtherStream => None,
        }
    }

    fn take_all(buffer: &mut Buffer) -> Vec<u64> {
        std::iter::from_fn(|| take(buffer)).collect()
    }

    #[test]
    fn what_a_spool_lost_before_it_was_opened_is_dropped() {
        let dir = TempDir::new().expect("a folder");
        let mut buffer = spooled(&dir, ROOMY, 1);
        buffer.push((1..=10).map(report), NOW);
        drop(buffer);
        let file = rusqlite::Connection::open(dir.path().join("spool/spool.db")).expect("opened");
        file.execute("DELETE FROM reports WHERE id = 5", []).expect("changed");
        drop(file);
        let lost = Accounts { sent: 10, dropped: 10, ..Accounts::default() };
        assert_eq!(spooled(&dir, ROOMY, 2).accounts(), lost);
    }

    #[test]
    fn reports_leave_in_the_order_they_came() {
        with_both(ROOMY, |buffer| {
            let mut buffer = filled(buffer, 4);
            assert_eq!(take_all(&mut buffer), [1, 2, 3, 4]);
            assert!(buffer.is_drained());
        });
    }

    #[test]
    fn a_full_receipt_empties_the_buffer() {
        with_both(ROOMY, |buffer| {
            let mut buffer = filled(buffer, 3);
            take_all(&mut buffer);
            assert_eq!(buffer.settle(3), 3);
            assert_eq!(buffer.accounts(), Accounts { sent: 3, acknowledged: 3, pending: 0, dropped: 0 });
        });
    }

    #[test]
    fn a_stream_without_a_receipt_is_sent_again_from_its_first_report() {
        with_both(ROOMY, |buffer| {
            let mut buffer = filled(buffer, 3);
            take_all(&mut buffer);
            buffer.settle(0);
            buffer.push([report(4)], NOW);
            assert_eq!(take_all(&mut buffer), [1, 2, 3, 4]);
        });
    }

    #[test]
    fn a_prefix_receipt_leaves_the_rest_for_the_next_stream() {
        with_both(ROOMY, |buffer| {
            let mut buffer = filled(buffer, 5);
            take_all(&mut buffer);
            assert_eq!(buffer.settle(2), 2);
            assert_eq!(take_all(&mut buffer), [3, 4, 5]);
        });
    }

    #[test]
    fn a_receipt_never_covers_a_report_that_was_not_taken() {
        with_both(ROOMY, |buffer| {
            let mut buffer = filled(buffer, 3);
            take(&mut buffer);
            assert_eq!(buffer.settle(3), 1);
            assert_eq!(take_all(&mut buffer), [2, 3]);
        });
    }

    #[test]
    fn the_oldest_makes_room_and_is_counted() {
        with_both(room_for(3), |buffer| {
            let mut buffer = filled(buffer, 5);
            assert_eq!(buffer.accounts(), Accounts { sent: 5, acknowledged: 0, pending: 3, dropped: 2 });
            assert_eq!(take_all(&mut buffer), [3, 4, 5]);
        });
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted_with_the_next_report_or_stream() {
        with_both(Limits { age: Duration::from_secs(60), ..ROOMY }, |mut buffer| {
            buffer.push([report(1)], NOW);
            buffer.push([report(2)], NOW + 30_000);
            assert_eq!(buffer.push([report(3)], NOW + 60_000), 0, "a minute is allowed");
            assert_eq!(buffer.push([report(4)], NOW + 60_001), 1);
            let opened = Opened { epoch: 1, clock_ms: NOW + 90_001, n_too_old: 1 };
            assert_eq!(buffer.open_stream(NOW + 90_001, NOW + 90_001), opened);
            assert_eq!(take_all(&mut buffer), [3, 4]);
            assert_eq!(buffer.accounts(), Accounts { sent: 4, acknowledged: 0, pending: 2, dropped: 2 });
        });
    }

    #[test]
    fn a_report_larger_than_a_server_takes_is_dropped_and_counted_before_it_blocks_the_others() {
        with_both(ROOMY, |mut buffer| {
            let large = Encoded::from(vec![0; MAX_REPORT_BYTES + 1]);
            assert_eq!(buffer.push([report(1), large, report(2)], NOW), 1);
            assert_eq!(take_all(&mut buffer), [1, 2]);
            assert_eq!(buffer.accounts(), Accounts { sent: 3, acknowledged: 0, pending: 2, dropped: 1 });
        });
    }

    /// A report that was read when the wall clock said so.
    fn read_at(wall_ms: u64) -> Encoded {
        encode(&MetricReport { time_unix_nano: wall_ms * 1_000_000, ..MetricReport::default() })
    }

    /// Reads and pushes two reports, half a minute after each other.
    fn push_two(buffer: &mut Buffer, now_ms: u64, wall_ms: u64) {
        for after in [0, 30_000] {
            assert_eq!(buffer.push([read_at(wall_ms + after)], now_ms + after), 0);
        }
    }

    /// The clocks of the streams that it takes to deliver everything, and how many reports went on each.
    fn clocks(buffer: &mut Buffer, now_ms: u64, wall_ms: u64) -> Vec<(u64, u64)> {
        let stream = || {
            let opened = buffer.open_stream(now_ms, wall_ms);
            assert_eq!(opened.n_too_old, 0);
            while let Drawn::Report(_) = buffer.take() {}
            let n_reports = buffer.on_stream();
            buffer.settle(n_reports);
            (n_reports > 0).then_some((opened.clock_ms, n_reports))
        };
        std::iter::from_fn(stream).collect()
    }

    #[test]
    fn readings_from_before_and_behind_a_step_of_the_clock_go_on_streams_with_its_time_of_either() {
        const HOUR: u64 = 3_600_000;
        with_both(ROOMY, |mut buffer| {
            let (now, then) = (NOW + 60_000, NOW + 120_000);
            push_two(&mut buffer, NOW, NOW);
            push_two(&mut buffer, now, now + HOUR);
            push_two(&mut buffer, then, then - HOUR);
            let now = then + 60_000;
            assert_eq!(clocks(&mut buffer, now, now - HOUR), [(now, 2), (now + HOUR, 2), (now - HOUR, 2)]);
        });
    }

    #[test]
    fn a_clock_that_is_slewed_or_a_report_without_a_time_needs_no_stream_of_its_own() {
        with_both(ROOMY, |mut buffer| {
            push_two(&mut buffer, NOW, NOW);
            push_two(&mut buffer, NOW + 60_000, NOW + 60_500);
            buffer.push([read_at(0)], NOW + 90_000);
            assert_eq!(clocks(&mut buffer, NOW + 90_000, NOW + 91_000), [(NOW + 91_000, 5)]);
        });
    }

    #[test]
    fn what_a_process_left_is_as_old_as_it_was_and_the_wall_clocks_time_since_then() {
        const DAY: u64 = 86_400_000;
        let dir = TempDir::new().expect("a folder");
        assert_eq!(spooled(&dir, ROOMY, 1).time_goes_on_at(NOW), NOW);
        // Its clock was set a day forward after the first two.
        let mut buffer = spooled(&dir, ROOMY, 1);
        push_two(&mut buffer, NOW, NOW);
        push_two(&mut buffer, NOW + 60_000, NOW + 60_000 + DAY);
        drop(buffer);
        let mut buffer = spooled(&dir, ROOMY, 2);
        let last = NOW + 90_000;
        assert_eq!(buffer.time_goes_on_at(last + DAY + 5_000), last + 5_000);
        // Set back meanwhile: nobody knows for how long it was away.
        assert_eq!(buffer.time_goes_on_at(last - DAY), last);
        assert_eq!(buffer.time_goes_on_at(0), last);
        let now = buffer.time_goes_on_at(last + DAY + 5_000);
        assert_eq!(clocks(&mut buffer, now, now + DAY), [(now, 2), (now + DAY, 2)]);
    }

    #[test]
    fn a_report_dropped_while_on_the_stream_still_counts_in_the_receipts_prefix() {
        with_both(room_for(4), |buffer| {
            let mut buffer = filled(buffer, 4);
            assert_eq!([take(&mut buffer), take(&mut buffer), take(&mut buffer)], [Some(1), Some(2), Some(3)]);
            // 1 and 2 make room; they were sent, so a receipt for three covers 1, 2 and 3.
            buffer.push([report(5), report(6)], NOW);
            assert_eq!(buffer.accounts(), Accounts { sent: 6, acknowledged: 0, pending: 6, dropped: 0 });
            assert_eq!(buffer.settle(3), 3);
            assert_eq!(take_all(&mut buffer), [4, 5, 6]);
            assert_eq!(buffer.accounts(), Accounts { sent: 6, acknowledged: 3, pending: 3, dropped: 0 });
        });
    }

    #[test]
    fn a_report_dropped_while_on_a_stream_that_fails_is_lost_and_counted() {
        with_both(room_for(2), |buffer| {
            let mut buffer = filled(buffer, 2);
            take_all(&mut buffer);
            buffer.push([report(3)], NOW);
            buffer.settle(0);
            assert_eq!(buffer.accounts(), Accounts { sent: 3, acknowledged: 0, pending: 2, dropped: 1 });
            assert_eq!(take_all(&mut buffer), [2, 3]);
        });
    }

    #[test]
    fn what_earlier_processes_left_goes_first_a_stream_for_each_numbering() {
        let dir = TempDir::new().expect("a folder");
        filled(spooled(&dir, ROOMY, u64::MAX), 2);
        filled(spooled(&dir, ROOMY, 7), 3);
        let mut buffer = filled(spooled(&dir, ROOMY, 8), 1);
        assert_eq!(buffer.accounts(), Accounts { sent: 6, acknowledged: 0, pending: 6, dropped: 0 });
        for (epoch, numbers) in [(u64::MAX, vec![1, 2]), (7, vec![1, 2, 3]), (8, vec![1])] {
            assert_eq!(buffer.open_stream(NOW, NOW), Opened { epoch, clock_ms: NOW, n_too_old: 0 });
            assert_eq!(take_all(&mut buffer), numbers);
            assert_eq!(buffer.take() == Drawn::Nothing, epoch == 8);
            buffer.settle(numbers.len() as u64);
        }
        assert!(buffer.is_drained());
        drop(buffer);
        assert_eq!(spooled(&dir, ROOMY, 9).accounts(), Accounts::default(), "what has its receipt is gone");
    }

    /// A model that remembers every report by number, against any sequence of calls.
    #[derive(Default)]
    struct Model {
        made: u64,
        receipted: Vec<u64>,
    }

    impl Model {
        fn check(&mut self, buffer: &mut Buffer, rng: &mut StdRng) {
            let done_before = self.made - buffer.accounts().pending;
            let acknowledged_before = self.receipted.len() as u64;
            let mut stream = Vec::new();
            let mut now = NOW;
            buffer.open_stream(now, now);
            for _ in 0..100 {
                now += rng.random_range(0..100);
                match rng.random_range(0..10) {
                    0..3 => {
                        let n_reports = rng.random_range(0..4);
                        buffer.push((self.made + 1..=self.made + n_reports).map(report), now);
                        self.made += n_reports;
                    }
                    3..9 => stream.extend(take(buffer)),
                    _ => {
                        assert_eq!(buffer.on_stream(), stream.len() as u64);
                        let received = rng.random_range(0..=stream.len());
                        buffer.settle(received as u64);
                        self.receipted.extend_from_slice(&stream[..received]);
                        stream.clear();
                        buffer.open_stream(now, now);
                    }
                }
                let accounts = buffer.accounts();
                assert_eq!(accounts.sent, accounts.acknowledged + accounts.pending + accounts.dropped);
                assert_eq!(accounts.sent + done_before, self.made);
                assert_eq!(accounts.acknowledged + acknowledged_before, self.receipted.len() as u64);
                assert!(stream.is_sorted_by(|a, b| a < b), "{stream:?}");
                assert!(self.receipted.is_sorted_by(|a, b| a < b), "{:?}", self.receipted);
            }
        }
    }

    fn any_limits(rng: &mut StdRng) -> Limits {
        Limits { age: Duration::from_millis(rng.random_range(500..10_000)), ..room_for(rng.random_range(1..20)) }
    }

    #[test]
    fn the_accounts_balance_and_the_order_holds_whatever_happens() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut buffer = Buffer::new(any_limits(&mut rng), seed);
            Model::default().check(&mut buffer, &mut rng);
        }
    }

    #[test]
    fn on_disk_too_from_one_process_to_the_next() {
        for seed in 0..30 {
            let mut rng = StdRng::seed_from_u64(seed);
            let dir = TempDir::new().expect("a folder");
            let mut model = Model::default();
            for epoch in 1..5 {
                let mut buffer = spooled(&dir, any_limits(&mut rng), epoch);
                model.check(&mut buffer, &mut rng);
                let n_left = buffer.n_lasting();
                drop(buffer);
                assert_eq!(spooled(&dir, ROOMY, 9).accounts().pending, n_left, "seed {seed}");
            }
        }
    }
}
