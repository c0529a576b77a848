//! Dead letters: own messages that ended undelivered, and what is sent in their place.

use bureau_core::{BureauCode, DeskName, MessageId, Timestamp, receipt::Statement};
use bytes::Bytes;

use super::Writing;
use crate::{
    StoreError,
    contract::{DeadPosition, Role, State},
    keys,
    record::{DeadRecord, TrackRecord, state_number},
};

/// Under which key the dead letter of a message stands, if there is one.
pub(crate) fn dead_position(
    message: &MessageId,
    recipient: BureauCode,
    track: &TrackRecord,
) -> Option<DeadPosition> {
    let ended = Timestamp::from_ms(track.dead_ms);
    (track.dead_ms > 0).then_some(DeadPosition { ended, message: *message, recipient })
}

impl Writing<'_, '_> {
    /// Keeps what a statement ended undelivered, and drops what it says arrived after all. The
    /// track is written by the caller.
    pub(super) fn settle_dead(
        &mut self,
        statement: &Statement,
        track: &mut TrackRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (message, recipient) = (&statement.message, statement.recipient);
        let ended = matches!(track.state(), State::Refused | State::Expired);
        let before = dead_position(message, recipient, track);
        if track.role() != Role::Origin || !ended && before.is_none() {
            return Ok(());
        }
        let mut record = DeadRecord::default();
        if let Some(position) = before {
            let key = keys::dead(&position);
            record = self.read(&key)?.unwrap_or_default();
            if ended && record.state == track.state {
                return Ok(());
            }
            self.delete(key);
            track.dead_ms = 0;
        }
        if !ended {
            return Ok(());
        }
        let record = DeadRecord {
            state: state_number(track.state()),
            lane: track.lane,
            signer: statement.signer.to_string(),
            reason: statement.reason.clone(),
            advice: statement.advice.clone(),
            ..record
        };
        track.dead_ms = now.as_ms();
        let position = DeadPosition { ended: now, message: *message, recipient };
        self.write(keys::dead(&position), &record);
        Ok(())
    }

    /// The dead letter of a message for a recipient.
    fn dead(
        &self,
        message: &MessageId,
        recipient: BureauCode,
    ) -> Result<Option<(DeadPosition, DeadRecord)>, StoreError> {
        let track = self.track(message, &recipient)?;
        let position = track.and_then(|track| dead_position(message, recipient, &track));
        let Some(position) = position else { return Ok(None) };
        Ok(self.read(&keys::dead(&position))?.map(|record| (position, record)))
    }

    /// Why a message may not be sent in another's place: `Err` with what was sent before.
    pub(super) fn may_requeue(
        &self,
        message: &MessageId,
        recipients: &[BureauCode],
    ) -> Result<Result<(), Option<MessageId>>, StoreError> {
        for recipient in recipients {
            match self.dead(message, *recipient)? {
                None => return Ok(Err(None)),
                Some((_, record)) if !record.requeued.is_empty() => {
                    return Ok(Err(MessageId::from_bytes(&record.requeued).ok()));
                }
                Some(_) => {}
            }
        }
        Ok(Ok(()))
    }

    /// Notes what was sent in the place of dead letters. Their content is no longer kept for that.
    pub(super) fn mark_requeued(
        &mut self,
        message: &MessageId,
        recipients: &[BureauCode],
        by: (MessageId, &DeskName, Timestamp),
    ) -> Result<(), StoreError> {
        let (new, desk, now) = by;
        for recipient in recipients {
            let Some((position, mut record)) = self.dead(message, *recipient)? else { continue };
            record.requeued = Bytes::copy_from_slice(&new.0);
            record.requeued_ms = now.as_ms();
            record.requeued_desk = desk.to_string();
            self.write(keys::dead(&position), &record);
        }
        self.release_large_body(message)
    }

    /// Whether a message's content must be kept because it may be requeued.
    pub(super) fn may_be_requeued(
        &self,
        message: &MessageId,
        recipient: BureauCode,
        track: &TrackRecord,
    ) -> Result<bool, StoreError> {
        let Some(position) = dead_position(message, recipient, track) else { return Ok(false) };
        let record = self.read::<DeadRecord>(&keys::dead(&position))?;
        Ok(record.is_some_and(|record| record.requeued.is_empty()))
    }
}
