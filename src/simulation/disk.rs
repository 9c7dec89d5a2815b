//! The journal's file on a disk that fails when the schedule says so.

use std::{cell::Cell, fs, path::PathBuf, rc::Rc};

use crate::journal::{
    JournalError,
    simulated::{Batch, Changes, Disk, File},
};

/// What the disk does to the next commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// There is no room, not even to drop something.
    Full,
    /// There is room to drop something and for nothing else.
    Tight,
    /// It fails for good, and nothing of the commit is on it.
    DiesBefore,
    /// It fails for good, and the whole commit is on it.
    DiesAfter,
}

/// What the schedule and the disk tell each other.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) fault: Cell<Fault>,
    /// Entries that have become durable since it was last asked.
    pub(super) n_committed: Cell<usize>,
}

/// The real file behind it.
pub(super) struct SimulatedDisk {
    file: File,
    wire: Rc<Wire>,
    ballast: PathBuf,
}

impl SimulatedDisk {
    pub(super) fn new(file: File, wire: Rc<Wire>, ballast: PathBuf) -> Self {
        let disk = Self { file, wire, ballast };
        disk.pretend_ballast();
        disk
    }

    /// An empty file in the ballast's place: taking 16 MiB of a memory disk aboard would be most of a run's time.
    fn pretend_ballast(&self) {
        fs::write(&self.ballast, []).expect("the folder takes an empty file");
    }

    fn refusal(&self, code: i32) -> JournalError {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        JournalError::Sqlite { doing: "simulating", path: self.ballast.clone(), source }
    }

    fn committed(&mut self, batch: Batch<'_>) -> Result<(), JournalError> {
        let n_entries = batch.entries.len();
        Disk::commit(&mut self.file, batch)?;
        self.wire.n_committed.set(self.wire.n_committed.get() + n_entries);
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn commit(&mut self, batch: Batch<'_>) -> Result<(), JournalError> {
        match self.wire.fault.get() {
            Fault::None => self.committed(batch),
            Fault::Full | Fault::Tight => Err(self.refusal(rusqlite::ffi::SQLITE_FULL)),
            Fault::DiesBefore => Err(self.refusal(rusqlite::ffi::SQLITE_IOERR_FSYNC)),
            Fault::DiesAfter => {
                self.committed(batch)?;
                Err(self.refusal(rusqlite::ffi::SQLITE_IOERR_FSYNC))
            }
        }
    }

    fn make_room(&mut self, sinks: &Changes, delivered: u64) -> Result<(), JournalError> {
        self.pretend_ballast();
        match self.wire.fault.get() {
            Fault::Full => Err(self.refusal(rusqlite::ffi::SQLITE_FULL)),
            _ => Disk::make_room(&mut self.file, sinks, delivered),
        }
    }

    fn file(&self) -> &File {
        &self.file
    }
}
