//! Whether a file has changed, told from looks at what its path leads to.
//!
//! The path is looked at, and not a file held open: so a rename over it, a symlink that leads elsewhere, a write in
//! place and a first appearance are all the same to it. Looks are cheap; no notification of the kernel's covers all of
//! these, or network file systems.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// What one look found: which file, and which version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    /// Looks now; `None`: there is no regular file, or it is out of sight.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            // Set by the kernel at every change: a write that keeps the size and sets the time back is seen, too.
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// What a look means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// As before, or not at rest yet.
    Nothing,
    /// Another version of the file, at rest.
    Changed,
    /// The file was there, and is no longer.
    Gone,
}

/// A watch over one path.
#[derive(Debug)]
pub(super) struct Watch {
    /// What was told last; `None`: the next version at rest is news, whichever it is.
    told: Option<Option<Look>>,
    /// What the last look found, and how many looks in a row.
    last: (Option<Option<Look>>, u32),
    /// How many looks in a row find the same in a file at rest.
    n_at_rest: u32,
}

impl Watch {
    /// The first version at rest is news: the file may have changed since it was read. Where there is no file, there
    /// is no news until one appears.
    pub(super) fn starting(found: Option<Look>, n_at_rest: u32) -> Self {
        Self { told: found.is_none().then_some(None), last: (None, 0), n_at_rest }
    }

    /// Takes a look into account. A file is at rest when several looks in a row agree, so that one half-written is not
    /// taken.
    pub(super) fn see(&mut self, found: Option<Look>) -> Seen {
        let n_same = if self.last.0 == Some(found) { self.last.1.saturating_add(1) } else { 1 };
        self.last = (Some(found), n_same);
        if n_same < self.n_at_rest || self.told == Some(found) {
            return Seen::Nothing;
        }
        self.told = Some(found);
        if found.is_some() { Seen::Changed } else { Seen::Gone }
    }

    /// What was told last came to nothing: tell it again.
    pub(super) fn unsettle(&mut self) {
        if matches!(self.told, Some(Some(_))) {
            self.told = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u64) -> Option<Look> {
        Some(Look { device: 1, inode: 2, size: 3, modified: (0, 0), changed: (0, n as i64) })
    }

    /// What the watch makes of these looks, one letter each: `.` nothing, `C` changed, `G` gone.
    fn check(first: Option<Look>, looks: &[Option<Look>], expected: &str) {
        let mut watch = Watch::starting(first, 2);
        let seen: String = looks
            .iter()
            .map(|look| match watch.see(*look) {
                Seen::Nothing => '.',
                Seen::Changed => 'C',
                Seen::Gone => 'G',
            })
            .collect();
        assert_eq!(seen, expected, "{looks:?}");
    }

    const NONE: Option<Look> = None;

    #[test]
    fn a_version_is_told_once_when_two_looks_agree() {
        check(version(1), &[version(1), version(1), version(1), version(2), version(2), version(2)], ".C..C.");
    }

    #[test]
    fn a_pause_of_whoever_writes_is_no_rest() {
        let mut watch = Watch::starting(version(1), 5);
        let looks = [1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3];
        let seen: Vec<_> = looks.iter().map(|n| watch.see(version(*n)) == Seen::Changed).collect();
        assert_eq!(seen.iter().filter(|seen| **seen).count(), 2);
        assert!(seen[4] && seen[13], "{seen:?}");
    }

    #[test]
    fn a_file_that_is_being_written_is_waited_for() {
        check(version(1), &[version(1), version(1), version(2), version(3), version(4), version(4)], ".C...C");
    }

    #[test]
    fn a_file_that_appears_is_news_and_one_that_was_never_there_is_not() {
        check(NONE, &[NONE, NONE, NONE, version(1), version(1), version(1)], "....C.");
    }

    #[test]
    fn a_file_that_vanishes_is_told_once_and_so_is_its_return() {
        let looks = [version(1), version(1), NONE, NONE, NONE, version(1), version(1), NONE, NONE];
        check(version(1), &looks, ".C.G..C.G");
    }

    #[test]
    fn a_moment_between_two_names_is_not_a_disappearance() {
        check(version(1), &[version(1), version(1), NONE, version(2), version(2)], ".C..C");
    }

    #[test]
    fn what_came_to_nothing_is_told_again() {
        let mut watch = Watch::starting(version(1), 2);
        assert_eq!((watch.see(version(1)), watch.see(version(1))), (Seen::Nothing, Seen::Changed));
        watch.unsettle();
        assert_eq!((watch.see(version(1)), watch.see(version(1))), (Seen::Changed, Seen::Nothing));
        // A file that is gone was told of for good.
        assert_eq!((watch.see(None), watch.see(None)), (Seen::Nothing, Seen::Gone));
        watch.unsettle();
        assert_eq!(watch.see(None), Seen::Nothing);
    }

    #[test]
    fn a_look_tells_every_kind_of_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules");
        assert_eq!(Look::at(&path), None);
        assert_eq!(Look::at(dir.path()), None, "a directory is no file");
        fs::write(&path, "a").unwrap();
        let first = Look::at(&path).unwrap();
        assert_eq!(Look::at(&path), Some(first), "looking changes nothing");
        fs::write(dir.path().join("new"), "b").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let second = Look::at(&path).unwrap();
        assert_ne!(second, first, "a rename over it");
        fs::write(dir.path().join("target"), "c").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("target", &path).unwrap();
        assert_ne!(Look::at(&path), Some(second), "a symlink in its place");
    }
}
