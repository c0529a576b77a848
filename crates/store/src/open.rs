//! Opening a store after a stop of any kind: what the journal has and the index lacks is applied;
//! an index that cannot be trusted is set aside and rebuilt; what no copy makes up for is refused
//! by name.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    StoreError,
    disk::{Disk, DiskFile},
    hands::Hands,
    index::{Index, SledIndex},
    journal::{self, Found, Journal, SEGMENT_BYTES, group::FIRST_SUM},
    snapshot,
};

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Where it is; made where it is not.
    pub directory: PathBuf,
    /// Size of a journal segment.
    pub segment_bytes: u64,
    /// The index is flushed after so many bytes of journal.
    pub checkpoint_bytes: u64,
    /// A snapshot is taken after so many bytes of journal, or the size of the last snapshot.
    pub snapshot_bytes: u64,
    /// Memory for the index.
    pub cache_bytes: u64,
    /// New work is refused below this, the next snapshot and two segments.
    pub reserve_bytes: u64,
    /// Room for attachments that no message names yet.
    pub staged_bytes: u64,
    /// How long an origin waits for a recipient's word after another took custody, the first time.
    pub custody_overdue_ms: u64,
}

impl OpenOptions {
    /// The defaults for a directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: 16 * 1024 * 1024,
            snapshot_bytes: 256 * 1024 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            reserve_bytes: 256 * 1024 * 1024,
            staged_bytes: 4 * 1024 * 1024 * 1024,
            custody_overdue_ms: crate::CUSTODY_OVERDUE_MS,
        }
    }
}

/// What a store is at while it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The journal is read.
    Reading,
    /// Groups are applied that the index lacks.
    Replaying {
        /// So many.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// The index is rebuilt from a snapshot and the journal.
    Rebuilding,
    /// It is open.
    Open,
}

/// Where an index is kept.
pub(crate) trait IndexHome: Send + 'static {
    type Index: Index;

    /// Opens what is there, or an empty one.
    fn open(&self) -> Result<Self::Index, StoreError>;

    /// Puts away what is there, so that the next open gives an empty one.
    fn set_aside(&self) -> Result<(), StoreError>;
}

/// sled in a directory.
pub(crate) struct SledHome {
    pub(crate) directory: PathBuf,
    pub(crate) cache_bytes: u64,
}

impl IndexHome for SledHome {
    type Index = SledIndex;

    fn open(&self) -> Result<SledIndex, StoreError> {
        SledIndex::open(&self.directory, self.cache_bytes)
    }

    fn set_aside(&self) -> Result<(), StoreError> {
        if !self.directory.exists() {
            return Ok(());
        }
        // Named by the second, so that it is known when it may go.
        for second in unix_seconds().. {
            let aside = self.directory.with_extension(format!("{ASIDE}{second}"));
            if !aside.exists() {
                let failed = StoreError::io("rename", &self.directory);
                return std::fs::rename(&self.directory, aside).map_err(failed);
            }
        }
        Ok(())
    }
}

const ASIDE: &str = "aside-";
/// How long an index that was set aside is kept for whoever wants to know why: a week.
const ASIDE_KEPT_SECONDS: u64 = 7 * 24 * 3600;

fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl SledHome {
    /// Removes what was set aside more than a week ago. What cannot be removed stays: it takes room,
    /// and nothing else.
    pub(crate) fn remove_old(&self) {
        let (Some(parent), now) = (self.directory.parent(), unix_seconds()) else { return };
        let Ok(entries) = std::fs::read_dir(parent) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let extension = path.extension().and_then(|extension| extension.to_str());
            let second = extension.and_then(|extension| extension.strip_prefix(ASIDE));
            let second = second.and_then(|second| second.parse::<u64>().ok());
            if second.is_some_and(|second| second.saturating_add(ASIDE_KEPT_SECONDS) < now)
                && let Err(error) = std::fs::remove_dir_all(&path)
            {
                tracing::warn!(event = "aside_not_removed", error = %error);
            }
        }
    }
}

