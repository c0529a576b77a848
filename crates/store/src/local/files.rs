//! Bodies that are files: written before the group that names them, and gone where none does.

use std::{collections::HashSet, sync::Arc};

use bureau_core::{Envelope, Verified};
use bytes::Bytes;

use super::{JournaledStore, Parts};
use crate::{
    StoreError,
    contract::{Operation, Outcome, Receive, ReceiveAction, Received},
    disk::Disk,
    index::Index,
    keys,
    ledger::{INLINE_BODY_BYTES_MAX, INLINE_BYTES_MAX, Ordered},
};

/// Where bodies are, in the store's directory.
pub(super) const DIRECTORY: &str = "bodies";

/// Bodies that must be files, of operations that may name them.
pub(super) fn large_bodies(operations: &[Operation]) -> Vec<([u8; 32], Bytes)> {
    let large = operations.iter().filter_map(content).filter(|envelope| {
        // The signature of a manifest takes under 1 KiB.
        let body = envelope.body().len();
        body > INLINE_BODY_BYTES_MAX || envelope.signed_manifest().len() + body > INLINE_BYTES_MAX
    });
    large.map(|envelope| (envelope.manifest().body.digest, envelope.body().clone())).collect()
}

/// Attachments that an operation may name.
fn attachments(operation: &Operation) -> Vec<[u8; 32]> {
    let named = content(operation).map(|envelope| &envelope.manifest().attachments);
    named.into_iter().flatten().map(|attachment| attachment.digest).collect()
}

/// Whether an operation may name attachments.
pub(super) fn names_attachments(operation: &Operation) -> bool {
    content(operation).is_some_and(|envelope| !envelope.manifest().attachments.is_empty())
}

/// What an operation may keep the content of: nothing, where it refuses all of it.
fn content(operation: &Operation) -> Option<&Verified<Envelope>> {
    match operation {
        Operation::Accept(accept) => Some(&accept.envelope),
        Operation::Receive(receive) => keeps_content(receive).then_some(&receive.envelope),
        _ => None,
    }
}

fn keeps_content(receive: &Receive) -> bool {
    receive.slips.iter().any(|slip| slip.action != ReceiveAction::Refuse)
}

/// Whether everything that was asked was done: then every body that was written is named.
fn all_kept(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| match outcome {
        Outcome::RequestRepeated(_)
        | Outcome::RequestReused
        | Outcome::NotRequeued(_)
        | Outcome::AttachmentMissing => false,
        Outcome::Received(slips) => slips.iter().all(|slip| *slip == Received::Fresh),
        _ => true,
    })
}

impl<D: Disk, I: Index> JournaledStore<D, I> {
    /// Commits operations whose bodies are files.
    pub(super) async fn commit_with_files(
        &self,
        operations: Vec<Operation>,
        large: Vec<([u8; 32], Bytes)>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let mut digests: HashSet<[u8; 32]> = large.iter().map(|(digest, _)| *digest).collect();
        let named: Vec<Vec<[u8; 32]>> = operations.iter().map(attachments).collect();
        digests.extend(named.iter().flatten());
        let (bodies, attachments) = (self.parts.bodies.clone(), self.parts.attachments.clone());
        let prepared = self.parts.hands.offload(move || {
            let held = bodies.hold(named.iter().flatten().copied().collect());
            let claim = |digests: Vec<_>| Ok(digests.is_empty() || attachments.claim(&digests)?);
            let there = named.into_iter().map(claim).collect::<Result<Vec<bool>, StoreError>>()?;
            Ok::<_, StoreError>(((bodies.put(large)?, held), there))
        });
        let (pins, there) = prepared.await?;
        // Held by each operation, and by its outcome: should the caller go away now, the group may
        // still name the bodies, and nobody may remove them meanwhile.
        let pins = Some(Arc::new(pins));
        let ordered = |(operation, there): (Operation, bool)| Ordered {
            operation,
            bodies: pins.clone(),
            missing: !there,
        };
        let operations = operations.into_iter().zip(there).map(ordered).collect();
        drop(pins);
        let decided = self.parts.committer.commit(operations).await?;
        let outcomes: Vec<_> = decided.into_iter().map(|decided| decided.outcome).collect();
        if !all_kept(&outcomes) {
            let parts = Arc::clone(&self.parts);
            let removed = self.parts.hands.offload(move || parts.remove_unnamed(digests)).await;
            if let Err(error) = removed {
                // The commit stands. The file stays: space, not truth.
                tracing::error!(event = "body_not_removed", error = %error);
            }
        }
        Ok(outcomes)
    }
}

impl<D: Disk, I: Index> Parts<D, I> {
    /// Removes bodies that no record names and nobody is about to name.
    fn remove_unnamed(
        &self,
        digests: impl IntoIterator<Item = [u8; 32]>,
    ) -> Result<(), StoreError> {
        for digest in digests {
            let prefix = keys::bodies_of(&digest);
            let named = || Ok(!self.index.scan(&prefix, &prefix, 1)?.is_empty());
            self.bodies.remove(&digest, named)?;
        }
        Ok(())
    }

    /// Removes what was written for a group that never came: the power went, or the caller.
    pub(super) fn sweep_bodies(&self) -> Result<(), StoreError> {
        self.attachments.sweep()?;
        let directory = self.directory.join(DIRECTORY);
        let names = self.disk.list(&directory).map_err(StoreError::io("list", &directory))?;
        self.remove_unnamed(names.iter().filter_map(|name| digest(name)))
    }
}

/// The digest that a file is named by.
fn digest(name: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if name.len() != 2 * digest.len() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(name.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}
