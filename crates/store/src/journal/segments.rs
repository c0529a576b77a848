//! Segment files, made ahead by a thread of their own: writing and syncing 16 MiB of zeros takes
//! longer than anybody who waits for an answer should.
//!
//! A segment begins with its head, twice, each on a page of its own: number, size and secret (see
//! [`group`](super::group)). It gets its name only when it is whole, so that a segment that is too
//! short, or has no head, was damaged.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread::JoinHandle,
};

use sha2::{Digest as _, Sha256};

use super::group::Secret;
use crate::{
    StoreError,
    disk::{Disk, DiskFile},
    hands::Hands,
};

const SUFFIX: &str = ".journal";
const SUFFIX_UNFINISHED: &str = ".unfinished";
const HEAD_MAGIC: [u8; 8] = *b"BUREAUJ2";
/// Where the second copy of the head is, and where groups begin.
const HEAD_COPY_AT: usize = 4096;
pub(crate) const GROUPS_AT: u64 = 8192;
/// Magic, number, size, secret, checksum.
const HEAD_BYTES: usize = 8 + 8 + 8 + 32 + 32;

/// What a segment says of itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) segment: u64,
    pub(crate) bytes: u64,
    pub(crate) secret: Secret,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = HEAD_MAGIC.to_vec();
        bytes.extend_from_slice(&self.segment.to_be_bytes());
        bytes.extend_from_slice(&self.bytes.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// The head of a segment; either copy does.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let copies = [bytes.get(..HEAD_BYTES), bytes.get(HEAD_COPY_AT..HEAD_COPY_AT + HEAD_BYTES)];
        copies.into_iter().flatten().find_map(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, sum) = bytes.split_at_checked(HEAD_BYTES - 32)?;
        let fields = fields.strip_prefix(&HEAD_MAGIC)?;
        let number = |at: usize| fields.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let head = Self {
            segment: number(0)?,
            bytes: number(8)?,
            secret: fields.get(16..)?.try_into().ok()?,
        };
        (Sha256::digest(&bytes[..HEAD_BYTES - 32])[..] == *sum).then_some(head)
    }
}
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

/// What a maker of segments hands over.
type Made<F> = Result<(F, Secret), StoreError>;

/// Segments that are made before they are needed.
pub(super) struct Ahead<D: Disk> {
    made: Option<Receiver<Made<D::File>>>,
    thread: Option<JoinHandle<()>>,
    /// Without a thread each is made when it is asked for.
    #[cfg(any(test, feature = "sim"))]
    in_order: Option<Box<dyn FnMut() -> Made<D::File> + Send>>,
}

impl<D: Disk> Ahead<D> {
    pub(super) fn start(
        disk: D,
        directory: PathBuf,
        segment_bytes: u64,
        first: u64,
        hands: Hands,
    ) -> Self {
        #[cfg(any(test, feature = "sim"))]
        if matches!(hands, Hands::InOrder(_)) {
            let mut segments = first..;
            let next = move || {
                let segment = segments.next().unwrap_or(u64::MAX);
                make(&disk, &directory, segment_bytes, segment, &hands)
            };
            return Self { made: None, thread: None, in_order: Some(Box::new(next)) };
        }
        // One ready, one in the making.
        let (sender, made) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("journal-ahead".to_owned()).spawn(move || {
                for segment in first.. {
                    let file = make(&disk, &directory, segment_bytes, segment, &hands);
                    let failed = file.is_err();
                    if sender.send(file).is_err() || failed {
                        return;
                    }
                }
            });
        Self {
            made: Some(made),
            thread: thread.ok(),
            #[cfg(any(test, feature = "sim"))]
            in_order: None,
        }
    }

    /// The next segment.
    pub(super) fn take(&mut self) -> Made<D::File> {
        #[cfg(any(test, feature = "sim"))]
        if let Some(next) = &mut self.in_order {
            return next();
        }
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
    hands: &Hands,
) -> Made<D::File> {
    let path = path(directory, segment);
    let unfinished = path.with_extension(&SUFFIX_UNFINISHED[1..]);
    if disk.exists(&unfinished) {
        // An earlier process stopped while it made it.
        disk.remove(&unfinished).map_err(StoreError::io("remove", &unfinished))?;
    }
    let mut secret = Secret::default();
    hands.fill(&mut secret).map_err(|error| {
        StoreError::io("draw a secret for", &path)(std::io::Error::other(error))
    })?;
    let head = Head { segment, bytes: segment_bytes, secret }.encode();
    let mut file = disk.create(&unfinished).map_err(StoreError::io("create", &unfinished))?;
    let mut offset = 0;
    while offset < segment_bytes {
        let piece = (segment_bytes - offset).min(ZEROS.len() as u64);
        let zeros = &ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())];
        file.write_at(offset, zeros).map_err(StoreError::io("write", &unfinished))?;
        offset += piece;
    }
    for at in [0, HEAD_COPY_AT as u64] {
        file.write_at(at, &head).map_err(StoreError::io("write", &unfinished))?;
    }
    file.sync().map_err(StoreError::io("sync", &unfinished))?;
    if disk.exists(&path) {
        return Err(StoreError::io("create", &path)(std::io::ErrorKind::AlreadyExists.into()));
    }
    disk.rename(&unfinished, &path).map_err(StoreError::io("rename", &path))?;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    Ok((file, secret))
}
