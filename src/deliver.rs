//! Stage 5: sinks, each a thread with its own cursor on the journal.
//!
//! A sink takes events in order, and again after a crash: what it does with them is harmless to repeat (I10). One that
//! stands still holds up nobody: the journal keeps what it has not had.

mod board;
mod lines;
mod receiver;
mod receivers;
mod store;

pub use lines::start as start_lines;
pub use receivers::{Changes, Context as ReceiversContext, Receivers, receivers, start as start_receivers};
#[cfg(test)]
pub(crate) use store::{Next, Writer};
pub use store::{Options, Source, start as start_store};

/// The store's cursor.
pub const STORE: &str = "store";
/// The cursor of the alert lines in the log.
pub const LINES: &str = "log";

use crossbeam_channel::{Receiver, TryRecvError};

/// Whether the other end of a channel that carries nothing is gone: how a sink is told to stop.
fn is_over(stop: &Receiver<()>) -> bool {
    matches!(stop.try_recv(), Err(TryRecvError::Disconnected))
}
