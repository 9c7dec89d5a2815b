//! The nouns of GopherWatch: instances, readings, alerts and their events.
//!
//! Plain values, shared by every stage. Nothing here reads a clock but [`Timestamp::now`], does I/O or knows a wire
//! format; each edge (gRPC, journal, database, REST) converts to and from these.

mod alert;
mod instance;
mod timestamp;

pub use alert::{
    Alert, Evidence, EvidencePoint, Event, EventKind, LifeEvent, MAX_LIFE_EVENTS, RaiseId, ResolveReason, Severity,
};
pub use instance::{InstanceKey, Metrics, Name};
pub use timestamp::Timestamp;
