//! GopherWatch's server: agents stream reports in, alerts come out.
//!
//! The modules are the stages of the pipeline, in the order of ARCHITECTURE.md; `app` wires them.

pub mod health;
pub mod model;
pub mod rest;
pub mod rules;
pub mod state;
pub mod stats;
pub mod store;
pub mod units;
