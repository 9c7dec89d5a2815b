//! The agent against a double of the server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod cgroup;
mod doctor;
mod environment;
mod host;
mod name;
mod process;
mod program;
mod reported;
mod scrape;
mod spool;
mod statsd;
mod support;
mod tls;
mod token;
