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
//! - Everything given in is [`Verified`].

use std::sync::Arc;

use async_trait::async_trait;
use bureau_core::{
    BureauCode, DeskName, Envelope, Epoch, Lane, Manifest, MessageId, Receipt, Slip, Timestamp,
    Verified, ids::IdPrefix, receipt::ReceiptKind,
};
use bytes::Bytes;
use tokio::sync::broadcast;

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
    async fn requests(&self, keys: Vec<RequestKey>) -> Result<Vec<Option<RequestMade>>, StoreError>;

    /// The last slip of each count that this bureau gave out: where counting goes on after a start.
    async fn heads(&self) -> Result<Vec<Head>, StoreError>;

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

    /// Receipts that wait for a destination, in order, after a number.
    async fn receipts(
        &self,
        destination: BureauCode,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutgoingReceipt>, StoreError>;

    /// Destinations that receipts wait for; from memory.
    fn receipt_destinations(&self) -> Vec<BureauCode>;

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

/// One thing to decide and make durable.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A message of this bureau.
    Accept(Box<Accept>),
    /// A message of another bureau, brought by a link.
    Receive(Box<Receive>),
    /// A receipt, brought by a link.
    TakeReceipt(Box<TakeReceipt>),
    /// This node gives a message up that waits here: it expired, or the next hop will never take
    /// it. The receipt, signed here, says which.
    GiveUp(Box<GiveUp>),
    /// A desk takes a message over.
    Acknowledge(Box<Acknowledge>),
    /// Outgoing receipts are durable at the next hop.
    ReceiptsTaken(Vec<ReceiptPosition>),
    /// A timer was handled. A [`TimerKind::Forget`] timer also forgets its messages; one that
    /// may not be forgotten yet gets a new timer a day later.
    TimerHandled {
        /// Which.
        timer: Timer,
        /// When.
        now: Timestamp,
    },
}

/// A message of this bureau.
#[derive(Debug, Clone)]
pub struct Accept {
    /// What is sent.
    pub envelope: Verified<Envelope>,
    /// For whom, each with its place in its count (see [`Head`]).
    pub slips: Vec<(Verified<Slip>, u64)>,
    /// The desk that submits.
    pub desk: DeskName,
    /// Its request id, if it gave one.
    pub request: Option<(RequestKey, [u8; 32])>,
    /// When.
    pub now: Timestamp,
}

/// A message of another bureau.
#[derive(Debug, Clone)]
pub struct Receive {
    /// What is sent.
    pub envelope: Verified<Envelope>,
    /// What is done with each slip.
    pub slips: Vec<ReceiveSlip>,
    /// The peer that brought it.
    pub hop: BureauCode,
    /// Nodes it passed before this one.
    pub hops: u32,
    /// When.
    pub now: Timestamp,
}

/// A slip that came with a message, and what is done with it.
#[derive(Debug, Clone)]
pub struct ReceiveSlip {
    /// The slip.
    pub slip: Verified<Slip>,
    /// What is done.
    pub action: ReceiveAction,
    /// The receipt that says so, signed here: DELIVERED, CUSTODY or REFUSED. Kept where the slip
    /// is new; otherwise the first one is given again.
    pub receipt: Verified<Receipt>,
}

/// What is done with a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveAction {
    /// It is for this bureau: into the inbox.
    Deliver,
    /// It is for another: into the queue.
    Relay,
    /// It is for this bureau, and refused: only the refusal is kept, no content.
    Refuse,
}

/// A receipt that a link brought.
#[derive(Debug, Clone)]
pub struct TakeReceipt {
    /// The receipt.
    pub receipt: Verified<Receipt>,
    /// The peer that brought it.
    pub hop: BureauCode,
    /// When.
    pub now: Timestamp,
}

/// A message that is given up here for one recipient.
#[derive(Debug, Clone)]
pub struct GiveUp {
    /// EXPIRED or REFUSED, signed here.
    pub receipt: Verified<Receipt>,
    /// When.
    pub now: Timestamp,
}

/// A desk takes a message over.
#[derive(Debug, Clone)]
pub struct Acknowledge {
    /// ACKNOWLEDGED, signed here.
    pub receipt: Verified<Receipt>,
    /// The desk.
    pub desk: DeskName,
    /// When.
    pub now: Timestamp,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// [`Operation::Accept`]: it is accepted.
    Accepted,
    /// [`Operation::Accept`]: this request was made before, for the same content. Nothing changed.
    RequestRepeated(RequestMade),
    /// [`Operation::Accept`]: this request id was used for another content. Nothing changed.
    RequestReused,
    /// [`Operation::Receive`]: for each slip, in order.
    Received(Vec<Received>),
    /// [`Operation::TakeReceipt`]: it counted.
    ReceiptTaken,
    /// [`Operation::TakeReceipt`]: nothing changed, and the hop need not send it again: known
    /// already, of an unknown message or slip, or not this signer's to give.
    ReceiptIgnored(ReceiptIgnored),
    /// [`Operation::GiveUp`]: it is given up; or `false`, it did not wait here any more.
    GivenUp(bool),
    /// [`Operation::Acknowledge`]: since when and by whom it is acknowledged. `fresh` where that is this call.
    Acknowledged {
        /// When it was first acknowledged.
        time: Timestamp,
        /// By which desk.
        desk: DeskName,
        /// Whether by this call.
        fresh: bool,
    },
    /// [`Operation::Acknowledge`]: no such message in the inbox.
    NotFound,
    /// [`Operation::ReceiptsTaken`], [`Operation::TimerHandled`].
    Done,
}

/// What became of a slip that a link brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// New: its receipt was kept and is to be sent to the hop.
    Fresh,
    /// Seen before, and still for this node to answer: the receipt that was given then, encoded.
    Repeat(Bytes),
    /// This node relayed it before and passed it on: who holds it now. The hop that asks keeps custody.
    PassedOn(BureauCode),
}

