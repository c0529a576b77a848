//! A snapshot: a copy of the index in one file, good only together with the journal from where it
//! began: it is taken while the index changes.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{
    StoreError,
    disk::{Disk, DiskFile},
    index::{Index, SUMMARY_KEY},
    journal::Write,
};

const MAGIC: &[u8; 8] = b"BSNAP001";
const SUFFIX: &str = ".snapshot";
const TEMPORARY: &str = ".new";
/// Records read from the index at one time.
const CHUNK: usize = 1024;
/// Magic, position, count of records, SHA-256.
const TRAILER_BYTES: usize = 8 + 8 + 32;

/// A snapshot that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The number of the last group that it has for certain.
    pub(crate) position: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Takes a snapshot, syncs it, and reads it back.
pub(crate) fn take<D: Disk, I: Index>(
    disk: &D,
    directory: &Path,
    index: &I,
) -> Result<Snapshot, StoreError> {
    let position = index.position();
    let path = directory.join(format!("{position:016x}{SUFFIX}"));
    let temporary = directory.join(format!("{position:016x}{TEMPORARY}"));
    if disk.exists(&temporary) {
        disk.remove(&temporary).map_err(StoreError::io("remove", &temporary))?;
    }
    let mut file = disk.create(&temporary).map_err(StoreError::io("create", &temporary))?;
    let mut writer = SummingWriter { file: &mut file, offset: 0, sum: Sha256::new() };
    let failed = |error| StoreError::io("write", &temporary)(error);
    writer.write(MAGIC).map_err(failed)?;
    let (mut from, mut count) = (Vec::new(), 0_u64);
    loop {
        let pairs = index.scan(&from, &[], CHUNK)?;
        let Some((last, _)) = pairs.last() else { break };
        from.clone_from(last);
        from.push(0);
        let mut chunk = Vec::new();
        for (key, value) in pairs {
            if key != SUMMARY_KEY {
                count += 1;
                let write = Write { key, value: Some(value) };
                let encoded = crate::journal::group::encode_writes(&[write]);
                chunk.extend_from_slice(&encoded);
            }
        }
        writer.write(&chunk).map_err(failed)?;
    }
    writer.write(&position.to_be_bytes()).map_err(failed)?;
    writer.write(&count.to_be_bytes()).map_err(failed)?;
    let sum = writer.sum.clone().finalize();
    writer.write(&sum).map_err(failed)?;
    let bytes = writer.offset;
    file.sync().map_err(StoreError::io("sync", &temporary))?;
    disk.rename(&temporary, &path).map_err(StoreError::io("rename", &path))?;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    verify(disk, &path, bytes, &sum)?;
    Ok(Snapshot { position, path, bytes })
}

/// Reads back what was written, in pieces: a snapshot may be larger than memory.
fn verify<D: Disk>(disk: &D, path: &Path, bytes: u64, sum: &[u8]) -> Result<(), StoreError> {
    let (mut found, mut read, mut last) = (Sha256::new(), 0_u64, Vec::new());
    let summed = bytes - 32;
    let mut visit = |piece: &[u8]| {
        let left = usize::try_from(summed.saturating_sub(read)).unwrap_or(usize::MAX);
        let (before, after) = piece.split_at(left.min(piece.len()));
        found.update(before);
        last.extend_from_slice(after);
        read += piece.len() as u64;
    };
    disk.read_pieces(path, &mut visit).map_err(StoreError::io("read", path))?;
    if read != bytes || last != sum || found.finalize().as_slice() != sum {
        let what = "a snapshot that reads otherwise than it was written";
        return Err(StoreError::Corrupt { path: path.to_owned(), offset: 0, what });
    }
    Ok(())
}

struct SummingWriter<'a, F: DiskFile> {
    file: &'a mut F,
    offset: u64,
    sum: Sha256,
}

impl<F: DiskFile> SummingWriter<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(())
    }
}

/// Reads a snapshot: its position and records, if it is whole.
pub(crate) fn read<D: Disk>(disk: &D, path: &Path) -> Result<(u64, Vec<Write>), StoreError> {
    let bytes = disk.read(path).map_err(StoreError::io("read", path))?;
    let corrupt = |what| StoreError::Corrupt { path: path.to_owned(), offset: 0, what };
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("not a snapshot"))?;
    let split = body.len().checked_sub(TRAILER_BYTES);
    let split = split.ok_or_else(|| corrupt("a snapshot cut short"))?;
    let (records, trailer) = body.split_at(split);
    let (numbers, sum) = trailer.split_at(16);
    if Sha256::digest(&bytes[..bytes.len() - 32]).as_slice() != sum {
        return Err(corrupt("a snapshot that does not match its checksum"));
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
    let writes = crate::journal::group::decode_writes(records)
        .filter(|writes| writes.len() as u64 == number(&numbers[8..]))
        .ok_or_else(|| corrupt("records that cannot be read"))?;
    Ok((number(&numbers[..8]), writes))
}

/// Snapshots that are there, the newest first; not yet verified.
pub(crate) fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let names = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let parse = |name: &String| {
        let position = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
        Some((position, directory.join(name)))
    };
    let mut snapshots: Vec<_> = names.iter().filter_map(parse).collect();
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    Ok(snapshots)
}
