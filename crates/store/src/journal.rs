//! The journal: every group of writes, in order, synced before anybody is told. It is the promise;
//! the index is only what can be found quickly.
//!
//! Segments are files of one size, written with zeros and synced ahead, so that an append changes
//! no metadata; they are never used twice. A group is a header and its writes; the header names the
//! segment, the group's number and the chain of all groups before it, so that a hole, an old
//! segment or a swapped one is noticed; its checksum is one that no stranger can make.

pub(crate) mod group;
mod recover;
pub(crate) mod segments;

use std::path::{Path, PathBuf};

use self::{
    group::{Header, Secret},
    segments::{Ahead, GROUPS_AT},
};
use crate::{
    StoreError,
    disk::{Disk, DiskFile},
    hands::Hands,
};
pub(crate) use group::{Sum, Write};
pub(crate) use recover::{Found, recover, replay};

/// Size of a segment where nothing else is said.
pub(crate) const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// The open journal.
pub(crate) struct Journal<D: Disk> {
    directory: PathBuf,
    ahead: Ahead<D>,
    file: D::File,
    secret: Secret,
    segment: u64,
    offset: u64,
    segment_bytes: u64,
    last: u64,
    /// The chain up to it.
    chain: Sum,
    /// Bytes appended since the journal was opened.
    appended: u64,
}

impl<D: Disk> Journal<D> {
    /// Begins a fresh segment after what was found.
    pub(crate) fn begin(
        disk: &D,
        directory: &Path,
        segment_bytes: u64,
        segment: u64,
        last: u64,
        chain: Sum,
        hands: &Hands,
    ) -> Result<Self, StoreError> {
        let (made_on, directory_of) = (disk.clone(), directory.to_owned());
        let mut ahead = Ahead::start(made_on, directory_of, segment_bytes, segment, hands.clone());
        let (file, secret) = ahead.take()?;
        Ok(Self {
            directory: directory.to_owned(),
            ahead,
            file,
            secret,
            segment,
            offset: GROUPS_AT,
            segment_bytes,
            last,
            chain,
            appended: 0,
        })
    }

    /// Number of the last group.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Size of a segment.
    pub(crate) const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The segment that is written now.
    pub(crate) const fn segment(&self) -> u64 {
        self.segment
    }

    /// Bytes appended since the journal was opened.
    pub(crate) const fn appended(&self) -> u64 {
        self.appended
    }

    /// Appends a group and syncs it. Gives its number.
    pub(crate) fn append(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        let number = self.append_unsynced(writes)?;
        self.sync()?;
        Ok(number)
    }

    /// Appends a group without a sync: for copying at open.
    pub(crate) fn append_unsynced(&mut self, writes: &[Write]) -> Result<u64, StoreError> {
        let payload = group::encode_writes(writes);
        let number = self.last + 1;
        let bytes = (group::HEADER_BYTES + payload.len()) as u64;
        if bytes > self.segment_bytes.saturating_sub(GROUPS_AT) {
            let (bytes, limit) = (payload.len(), self.segment_bytes as usize);
            return Err(StoreError::ValueTooLarge { bytes, limit });
        }
        if self.offset + bytes > self.segment_bytes {
            self.sync()?;
            (self.file, self.secret) = self.ahead.take()?;
            self.segment += 1;
            self.offset = GROUPS_AT;
        }
        let header = Header { segment: self.segment, number, previous: self.chain };
        let (encoded, chain) = group::encode(&self.secret, &header, &payload);
        let path = || segments::path(&self.directory, self.segment);
        self.file
            .write_at(self.offset, &encoded)
            .map_err(|error| StoreError::io("write", path())(error))?;
        self.offset += bytes;
        self.appended += bytes;
        self.last = number;
        self.chain = chain;
        Ok(number)
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        let path = segments::path(&self.directory, self.segment);
        self.file.sync().map_err(StoreError::io("sync", path))
    }
}

/// Removes segments that an earlier process made ahead and never wrote to.
pub(crate) fn remove_unused<D: Disk>(
    disk: &D,
    directory: &Path,
    found: &Found,
) -> Result<(), StoreError> {
    for segment in &found.unused {
        let path = segments::path(directory, *segment);
        disk.remove(&path).map_err(StoreError::io("remove", path))?;
    }
    Ok(())
}

/// Bytes that all segments take.
pub(crate) fn bytes<D: Disk>(
    disk: &D,
    directory: &Path,
    segment_bytes: u64,
) -> Result<u64, StoreError> {
    Ok(segments::list(disk, directory)?.len() as u64 * segment_bytes)
}

/// Removes segments below one.
pub(crate) fn remove_segments<D: Disk>(
    disk: &D,
    directory: &Path,
    below: u64,
) -> Result<(), StoreError> {
    for segment in segments::list(disk, directory)? {
        if segment < below {
            let path = segments::path(directory, segment);
            disk.remove(&path).map_err(StoreError::io("remove", path))?;
        }
    }
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
}
