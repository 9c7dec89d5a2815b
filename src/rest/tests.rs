//! The real server on a port of its own, asked over TCP.

mod alerts;
mod answers;
mod changes;
mod clients;
mod explain;
mod one_alert;
mod status;
mod support;
