//! The rules of the contract over keys and records: one operation in, its writes and its outcome
//! out. One thread owns it, so that what it decides is decided in order.
//!
//! - [`accept`]: what a desk sends; [`receive`]: what a link brings;
//! - [`receipts`]: what receipts do, here and on their way home;
//! - [`counts`]: what came of the counts of others; [`sent`]: what was sent of the own ones;
//! - [`hold`]: holding back, letting go and taking back; [`dead`]: what ended undelivered;
//! - [`repair`]: a way that leads nowhere is left for another;
//! - [`bundles`]: what is carried by hand;
//! - [`finish`]: giving up, acknowledging, timers, forgetting;
//! - [`depths`]: what waits, counted in memory.

pub(crate) mod accept;
mod bundles;
mod counts;
pub(crate) mod dead;
pub(crate) mod depths;
mod finish;
mod hold;
mod receipts;
mod receive;
mod repair;
pub(crate) mod sent;

pub use repair::CUSTODY_OVERDUE_MS;

use std::{collections::HashMap, sync::Arc};

use bureau_core::{
    BureauCode, Epoch, Lane, Manifest, MessageId, Timestamp, envelope::stored_manifest,
    ranges::Ranges, receipt::ReceiptKind,
};
use bytes::Bytes;
use prost::Message;

use crate::{
    StoreError,
    bodies::Pins,
    committer::{Resolver, Transaction},
    contract::{
        HoldReason, Operation, Outcome, PeerNote, QueuePosition, ReceiptPosition, State, TimerKind,
    },
    keys,
    record::{
        self, CountersRecord, MessageRecord, PeerRecord, QueueRecord, ReceiptRecord, TimerRecord,
        TrackRecord,
    },
};

/// Bodies up to this stand in the record; a value stays under 6 KiB with the largest manifest and
/// signature beside it.
pub const INLINE_BODY_BYTES_MAX: usize = 2048;
/// Manifest, signature and body that stand in one record together.
pub(crate) const INLINE_BYTES_MAX: usize = 5 * 1024;
/// Messages in one timer record: 32 of 34 bytes.
const TIMER_MESSAGES_MAX: usize = 32;
/// Timer records that are still being filled.
const OPEN_TIMERS_MAX: usize = 256;

/// The rules, and the numbers they give out.
pub(crate) struct Ledger {
    counters: CountersRecord,
    /// The last number in the queue when this process began.
    queue_at_start: u64,
    /// How long an origin waits for a recipient's word, the first time.
    custody_overdue_ms: i64,
    /// Timer records that take more messages: their number and how many they hold.
    open_timers: HashMap<(u64, TimerKind), (u64, usize)>,
}

/// An operation on its way to be decided, and the bodies it may name.
pub(crate) struct Ordered {
    pub(crate) operation: Operation,
    pub(crate) bodies: Option<Arc<(Pins, Pins)>>,
    /// Attachments that it names are not here.
    pub(crate) missing: bool,
}

/// What was decided. The bodies are held until it is visible that they are named, also where the
/// caller went away.
pub(crate) struct Decided {
    pub(crate) outcome: Outcome,
    pub(crate) notes: Vec<Note>,
    _bodies: Option<Arc<(Pins, Pins)>>,
}

/// What an operation changed beyond the records, for those who keep count in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// Something waits.
    Queued(QueuePosition, Timestamp),
    /// It waits no more.
    Dequeued(QueuePosition),
    /// Something is held back.
    Held(BureauCode, HoldReason),
    /// It is held no more.
    Unheld(BureauCode, HoldReason),
    /// A receipt waits for its way home.
    ReceiptQueued(BureauCode),
    /// It waits no more.
    ReceiptDequeued(BureauCode),
    /// Something arrived.
    Arrived(u64),
    /// A body file may be removed, if nothing else refers to it.
    BodyReleased([u8; 32]),
    /// An operation named this time.
    Time(Timestamp),
    /// The store is in a new epoch.
    Epoch(Epoch),
}

