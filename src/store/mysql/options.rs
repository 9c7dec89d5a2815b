//! Where the MySQL server is and how we speak to it: from `DATABASE_URL`, or from `DB_HOST` and its kin.
//!
//! The password is in here and comes out nowhere but at the connection: not in `Debug`, not in `Display`, not in errors.

use std::{fmt, time::Duration};

use mysql::{Opts, OptsBuilder, SslOpts, UrlError};

/// Reaching the host, without which nothing can be done.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// Longer than the 3 s that the server waits for a lock (see `SESSION`), so that a lock ends as the server's answer and
/// not as a time-out that costs the connection.
const IO_WAIT_MAX: Duration = Duration::from_secs(5);
/// What we sent stays unacknowledged this long: the host is gone.
const TCP_USER_WAIT_MAX_MS: u32 = 10_000;
const TCP_KEEPALIVE_MS: u32 = 10_000;

/// The session that every statement of ours relies on, in one statement.
///
/// `wait_timeout` outlives r2d2's own idle time-out of 10 minutes: a server with a short one would close connections
/// that the pool still offers.
const SESSION: &str = "sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
                       ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
                       lock_wait_timeout = 3, innodb_lock_wait_timeout = 3, wait_timeout = 28800";
/// A migration keeps every row, also those with the zero date, which the original program's sessions could write.
const KEEP_ZERO_DATES: &str = ", sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,\
                               NO_ENGINE_SUBSTITUTION'";
/// A page of the history that takes longer is ended by the server. MariaDB reads the first comment, MySQL the second.
const READ_LIMIT: &str = "/*M!100101 , max_statement_time = 2 */ /*!80000 , max_execution_time = 2000 */";

/// A setting that does not say where the database is.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The URL is none, or not one of MySQL's.
    #[error("DATABASE_URL is not of the form mysql://user:password@host:3306/database")]
    Url(#[source] UrlError),
    /// `require_ssl` is neither true nor false.
    #[error("require_ssl in DATABASE_URL must be true or false, not {0:?}")]
    RequireSsl(String),
    /// A part is missing.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
}

/// Where the server is, who we are there and which database is ours.
#[derive(Clone)]
pub struct MySqlOptions {
    opts: Opts,
    database: String,
    tries_arrays: bool,
}

/// What a connection is for, which decides its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Writing alerts.
    Write,
    /// Reading the history: a statement ends after 2 s.
    Read,
    /// Changing the schema: a statement may take as long as it takes.
    Migrate,
}

impl MySqlOptions {
    /// From `mysql://user:password@host:3306/database`, each part percent-encoded. `?require_ssl=true` or `false` decides
    /// on TLS, which is otherwise used unless the host is this one; `root_cert_path`, `danger_skip_domain_validation`,
    /// `danger_accept_invalid_certs` and the other parameters of the `mysql` crate hold too.
    pub fn from_url(url: &str) -> Result<Self, OptionsError> {
        let (url, require_ssl) = take_require_ssl(url.trim())?;
        let opts = Opts::from_url(&url).map_err(OptionsError::Url)?;
        Self::new(opts, require_ssl, "the database's name in DATABASE_URL")
    }

    /// From the values of `DB_HOST`, `DB_PORT`, `DB_USER`, `DB_PASSWORD` and `DB_NAME`, unencoded.
    pub fn from_parts(host: &str, port: u16, user: &str, password: &str, name: &str) -> Result<Self, OptionsError> {
        if host.is_empty() {
            return Err(OptionsError::Missing("DB_HOST"));
        }
        // The crate wants IPv6 addresses in brackets; people write them without.
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let opts = OptsBuilder::new()
            .ip_or_hostname(Some(host))
            .tcp_port(port)
            .user((!user.is_empty()).then_some(user))
            .pass((!password.is_empty()).then_some(password))
            .db_name((!name.is_empty()).then_some(name));
        Self::new(opts.into(), None, "DB_NAME")
    }

    fn new(opts: Opts, require_ssl: Option<bool>, name_setting: &'static str) -> Result<Self, OptionsError> {
        let database = opts.get_db_name().filter(|name| !name.is_empty()).map(str::to_owned);
        let database = database.ok_or(OptionsError::Missing(name_setting))?;
        let given = opts.get_ssl_opts().cloned();
        let local = opts.addr_is_loopback() || opts.get_socket().is_some();
        let ssl = match require_ssl {
            Some(true) => Some(given.unwrap_or_default()),
            Some(false) => None,
            None if local => given,
            None => Some(given.unwrap_or_else(SslOpts::default)),
        };
        // A socket only when the URL names one: a 127.0.0.1 that turns into a socket behind our back is another account
        // to the server.
        let prefer_socket = opts.get_socket().is_some();
        let opts = OptsBuilder::from_opts(opts).ssl_opts(ssl).prefer_socket(prefer_socket).into();
        Ok(Self { opts, database, tries_arrays: true })
    }

    /// The same, written to as MySQL is, and whatever else knows no arrays of rows.
    #[must_use]
    pub fn without_arrays(self) -> Self {
        Self { tries_arrays: false, ..self }
    }

