//! Delivery against a double of the server: receipts, cut streams, refusals, an absent server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod client;
mod clock;
mod deliver;
mod leftovers;
mod tls;
