//! Reports to a GopherWatch server, delivered until they are receipted.
//!
//! A service reports itself in three lines, none of which ever waits for the network or the disk:
//!
//! ```
//! # fn main() -> Result<(), gopherwatch_client::ConnectError> {
//! let watch = gopherwatch_client::Client::connect("http://127.0.0.1:50051", "checkout")?;
//! watch.counter("requests").add(1); // reported as request_count and request_rate
//! watch.gauge("queue_length").set(17.0);
//! # watch.close(std::time::Duration::ZERO);
//! # Ok(())
//! # }
//! ```
//!
//! A server at another host is spoken to by TLS: `https://HOST:PORT`, with [`Builder::ca_file`] for a certificate that the system
//! does not trust and [`Builder::identity_files`] for a server that asks for one. There is no falling back to anything less.
//!
//! A reading becomes a numbered report, waits in a bounded buffer in memory or on disk ([`buffer`], [`outbox`]) and leaves
//! it only with the server's receipt ([`send`]). The agent is built on the same parts.

pub mod address;
mod backlog;
pub mod buffer;
mod client;
pub mod clock;
pub mod codec;
pub mod connection;
#[cfg(feature = "test-util")]
pub mod double;
pub mod error;
pub mod mapping;
mod metrics;
pub mod outbox;
pub mod overflow;
mod reporter;
pub mod send;
pub mod tls;
pub mod token;
pub mod trouble;

pub use client::{Builder, Client, ConnectError};
pub use metrics::{Counter, Gauge, NameError};
