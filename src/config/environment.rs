//! What only the environment says: the database, secrets, and names that nobody knows.

use std::env;

use gopherwatch_environment::unknown_names;

use super::{StoreConfig, UsageError};
use crate::{
    doors::{self, Hosts, TlsFiles, TokenSources},
    log::chain,
    store::MySqlOptions,
};

/// Puts the variables of `.env` into the environment, where there is no such variable yet. Call it before any thread
/// starts.
pub fn load_env_file() -> Result<(), UsageError> {
    gopherwatch_environment::load_env_file().map_err(|err| UsageError(chain(&err)))
}

/// Which database the environment names, if any.
pub(super) fn store() -> Result<StoreConfig, UsageError> {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(url) = given("DATABASE_URL") {
        let options = MySqlOptions::from_url(&url).map_err(|err| database(&err))?;
        return Ok(StoreConfig::MySql(options));
    }
    let Some(host) = given("DB_HOST") else { return Ok(StoreConfig::Sqlite) };
    let port = match given("DB_PORT") {
        None => 3306,
        Some(port) => port
            .parse::<std::num::NonZeroU16>()
            .map(u16::from)
            .map_err(|_| UsageError(format!("DB_PORT `{port}`: use a number from 1 to 65535")))?,
    };
    let user = given("DB_USER").unwrap_or_else(|| "root".to_owned());
    let name = given("DB_NAME").unwrap_or_else(|| "gopherwatch".to_owned());
    let options = MySqlOptions::from_parts(&host, port, &user, &given("DB_PASSWORD").unwrap_or_default(), &name);
    options.map(StoreConfig::MySql).map_err(|err| database(&err))
}

fn database(err: &dyn std::error::Error) -> UsageError {
    UsageError(format!("the database's address in the environment or .env: {}", chain(err)))
}

/// The doors, with the tokens that the environment gives.
pub(super) fn doors(tls: Option<TlsFiles>, hosts: Hosts) -> Result<doors::Settings, UsageError> {
    let read = || doors::Settings::read(TokenSources::found(|name| env::var_os(name))?, tls, hosts);
    read().map_err(|err| UsageError(chain(&err)))
}

/// One warning for each variable that looks like ours and is not.
pub(super) fn warnings() -> Vec<String> {
    unknown_names().into_iter().map(|name| format!("unknown environment variable {name}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use crate::config::Args;

    /// The agent knows the server's names by this list alone.
    #[test]
    fn the_servers_names_are_those_of_its_flags() {
        let command = Args::command();
        let flags: BTreeSet<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        assert_eq!(BTreeSet::from(gopherwatch_environment::SERVER), flags);
    }
}
