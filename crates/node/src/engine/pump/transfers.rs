//! Attachments on their way to the peer: offered with their message's manifest, sent in parts from
//! where the peer says, and once all of a message's are there, the message itself.

use std::collections::{BTreeMap, HashSet};

use bureau_core::{BureauCode, Lane, MessageId, envelope::stored_manifest};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{Content, QueuePosition, Queued};
use bytes::Bytes;
use tokio::time::Instant;

use super::Pump;
use crate::engine::{doing::OPEN_MAX, outbound::End};

/// Transfers of one link.
#[derive(Default)]
pub(super) struct Transfers {
    /// By lane and offer number: the most urgent first, then the oldest.
    open: BTreeMap<(usize, u64), Transfer>,
    messages: HashSet<MessageId>,
    /// Messages whose attachments the peer has: they may be sent.
    cleared: HashSet<MessageId>,
    /// Where reading must go back to when a place is free.
    put_off: BTreeMap<(Lane, BureauCode), QueuePosition>,
    /// The peer asked for patience.
    pub(super) paused_until: Option<Instant>,
}

struct Transfer {
    queued: Queued,
    contents: Vec<Going>,
}

struct Going {
    content: Content,
    /// Where the next part begins; `None` until the peer has said.
    offset: Option<u64>,
}

impl Going {
    const fn wants_part(&self) -> bool {
        matches!(self.offset, Some(offset) if offset < self.content.size)
    }

    const fn is_there(&self) -> bool {
        matches!(self.offset, Some(offset) if offset >= self.content.size)
    }
}

impl Transfers {
    /// Whether a message must not be sent yet: its attachments are on their way.
    pub(super) fn holds(&self, message: MessageId) -> bool {
        self.messages.contains(&message)
    }

    /// Whether there is a part to send.
    pub(super) fn has_work(&self) -> bool {
        self.paused_until.is_none()
            && self.open.values().any(|transfer| transfer.contents.iter().any(Going::wants_part))
    }

    fn put_off(&mut self, position: QueuePosition) {
        let queue = (position.lane, position.destination);
        let first = self.put_off.entry(queue).or_insert(position);
        if position.number < first.number {
            *first = position;
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
        let message = queued.entry.message;
        if queued.entry.attachments == 0 || self.transfers.cleared.remove(&message) {
            return Ok(Some(queued));
        }
        if self.transfers.holds(message) {
            return Ok(None);
        }
        if self.transfers.open.len() >= OPEN_MAX {
            self.transfers.put_off(queued.entry.position);
            return Ok(None);
        }
        let Ok(manifest) = stored_manifest(queued.signed_manifest.clone()) else {
            tracing::error!(event = "message_unreadable", message = %message, reason = "MALFORMED");
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
        };
        let going = |content: &Content| Going { content: *content, offset: None };
        let contents = manifest.attachments.iter().map(going).collect();
        let total = manifest.attachments.iter().map(|content| content.size).sum();
        self.slot.doing.offered((index, number), message, total);
        self.transfers.messages.insert(message);
        self.transfers.open.insert((index, number), Transfer { queued, contents });
        tracing::debug!(event = "attachments_offered", message = %message, peer = %self.slot.peer);
        self.outbound.send(Kind::Offer(offer)).await?;
        Ok(None)
    }

    /// Sends the next part. Gives its bytes.
    pub(super) async fn send_part(&mut self, piece_bytes: usize) -> Result<usize, End> {
        let wanted = self.transfers.open.iter().find_map(|(key, transfer)| {
            let index = transfer.contents.iter().position(Going::wants_part)?;
            let going = transfer.contents.get(index)?;
            Some((*key, index, going.content, going.offset.unwrap_or(0)))
        });
        let Some((key, index, content, offset)) = wanted else { return Ok(0) };
        let data = self.engine.store.attachment_read(content.digest, offset, piece_bytes).await;
        let data = data.map_err(|error| End::of_store(&error))?.filter(|data| !data.is_empty());
        let Some(data) = data else {
            // Given back meanwhile: the message was recalled, expired, or went another way.
            self.end_transfer(key);
            return Ok(0);
        };
        let next = offset + data.len() as u64;
        if let Some(transfer) = self.transfers.open.get_mut(&key)
            && let Some(going) = transfer.contents.get_mut(index)
        {
            // After the last part nothing is sent until the peer says that all is there, or not.
            going.offset = (next < content.size).then_some(next);
        }
        self.slot.doing.progressed(key, content.digest, next);
        let digest = Bytes::copy_from_slice(&content.digest);
        self.outbound.send(Kind::Part(wire::Part { digest, offset, data })).await
    }

    /// The peer says from where on it needs an attachment; its size: it has all.
    pub(super) fn part_taken(&mut self, taken: &wire::PartTaken) {
        let Ok(digest) = <[u8; 32]>::try_from(taken.digest.as_ref()) else { return };
        for (key, transfer) in &mut self.transfers.open {
            let contents = &mut transfer.contents;
            for going in contents.iter_mut().filter(|going| going.content.digest == digest) {
                let offset = taken.offset.min(going.content.size);
                going.offset = Some(offset);
                self.slot.doing.progressed(*key, digest, offset);
            }
        }
        let done = |(key, transfer): (&(usize, u64), &Transfer)| {
            transfer.contents.iter().all(Going::is_there).then_some(*key)
        };
        let done: Vec<_> = self.transfers.open.iter().filter_map(done).collect();
        for key in done {
            let Some(transfer) = self.end_transfer(key) else { continue };
            self.transfers.cleared.insert(transfer.queued.entry.message);
            if let Some(ready) = self.ready.get_mut(key.0) {
                ready.push_front(transfer.queued);
            }
        }
    }

    fn end_transfer(&mut self, key: (usize, u64)) -> Option<Transfer> {
        let transfer = self.transfers.open.remove(&key)?;
        self.slot.doing.transferred(key);
        self.transfers.messages.remove(&transfer.queued.entry.message);
        for position in std::mem::take(&mut self.transfers.put_off).into_values() {
            self.cursors.rewind(position);
        }
        self.look = true;
        Some(transfer)
    }

    /// The peer does not take an offer. Gives what was offered.
    pub(super) fn offer_rejected(&mut self, number: u64) -> Option<Queued> {
        let key = *self.transfers.open.keys().find(|(_, offer)| *offer == number)?;
        self.end_transfer(key).map(|transfer| transfer.queued)
    }
}
