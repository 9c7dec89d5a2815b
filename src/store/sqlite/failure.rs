//! What SQLite's errors mean for us: whether the same statement can succeed later.
//!
//! As with MySQL, permanent is only what lies in the rows, which no new try can mend. A lock, a full or failing
//! disk, a damaged file and a missing table can be mended, and the journal keeps the rows meanwhile.

use rusqlite::{Error, ErrorCode};

use crate::store::{StoreError, gate::Shut};

/// Why a call to SQLite failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// None was free, or none could be opened, in time.
    #[error("no connection to the file")]
    NoConnection(#[source] r2d2::Error),
    /// Writing has ended.
    #[error(transparent)]
    Shut(#[from] Shut),
    /// The statement failed.
    #[error("the database answered with an error")]
    Statement(#[source] Error),
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self::Statement(err)
    }
}

impl Failure {
    /// The store's error for this failure of `doing`.
    pub(super) fn into_store(self, doing: impl Into<String>) -> StoreError {
        let doing = doing.into();
        match self {
            Self::NoConnection(_) | Self::Shut(_) => StoreError::Transient { doing, source: Box::new(self) },
            Self::Statement(err) if lies_in_the_rows(&err) => StoreError::Permanent { doing, source: Box::new(err) },
            Self::Statement(err) => StoreError::Transient { doing, source: Box::new(err) },
        }
    }
}

fn lies_in_the_rows(err: &Error) -> bool {
    match err.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange
        ),
        // Not SQLite's own answer: a value of an unexpected type, a wrong number of parameters.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn locks_and_disks_pass_and_bad_rows_stay() {
        let is_transient = |code| {
            Failure::from(Error::SqliteFailure(ffi::Error::new(code), None)).into_store("writing").is_transient()
        };
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_ERROR,
        ] {
            assert!(is_transient(code), "{code}");
        }
        for code in [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_TOOBIG, ffi::SQLITE_MISMATCH] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
