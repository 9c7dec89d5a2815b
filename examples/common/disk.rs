//! The disk alone: what no receipt can be quicker than.

use std::{fs::File, io::Write, path::Path, time::Instant};

use crate::times::Times;

const N_WRITES: usize = 1_000;
/// A page of the journal.
const BYTES: [u8; 4096] = [0x5a; 4096];

/// Appends 4 KiB and brings them to the disk, a thousand times.
pub(crate) fn fsync_times(folder: &Path) -> Times {
    let path = folder.join("fsync");
    let mut file = File::create(&path).unwrap();
    let times = (0..N_WRITES).map(|_| {
        let began = Instant::now();
        file.write_all(&BYTES).unwrap();
        file.sync_data().unwrap();
        began.elapsed()
    });
    let times = Times::new(times.collect());
    std::fs::remove_file(path).unwrap();
    times
}
