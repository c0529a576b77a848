//! Segment files, made ahead by a thread of their own: writing and syncing 16 MiB of zeros takes
//! longer than anybody who waits for an answer should.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread::JoinHandle,
};

use crate::{
    StoreError,
    disk::{Disk, DiskFile},
};

const SUFFIX: &str = ".journal";
/// Zeros are written in pieces of this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

pub(super) fn path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016x}{SUFFIX}"))
}

/// Numbers of the segments that are there, in order.
pub(super) fn list<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<u64>, StoreError> {
    let names = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let number = |name: &String| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok();
    let mut segments: Vec<u64> = names.iter().filter_map(number).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Segments that are made before they are needed.
pub(super) struct Ahead<D: Disk> {
    made: Option<Receiver<Result<D::File, StoreError>>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Disk> Ahead<D> {
    pub(super) fn start(disk: D, directory: PathBuf, segment_bytes: u64, first: u64) -> Self {
        // One ready, one in the making.
        let (sender, made) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("journal-ahead".to_owned()).spawn(move || {
                for segment in first.. {
                    let file = make(&disk, &directory, segment_bytes, segment);
                    let failed = file.is_err();
                    if sender.send(file).is_err() || failed {
                        return;
                    }
                }
            });
        Self { made: Some(made), thread: thread.ok() }
    }

    /// The next segment.
    pub(super) fn take(&mut self) -> Result<D::File, StoreError> {
        let made = self.made.as_ref().and_then(|made| made.recv().ok());
        made.unwrap_or(Err(StoreError::Failed))
    }
}

impl<D: Disk> Drop for Ahead<D> {
    fn drop(&mut self) {
        self.made = None;
        if let Some(thread) = self.thread.take() {
            // It ends at its next hand-over; a panic there was no acknowledgement.
            drop(thread.join());
        }
    }
}

fn make<D: Disk>(
    disk: &D,
    directory: &Path,
    segment_bytes: u64,
    segment: u64,
) -> Result<D::File, StoreError> {
    let path = path(directory, segment);
    if disk.exists(&path) {
        // Made ahead by an earlier process and never used.
        disk.remove(&path).map_err(StoreError::io("remove", &path))?;
    }
    let mut file = disk.create(&path).map_err(StoreError::io("create", &path))?;
    let mut offset = 0;
    while offset < segment_bytes {
        let piece = (segment_bytes - offset).min(ZEROS.len() as u64);
        let zeros = &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())];
        file.write_at(offset, zeros).map_err(StoreError::io("write", &path))?;
        offset += piece;
    }
    file.sync().map_err(StoreError::io("sync", &path))?;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    Ok(file)
}
