//! The backlog in memory, gone with the process.

use std::collections::VecDeque;

use super::{Backlog, Waiting};

/// See the module. Its memory grows with what waits, and shrinks again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    queue: VecDeque<Waiting>,
    bytes: usize,
}

#[cfg(feature = "spool")]
impl Memory {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.queue.iter()
    }
}

impl Backlog for Memory {
    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.cost();
        self.queue.push_back(waiting);
    }

    fn get(&mut self, position: u64) -> Option<Waiting> {
        self.queue.get(usize::try_from(position).ok()?).cloned()
    }

    fn oldest_since_ms(&mut self) -> Option<u64> {
        self.queue.front().map(|waiting| waiting.since_ms)
    }

    fn pop(&mut self, n_reports: u64) {
        for _ in 0..n_reports {
            let Some(waiting) = self.queue.pop_front() else { break };
            self.bytes -= waiting.cost();
        }
        // After an outage the queue's own allocation would otherwise keep its largest size for ever.
        if self.queue.capacity() > 1024 && self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
    }

    fn len(&self) -> u64 {
        self.queue.len() as u64
    }

    fn is_over(&self, bytes: usize) -> bool {
        self.bytes > bytes
    }
}
