//! Bundles that are carried by hand: what went into which, what came back, and which came in. A
//! bundle takes nothing out of the queue: only a receipt does.

use bureau_core::{BundleId, BureauCode, Timestamp};
use bytes::Bytes;

use super::{Note, Writing};
use crate::{
    StoreError,
    contract::{BundleKept, BundleWay, Outcome, QueuePosition, ReceiptPosition},
    keys,
    record::{BundleRecord, QueueRecord},
};

impl Writing<'_, '_> {
    /// Remembers a bundle, and forgets those whose time has passed.
    pub(super) fn keep_bundle(&mut self, bundle: &BundleKept) -> Result<Outcome, StoreError> {
        for (key, value) in self.tx.scan_prefix(&[keys::prefix::BUNDLE])? {
            let record: BundleRecord = crate::record::decode(&key, &value)?;
            if record.forget_ms < bundle.time.as_ms() {
                self.delete(key);
            }
        }
        let key = keys::bundle(bundle.way, &bundle.peer, &bundle.id);
        self.write(key, &BundleRecord::of(bundle));
        self.notes.push(Note::Time(bundle.time));
        Ok(Outcome::Done)
    }

    /// Notes at messages that wait in which bundle they are under way as well.
    pub(super) fn note_bundled(
        &mut self,
        bundle: BundleId,
        peer: BureauCode,
        positions: Vec<QueuePosition>,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        for position in positions {
            let key = keys::queue(&position);
            let Some(mut queued) = self.read::<QueueRecord>(&key)? else { continue };
            let message = queued.message();
            queued.bundle = Bytes::copy_from_slice(&bundle.0);
            // It may arrive whatever becomes of it here: its place in the count is not void.
            queued.may_have_left = true;
            self.write(key, &queued);
            let Some(mut track) = self.track(&message, &position.destination)? else { continue };
            track.bundle = Bytes::copy_from_slice(&bundle.0);
            track.bundled_ms = now.as_ms();
            track.bundled_to = peer.to_string();
            self.write(keys::track(&message, &position.destination), &track);
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::Done)
    }

    /// A peer says that it has imported bundles: the receipts in them need not go again.
    pub(super) fn confirm_bundles(
        &mut self,
        peer: BureauCode,
        bundles: Vec<BundleId>,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let mut confirmed = 0;
        for id in bundles {
            let key = keys::bundle(BundleWay::Exported, &peer, &id);
            let Some(mut record) = self.read::<BundleRecord>(&key)? else { continue };
            if record.confirmed_ms > 0 {
                continue;
            }
            record.confirmed_ms = now.as_ms();
            self.write(key, &record);
            confirmed += 1;
            for range in record.ranges() {
                self.receipts_carried(range.destination, range.first, range.last)?;
            }
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::BundlesConfirmed(confirmed))
    }

    fn receipts_carried(
        &mut self,
        destination: BureauCode,
        first: u64,
        last: u64,
    ) -> Result<(), StoreError> {
        let waiting = self.tx.scan_prefix(&keys::outgoing_of(&destination))?;
        let carried = |position: &ReceiptPosition| (first..=last).contains(&position.number);
        let positions = waiting.iter().filter_map(|(key, _)| keys::outgoing_position(key));
        let positions = positions.filter(carried).collect();
        self.receipts_taken(positions)?;
        Ok(())
    }
}
