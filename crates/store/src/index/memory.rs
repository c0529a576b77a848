//! An index in memory that forgets what was not flushed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Index, Pairs, Summary};
use crate::{StoreError, journal::Write, open::IndexHome};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, Default)]
struct State {
    records: Records,
    summary: Summary,
}

/// An index in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryIndex {
    now: Mutex<State>,
    flushed: Arc<Mutex<State>>,
}

/// Where it is kept between starts: what was flushed.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryHome {
    flushed: Arc<Mutex<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryHome {
    /// The home as a crash leaves it: what is flushed later is not seen.
    pub(crate) fn crash(&self) -> Self {
        Self { flushed: Arc::new(Mutex::new(lock(&self.flushed).clone())) }
    }

    /// Takes a record away without saying so: an index that opens with records missing.
    #[cfg(test)]
    pub(crate) fn lose_one(&self) {
        lock(&self.flushed).records.pop_last();
    }
}

impl IndexHome for MemoryHome {
    type Index = MemoryIndex;

    fn open(&self) -> Result<MemoryIndex, StoreError> {
        let now = Mutex::new(lock(&self.flushed).clone());
        Ok(MemoryIndex { now, flushed: Arc::clone(&self.flushed) })
    }

    fn set_aside(&self) -> Result<(), StoreError> {
        *lock(&self.flushed) = State::default();
        Ok(())
    }
}

impl Index for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.now).records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Pairs, StoreError> {
        let state = lock(&self.now);
        let pairs = state.records.range(from.to_vec()..);
        let pairs = pairs.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, position: u64, writes: &[Write]) -> Result<(), StoreError> {
        let mut state = lock(&self.now);
        for Write { key, value } in writes {
            if let Some(old) = state.records.remove(key) {
                state.summary.remove(key, &old);
            }
            if let Some(value) = value {
                state.summary.add(key, value);
                state.records.insert(key.clone(), value.clone());
            }
        }
        state.summary.position = position;
        Ok(())
    }

    fn position(&self) -> u64 {
        lock(&self.now).summary.position
    }

    fn flush(&self) -> Result<(), StoreError> {
        *lock(&self.flushed) = lock(&self.now).clone();
        Ok(())
    }

    fn verify(&self) -> Result<bool, StoreError> {
        let state = lock(&self.now);
        let mut found = Summary { position: state.summary.position, ..Summary::default() };
        for (key, value) in &state.records {
            found.add(key, value);
        }
        Ok(found == state.summary)
    }
}
