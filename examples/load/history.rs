//! What the server's alert history holds, read past the server.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

/// Without a new row for so long, no more are to come.
const QUIET: Duration = Duration::from_secs(10);
/// Rows too many would be there by then.
const SETTLE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many rows `cpu_percent` has raised, once these are `n_expected`, or once there are no new ones.
pub(crate) fn rows(path: &Path, n_expected: u64) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = count(path).unwrap_or(0);
        if now > last {
            (last, since) = (now, Instant::now());
        }
        let is_over = if now >= n_expected { since.elapsed() >= SETTLE } else { since.elapsed() >= QUIET };
        if is_over {
            return now;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// By the metric: other rows may come of silence, once streams have ended.
fn count(path: &Path) -> rusqlite::Result<u64> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.query_row("SELECT count(*) FROM alerts WHERE metric = 'cpu_percent'", [], |row| row.get(0))
}
