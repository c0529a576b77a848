//! The disk, as the journal and the bodies need it: files written at an offset, synced, renamed,
//! and directories synced. Blocking: only the store's own threads call it.
//!
//! [`RealDisk`] is the operating system's; [`SimDisk`] forgets what was not synced.

mod real;
#[cfg(any(test, feature = "sim"))]
mod sim;

use std::{io, path::Path, time::Duration};

pub(crate) use real::RealDisk;
#[cfg(test)]
pub(crate) use sim::Event;
#[cfg(any(test, feature = "sim"))]
pub(crate) use sim::{SimDisk, Unsynced};

/// A disk.
pub(crate) trait Disk: Clone + Send + Sync + 'static {
    /// A file that is open for reading and writing.
    type File: DiskFile;

    /// Creates a file that must not exist, with mode 0600.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file that is there, for writing.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Size of a file; `None` where there is none.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Since when a file has not been written to.
    ///
    /// # Errors
    /// What the system says.
    fn age(&self, path: &Path) -> io::Result<Duration>;

    /// Reads a piece of a file: fewer bytes than asked for only at its end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, path: &Path, offset: u64, limit: usize) -> io::Result<Vec<u8>>;

    /// Reads a whole file.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Reads a file in pieces, for files that are too large to hold.
    ///
    /// # Errors
    /// What the system says.
    fn read_pieces(&self, path: &Path, visit: &mut dyn FnMut(&[u8])) -> io::Result<()>;

    /// Renames a file over another.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a directory, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Whether a file is there.
    fn exists(&self, path: &Path) -> bool;

    /// Makes a directory and those above it, with mode 0700.
    ///
    /// # Errors
    /// What the system says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Bytes that are free.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// A file that is open.
pub(crate) trait DiskFile: Send + 'static {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// What the system says; part may be written then.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable (`fdatasync`).
    ///
    /// # Errors
    /// What the system says; what is durable is unknown then, and a second call proves nothing.
    fn sync(&mut self) -> io::Result<()>;
}
