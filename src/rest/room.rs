//! Room for large answers: a client that asks for much and reads nothing must not fill the memory.
//!
//! An answer takes its bytes from one budget until the client has read it or is gone. Small ones are free.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers up to this size need no room: connections are few enough.
const FREE_BYTES: u64 = 64 * 1024;
/// The budget is counted in these.
const UNIT_BYTES: u64 = 1024;
/// Bytes given to the connection at once. A whole answer would be its own to keep, and the room seem free at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The budget of all answers that are being read.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    n_units: u32,
}

/// An answer's body, and the room that it takes.
pub(super) struct Roomy<E> {
    body: Pin<Box<dyn Body<Data = Bytes, Error = E> + Send>>,
    /// What the body has given and the connection has not yet taken.
    rest: Bytes,
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
        Ok(Roomy { body: Box::pin(body), rest: Bytes::new(), _room: room })
    }
}

impl<E> Body for Roomy<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        if self.rest.is_empty() {
            match ready!(self.body.as_mut().poll_frame(cx)).transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                None => return Poll::Ready(None),
            }
        }
        let n_bytes = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
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

    /// Given whole, a large answer was hyper's to keep: its room was free while nobody had read it.
    #[tokio::test]
    async fn an_answer_is_given_in_pieces_and_keeps_its_room_until_the_last() {
        let budget = Budget::new(1 << 20);
        let Ok(mut answer) = budget.admit("x".repeat(1 << 20)) else { panic!("there is room") };
        let mut n_bytes = 0;
        while n_bytes < 1 << 20 {
            assert!(budget.admit("x".repeat(400 * 1024)).is_err(), "after {n_bytes} bytes");
            assert_eq!(answer.size_hint().exact(), Some((1 << 20) - n_bytes));
            let frame = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await;
            let Some(Ok(frame)) = frame else { panic!("there is more") };
            let piece = frame.into_data().unwrap_or_default().len();
            assert!((1..=PIECE_BYTES).contains(&piece));
            n_bytes += piece as u64;
        }
        assert!(answer.is_end_stream());
    }
}
