//! Attachments on their way to the peer: offered with their message's manifest, sent in parts from
//! where the peer says, and once all of a message's are there, the message itself.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use bureau_core::{BureauCode, Lane, MessageId, envelope::stored_manifest};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{Content, QueuePosition, Queued};
use bytes::Bytes;
use tokio::time::Instant;

use super::Pump;
use crate::engine::{doing::OPEN_MAX, outbound::End};

/// Messages of all lanes whose attachments are on their way at one time.
pub const TRANSFERS_MAX: usize = Lane::ALL.len() * OPEN_MAX;
/// How long nothing is offered after the peer asked for patience; twice as long each further time,
/// because what stands in its way, a full disk above all, does not go soon.
const LATER: Duration = Duration::from_secs(2);
/// No pause is longer.
const LATER_MAX: Duration = Duration::from_secs(60);

type Key = (usize, u64);

/// Transfers of one link.
#[derive(Default)]
pub(super) struct Transfers {
    /// By lane and offer number: the most urgent first, then the oldest.
    open: BTreeMap<Key, Transfer>,
    messages: HashSet<MessageId>,
    /// Messages whose attachments the peer has: they may be sent.
    cleared: HashSet<MessageId>,
    /// Where reading must go back to when a place is free.
    put_off: BTreeMap<(Lane, BureauCode), QueuePosition>,
    /// Offers that came to nothing, which the peer has not been told.
    withdrawn: Vec<u64>,
    /// The peer asked for patience.
    pub(super) paused_until: Option<Instant>,
    /// Pauses since something arrived.
    pauses: u32,
}

struct Transfer {
    queued: Queued,
    contents: Vec<Going>,
    /// When something of it was last sent or answered.
    moved: Instant,
}

struct Going {
    content: Content,
    /// Where the next part begins; `None` until the peer has said.
    offset: Option<u64>,
    /// The peer says that it has all of it.
    arrived: bool,
}

impl Going {
    const fn wants_part(&self) -> bool {
        !self.arrived && matches!(self.offset, Some(offset) if offset < self.content.size)
    }
}

impl Transfers {
    /// Whether a message must not be sent yet: its attachments are on their way.
    pub(super) fn holds(&self, message: MessageId) -> bool {
        self.messages.contains(&message)
    }

    /// Whether no attachment is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether there is a part to send.
    pub(super) fn has_work(&self) -> bool {
        self.paused_until.is_none()
            && self.open.values().any(|transfer| transfer.contents.iter().any(Going::wants_part))
    }

    /// Since when the longest waits that only the peer can move on.
    pub(super) fn oldest_unanswered(&self) -> Option<Instant> {
        let waits = |transfer: &&Transfer| !transfer.contents.iter().any(Going::wants_part);
        self.open.values().filter(waits).map(|transfer| transfer.moved).min()
    }

    /// Offers nothing for a while.
    pub(super) fn pause(&mut self, now: Instant) {
        let pause = LATER.saturating_mul(1 << self.pauses.min(16)).min(LATER_MAX);
        self.pauses = self.pauses.saturating_add(1);
        self.paused_until = Some(now + pause);
    }

    /// A message is read again when there is a place for it.
    pub(super) fn put_off(&mut self, position: QueuePosition) {
        let queue = (position.lane, position.destination);
        let first = self.put_off.entry(queue).or_insert(position);
        if position.number < first.number {
            *first = position;
        }
    }

    /// Where reading must go back to, of one lane or of all.
    fn take_put_off(&mut self, lane: Option<usize>) -> Vec<QueuePosition> {
        let lane = lane.and_then(|index| Lane::ALL.get(index));
        let all = std::mem::take(&mut self.put_off);
        let (taken, left) = all.into_iter().partition(|((of, _), _)| lane.is_none_or(|l| l == of));
        self.put_off = left;
        let taken: BTreeMap<_, _> = taken;
        taken.into_values().collect()
    }

    /// A message is not sent after all.
    pub(super) fn forget(&mut self, message: MessageId) {
        self.cleared.remove(&message);
    }

    fn goings(&mut self, digest: [u8; 32]) -> impl Iterator<Item = &mut Going> {
        let contents = self.open.values_mut().flat_map(|transfer| &mut transfer.contents);
        contents.filter(move |going| going.content.digest == digest)
    }

