//! Where the buffer's reports wait: a queue, oldest first, in memory or on disk.
//!
//! What the reports are worth, and which of them are on a stream, is [`crate::buffer`]'s business. A backlog never fails: one
//! that can no longer read what it kept says how much is lost, and one that cannot write keeps it in memory meanwhile.

#[cfg(feature = "spool")]
mod file;
mod memory;
#[cfg(feature = "spool")]
mod spool;
#[cfg(feature = "spool")]
mod spool_dir;

use std::fmt::Debug;

use crate::codec::Encoded;

pub(crate) use memory::Memory;
#[cfg(feature = "spool")]
pub(crate) use spool::{Spool, SpoolError};
#[cfg(feature = "spool")]
pub use spool_dir::Taken;

/// A report that waits for its receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The numbering that it belongs to.
    pub(crate) epoch: u64,
    /// When it began to wait, milliseconds of the buffer's own time ([`crate::clock::Ages`]).
    pub(crate) since_ms: u64,
    pub(crate) report: Encoded,
}

/// What is kept beside a report's own bytes: in memory the handle and allocation, on disk the row's other columns.
pub(crate) const OVERHEAD: usize = 96;

impl Waiting {
    pub(crate) fn cost(&self) -> usize {
        self.report.len() + OVERHEAD
    }
}

/// See the module. Positions count from the oldest.
pub(crate) trait Backlog: Debug + Send {
    /// Adds to the end; kept in memory until [`Backlog::flush`].
    fn push(&mut self, waiting: Waiting);

    /// The report at `position`.
    fn get(&mut self, position: u64) -> Option<Waiting>;

    /// Since when the oldest waits.
    fn oldest_since_ms(&mut self) -> Option<u64>;

    /// Removes the `n_reports` oldest, or all if there are fewer.
    fn pop(&mut self, n_reports: u64);

    /// Makes lasting what was pushed and popped since the last time, at once. In memory that is nothing.
    fn flush(&mut self) {}

    /// How many there are.
    fn len(&self) -> u64;

    /// Whether they take more than `bytes`, or than may be held in memory.
    fn is_over(&self, bytes: usize) -> bool;

    /// How many of the oldest were lost since it was last asked: they cannot be read any more, and are not in
    /// [`Backlog::len`].
    fn take_lost(&mut self) -> u64 {
        0
    }

    /// How many would be there after a sudden end of the process.
    fn n_lasting(&self) -> u64 {
        0
    }
}
