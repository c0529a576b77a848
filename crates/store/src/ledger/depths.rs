//! What waits, counted in memory: read at open, kept by every group, asked for at any time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, Epoch, Lane, Timestamp};
use tokio::sync::broadcast;

use super::{Decided, Note};
use crate::{
    StoreError,
    bodies::Bodies,
    committer::Observer,
    contract::{Changes, Depth, HeldDepth, HoldReason, QueuePosition},
    disk::Disk,
    index::Index,
    keys,
    record::{self, HeldRecord, QueueRecord},
};

/// Groups of changes that a slow receiver may be behind before it must look at all.
pub(crate) const CHANGES_MAX: usize = 1024;
const SCAN: usize = 1024;

/// Counts, shared between the applying thread and those who ask.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queues: BTreeMap<(BureauCode, Lane), (u64, Timestamp)>,
    receipts: BTreeMap<BureauCode, u64>,
    held: BTreeMap<(BureauCode, HoldReason), u64>,
    latest: Option<Timestamp>,
    epoch: Option<Epoch>,
    /// Where the head of a queue was when last looked at: it only moves on, and what is before it
    /// are emptied pages that a look from the beginning would walk over.
    heads: BTreeMap<(BureauCode, Lane), u64>,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what an index holds.
    pub(crate) fn read(
        index: &dyn Index,
        latest: Timestamp,
        epoch: Epoch,
    ) -> Result<Self, StoreError> {
        let mut inner = Inner { latest: Some(latest), epoch: Some(epoch), ..Inner::default() };
        for_each(index, &[keys::prefix::QUEUE], |key, value| {
            let Some(position) = keys::queue_position(key) else { return Ok(()) };
            let queue = (position.destination, position.lane);
            match inner.queues.get_mut(&queue) {
                Some((messages, _)) => *messages += 1,
                None => {
                    // One damaged record must not keep the others from going.
                    let record = record::decode::<QueueRecord>(key, value);
                    let oldest =
                        record.map_or(latest, |record| Timestamp::from_ms(record.enqueued_ms));
                    inner.queues.insert(queue, (1, oldest));
                }
            }
            Ok(())
        })?;
        for_each(index, &[keys::prefix::HELD], |key, value| {
            let record = record::decode::<HeldRecord>(key, value).ok();
            if let (Some((recipient, _)), Some(record)) = (keys::held_parts(key), record) {
                *inner.held.entry((recipient, record.held().reason)).or_insert(0) += 1;
            }
            Ok(())
        })?;
        for_each(index, &[keys::prefix::OUTGOING], |key, _| {
            if let Some(position) = keys::outgoing_position(key) {
                *inner.receipts.entry(position.destination).or_insert(0) += 1;
            }
            Ok(())
        })?;
        Ok(Self { inner: Mutex::new(inner) })
    }

    pub(crate) fn depths(&self) -> Vec<Depth> {
        let depth = |(queue, count): (&(BureauCode, Lane), &(u64, Timestamp))| Depth {
            destination: queue.0,
            lane: queue.1,
            messages: count.0,
            oldest: count.1,
        };
        self.lock().queues.iter().map(depth).collect()
    }

    pub(crate) fn depth(&self, destination: BureauCode) -> u64 {
        let range = (destination, Lane::Flash)..=(destination, Lane::Routine);
        self.lock().queues.range(range).map(|(_, (messages, _))| messages).sum()
    }

    pub(crate) fn held_depths(&self) -> Vec<HeldDepth> {
        let depth = |((destination, reason), messages): (&(BureauCode, HoldReason), &u64)| {
            HeldDepth { destination: *destination, reason: *reason, messages: *messages }
        };
        self.lock().held.iter().map(depth).collect()
    }

    pub(crate) fn receipt_destinations(&self) -> Vec<BureauCode> {
        self.lock().receipts.keys().copied().collect()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().epoch.unwrap_or(Epoch([0; 16]))
    }

    pub(crate) fn latest(&self) -> Timestamp {
        self.lock().latest.unwrap_or(Timestamp::from_ms(0))
    }
}

/// Calls for every pair under a prefix, in order.
pub(crate) fn for_each(
    index: &dyn Index,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = prefix.to_vec();
    loop {
        let pairs = index.scan(&from, prefix, SCAN)?;
        let Some((last, _)) = pairs.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &pairs {
            visit(key, value)?;
        }
    }
}

