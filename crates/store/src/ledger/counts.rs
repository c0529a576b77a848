//! What a recipient keeps of the counts of others: which sequences came, by which slip, and what the
//! origin says of them. Two slips for one place in a count are a fork: the second is refused, and
//! both are kept as evidence.

use bureau_core::{
    BureauCode, Epoch, Lane, MessageId, Slip, Timestamp, Verified,
    envelope::SealingSuite,
    high_water::{HighWater, stored_mark},
    ranges::Ranges,
    slip::{Count, stored_count},
};
use bytes::Bytes;

use super::Writing;
use crate::{
    StoreError,
    contract::{Outcome, Receive},
    keys,
    record::{ArrivedRecord, CountRecord, ForkRecord, MarkRecord, MetaRecord, TrackRecord},
};

/// Spans of what arrived that are kept of one count: each under 22 bytes, so that a record stays
/// under 6 KiB. A count with more holes has the lowest of them given up.
const ARRIVED_SPANS_MAX: usize = 200;
/// Forks that are kept of one origin: the first tell it all, and a hostile one makes as many as it
/// likes.
const FORKS_KEPT_MAX: usize = 64;
/// Counts of one origin: four lanes of 32 epochs. Beyond, its statements are not kept.
const COUNTS_MAX: usize = 128;

/// A place in an origin's count.
#[derive(Clone, Copy)]
struct Place {
    origin: BureauCode,
    epoch: Epoch,
    lane: Lane,
    sequence: u64,
}

impl Place {
    fn key(&self, sequence: u64) -> Vec<u8> {
        keys::arrived(&self.origin, &self.epoch, self.lane, sequence)
    }
}

/// What a slip says of its place; `None` where only the recipient could open it and cannot.
fn place_of(receive: &Receive, slip: &Verified<Slip>) -> Option<(Place, Count)> {
    let label = slip.label();
    if label.suite != SealingSuite::Open {
        return None;
    }
    let count = Count::decode(label.private.clone()).ok()?;
    let origin = receive.envelope.manifest().origin;
    let place =
        Place { origin, epoch: label.origin_epoch, lane: label.lane, sequence: count.sequence };
    Some((place, count))
}

impl Writing<'_, '_> {
    /// Whether a slip that is new here contradicts another of its origin: then that one's message.
    pub(super) fn fork(
        &mut self,
        receive: &Receive,
        slip: &Verified<Slip>,
    ) -> Result<Option<MessageId>, StoreError> {
        let Some((place, count)) = place_of(receive, slip) else { return Ok(None) };
        let read = |sequence: Option<u64>| match sequence {
            Some(sequence) => self.read::<ArrivedRecord>(&place.key(sequence)),
            None => Ok(None),
        };
        let same = read(Some(place.sequence))?;
        let before = read(place.sequence.checked_sub(1))?;
        let after = read(place.sequence.checked_add(1))?;
        let digest = slip.digest();
        let before = before.filter(|before| {
            count.previous.is_some_and(|previous| before.digest != previous.as_slice())
        });
        let after = after.filter(|after| {
            let count = stored_count(after.slip.clone()).ok();
            count.and_then(|count| count.previous).is_some_and(|previous| previous != digest)
        });
        let Some(first) = same.or(before).or(after) else { return Ok(None) };
        self.keep_fork(&place, &first, slip, receive.now)?;
        // It is no gap: it came, and was refused.
        self.note_arrival(&place, 0)?;
        Ok(Some(MessageId::from_bytes(&first.message).unwrap_or(MessageId([0; 32]))))
    }

    fn keep_fork(
        &mut self,
        place: &Place,
        first: &ArrivedRecord,
        second: &Verified<Slip>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.tx.scan_prefix(&keys::forks_of(&place.origin))?.len() >= FORKS_KEPT_MAX {
            return Ok(());
        }
        let key = keys::fork(&place.origin, &second.digest());
        let fork = ForkRecord {
            first: first.slip.clone(),
            second: second.encode(),
            found_ms: now.as_ms(),
        };
        self.write(key, &fork);
        Ok(())
    }

