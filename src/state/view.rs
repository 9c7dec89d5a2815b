//! What REST shows of an instance: a copy, so that no lock is held while it is written out.

use std::sync::Arc;

use super::{InstanceState, Presence};
use crate::model::{Alert, InstanceKey, Name, Severity, Timestamp};

/// How an instance, or a service, is; ordered from worst to best (CONTRACT §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// A critical alert fires.
    Critical,
    /// Silent for long.
    Stale,
    /// A warning fires.
    Warning,
    /// Nothing worse than an info fires.
    Ok,
    /// It left in order.
    Left,
}

impl Status {
    /// Every status, worst first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::Stale, Self::Warning, Self::Ok, Self::Left];

    /// The name in REST.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Stale => "stale",
            Self::Warning => "warning",
            Self::Ok => "ok",
            Self::Left => "left",
        }
    }
}

/// One instance as it is now.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// Who it is.
    pub key: Arc<InstanceKey>,
    /// How it is.
    pub status: Status,
    /// Whether it has been silent for long, whatever its status.
    pub stale: bool,
    /// When the server last heard of it.
    pub last_seen: Timestamp,
    /// By how many seconds its clock is ahead of the server's; `None`: not known.
    pub clock_skew_seconds: Option<f64>,
    /// The last known value of each metric.
    pub metrics: Vec<(Name, f64)>,
    /// The alerts that fire.
    pub firing: Vec<Arc<Alert>>,
}

impl InstanceView {
    /// A copy of what is shown of an instance.
    pub(super) fn of(instance: &InstanceState) -> Self {
        let worst = instance.progress.firing.iter().map(|f| f.alert.severity).max();
        let status = match (instance.presence, worst) {
            (Presence::Left(_) | Presence::Forgotten(_), _) => Status::Left,
            (Presence::Present, Some(Severity::Critical)) => Status::Critical,
            (Presence::Present, _) if instance.stale => Status::Stale,
            (Presence::Present, Some(Severity::Warning)) => Status::Warning,
            (Presence::Present, Some(Severity::Info) | None) => Status::Ok,
        };
        Self {
            key: instance.key.clone(),
            status,
            stale: instance.stale,
            last_seen: instance.last_seen,
            clock_skew_seconds: instance.skew_nanos.map(|nanos| nanos as f64 / 1e9),
            metrics: instance.latest.iter().map(|(name, value)| (name.clone(), value)).collect(),
            firing: instance.progress.firing.iter().map(|f| f.alert.clone()).collect(),
        }
    }
}

/// What one rule has going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Instances that it looks at.
    pub matching: usize,
    /// Instances for which its condition is true, but not for long enough yet.
    pub pending: usize,
    /// Alerts that fire.
    pub firing: usize,
}
