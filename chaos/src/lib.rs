//! The proof: breaks a running GopherWatch in every way that its promises name, and checks from outside that no report
//! with a receipt was lost and that each violation is in the history once and in the right final state.
//!
//! It links nothing of the server. What the history must hold is worked out from the contract and from the ledger,
//! where each report stood, on disk, before it was sent; what it does hold is read from the database.

#![expect(clippy::unwrap_used, reason = "a harness that cannot go on should say where")]

pub mod agent;
pub mod checker;
pub mod dice;
pub mod expected;
pub mod generator;
pub mod ledger;
pub mod listener;
pub mod mariadb;
pub mod proxy;
pub mod rows;
pub mod rules;
pub mod scenario;
pub mod sender;
pub mod server;
pub mod small_disk;
pub mod table;
pub mod wait;
pub mod world;
