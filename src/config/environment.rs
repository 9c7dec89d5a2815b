//! What only the environment says: the database, secrets, and names that nobody knows.

use std::{env, fs, io, path::Path};

use clap::CommandFactory;

use super::{Args, StoreConfig, UsageError};
use crate::store::MySqlOptions;

/// The file of environment variables, in the working directory.
const ENV_FILE: &str = ".env";
/// Secrets of a later version. Ignoring one would leave a door open that the operator believes shut.
const TOKENS: [&str; 3] = ["GOPHERWATCH_AGENT_TOKEN", "GOPHERWATCH_READ_TOKEN", "GOPHERWATCH_ADMIN_TOKEN"];
/// Variables of the agent: one `.env` may serve both programs.
const AGENT_NAMES: [&str; 15] = [
    "GOPHERWATCH_SERVER",
    "GOPHERWATCH_TOKEN_FILE",
    "GOPHERWATCH_SERVICE",
    "GOPHERWATCH_INSTANCE",
    "GOPHERWATCH_INTERVAL",
    "GOPHERWATCH_PROCESS",
    "GOPHERWATCH_STATSD_ADDR",
    "GOPHERWATCH_STATSD_SOCKET",
    "GOPHERWATCH_SCRAPE",
    "GOPHERWATCH_MAPPING",
    "GOPHERWATCH_SPOOL_DIR",
    "GOPHERWATCH_BUFFER_SIZE",
    "GOPHERWATCH_BUFFER_AGE",
    "GOPHERWATCH_SIMULATE",
    "GOPHERWATCH_SIMULATE_SPEED",
];

/// Puts the variables of `.env` into the environment, where there is no such variable yet. A file that is not there is
/// no error; a line that cannot be read is. Call it before any thread starts.
pub fn load_env_file() -> Result<(), UsageError> {
    let text = match fs::read(ENV_FILE) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(UsageError(format!("reading {ENV_FILE}: {err}"))),
    };
    // Every line is looked at before any takes effect. The line itself is not shown: it may hold a password.
    let mut whole = dotenvy::from_read_iter(text.as_slice());
    if let Some(Err(err)) = whole.find(Result::is_err) {
        let line = match &err {
            dotenvy::Error::LineParse(line, _) => line_number(&text, line),
            _ => None,
        };
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        return Err(UsageError(format!("{ENV_FILE}{place}: write NAME=value, and quote a value that has blanks or #")));
    }
    dotenvy::from_path(Path::new(ENV_FILE)).map_err(|_| UsageError(format!("{ENV_FILE} changed while it was read")))
}

fn line_number(text: &[u8], line: &str) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    text.lines().position(|candidate| candidate.trim() == line.trim()).map(|idx| idx + 1)
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
    UsageError(format!("the database's address in the environment or .env: {}", crate::log::chain(err)))
}

/// Refuses to start with a token that would not be enforced.
pub(super) fn refuse_tokens() -> Result<(), UsageError> {
    for name in TOKENS {
        for name in [name.to_owned(), format!("{name}_FILE")] {
            if env::var_os(&name).is_some() {
                return Err(UsageError(format!("{name} is set, but this version does not check tokens: unset it")));
            }
        }
    }
    Ok(())
}

/// One warning for each variable that looks like ours and is not.
pub(super) fn unknown_names() -> Vec<String> {
    let command = Args::command();
    let known = |name: &str| {
        name == "DATABASE_URL"
            || AGENT_NAMES.contains(&name)
            || command.get_arguments().any(|arg| arg.get_env().is_some_and(|env| env == name))
    };
    let ours = |name: &str| name.starts_with("GOPHERWATCH_") || name.starts_with("DATABASE_");
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| ours(name) && !known(name)).map(|name| format!("unknown environment variable {name}")).collect()
}
