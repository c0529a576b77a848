//! Reading of counts: what was sent, what came.

use bureau_core::{BureauCode, Epoch, Lane, MessageId};

use super::Reading;
use crate::{
    StoreError,
    contract::{Counted, SentSoFar},
    disk::Disk,
    index::Index,
    keys,
    ledger::{depths::for_each, sent::SentCount},
    record::{self, CountRecord, MarkRecord, SentCountRecord, SentRecord, TrackRecord},
};

impl<D: Disk, I: Index> Reading<D, I> {
    /// What this bureau sent, where anything of it left.
    pub(in super::super) fn sent(&self) -> Result<Vec<SentSoFar>, StoreError> {
        let mut all = Vec::new();
        for_each(&*self.index, &[keys::prefix::SENT_COUNT], |key, value| {
            let record: SentCountRecord = record::decode(key, value)?;
            let Some((recipient, lane)) = keys::sent_count_parts(key) else { return Ok(()) };
            let SentCount { first, handed, voided } = SentCount::read(&record);
            let last = handed.last().max(voided.last()).filter(|last| *last >= first);
            let Some(last) = last.filter(|_| !handed.is_empty()) else { return Ok(()) };
            all.push(SentSoFar { recipient, lane, first, last, slip: None, handed, voided });
            Ok(())
        })?;
        for sent in &mut all {
            sent.slip = self.slip_of(&sent.recipient, sent.lane, sent.last)?;
        }
        Ok(all)
    }

    fn slip_of(
        &self,
        recipient: &BureauCode,
        lane: Lane,
        sequence: u64,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let sent = self.get::<SentRecord>(&keys::sent(recipient, lane, sequence))?;
        let Some(message) = sent.and_then(|sent| MessageId::from_bytes(&sent.message).ok()) else {
            return Ok(None);
        };
        let track = self.get::<TrackRecord>(&keys::track(&message, recipient))?;
        Ok(track.map(|track| track.slip()))
    }

    /// What came of every count that there is a statement about.
    pub(in super::super) fn counted(&self) -> Result<Vec<Counted>, StoreError> {
        let mut all = Vec::new();
        for_each(&*self.index, &keys::marks(), |key, value| {
            let record: MarkRecord = record::decode(key, value)?;
            let Some((origin, epoch, lane)) = mark_parts(key) else { return Ok(()) };
            let count = self.get::<CountRecord>(&keys::count(&origin, &epoch, lane))?;
            let arrived = count.map(|count| count.arrived()).unwrap_or_default();
            all.push(Counted { origin, epoch, lane, arrived, statement: record.statement });
            Ok(())
        })?;
        Ok(all)
    }
}

fn mark_parts(key: &[u8]) -> Option<(BureauCode, Epoch, Lane)> {
    let rest = key.strip_prefix(keys::marks().as_slice())?;
    let (origin, rest) = rest.split_at_checked(BureauCode::WIDTH)?;
    let (epoch, lane) = rest.split_at_checked(16)?;
    let lane = Lane::from_wire(i32::from(*lane.first()?))?;
    Some((BureauCode::from_padded(origin).ok()?, Epoch::from_bytes(epoch).ok()?, lane))
}
