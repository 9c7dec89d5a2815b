//! Whether the server is ready, and how each thing it depends on is doing: what `/readyz` shows.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::model::Timestamp;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet listening on every port.
    Starting,
    /// Taking reports.
    Ready,
    /// Told to stop: no new connection or stream is taken.
    Draining,
}

/// How one dependency is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    Ok,
    /// Not as it should be, while the server goes on doing its job.
    Degraded,
}

/// One dependency's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// How it is doing.
    pub condition: Condition,
    /// What it is, or what is wrong and what to do.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
}

/// The server's health. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<(Phase, BTreeMap<&'static str, Check>)>>);

impl Health {
    /// Starting, with no dependency known.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new((Phase::Starting, BTreeMap::new()))))
    }

    /// Where the server is in its life.
    pub fn phase(&self) -> Phase {
        self.0.lock().0
    }

    /// Moves to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.0.lock().0 = phase;
    }

    /// Notes how `dependency` is doing; returns whether its condition changed.
    pub fn set(&self, dependency: &'static str, condition: Condition, detail: impl Into<String>) -> bool {
        let mut inner = self.0.lock();
        let before = inner.1.get(dependency).map(|check| (check.condition, check.since));
        let changed = before.is_none_or(|(was, _)| was != condition);
        let since = before.filter(|_| !changed).map_or_else(Timestamp::now, |(_, since)| since);
        inner.1.insert(dependency, Check { condition, detail: detail.into(), since });
        changed
    }

    /// Every dependency by name.
    pub fn checks(&self) -> BTreeMap<&'static str, Check> {
        self.0.lock().1.clone()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
