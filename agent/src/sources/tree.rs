//! For tests: a `/proc` and a cgroup file system in a directory.

use std::fs;
use std::path::PathBuf;

/// The directory; `proc` and `cgroup` lie in it.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().expect("a directory"));
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    /// With a unified hierarchy mounted at `cgroup`.
    pub(crate) fn with_cgroups(files: &[(&str, &str)]) -> Self {
        let tree = Self::new(files);
        let mount_point = tree.path("cgroup").display().to_string();
        let mountinfo = format!(
            "22 1 0:20 / /proc rw - proc proc rw\n30 23 0:26 / /x\\040y rw - cgroup cgroup rw,cpu\n\
             31 23 0:27 / {mount_point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        );
        tree.write("proc/self/mountinfo", &mountinfo);
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file")).expect("created");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file")).expect("created");
        std::os::unix::fs::symlink(target, path).expect("linked");
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).expect("removed");
    }
}
