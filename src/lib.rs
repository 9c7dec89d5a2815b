//! GopherWatch's server: agents stream reports in, alerts come out.
//!
//! The modules are the stages of the pipeline, in the order of ARCHITECTURE.md; `app` wires them.

pub mod model;
pub mod store;
