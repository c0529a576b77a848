//! What an origin keeps of its own counts: what was handed on and what will never come, so that it
//! can say so to a recipient; and what it sends again to one that lost it.

use bureau_core::{
    BureauCode, Epoch, Lane, MessageId, Timestamp, envelope::stored_manifest,
    high_water::Shortfall, ranges::Ranges, slip::stored_label,
};
use bytes::Bytes;

use super::Writing;
use crate::{
    StoreError,
    contract::{Outcome, Refilled, Role, State},
    keys,
    record::{HeadRecord, MessageRecord, MetaRecord, SentCountRecord, SentRecord, TrackRecord},
};

/// Spans that are kept of one count, of what was handed on and of what is voided: each under 22
/// bytes, so that a record stays under 6 KiB.
const SENT_SPANS_MAX: usize = 100;
/// Messages that one operation sends again, so that its group stays small.
const REFILL_MAX: usize = 512;

impl Writing<'_, '_> {
    /// Notes in its count where a message of this bureau stands.
    pub(super) fn count_sent(
        &mut self,
        recipient: &BureauCode,
        track: &TrackRecord,
    ) -> Result<(), StoreError> {
        match track.state() {
            State::Relayed | State::Delivered | State::Acknowledged => {
                self.change_count(recipient, track, |count, sequence| {
                    count.handed.insert(sequence);
                })
            }
            State::Refused | State::Expired | State::Recalled => self.void(recipient, track),
            State::Queued | State::Held => {
                self.change_count(recipient, track, |count, sequence| {
                    count.handed.remove(sequence);
                })
            }
        }
    }

    /// Notes that a message of this bureau will never come.
    pub(super) fn void(
        &mut self,
        recipient: &BureauCode,
        track: &TrackRecord,
    ) -> Result<(), StoreError> {
        self.change_count(recipient, track, |count, sequence| {
            count.handed.remove(sequence);
            count.voided.insert(sequence);
        })
    }

    /// Notes that what a recipient has not got of a message by now will never come: it expired.
    pub(super) fn void_all(&mut self, message: &MessageId) -> Result<(), StoreError> {
        for (recipient, track) in self.tracks(message)? {
            if track.role() == Role::Origin {
                self.void(&recipient, &track)?;
            }
        }
        Ok(())
    }

    fn change_count(
        &mut self,
        recipient: &BureauCode,
        track: &TrackRecord,
        change: impl FnOnce(&mut SentCount, u64),
    ) -> Result<(), StoreError> {
        let (Role::Origin, Some(lane), true) = (track.role(), track.lane(), track.sequence > 0)
        else {
            return Ok(());
        };
        let key = keys::sent_count(recipient, lane);
        let record = self.read::<SentCountRecord>(&key)?.unwrap_or_default();
        let mut count = SentCount::read(&record);
        if track.sequence < count.first {
            return Ok(());
        }
        change(&mut count, track.sequence);
        count.bound();
        let changed = count.record();
        if changed != record {
            self.write(key, &changed);
        }
        Ok(())
    }

    /// Sends again what a recipient says it misses, as far as it is still here.
    pub(super) fn refill(
        &mut self,
        shortfall: &Shortfall,
        after: u64,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let count = shortfall.count;
        let mut refilled = Refilled::default();
        let head = self.read::<HeadRecord>(&keys::head(&count.recipient, count.lane))?;
        let given = Ranges::of(after.saturating_add(1), head.unwrap_or_default().sequence);
        // What was never given out is nobody's to miss.
        let missing = shortfall.missing.common(&given);
        for sequence in missing.numbers().take(REFILL_MAX) {
            refilled.last = sequence;
            let key = keys::sent(&count.recipient, count.lane, sequence);
            let sent = self.read::<SentRecord>(&key)?;
            let sent = sent.filter(|sent| {
                let label = stored_label(sent.slip.clone());
                label.is_ok_and(|label| label.origin_epoch == count.epoch)
            });
            let message = sent.and_then(|sent| MessageId::from_bytes(&sent.message).ok());
            match message {
                Some(message) => {
                    self.refill_one(&message, count.recipient, now, &mut refilled)?;
                }
                None => {
                    refilled.gone += 1;
                    self.void_sequence(count.recipient, count.lane, sequence)?;
                }
            }
        }
        if missing.last().is_none_or(|last| last == refilled.last) {
            refilled.last = 0;
        }
        Ok(Outcome::Refilled(refilled))
    }

