//! The gate before every write: once it is shut, none begins.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether writes may begin. Each write asks with its connection in hand, so that nothing that waits lies between the
/// answer and the statement.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicBool);

/// The gate is shut.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is stopping")]
pub(super) struct Shut;

impl Gate {
    pub(super) fn shut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn ask(&self) -> Result<(), Shut> {
        if self.0.load(Ordering::SeqCst) { Err(Shut) } else { Ok(()) }
    }
}
