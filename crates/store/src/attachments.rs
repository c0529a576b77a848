//! Attachments while they come in: a file that grows from its beginning, is checked against its
//! digest when it is whole, and waits then until a message names it. From there on it is a body
//! like others (see [`bodies`](crate::bodies)): one file, however many messages name it.
//!
//! Each that brings it has a file of its own until it is whole: otherwise a peer that knows a
//! digest could spoil what another is bringing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    StoreError,
    bodies::Bodies,
    contract::{AttachmentHeld, Content, Source},
    disk::{Disk, DiskFile},
};

/// Comes in.
pub(crate) const PART: &str = ".part";
/// Whole, and no message names it yet.
pub(crate) const STAGED: &str = ".staged";
/// What comes in is synced after so much, so that little comes again after a power cut.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;
/// Files that are kept open with their digest so far; others are read again when they go on.
const OPEN_MAX: usize = 64;
/// What nobody names for so long goes.
pub(crate) const STAGED_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The files of what comes in.
#[derive(Clone)]
pub(crate) struct Attachments<D: Disk> {
    disk: D,
    directory: PathBuf,
    bodies: Bodies<D>,
    bytes_max: u64,
    open: Arc<Mutex<HashMap<Key, Shared<D>>>>,
}

type Key = ([u8; 32], Source);
type Shared<D> = Arc<Mutex<Option<Growing<D>>>>;

