//! Tests of the whole, in one binary: a file per promise, and `support` for what they share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod store;
mod store_faults;
mod store_fixture;

mod support {
    pub(crate) mod mariadb;
}
