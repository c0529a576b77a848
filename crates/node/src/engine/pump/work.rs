//! What there is to send: which queues lead over this peer, what of them may go, and receipts on
//! their way home.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bureau_core::{BureauCode, Lane, MessageId};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{QueuePosition, Queued, QueuedEntry, QueuedSlip};
use tokio::time::Instant;

use super::{Pump, READ_BYTES_MAX, READ_MAX, RECEIPTS_MAX, flight::Carried};
use crate::engine::{links::Links, outbound::End, session::RECEIPT_BATCHES_MAX};

/// Which destinations this peer leads to, as long as nothing changed that decides it.
#[derive(Debug, Default)]
pub(super) struct Leads {
    generation: u64,
    known: HashMap<BureauCode, bool>,
}

impl Leads {
    /// Forgets what may have changed.
    fn refresh(&mut self, links: &Links) {
        let generation = links.generation();
        if generation != self.generation {
            self.generation = generation;
            self.known.clear();
        }
    }

    /// Forgets everything: rosters and peers' words change without a word here.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl Pump<'_> {
    /// Looks in which queues something waits that leads over this peer.
    pub(super) fn find_work(&mut self) {
        if !std::mem::take(&mut self.look) {
            return;
        }
        self.leads.refresh(&self.engine.links);
        let held = self.engine.links.held(self.slot.peer).is_some();
        let depths = if held { Vec::new() } else { self.engine.store.depths() };
        let waiting: Vec<_> = depths
            .into_iter()
            .filter(|depth| depth.messages > 0 && self.leads_to(depth.destination))
            .map(|depth| (depth.lane, depth.destination))
            .collect();
        self.cursors.set_work(waiting.into_iter());
    }

    /// Whether this peer leads to a destination now.
    fn leads_to(&mut self, destination: BureauCode) -> bool {
        let (engine, peer) = (self.engine, self.slot.peer);
        let lead = || engine.links.next_hop(destination, &engine.trust.roster()) == Some(peer);
        *self.leads.known.entry(destination).or_insert_with(lead)
    }

    /// Whether a lane has something to send that there is room for; reads more where it has not.
    pub(super) async fn has_work(&mut self, index: usize) -> Result<bool, End> {
        if self.pieces.get(index).is_some_and(Option::is_some) {
            return Ok(true);
        }
        if self.paused_until.is_some() || !self.has_slot(index) {
            return Ok(false);
        }
        if index > 0 && self.drain.is_empty(Instant::now()) {
            return Ok(false);
        }
        let Some(lane) = Lane::ALL.get(index).copied() else { return Ok(false) };
        while self.ready.get(index).is_some_and(VecDeque::is_empty) {
            let read = match self.next_detour(index, lane) {
                Some(position) => self.read_detour(position).await?,
                None => match self.cursors.next(lane) {
                    Some((destination, after)) => self.read_queue(lane, destination, after).await?,
                    None => return Ok(false),
                },
            };
            if let Some(ready) = self.ready.get_mut(index) {
                ready.extend(read);
            }
        }
        Ok(true)
    }

    /// Reads on in a queue that leads here: what may go now. What must go another way is noted for
    /// who leads there.
    async fn read_queue(
        &mut self,
        lane: Lane,
        destination: BureauCode,
        after: u64,
    ) -> Result<Vec<Queued>, End> {
        let queued = self.engine.store.queued(destination, lane, after, READ_MAX, READ_BYTES_MAX);
        let queued = queued.await.map_err(|error| End::of_store(&error))?;
        let mut last = queued.last().map(|queued| queued.entry.position.number);
        let (mut read, peer) = (Vec::with_capacity(queued.len()), self.slot.peer);
        for queued in queued {
            let QueuedEntry { position, avoid, .. } = &queued.entry;
            if avoid.contains(&peer) {
                let roster = self.engine.trust.roster();
                if !self.engine.links.detour(*position, avoid, &roster) {
                    // There is no room; what is behind it must wait until there is.
                    last = None;
                    break;
                }
            } else if queued.unreadable {
                let recipients = vec![position.destination];
                self.set_aside(queued.entry.message, recipients, "UNREADABLE").await?;
            } else if self.may_go(&queued) {
                read.push(queued);
            }
        }
        self.cursors.advance(lane, destination, last);
        Ok(read)
    }

