//! What the server knows an agent by.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tonic::metadata::{Ascii, MetadataValue};

/// A token in a file of its own. It is read for each stream, so that another one may be put there at any time.
#[derive(Debug, Clone)]
pub struct Token {
    path: PathBuf,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("reading the token in {}", .path.display())]
    File {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// Its content.
    #[error("{} holds no token: it should be one line of printable ASCII", .path.display())]
    Content {
        /// Where it is.
        path: PathBuf,
    },
}

impl Token {
    /// The token in this file, which must hold one now.
    ///
    /// # Errors
    /// It does not.
    pub fn in_file(path: &Path) -> Result<Self, TokenError> {
        let token = Self { path: path.to_owned() };
        token.header().map(|_| token)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `authorization`.
    pub(crate) fn header(&self) -> Result<MetadataValue<Ascii>, TokenError> {
        let path = || self.path.clone();
        let text = fs::read_to_string(&self.path).map_err(|source| TokenError::File { path: path(), source })?;
        let token = text.trim();
        let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let header = is_token.then(|| format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok()).flatten();
        let mut header = header.ok_or_else(|| TokenError::Content { path: path() })?;
        // Nobody is to read it in a trace of the headers.
        header.set_sensitive(true);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_anew_and_a_line_break_is_none_of_the_token() {
        let folder = std::env::temp_dir().join(format!("gopherwatch-token-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("token");
        assert!(Token::in_file(&path).expect_err("nothing there").to_string().contains("reading the token"));
        for bad in ["", "\n", "two words", "zwei\nzeilen", "schl\u{fc}ssel"] {
            fs::write(&path, bad).expect("written");
            assert!(Token::in_file(&path).expect_err(bad).to_string().contains("holds no token"), "{bad}");
        }
        fs::write(&path, "s3cret\n").expect("written");
        let token = Token::in_file(&path).expect("a token");
        assert_eq!(token.header().expect("read").as_bytes(), b"Bearer s3cret");
        assert!(!format!("{:?}", token.header()).contains("s3cret"));
        fs::write(&path, "another").expect("written");
        assert_eq!(token.header().expect("read").as_bytes(), b"Bearer another");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
