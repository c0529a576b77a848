//! Merkle trees as RFC 6962 hashes them, of full sizes only: 1, 16, 256 or 4,096 leaves.

use sha2::{Digest as _, Sha256};

/// A hash of a leaf or node.
pub type Hash = [u8; 32];

/// The sizes a tree may have. Groups are filled up with random leaves, so that a path tells
/// little of how much was signed together.
pub const SIZES: [usize; 4] = [1, 16, 256, 4096];

/// The largest group.
pub const LEAVES_MAX: usize = SIZES[3];

/// A tree over leaves.
#[derive(Debug)]
pub struct Tree {
    /// Leaves first, the root alone last.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Builds the tree. The number of leaves must be a power of two; [`padded_size`] gives one.
    #[must_use]
    pub fn new(leaves: Vec<Hash>) -> Self {
        debug_assert!(leaves.len().is_power_of_two());
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// Sibling hashes from a leaf up.
    #[must_use]
    pub fn path(&self, leaf: usize) -> Vec<Hash> {
        let below_root = &self.levels[..self.levels.len() - 1];
        let sibling = |(height, level): (usize, &Vec<Hash>)| level[(leaf >> height) ^ 1];
        below_root.iter().enumerate().map(sibling).collect()
    }
}

/// The size that a group of so many is filled up to; `None` where it is empty or too large.
#[must_use]
pub fn padded_size(items: usize) -> Option<usize> {
    if items == 0 {
        return None;
    }
    SIZES.into_iter().find(|size| items <= *size)
}

/// The root that a leaf and its path lead to; `None` where index or path do not fit the size.
#[must_use]
pub fn root_of(leaf: Hash, index: u32, size: u32, path: &[bytes::Bytes]) -> Option<Hash> {
    let known = SIZES.iter().any(|known| u32::try_from(*known) == Ok(size));
    if !known || index >= size || u32::try_from(path.len()) != Ok(size.trailing_zeros()) {
        return None;
    }
    let mut hash = leaf;
    for (height, sibling) in path.iter().enumerate() {
        let sibling: &Hash = sibling.as_ref().try_into().ok()?;
        hash = if index >> height & 1 == 0 { node(&hash, sibling) } else { node(sibling, &hash) };
    }
    Some(hash)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(size: usize) -> Vec<Hash> {
        (0..size).map(|index| Sha256::digest(index.to_be_bytes()).into()).collect()
    }

    #[test]
    fn sizes_are_padded() {
        let cases = [
            (0, None),
            (1, Some(1)),
            (2, Some(16)),
            (16, Some(16)),
            (17, Some(256)),
            (257, Some(4096)),
            (4096, Some(4096)),
            (4097, None),
        ];
        for (items, size) in cases {
            assert_eq!(padded_size(items), size);
        }
    }

    proptest! {
        #[test]
        fn every_path_leads_to_the_root_and_no_other_does(
            size in prop::sample::select(vec![1usize, 16, 256]),
            leaf: prop::sample::Index,
            wrong: prop::sample::Index,
        ) {
            let all = leaves(size);
            let tree = Tree::new(all.clone());
            let index = leaf.index(size);
            let path: Vec<bytes::Bytes> =
                tree.path(index).iter().map(|hash| bytes::Bytes::copy_from_slice(hash)).collect();
            let (at, of) = (u32::try_from(index).unwrap(), u32::try_from(size).unwrap());
            prop_assert_eq!(root_of(all[index], at, of, &path), Some(tree.root()));
            let other = wrong.index(size);
            if other != index {
                prop_assert_ne!(root_of(all[other], at, of, &path), Some(tree.root()));
                let other = u32::try_from(other).unwrap();
                prop_assert_ne!(root_of(all[index], other, of, &path), Some(tree.root()));
            }
            prop_assert_eq!(root_of(all[index], of, of, &path), None);
            prop_assert_eq!(root_of(all[index], at, of * 2, &path), None);
            if let Some((_, shorter)) = path.split_first() {
                prop_assert_eq!(root_of(all[index], at, of, shorter), None);
            }
        }
    }
}
