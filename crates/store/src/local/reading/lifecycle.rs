//! What is held back, and what ended undelivered.

use bureau_core::{BureauCode, Lane, MessageId, Timestamp};

use super::{Reading, damaged};
use crate::{
    StoreError,
    contract::{DeadLetter, DeadPosition, Held, HeldEntry, Recalled, Requeued, State},
    disk::Disk,
    index::Index,
    keys,
    ledger::{dead::dead_position, depths::for_each},
    record::{self, DeadRecord, HeldRecord, TrackRecord},
};

/// Records that are looked at in one go.
const SCAN: usize = 512;

impl<D: Disk, I: Index> Reading<D, I> {
    pub(in crate::local) fn held_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<(BureauCode, MessageId)>,
        limit: usize,
    ) -> Result<Vec<HeldEntry>, StoreError> {
        let prefix = match destination {
            Some(destination) => keys::held_for(&destination),
            None => vec![keys::prefix::HELD],
        };
        let from = match after {
            Some((recipient, message)) => {
                let mut key = keys::held(&recipient, &message);
                key.push(0);
                key
            }
            None => prefix.clone(),
        };
        let pairs = self.index.scan(&from, &prefix, limit)?;
        pairs.iter().map(|(key, value)| held_entry(key, value)).collect()
    }

    pub(in crate::local) fn held_peers(&self) -> Result<Vec<(BureauCode, Held)>, StoreError> {
        let mut peers = Vec::new();
        for_each(&*self.index, &[keys::prefix::HELD_PEER], |key, value| {
            let record: HeldRecord = record::decode(key, value)?;
            let peer = keys::held_peer_code(key);
            peers.push((peer.ok_or_else(|| damaged(keys::prefix::HELD_PEER))?, record.held()));
            Ok(())
        })?;
        Ok(peers)
    }

    pub(in crate::local) fn dead_page(
        &self,
        recipient: Option<BureauCode>,
        after: Option<DeadPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let prefix = [keys::prefix::DEAD];
        let mut from = match after {
            Some(position) => {
                let mut key = keys::dead(&position);
                key.push(0);
                key
            }
            None => prefix.to_vec(),
        };
        let mut letters = Vec::new();
        loop {
            let pairs = self.index.scan(&from, &prefix, SCAN)?;
            let Some((last, _)) = pairs.last() else { return Ok(letters) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &pairs {
                let letter = dead_letter(key, value)?;
                if recipient.is_none_or(|recipient| recipient == letter.position.recipient) {
                    letters.push(letter);
                }
                if letters.len() >= limit {
                    return Ok(letters);
                }
            }
        }
    }

    pub(in crate::local) fn dead_letters(
        &self,
        message: &MessageId,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let tracks = self.tracks(message)?;
        let letters = tracks.iter().map(|(recipient, track)| self.dead(message, *recipient, track));
        letters.filter_map(Result::transpose).collect()
    }

    pub(super) fn dead(
        &self,
        message: &MessageId,
        recipient: BureauCode,
        track: &TrackRecord,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let Some(position) = dead_position(message, recipient, track) else { return Ok(None) };
        let key = keys::dead(&position);
        self.index.get(&key)?.map(|value| dead_letter(&key, &value)).transpose()
    }

    /// Why a message is held back for a recipient, while it is.
    pub(super) fn held(
        &self,
        message: &MessageId,
        recipient: BureauCode,
        track: &TrackRecord,
    ) -> Result<Option<Held>, StoreError> {
        if track.state() != State::Held {
            return Ok(None);
        }
        let record = self.get::<HeldRecord>(&keys::held(&recipient, message))?;
        Ok(record.map(|record| record.held()))
    }
}

pub(super) fn recalled(track: &TrackRecord) -> Option<Recalled> {
    Some(Recalled {
        time: (track.recalled_ms > 0).then(|| Timestamp::from_ms(track.recalled_ms))?,
        desk: track.recalled_desk.parse().ok()?,
        may_have_left: track.may_have_left,
    })
}

fn lane(number: u32) -> Option<Lane> {
    i32::try_from(number).ok().and_then(Lane::from_wire)
}

fn held_entry(key: &[u8], value: &[u8]) -> Result<HeldEntry, StoreError> {
    let damaged = || damaged(keys::prefix::HELD);
    let record: HeldRecord = record::decode(key, value)?;
    let (recipient, message) = keys::held_parts(key).ok_or_else(damaged)?;
    let held = record.held();
    let queued = record.queued.ok_or_else(damaged)?;
    Ok(HeldEntry {
        recipient,
        lane: lane(record.lane).ok_or_else(damaged)?,
        message,
        origin: queued.origin.parse().map_err(|_| damaged())?,
        enqueued: Timestamp::from_ms(queued.enqueued_ms),
        expires: Timestamp::from_ms(queued.expires_ms),
        size: queued.size,
        held,
    })
}

fn dead_letter(key: &[u8], value: &[u8]) -> Result<DeadLetter, StoreError> {
    let damaged = || damaged(keys::prefix::DEAD);
    let record: DeadRecord = record::decode(key, value)?;
    let requeued = MessageId::from_bytes(&record.requeued).ok().and_then(|message| {
        let desk = record.requeued_desk.parse().ok()?;
        Some(Requeued { message, time: Timestamp::from_ms(record.requeued_ms), desk })
    });
    let state = TrackRecord { state: record.state, ..TrackRecord::default() }.state();
    Ok(DeadLetter {
        position: keys::dead_position(key).ok_or_else(damaged)?,
        lane: lane(record.lane).ok_or_else(damaged)?,
        state,
        signer: record.signer.parse().map_err(|_| damaged())?,
        reason: record.reason,
        advice: record.advice,
        requeued,
    })
}
