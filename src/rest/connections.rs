//! Who is connected, and who has to go when there is no room for the next.
//!
//! Silent sockets, half-sent heads and idle keep-alive connections all look the same from here: no request is under
//! way. When every place is taken the one idle for longest is closed, so that no number of such peers keeps others out.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

/// How soon to look again for a connection to close, when all were busy.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The connections open now.
pub(super) struct Connections {
    places: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Peer>>>,
}

/// A place for one connection; dropping it frees the place.
pub(super) struct Place {
    id: u64,
    peer: Arc<Peer>,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

/// What one connection is doing.
pub(super) struct Peer {
    activity: Mutex<Activity>,
    evicted: Notify,
}

struct Activity {
    /// Requests under way.
    n_requests: usize,
    /// Whether there ever was one.
    has_asked: bool,
    /// When the last one was answered, or the connection began.
    idle_since: Instant,
}

/// One request under way; dropping it ends it.
pub(super) struct Busy(Arc<Peer>);

impl Connections {
    /// None yet; room for `max`.
    pub(super) fn new(max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), open: Mutex::default() }
    }

    /// Waits for room, making some if need be.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return permit;
            }
            self.evict_longest_idle();
            if let Ok(Ok(permit)) = timeout(LOOK_AGAIN, self.places.clone().acquire_owned()).await {
                return permit;
            }
        }
    }

    /// Gives the connection `id`, unique among all, the room that was found for it.
    pub(super) fn admit(self: &Arc<Self>, id: u64, permit: OwnedSemaphorePermit) -> Place {
        let activity = Activity { n_requests: 0, has_asked: false, idle_since: Instant::now() };
        let peer = Arc::new(Peer { activity: Mutex::new(activity), evicted: Notify::new() });
        self.open.lock().insert(id, peer.clone());
        Place { id, peer, connections: self.clone(), _permit: permit }
    }

    fn evict_longest_idle(&self) {
        let open = self.open.lock();
        let idle = open.values().filter_map(|peer| peer.idle_since().map(|since| (since, peer)));
        if let Some((_, peer)) = idle.min_by_key(|(since, _)| *since) {
            peer.evicted.notify_one();
        }
    }
}

impl Place {
    /// The connection that has this place.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
    }
}

impl Peer {
    /// Notes that a request is under way, until the answer is handed over for writing.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        let mut activity = self.activity.lock();
        activity.n_requests += 1;
        activity.has_asked = true;
        drop(activity);
        Busy(self.clone())
    }

    /// Waits until the place is needed by another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Waits until no request has been under way for `idle`, or none was ever made within `first`. A client that
    /// reads its answer slowly counts as idle: `idle` is the time it has for that.
    pub(super) async fn quiet(&self, first: Duration, idle: Duration) {
        loop {
            let (limit, quiet_for) = {
                let activity = self.activity.lock();
                let limit = if activity.has_asked { idle } else { first };
                (limit, (activity.n_requests == 0).then(|| activity.idle_since.elapsed()))
            };
            match quiet_for {
                Some(quiet_for) if quiet_for >= limit => return,
                // The first request changes the limit, so that no nap is longer than what it changes to.
                Some(quiet_for) => sleep((limit - quiet_for).min(idle)).await,
                None => sleep(idle).await,
            }
        }
    }

    fn idle_since(&self) -> Option<Instant> {
        let activity = self.activity.lock();
        (activity.n_requests == 0).then_some(activity.idle_since)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut activity = self.0.activity.lock();
        activity.n_requests -= 1;
        activity.idle_since = Instant::now();
    }
}
