//! Tests of the whole, in one binary: a file per promise, and `support` for what they share.

mod store;
mod store_faults;
mod store_fixture;

mod support {
    pub(crate) mod mariadb;
}