    fn refill_one(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        now: Timestamp,
        refilled: &mut Refilled,
    ) -> Result<(), StoreError> {
        let Some(mut track) = self.track(message, &recipient)? else { return Ok(()) };
        match track.state() {
            State::Relayed | State::Delivered | State::Acknowledged => {}
            // It waits already, or was voided.
            State::Queued | State::Held => return Ok(()),
            State::Refused | State::Expired | State::Recalled => return Ok(()),
        }
        // Its sender took it back.
        if track.recalled_ms > 0 {
            return self.void(&recipient, &track);
        }
        if track.expires() <= now || !self.is_content_here(message)? {
            refilled.gone += 1;
            return self.void(&recipient, &track);
        }
        track.refills = track.refills.saturating_add(1);
        track.avoid = track.holder.clone();
        if self.queue_again(message, recipient, &mut track, now)? {
            refilled.queued += 1;
        }
        Ok(())
    }

    /// Whether a message can be sent whole: large bodies and attachments are given back early.
    fn is_content_here(&self, message: &MessageId) -> Result<bool, StoreError> {
        let Some(record) = self.read::<MessageRecord>(&keys::message(message))? else {
            return Ok(false);
        };
        let Ok(manifest) = stored_manifest(record.signed_manifest.clone()) else {
            return Ok(false);
        };
        let body = record.file().is_some() || record.body.len() as u64 == manifest.body.size;
        Ok(body && record.attachments as usize == manifest.attachments.len())
    }

    fn void_sequence(
        &mut self,
        recipient: BureauCode,
        lane: Lane,
        sequence: u64,
    ) -> Result<(), StoreError> {
        let track = TrackRecord {
            role: crate::record::role_number(Role::Origin),
            lane: lane as u32,
            sequence,
            ..TrackRecord::default()
        };
        self.void(&recipient, &track)
    }

    /// Begins a new epoch: this store lost what it once knew, and its counts go on under a name
    /// that nobody has seen.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch) -> Result<Outcome, StoreError> {
        for (key, value) in self.tx.scan_prefix(&[keys::prefix::HEAD])? {
            let Some((recipient, lane)) = keys::head_parts(&key) else { continue };
            let head: HeadRecord = crate::record::decode(&key, &value)?;
            let first = head.sequence.saturating_add(1);
            let count = SentCount { first, ..SentCount::default() };
            self.write(keys::sent_count(&recipient, lane), &count.record());
        }
        let value = Bytes::copy_from_slice(&epoch.0);
        self.write(keys::EPOCH.to_vec(), &MetaRecord { value });
        self.notes.push(super::Note::Epoch(epoch));
        Ok(Outcome::Done)
    }
}

/// What is known of one count of this bureau.
#[derive(Debug, Default)]
pub(crate) struct SentCount {
    /// Where it begins in this epoch.
    pub(crate) first: u64,
    pub(crate) handed: Ranges,
    pub(crate) voided: Ranges,
}

impl SentCount {
    pub(crate) fn read(record: &SentCountRecord) -> Self {
        Self {
            first: record.first.max(1),
            handed: super::spans(&record.handed),
            voided: super::spans(&record.voided),
        }
    }

    /// Nothing may be called handed on that was not, or its recipient raises a false alarm: where
    /// there are too many holes, the count begins later. What is called voided is not missed.
    fn bound(&mut self) {
        self.voided.bound(SENT_SPANS_MAX);
        while self.handed.len() > SENT_SPANS_MAX {
            let Some((_, last)) = self.handed.spans().next() else { return };
            self.first = self.first.max(last.saturating_add(1));
            self.handed = self.handed.without(&Ranges::of(0, last));
        }
    }

    fn record(&self) -> SentCountRecord {
        SentCountRecord {
            first: self.first,
            handed: super::flat(&self.handed),
            voided: super::flat(&self.voided),
        }
    }
}
