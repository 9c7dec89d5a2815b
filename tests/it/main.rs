//! Tests of the whole, in one binary: a file per promise, and `support` for what they share.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod agent;
mod alert_lines;
mod chaos;
mod clocks;
mod database_trouble;
mod episodes;
mod forget;
mod hostile;
mod hostile_text;
mod hosts;
mod idle;
mod ingest;
mod init;
mod journal_damage;
mod journal_trouble;
mod latency;
mod mends;
mod no_data;
mod one_alert;
mod order;
mod original_table;
mod outage;
mod overload;
mod python_example;
mod receipts;
mod receivers;
mod reload;
mod rule_files;
mod scale;
mod shutdown;
mod silence;
mod startup;
mod store;
mod store_faults;
mod store_fixture;
mod survival;
mod systemd;
mod tidy;
mod tls;
mod tokens;

mod support {
    pub(crate) use gopherwatch_chaos::mariadb;

    pub(crate) mod client;
    pub(crate) mod figures;
    pub(crate) mod h2;
    pub(crate) mod history;
    pub(crate) mod log;
    pub(crate) mod raw;
    pub(crate) mod reports;
    pub(crate) mod server;
    pub(crate) mod stores;
    pub(crate) mod tls;
    pub(crate) mod wait;
    pub(crate) mod webhook;
    pub(crate) mod workload;
}
