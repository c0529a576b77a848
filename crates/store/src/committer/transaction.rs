//! What an operation sees: the index, over it what is durable and not yet applied, over that the
//! group so far, and its own writes on top.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    StoreError,
    index::{Index, Pairs},
    journal::Write,
};

type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Writes that are durable and not yet applied.
pub(super) struct Overlay {
    writes: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
    groups: VecDeque<(u64, Vec<Vec<u8>>)>,
    applied: Arc<AtomicU64>,
}

impl Overlay {
    pub(super) const fn new(applied: Arc<AtomicU64>) -> Self {
        Self { writes: BTreeMap::new(), groups: VecDeque::new(), applied }
    }

    /// The last group that was applied.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub(super) fn add(&mut self, number: u64, writes: &[Write]) {
        let applied = self.applied.load(Ordering::Acquire);
        while let Some((group, keys)) = self.groups.pop_front_if(|(group, _)| *group <= applied) {
            for key in keys {
                // A later group may have written it again.
                if self.writes.get(&key).is_some_and(|(writer, _)| *writer == group) {
                    self.writes.remove(&key);
                }
            }
        }
        for write in writes {
            self.writes.insert(write.key.clone(), (number, write.value.clone()));
        }
        self.groups.push_back((number, writes.iter().map(|write| write.key.clone()).collect()));
    }
}

/// One operation's view and writes.
pub(crate) struct Transaction<'a> {
    index: &'a dyn Index,
    overlay: &'a Overlay,
    group: &'a Writes,
    own: Writes,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(index: &'a dyn Index, overlay: &'a Overlay, group: &'a Writes) -> Self {
        Self { index, overlay, group, own: Writes::new() }
    }

    pub(super) fn into_writes(self) -> Writes {
        self.own
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.own.get(key).or_else(|| self.group.get(key)) {
            return Ok(value.clone());
        }
        match self.overlay.writes.get(key) {
            Some((_, value)) => Ok(value.clone()),
            None => self.index.get(key),
        }
    }

    /// All pairs under a prefix, in order. For prefixes of few keys.
    pub(crate) fn scan_prefix(&self, prefix: &[u8]) -> Result<Pairs, StoreError> {
        let found = self.index.scan(prefix, prefix, usize::MAX)?;
        let mut pairs: Writes = found.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let from = || prefix.to_vec()..;
        let under = |key: &Vec<u8>| key.starts_with(prefix);
        let overlay = self.overlay.writes.range(from()).take_while(|(key, _)| under(key));
        pairs.extend(overlay.map(|(key, (_, value))| (key.clone(), value.clone())));
        for writes in [self.group, &self.own] {
            let writes = writes.range(from()).take_while(|(key, _)| under(key));
            pairs.extend(writes.map(|(key, value)| (key.clone(), value.clone())));
        }
        Ok(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.own.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.own.insert(key, None);
    }
}
