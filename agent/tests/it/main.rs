//! The agent against a double of the server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod program;
mod scrape;
mod spool;
mod statsd;
mod support;
mod token;
