//! Why a call to either database failed, and what that means for trying again.
//!
//! Permanent is only what lies in the rows themselves, which no new try can mend. All that an operator, the network or
//! time can mend is transient, a missing table or column among it: the journal keeps the rows meanwhile.

use std::error::Error;

use super::{StoreError, gate::Shut};

/// A driver's error, judged by the module of its database.
pub(super) trait DatabaseError: Error + Send + Sync + 'static {
    /// Whether it lies in the rows.
    fn lies_in_the_rows(&self) -> bool;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure<E: DatabaseError> {
    /// None was free, or none could be made, in time.
    #[error("no connection to the database")]
    NoConnection(#[source] r2d2::Error),
    /// Writing has ended.
    #[error(transparent)]
    Shut(#[from] Shut),
    /// The statement failed.
    #[error("the database answered with an error")]
    Statement(#[source] E),
}

impl<E: DatabaseError> From<E> for Failure<E> {
    fn from(err: E) -> Self {
        Self::Statement(err)
    }
}

impl<E: DatabaseError> Failure<E> {
    /// The store's error for this failure of `doing`.
    pub(super) fn into_store(self, doing: impl Into<String>) -> StoreError {
        let doing = doing.into();
        match self {
            Self::NoConnection(_) | Self::Shut(_) => StoreError::Transient { doing, source: Box::new(self) },
            Self::Statement(err) if err.lies_in_the_rows() => StoreError::Permanent { doing, source: Box::new(err) },
            Self::Statement(err) => StoreError::Transient { doing, source: Box::new(err) },
        }
    }
}
