//! Room on the disk: commits stop while some is left, and a ballast is thrown when none is.
//!
//! In WAL mode deleting needs room, too: a journal that finds the disk full cannot free itself. So it stops early, and
//! if somebody else takes the rest, the ballast's room is enough to drop what is delivered.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Below so many free bytes nothing more is committed.
const LEAST_FREE: u64 = 64 << 20;
/// Size of the ballast.
const BALLAST: u64 = 16 << 20;

/// The room of one file system.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    ballast: PathBuf,
    /// Free bytes below which nothing is committed; 0 where nobody wants that.
    least_free: u64,
}

/// There is too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} MiB are free on its disk, {} MiB are needed: free some", free >> 20, LEAST_FREE >> 20)]
pub struct Short {
    /// Free bytes.
    free: u64,
}

impl Space {
    /// The file system of the data directory.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ballast: dir.join("ballast"), least_free: LEAST_FREE }
    }

    /// The same, of which so many bytes have to stay free.
    #[cfg(test)]
    pub(super) fn keeping_free(self, least_free: u64) -> Self {
        Self { least_free, ..self }
    }

    /// Whether there is enough to commit.
    pub(super) fn check(&self) -> Result<(), Short> {
        let free = self.free();
        if free < self.least_free { Err(Short { free }) } else { Ok(()) }
    }

    /// Frees what is kept for this.
    pub(super) fn throw_ballast(&self) {
        // Not there: thrown already.
        let _ = fs::remove_file(&self.ballast);
    }

    /// Takes the ballast aboard, if it is not and there is plenty of room for it.
    pub(super) fn take_ballast(&self) -> io::Result<()> {
        if self.ballast.exists() || self.free() < self.least_free + 2 * BALLAST {
            return Ok(());
        }
        let file = File::create(&self.ballast)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BALLAST) {
            Ok(()) => Ok(()),
            Err(err) => {
                // A part of it, or a file system that cannot: better none than one that gives no room.
                drop(file);
                self.throw_ballast();
                Err(err.into())
            }
        }
    }

    /// Bytes that we may still take. Where it cannot be told, enough: the disk will say.
    fn free(&self) -> u64 {
        statvfs(&self.dir).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_ballast_is_real_and_gives_its_room_back() {
        let dir = TempDir::new().expect("a folder");
        let space = Space::new(dir.path());
        space.take_ballast().expect("there is room");
        let size = fs::metadata(dir.path().join("ballast")).expect("it is there");
        assert_eq!(size.len(), BALLAST);
        use std::os::unix::fs::MetadataExt;
        assert!(size.blocks() * 512 >= BALLAST, "a sparse file gives no room");
        space.throw_ballast();
        assert!(!dir.path().join("ballast").exists());
        space.throw_ballast();
    }

    #[test]
    fn too_little_room_says_how_much_there_is() {
        let dir = TempDir::new().expect("a folder");
        let space = Space { least_free: u64::MAX, ..Space::new(dir.path()) };
        let short = space.check().expect_err("nobody has so much").to_string();
        assert!(short.contains("64 MiB are needed"), "{short}");
        assert_eq!(Space { least_free: 0, ..space }.check(), Ok(()));
    }
}
