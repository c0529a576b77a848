//! The index: what can be found quickly. Never the promise: the journal has everything it lacks.

#[cfg(any(test, feature = "sim"))]
mod memory;
mod sled;

use sha2::{Digest as _, Sha256};

#[cfg(any(test, feature = "sim"))]
pub(crate) use memory::MemoryHome;
pub(crate) use sled::SledIndex;

use crate::{StoreError, journal::Write};

/// Largest value: sled keeps a leaf of 16 of them below the size at which it would write files
/// that it never syncs.
pub const VALUE_BYTES_MAX: usize = 6 * 1024;

/// Keys and values, as a scan gives them.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// An ordered map that may forget what was not flushed, but then says how far it is.
pub(crate) trait Index: Send + Sync + 'static {
    /// A value.
    ///
    /// # Errors
    /// What the engine says.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Pairs from a key on, while they begin with a prefix, in order.
    ///
    /// # Errors
    /// What the engine says.
    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Pairs, StoreError>;

    /// Puts and deletes as one, and moves the position on.
    ///
    /// # Errors
    /// What the engine says.
    fn apply(&self, position: u64, writes: &[Write]) -> Result<(), StoreError>;

    /// The number of the last group that was applied; 0 for an empty index.
    fn position(&self) -> u64;

    /// Makes everything applied durable.
    ///
    /// # Errors
    /// What the engine says.
    fn flush(&self) -> Result<(), StoreError>;

    /// Whether count and hash of all records are what the last group left.
    ///
    /// # Errors
    /// What the engine says.
    fn verify(&self) -> Result<bool, StoreError>;
}

/// Position, count and set-hash: what an index says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) position: u64,
    pub(crate) count: u64,
    /// Sum of the hashes of all records: the same in whatever order they came.
    pub(crate) hash: u128,
}

/// Under this key an index keeps its summary; no record has it.
pub(crate) const SUMMARY_KEY: &[u8] = &[0];

impl Summary {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(hash(key, value));
    }

    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.count = self.count.saturating_sub(1);
        self.hash = self.hash.wrapping_sub(hash(key, value));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&self.hash.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (position, rest) = bytes.split_at_checked(8)?;
        let (count, hash) = rest.split_at_checked(8)?;
        Some(Self {
            position: u64::from_be_bytes(position.try_into().ok()?),
            count: u64::from_be_bytes(count.try_into().ok()?),
            hash: u128::from_be_bytes(hash.try_into().ok()?),
        })
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let length = (key.len() as u64).to_be_bytes();
    let digest = Sha256::new_with_prefix(length).chain_update(key).chain_update(value).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(bytes)
}
