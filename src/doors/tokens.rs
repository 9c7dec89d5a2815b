//! Tokens and what they are good for.
//!
//! A token is known here by its SHA-256 alone: it cannot come into a log line or a dump of the memory from here, and all
//! that is compared has the same length. Every token is compared with, in constant time, so that neither how much of one
//! was guessed nor which one it is like can be told from how long the answer takes.

use std::{ffi::OsString, fmt, path::PathBuf};

use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

use super::{
    Access,
    secret_file::{SecretFileError, read_secret},
};

/// Shorter ones can be guessed; `openssl rand -hex 16` makes one of 32.
const MIN_BYTES: usize = 16;
/// Longer ones leave too little of a request's head.
const MAX_BYTES: usize = 1024;
/// Of one scope: enough for a token of its own for each of many holders, few enough to compare with all of them.
const MAX_TOKENS: usize = 256;

/// What a token is good for. Each scope has tokens of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sending reports, and nothing else.
    Agent,
    /// Reading by REST.
    Read,
    /// Changing by REST, and reading.
    Admin,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Agent, Self::Read, Self::Admin];

    /// As log lines have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// Whether its holder may do this by REST.
    pub const fn allows(self, access: Access) -> bool {
        matches!((self, access), (Self::Admin, _) | (Self::Read, Access::Read))
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Agent => "GOPHERWATCH_AGENT_TOKEN",
            Self::Read => "GOPHERWATCH_READ_TOKEN",
            Self::Admin => "GOPHERWATCH_ADMIN_TOKEN",
        }
    }
}

/// A token cannot be used. It is not shown.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Two variables say which token it is.
    #[error("{0} and {0}_FILE are both set: unset one of them")]
    TwoSources(&'static str),
    /// It is empty: most likely something was to stand there.
    #[error("{0} is empty: unset it, or set a token, such as `openssl rand -hex 16` makes")]
    Empty(String),
    /// It is easily guessed.
    #[error(
        "the token in {0} has fewer than {MIN_BYTES} characters: use a longer one, such as `openssl rand -hex 16` makes"
    )]
    TooShort(String),
    /// It cannot stand in a header, or could be written in two ways.
    #[error("the token in {0} is not printable ASCII without blanks: use one such as `openssl rand -hex 16` makes")]
    NotPrintable(String),
    /// It does not fit into the head of a request.
    #[error("the token in {0} has more than {MAX_BYTES} characters: use a shorter one")]
    TooLong(String),
    /// Comparing with all of them would take long.
    #[error("{0} has more than {MAX_TOKENS} tokens: remove those that nobody has any more")]
    TooMany(String),
    /// A scope would be none.
    #[error(
        "{0} and {1} have a token in common: give each a token of its own, for its holder could do what both allow"
    )]
    Shared(&'static str, &'static str),
    /// The file that it is in.
    #[error("{variable}")]
    File {
        /// The variable that names the file.
        variable: String,
        /// What is wrong with it.
        source: SecretFileError,
    },
}

/// Where the tokens of one scope come from.
#[derive(Clone, Default)]
enum Source {
    #[default]
    Nowhere,
    Variable(OsString),
    File(PathBuf),
}

/// Where the tokens of all scopes come from.
#[derive(Clone, Default)]
pub struct TokenSources([Source; 3]);

impl fmt::Debug for TokenSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSources")
    }
}

impl TokenSources {
    /// Those that `variable` gives: each scope's variable, or the same with `_FILE` behind it.
    ///
    /// # Errors
    /// Both are set.
    pub fn found(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, TokenError> {
        let mut sources = [const { Source::Nowhere }; 3];
        for (source, scope) in sources.iter_mut().zip(Scope::ALL) {
            let name = scope.variable();
            *source = match (variable(name), variable(&format!("{name}_FILE"))) {
                (Some(_), Some(_)) => return Err(TokenError::TwoSources(name)),
                (Some(token), None) => Source::Variable(token),
                (None, Some(path)) => Source::File(path.into()),
                (None, None) => Source::Nowhere,
            };
        }
        Ok(Self(sources))
    }

    /// Reads every token.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn read(&self) -> Result<Keys, TokenError> {
        let mut keys = [const { Vec::new() }; 3];
        for ((keys, source), scope) in keys.iter_mut().zip(&self.0).zip(Scope::ALL) {
            *keys = source.read(scope.variable())?;
        }
        let keys = Keys(keys);
        keys.are_apart()?;
        Ok(keys)
    }

    /// Whether any of them is in a file.
    pub fn has_files(&self) -> bool {
        self.0.iter().any(|source| matches!(source, Source::File(_)))
    }
}

impl Source {
    fn read(&self, variable: &str) -> Result<Vec<Key>, TokenError> {
        match self {
            Self::Nowhere => Ok(Vec::new()),
            Self::Variable(token) => Ok(vec![Key::new(token.as_encoded_bytes(), variable)?]),
            Self::File(path) => {
                let variable = format!("{variable}_FILE");
                if path.as_os_str().is_empty() {
                    return Err(TokenError::Empty(variable));
                }
                let said = path.display().to_string();
                let text = read_secret(path).map_err(|source| TokenError::File { variable, source })?;
                let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
                let keys: Vec<_> =
                    lines.take(MAX_TOKENS + 1).map(|line| Key::new(line, &said)).collect::<Result<_, _>>()?;
                match keys.len() {
                    0 => Err(TokenError::Empty(said)),
                    n if n > MAX_TOKENS => Err(TokenError::TooMany(said)),
                    _ => Ok(keys),
                }
            }
        }
    }
}

