//! Large bodies: files named by the SHA-256 of what they hold, written and synced before the
//! record that names them, removed only after the removal of the last record is durable.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    StoreError,
    disk::{Disk, DiskFile},
};

const TEMPORARY: &str = ".new";

/// The files of large bodies.
#[derive(Debug, Clone)]
pub(crate) struct Bodies<D: Disk> {
    disk: D,
    directory: PathBuf,
    /// Digests that are being written or about to be named by a record: not to be removed.
    pins: Arc<Mutex<HashMap<[u8; 32], usize>>>,
}

/// Holds some bodies until it is dropped.
#[derive(Debug)]
pub(crate) struct Pins {
    pins: Arc<Mutex<HashMap<[u8; 32], usize>>>,
    digests: Vec<[u8; 32]>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = lock(&self.pins);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Disk> Bodies<D> {
    /// Opens the folder and removes what was being written when the process ended.
    pub(crate) fn open(disk: D, directory: PathBuf) -> Result<Self, StoreError> {
        disk.create_directory(&directory).map_err(StoreError::io("create", &directory))?;
        for name in disk.list(&directory).map_err(StoreError::io("list", &directory))? {
            if name.ends_with(TEMPORARY) {
                let path = directory.join(name);
                disk.remove(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(Self { disk, directory, pins: Arc::default() })
    }

    /// Where the files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Holds contents that a record is about to name, whether they are here or not.
    pub(crate) fn hold(&self, digests: Vec<[u8; 32]>) -> Pins {
        let mut held = lock(&self.pins);
        for digest in &digests {
            *held.entry(*digest).or_insert(0) += 1;
        }
        drop(held);
        Pins { pins: Arc::clone(&self.pins), digests }
    }

    pub(crate) fn path(&self, digest: &[u8; 32]) -> PathBuf {
        use std::fmt::Write as _;
        let mut name = String::with_capacity(64);
        for byte in digest {
            // Writing to a String cannot fail.
            write!(name, "{byte:02x}").unwrap_or_default();
        }
        self.directory.join(name)
    }

    /// Makes bodies durable, with one sync of the directory, and holds them.
    pub(crate) fn put(&self, bodies: Vec<([u8; 32], Bytes)>) -> Result<Pins, StoreError> {
        let pins = self.hold(bodies.iter().map(|(digest, _)| *digest).collect());
        for (digest, body) in bodies {
            let path = self.path(&digest);
            if !self.disk.exists(&path) {
                self.write(&path, &body)?;
            }
        }
        // Also where the file was there: another call may be about to sync it.
        let directory = &self.directory;
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
        Ok(pins)
    }

    fn write(&self, path: &Path, body: &[u8]) -> Result<(), StoreError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let temporary = path.with_extension(format!("{number}{TEMPORARY}"));
        let mut file =
            self.disk.create(&temporary).map_err(StoreError::io("create", &temporary))?;
        file.write_at(0, body).map_err(StoreError::io("write", &temporary))?;
        file.sync().map_err(StoreError::io("sync", &temporary))?;
        self.disk.rename(&temporary, path).map_err(StoreError::io("rename", path))
    }

    /// A body, if it is what its name says.
    pub(crate) fn read(&self, digest: &[u8; 32]) -> Result<Bytes, StoreError> {
        let path = self.path(digest);
        let bytes = self.disk.read(&path).map_err(StoreError::io("read", &path))?;
        if Sha256::digest(&bytes).as_slice() != digest {
            let what = "a body that does not match its digest";
            return Err(StoreError::Corrupt { path, offset: 0, what });
        }
        Ok(bytes.into())
    }

    /// Removes a body that nothing refers to any more, unless it is held.
    pub(crate) fn remove(
        &self,
        digest: &[u8; 32],
        referred: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let pins = lock(&self.pins);
        let path = self.path(digest);
        if pins.contains_key(digest) || referred()? || !self.disk.exists(&path) {
            return Ok(());
        }
        self.disk.remove(&path).map_err(StoreError::io("remove", &path))
    }
}
