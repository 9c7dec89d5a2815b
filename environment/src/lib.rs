//! What both programs make of `.env` and the environment: one file may serve them both, so each knows the other's names.
//!
//! What a variable means is its program's business; each has a test that its own names here are those of its command line.

use std::path::Path;
use std::{env, fs, io};

/// The file of environment variables, in the working directory.
const ENV_FILE: &str = ".env";

/// The variables of the server's flags.
pub const SERVER: [&str; 22] = [
    "GOPHERWATCH_GRPC_ADDR",
    "GOPHERWATCH_HTTP_ADDR",
    "GOPHERWATCH_CONFIG",
    "GOPHERWATCH_DATA_DIR",
    "GOPHERWATCH_WORKERS",
    "GOPHERWATCH_QUEUE_REPORTS",
    "GOPHERWATCH_RECORD",
    "GOPHERWATCH_RETENTION",
    "GOPHERWATCH_STALE_AFTER",
    "GOPHERWATCH_FORGET_AFTER",
    "GOPHERWATCH_JOURNAL_MAX",
    "GOPHERWATCH_MAX_INSTANCES",
    "GOPHERWATCH_MAX_INSTANCES_PER_STREAM",
    "GOPHERWATCH_SHUTDOWN_TIMEOUT",
    "GOPHERWATCH_DRAIN_STORE",
    "GOPHERWATCH_LOG_FORMAT",
    "GOPHERWATCH_LOG_LEVEL",
    "GOPHERWATCH_TLS_CERT",
    "GOPHERWATCH_TLS_KEY",
    "GOPHERWATCH_TLS_CLIENT_CA",
    "GOPHERWATCH_ALLOWED_HOST",
    "GOPHERWATCH_INSECURE",
];

/// The variables of the agent's flags.
pub const AGENT: [&str; 21] = [
    "GOPHERWATCH_SERVER",
    "GOPHERWATCH_TOKEN_FILE",
    "GOPHERWATCH_CA",
    "GOPHERWATCH_CERT",
    "GOPHERWATCH_KEY",
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
    "GOPHERWATCH_LOG_FORMAT",
    "GOPHERWATCH_LOG_LEVEL",
    "GOPHERWATCH_INSECURE",
];

/// The server's tokens; each may also stand in the file that the variable with `_FILE` behind it names.
pub const TOKENS: [&str; 3] = ["GOPHERWATCH_AGENT_TOKEN", "GOPHERWATCH_READ_TOKEN", "GOPHERWATCH_ADMIN_TOKEN"];

/// What no flag says, and is nobody else's: the database has `DB_*` too, which others may have as well.
const OTHERS: [&str; 1] = ["DATABASE_URL"];

/// Why there is no using `.env`.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It is there, and cannot be read.
    #[error("reading {ENV_FILE}")]
    Read(#[source] io::Error),
    /// A line is none. It is not shown: it may hold a password.
    #[error("{ENV_FILE}{}: write NAME=value, and quote a value that has blanks or #",
        line.map_or_else(String::new, |line| format!(", line {line}")))]
    Malformed {
        /// Which one, from 1, if that is known.
        line: Option<usize>,
    },
    /// It was one thing and then another.
    #[error("{ENV_FILE} changed while it was read")]
    Changed,
}

/// Puts the variables of `.env` into the environment, where there is no such variable yet. A file that is not there is
/// no error. Call it before any thread starts.
///
/// # Errors
/// The file cannot be read, or has a line that is none: then no line has taken effect.
pub fn load_env_file() -> Result<(), EnvFileError> {
    let text = match fs::read(ENV_FILE) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(EnvFileError::Read(err)),
    };
    look(&text)?;
    dotenvy::from_path(Path::new(ENV_FILE)).map_err(|_| EnvFileError::Changed)
}

/// Every line is looked at before any takes effect.
fn look(text: &[u8]) -> Result<(), EnvFileError> {
    match dotenvy::from_read_iter(text).find_map(Result::err) {
        None => Ok(()),
        Some(dotenvy::Error::LineParse(line, _)) => Err(EnvFileError::Malformed { line: line_number(text, &line) }),
        Some(_) => Err(EnvFileError::Malformed { line: None }),
    }
}

fn line_number(text: &[u8], line: &str) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    // Of a value that is none, the value alone is said.
    text.lines().position(|candidate| candidate.trim().ends_with(line.trim())).map(|idx| idx + 1)
}

/// The variables that look like ours and are neither program's, in order: a misspelt one does nothing, and says nothing.
pub fn unknown_names() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(|name| is_unknown(name)).collect();
    unknown.sort();
    unknown
}

fn is_unknown(name: &str) -> bool {
    let is_ours = name.starts_with("GOPHERWATCH_") || name.starts_with("DATABASE_");
    let token = name.strip_suffix("_FILE").unwrap_or(name);
    let is_known = [&SERVER[..], &AGENT, &TOKENS, &OTHERS].iter().any(|names| names.contains(&name));
    is_ours && !is_known && !TOKENS.contains(&token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_either_program_are_known_and_others_names_are_nobodys_business() {
        for name in
            ["GOPHERWATCH_WORKRES", "DATABASE_ULR", "GOPHERWATCH_SERVER_FILE", "GOPHERWATCH_TOKEN", "GOPHERWATCH_"]
        {
            assert!(is_unknown(name), "{name}");
        }
        for name in [
            "GOPHERWATCH_WORKERS",
            "GOPHERWATCH_SERVER",
            "GOPHERWATCH_TOKEN_FILE",
            "GOPHERWATCH_ADMIN_TOKEN",
            "GOPHERWATCH_READ_TOKEN_FILE",
            "DATABASE_URL",
            "DB_HOST",
            "PATH",
        ] {
            assert!(!is_unknown(name), "{name}");
        }
    }

    #[test]
    fn a_malformed_line_is_said_by_its_number_and_not_shown() {
        assert!(look(b"# a comment\n\nA=1\nB='two words'\nexport C=3\n").is_ok());
        for (text, number) in [("A=1\n\nsecret hunter2\n", "line 3"), ("A=two words\n", "line 1"), ("A='x\n", "line 1")]
        {
            let said = look(text.as_bytes()).expect_err(text).to_string();
            assert!(said.contains(number) && !said.contains("hunter2"), "{text:?}: {said}");
        }
    }
}
