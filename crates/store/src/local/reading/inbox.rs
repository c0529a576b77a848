//! What arrived.

use bureau_core::{MessageId, Timestamp, envelope::stored_manifest};
use bytes::Bytes;

use super::{Reading, damaged};
use crate::{
    StoreError,
    contract::{Arrived, Role},
    disk::Disk,
    index::{Index, Pairs},
    keys,
    record::{self, InboxRecord, MessageRecord},
};

impl<D: Disk, I: Index> Reading<D, I> {
    pub(in crate::local) fn inbox(
        &self,
        after: u64,
        limit: usize,
        acknowledged: bool,
        content: bool,
    ) -> Result<Vec<Arrived>, StoreError> {
        let next = after.saturating_add(1);
        let mut pairs: Pairs =
            self.index.scan(&keys::inbox(next), &[keys::prefix::INBOX], limit)?;
        if acknowledged {
            let from = keys::acknowledged(next);
            pairs.extend(self.index.scan(&from, &[keys::prefix::ACKNOWLEDGED], limit)?);
            pairs.sort_by_key(|(key, _)| keys::last_number(key));
            // What was acknowledged between the two looks was seen by both.
            pairs.dedup_by_key(|(key, _)| keys::last_number(key));
            pairs.truncate(limit);
        }
        let arrived = pairs.iter().map(|(key, value)| self.arrived(key, value, content));
        arrived.filter_map(Result::transpose).collect()
    }

    pub(in crate::local) fn inbox_number(
        &self,
        number: u64,
        content: bool,
    ) -> Result<Option<Arrived>, StoreError> {
        for key in [keys::inbox(number), keys::acknowledged(number)] {
            if let Some(value) = self.index.get(&key)? {
                return self.arrived(&key, &value, content);
            }
        }
        Ok(None)
    }

    pub(in crate::local) fn inbox_message(
        &self,
        message: &MessageId,
    ) -> Result<Option<Arrived>, StoreError> {
        let tracks = self.tracks(message)?;
        let arrived = tracks
            .iter()
            .find(|(_, track)| track.role() == Role::Recipient && track.inbox_number > 0);
        match arrived {
            Some((_, track)) => self.inbox_number(track.inbox_number, true),
            None => Ok(None),
        }
    }

    /// What arrived under a key; `None` where it was forgotten while it was read.
    fn arrived(
        &self,
        key: &[u8],
        value: &[u8],
        content: bool,
    ) -> Result<Option<Arrived>, StoreError> {
        let damaged = || damaged(keys::prefix::INBOX);
        let record: InboxRecord = record::decode(key, value)?;
        let message = MessageId::from_bytes(&record.message).map_err(|_| damaged())?;
        let stored = self.get::<MessageRecord>(&keys::message(&message))?;
        let Some(stored) = stored else {
            return if self.index.get(key)?.is_some() { Err(damaged()) } else { Ok(None) };
        };
        let (signed, body) = if content {
            self.content(&message, stored)?
        } else {
            (stored.signed_manifest, Some(Bytes::new()))
        };
        let Some(body) = body else { return Ok(None) };
        let acknowledged = match record.acknowledged_ms {
            0 => None,
            ms => {
                let desk = record.acknowledged_desk.parse().map_err(|_| damaged())?;
                Some((Timestamp::from_ms(ms), desk))
            }
        };
        let released = match record.released_ms {
            0 => None,
            ms => {
                let desk = record.released_desk.parse().map_err(|_| damaged())?;
                Some((Timestamp::from_ms(ms), desk))
            }
        };
        Ok(Some(Arrived {
            number: keys::last_number(key).ok_or_else(damaged)?,
            message,
            manifest: stored_manifest(signed).map_err(|_| damaged())?,
            slip: record.slip.as_ref().try_into().map_err(|_| damaged())?,
            body,
            hop: record.hop.parse().map_err(|_| damaged())?,
            delivered: Timestamp::from_ms(record.delivered_ms),
            acknowledged,
            released,
        }))
    }
}