    /// The peer says from where on it needs an attachment. Gives the messages that can go now.
    fn taken(&mut self, digest: [u8; 32], offset: u64, now: Instant) -> Vec<Key> {
        // Offers are answered in their order. One that is not answered yet may be of what is under
        // way for another message, which is further by now than the peer knew: that one goes on.
        // Should this have been another word than the answer, the answer repeats it.
        let under_way = self.goings(digest).find_map(|going| going.offset);
        let asked = self.open.iter_mut().filter_map(|((_, number), transfer)| {
            let mut contents = transfer.contents.iter_mut();
            let is_it =
                |going: &&mut Going| going.content.digest == digest && going.offset.is_none();
            contents.find(is_it).map(|going| (*number, going))
        });
        if let Some((_, asked)) = asked.min_by_key(|(number, _)| *number) {
            asked.offset = Some(under_way.unwrap_or(offset));
        } else {
            for going in self.goings(digest) {
                going.offset = Some(offset);
            }
        }
        for going in self.goings(digest) {
            going.arrived |= offset >= going.content.size;
        }
        let mut there = Vec::new();
        for (key, transfer) in &mut self.open {
            if transfer.contents.iter().any(|going| going.content.digest == digest) {
                transfer.moved = now;
                if transfer.contents.iter().all(|going| going.arrived) {
                    there.push(*key);
                }
            }
        }
        there
    }

    /// A part was sent: every message that needs it is that much further.
    fn sent(&mut self, digest: [u8; 32], next: u64, now: Instant) {
        for going in self.goings(digest) {
            going.offset = going.offset.map(|_| next.min(going.content.size));
        }
        for transfer in self.open.values_mut() {
            if transfer.contents.iter().any(|going| going.content.digest == digest) {
                transfer.moved = now;
            }
        }
    }
}

