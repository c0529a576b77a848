//! The contract of a store, in the words of the domain: what an engine of any kind must promise.
//! Nothing here knows sled, the journal or files. One contract suite runs against every engine.
//!
//! The promises:
//! - [`Store::commit`] returns after its operations are durable and visible, or with an error that
//!   says whether anything happened. A caller reads its own writes.
//! - Operations of one call are decided in order, each by itself: one that is refused by its
//!   [`Outcome`] leaves the others alone.
//! - A message is taken once for each (id, recipient), whoever brings it and however often.
//! - Queue and inbox numbers become visible in order and are never used twice.
//! - Everything given in is [`Verified`](bureau_core::Verified).

mod lifecycle;
mod operation;
mod view;

use std::sync::Arc;

use async_trait::async_trait;
pub use bureau_core::envelope::Content;
use bureau_core::{BureauCode, Epoch, Lane, MessageId, Timestamp, ids::IdPrefix};
use bytes::Bytes;
use tokio::sync::broadcast;

pub use lifecycle::{
    DeadLetter, DeadPosition, Held, HeldDepth, HeldEntry, Hold, HoldReason, NOTE_BYTES_MAX, Recall,
    Recalled, Release, Requeued, Turned,
};
pub use operation::{
    Accept, Acknowledge, GiveUp, Operation, Outcome, ReceiptIgnored, Receive, ReceiveAction,
    ReceiveSlip, Received, Refilled, TakeReceipt,
};
pub use view::{
    Arrived, AttachmentHeld, BundleKept, BundleWay, Bundled, Counted, CustodyWatch, Depth, Head,
    KeptReceipt, OVERDUE_AFTER_EXPIRY_MS, OutgoingReceipt, PeerNote, QueuePosition, Queued,
    QueuedEntry, QueuedSlip, ReceiptPosition, ReceiptRange, RequestKey, RequestMade, Rerouted,
    Role, SentSoFar, Source, State, Timer, TimerKind, Tracked, TrackedRecipient, warn_time,
};

use crate::StoreError;

