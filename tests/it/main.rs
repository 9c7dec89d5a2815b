//! Tests of the whole, in one binary: a file per promise, and `support` for what they share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod episodes;
mod ingest;
mod order;
mod receipts;
mod scale;
mod startup;
mod store;
mod store_faults;
mod store_fixture;

mod support {
    pub(crate) mod client;
    pub(crate) mod figures;
    pub(crate) mod history;
    pub(crate) mod log;
    pub(crate) mod mariadb;
    pub(crate) mod raw;
    pub(crate) mod reports;
    pub(crate) mod server;
    pub(crate) mod stores;
    pub(crate) mod wait;
    pub(crate) mod workload;
}
