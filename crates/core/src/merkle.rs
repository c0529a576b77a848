//! Merkle trees as RFC 6962 hashes them, of full sizes only: 1, 16, 256 or 4,096 leaves.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// A hash of a leaf or node.
pub type Hash = [u8; 32];

/// The sizes a tree may have. Groups are filled up with random leaves, so that a path tells
/// little of how much was signed together.
pub const SIZES: [usize; 4] = [1, 16, 256, 4096];

/// The largest group.
pub const LEAVES_MAX: usize = SIZES[3];

/// Levels above the leaves of the largest tree.
pub const HEIGHT_MAX: usize = LEAVES_MAX.trailing_zeros() as usize;

/// A tree of a full size, of which only what some leaf needs is kept.
#[derive(Debug)]
pub struct Tree {
    /// Level by level, the leaves first and the root last, in one buffer that all paths share.
    nodes: Bytes,
    /// Where each level starts in it, counted in hashes.
    starts: Vec<usize>,
}

impl Tree {
    /// Builds the tree of so many levels above its leaves, of which there must be at least one.
    ///
    /// Where a level ends without a partner, `fill` stands in: one random hash for each level.
    /// It cannot be told from a subtree of random leaves, which would cost a hash for each of them.
    #[must_use]
    pub fn new(leaves: &[Hash], height: usize, fill: &[Hash; HEIGHT_MAX]) -> Self {
        debug_assert!(!leaves.is_empty() && leaves.len() <= 1 << height);
        let mut nodes: Vec<Hash> = Vec::with_capacity(2 * (leaves.len() + height));
        nodes.extend_from_slice(leaves);
        let mut starts = vec![0];
        let mut start = 0;
        for stand_in in &fill[..height] {
            if (nodes.len() - start) % 2 == 1 {
                nodes.push(*stand_in);
            }
            let end = nodes.len();
            for left in (start..end).step_by(2) {
                nodes.push(node(&nodes[left], &nodes[left + 1]));
            }
            start = end;
            starts.push(start);
        }
        Self { nodes: nodes.into_flattened().into(), starts }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Bytes {
        self.hash(self.starts[self.starts.len() - 1])
    }

    /// Sibling hashes from a leaf up.
    pub fn path(&self, leaf: usize) -> impl Iterator<Item = Bytes> {
        let below_root = &self.starts[..self.starts.len() - 1];
        below_root
            .iter()
            .enumerate()
            .map(move |(height, start)| self.hash(start + ((leaf >> height) ^ 1)))
    }

    fn hash(&self, index: usize) -> Bytes {
        self.nodes.slice(index * size_of::<Hash>()..(index + 1) * size_of::<Hash>())
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
pub fn root_of(leaf: Hash, index: u32, size: u32, path: &[Bytes]) -> Option<Hash> {
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
            size in prop::sample::select(vec![1usize, 16, 256, 4096]),
            filled: prop::sample::Index,
            leaf: prop::sample::Index,
            wrong: prop::sample::Index,
        ) {
            // As many leaves as a group of this size may have, and any of them is tried.
            let all = leaves(filled.index(size) + 1);
            let height = size.trailing_zeros() as usize;
            let tree = Tree::new(&all, height, &[[7; 32]; HEIGHT_MAX]);
            let root: Hash = tree.root().as_ref().try_into().unwrap();
            let index = leaf.index(all.len());
            let path: Vec<Bytes> = tree.path(index).collect();
            let (at, of) = (u32::try_from(index).unwrap(), u32::try_from(size).unwrap());
            prop_assert_eq!(root_of(all[index], at, of, &path), Some(root));
            let other = wrong.index(all.len());
            if other != index {
                prop_assert_ne!(root_of(all[other], at, of, &path), Some(root));
                let other = u32::try_from(other).unwrap();
                prop_assert_ne!(root_of(all[index], other, of, &path), Some(root));
            }
            prop_assert_eq!(root_of(all[index], of, of, &path), None);
            prop_assert_eq!(root_of(all[index], at, of * 2, &path), None);
            if let Some((_, shorter)) = path.split_first() {
                prop_assert_eq!(root_of(all[index], at, of, shorter), None);
            }
        }
    }
}