/// What a token is known by.
#[derive(Clone, Copy)]
struct Key([u8; 32]);

impl Key {
    /// The key of a token that may be one; `place` is where it stands.
    fn new(token: &[u8], place: &str) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Empty(place.to_owned()));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NotPrintable(place.to_owned()));
        }
        match token.len() {
            n if n < MIN_BYTES => Err(TokenError::TooShort(place.to_owned())),
            n if n > MAX_BYTES => Err(TokenError::TooLong(place.to_owned())),
            _ => Ok(Self::of(token)),
        }
    }

    fn of(token: &[u8]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(key)
    }
}

/// The tokens of all scopes, as the server knows them.
#[derive(Clone, Default)]
pub struct Keys([Vec<Key>; 3]);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Whether agents need a token.
    pub fn guard_agents(&self) -> bool {
        !self.of(Scope::Agent).is_empty()
    }

    /// Whether REST needs one. Who may change something may also read it, so that a token for changes alone leaves
    /// nothing open either.
    pub fn guard_rest(&self) -> bool {
        !self.of(Scope::Read).is_empty() || !self.of(Scope::Admin).is_empty()
    }

    /// Whether it is an agent's.
    pub(super) fn is_agents(&self, token: &[u8]) -> bool {
        self.holds(Scope::Agent, &Key::of(token)).into()
    }

    /// Whose it is.
    pub(super) fn scope_of(&self, token: &[u8]) -> Option<Scope> {
        let key = Key::of(token);
        let held = Scope::ALL.map(|scope| (scope, self.holds(scope, &key)));
        held.into_iter().rev().find_map(|(scope, held)| bool::from(held).then_some(scope))
    }

    fn of(&self, scope: Scope) -> &[Key] {
        &self.0[scope as usize]
    }

    fn holds(&self, scope: Scope, key: &Key) -> Choice {
        self.of(scope).iter().fold(Choice::from(0), |held, other| held | other.0.ct_eq(&key.0))
    }

    fn are_apart(&self) -> Result<(), TokenError> {
        for (idx, scope) in Scope::ALL.into_iter().enumerate() {
            for other in &Scope::ALL[idx + 1..] {
                if self.of(scope).iter().any(|key| self.holds(*other, key).into()) {
                    return Err(TokenError::Shared(scope.variable(), other.variable()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;
    use crate::log::chain;

    fn read(with: &[(&str, &str)]) -> Result<Keys, String> {
        let value = |name: &str| with.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into());
        TokenSources::found(value).and_then(|sources| sources.read()).map_err(|err| chain(&err))
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_token_that_cannot_be_used_is_named_and_not_shown() {
        for (token, words) in [
            ("", "is empty"),
            ("hunter2", "fewer than 16"),
            ("hunter2 hunter2 hunter2", "printable ASCII"),
            ("hunter2hunter2hunt\u{e9}r2", "printable ASCII"),
            (&"hunter2".repeat(1024), "more than 1024"),
        ] {
            let said = read(&[("GOPHERWATCH_READ_TOKEN", token)]).unwrap_err();
            assert!(said.contains(words) && said.contains("GOPHERWATCH_READ_TOKEN"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let both = [("GOPHERWATCH_AGENT_TOKEN", "x"), ("GOPHERWATCH_AGENT_TOKEN_FILE", "x")];
        assert!(read(&both).unwrap_err().contains("both set"));
    }

    #[test]
    fn a_token_of_two_scopes_would_be_both_and_is_refused() {
        let token = "a-token-of-two-scopes";
        let said = read(&[("GOPHERWATCH_AGENT_TOKEN", token), ("GOPHERWATCH_ADMIN_TOKEN", token)]).unwrap_err();
        assert!(said.contains("GOPHERWATCH_AGENT_TOKEN and GOPHERWATCH_ADMIN_TOKEN have a token in common"), "{said}");
        assert!(!said.contains(token), "{said}");
    }

    #[test]
    fn a_file_has_a_token_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let from_file = || read(&[("GOPHERWATCH_AGENT_TOKEN_FILE", path.to_str().unwrap())]);
        write(&path, "the-old-agent-token\r\n\n  the-new-agent-token\n");
        let keys = from_file().unwrap();
        assert!(keys.is_agents(b"the-old-agent-token") && keys.is_agents(b"the-new-agent-token"));
        assert!(!keys.is_agents(b"the-old-agent-token\r") && !keys.is_agents(b""));
        write(&path, "the-new-agent-token\nshort\n");
        let said = from_file().unwrap_err();
        assert!(said.contains("fewer than 16") && said.contains(path.to_str().unwrap()), "{said}");
        write(&path, "\n\n");
        assert!(from_file().unwrap_err().contains("is empty"));
        write(&path, &"x-x-x-x-x-x-x-x-x-x-x\n".repeat(MAX_TOKENS + 1));
        assert!(from_file().unwrap_err().contains("more than 256 tokens"));
        fs::remove_file(&path).unwrap();
        let said = from_file().unwrap_err();
        assert!(said.starts_with("GOPHERWATCH_AGENT_TOKEN_FILE: reading "), "{said}");
        assert!(read(&[("GOPHERWATCH_AGENT_TOKEN_FILE", "")]).unwrap_err().contains("is empty"));
    }

    #[test]
    fn what_is_written_for_debugging_has_no_token() {
        let token = "hunter2-hunter2-hunter2";
        let value = |name: &str| (name == "GOPHERWATCH_ADMIN_TOKEN").then(|| token.into());
        let sources = TokenSources::found(value).unwrap();
        let settings = crate::doors::Settings::read(sources, None, crate::doors::Hosts::default()).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }
}
