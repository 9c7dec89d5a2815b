//! What SQLite's errors mean for us: whether they lie in the rows. A lock, a full or failing disk, a damaged file and a
//! missing table can be mended.

use rusqlite::{Error, ErrorCode};

use crate::store::failure::{self, DatabaseError};

/// Why a call failed.
pub(super) type Failure = failure::Failure<Error>;

impl DatabaseError for Error {
    fn lies_in_the_rows(&self) -> bool {
        match self.sqlite_error_code() {
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
