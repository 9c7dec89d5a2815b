//! `gopherwatch-agent`: readings of this host and its services, or of a simulated fleet, delivered to a GopherWatch server.
//!
//! At each tick the sources ([`sources`]) say what they know; that becomes numbered reports, which [`gopherwatch_client`]
//! delivers. [`agent`] wires the two together; neither waits for the other.

pub mod agent;
pub mod args;
pub mod doctor;
pub mod log;
pub mod mapping;
pub mod once;
pub mod sources;