/// The parts of a store that is open.
pub(crate) struct Opened<D: Disk, I> {
    pub(crate) journal: Journal<D>,
    pub(crate) index: I,
    /// Snapshots that are there: position, segment their journal begins in, and size.
    pub(crate) snapshots: Vec<(u64, u64)>,
    /// Whether a snapshot must be taken at once: the journal alone would not do.
    pub(crate) snapshot_due: bool,
    /// Bytes that the journal takes on the disk.
    pub(crate) journal_bytes: u64,
}

pub(crate) fn journal_directory(directory: &Path) -> PathBuf {
    directory.join("journal")
}

pub(crate) fn snapshot_directory(directory: &Path) -> PathBuf {
    directory.join("snapshots")
}

const CLEAN: &str = "clean";
const CHECKPOINT: &str = "checkpoint";

/// Opens the parts.
pub(crate) fn open<D: Disk, H: IndexHome>(
    disk: &D,
    options: &OpenOptions,
    home: &H,
    progress: &watch::Sender<Progress>,
    hands: &Hands,
) -> Result<Opened<D, H::Index>, StoreError> {
    let directory = &options.directory;
    let journal_dir = journal_directory(directory);
    for path in [directory, &journal_dir, &snapshot_directory(directory)] {
        disk.create_directory(path).map_err(StoreError::io("create", path))?;
    }
    release_ballast_if_low(disk, options)?;
    let clean = take_clean_mark(disk, directory)?;
    let checkpoint = read_checkpoint(disk, directory)?;
    progress.send_replace(Progress::Reading);
    let found = journal::recover(disk, &journal_dir)?;
    if let Some(damage) = &found.damage {
        tracing::error!(event = "journal_damaged", error = %damage.error(&journal_dir));
    }
    if let Some(damage) = &found.end_unknown {
        return Err(damage.error(&journal_dir));
    }
    journal::remove_unused(disk, &journal_dir, &found)?;
    let opening = Opening { disk, options, home, progress, found: &found, checkpoint };
    let index = opening.index(clean)?;
    opening.replay(&index)?;
    index.flush()?;
    write_checkpoint(disk, directory, index.position())?;
    let journal = opening.fresh_segment(&index, hands)?;
    let snapshots = opening.snapshots()?;
    let snapshot_due = found.damage.is_some() || index.position() > found.last();
    let journal_bytes = journal::bytes(disk, &journal_dir, options.segment_bytes)?;
    Ok(Opened { journal, index, snapshots, snapshot_due, journal_bytes })
}

struct Opening<'a, D, H> {
    disk: &'a D,
    options: &'a OpenOptions,
    home: &'a H,
    progress: &'a watch::Sender<Progress>,
    found: &'a Found,
    checkpoint: u64,
}

