//! `gopherwatch-agent`: readings of this host, or of a simulated fleet, delivered to a GopherWatch server.
//!
//! A reading becomes a numbered report ([`collect`], [`simulate`]), waits in a bounded buffer ([`buffer`], [`outbox`])
//! and leaves it only with the server's receipt ([`send`]). [`agent`] wires the two ends together; neither waits for
//! the other.

pub mod agent;
pub mod args;
pub mod buffer;
pub mod clock;
pub mod codec;
pub mod collect;
pub mod log;
mod network;
pub mod once;
pub mod outbox;
pub mod send;
pub mod simulate;
mod trouble;
