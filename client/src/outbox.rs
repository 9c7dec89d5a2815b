//! The buffer between the collector and the one stream of the moment.
//!
//! The collector pushes and never waits. The stream draws as fast as the connection takes, so that a backlog leaves
//! in large writes and a live report at once. Only the stream opened last can draw: whatever is left of an earlier
//! one finds nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio_stream::Stream;

use crate::buffer::{Accounts, Buffer, Drawn, Opened};
use crate::clock::{Ages, Clock};
use crate::codec::Encoded;

/// See the module. One task may wait in [`Outbox::ready`] or [`Outbox::finishing`] at a time.
#[derive(Debug)]
pub struct Outbox {
    ages: Ages,
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    buffer: Buffer,
    /// Which stream may draw.
    stream: u64,
    closing: bool,
    finishing: bool,
    waker: Option<Waker>,
}

impl Outbox {
    /// An outbox for what is in the buffer, and what is pushed.
    pub fn new(buffer: Buffer) -> Self {
        Self::by(Clock::default(), buffer)
    }

    /// [`Outbox::new`] for reports whose readings are taken by this clock.
    pub fn by(clock: Clock, mut buffer: Buffer) -> Self {
        let ages = Ages::from(buffer.time_goes_on_at(clock.unix_millis()));
        let state = State { buffer, stream: 0, closing: false, finishing: false, waker: None };
        Self { ages, clock, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Adds a report and returns how many were dropped: older ones that made room or were too old, or this one, too large.
    pub fn push(&self, report: Encoded) -> usize {
        self.push_all([report])
    }

    /// [`Outbox::push`] for the reports of one round, which a spool takes as one.
    pub fn push_all(&self, reports: impl IntoIterator<Item = Encoded>) -> usize {
        // Before the lock: a disk that hangs would make readings look older than they are.
        let now_ms = self.ages.now_ms();
        self.change(|state| state.buffer.push(reports, now_ms))
    }

    /// No report will come after those pushed: streams end by themselves once all are on their way.
    pub fn finish(&self) {
        self.change(|state| state.finishing = true);
    }

    /// Waits for something to deliver; false when all is delivered and [`Outbox::finish`] was called.
    pub async fn ready(&self) -> bool {
        loop {
            {
                let state = self.lock();
                if !state.buffer.is_drained() {
                    return true;
                }
                if state.finishing {
                    return false;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits for [`Outbox::finish`].
    pub async fn finishing(&self) {
        while !self.is_finishing() {
            self.changed.notified().await;
        }
    }

    /// Whether [`Outbox::finish`] was called.
    pub fn is_finishing(&self) -> bool {
        self.lock().finishing
    }

    /// Opens a stream. The one before must have been settled.
    pub fn open(self: &Arc<Self>) -> Reports {
        let mut state = self.lock();
        state.stream += 1;
        state.closing = false;
        state.waker = None;
        let opened = state.buffer.open_stream(self.ages.now_ms(), self.clock.unix_millis());
        Reports { outbox: Arc::clone(self), stream: state.stream, opened }
    }

    /// Ends the current stream's drawing; its receipt is still to come.
    pub fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// Ends the current stream, whose first `received` reports have their receipt; the others go to the next one.
    /// Returns how many there were and how many of them are now acknowledged.
    pub fn settle(&self, received: u64) -> (u64, u64) {
        self.change(|state| {
            state.closing = true;
            // An orphaned body, not yet dropped by the connection, must not draw for a dead stream.
            state.stream += 1;
            let on_stream = state.buffer.on_stream();
            (on_stream, state.buffer.settle(received))
        })
    }

    /// The accounts as they stand.
    pub fn accounts(&self) -> Accounts {
        self.lock().buffer.accounts()
    }

    /// How many of the pending reports are there for the next process if this one ends now.
    pub fn n_lasting(&self) -> u64 {
        self.lock().buffer.n_lasting()
    }

    fn change<T>(&self, apply: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = apply(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

/// The reports of one stream.
#[derive(Debug)]
pub struct Reports {
    outbox: Arc<Outbox>,
    stream: u64,
    /// What they have in common.
    pub opened: Opened,
}

impl Stream for Reports {
    type Item = Encoded;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let mut state = self.outbox.lock();
        if state.stream != self.stream || state.closing {
            return Poll::Ready(None);
        }
        match state.buffer.take() {
            Drawn::Report(report) => return Poll::Ready(Some(report)),
            Drawn::OtherStream => return Poll::Ready(None),
            Drawn::Nothing => {}
        }
        if state.finishing {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;
    use crate::buffer::Limits;

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(Buffer::new(Limits::IN_MEMORY, 1)))
    }

    fn report(text: &'static str) -> Encoded {
        Encoded::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn a_waiting_stream_gets_a_report_the_moment_it_is_pushed() {
        let outbox = outbox();
        let mut reports = outbox.open();
        let next = tokio::spawn(async move { reports.next().await });
        tokio::task::yield_now().await;
        outbox.push(report("a"));
        assert_eq!(next.await.expect("no panic"), Some(report("a")));
    }

    /// What is ready at once leaves in one write. Frames of one report each look like an attack to the server.
    #[test]
    fn a_backlog_is_drawn_without_a_pause() {
        let outbox = outbox();
        for _ in 0..1_000 {
            outbox.push(report("a"));
        }
        let mut reports = outbox.open();
        let mut cx = Context::from_waker(Waker::noop());
        for n in 0..1_000 {
            assert_eq!(Pin::new(&mut reports).poll_next(&mut cx), Poll::Ready(Some(report("a"))), "report {n}");
        }
        assert_eq!(Pin::new(&mut reports).poll_next(&mut cx), Poll::Pending);
    }

    #[tokio::test]
    async fn a_closed_stream_leaves_the_rest_to_the_next() {
        let outbox = outbox();
        outbox.push(report("a"));
        outbox.push(report("b"));
        let mut first = outbox.open();
        assert_eq!(first.next().await, Some(report("a")));
        outbox.close();
        assert_eq!(first.next().await, None);
        assert_eq!(outbox.settle(1), (1, 1));
        assert_eq!(outbox.open().next().await, Some(report("b")));
    }

    #[tokio::test]
    async fn what_is_left_of_a_dead_stream_draws_nothing_from_the_next() {
        let outbox = outbox();
        let mut dead = outbox.open();
        outbox.settle(0);
        let mut live = outbox.open();
        outbox.push(report("a"));
        assert_eq!(dead.next().await, None);
        assert_eq!(live.next().await, Some(report("a")));
    }

    #[tokio::test]
    async fn finishing_sends_all_and_then_ends() {
        let outbox = outbox();
        outbox.push(report("a"));
        outbox.finish();
        assert!(outbox.ready().await);
        let mut reports = outbox.open();
        assert_eq!(reports.next().await, Some(report("a")));
        assert_eq!(reports.next().await, None);
        outbox.settle(1);
        assert!(!outbox.ready().await);
    }
}