    /// The next message of a lane that must not go where others go, but may go here.
    fn next_detour(&mut self, index: usize, lane: Lane) -> Option<QueuePosition> {
        let after = self.detoured.get_mut(index)?;
        let (links, roster) = (&self.engine.links, self.engine.trust.roster());
        if links.held(self.slot.peer).is_some() {
            return None;
        }
        let position = links.next_detour(self.slot.peer, lane, *after, &roster)?;
        *after = Some(position);
        Some(position)
    }

    async fn read_detour(&self, position: QueuePosition) -> Result<Vec<Queued>, End> {
        let QueuePosition { destination, lane, number } = position;
        let queued = self.engine.store.queued(destination, lane, number.saturating_sub(1), 1, 1);
        let mut queued = queued.await.map_err(|error| End::of_store(&error))?;
        queued.retain(|queued| queued.entry.position == position);
        if queued.is_empty() {
            self.engine.links.detours().gone(&position);
        }
        queued.retain(|queued| !queued.unreadable && self.may_go(queued));
        Ok(queued)
    }

    /// Whether the window has a place for a parcel of a lane. Each lane has some places of its own;
    /// of the others the less urgent may take the fewer, so that some are left for what is urgent.
    fn has_slot(&self, index: usize) -> bool {
        let own = self.window.parcels / 16;
        let lanes = self.flight.lanes();
        if index > 0 && self.flight.bytes() >= self.window.bytes {
            return false;
        }
        if lanes.get(index).is_some_and(|used| *used < own) {
            return true;
        }
        let common = self.window.parcels - 4 * own;
        let used: usize = lanes.iter().map(|used| used.saturating_sub(own)).sum();
        used < (common - common * index / 8).max(1)
    }

    /// What this peer had does not go back to it; what expired is the timers' to give up.
    pub(super) fn may_go(&self, queued: &Queued) -> bool {
        let entry = &queued.entry;
        !self.flight.carries(entry.message, entry.position.destination)
            && !self.transfers.holds(entry.message)
            && entry.expires > self.engine.clock.now()
            && !entry.avoid.contains(&self.slot.peer)
    }

    /// The slips among others that lead over this peer too and are not under way.
    pub(super) fn same_way(
        &mut self,
        message: MessageId,
        others: Vec<QueuedSlip>,
        taken: &BTreeMap<BureauCode, Carried>,
    ) -> Vec<QueuedSlip> {
        let mut fits = Vec::new();
        for other in others {
            let destination = other.position.destination;
            if !taken.contains_key(&destination)
                && !self.flight.carries(message, destination)
                && !other.avoid.contains(&self.slot.peer)
                && self.leads_to(destination)
            {
                fits.push(other);
            }
        }
        fits
    }

    pub(super) async fn send_receipts(&mut self) -> Result<bool, End> {
        let mut sent = false;
        for destination in self.engine.store.receipt_destinations() {
            if self.batches.len() >= RECEIPT_BATCHES_MAX {
                break;
            }
            if !self.leads_to(destination) {
                continue;
            }
            let after = self.receipt_cursors.get(&destination).copied().unwrap_or(0);
            let receipts = self.engine.store.receipts(destination, after, RECEIPTS_MAX);
            let receipts = receipts.await.map_err(|error| End::of_store(&error))?;
            let Some(last) = receipts.last() else { continue };
            self.receipt_cursors.insert(destination, last.position.number);
            self.last_batch += 1;
            let positions = receipts.iter().map(|receipt| receipt.position).collect();
            self.batches.insert(self.last_batch, positions);
            let receipts = receipts.into_iter().map(|receipt| receipt.receipt).collect();
            let home = destination.to_string();
            let batch = wire::ReceiptBatch { number: self.last_batch, receipts, home };
            self.outbound.send(Kind::Receipts(batch)).await?;
            sent = true;
        }
        Ok(sent)
    }
}
