//! Whether rows may travel as an array: the statement for one row, and beside it the values of all.
//!
//! MariaDB takes them in one command, as one statement, which it writes whole or not at all. It so has 21 placeholders to
//! look at in place of 21,000, a fifth of what writing costs it. MySQL does not know them, nor do some that stand before a
//! database; to these the driver would send row by row, each a statement of its own, and that is not what was promised.

use mysql::{Conn, Error, Value, prelude::Queryable};

/// The command cannot be used with this statement.
const UNSUPPORTED: u16 = 1295;

/// The most bytes that an array may have on this connection: the driver splits what does not fit a packet. 0: it takes none.
pub(super) fn most_bytes(conn: &mut Conn) -> mysql::Result<usize> {
    // A SELECT cannot have an array. Who knows arrays refuses it, and who does not is sent two statements.
    match conn.exec_batch("SELECT ?", [(0,), (0,)]) {
        Err(Error::MySqlError(err)) if err.code == UNSUPPORTED => {}
        Ok(()) | Err(Error::MySqlError(_)) => return Ok(0),
        Err(err) => return Err(err),
    }
    let packet: Option<Result<usize, _>> = conn.query_first_opt("SELECT @@max_allowed_packet")?;
    Ok(packet.transpose()?.unwrap_or(0))
}

/// What these rows take in a packet, at most.
pub(super) fn n_bytes(rows: &[Vec<Value>]) -> usize {
    // Each value has a mark of its own beside what the driver counts; the head is that of the command, and a type a column.
    let values = rows.iter().flatten().map(|value| value.bin_len() as usize + 1);
    values.sum::<usize>() + 128
}
