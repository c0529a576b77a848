//! A message of this bureau: request, content, queue, track, heads, timer, as one.

use bureau_core::{BureauCode, Lane, MessageId, Timestamp};
use bytes::Bytes;

use super::Writing;
use crate::{
    StoreError,
    contract::{Accept, Outcome, RequestMade, Role, State, TimerKind},
    keys,
    record::{HeadRecord, QueueRecord, RequestRecord, TrackRecord, role_number, state_number},
};

impl Writing<'_, '_> {
    pub(super) fn accept(&mut self, accept: Accept) -> Result<Outcome, StoreError> {
        let Accept { envelope, slips, request, now, desk: _ } = accept;
        let (id, manifest) = (envelope.id(), envelope.manifest());
        let made = match &request {
            Some((key, _)) => self.read::<RequestRecord>(&keys::request(key))?,
            None => None,
        };
        if let (Some(record), Some((_, digest))) = (made, &request) {
            return Ok(request_outcome(&record, digest));
        }
        if self.missing && !manifest.attachments.is_empty() {
            return Ok(Outcome::AttachmentMissing);
        }
        if let Some((key, digest)) = &request {
            let record = RequestRecord {
                digest: Bytes::copy_from_slice(digest),
                message: Bytes::copy_from_slice(&id.0),
                accepted_ms: now.as_ms(),
                expires_ms: manifest.expires.as_ms(),
            };
            self.write(keys::request(key), &record);
        }
        let mut message =
            self.keep_message(&id, envelope.signed_manifest(), envelope.body(), manifest);
        if let Some((key, _)) = &request {
            message.request_desk = key.desk.to_string();
            message.request_id = Bytes::copy_from_slice(&key.id);
        }
        self.write(keys::message(&id), &message);

        let fan_out = u32::try_from(slips.len()).unwrap_or(u32::MAX);
        let size = (message.signed_manifest.len() + envelope.body().len()) as u64;
        for (slip, sequence) in &slips {
            let queued = QueueRecord {
                message: Bytes::copy_from_slice(&id.0),
                slip: slip.encode(),
                slip_digest: Bytes::copy_from_slice(&slip.digest()),
                origin: manifest.origin.to_string(),
                enqueued_ms: now.as_ms(),
                expires_ms: manifest.expires.as_ms(),
                size,
                hops: 1,
                fan_out,
                previous_hop: String::new(),
                attachments: message.attachments,
            };
            self.send(&id, slip.label().recipient, manifest.lane, &queued, *sequence)?;
        }
        self.set_timer(manifest.expires, TimerKind::Expire, id)?;
        self.notes.push(super::Note::Time(now));
        Ok(Outcome::Accepted)
    }

    /// Queues one slip, and keeps what is known of it.
    fn send(
        &mut self,
        id: &MessageId,
        recipient: BureauCode,
        lane: Lane,
        queued: &QueueRecord,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let queue_number = self.enqueue(recipient, lane, queued);
        let track = TrackRecord {
            role: role_number(Role::Origin),
            state: state_number(State::Queued),
            slip: queued.slip_digest.clone(),
            origin: queued.origin.clone(),
            expires_ms: queued.expires_ms,
            queue_number,
            lane: lane as u32,
            ..TrackRecord::default()
        };
        self.write(keys::track(id, &recipient), &track);
        // A head never goes back, in whatever order groups are committed.
        let head_key = keys::head(&recipient, lane);
        let head = self.read::<HeadRecord>(&head_key)?.unwrap_or_default();
        if sequence > head.sequence {
            self.write(head_key, &HeadRecord { sequence, slip: queued.slip_digest.clone() });
        }
        Ok(())
    }
}

fn request_outcome(record: &RequestRecord, digest: &[u8; 32]) -> Outcome {
    match request_made(record) {
        Some(made) if made.digest == *digest => Outcome::RequestRepeated(made),
        _ => Outcome::RequestReused,
    }
}

/// What a request id was used for.
pub(crate) fn request_made(record: &RequestRecord) -> Option<RequestMade> {
    Some(RequestMade {
        digest: record.digest.as_ref().try_into().ok()?,
        message: bureau_core::MessageId::from_bytes(&record.message).ok()?,
        accepted: Timestamp::from_ms(record.accepted_ms),
        expires: Timestamp::from_ms(record.expires_ms),
    })
}
