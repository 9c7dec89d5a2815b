//! What can go wrong with the journal's file, and whether the same commit can succeed later.

use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

use super::{record::RecordError, space::Short};

/// The journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite said no.
    #[error("{doing} {}", path.display())]
    Sqlite {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite cannot make sense of the file.
    #[error("{doing} {}: the file is damaged; restore it, or move it away to begin anew without it", path.display())]
    Malformed {
        /// What we were doing.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it found.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk is nearly full.
    #[error("writing to the journal {}", path.display())]
    Space {
        /// Which file.
        path: PathBuf,
        /// How full.
        #[source]
        source: Short,
    },
    /// The file is as large as it may become.
    #[error("writing to the journal {}: it has reached --journal-max, and goes on when the store has had what is in it", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is of a layout that this version does not read.
    #[error("{} has layout {found}, this version reads {wanted}: start the version that wrote it, or move the file away", path.display())]
    Layout {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// Ours.
        wanted: i64,
    },
    /// A record cannot be read.
    #[error("reading {what} from {}: the file is damaged; restore it, or move it away to begin anew without it", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which record.
        what: String,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
}

impl JournalError {
    /// What SQLite said as we were `doing` something to the file.
    pub(super) fn sqlite(doing: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Malformed { doing, path, source },
            _ => Self::Sqlite { doing, path, source },
        }
    }

    /// Whether the file itself may not become larger, so that what goes out of it makes room. Nothing in it helps against a
    /// disk that others have filled, or a lock that somebody holds.
    pub(super) fn is_limit_of_file(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(err, _), .. } => {
                err.extended_code == ffi::SQLITE_IOERR_WRITE
            }
            _ => false,
        }
    }

    /// Whether the same commit can succeed later: there is no room, or somebody holds the file. Anything else, a failed
    /// fsync above all, leaves us not knowing what is on the disk: start again and read it.
    pub(super) fn is_transient(&self) -> bool {
        // A write refused by the limit on file sizes, or by a disk that fills while a file grows, is said to be an
        // input/output error of the writing itself. Nothing of its transaction is in the file.
        const WRITES: [i32; 3] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_TRUNCATE];
        match self {
            Self::Space { .. } | Self::Full { .. } => true,
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(err, _), .. } => {
                matches!(err.code, ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                    || WRITES.contains(&err.extended_code)
            }
            _ => false,
        }
    }
}