    /// Notes a slip that is taken.
    pub(super) fn arrive(
        &mut self,
        receive: &Receive,
        slip: &Verified<Slip>,
        track: &mut TrackRecord,
        kept: bool,
    ) -> Result<(), StoreError> {
        let Some((place, _)) = place_of(receive, slip) else { return Ok(()) };
        if kept {
            track.sequence = place.sequence;
            track.origin_epoch = Bytes::copy_from_slice(&place.epoch.0);
            let arrived = ArrivedRecord {
                message: Bytes::copy_from_slice(&receive.envelope.id().0),
                digest: Bytes::copy_from_slice(&slip.digest()),
                slip: slip.encode(),
            };
            self.write(place.key(place.sequence), &arrived);
        }
        self.note_arrival(&place, u64::from(kept))
    }

    fn note_arrival(&mut self, place: &Place, held: u64) -> Result<(), StoreError> {
        let key = keys::count(&place.origin, &place.epoch, place.lane);
        let record = self.read::<CountRecord>(&key)?;
        // What is refused is remembered by its message; it begins no count.
        let Some(mut record) = record.or_else(|| (held > 0).then(CountRecord::default)) else {
            return Ok(());
        };
        let mut arrived = record.arrived();
        arrived.insert(place.sequence);
        arrived.bound(ARRIVED_SPANS_MAX);
        record.set_arrived(&arrived);
        record.held = record.held.saturating_add(held);
        self.write(key, &record);
        Ok(())
    }

    /// Forgets a slip that came; with the last one of a count, the count.
    pub(super) fn forget_arrival(&mut self, track: &TrackRecord) -> Result<(), StoreError> {
        let epoch = Epoch::from_bytes(&track.origin_epoch);
        let (Some(origin), Ok(epoch), Some(lane)) = (track.origin(), epoch, track.lane()) else {
            return Ok(());
        };
        self.delete(keys::arrived(&origin, &epoch, lane, track.sequence));
        let key = keys::count(&origin, &epoch, lane);
        let Some(mut record) = self.read::<CountRecord>(&key)? else { return Ok(()) };
        record.held = record.held.saturating_sub(1);
        if record.held == 0 {
            self.delete(keys::mark(&origin, &epoch, lane));
            self.delete(key);
        } else {
            self.write(key, &record);
        }
        Ok(())
    }

    /// Keeps what an origin says of a count for this bureau, where it is newer.
    pub(super) fn take_mark(
        &mut self,
        statement: &Verified<HighWater>,
    ) -> Result<Outcome, StoreError> {
        let mark = statement.mark();
        let (origin, epoch, lane) = (mark.count.origin, mark.count.epoch, mark.count.lane);
        let key = keys::mark(&origin, &epoch, lane);
        let before = self.read::<MarkRecord>(&key)?;
        match before.and_then(|before| stored_mark(before.statement).ok()) {
            Some(before) if before.time >= mark.time => return Ok(Outcome::Done),
            Some(_) => {}
            None if self.tx.scan_prefix(&keys::marks_of(&origin))?.len() >= COUNTS_MAX => {
                return Ok(Outcome::Done);
            }
            None => {}
        }
        self.write(key, &MarkRecord { statement: statement.encode() });
        Ok(Outcome::Done)
    }

    /// Notes a peer's epoch, and gives the one before where it was another.
    pub(super) fn peer_epoch(
        &mut self,
        peer: &BureauCode,
        epoch: Epoch,
    ) -> Result<Outcome, StoreError> {
        let key = keys::peer_epoch(peer);
        let before = self.read::<MetaRecord>(&key)?;
        let before = before.and_then(|before| Epoch::from_bytes(&before.value).ok());
        if before == Some(epoch) {
            return Ok(Outcome::PeerEpoch(None));
        }
        self.write(key, &MetaRecord { value: Bytes::copy_from_slice(&epoch.0) });
        Ok(Outcome::PeerEpoch(before))
    }
}

impl CountRecord {
    pub(crate) fn arrived(&self) -> Ranges {
        super::spans(&self.spans)
    }

    fn set_arrived(&mut self, arrived: &Ranges) {
        self.spans = super::flat(arrived);
    }
}
