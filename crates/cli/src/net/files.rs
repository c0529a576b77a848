//! Writing the files of a network: nothing is overwritten, and nobody else can read them.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::InitError;

/// Writes below one directory.
pub(super) struct Writer {
    directory: PathBuf,
}

impl Writer {
    /// Makes the directory, or takes an empty one.
    pub(super) fn new(directory: &Path) -> Result<Self, InitError> {
        let failed = |source| InitError::Write { path: directory.to_owned(), source };
        match std::fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(InitError::NotEmpty(directory.to_owned())),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(directory).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Writes one file that must not be there yet. What ends in `.key`, and signing keys, only
    /// the owner may read.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), InitError> {
        let path = self.directory.join(path);
        self.try_write(&path, content).map_err(|source| InitError::Write { path, source })
    }

    fn try_write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        let mode = if is_secret(path) { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn is_secret(path: &Path) -> bool {
    let named = |name: &str| path.file_name().is_some_and(|file| file == name);
    path.extension().is_some_and(|ending| ending == "key")
        || named("signing.pem")
        || named("roster-root.pem")
}
