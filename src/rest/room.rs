//! Room for large answers: a client that asks for much and reads nothing must not fill the memory.
//!
//! An answer takes its bytes from one budget until the client has read it or is gone. Small ones are free.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers up to this size need no room: connections are few enough.
const FREE_BYTES: u64 = 64 * 1024;
/// The budget is counted in these.
const UNIT_BYTES: u64 = 1024;

/// The budget of all answers that are being read.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    n_units: u32,
}

/// An answer's body, and the room that it takes.
pub(super) struct Roomy<E> {
    body: Pin<Box<dyn Body<Data = Bytes, Error = E> + Send>>,
    _room: Option<OwnedSemaphorePermit>,
}

/// There is no room now.
pub(super) struct Full;

impl Budget {
    /// Room for so many bytes.
    pub(super) fn new(n_bytes: u64) -> Self {
        let n_units = u32::try_from(n_bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(n_units as usize)), n_units }
    }

    /// Gives the body its room. One larger than the whole budget takes all of it.
    pub(super) fn admit<E>(&self, body: impl Body<Data = Bytes, Error = E> + Send + 'static) -> Result<Roomy<E>, Full> {
        let n_bytes = body.size_hint().lower();
        let room = if n_bytes <= FREE_BYTES {
            None
        } else {
            let n_units = u32::try_from(n_bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(self.n_units);
            Some(self.units.clone().try_acquire_many_owned(n_units).map_err(|_| Full)?)
        };
        Ok(Roomy { body: Box::pin(body), _room: room })
    }
}

impl<E> Body for Roomy<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_share_the_budget_and_small_ones_do_not_need_it() {
        let budget = Budget::new(1 << 20);
        let large = || "x".repeat(400 * 1024);
        let (first, second) = (budget.admit(large()), budget.admit(large()));
        assert!(first.is_ok() && second.is_ok());
        assert!(budget.admit(large()).is_err(), "three do not fit");
        assert!(budget.admit("small".to_owned()).is_ok());
        drop(first);
        assert!(budget.admit(large()).is_ok(), "the room of one that is gone is free");
        drop(second);
        assert!(budget.admit("x".repeat(4 << 20)).is_ok(), "one larger than the budget has it alone");
    }
}
