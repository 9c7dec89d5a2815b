//! The agent against a double of the server: receipts, cut streams, refusals, an absent server, an orderly stop.

mod deliver;
mod double;
mod program;
