//! The rules by themselves: timelines, files, and the engine against a reference that was written apart from it.

mod cases;
mod cost;
mod files;
mod language;
mod play;
mod property;
mod read;
mod reference;
mod timelines;
mod write;