/// Keeps the counts and tells of changes.
pub(crate) struct Watcher<D: Disk, I: Index> {
    pub(crate) index: Arc<I>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) changes: broadcast::Sender<Arc<Changes>>,
    pub(crate) bodies: Bodies<D>,
}

impl<D: Disk, I: Index> Observer<Decided> for Watcher<D, I> {
    fn visible(&mut self, outcomes: &[Decided]) {
        let mut changes = Changes::default();
        let mut heads = Vec::new();
        let mut released = Vec::new();
        {
            let mut counts = self.counts.lock();
            for note in outcomes.iter().flat_map(|decided| &decided.notes) {
                match note {
                    Note::Queued(position, enqueued) => {
                        let queue = (position.destination, position.lane);
                        counts.queues.entry(queue).or_insert((0, *enqueued)).0 += 1;
                        changes.destinations.push(position.destination);
                    }
                    Note::Dequeued(position) => {
                        let queue = (position.destination, position.lane);
                        heads.push(queue);
                        if let Some(count) = counts.queues.get_mut(&queue) {
                            count.0 = count.0.saturating_sub(1);
                        }
                    }
                    Note::Held(recipient, reason) => {
                        *counts.held.entry((*recipient, *reason)).or_insert(0) += 1;
                    }
                    Note::Unheld(recipient, reason) => {
                        if let Some(count) = counts.held.get_mut(&(*recipient, *reason)) {
                            *count = count.saturating_sub(1);
                        }
                    }
                    Note::ReceiptQueued(destination) => {
                        *counts.receipts.entry(*destination).or_insert(0) += 1;
                        changes.destinations.push(*destination);
                    }
                    Note::ReceiptDequeued(destination) => {
                        if let Some(count) = counts.receipts.get_mut(destination) {
                            *count = count.saturating_sub(1);
                        }
                    }
                    Note::Arrived(number) => changes.inbox = changes.inbox.max(Some(*number)),
                    Note::BodyReleased(digest) => released.push(*digest),
                    Note::Epoch(epoch) => counts.epoch = Some(*epoch),
                    Note::Time(time) => counts.latest = counts.latest.max(Some(*time)),
                }
            }
            counts.queues.retain(|_, (messages, _)| *messages > 0);
            counts.receipts.retain(|_, receipts| *receipts > 0);
            counts.held.retain(|_, messages| *messages > 0);
        }
        heads.sort_unstable();
        heads.dedup();
        for queue in heads {
            self.look_at_head(queue);
        }
        for digest in released {
            self.remove_body(&digest);
        }
        changes.destinations.sort_unstable();
        changes.destinations.dedup();
        if changes != Changes::default() {
            // Nobody may be listening.
            drop(self.changes.send(Arc::new(changes)));
        }
    }
}

impl<D: Disk, I: Index> Watcher<D, I> {
    /// The oldest of a queue went: since when the next one waits.
    fn look_at_head(&self, queue: (BureauCode, Lane)) {
        let prefix = keys::queue_lane(&queue.0, queue.1);
        let number = self.counts.lock().heads.get(&queue).copied().unwrap_or(0);
        let position = QueuePosition { destination: queue.0, lane: queue.1, number };
        let head = match self.index.scan(&keys::queue(&position), &prefix, 1) {
            Ok(pairs) => pairs.into_iter().next(),
            Err(error) => {
                tracing::error!(event = "index_unreadable", error = %error);
                return;
            }
        };
        let Some((key, value)) = head else { return };
        let mut counts = self.counts.lock();
        if let Some(number) = keys::last_number(&key) {
            counts.heads.insert(queue, number);
        }
        let record = record::decode::<QueueRecord>(&key, &value).ok();
        if let (Some(record), Some(count)) = (record, counts.queues.get_mut(&queue)) {
            count.1 = Timestamp::from_ms(record.enqueued_ms);
        }
    }

    fn remove_body(&self, digest: &[u8; 32]) {
        let prefix = keys::bodies_of(digest);
        let referred = || Ok(!self.index.scan(&prefix, &prefix, 1)?.is_empty());
        if let Err(error) = self.bodies.remove(digest, referred) {
            // The file stays: space, not truth.
            tracing::error!(event = "body_not_removed", error = %error);
        }
    }
}
