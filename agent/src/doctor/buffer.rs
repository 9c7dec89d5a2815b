//! Where reports wait: whether the spool's directory is there or can be made, can be written, and is nobody else's.
//!
//! It is tried and not guessed from permissions: those of a directory do not tell of read-only mounts, full disks or sandboxes.
//! What is made for that is removed, and nothing else is touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use super::Finding;

/// More than a file system gives away without having room.
const TRIED_BYTES: usize = 64 << 10;

pub(super) fn look(spool_dir: Option<&Path>) -> Finding {
    let Some(dir) = spool_dir else {
        return Finding::fine("buffer", "in memory: what waits is lost if the agent is killed (--spool-dir keeps it)");
    };
    if let Some(holder) = holder(dir) {
        let says = format!("{} is in use ({holder})", dir.display());
        let advice = "fine if it is the running agent; if not, give this one a --spool-dir of its own";
        return Finding::doubtful("buffer", says, advice);
    }
    let mut made = Made::default();
    match made.dir(dir).and_then(|()| write(dir)) {
        Ok(()) if made.0.is_empty() => Finding::fine("buffer", format!("{} can be written", dir.display())),
        Ok(()) => Finding::fine("buffer", format!("{} can be made, and is at the start", dir.display())),
        Err(err) => Finding::broken("buffer", format!("{}: {err}", dir.display()), advice(&err)),
    }
}

/// Who has it, if somebody does.
fn holder(dir: &Path) -> Option<String> {
    let path = dir.join("lock");
    let lock = File::open(&path).ok()?;
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock)).then(|| fs::read_to_string(&path).unwrap_or_default())
}

/// Directories that were not there, removed again in the end.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn dir(&mut self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.dir(parent)?;
        }
        match fs::create_dir(dir) {
            Ok(()) => self.0.push(dir.to_owned()),
            Err(err) if err.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(err) => return Err(err),
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // Not if somebody has put something there meanwhile.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn write(dir: &Path) -> io::Result<()> {
    for name in ["spool.db", "lock"] {
        match OpenOptions::new().write(true).open(dir.join(name)) {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
            Ok(_) | Err(_) => {}
        }
    }
    let path = dir.join(format!("doctor-{}", process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let written = file.write_all(&[0; TRIED_BYTES]).and_then(|()| file.sync_all());
    fs::remove_file(&path)?;
    written
}

fn advice(err: &io::Error) -> &'static str {
    match err.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there: until then the agent keeps reports in memory, where a kill would lose them"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "a file is in the way: --spool-dir wants a directory, or a place for one"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "it is mounted read-only, or closed to this unit: in a sandbox, name it in ReadWritePaths= or StateDirectory="
        }
        ErrorKind::PermissionDenied => "give it, or the directory to make it in, to the agent's user (chown)",
        _ => "no directory can be made there: give --spool-dir another place, such as /var/lib/gopherwatch-agent",
    }
}
