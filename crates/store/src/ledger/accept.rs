//! A message of this bureau: request, content, queue, track, heads, timer, as one.

use bureau_core::{Envelope, MessageId, Slip, Timestamp, Verified};
use bytes::Bytes;

use super::{Writing, hold::scheduled, tick_after};
use crate::{
    StoreError,
    contract::{Accept, Outcome, RequestMade, Role, State, TimerKind, warn_time},
    keys,
    record::{
        HeadRecord, MessageRecord, QueueRecord, RequestRecord, SentRecord, TrackRecord,
        role_number, state_number,
    },
};

impl Writing<'_, '_> {
    pub(super) fn accept(&mut self, accept: Accept) -> Result<Outcome, StoreError> {
        let Accept { envelope, slips, request, send_at, requeue_of, now, desk } = accept;
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
        let recipients: Vec<_> = slips.iter().map(|(slip, _)| slip.label().recipient).collect();
        if let Some(old) = &requeue_of
            && let Err(before) = self.may_requeue(old, &recipients)?
        {
            return Ok(Outcome::NotRequeued(before));
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
        message.send_ms = send_at.map_or(0, Timestamp::as_ms);
        self.write(keys::message(&id), &message);

        self.queue_slips(&slips, &envelope, &message, (send_at, now))?;
        if let Some(old) = &requeue_of {
            self.mark_requeued(old, &recipients, (id, &desk, now))?;
        }
        self.set_timers(id, manifest.expires, (send_at, now))?;
        self.notes.push(super::Note::Time(now));
        Ok(Outcome::Accepted)
    }

    /// Has each slip wait for a link, or for its time.
    fn queue_slips(
        &mut self,
        slips: &[(Verified<Slip>, u64)],
        envelope: &Verified<Envelope>,
        message: &MessageRecord,
        (send_at, now): (Option<Timestamp>, Timestamp),
    ) -> Result<(), StoreError> {
        let (id, manifest) = (envelope.id(), envelope.manifest());
        let fan_out = u32::try_from(slips.len()).unwrap_or(u32::MAX);
        let size = (message.signed_manifest.len() + envelope.body().len()) as u64;
        for (slip, sequence) in slips {
            let recipient = slip.label().recipient;
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
                bundle: Bytes::new(),
                attachments: message.attachments,
                may_have_left: false,
                declined: Vec::new(),
                refills: 0,
            };
            let sent = SentRecord { message: queued.message.clone(), slip: queued.slip.clone() };
            self.write(keys::sent(&recipient, manifest.lane, *sequence), &sent);
            let mut track = TrackRecord {
                role: role_number(Role::Origin),
                state: state_number(State::Queued),
                slip: Bytes::copy_from_slice(&slip.digest()),
                origin: manifest.origin.to_string(),
                expires_ms: manifest.expires.as_ms(),
                lane: manifest.lane as u32,
                sequence: *sequence,
                ..TrackRecord::default()
            };
            match send_at {
                Some(at) => {
                    let held = scheduled(at, now);
                    self.set_aside(&id, recipient, &held, &mut track, queued);
                }
                None => track.queue_number = self.enqueue(recipient, manifest.lane, &queued),
            }
            self.write(keys::track(&id, &recipient), &track);
            // A head never goes back, in whatever order groups are committed.
            let head_key = keys::head(&recipient, manifest.lane);
            let head = self.read::<HeadRecord>(&head_key)?.unwrap_or_default();
            if *sequence > head.sequence {
                let slip = Bytes::copy_from_slice(&slip.digest());
                self.write(head_key, &HeadRecord { sequence: *sequence, slip });
            }
        }
        Ok(())
    }

    /// One timer at a time: that of the warning sets that of the end.
    fn set_timers(
        &mut self,
        id: MessageId,
        expires: Timestamp,
        (send_at, now): (Option<Timestamp>, Timestamp),
    ) -> Result<(), StoreError> {
        if let Some(at) = send_at {
            self.set_timer(at, TimerKind::Release, id)?;
        }
        let warns = warn_time(now, expires);
        if tick_after(warns) < tick_after(expires) {
            self.set_timer(warns, TimerKind::Warn, id)
        } else {
            self.set_timer(expires, TimerKind::Expire, id)
        }
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
