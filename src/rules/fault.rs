//! What is wrong with a file, and where: line and column, for rule files and for the tests of rules.

use std::{fmt, ops::Range};

use super::suggest::nearest;

/// Where something stands in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Location {
    /// Where the byte at `offset` of `text` stands.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {message}")]
pub struct FileError {
    /// Where it is wrong.
    pub location: Location,
    /// What is wrong, with the field it is wrong in.
    pub message: String,
}

impl FileError {
    /// What is wrong at `span` of `text`.
    pub fn at(text: &str, span: &Range<usize>, message: &str) -> Self {
        Self { location: Location::of(text, span.start), message: message.trim_end().to_owned() }
    }

    /// What the TOML reader says, with the field whose value it speaks of, or the name that an unknown one is near to.
    pub fn of_toml(text: &str, err: &toml::de::Error) -> Self {
        let span = err.span().unwrap_or(0..0);
        let message = err.message();
        if let Some((field, known)) = unknown_field(message) {
            let hint = nearest(field, known).map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
            return Self::at(text, &span, &format!("{message}{hint}"));
        }
        let before = &text[..text.floor_char_boundary(span.start)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        match line.split_once('=') {
            Some((field, _)) => Self::at(text, &span, &format!("{}: {message}", field.trim())),
            None => Self::at(text, &span, message),
        }
    }
}

/// The field, and those that there are, of serde's message about one that it does not know: names in backquotes.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((names.next()?, names.collect()))
}