/// Why a receipt changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptIgnored {
    /// Known already.
    Repeated,
    /// No such message and recipient here.
    UnknownMessage,
    /// It names another slip.
    SlipMismatch,
    /// Its signer may not give it: EXPIRED before the time, or from one who never held it.
    NotItsToGive,
}

/// A desk's request id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The desk.
    pub desk: DeskName,
    /// The UUID.
    pub id: [u8; 16],
}

/// What a request id was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMade {
    /// Digest of the request.
    pub digest: [u8; 32],
    /// The message.
    pub message: MessageId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
}

/// The last slip given out to a recipient in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The recipient.
    pub recipient: BureauCode,
    /// The lane.
    pub lane: Lane,
    /// Its place in the count.
    pub sequence: u64,
    /// Its digest.
    pub slip: [u8; 32],
}

/// A message that waits, as a link sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Where it stands and what it is.
    pub entry: QueuedEntry,
    /// The signed manifest, encoded.
    pub signed_manifest: Bytes,
    /// The body.
    pub body: Bytes,
    /// The signed slip, encoded.
    pub slip: Bytes,
}

/// A slip that waits, without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedSlip {
    /// Where it stands.
    pub position: QueuePosition,
    /// The signed slip, encoded.
    pub slip: Bytes,
}

/// A message that waits, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedEntry {
    /// Where it stands.
    pub position: QueuePosition,
    /// The message.
    pub message: MessageId,
    /// Its origin.
    pub origin: BureauCode,
    /// Digest of its slip.
    pub slip_digest: [u8; 32],
    /// Since when it waits here.
    pub enqueued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// Size of the envelope in bytes, about.
    pub size: u64,
    /// Nodes it passed, this one included.
    pub hops: u32,
    /// Slips of the same message that were queued here together.
    pub fan_out: u32,
    /// The peer it came from; `None` where it is this bureau's own.
    pub previous_hop: Option<BureauCode>,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueuePosition {
    /// For whom.
    pub destination: BureauCode,
    /// How urgent.
    pub lane: Lane,
    /// The number.
    pub number: u64,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// For whom.
    pub destination: BureauCode,
    /// How urgent.
    pub lane: Lane,
    /// How many.
    pub messages: u64,
    /// Since when the oldest waits.
    pub oldest: Timestamp,
}

/// A place among outgoing receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiptPosition {
    /// Where it must go.
    pub destination: BureauCode,
    /// The number.
    pub number: u64,
}

/// A receipt on its way to a message's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingReceipt {
    /// Where it stands.
    pub position: ReceiptPosition,
    /// The signed receipt, encoded.
    pub receipt: Bytes,
}

/// A message in the inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub message: MessageId,
    /// What everyone may see.
    pub manifest: Manifest,
    /// Digest of the slip it came with.
    pub slip: [u8; 32],
    /// The body; empty where it was not asked for.
    pub body: Bytes,
    /// The peer that brought it.
    pub hop: BureauCode,
    /// When it was delivered.
    pub delivered: Timestamp,
    /// When and by which desk it was acknowledged.
    pub acknowledged: Option<(Timestamp, DeskName)>,
}

/// What this node is to a (message, recipient).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// This bureau sent it.
    Origin,
    /// This bureau passes it on.
    Relay,
    /// It is for this bureau.
    Recipient,
}

/// What is known of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracked {
    /// The message.
    pub message: MessageId,
    /// What everyone may see; `None` where only the memory of the id is left.
    pub manifest: Option<Manifest>,
    /// The body, while it is held here; only for the origin's own messages.
    pub body: Bytes,
    /// Its origin.
    pub origin: BureauCode,
    /// When it expires.
    pub expires: Timestamp,
    /// For each recipient, by code.
    pub recipients: Vec<TrackedRecipient>,
}

/// What is known of a message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedRecipient {
    /// The recipient.
    pub recipient: BureauCode,
    /// What this node is to it.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// Where it waits, while it does.
    pub position: Option<QueuePosition>,
    /// Digest of its slip.
    pub slip: [u8; 32],
    /// Who holds it, by the last custody receipt; `None`: this node, or the recipient.
    pub holder: Option<BureauCode>,
    /// Every receipt that was kept, oldest first.
    pub receipts: Vec<KeptReceipt>,
}

/// Where a message stands for one recipient, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits here.
    Queued,
    /// Another relay has custody.
    Relayed,
    /// The recipient has it.
    Delivered,
    /// A desk of the recipient has taken it.
    Acknowledged,
    /// It was refused for good.
    Refused,
    /// It was not delivered in time.
    Expired,
}

/// A receipt that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReceipt {
    /// What it says happened.
    pub kind: ReceiptKind,
    /// Who signed it.
    pub signer: BureauCode,
    /// When it was stored here.
    pub received: Timestamp,
    /// The signed receipt, encoded.
    pub receipt: Bytes,
}

/// Something to do at a time, for some messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// From when on: ticks of five seconds since 1970.
    pub tick: u64,
    /// Which of that tick.
    pub number: u64,
    /// What.
    pub kind: TimerKind,
    /// For which messages.
    pub messages: Vec<MessageId>,
}

/// What is to do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TimerKind {
    /// The messages expire: those that wait here are given up.
    Expire = 1,
    /// They expired a while ago: the origin gives those up that no answer came for.
    Overdue = 2,
    /// They need not be remembered any more.
    Forget = 3,
}

/// How long after expiry an origin waits for the answer of a custodian.
pub const OVERDUE_AFTER_EXPIRY_MS: i64 = 10 * 60 * 1000;

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
