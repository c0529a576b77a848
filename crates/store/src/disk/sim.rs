//! A disk in memory that forgets what was not synced: for showing that nothing acknowledged
//! depends on luck. Writes are remembered by pages of 4 KiB; creations, renames and removals by
//! directory. At a crash each of what was not synced is kept or lost by the seed.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Disk, DiskFile};

const PAGE: usize = 4096;

/// What the disk was asked to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Write(PathBuf),
    Sync(PathBuf),
}

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    names: BTreeMap<PathBuf, usize>,
    /// What a crash leaves for certain.
    durable_names: BTreeMap<PathBuf, usize>,
    files: Vec<File>,
    events: Vec<Event>,
    /// Syncs that still succeed, where some will fail.
    syncs_left: Option<u64>,
    full: bool,
    /// Bytes that are said to be free, where that was set.
    free_bytes: Option<u64>,
    /// Whether nobody wants to know what was asked.
    quiet: bool,
}

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

/// What is kept of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// Nothing.
    #[cfg_attr(not(test), expect(dead_code, reason = "a simulation leaves it to chance"))]
    Lost,
    /// Each page and each directory entry by chance.
    ByChance(u64),
}

impl SimDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as the next start finds it.
    pub(crate) fn crash(&self, unsynced: Unsynced) -> Self {
        let state = self.state();
        let mut chance = Chance::new(unsynced);
        let mut names = state.durable_names.clone();
        for path in state.names.keys().chain(state.durable_names.keys()) {
            if state.names.get(path) != state.durable_names.get(path) && chance.keeps() {
                match state.names.get(path) {
                    Some(file) => names.insert(path.clone(), *file),
                    None => names.remove(path),
                };
            }
        }
        let files: Vec<File> = state.files.iter().map(|file| file.after(&mut chance)).collect();
        let durable_names = names.clone();
        let (free_bytes, quiet) = (state.free_bytes, state.quiet);
        let after = State { names, durable_names, files, free_bytes, quiet, ..State::default() };
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// After so many more, every sync fails.
    pub(crate) fn fail_syncs_after(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    /// From now on so much is said to be free, whatever is written; and what is asked is not noted.
    pub(crate) fn set_free_bytes(&self, free_bytes: u64) {
        let mut state = self.state();
        state.free_bytes = Some(free_bytes);
        state.quiet = true;
    }

    /// From now on nothing can be written to new room.
    #[cfg(test)]
    pub(crate) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// What was asked, in order.
    #[cfg(test)]
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// Changes a file as damage would.
    #[cfg(test)]
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Some(file) = state.names.get(path).copied() {
            change(&mut state.files[file].bytes);
            state.files[file].durable = state.files[file].bytes.clone();
        }
    }
}

impl File {
    fn after(&self, chance: &mut Chance) -> Self {
        let mut bytes = self.durable.clone();
        let pages = self.bytes.len().div_ceil(PAGE);
        for page in 0..pages {
            let from = page * PAGE;
            let to = (from + PAGE).min(self.bytes.len());
            let changed = self.durable.get(from..to) != self.bytes.get(from..to);
            if changed && chance.keeps() {
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(&self.bytes[from..to]);
            }
        }
        Self { durable: bytes.clone(), bytes }
    }
}

/// Chance by a seed (splitmix64).
struct Chance {
    state: Option<u64>,
}

impl Chance {
    const fn new(unsynced: Unsynced) -> Self {
        match unsynced {
            Unsynced::Lost => Self { state: None },
            Unsynced::ByChance(seed) => Self { state: Some(seed) },
        }
    }

    fn keeps(&mut self) -> bool {
        let Some(state) = &mut self.state else { return false };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.names.insert(path.to_owned(), file);
        Ok(SimFile { disk: self.clone(), file })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = self.state();
        let file = *state.names.get(path).ok_or_else(missing)?;
        Ok(SimFile { disk: self.clone(), file })
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        Ok(state.names.get(path).map(|file| state.files[*file].bytes.len() as u64))
    }

    fn age(&self, _path: &Path) -> io::Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn read_at(&self, path: &Path, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?.min(bytes.len());
        Ok(bytes[from..(from + limit).min(bytes.len())].to_vec())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(path).ok_or_else(missing)?;
        Ok(state.files[*file].bytes.clone())
    }

    fn read_pieces(&self, path: &Path, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.read(path)?.chunks(PAGE).for_each(visit);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let file = state.names.remove(from).ok_or_else(missing)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().names.remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(inside.filter_map(name).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().names.contains_key(path)
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.sync()?;
        let inside = |name: &PathBuf| name.parent() == Some(path);
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(n, f)| (n.clone(), *f))
            .collect();
        state.durable_names.retain(|name, _| !inside(name));
        state.durable_names.extend(now);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(if state.full { 0 } else { state.free_bytes.unwrap_or(1 << 40) })
    }
}

impl State {
    /// Notes what was done with a file, by the name it has now.
    fn note(&mut self, file: usize, event: fn(PathBuf) -> Event) {
        if self.quiet {
            return;
        }
        let named = self.names.iter().find(|(_, named)| **named == file);
        let path = named.map(|(path, _)| path.clone()).unwrap_or_default();
        self.events.push(event(path));
    }

    fn sync(&mut self) -> io::Result<()> {
        match &mut self.syncs_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the disk failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

/// A file of the disk in memory.
#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let to = from + bytes.len();
        if state.full && to > state.files[self.file].bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut state.files[self.file];
        if file.bytes.len() < to {
            file.bytes.resize(to, 0);
        }
        file.bytes[from..to].copy_from_slice(bytes);
        state.note(self.file, Event::Write);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.sync()?;
        let file = &mut state.files[self.file];
        file.durable.clone_from(&file.bytes);
        state.note(self.file, Event::Sync);
        Ok(())
    }
}