/// A store: durable queues, inbox and delivery states of one bureau.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Decides operations in order and makes what they change durable, in one group where it can.
    /// Gives an outcome for each, in order.
    ///
    /// # Errors
    /// [`StoreError::DiskLow`] and [`StoreError::Busy`]: nothing happened. Only operations that bring new work
    /// ([`Operation::Accept`], [`Operation::Receive`]) are refused for a low disk.
    /// [`StoreError::OutcomeUnknown`]: the disk failed; the process must end.
    async fn commit(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, StoreError>;

    /// What a desk's request id was used for, while it is remembered.
    async fn requests(&self, keys: Vec<RequestKey>)
    -> Result<Vec<Option<RequestMade>>, StoreError>;

    /// The last slip of each count that this bureau gave out: where counting goes on after a start.
    async fn heads(&self) -> Result<Vec<Head>, StoreError>;

    /// What is remembered of peers that are away.
    async fn peer_notes(&self) -> Result<Vec<(BureauCode, PeerNote)>, StoreError>;

    /// What waits for a destination in a lane, in order, after a number (0: from the beginning).
    /// At most `limit`, and no more after `bytes` of envelopes are reached.
    async fn queued(
        &self,
        destination: BureauCode,
        lane: Lane,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Queued>, StoreError>;

    /// All slips of a message that wait here: so that one parcel can carry several.
    async fn queued_slips(&self, message: MessageId) -> Result<Vec<QueuedSlip>, StoreError>;

    /// One page of the queue without contents, for operators: by destination, lane and number,
    /// after a position.
    async fn queue_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<QueuePosition>,
        limit: usize,
    ) -> Result<Vec<QueuedEntry>, StoreError>;

    /// How much waits, by destination and lane; from memory.
    fn depths(&self) -> Vec<Depth>;

    /// How many messages wait for a destination, in all lanes; from memory.
    fn depth(&self, destination: BureauCode) -> u64 {
        let here = self.depths().into_iter().filter(|depth| depth.destination == destination);
        here.map(|depth| depth.messages).sum()
    }

    /// One page of what is held back, by destination and message, after one of them.
    async fn held_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<(BureauCode, MessageId)>,
        limit: usize,
    ) -> Result<Vec<HeldEntry>, StoreError>;

    /// How much is held back, by destination and reason; from memory. None of it is in
    /// [`Store::depths`].
    fn held_depths(&self) -> Vec<HeldDepth>;

    /// The peers that nothing is sent over, by an operator's word.
    async fn held_peers(&self) -> Result<Vec<(BureauCode, Held)>, StoreError>;

    /// One page of own messages that ended undelivered, the latest first, after a position.
    async fn dead_page(
        &self,
        recipient: Option<BureauCode>,
        after: Option<DeadPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// The dead letters of a message, by recipient.
    async fn dead_letters(&self, message: MessageId) -> Result<Vec<DeadLetter>, StoreError>;

    /// Receipts that wait for a destination, in order, after a number.
    async fn receipts(
        &self,
        destination: BureauCode,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutgoingReceipt>, StoreError>;

    /// What is here of an attachment: all of it, whoever brought it, or what this one has brought.
    async fn attachment(
        &self,
        source: Source,
        digest: [u8; 32],
    ) -> Result<AttachmentHeld, StoreError>;

    /// Adds a piece to an attachment that comes in, where it begins right after what this one has
    /// brought; any other piece changes nothing. Gives what is here then; the last piece returns when all of it
    /// is checked and durable.
    ///
    /// # Errors
    /// [`StoreError::DiskLow`], [`StoreError::StagingFull`]: nothing happened.
    async fn attachment_add(
        &self,
        source: Source,
        content: Content,
        offset: u64,
        data: Bytes,
    ) -> Result<AttachmentHeld, StoreError>;

    /// A piece of an attachment that is whole, from an offset on: fewer bytes than `limit` only at
    /// its end. `None`: it is not here.
    async fn attachment_read(
        &self,
        digest: [u8; 32],
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Destinations that receipts wait for; from memory.
    fn receipt_destinations(&self) -> Vec<BureauCode>;

    /// Bundles that are remembered, of one way and peer or of all, the latest first, at most `limit`.
    async fn bundles(
        &self,
        way: Option<BundleWay>,
        peer: Option<BureauCode>,
        limit: usize,
    ) -> Result<Vec<BundleKept>, StoreError>;

    /// One page of the inbox after a number. Without content unless `content`.
    async fn inbox(
        &self,
        after: u64,
        limit: usize,
        acknowledged: bool,
        content: bool,
    ) -> Result<Vec<Arrived>, StoreError>;

    /// What arrived under an inbox number, with content.
    async fn inbox_number(&self, number: u64) -> Result<Option<Arrived>, StoreError>;

    /// What arrived under an id, with content.
    async fn inbox_message(&self, message: MessageId) -> Result<Option<Arrived>, StoreError>;

    /// What is known of a message for each recipient, by code; `None` where nothing is.
    async fn track(&self, message: MessageId) -> Result<Option<Tracked>, StoreError>;

    /// Up to two messages of a role whose id begins like this: one is found, two are ambiguous.
    async fn find(&self, prefix: IdPrefix, role: Role) -> Result<Vec<MessageId>, StoreError>;

    /// What this bureau sent of each of its counts that something left of.
    async fn sent(&self) -> Result<Vec<SentSoFar>, StoreError>;

    /// What came of each count that its origin made a statement about.
    async fn counted(&self) -> Result<Vec<Counted>, StoreError>;

    /// Timers that are due.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Timer>, StoreError>;

    /// The store's incarnation.
    fn epoch(&self) -> Epoch;

    /// The latest time any operation named: the clock must not go behind it.
    fn latest_time(&self) -> Timestamp;

    /// What changed, group by group, after it is visible. A receiver that lags must look at all.
    fn changes(&self) -> broadcast::Receiver<Arc<Changes>>;

    /// Room on the disk.
    fn room(&self) -> Room;

    /// Returns when the store has failed and the process must end.
    async fn failed(&self);

    /// Finishes what was begun, checkpoints, and marks the stop as clean. Later calls fail.
    async fn close(&self) -> Result<(), StoreError>;
}

/// What a group changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Destinations that something new waits for: messages or receipts.
    pub destinations: Vec<BureauCode>,
    /// The highest inbox number, where something arrived.
    pub inbox: Option<u64>,
}

/// Room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Whether new work is refused.
    pub low: bool,
}
