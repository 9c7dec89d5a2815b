//! Reports to a GopherWatch server, delivered until they are receipted.
//!
//! A reading becomes a numbered report, waits in a bounded buffer ([`buffer`], [`outbox`]) and leaves it only with the
//! server's receipt ([`send`]). Whoever reports never waits for the network.

pub mod buffer;
pub mod clock;
pub mod codec;
#[cfg(feature = "test-util")]
pub mod double;
pub mod error;
pub mod mapping;
pub mod outbox;
pub mod send;
pub mod token;
pub mod trouble;
