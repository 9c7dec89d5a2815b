//! Files that hold secrets: read only if nobody else could.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Larger than any key or list of tokens.
const MAX_BYTES: u64 = 1 << 20;

/// A file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot.
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{} is no file", path.display())]
    NoFile {
        /// What it is that is none.
        path: PathBuf,
    },
    /// Others could have read it, so that its secret may be none.
    #[error("others can read {} (its mode is {mode:04o}): run `chmod 600 {}`, and use another secret if they may have", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be what it should be.
    #[error("{} has more than {MAX_BYTES} bytes: it is not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// What stands in the file, if nobody but its owner could read it.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, SecretFileError> {
    read(path, |found| is_private(found.mode(), found.uid() == 0, rustix::process::geteuid().is_root()))
}

/// What stands in a file that anybody may read.
pub(super) fn read_public(path: &Path) -> Result<Vec<u8>, SecretFileError> {
    read(path, |_| true)
}

fn read(path: &Path, may_be: impl Fn(&std::fs::Metadata) -> bool) -> Result<Vec<u8>, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    // Before it is opened: opening a pipe would wait for whoever writes into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretFileError::NoFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(failed)?;
    // Of the file that was opened, whatever the path leads to by now.
    let found = file.metadata().map_err(failed)?;
    if !may_be(&found) {
        return Err(SecretFileError::OpenToOthers { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    let mut content = Vec::new();
    file.by_ref().take(MAX_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(SecretFileError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// Whether only its owner can read a file of this mode. One that root gives to a program of another user is read by that
/// one through its group: so systemd's credentials (whose access list shows as the group's) and Kubernetes' secrets.
fn is_private(mode: u32, is_roots: bool, am_root: bool) -> bool {
    let of_group = if is_roots && !am_root { 0o030 } else { 0o070 };
    mode & (of_group | 0o007) == 0
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_secret_is_private_to_its_owner_or_handed_over_by_root() {
        for (mode, is_roots, am_root, private) in [
            (0o600, false, false, true),
            (0o400, true, true, true),
            (0o640, false, false, false),
            (0o640, true, true, false),
            (0o440, true, false, true),
            (0o640, true, false, true),
            (0o660, true, false, false),
            (0o644, true, false, false),
            (0o604, false, false, false),
            (0o602, false, false, false),
        ] {
            assert_eq!(is_private(mode, is_roots, am_root), private, "{mode:o} {is_roots} {am_root}");
        }
    }

    #[test]
    fn what_others_can_read_is_not_read_and_the_fix_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let said = read_secret(&path).unwrap_err().to_string();
        assert!(said.contains("0644") && said.contains(&format!("chmod 600 {}", path.display())), "{said}");
        assert_eq!(read_public(&path).unwrap(), b"secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_secret(&path).unwrap(), b"secret");
        assert!(matches!(read_secret(dir.path()), Err(SecretFileError::NoFile { .. })));
        assert!(matches!(read_secret(&dir.path().join("none")), Err(SecretFileError::Read { .. })));
        fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        assert!(matches!(read_secret(&path), Err(SecretFileError::TooLarge { .. })));
    }
}
