//! The nouns of GopherWatch: instances, readings, alerts and their events.
//!
//! Plain values, shared by every stage. Nothing here reads a clock but [`Timestamp::now`] and [`WallClock`], does I/O or knows a wire
//! format; each edge (gRPC, journal, database, REST) converts to and from these.

mod address;
mod alert;
mod instance;
mod readings;
mod reject;
mod timestamp;
mod wall_clock;

pub use address::is_internal;
pub use alert::{
    Alert, Event, EventKind, Evidence, EvidencePoint, LifeEvent, MAX_LIFE_EVENTS, RaiseId, ResolveReason, Severity,
};
pub use instance::{InstanceKey, Name};
pub use readings::{Layout, Readings, Row};
pub use reject::Rejection;
pub use timestamp::Timestamp;
pub use wall_clock::WallClock;
