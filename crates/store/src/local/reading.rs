//! Reading: records as the contract shows them. Blocking; runs away from the reactor.

mod counts;
mod inbox;
mod lifecycle;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError},
};

use bureau_core::{
    BundleId, BureauCode, Lane, MessageId, Timestamp, envelope::stored_manifest, ids::IdPrefix,
    receipt::ReceiptKind,
};
use bytes::Bytes;

use crate::{
    StoreError,
    bodies::Bodies,
    contract::{
        BundleKept, BundleWay, CustodyWatch, Head, KeptReceipt, OutgoingReceipt, PeerNote,
        QueuePosition, Queued, QueuedEntry, QueuedSlip, RequestKey, RequestMade, Role, State,
        Timer, Tracked, TrackedRecipient, warn_time,
    },
    disk::Disk,
    index::Index,
    keys,
    ledger::{accept::request_made, depths::for_each, tick_due},
    record::{
        self, BundleRecord, HeadRecord, MessageRecord, PeerRecord, QueueRecord, ReceiptRecord,
        RequestRecord, TimerRecord, TrackRecord,
    },
};

const SCAN: usize = 512;

/// What is read from.
pub(super) struct Reading<D: Disk, I: Index> {
    pub(super) index: Arc<I>,
    pub(super) bodies: Bodies<D>,
    pub(super) damage: Arc<Damage>,
}

/// Records that cannot be read, so that each is told once and not at every look.
#[derive(Debug, Default)]
pub(super) struct Damage {
    told: Mutex<BTreeSet<Vec<u8>>>,
}

/// Damaged records that are remembered.
const DAMAGED_MAX: usize = 1000;

impl Damage {
    /// Says by name what cannot be read. It stays where it is, for a repair.
    fn tell(&self, key: &[u8], error: &StoreError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= DAMAGED_MAX || !told.insert(key.to_vec()) {
            return;
        }
        match keys::queue_position(key) {
            Some(at) => tracing::error!(
                event = "queue_record_damaged",
                recipient = %at.destination, lane = %at.lane, number = at.number, error = %error
            ),
            None => tracing::error!(event = "queue_record_damaged", error = %error),
        }
    }
}

fn damaged(kind: u8) -> StoreError {
    StoreError::Record { kind: char::from(kind) }
}

