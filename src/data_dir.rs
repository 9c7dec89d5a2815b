//! The data directory, held by one server at a time: two on one journal would each write over the other's marks.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

use crate::model::Timestamp;

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made.
    #[error("making the data directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
    /// Another server runs on it.
    #[error("the data directory {} is in use by another server ({holder}): stop that one, or choose another directory with --data-dir", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
        /// What that server has written of itself.
        holder: String,
    },
    /// It cannot be found out whether another server runs on it.
    #[error("locking {}", path.display())]
    Lock {
        /// The file of the lock.
        path: PathBuf,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
}

/// A data directory that nobody else has, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and takes it.
    pub fn take(dir: &Path) -> Result<Self, DataDirError> {
        fs::create_dir_all(dir).map_err(|source| DataDirError::Make { path: dir.to_owned(), source })?;
        let path = dir.join("lock");
        let failed = |source| DataDirError::Lock { path: path.clone(), source };
        // Not cut short when it is opened: what stands in it is its holder's.
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let lock = options.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { lock }),
            Err(TryLockError::WouldBlock) => {
                let said = fs::read_to_string(&path).unwrap_or_default();
                let holder =
                    if said.trim().is_empty() { "it is just starting".to_owned() } else { said.trim().to_owned() };
                Err(DataDirError::Taken { path: dir.to_owned(), holder })
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Writes who has the directory, for whoever finds it taken.
    pub fn sign(&mut self, at: &str) -> io::Result<()> {
        self.lock.set_len(0)?;
        write!(self.lock, "process {}, {at}, since {}", process::id(), Timestamp::now())?;
        self.lock.flush()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_second_server_is_told_who_has_the_directory() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("data");
        let mut first = DataDir::take(&path).expect("it is free");
        first.sign("REST at 127.0.0.1:8080").expect("written");
        let refused = DataDir::take(&path).expect_err("it is taken").to_string();
        let pid = process::id().to_string();
        assert!(refused.contains(&format!("process {pid}, REST at 127.0.0.1:8080, since 20")), "{refused}");
        assert!(refused.contains("--data-dir"), "{refused}");
        drop(first);
        let mut third = DataDir::take(&path).expect("it is free again, whatever stands in the file");
        third.sign("x").expect("written");
        let said = fs::read_to_string(path.join("lock")).expect("readable");
        assert!(said.starts_with(&format!("process {pid}, x, since ")) && !said.contains("8080"), "{said}");
    }
}
