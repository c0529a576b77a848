//! sled as the index: one tree, plain batches, flushed and synced at checkpoints only. What was
//! learned of sled 0.34 by cutting its power stands beside each line that works around it.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sled::{Batch, Config, Db, Mode};

use super::{Index, Pairs, SUMMARY_KEY, Summary};
use crate::{StoreError, journal::Write};

/// sled as the index.
#[derive(Debug)]
pub(crate) struct SledIndex {
    db: Db,
    directory: PathBuf,
    /// Only the applying thread changes it; readers of the position wait no longer than a copy.
    summary: Mutex<Summary>,
}

impl SledIndex {
    /// Opens or makes an index in a directory of its own.
    ///
    /// # Errors
    /// [`StoreError::Index`] where sled refuses, or panics.
    pub(crate) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let fresh = !directory.join("db").exists();
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(directory).map_err(StoreError::io("create", directory))?;
        remove_stale(directory)?;
        let config = Config::new()
            .path(directory)
            .mode(Mode::LowSpace)
            .cache_capacity(cache_bytes)
            // Checkpoints decide when; sled's own timer would sync at any moment.
            .flush_every_ms(None);
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(StoreError::Index(error.to_string())),
            Err(_) => return Err(StoreError::Index("sled panicked while opening".to_owned())),
        };
        let read = catch_unwind(AssertUnwindSafe(|| db.get(SUMMARY_KEY)));
        let summary = match read {
            Ok(Ok(None)) => Summary::default(),
            Ok(Ok(Some(bytes))) => Summary::decode(&bytes)
                .ok_or_else(|| StoreError::Index("the summary cannot be read".to_owned()))?,
            Ok(Err(error)) => return Err(StoreError::Index(error.to_string())),
            Err(_) => return Err(StoreError::Index("sled panicked while reading".to_owned())),
        };
        let index = Self { db, directory: directory.to_owned(), summary: Mutex::new(summary) };
        if fresh {
            // sled never syncs its configuration file or the directory; half-written, it would
            // refuse to open.
            index.flush()?;
            sync(&directory.join("conf"))?;
            sync(directory)?;
        }
        Ok(index)
    }

    fn summary(&self) -> Summary {
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index for SledIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.db.get(key).map_err(failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Pairs, StoreError> {
        let mut pairs = Vec::new();
        for pair in self.db.range(from.to_vec()..).take(limit) {
            let (key, value) = pair.map_err(failed)?;
            if !key.starts_with(prefix) {
                break;
            }
            pairs.push((key.to_vec(), value.to_vec()));
        }
        Ok(pairs)
    }

    fn apply(&self, position: u64, writes: &[Write]) -> Result<(), StoreError> {
        let mut summary = self.summary();
        let mut batch = Batch::default();
        for write in writes {
            if let Some(old) = self.db.get(&write.key).map_err(failed)? {
                summary.remove(&write.key, &old);
            }
            match &write.value {
                Some(value) => {
                    summary.add(&write.key, value);
                    batch.insert(write.key.as_slice(), value.as_slice());
                }
                None => batch.remove(write.key.as_slice()),
            }
        }
        summary.position = position;
        batch.insert(SUMMARY_KEY, summary.encode());
        self.db.apply_batch(batch).map_err(failed)?;
        *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = summary;
        Ok(())
    }

    fn position(&self) -> u64 {
        self.summary().position
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed)?;
        // sled's flush ends before the disk's; without this a power cut takes nearly everything.
        sync(&self.directory.join("db"))
    }

    fn verify(&self) -> Result<bool, StoreError> {
        let expected = self.summary();
        let mut found = Summary { position: expected.position, ..Summary::default() };
        for pair in self.db.iter() {
            let (key, value) = pair.map_err(failed)?;
            if key != SUMMARY_KEY {
                found.add(&key, &value);
            }
        }
        Ok(found == expected)
    }
}

fn failed(error: sled::Error) -> StoreError {
    StoreError::Index(error.to_string())
}

fn sync(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(StoreError::io("sync", path))
}

/// A snapshot of sled's own that was being written when the process ended stops the next open.
fn remove_stale(directory: &Path) -> Result<(), StoreError> {
    if !directory.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}
