//! What can go wrong between us and a database, and whether trying again can help.

use std::error::Error;

/// A store call that failed. The message says what we were doing; the source says why.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The same call can succeed later: no connection, a time-out, a lock, a full disk.
    #[error("{doing}")]
    Transient {
        /// What we were doing.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The same call fails for ever: the rows or the schema do not fit.
    #[error("{doing}")]
    Permanent {
        /// What we were doing.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call can succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }
}