impl Resolver for Ledger {
    type Operation = Ordered;
    type Outcome = Decided;

    fn resolve(
        &mut self,
        Ordered { operation, bodies, missing }: Ordered,
        tx: &mut Transaction<'_>,
    ) -> Result<Decided, StoreError> {
        let before = self.counters;
        let mut scribe = Writing { ledger: self, tx, notes: Vec::new(), missing };
        let outcome = match operation {
            Operation::Accept(accept) => scribe.accept(*accept)?,
            Operation::Receive(receive) => scribe.receive(*receive)?,
            Operation::TakeReceipt(take) => scribe.take_receipt(*take)?,
            Operation::GiveUp(give_up) => scribe.give_up(*give_up)?,
            Operation::Acknowledge(acknowledge) => scribe.acknowledge(*acknowledge)?,
            Operation::ReleaseAttachments { message, recipient, desk, now } => {
                scribe.release_attachments(&message, &recipient, desk, now)?
            }
            Operation::Hold(hold) => scribe.hold(*hold)?,
            Operation::Release(release) => scribe.release_held(*release)?,
            Operation::Recall(recall) => scribe.recall(*recall)?,
            Operation::HoldPeer { peer, held } => scribe.hold_peer(peer, held.as_deref())?,
            Operation::Reroute { message, recipient, now } => {
                scribe.reroute(&message, recipient, now)?
            }
            Operation::TakeMark(statement) => scribe.take_mark(&statement)?,
            Operation::Refill { need, after, now } => {
                scribe.refill(need.shortfall(), after, now)?
            }
            Operation::PeerEpoch { peer, epoch } => scribe.peer_epoch(&peer, epoch)?,
            Operation::BeginEpoch(epoch) => scribe.begin_epoch(epoch)?,
            Operation::ReceiptsTaken(positions) => scribe.receipts_taken(positions)?,
            Operation::NotePeer { peer, note } => scribe.note_peer(&peer, note),
            Operation::KeepBundle(bundle) => scribe.keep_bundle(&bundle)?,
            Operation::NoteBundled { bundle, peer, positions, now } => {
                scribe.note_bundled(bundle, peer, positions, now)?
            }
            Operation::ConfirmBundles { peer, bundles, now } => {
                scribe.confirm_bundles(peer, bundles, now)?
            }
            Operation::TimerHandled { timer, now } => scribe.timer_handled(timer, now)?,
        };
        let notes = scribe.notes;
        for note in &notes {
            if let Note::Time(time) = note {
                self.counters.latest_ms = self.counters.latest_ms.max(time.as_ms());
            }
        }
        if self.counters != before {
            let counters = record::encode(keys::COUNTERS, &self.counters);
            tx.put(keys::COUNTERS.to_vec(), counters);
        }
        Ok(Decided { outcome, notes, _bodies: bodies })
    }
}

impl Ledger {
    pub(crate) fn new(counters: CountersRecord, custody_overdue_ms: u64) -> Self {
        let custody_overdue_ms = i64::try_from(custody_overdue_ms).unwrap_or(i64::MAX);
        let queue_at_start = counters.queue;
        Self { counters, queue_at_start, custody_overdue_ms, open_timers: HashMap::new() }
    }
}

/// One operation while it is decided.
struct Writing<'a, 'b> {
    ledger: &'a mut Ledger,
    tx: &'a mut Transaction<'b>,
    notes: Vec<Note>,
    missing: bool,
}

