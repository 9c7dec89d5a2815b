//! The rule file: where it is, what stands in it, and which rules and receivers that makes.
//!
//! The rules themselves do no I/O (I6); this is the reading around them, for the start and for every reload alike.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::rules::{FileError, ReceiverConfig, Record, RuleSet, Way, parse_file};

/// The file that is read when it is there and no other is named.
const DEFAULT_PATH: &str = "gopherwatch.toml";
/// Thousands of rules fit; a device or a mistaken path does not fill the memory.
const MAX_BYTES: u64 = 4 << 20;
/// A longer file holds something else than a key.
const MAX_SECRET_BYTES: u64 = 4 << 10;

/// Where the rules come from.
#[derive(Clone, Debug)]
pub struct RuleFile {
    path: PathBuf,
    /// Whether the operator named it: then it has to be there.
    named: bool,
    record: Option<Record>,
}

/// What a rule file comes to, with what stands in the files that it names.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rules.
    pub rules: RuleSet,
    /// Who can be told of their alerts.
    pub receivers: Vec<Receiver>,
}

/// A receiver, ready to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// What the file says of it.
    pub config: ReceiverConfig,
    /// The key that signs what it is told.
    pub secret: Option<Secret>,
}

/// A key. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A key of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
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
        Ok(match text.map(parse).transpose()? {
            None => RuleSet::built_in(self.record),
            Some(content) => RuleSet::of_file(content, self.path.display().to_string(), self.record),
        })
    }

    /// The same, and what the files hold that the text names.
    pub fn load(&self, text: Option<&str>) -> Result<Loaded, RuleFileError> {
        let rules = self.rules(text)?;
        let receiver = |config: &ReceiverConfig| {
            let Way::Webhook(webhook) = &config.way;
            let secret = webhook.secret_file.as_ref().map(|(path, location)| {
                // As other programs take paths in their files: from where the file is.
                let path = self.path.parent().unwrap_or(Path::new("")).join(path);
                read_secret(&path).map_err(|why| {
                    let message = format!("secret_file: {}: {why}", path.display());
                    let source = FileError { location: *location, message };
                    RuleFileError::Invalid { path: self.path.clone(), source }
                })
            });
            Ok(Receiver { config: config.clone(), secret: secret.transpose()? })
        };
        let receivers = rules.receivers.iter().map(receiver).collect::<Result<_, RuleFileError>>()?;
        Ok(Loaded { rules, receivers })
    }
}

/// The key in a file, without the line break that editors leave at its end; or what is wrong with it.
fn read_secret(path: &Path) -> Result<Secret, String> {
    // Of a pipe nobody knows when it has said all it has.
    if fs::metadata(path).map_err(|err| err.to_string())?.is_dir() {
        return Err("it is a directory: name a file".to_owned());
    }
    if !fs::metadata(path).is_ok_and(|found| found.is_file()) {
        return Err("it is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|err| err.to_string())?;
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(|err| err.to_string())?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!("it is longer than {MAX_SECRET_BYTES} bytes"));
    }
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err("it is empty: write the key into it, or leave secret_file out".to_owned());
    }
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_SECRET: &str = "[[receivers]]\nname = \"ops\"\ntype = \"webhook\"\nurl = \"https://example.com/a/b?token=t\"\n\
                               secret_file = \"ops.key\"\n";

    #[test]
    fn a_secret_is_read_beside_the_rule_file_and_shows_itself_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ops.key"), "hunter2\r\n").unwrap();
        let file = RuleFile::new(Some(dir.path().join("rules.toml")), None);
        let loaded = file.load(Some(WITH_SECRET)).unwrap();
        assert_eq!(loaded.rules.rules.len(), 3, "the built-in rules hold");
        assert_eq!(loaded.rules.source, RuleSet::BUILT_IN);
        let receiver = &loaded.receivers[0];
        assert_eq!(receiver.secret, Some(Secret::new("hunter2")));
        let shown = format!("{receiver:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("token"), "{shown}");
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = RuleFile::new(Some(dir.path().join("rules.toml")), None);
        let refusal = || match file.load(Some(WITH_SECRET)) {
            Err(RuleFileError::Invalid { source, .. }) => source.to_string(),
            other => panic!("{other:?}"),
        };
        let told = refusal();
        assert!(told.starts_with("line 5, column 15: secret_file: ") && told.contains("No such file"), "{told}");
        let path = dir.path().join("ops.key");
        fs::write(&path, "\n").unwrap();
        assert!(refusal().contains("it is empty"));
        fs::write(&path, vec![b'k'; 5_000]).unwrap();
        assert!(refusal().contains("longer than 4096 bytes"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal().contains("it is a directory"));
    }
}
