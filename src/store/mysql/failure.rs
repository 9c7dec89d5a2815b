//! What MySQL's errors mean for us: whether they lie in the rows, and whether the connection was lost.

use mysql::{DriverError, Error};

use crate::store::failure::{self, DatabaseError};

/// Why a call failed.
pub(super) type Failure = failure::Failure<Error>;

impl Failure {
    /// Whether the connection was lost, and not by running out of time: a new one can answer at once.
    pub(super) fn is_lost_connection(&self) -> bool {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        match self {
            Self::Statement(Error::IoError(err)) => !matches!(err.kind(), TimedOut | WouldBlock),
            // 1927 and 4031: the server closed an idle connection and said so.
            Self::Statement(Error::MySqlError(err)) => matches!(err.code, 1053 | 1927 | 4031),
            _ => false,
        }
    }
}

impl DatabaseError for Error {
    fn lies_in_the_rows(&self) -> bool {
        match self {
            Error::MySqlError(err) => is_about_data(err.code, &err.state),
            Error::DriverError(err) => matches!(err, DriverError::PacketTooLarge | DriverError::Params(_)),
            // The batch does not fit the server's packet: half of it may. The crate does not export the error's type.
            Error::CodecError(err) => err.to_string().contains("max_allowed_packet"),
            Error::FromValueError(_) | Error::FromRowError(_) => true,
            Error::IoError(_) | Error::UrlError(_) | Error::TlsError(_) => false,
        }
    }
}

/// By the SQL state's class, where MySQL uses it: 22 is data, 23 a constraint. HY000 says nothing, so its codes are
/// listed.
fn is_about_data(code: u16, state: &str) -> bool {
    const ABOUT_DATA: [u16; 17] = [
        1048, // column cannot be null
        1062, // duplicate key
        1118, // row size too large
        1153, // packet too large
        1264, // out of range
        1265, // data truncated
        1292, // incorrect date or number
        1300, // invalid character string
        1364, // no default
        1366, // incorrect value
        1367, // illegal number
        1390, // too many placeholders
        1406, // data too long
        1411, // incorrect value for a function
        1644, // a trigger refuses the row
        1690, // out of range in an expression
        3819, // a CHECK refuses the row
    ];
    ABOUT_DATA.contains(&code) || state.starts_with("22") || state.starts_with("23")
}

#[cfg(test)]
mod tests {
    use mysql::error::MySqlError;

    use super::*;

    fn is_transient(code: u16, state: &str) -> bool {
        let err = MySqlError { code, state: state.to_owned(), message: String::new() };
        Failure::from(Error::MySqlError(err)).into_store("writing").is_transient()
    }

    #[test]
    fn what_waiting_or_an_operator_can_mend_is_transient() {
        // Lock waits and deadlocks, too many connections, shutdown, read-only, lost, killed, time limits, disk full,
        // access refused, no such database, table or column.
        let codes = [
            1205, 1213, 1040, 1203, 1226, 1047, 1053, 1290, 1792, 1836, 2006, 2013, 1317, 1927, 1969, 3024, 1021, 1114,
            1030, 1045, 1044, 1142, 1049, 1146, 1054, 1176,
        ];
        for code in codes {
            assert!(is_transient(code, "HY000"), "{code}");
        }
        assert!(is_transient(1213, "40001"));
        assert!(is_transient(1054, "42S22"));
    }

    #[test]
    fn what_lies_in_the_row_is_permanent() {
        for code in [1406, 1366, 1264, 1292, 1048, 1153] {
            assert!(!is_transient(code, "HY000"), "{code}");
        }
        assert!(!is_transient(9999, "22001"));
        assert!(!is_transient(4025, "23000"));
    }
}
