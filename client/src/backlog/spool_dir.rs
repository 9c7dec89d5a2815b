//! The spool's directory, held by one process at a time: two would deliver each report twice.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Somebody else has the spool.
#[derive(Debug, thiserror::Error)]
#[error(
    "the spool directory {} is in use by another process ({holder}): stop that one, or give this one a directory of its own",
    dir.display()
)]
pub struct Taken {
    /// The directory.
    pub dir: PathBuf,
    /// What that process has written of itself.
    pub holder: String,
}

/// Why a directory could not be had.
#[derive(Debug)]
pub(super) enum DirError {
    Taken(Taken),
    Io(io::Error),
}

/// A directory that nobody else has, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct SpoolDir {
    dir: PathBuf,
    /// Open as long as the directory is ours.
    _lock: File,
}

impl SpoolDir {
    /// Makes the directory if it is not there, and takes it.
    pub(super) fn take(dir: &Path) -> Result<Self, DirError> {
        fs::create_dir_all(dir).map_err(DirError::Io)?;
        let path = dir.join("lock");
        // Not cut short when it is opened: what stands in it is its holder's.
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = options.map_err(DirError::Io)?;
        match lock.try_lock() {
            Ok(()) => {
                // Only for whoever finds it taken; on a full disk that one is told less.
                let _ = lock.set_len(0).and_then(|()| write!(lock, "process {}", process::id()));
                Ok(Self { dir: dir.to_owned(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => {
                let said = fs::read_to_string(&path).unwrap_or_default();
                let holder = if said.is_empty() { "which has not said who it is".to_owned() } else { said };
                Err(DirError::Taken(Taken { dir: dir.to_owned(), holder }))
            }
            Err(TryLockError::Error(err)) => Err(DirError::Io(err)),
        }
    }

    /// Where the reports are.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("spool.db")
    }

    /// Removes the file, and the log that belongs to it.
    pub(super) fn remove_file(&self) -> io::Result<()> {
        fs::remove_file(self.file())?;
        // A log without its file is nothing, and SQLite cuts it when a new one is begun.
        let _ = fs::remove_file(self.dir.join("spool.db-wal"));
        Ok(())
    }

    /// Puts the file, and the log that belongs to it, out of the way. Those put aside before are overwritten, so that
    /// a failing disk is not also filled. Returns the new name.
    pub(super) fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = |end: &str| self.dir.join(format!("spool.db.damaged{end}"));
        for end in ["-wal", "-shm"] {
            let from = self.dir.join(format!("spool.db{end}"));
            if from.exists() {
                fs::rename(from, aside(end))?;
            }
        }
        fs::rename(self.file(), aside(""))?;
        Ok(aside(""))
    }
}
