//! GopherWatch's server: agents stream reports in, alerts come out.
//!
//! The modules are the stages of the pipeline, in the order of ARCHITECTURE.md; `app` wires them.

pub mod accounts;
pub mod app;
pub mod commands;
pub mod config;
pub mod control;
pub mod data_dir;
pub mod deliver;
pub mod descriptors;
pub mod dispatch;
pub mod doors;
pub mod evaluate;
pub mod health;
pub mod ingest;
pub mod init;
pub mod journal;
pub mod log;
pub mod model;
pub mod notify;
pub mod rest;
pub mod restore;
pub mod rule_file;
pub mod rules;
pub mod ruletest;
pub mod service_manager;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod stats;
pub mod store;
pub mod units;
