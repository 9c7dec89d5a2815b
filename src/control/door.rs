//! The way to control for those who may ask it: REST and the signals.
//!
//! Asking never waits, so that tasks can do it (I5); the answer comes by a channel of its own, and is lost if control
//! has ended.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::{dispatch::Receipt, model::InstanceKey, rule_file::RuleFileError, rules::RuleSet};

/// Requests that may wait (I1). They are people's, or of a script that forgets instances one by one.
const MAX_WAITING_REQUESTS: usize = 64;

/// Who asks for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// SIGHUP.
    Signal,
    /// REST.
    Request,
}

/// What a reload came to: the rules that are in force in every lane.
pub type Reloaded = Result<Arc<RuleSet>, ReloadError>;

/// Why rules that were asked for are not known to be in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be used, and the old rules stay.
    #[error(transparent)]
    File(#[from] RuleFileError),
    /// The rules are in force, but not all that the doors' files say.
    #[error(
        "the rules are in force; of tokens and certificates, each kind whole or not at all, what its files said before holds: {0}"
    )]
    Doors(String),
    /// The new rules are on their way.
    #[error("the file is good, and its rules hold as soon as every lane has come to them")]
    Late,
    /// Nothing was done.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Control cannot take a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Others come first.
    #[error("earlier changes are still on their way to the lanes")]
    Busy,
    /// It has ended, or will.
    #[error("the server is stopping")]
    Stopping,
}

#[derive(Debug)]
pub(super) enum Request {
    Reload { by: By, reply: oneshot::Sender<Reloaded> },
    Forget { key: Arc<InstanceKey>, receipt: Receipt },
}

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Door {
    requests: Sender<Request>,
    shut: Arc<AtomicBool>,
}

/// Where requests come out, for control alone.
#[derive(Debug)]
pub struct Requests {
    requests: Receiver<Request>,
    shut: Arc<AtomicBool>,
}

impl Requests {
    /// Whether nothing was asked.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn receiver(&self) -> &Receiver<Request> {
        &self.requests
    }
}

impl Drop for Requests {
    /// The channel would keep what nobody takes for as long as there is a door, and whoever asked would wait for it.
    /// What comes in behind the last look finds the door shut.
    fn drop(&mut self) {
        self.shut.store(true, Ordering::SeqCst);
        self.requests.try_iter().for_each(drop);
    }
}

/// A way in, and where it leads.
pub fn door() -> (Door, Requests) {
    let (door, requests) = bounded(MAX_WAITING_REQUESTS);
    let shut = Arc::new(AtomicBool::new(false));
    (Door { requests: door, shut: shut.clone() }, Requests { requests, shut })
}

impl Door {
    /// Asks that the rules be read again.
    pub fn reload(&self, by: By) -> Result<oneshot::Receiver<Reloaded>, Refused> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Reload { by, reply })?;
        Ok(answer)
    }

    /// Asks that an instance be forgotten. The answer comes when that is durable, and is lost if it is not done.
    pub fn forget(&self, key: Arc<InstanceKey>) -> Result<oneshot::Receiver<()>, Refused> {
        let (receipt, given) = Receipt::new();
        self.ask(Request::Forget { key, receipt })?;
        Ok(given)
    }

    fn ask(&self, request: Request) -> Result<(), Refused> {
        let asked = self.requests.try_send(request).map_err(|err| match err {
            TrySendError::Full(_) => Refused::Busy,
            TrySendError::Disconnected(_) => Refused::Stopping,
        });
        if self.shut.load(Ordering::SeqCst) { Err(Refused::Stopping) } else { asked }
    }
}