impl Pump<'_> {
    /// Whether a message with attachments may be sent now. If not, they are offered, or it is put
    /// off; the message comes again when they are there.
    pub(super) async fn is_cleared(
        &mut self,
        index: usize,
        queued: Queued,
    ) -> Result<Option<Queued>, End> {
        let (message, position) = (queued.entry.message, queued.entry.position);
        if queued.entry.attachments == 0 {
            return Ok(Some(queued));
        }
        if self.transfers.cleared.remove(&message) {
            // It may have been recalled, or gone another way, while its attachments were under way.
            return Ok(self.still_waits(&queued).await?.then_some(queued));
        }
        if self.transfers.holds(message) {
            return Ok(None);
        }
        let open = self.transfers.open.range((index, 0)..(index + 1, 0)).count();
        if open >= OPEN_MAX || self.transfers.paused_until.is_some() {
            self.transfers.put_off(position);
            return Ok(None);
        }
        let Ok(manifest) = stored_manifest(queued.signed_manifest.clone()) else {
            let recipients = vec![queued.entry.position.destination];
            self.set_aside(message, recipients, "MALFORMED").await?;
            return Ok(None);
        };
        self.last_parcel += 1;
        let number = self.last_parcel;
        let others = self.engine.store.queued_slips(message).await;
        let others = others.map_err(|error| End::of_store(&error))?;
        let offer = wire::Offer {
            number,
            signed_manifest: queued.signed_manifest.clone(),
            recipients: others.iter().map(|slip| slip.position.destination.to_string()).collect(),
            withdrawn: std::mem::take(&mut self.transfers.withdrawn),
        };
        let going = |content: &Content| Going { content: *content, offset: None, arrived: false };
        let contents = manifest.attachments.iter().map(going).collect();
        let total = manifest.attachments.iter().map(|content| content.size).sum();
        self.slot.doing.offered((index, number), message, total);
        let transfer = Transfer { queued, contents, moved: Instant::now() };
        self.transfers.messages.insert(message);
        self.transfers.open.insert((index, number), transfer);
        tracing::debug!(event = "attachments_offered", message = %message, peer = %self.slot.peer);
        self.outbound.send(Kind::Offer(offer)).await?;
        Ok(None)
    }

    async fn still_waits(&self, queued: &Queued) -> Result<bool, End> {
        let QueuePosition { destination, lane, number } = queued.entry.position;
        let before = number.saturating_sub(1);
        let found = self.engine.store.queued(destination, lane, before, 1, 1).await;
        let found = found.map_err(|error| End::of_store(&error))?;
        Ok(found.iter().any(|found| found.entry.message == queued.entry.message))
    }

    /// Sends the next part. Gives its bytes.
    pub(super) async fn send_part(&mut self, piece_bytes: usize) -> Result<usize, End> {
        let wanted = self.transfers.open.iter().find_map(|(key, transfer)| {
            let going = transfer.contents.iter().find(|going| going.wants_part())?;
            Some((*key, going.content, going.offset.unwrap_or(0), transfer.queued.entry.expires))
        });
        let Some((key, content, offset, expires)) = wanted else { return Ok(0) };
        let data = self.engine.store.attachment_read(content.digest, offset, piece_bytes).await;
        let data = data.map_err(|error| End::of_store(&error))?.filter(|data| !data.is_empty());
        if expires <= self.engine.clock.now() {
            self.withdraw(key, true).await?;
            return Ok(0);
        }
        let Some(data) = data else {
            // Given back meanwhile: the message was recalled, or went another way.
            self.withdraw(key, false).await?;
            return Ok(0);
        };
        let next = offset + data.len() as u64;
        self.transfers.sent(content.digest, next, Instant::now());
        self.slot.doing.progressed(key, content.digest, next);
        let digest = Bytes::copy_from_slice(&content.digest);
        self.outbound.send(Kind::Part(wire::Part { digest, offset, data })).await
    }

    /// Ends transfers of messages that go another way now.
    pub(super) async fn withdraw_what_leads_elsewhere(&mut self) -> Result<(), End> {
        let roster = self.engine.trust.roster();
        let elsewhere = |(key, transfer): (&Key, &Transfer)| {
            let (entry, links) = (&transfer.queued.entry, &self.engine.links);
            let destination = entry.position.destination;
            let next = links.next_hop_avoiding(destination, &entry.avoid, &roster);
            (next != Some(self.slot.peer)).then_some(*key)
        };
        let elsewhere: Vec<_> = self.transfers.open.iter().filter_map(elsewhere).collect();
        for key in elsewhere {
            self.withdraw(key, true).await?;
        }
        Ok(())
    }

    /// Ends a transfer that the peer waits for. What still waits of the message is read again.
    async fn withdraw(&mut self, key: Key, readable: bool) -> Result<(), End> {
        let Some(transfer) = self.end_transfer(key) else { return Ok(()) };
        self.transfers.withdrawn.push(key.1);
        let message = transfer.queued.entry.message;
        let slips = self.engine.store.queued_slips(message).await;
        let slips = slips.map_err(|error| End::of_store(&error))?;
        if !readable && !slips.is_empty() {
            // A fault of the disk. Reading it again would not help.
            let recipients = slips.iter().map(|slip| slip.position.destination).collect();
            return self.set_aside(message, recipients, "ATTACHMENT_MISSING").await;
        }
        for slip in slips {
            self.cursors.rewind(slip.position);
        }
        Ok(())
    }

    /// The peer says from where on it needs an attachment; its size: it has all.
    pub(super) fn part_taken(&mut self, taken: &wire::PartTaken) {
        let Ok(digest) = <[u8; 32]>::try_from(taken.digest.as_ref()) else { return };
        let is_of = |(_, transfer): &(&Key, &Transfer)| {
            transfer.contents.iter().any(|going| going.content.digest == digest)
        };
        for (key, _) in self.transfers.open.iter().filter(is_of) {
            self.slot.doing.progressed(*key, digest, taken.offset);
        }
        for key in self.transfers.taken(digest, taken.offset, Instant::now()) {
            let Some(transfer) = self.end_transfer(key) else { continue };
            self.transfers.pauses = 0;
            self.transfers.cleared.insert(transfer.queued.entry.message);
            if let Some(ready) = self.ready.get_mut(key.0) {
                ready.push_front(transfer.queued);
            }
        }
    }

    fn end_transfer(&mut self, key: Key) -> Option<Transfer> {
        let transfer = self.transfers.open.remove(&key)?;
        self.slot.doing.transferred(key);
        self.transfers.messages.remove(&transfer.queued.entry.message);
        self.read_put_off(Some(key.0));
        Some(transfer)
    }

    /// What was put off is read again: of one lane, or of all.
    pub(super) fn read_put_off(&mut self, lane: Option<usize>) {
        for position in self.transfers.take_put_off(lane) {
            self.cursors.rewind(position);
        }
        self.look = true;
    }

    /// The peer does not take an offer. Gives what was offered.
    pub(super) fn offer_rejected(&mut self, number: u64) -> Option<Queued> {
        let key = *self.transfers.open.keys().find(|(_, offer)| *offer == number)?;
        self.end_transfer(key).map(|transfer| transfer.queued)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
