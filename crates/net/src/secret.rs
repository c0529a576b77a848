//! Reading a file that holds a secret: only if nobody but its owner can read it, never more than
//! its limit, and wiped from memory after use. What the secret is, is the caller's business.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Largest secret file. A PEM of an RSA key of 16,384 bits has 13 KiB.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Why a secret file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Others than the owner have rights on it.
    #[error(
        "{path} has mode {mode:04o}: others than its owner may use it; cure: chmod 600 {path}",
        path = path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than any secret.
    #[error("{} is larger than {SECRET_BYTES_MAX} bytes: not a secret's file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a secret file whole. Blocking.
///
/// The mode is taken from the file that was opened, so it cannot be exchanged in between.
///
/// # Errors
/// [`SecretError`], which names the file and never its content.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |source| SecretError::Io { path: path.to_owned(), source };
    let file = open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::TooOpen { path: path.to_owned(), mode });
    }
    // Room for all there may be, so that no half-filled buffer is moved and left behind unwiped.
    let mut content = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let limit = content.capacity() as u64;
    file.take(limit).read_to_end(&mut content).map_err(failed)?;
    if content.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// Opening a pipe that nobody writes would wait for ever, were it not for `NONBLOCK`.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::fs;

    use super::*;

    fn file(directory: &tempfile::TempDir, mode: u32, content: &[u8]) -> PathBuf {
        let path = directory.path().join(format!("key-{mode:o}-{}", content.len()));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o400, 0o700] {
            let path = file(&directory, mode, b"secret");
            assert_eq!(read_secret(&path).unwrap().as_slice(), b"secret");
        }
        for mode in [0o640, 0o604, 0o660, 0o601, 0o620, 0o644, 0o777] {
            let path = file(&directory, mode, b"secret");
            let error = read_secret(&path).unwrap_err();
            assert!(matches!(error, SecretError::TooOpen { mode: m, .. } if m == mode), "{mode:o}");
            let text = error.to_string();
            assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
            assert!(text.contains(&format!("{mode:04o}")), "{text}");
        }
    }

    #[test]
    fn large_missing_and_strange_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let large = file(&directory, 0o600, &vec![b'x'; SECRET_BYTES_MAX + 1]);
        assert!(matches!(read_secret(&large), Err(SecretError::TooLarge { .. })));
        let full = file(&directory, 0o600, &vec![b'x'; SECRET_BYTES_MAX]);
        assert_eq!(read_secret(&full).unwrap().len(), SECRET_BYTES_MAX);
        let missing = directory.path().join("missing");
        assert!(matches!(read_secret(&missing), Err(SecretError::Io { .. })));
        assert!(matches!(read_secret(directory.path()), Err(SecretError::NotAFile { .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(read_secret(&pipe), Err(SecretError::NotAFile { .. })));
    }
}