impl<D: Disk, I: Index> Reading<D, I> {
    fn get<R: prost::Message + Default>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.index.get(key)?.map(|value| record::decode(key, &value)).transpose()
    }

    pub(super) fn requests(
        &self,
        keys: &[RequestKey],
    ) -> Result<Vec<Option<RequestMade>>, StoreError> {
        let one = |key: &RequestKey| {
            let record = self.get::<RequestRecord>(&keys::request(key))?;
            Ok(record.as_ref().and_then(request_made))
        };
        keys.iter().map(one).collect()
    }

    pub(super) fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let mut heads = Vec::new();
        for_each(&*self.index, &[keys::prefix::HEAD], |key, value| {
            let record: HeadRecord = record::decode(key, value)?;
            let (recipient, lane) =
                keys::head_parts(key).ok_or_else(|| damaged(keys::prefix::HEAD))?;
            let slip = record.slip.as_ref().try_into();
            let slip = slip.map_err(|_| damaged(keys::prefix::HEAD))?;
            heads.push(Head { recipient, lane, sequence: record.sequence, slip });
            Ok(())
        })?;
        Ok(heads)
    }

    pub(super) fn peer_notes(&self) -> Result<Vec<(BureauCode, PeerNote)>, StoreError> {
        let mut notes = Vec::new();
        for_each(&*self.index, &[keys::prefix::PEER], |key, value| {
            let record: PeerRecord = record::decode(key, value)?;
            let peer = keys::peer_parts(key).ok_or_else(|| damaged(keys::prefix::PEER))?;
            let note = PeerNote {
                failed_attempts: record.failed_attempts,
                next_attempt: Timestamp::from_ms(record.next_attempt_ms),
                down_since: Timestamp::from_ms(record.down_since_ms),
                last_reason: record.last_reason,
            };
            notes.push((peer, note));
            Ok(())
        })?;
        Ok(notes)
    }

    /// A message's signed manifest and body; without a body where that was given back while it
    /// was read.
    fn content(
        &self,
        message: &MessageId,
        record: MessageRecord,
    ) -> Result<(Bytes, Option<Bytes>), StoreError> {
        let Some(digest) = record.file() else {
            return Ok((record.signed_manifest, Some(record.body)));
        };
        let body = match self.bodies.read(&digest) {
            Ok(body) => Some(body),
            Err(error) => {
                let now = self.get::<MessageRecord>(&keys::message(message))?;
                if now.is_some_and(|now| now.file() == Some(digest)) {
                    return Err(error);
                }
                None
            }
        };
        Ok((record.signed_manifest, body))
    }

    pub(super) fn queued(
        &self,
        destination: BureauCode,
        lane: Lane,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Queued>, StoreError> {
        let prefix = keys::queue_lane(&destination, lane);
        let number = after.saturating_add(1);
        let mut from = keys::queue(&QueuePosition { destination, lane, number });
        let (mut queued, mut read) = (Vec::new(), 0);
        while queued.len() < limit && read < bytes {
            let pairs = self.index.scan(&from, &prefix, (limit - queued.len()).min(SCAN))?;
            let Some((last, _)) = pairs.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &pairs {
                if let Some(one) = self.queued_one(key, value)? {
                    read += one.signed_manifest.len() + one.body.len();
                    queued.push(one);
                }
                if read >= bytes {
                    break;
                }
            }
        }
        Ok(queued)
    }

    /// What waits under a key; `None` where it was taken out of the queue while it was read.
    fn queued_one(&self, key: &[u8], value: &[u8]) -> Result<Option<Queued>, StoreError> {
        let (entry, slip) = match queue_entry(key, value) {
            Ok(read) => read,
            Err(error) => {
                // What is behind it goes all the same.
                self.damage.tell(key, &error);
                return Ok(None);
            }
        };
        let unreadable = |entry| {
            let (signed_manifest, body) = (Bytes::new(), Bytes::new());
            Ok(Some(Queued { entry, signed_manifest, body, slip: slip.clone(), unreadable: true }))
        };
        let message = match self.get::<MessageRecord>(&keys::message(&entry.message)) {
            Ok(Some(message)) => message,
            Ok(None) if self.index.get(key)?.is_none() => return Ok(None),
            Ok(None) | Err(StoreError::Record { .. }) => return unreadable(entry),
            Err(error) => return Err(error),
        };
        // A body that was given back leaves a record like that of an empty one.
        let may_be_gone = message.file().is_none() && message.body.is_empty();
        if may_be_gone && self.index.get(key)?.is_none() {
            return Ok(None);
        }
        let (signed_manifest, body) = match self.content(&entry.message, message) {
            Ok(content) => content,
            Err(StoreError::Corrupt { .. }) => return unreadable(entry),
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return unreadable(entry);
            }
            Err(error) => return Err(error),
        };
        let unreadable = false;
        Ok(body.map(|body| Queued { entry, signed_manifest, body, slip, unreadable }))
    }

    pub(super) fn queued_slips(&self, message: &MessageId) -> Result<Vec<QueuedSlip>, StoreError> {
        let mut slips = Vec::new();
        for (recipient, track) in self.tracks(message)? {
            let Some(position) = position(recipient, &track) else { continue };
            let key = keys::queue(&position);
            if let Some(record) = self.get::<QueueRecord>(&key)? {
                let avoid = record.avoid();
                slips.push(QueuedSlip { position, slip: record.slip, avoid });
            }
        }
        Ok(slips)
    }

    pub(super) fn queue_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<QueuePosition>,
        limit: usize,
    ) -> Result<Vec<QueuedEntry>, StoreError> {
        let prefix = match destination {
            Some(destination) => keys::queue_of(&destination),
            None => vec![keys::prefix::QUEUE],
        };
        let from = match after {
            Some(position) => {
                let number = position.number.saturating_add(1);
                keys::queue(&QueuePosition { number, ..position })
            }
            None => prefix.clone(),
        };
        let mut entries = Vec::new();
        let mut from = from;
        while entries.len() < limit {
            let pairs = self.index.scan(&from, &prefix, limit - entries.len())?;
            let Some((last, _)) = pairs.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &pairs {
                match queue_entry(key, value) {
                    Ok((entry, _)) => entries.push(entry),
                    Err(error) => self.damage.tell(key, &error),
                }
            }
        }
        Ok(entries)
    }

    pub(super) fn receipts(
        &self,
        destination: BureauCode,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutgoingReceipt>, StoreError> {
        let prefix = keys::outgoing_of(&destination);
        let mut from = prefix.clone();
        from.extend_from_slice(&after.saturating_add(1).to_be_bytes());
        let mut receipts = Vec::new();
        for (key, value) in self.index.scan(&from, &prefix, limit)? {
            let position = keys::outgoing_position(&key);
            let position = position.ok_or_else(|| damaged(keys::prefix::OUTGOING))?;
            let record: ReceiptRecord = record::decode(&key, &value)?;
            receipts.push(OutgoingReceipt { position, receipt: record.receipt });
        }
        Ok(receipts)
    }

    pub(super) fn bundles(
        &self,
        way: Option<BundleWay>,
        peer: Option<BureauCode>,
        limit: usize,
    ) -> Result<Vec<BundleKept>, StoreError> {
        let mut kept = Vec::new();
        for_each(&*self.index, &[keys::prefix::BUNDLE], |key, value| {
            let parts = keys::bundle_parts(key).ok_or_else(|| damaged(keys::prefix::BUNDLE))?;
            let record: BundleRecord = record::decode(key, value)?;
            let wanted = way.is_none_or(|way| way == parts.0) && peer.is_none_or(|p| p == parts.1);
            kept.extend(wanted.then(|| record.kept(parts)));
            Ok(())
        })?;
        kept.sort_by_key(|bundle| std::cmp::Reverse((bundle.time, bundle.id)));
        kept.truncate(limit);
        Ok(kept)
    }

    fn tracks(&self, message: &MessageId) -> Result<Vec<(BureauCode, TrackRecord)>, StoreError> {
        let prefix = keys::tracks_of(message);
        let mut tracks = Vec::new();
        for (key, value) in self.index.scan(&prefix, &prefix, usize::MAX)? {
            let (_, recipient) =
                keys::track_parts(&key).ok_or_else(|| damaged(keys::prefix::TRACK))?;
            tracks.push((recipient, record::decode(&key, &value)?));
        }
        Ok(tracks)
    }

    pub(super) fn track(&self, message: MessageId) -> Result<Option<Tracked>, StoreError> {
        let tracks = self.tracks(&message)?;
        let Some((_, first)) = tracks.first() else { return Ok(None) };
        let origin = first.origin().ok_or_else(|| damaged(keys::prefix::TRACK))?;
        let (expires, is_origin) = (first.expires(), first.role() == Role::Origin);
        let record = self.get::<MessageRecord>(&keys::message(&message))?;
        let send_ms = record.as_ref().map_or(0, |record| record.send_ms);
        let send_at = (send_ms > 0).then(|| Timestamp::from_ms(send_ms));
        let (manifest, body) = match record {
            Some(record) => {
                let (signed, body) = self.content(&message, record)?;
                let body = body.unwrap_or_default();
                let manifest = stored_manifest(signed);
                let manifest = manifest.map_err(|_| damaged(keys::prefix::MESSAGE))?;
                (Some(manifest), if is_origin { body } else { Bytes::new() })
            }
            None => (None, Bytes::new()),
        };
        let recipients = tracks.into_iter().map(|(recipient, track)| {
            let receipts = self.kept_receipts(&message, &recipient)?;
            Ok(TrackedRecipient {
                recipient,
                role: track.role(),
                state: track.state(),
                position: position(recipient, &track),
                slip: track.slip(),
                holder: track.holder().filter(|_| track.state() == State::Relayed),
                held: self.held(&message, recipient, &track)?,
                recalled: lifecycle::recalled(&track),
                dead: self.dead(&message, recipient, &track)?,
                custody: custody(&track),
                bundled: track.bundled(),
                receipts,
            })
        });
        let recipients = recipients.collect::<Result<_, StoreError>>()?;
        let warns =
            manifest.as_ref().filter(|_| is_origin).map(|it| warn_time(it.created, expires));
        let warns = warns.filter(|warns| *warns < expires);
        Ok(Some(Tracked { message, manifest, body, origin, expires, warns, send_at, recipients }))
    }

    fn kept_receipts(
        &self,
        message: &MessageId,
        recipient: &BureauCode,
    ) -> Result<Vec<KeptReceipt>, StoreError> {
        let prefix = keys::receipts_of(message, recipient);
        let mut receipts = Vec::new();
        for (key, value) in self.index.scan(&prefix, &prefix, usize::MAX)? {
            let parts = key.get(prefix.len()..).and_then(<[u8]>::split_first);
            let (kind, signer) = parts.ok_or_else(|| damaged(keys::prefix::RECEIPT))?;
            let kind = ReceiptKind::try_from(i32::from(*kind));
            let signer = BureauCode::from_padded(signer);
            let (Ok(kind), Ok(signer)) = (kind, signer) else {
                return Err(damaged(keys::prefix::RECEIPT));
            };
            let record: ReceiptRecord = record::decode(&key, &value)?;
            let received = Timestamp::from_ms(record.received_ms);
            receipts.push(KeptReceipt { kind, signer, received, receipt: record.receipt });
        }
        receipts.sort_by_key(|receipt| (receipt.received, i32::from(receipt.kind)));
        Ok(receipts)
    }

    pub(super) fn find(&self, prefix: &IdPrefix, role: Role) -> Result<Vec<MessageId>, StoreError> {
        let all = [keys::prefix::TRACK];
        let mut from = keys::tracks_of(&prefix.lowest());
        let mut found: Vec<MessageId> = Vec::new();
        // Nearly always the first record is the message and the second another one.
        let mut limit = 4;
        loop {
            let pairs = self.index.scan(&from, &all, limit)?;
            limit = SCAN;
            let Some((last, _)) = pairs.last() else { return Ok(found) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &pairs {
                let (id, _) = keys::track_parts(key).ok_or_else(|| damaged(keys::prefix::TRACK))?;
                if !prefix.matches(&id) || found.len() == 2 {
                    return Ok(found);
                }
                let track: TrackRecord = record::decode(key, value)?;
                if track.role() == role && found.last() != Some(&id) {
                    found.push(id);
                }
            }
        }
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Timer>, StoreError> {
        let prefix = [keys::prefix::TIMER];
        let last = tick_due(now);
        let mut timers = Vec::new();
        for (key, value) in self.index.scan(&prefix, &prefix, limit)? {
            let parts = keys::timer_parts(&key);
            let (tick, kind, number) = parts.ok_or_else(|| damaged(keys::prefix::TIMER))?;
            if tick > last {
                break;
            }
            let record: TimerRecord = record::decode(&key, &value)?;
            let ids = record.messages.iter().map(|id| MessageId::from_bytes(id));
            let messages = ids.collect::<Result<_, _>>();
            let messages = messages.map_err(|_| damaged(keys::prefix::TIMER))?;
            timers.push(Timer { tick, number, kind, messages });
        }
        Ok(timers)
    }
}

fn custody(track: &TrackRecord) -> CustodyWatch {
    let relayed = track.role() == Role::Origin && track.state() == State::Relayed;
    let since = (relayed && track.relayed_ms > 0).then(|| Timestamp::from_ms(track.relayed_ms));
    CustodyWatch { since, reroutes: track.reroutes, overdue_at: track.avoid.parse().ok() }
}

fn position(recipient: BureauCode, track: &TrackRecord) -> Option<QueuePosition> {
    let lane = Lane::from_wire(i32::try_from(track.lane).ok()?)?;
    let number = track.queue_number;
    (number > 0).then_some(QueuePosition { destination: recipient, lane, number })
}

fn queue_entry(key: &[u8], value: &[u8]) -> Result<(QueuedEntry, Bytes), StoreError> {
    let damaged = || damaged(keys::prefix::QUEUE);
    let record: QueueRecord = record::decode(key, value)?;
    let entry = QueuedEntry {
        position: keys::queue_position(key).ok_or_else(damaged)?,
        message: record.message(),
        origin: record.origin.parse().map_err(|_| damaged())?,
        slip_digest: record.slip_digest.as_ref().try_into().map_err(|_| damaged())?,
        enqueued: Timestamp::from_ms(record.enqueued_ms),
        expires: Timestamp::from_ms(record.expires_ms),
        size: record.size,
        hops: record.hops,
        fan_out: record.fan_out,
        previous_hop: record.previous_hop.parse().ok(),
        avoid: record.avoid(),
        attachments: record.attachments,
        refills: record.refills,
        bundle: BundleId::from_bytes(&record.bundle).ok(),
    };
    Ok((entry, record.slip))
}