/// A file that grows.
struct Growing<D: Disk> {
    file: D::File,
    length: u64,
    synced: u64,
    hash: Sha256,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: Disk> Attachments<D> {
    pub(crate) fn new(disk: D, bodies: Bodies<D>, bytes_max: u64) -> Self {
        let directory = bodies.directory().to_owned();
        Self { disk, directory, bodies, bytes_max, open: Arc::default() }
    }

    fn path(&self, digest: &[u8; 32], suffix: &str) -> PathBuf {
        let mut path = self.bodies.path(digest).into_os_string();
        path.push(suffix);
        path.into()
    }

    fn part_path(&self, digest: &[u8; 32], source: &Source) -> PathBuf {
        let tag = match source {
            Source::Desk(desk) => format!(".desk.{desk}{PART}"),
            Source::Peer(bureau) => format!(".{bureau}{PART}"),
        };
        self.path(digest, &tag)
    }

    /// What is here of an attachment: all of it, whoever brought it, or what one has brought.
    pub(crate) fn held(
        &self,
        digest: &[u8; 32],
        source: &Source,
    ) -> Result<AttachmentHeld, StoreError> {
        let key = (*digest, source.clone());
        if let Some(size) = self.whole(digest)? {
            self.give_up(&key)?;
            return Ok(AttachmentHeld::Whole(size));
        }
        let open = lock(&self.open).get(&key).map(Arc::clone);
        if let Some(growing) = open.as_ref().map(|open| lock(open))
            && let Some(growing) = &*growing
        {
            return Ok(AttachmentHeld::Part(growing.length));
        }
        let path = self.part_path(digest, source);
        let size = self.disk.size(&path).map_err(StoreError::io("look at", &path))?;
        Ok(AttachmentHeld::Part(size.unwrap_or(0)))
    }

    /// Removes what one has brought of an attachment that another has brought whole.
    fn give_up(&self, key: &Key) -> Result<(), StoreError> {
        lock(&self.open).remove(key);
        let path = self.part_path(&key.0, &key.1);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The size of an attachment that is whole.
    fn whole(&self, digest: &[u8; 32]) -> Result<Option<u64>, StoreError> {
        for path in [self.bodies.path(digest), self.path(digest, STAGED)] {
            let size = self.disk.size(&path).map_err(StoreError::io("look at", &path))?;
            if size.is_some() {
                return Ok(size);
            }
        }
        Ok(None)
    }

    /// Adds a piece that begins where the file ends; any other changes nothing.
    pub(crate) fn append(
        &self,
        source: &Source,
        content: Content,
        offset: u64,
        data: &Bytes,
    ) -> Result<AttachmentHeld, StoreError> {
        let Content { digest, size } = content;
        let key = (digest, source.clone());
        if let Some(size) = self.whole(&digest)? {
            self.give_up(&key)?;
            return Ok(AttachmentHeld::Whole(size));
        }
        let path = self.part_path(&digest, source);
        let shared = self.shared(&key);
        let mut slot = lock(&shared);
        if slot.is_none() {
            *slot = Some(self.open_part(&path, content)?);
        }
        let Some(growing) = slot.as_mut() else { return Ok(AttachmentHeld::Part(0)) };
        let end = offset.saturating_add(data.len() as u64);
        if growing.length != offset || end > size {
            return Ok(AttachmentHeld::Part(growing.length));
        }
        growing.file.write_at(offset, data).map_err(StoreError::io("write", &path))?;
        growing.hash.update(data);
        growing.length = end;
        if end == size || end - growing.synced >= SYNC_BYTES {
            growing.file.sync().map_err(StoreError::io("sync", &path))?;
            growing.synced = end;
            if end < size && self.waiting_bytes()? > self.bytes_max {
                // Several began while there was room for one.
                return Err(StoreError::StagingFull { limit: self.bytes_max });
            }
        }
        if end < size {
            return Ok(AttachmentHeld::Part(end));
        }
        let good = growing.hash.clone().finalize().as_slice() == digest;
        *slot = None;
        lock(&self.open).remove(&key);
        if !good {
            // Whoever sent it sent something else: it begins anew.
            self.disk.remove(&path).map_err(StoreError::io("remove", &path))?;
            return Ok(AttachmentHeld::Mismatch);
        }
        let staged = self.path(&digest, STAGED);
        self.disk.rename(&path, &staged).map_err(StoreError::io("rename", &path))?;
        let directory = &self.directory;
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
        Ok(AttachmentHeld::Whole(size))
    }

    fn shared(&self, key: &Key) -> Shared<D> {
        let mut open = lock(&self.open);
        if open.len() >= OPEN_MAX && !open.contains_key(key) {
            // Those that nobody is writing to just now; they are read again when they go on.
            open.retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        Arc::clone(open.entry(key.clone()).or_default())
    }

    /// Opens a file that is there, reading what it holds; or begins one, if there is room.
    fn open_part(&self, path: &Path, content: Content) -> Result<Growing<D>, StoreError> {
        let size = self.disk.size(path).map_err(StoreError::io("look at", path))?;
        if let Some(length) = size.filter(|length| *length <= content.size) {
            let mut hash = Sha256::new();
            let read = self.disk.read_pieces(path, &mut |piece| hash.update(piece));
            read.map_err(StoreError::io("read", path))?;
            let file = self.disk.open(path).map_err(StoreError::io("open", path))?;
            return Ok(Growing { file, length, synced: length, hash });
        }
        if size.is_some() {
            self.disk.remove(path).map_err(StoreError::io("remove", path))?;
        }
        let waiting = self.waiting_bytes()?;
        if waiting.saturating_add(content.size) > self.bytes_max {
            return Err(StoreError::StagingFull { limit: self.bytes_max });
        }
        let file = self.disk.create(path).map_err(StoreError::io("create", path))?;
        Ok(Growing { file, length: 0, synced: 0, hash: Sha256::new() })
    }

    /// Bytes that no message names.
    fn waiting_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0_u64;
        for path in self.unnamed()? {
            let size = self.disk.size(&path).map_err(StoreError::io("look at", &path))?;
            bytes = bytes.saturating_add(size.unwrap_or(0));
        }
        Ok(bytes)
    }

    fn unnamed(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = &self.directory;
        let names = self.disk.list(directory).map_err(StoreError::io("list", directory))?;
        let unnamed = names.iter().filter(|name| name.ends_with(PART) || name.ends_with(STAGED));
        Ok(unnamed.map(|name| directory.join(name)).collect())
    }

    /// Makes attachments bodies, for messages that are about to name them: all, or none. Whether
    /// all are there. The caller holds their pins.
    pub(crate) fn claim(&self, digests: &[[u8; 32]]) -> Result<bool, StoreError> {
        for digest in digests {
            if self.whole(digest)?.is_none() {
                return Ok(false);
            }
        }
        for digest in digests {
            let (staged, path) = (self.path(digest, STAGED), self.bodies.path(digest));
            if !self.disk.exists(&path)
                && let Err(error) = self.disk.rename(&staged, &path)
                // Another message may have claimed it this moment.
                && !self.disk.exists(&path)
            {
                return Err(StoreError::io("rename", &staged)(error));
            }
        }
        let directory = &self.directory;
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
        Ok(true)
    }

    /// A piece of an attachment that is whole; `None` where it is not here.
    pub(crate) fn read(
        &self,
        digest: &[u8; 32],
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        for path in [self.bodies.path(digest), self.path(digest, STAGED)] {
            match self.disk.read_at(&path, offset, limit) {
                Ok(bytes) => return Ok(Some(bytes.into())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Removes what nobody went on with, or named, for long.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        for path in self.unnamed()? {
            let age = self.disk.age(&path).map_err(StoreError::io("look at", &path))?;
            if age > STAGED_KEPT {
                self.disk.remove(&path).map_err(StoreError::io("remove", &path))?;
                tracing::info!(event = "attachment_dropped", age_seconds = age.as_secs());
            }
        }
        Ok(())
    }
}
