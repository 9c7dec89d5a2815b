//! A database in memory: version-gated rows, and every way of failing that a real one has shown.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    model::{Alert, Timestamp},
    store::{AlertRecord, AlertStore, HistoryQuery, HistoryRow, StoreError},
};

/// What a database that crashes may lose.
const LOST: Duration = Duration::from_secs(1);

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Not there.
    Down,
    /// The next write happens, and its answer is an error.
    Ambiguous,
    /// Connections of before are broken: one call fails.
    Broken,
}

#[derive(Debug)]
struct Inner {
    rows: BTreeMap<Uuid, Arc<Alert>>,
    /// The latest writes: when, which row, and what it was before.
    recent: Vec<(Duration, Uuid, Option<Arc<Alert>>)>,
    now: Duration,
    mood: Mood,
}

/// The database.
#[derive(Debug)]
pub(super) struct SimulatedStore {
    number: u64,
    /// It takes no row of one in so many alerts, ever; 0: it takes all.
    refuses_one_in: u64,
    inner: Mutex<Inner>,
}

impl SimulatedStore {
    pub(super) fn new(number: u64, refuses_one_in: u64) -> Self {
        let inner = Inner { rows: BTreeMap::new(), recent: Vec::new(), now: Duration::ZERO, mood: Mood::Well };
        Self { number, refuses_one_in, inner: Mutex::new(inner) }
    }

    pub(super) fn refuses(&self, alert_id: Uuid) -> bool {
        self.refuses_one_in > 0 && (alert_id.as_u64_pair().0 ^ self.number).is_multiple_of(self.refuses_one_in)
    }

    pub(super) fn rows(&self) -> BTreeMap<Uuid, Arc<Alert>> {
        self.inner.lock().rows.clone()
    }

    pub(super) fn set_now(&self, now: Duration) {
        self.inner.lock().now = now;
    }

    pub(super) fn mood(&self) -> Mood {
        self.inner.lock().mood
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        self.inner.lock().mood = mood;
    }

    /// It goes down with what it had written last, and comes back without; returns how many writes are gone.
    pub(super) fn crash(&self) -> usize {
        let mut inner = self.inner.lock();
        let since = inner.now.saturating_sub(LOST);
        let mut n_lost = 0;
        while let Some((_, alert_id, before)) = inner.recent.pop_if(|(at, ..)| *at > since) {
            n_lost += 1;
            match before {
                Some(row) => inner.rows.insert(alert_id, row),
                None => inner.rows.remove(&alert_id),
            };
        }
        inner.mood = Mood::Broken;
        n_lost
    }

    fn transient(doing: &str) -> StoreError {
        StoreError::Transient { doing: doing.to_owned(), source: "simulated".into() }
    }
}

impl AlertStore for SimulatedStore {
    fn describe(&self) -> String {
        format!("simulated {}", self.number)
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        match inner.mood {
            Mood::Down => Err(Self::transient("preparing")),
            Mood::Broken => {
                inner.mood = Mood::Well;
                Err(Self::transient("preparing"))
            }
            Mood::Well | Mood::Ambiguous => Ok(()),
        }
    }

    fn write(&self, alerts: &[Arc<Alert>]) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let mood = inner.mood;
        if mood != Mood::Down {
            inner.mood = Mood::Well;
        }
        if matches!(mood, Mood::Down | Mood::Broken) {
            return Err(Self::transient("writing"));
        }
        if alerts.iter().any(|alert| self.refuses(alert.alert_id)) {
            return Err(StoreError::Permanent { doing: "writing".to_owned(), source: "simulated".into() });
        }
        for alert in alerts {
            // Without this gate a row delivered again would fall back to what it was (I10).
            if inner.rows.get(&alert.alert_id).is_some_and(|row| row.version >= alert.version) {
                continue;
            }
            let before = inner.rows.insert(alert.alert_id, alert.clone());
            let now = inner.now;
            inner.recent.push((now, alert.alert_id, before));
        }
        if mood == Mood::Ambiguous { Err(Self::transient("writing")) } else { Ok(()) }
    }

    fn shut(&self) {}

    fn history(&self, _: &HistoryQuery) -> Result<Vec<HistoryRow>, StoreError> {
        unreachable!("nobody reads the history here")
    }

    fn alert(&self, _: Uuid) -> Result<Option<AlertRecord>, StoreError> {
        unreachable!("nobody reads the history here")
    }

    fn prune(&self, _: Timestamp, _: u32) -> Result<u64, StoreError> {
        unreachable!("rows are kept for ever here")
    }
}
