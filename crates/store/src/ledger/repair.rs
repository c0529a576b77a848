//! What an origin does where its message does not get on: custody is watched, and what is overdue
//! goes back into the queue for another way. It keeps the message until the recipient's own word.

use bureau_core::{BureauCode, MessageId, Timestamp};
use bytes::Bytes;

use super::Writing;
use crate::{
    StoreError,
    contract::{Outcome, Rerouted, Role, State, TimerKind},
    keys,
    record::{MessageRecord, QueueRecord, SentRecord, TrackRecord},
};

/// How long an origin waits for a recipient's word after another took custody, by default: a
/// relay's reconnects and a detour take less.
pub const CUSTODY_OVERDUE_MS: u64 = 10 * 60 * 1000;
/// The longest it waits, where it waited before in vain: each time twice as long, up to an hour.
const CUSTODY_OVERDUE_MS_MAX: i64 = 60 * 60 * 1000;

impl Writing<'_, '_> {
    /// Another has custody from now on.
    pub(super) fn watch_custody(
        &mut self,
        message: MessageId,
        track: &mut TrackRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if track.role() != Role::Origin {
            return Ok(());
        }
        track.relayed_ms = now.as_ms();
        let at = self.overdue_at(track);
        if at >= track.expires() {
            return Ok(());
        }
        self.set_timer(at, TimerKind::Reroute, message)
    }

    fn overdue_at(&self, track: &TrackRecord) -> Timestamp {
        let first = self.ledger.custody_overdue_ms;
        let doubled = first.saturating_mul(1_i64 << track.reroutes.min(20));
        let wait = doubled.min(CUSTODY_OVERDUE_MS_MAX.max(first));
        Timestamp::from_ms(track.relayed_ms.saturating_add(wait))
    }

    pub(super) fn reroute(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let Some(mut track) = self.track(message, &recipient)? else {
            return Ok(Outcome::Rerouted(None));
        };
        let relayed = track.role() == Role::Origin && track.state() == State::Relayed;
        // What its sender took back is not sent again.
        let relayed = relayed && track.recalled_ms == 0;
        if !relayed || now < self.overdue_at(&track) {
            return Ok(Outcome::Rerouted(None));
        }
        track.reroutes = track.reroutes.saturating_add(1);
        track.avoid.clone_from(&track.holder);
        if !self.queue_again(message, recipient, &mut track, now)? {
            return Ok(Outcome::Rerouted(None));
        }
        self.notes.push(super::Note::Time(now));
        Ok(Outcome::Rerouted(Some(Rerouted {
            holder: track.avoid.parse().ok(),
            since: Timestamp::from_ms(track.relayed_ms),
            reroutes: track.reroutes,
        })))
    }

    /// Puts a message of this bureau back into the queue, with the slip it had. `false` where its
    /// content or its slip is not here any more.
    pub(super) fn queue_again(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        track: &mut TrackRecord,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(lane) = track.lane() else { return Ok(false) };
        let sent = self.read::<SentRecord>(&keys::sent(&recipient, lane, track.sequence))?;
        let content = self.read::<MessageRecord>(&keys::message(message))?;
        let (Some(sent), Some(content)) = (sent, content) else { return Ok(false) };
        if sent.message != message.0.as_slice() {
            return Ok(false);
        }
        let fan_out = self.tracks(message)?.len();
        let queued = QueueRecord {
            message: sent.message,
            slip: sent.slip,
            slip_digest: Bytes::copy_from_slice(&track.slip()),
            origin: track.origin.clone(),
            enqueued_ms: now.as_ms(),
            expires_ms: track.expires_ms,
            size: (content.signed_manifest.len() + content.body.len()) as u64,
            hops: 1,
            fan_out: u32::try_from(fan_out).unwrap_or(u32::MAX),
            previous_hop: String::new(),
            attachments: content.attachments,
            may_have_left: true,
            declined: Vec::new(),
            refills: track.refills,
            bundle: Bytes::new(),
        };
        track.queue_number = self.enqueue(recipient, lane, &queued);
        track.set_state(State::Queued);
        self.count_sent(&recipient, track)?;
        self.write(keys::track(message, &recipient), track);
        Ok(true)
    }
}