    /// The most bytes that an array of rows may have, if the server takes them at all: the URL can set smaller packets than
    /// the server's, and the driver splits what does not fit one.
    pub(super) fn most_array_bytes(&self) -> usize {
        let packet = self.opts.get_max_allowed_packet().unwrap_or(usize::MAX);
        if self.tries_arrays { packet } else { 0 }
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The options of a connection for `purpose`.
    pub(super) fn connection(&self, purpose: Purpose) -> OptsBuilder {
        let read_wait_max = (purpose != Purpose::Migrate).then_some(IO_WAIT_MAX);
        let besides = match purpose {
            Purpose::Write => "",
            Purpose::Read => READ_LIMIT,
            Purpose::Migrate => KEEP_ZERO_DATES,
        };
        OptsBuilder::from_opts(self.opts.clone())
            .tcp_connect_timeout(Some(CONNECT_WAIT_MAX))
            .read_timeout(read_wait_max)
            .write_timeout(Some(IO_WAIT_MAX))
            .tcp_user_timeout_ms(Some(TCP_USER_WAIT_MAX_MS))
            .tcp_keepalive_time_ms(Some(TCP_KEEPALIVE_MS))
            .tcp_nodelay(true)
            // More than the sizes of batch there are (see `upsert::padded`), so that none is prepared twice.
            .stmt_cache_size(Some(64_usize))
            .init(vec![format!("SET SESSION {SESSION} {besides}")])
    }
}

/// The URL without `require_ssl`, which the crate does not know, and its value.
fn take_require_ssl(url: &str) -> Result<(String, Option<bool>), OptionsError> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut require_ssl = None;
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("require_ssl", value)) => {
                let value = value.parse().map_err(|_| OptionsError::RequireSsl(value.to_owned()))?;
                require_ssl = Some(value);
            }
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((url, require_ssl))
}

/// `mysql at host:port/database`.
impl fmt::Display for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mysql at {}:{}/{}", self.opts.get_ip_or_hostname(), self.opts.get_tcp_port(), self.database)
    }
}

impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions")
            .field("server", &format_args!("{self}"))
            .field("user", &self.opts.get_user())
            .field("tls", &self.opts.get_ssl_opts().is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> bool {
        MySqlOptions::from_url(url).expect(url).opts.get_ssl_opts().is_some()
    }

    #[test]
    fn tls_is_used_when_asked_for_or_when_the_host_is_not_this_one() {
        assert!(!tls("mysql://u@localhost/db"));
        assert!(!tls("mysql://u@127.0.0.1/db"));
        assert!(tls("mysql://u@db.example.org/db"));
        assert!(tls("mysql://u@127.0.0.1/db?require_ssl=true"));
        assert!(tls("mysql://u@127.0.0.1/db?danger_skip_domain_validation=true"));
        assert!(!tls("mysql://u@db.example.org/db?tcp_keepalive_time_ms=5000&require_ssl=false"));
    }

    #[test]
    fn passwords_are_decoded_from_a_url_taken_as_they_are_from_parts_and_never_shown() {
        let from_url =
            MySqlOptions::from_url("mysql://gw:p%40ss%2Fw%3F%23@localhost:3307/alerts").expect("a whole URL");
        let from_parts = MySqlOptions::from_parts("localhost", 3307, "gw", "p@ss/w?#", "alerts").expect("all parts");
        for options in [from_url, from_parts] {
            assert_eq!(options.opts.get_pass(), Some("p@ss/w?#"));
            assert_eq!(options.to_string(), "mysql at localhost:3307/alerts");
            assert!(!format!("{options:?}").contains("ss"), "{options:?}");
        }
        let v6 = MySqlOptions::from_parts("::1", 3306, "", "", "alerts").expect("all parts");
        assert!(v6.opts.get_ssl_opts().is_none());
    }

    #[test]
    fn every_wait_for_the_server_has_an_end() {
        let options = MySqlOptions::from_url("mysql://u@localhost/db").expect("a whole URL");
        for purpose in [Purpose::Write, Purpose::Read] {
            let opts = Opts::from(options.connection(purpose));
            assert_eq!(opts.get_tcp_connect_timeout(), Some(Duration::from_secs(3)));
            assert_eq!(opts.get_read_timeout(), Some(&Duration::from_secs(5)));
            assert_eq!(opts.get_write_timeout(), Some(&Duration::from_secs(5)));
            assert_eq!(opts.get_tcp_user_timeout_ms(), Some(10_000));
        }
        let migrating = Opts::from(options.connection(Purpose::Migrate));
        assert_eq!(migrating.get_read_timeout(), None, "a large table takes minutes");
    }

    #[test]
    fn a_url_that_says_too_little_is_refused_without_repeating_it() {
        for url in [
            "",
            "postgres://u:secret@h/db",
            "mysql://u:secret@localhost",
            "mysql://u:secret@localhost/",
            "mysql://u:se cret@local host/db",
            "mysql://u:secret@localhost/db?sslmode=x",
            "mysql://u:secret@localhost/db?require_ssl=maybe",
        ] {
            let err = MySqlOptions::from_url(url).expect_err(url);
            assert!(!format!("{err} {err:?}").contains("cret"), "{err:?}");
        }
    }
}
