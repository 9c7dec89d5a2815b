//! The rule file: where it is, what stands in it, and which rules that makes.
//!
//! The rules themselves do no I/O (I6); this is the reading around them, for the start and for every reload alike.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::rules::{FileError, Record, RuleSet, parse_file};

/// The file that is read when it is there and no other is named.
const DEFAULT_PATH: &str = "gopherwatch.toml";
/// Thousands of rules fit; a device or a mistaken path does not fill the memory.
const MAX_BYTES: u64 = 4 << 20;

/// Where the rules come from.
#[derive(Clone, Debug)]
pub struct RuleFile {
    path: PathBuf,
    /// Whether the operator named it: then it has to be there.
    named: bool,
    record: Option<Record>,
}

/// A rule file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleFileError {
    /// It cannot be read.
    #[error("reading the rule file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("the rule file {} is longer than {MAX_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A pipe or the like, which has said all it had.
    #[error("the rule file {} is no regular file, so that it can be read at start only", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// What stands in it is wrong.
    #[error("the rule file {}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        #[source]
        source: FileError,
    },
}

impl RuleFileError {
    /// The line and column of what is wrong, counted from 1, if it is the text.
    pub fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Invalid { source, .. } => Some((source.location.line, source.location.column)),
            Self::Read { .. } | Self::TooLong { .. } | Self::NotRegular { .. } => None,
        }
    }
}

impl RuleFile {
    /// The file at `path`, or the default one. `record`, when given, overrules each rule's own.
    pub fn new(path: Option<PathBuf>, record: Option<Record>) -> Self {
        let named = path.is_some();
        Self { path: path.unwrap_or_else(|| DEFAULT_PATH.into()), named, record }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text; `None`: no file was named, and the default one is not there.
    pub fn read(&self) -> Result<Option<String>, RuleFileError> {
        let read = |source| RuleFileError::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound && !self.named => return Ok(None),
            Err(err) => return Err(read(err)),
        };
        let mut text = String::new();
        let n_bytes = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
        if n_bytes as u64 > MAX_BYTES {
            return Err(RuleFileError::TooLong { path: self.path.clone() });
        }
        Ok(Some(text))
    }

    /// The same in a running server, which must not wait for whoever writes into a pipe.
    pub fn read_again(&self) -> Result<Option<String>, RuleFileError> {
        match fs::metadata(&self.path) {
            Ok(found) if !found.is_file() => Err(RuleFileError::NotRegular { path: self.path.clone() }),
            Ok(_) | Err(_) => self.read(),
        }
    }

    /// The rules that this text makes; `None`, or a text without rules: the built-in ones.
    pub fn rules(&self, text: Option<&str>) -> Result<RuleSet, RuleFileError> {
        let parse = |text| {
            parse_file(text, self.record).map_err(|source| RuleFileError::Invalid { path: self.path.clone(), source })
        };
        let rules = text.map(parse).transpose()?.flatten();
        Ok(rules.map_or_else(
            || RuleSet::built_in(self.record),
            |rules| RuleSet::new(rules, self.path.display().to_string()),
        ))
    }
}
