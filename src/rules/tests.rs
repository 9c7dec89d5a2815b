//! The rules by themselves: timelines, files, and the engine against a reference that was written apart from it.

mod accounts;
// The cases are for restarts and lanes as well.
pub(crate) mod cases;
mod cost;
mod explain;
mod files;
mod fuzz;
pub(crate) mod language;
mod parse;
pub(crate) mod play;
mod property;
mod read;
mod receivers;
mod reference;
mod set;
mod timelines;
mod write;
mod written;
