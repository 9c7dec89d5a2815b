//! Connections that are never trusted after a doubt, and the pool of them.
//!
//! r2d2_mysql's own check at check-in is a ping. After a read time-out the late reply of the timed-out statement answers
//! that ping, the connection counts as healthy, and the next user gets the answer to the statement before: a writer so
//! takes another's OK for its own. Here a connection is broken from its first doubtful error on, and nobody asks it.

use std::time::Duration;

use mysql::Conn;
use r2d2::{ManageConnection, NopErrorHandler, Pool, PooledConnection};
use r2d2_mysql::MySqlConnectionManager;

use super::{
    arrays,
    failure::Failure,
    options::{MySqlOptions, Purpose},
};

/// How long a caller waits for a connection.
const GET_WAIT_MAX: Duration = Duration::from_secs(2);

/// Makes connections by r2d2_mysql, and judges them by their own record.
#[derive(Debug)]
pub(super) struct Manager {
    inner: MySqlConnectionManager,
    most_array_bytes: usize,
}

/// A connection and whether it may be used again.
pub(super) struct Connection {
    conn: Conn,
    broken: bool,
    arrays: Arrays,
}

/// What is known of the arrays of rows that a connection takes, by [`arrays::most_bytes`].
#[derive(Clone, Copy)]
enum Arrays {
    /// Nobody has asked yet; of no more bytes than these in any case.
    Unknown(usize),
    /// Of so many bytes.
    UpTo(usize),
}

impl Connection {
    /// Runs `work`. An error that is not the server's own, well-formed answer leaves the stream at an unknown place.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Conn) -> mysql::Result<T>) -> mysql::Result<T> {
        // Set before, not after: a panic in `work` leaves the connection in an unknown state too.
        let was_broken = std::mem::replace(&mut self.broken, true);
        let result = work(&mut self.conn);
        self.broken = was_broken || !matches!(result, Ok(_) | Err(mysql::Error::MySqlError(_)));
        result
    }

    /// The most bytes that an array of rows may have; asked of the server once.
    pub(super) fn most_array_bytes(&mut self) -> mysql::Result<usize> {
        if let Arrays::Unknown(most @ 1..) = self.arrays {
            self.arrays = Arrays::UpTo(self.run(arrays::most_bytes)?.min(most));
        }
        let (Arrays::UpTo(most) | Arrays::Unknown(most)) = self.arrays;
        Ok(most)
    }

    /// Runs a write: any error ends the connection, since after some (1205) half a transaction could stay behind.
    pub(super) fn run_write<T>(&mut self, work: impl FnOnce(&mut Conn) -> mysql::Result<T>) -> mysql::Result<T> {
        let result = self.run(work);
        self.broken |= result.is_err();
        result
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = mysql::Error;

    fn connect(&self) -> Result<Connection, mysql::Error> {
        Ok(Connection { conn: self.inner.connect()?, broken: false, arrays: Arrays::Unknown(self.most_array_bytes) })
    }

    /// Never asked: the pool is built with `test_on_check_out(false)`.
    fn is_valid(&self, connection: &mut Connection) -> Result<(), mysql::Error> {
        connection.run(|conn| conn.ping())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken
    }
}

/// A pool that connects when somebody first asks, so that we start with the database down.
pub(super) fn pool(options: &MySqlOptions, purpose: Purpose, n_connections: u32) -> Pool<Manager> {
    Pool::builder()
        .max_size(n_connections)
        // None in reserve: r2d2 would try for ever, in the background, to reach a database that nobody asks for.
        .min_idle(Some(0))
        .connection_timeout(GET_WAIT_MAX)
        .test_on_check_out(false)
        .error_handler(Box::new(NopErrorHandler))
        .build_unchecked(Manager {
            inner: MySqlConnectionManager::new(options.connection(purpose)),
            most_array_bytes: options.most_array_bytes(),
        })
}

/// A connection, within 2 s.
pub(super) fn get(pool: &Pool<Manager>) -> Result<PooledConnection<Manager>, Failure> {
    pool.get().map_err(Failure::NoConnection)
}