impl<D: Disk, H: IndexHome> Opening<'_, D, H> {
    /// The index as it is, if it can be trusted and the journal goes on from it; else a rebuilt one.
    fn index(&self, clean: bool) -> Result<H::Index, StoreError> {
        let why = match self.home.open() {
            Ok(index) => match self.distrust(&index, clean) {
                None => return Ok(index),
                Some(why) => why,
            },
            Err(error) => error.to_string(),
        };
        tracing::error!(event = "index_rebuilding", why);
        self.progress.send_replace(Progress::Rebuilding);
        let index = self.rebuild()?;
        tracing::warn!(event = "index_rebuilt", position = index.position());
        Ok(index)
    }

    fn distrust(&self, index: &H::Index, clean: bool) -> Option<String> {
        if !self.leads_on(index.position()) {
            return Some("the journal does not go on where the index ends".to_owned());
        }
        let reached = index.position().max(self.found.last());
        if reached < self.checkpoint {
            return Some("the index lacks what was flushed".to_owned());
        }
        if clean && index.position() == self.found.last() {
            return None;
        }
        match index.verify() {
            Ok(true) => None,
            Ok(false) => Some("count or hash of the records is not what was left".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether the journal has every group after a position.
    fn leads_on(&self, position: u64) -> bool {
        self.found.first().is_none_or(|first| first <= position + 1)
    }

    fn rebuild(&self) -> Result<H::Index, StoreError> {
        let directory = snapshot_directory(&self.options.directory);
        for (position, path) in snapshot::list(self.disk, &directory)? {
            if !self.leads_on(position) || self.found.last().max(position) < self.checkpoint {
                continue;
            }
            match snapshot::read(self.disk, &path) {
                Ok((position, writes)) => {
                    self.home.set_aside()?;
                    let index = self.home.open()?;
                    for chunk in writes.chunks(1024) {
                        index.apply(0, chunk)?;
                    }
                    index.apply(position, &[])?;
                    return Ok(index);
                }
                Err(error) => tracing::error!(event = "snapshot_damaged", error = %error),
            }
        }
        // Without a snapshot the journal must go back to the beginning.
        let whole = self.leads_on(0) && self.found.last() >= self.checkpoint;
        if !whole {
            let journal = journal_directory(&self.options.directory);
            return Err(match &self.found.damage {
                Some(damage) => damage.error(&journal),
                None => StoreError::Corrupt {
                    path: journal,
                    offset: 0,
                    what: "neither index nor snapshot nor journal has everything",
                },
            });
        }
        self.home.set_aside()?;
        self.home.open()
    }

    fn replay(&self, index: &H::Index) -> Result<(), StoreError> {
        let after = index.position();
        let total = self.found.last().saturating_sub(after);
        let journal = journal_directory(&self.options.directory);
        if total > 0 {
            tracing::info!(event = "journal_replaying", groups = total);
        }
        journal::replay(self.disk, &journal, self.found, after, |number, writes| {
            index.apply(number, &writes)?;
            let done = number - after;
            if done.is_multiple_of(64) {
                self.progress.send_replace(Progress::Replaying { done, total });
            }
            Ok(())
        })
    }

    /// Begins a segment with copies of what may only be in the system's memory: what a process
    /// reads back after a crash proves nothing about the disk.
    fn fresh_segment(&self, index: &H::Index, hands: &Hands) -> Result<Journal<D>, StoreError> {
        let directory = journal_directory(&self.options.directory);
        let groups = &self.found.groups;
        let ahead = index.position() > self.found.last();
        let before = groups.iter().rev().find(|group| group.number <= self.checkpoint);
        let (last, chain) = match (ahead, before, groups.first()) {
            (true, _, _) => (index.position(), FIRST_SUM),
            (false, Some(before), _) => (before.number, before.chain),
            (false, None, Some(first)) => (first.number - 1, FIRST_SUM),
            (false, None, None) => (index.position(), FIRST_SUM),
        };
        let segment = self.found.next_segment;
        let segment_bytes = self.options.segment_bytes;
        let mut journal =
            Journal::begin(self.disk, &directory, segment_bytes, segment, last, chain, hands)?;
        if !ahead {
            journal::replay(self.disk, &directory, self.found, last, |_, writes| {
                journal.append_unsynced(&writes).map(|_| ())
            })?;
            journal.sync()?;
        }
        Ok(journal)
    }

    /// Position of each snapshot that is there, and the first segment its journal needs.
    fn snapshots(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        let directory = snapshot_directory(&self.options.directory);
        let segment_of = |position: u64| {
            let next = self.found.groups.iter().find(|group| group.number > position);
            next.map_or(self.found.next_segment, |group| group.segment)
        };
        let listed = snapshot::list(self.disk, &directory)?;
        Ok(listed.into_iter().map(|(position, _)| (position, segment_of(position))).collect())
    }
}

const BALLAST: &str = "ballast";

/// A file that only takes room, to be given back when a full disk would keep the store from
/// opening and from sending what it holds: two segments, and some for the index.
pub(crate) const fn ballast_bytes(options: &OpenOptions) -> u64 {
    2 * options.segment_bytes + 4 * 1024 * 1024
}

fn release_ballast_if_low<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), StoreError> {
    let path = options.directory.join(BALLAST);
    let free = disk.free_bytes(&options.directory);
    let free = free.map_err(StoreError::io("look at", &options.directory))?;
    if disk.exists(&path) && free < ballast_bytes(options) {
        tracing::warn!(event = "ballast_released", free_bytes = free);
        disk.remove(&path).map_err(StoreError::io("remove", &path))?;
    }
    Ok(())
}

/// Takes the room for the ballast, where it is not taken and there is enough.
pub(crate) fn take_ballast<D: Disk>(disk: &D, options: &OpenOptions) -> Result<(), StoreError> {
    let path = options.directory.join(BALLAST);
    if disk.exists(&path) {
        return Ok(());
    }
    let temporary = options.directory.join("ballast.new");
    if disk.exists(&temporary) {
        disk.remove(&temporary).map_err(StoreError::io("remove", &temporary))?;
    }
    let mut file = disk.create(&temporary).map_err(StoreError::io("create", &temporary))?;
    let zeros = vec![0; 1024 * 1024];
    let mut offset = 0;
    while offset < ballast_bytes(options) {
        file.write_at(offset, &zeros).map_err(StoreError::io("write", &temporary))?;
        offset += zeros.len() as u64;
    }
    file.sync().map_err(StoreError::io("sync", &temporary))?;
    disk.rename(&temporary, &path).map_err(StoreError::io("rename", &path))
}

/// Writes how far the index is durable.
pub(crate) fn write_checkpoint<D: Disk>(
    disk: &D,
    directory: &Path,
    position: u64,
) -> Result<(), StoreError> {
    write_small(disk, directory, CHECKPOINT, checkpoint_text(position).as_bytes())
}

/// A position and its checksum: a flipped bit must not make it another position.
fn checkpoint_text(position: u64) -> String {
    let digest = Sha256::digest(position.to_be_bytes());
    let sum: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{position} {sum}\n")
}

/// Marks the stop as clean.
pub(crate) fn write_clean_mark<D: Disk>(disk: &D, directory: &Path) -> Result<(), StoreError> {
    write_small(disk, directory, CLEAN, b"clean")
}

fn write_small<D: Disk>(
    disk: &D,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.new"));
    if disk.exists(&temporary) {
        disk.remove(&temporary).map_err(StoreError::io("remove", &temporary))?;
    }
    let mut file = disk.create(&temporary).map_err(StoreError::io("create", &temporary))?;
    file.write_at(0, bytes).map_err(StoreError::io("write", &temporary))?;
    file.sync().map_err(StoreError::io("sync", &temporary))?;
    disk.rename(&temporary, &path).map_err(StoreError::io("rename", &path))?;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
}

/// How far the index was durable; 0 where that was never written or cannot be read: then more is
/// copied than need be.
fn read_checkpoint<D: Disk>(disk: &D, directory: &Path) -> Result<u64, StoreError> {
    let path = directory.join(CHECKPOINT);
    if !disk.exists(&path) {
        return Ok(0);
    }
    let bytes = disk.read(&path).map_err(StoreError::io("read", &path))?;
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| {
        let number = text.split(' ').next()?.parse().ok()?;
        (checkpoint_text(number) == text).then_some(number)
    });
    Ok(number.unwrap_or_else(|| {
        tracing::error!(event = "checkpoint_unreadable");
        0
    }))
}

fn take_clean_mark<D: Disk>(disk: &D, directory: &Path) -> Result<bool, StoreError> {
    let path = directory.join(CLEAN);
    if !disk.exists(&path) {
        return Ok(false);
    }
    disk.remove(&path).map_err(StoreError::io("remove", &path))?;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    Ok(true)
}