impl Writing<'_, '_> {
    fn read<R: Message + Default>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.tx.get(key)?.map(|value| record::decode(key, &value)).transpose()
    }

    fn write(&mut self, key: Vec<u8>, record: &impl Message) {
        let value = record::encode(&key, record);
        self.tx.put(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.tx.delete(key);
    }

    fn track(
        &self,
        message: &MessageId,
        recipient: &BureauCode,
    ) -> Result<Option<TrackRecord>, StoreError> {
        self.read(&keys::track(message, recipient))
    }

    fn tracks(&self, message: &MessageId) -> Result<Vec<(BureauCode, TrackRecord)>, StoreError> {
        let prefix = keys::tracks_of(message);
        let mut tracks = Vec::new();
        for (key, value) in self.tx.scan_prefix(&prefix)? {
            if let Some((_, recipient)) = keys::track_parts(&key) {
                tracks.push((recipient, record::decode(&key, &value)?));
            }
        }
        Ok(tracks)
    }

    /// Keeps a message's content: small bodies in the record, large ones by their file.
    fn keep_message(
        &mut self,
        id: &MessageId,
        signed_manifest: Bytes,
        body: &Bytes,
        manifest: &Manifest,
    ) -> MessageRecord {
        let digest = manifest.body.digest;
        let attachments = u32::try_from(manifest.attachments.len()).unwrap_or(u32::MAX);
        let mut record = MessageRecord { signed_manifest, attachments, ..MessageRecord::default() };
        for attachment in &manifest.attachments {
            self.tx.put(keys::body(&attachment.digest, id), Vec::new());
        }
        // An origin may sign a manifest of 4 KiB: then even a small body goes into a file.
        let inline = body.len() <= INLINE_BODY_BYTES_MAX
            && record.signed_manifest.len() + body.len() <= INLINE_BYTES_MAX;
        if inline {
            record.body = body.clone();
        } else {
            record.body_digest = Bytes::copy_from_slice(&digest);
            self.tx.put(keys::body(&digest, id), Vec::new());
        }
        record
    }

    /// Removes a message's content.
    fn drop_message(&mut self, id: &MessageId) -> Result<(), StoreError> {
        let key = keys::message(id);
        let Some(record) = self.read::<MessageRecord>(&key)? else { return Ok(()) };
        self.drop_files(id, &record);
        self.delete(key);
        Ok(())
    }

    /// Gives the files of a message back: a large body, and attachments.
    fn drop_files(&mut self, id: &MessageId, record: &MessageRecord) {
        let mut digests: Vec<[u8; 32]> = record.file().into_iter().collect();
        if record.attachments > 0
            && let Ok(manifest) = stored_manifest(record.signed_manifest.clone())
        {
            digests.extend(manifest.attachments.iter().map(|attachment| attachment.digest));
        }
        for digest in digests {
            self.delete(keys::body(&digest, id));
            self.notes.push(Note::BodyReleased(digest));
        }
    }

    fn enqueue(&mut self, destination: BureauCode, lane: Lane, record: &QueueRecord) -> u64 {
        self.ledger.counters.queue += 1;
        let number = self.ledger.counters.queue;
        let position = QueuePosition { destination, lane, number };
        self.write(keys::queue(&position), record);
        self.notes.push(Note::Queued(position, Timestamp::from_ms(record.enqueued_ms)));
        number
    }

    /// Takes a message out of the queue, or out of what is held back, if it is there; the record
    /// no longer says where it waits then.
    fn dequeue(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        track: &mut TrackRecord,
    ) -> Result<bool, StoreError> {
        if track.state() == State::Held {
            self.unhold(message, recipient)?;
            return Ok(true);
        }
        let lane = i32::try_from(track.lane).ok().and_then(Lane::from_wire);
        let (Some(lane), true) = (lane, track.queue_number > 0) else { return Ok(false) };
        let position = QueuePosition { destination: recipient, lane, number: track.queue_number };
        self.delete(keys::queue(&position));
        self.notes.push(Note::Dequeued(position));
        track.queue_number = 0;
        Ok(true)
    }

    /// Remembers a peer that is away, and forgets one that came back.
    fn note_peer(&mut self, peer: &BureauCode, note: PeerNote) -> Outcome {
        let key = keys::peer(peer);
        if note.failed_attempts == 0 {
            self.delete(key);
        } else {
            let record = PeerRecord {
                failed_attempts: note.failed_attempts,
                next_attempt_ms: note.next_attempt.as_ms(),
                down_since_ms: note.down_since.as_ms(),
                last_reason: note.last_reason,
            };
            self.write(key, &record);
        }
        Outcome::Done
    }

    /// Sends a receipt home.
    fn send_home(&mut self, origin: BureauCode, receipt: Bytes, now: Timestamp) {
        self.ledger.counters.receipt += 1;
        let number = self.ledger.counters.receipt;
        let position = ReceiptPosition { destination: origin, number };
        let record = ReceiptRecord { received_ms: now.as_ms(), receipt };
        self.write(keys::outgoing(&position), &record);
        self.notes.push(Note::ReceiptQueued(origin));
    }

    fn keep_receipt(
        &mut self,
        message: &MessageId,
        recipient: &BureauCode,
        kind: ReceiptKind,
        signer: &BureauCode,
        receipt: Bytes,
        now: Timestamp,
    ) {
        let record = ReceiptRecord { received_ms: now.as_ms(), receipt };
        self.write(keys::receipt(message, recipient, kind, signer), &record);
    }

    /// Puts a message under a timer. Messages of one time share a record.
    fn set_timer(
        &mut self,
        at: Timestamp,
        kind: TimerKind,
        message: MessageId,
    ) -> Result<(), StoreError> {
        let tick = tick_after(at);
        if self.ledger.open_timers.len() > OPEN_TIMERS_MAX {
            self.ledger.open_timers.clear();
        }
        let open = self.ledger.open_timers.get(&(tick, kind)).copied();
        let (number, held) = match open.filter(|(_, held)| *held < TIMER_MESSAGES_MAX) {
            Some(open) => open,
            None => {
                self.ledger.counters.timer += 1;
                (self.ledger.counters.timer, 0)
            }
        };
        let key = keys::timer(tick, kind, number);
        // A timer that was handled meanwhile is gone; then this begins it anew.
        let mut record: TimerRecord = self.read(&key)?.unwrap_or_default();
        // Many recipients of one message are one entry.
        let last = record.messages.last().is_some_and(|last| last == message.0.as_slice());
        if kind == TimerKind::Reroute && last {
            return Ok(());
        }
        record.messages.push(Bytes::copy_from_slice(&message.0));
        self.write(key, &record);
        self.ledger.open_timers.insert((tick, kind), (number, held + 1));
        Ok(())
    }

    /// Whether this node must still get a message on, or keeps it for a desk or for evidence.
    fn is_held(tracks: &[(BureauCode, TrackRecord)]) -> bool {
        use crate::contract::Role;
        tracks.iter().any(|(_, track)| match track.role() {
            Role::Origin => true,
            Role::Relay => matches!(track.state(), State::Queued | State::Held),
            Role::Recipient => track.inbox_number > 0,
        })
    }
}

/// Spans out of a record.
pub(crate) fn spans(flat: &[u64]) -> Ranges {
    let mut ranges = Ranges::default();
    for span in flat.chunks_exact(2) {
        if let [first, last] = span {
            ranges.insert_span(*first, *last);
        }
    }
    ranges
}

/// Spans for a record.
fn flat(ranges: &Ranges) -> Vec<u64> {
    ranges.spans().flat_map(|(first, last)| [first, last]).collect()
}

/// Milliseconds of a tick: timers are kept by it.
pub(crate) const TICK_MS: i64 = 5000;

/// The first tick that is not before a moment.
fn tick_after(at: Timestamp) -> u64 {
    let ticks = (at.as_ms() + TICK_MS - 1) / TICK_MS;
    u64::try_from(ticks).unwrap_or(0)
}

/// The last tick that is due at a moment.
pub(crate) fn tick_due(now: Timestamp) -> u64 {
    u64::try_from(now.as_ms() / TICK_MS).unwrap_or(0)
}
