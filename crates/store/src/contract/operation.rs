//! What a store is told, and what it decides.

use bureau_core::{
    BundleId, BureauCode, DeskName, Envelope, Epoch, MessageId, Receipt, Slip, Timestamp, Verified,
    high_water::{HighWater, Need},
};
use bytes::Bytes;

use super::{
    BundleKept, Held, Hold, PeerNote, QueuePosition, Recall, ReceiptPosition, Release, RequestKey,
    RequestMade, Rerouted, Timer, Turned,
};

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
    /// A desk releases the attachments of a message that arrived.
    ReleaseAttachments {
        /// The message.
        message: MessageId,
        /// For whom it is: this bureau.
        recipient: BureauCode,
        /// The desk.
        desk: DeskName,
        /// When.
        now: Timestamp,
    },
    /// A message is held back.
    Hold(Box<Hold>),
    /// A message that is held back goes on.
    Release(Box<Release>),
    /// An own message is taken back.
    Recall(Box<Recall>),
    /// Nothing but receipts goes over the link to a peer; or, with `None`, everything again.
    HoldPeer {
        /// The peer.
        peer: BureauCode,
        /// Why, since when, by whom.
        held: Option<Box<Held>>,
    },
    /// A message of this bureau goes back into the queue, where another has custody of it and the
    /// recipient's word is overdue.
    Reroute {
        /// The message.
        message: MessageId,
        /// For whom.
        recipient: BureauCode,
        /// When.
        now: Timestamp,
    },
    /// What an origin says of a count for this bureau, verified: kept where it is newer.
    TakeMark(Box<Verified<HighWater>>),
    /// A recipient says what it misses of a count of this bureau: what is here goes back into the
    /// queue, the rest is voided.
    Refill {
        /// What.
        need: Box<Verified<Need>>,
        /// Only what comes after this sequence; 0: all.
        after: u64,
        /// When.
        now: Timestamp,
    },
    /// The epoch that a peer said it is in.
    PeerEpoch {
        /// The peer.
        peer: BureauCode,
        /// Its epoch.
        epoch: Epoch,
    },
    /// This store lost what it knew: its counts go on in a new epoch.
    BeginEpoch(Epoch),
    /// Outgoing receipts are durable at the next hop.
    ReceiptsTaken(Vec<ReceiptPosition>),
    /// What is to be remembered of a peer that is away.
    NotePeer {
        /// The peer.
        peer: BureauCode,
        /// What.
        note: PeerNote,
    },
    /// A bundle was exported or imported: it is remembered until its time has passed.
    KeepBundle(Box<BundleKept>),
    /// Messages that wait are under way in a bundle as well.
    NoteBundled {
        /// The bundle.
        bundle: BundleId,
        /// For whom it is.
        peer: BureauCode,
        /// What is in it.
        positions: Vec<QueuePosition>,
        /// When.
        now: Timestamp,
    },
    /// A peer has imported bundles that this bureau exported: the receipts in them have arrived.
    ConfirmBundles {
        /// The peer.
        peer: BureauCode,
        /// Which; those that are not known are left alone.
        bundles: Vec<BundleId>,
        /// When.
        now: Timestamp,
    },
    /// A timer was handled. A [`TimerKind::Forget`](super::TimerKind::Forget) timer also forgets its messages; one that
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
    /// For whom, each with its place in its count (see [`Head`](super::Head)).
    pub slips: Vec<(Verified<Slip>, u64)>,
    /// The desk that submits.
    pub desk: DeskName,
    /// Its request id, if it gave one.
    pub request: Option<(RequestKey, [u8; 32])>,
    /// Before this time it must not go: it is held back, [`HoldReason::Scheduled`](super::HoldReason::Scheduled).
    pub send_at: Option<Timestamp>,
    /// The message that it is sent in place of: each recipient must have a dead letter of it that
    /// was not requeued before.
    pub requeue_of: Option<MessageId>,
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
    /// How often its origin sent it again because its recipient lost it.
    pub refills: u32,
    /// The bundle it came in: then the hop hears the receipts like an origin, not over a link.
    pub bundle: Option<BundleId>,
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
    /// Where it is passed on to if its message was never here; `None`: nowhere.
    pub home: Option<BureauCode>,
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
    /// [`Operation::Accept`], [`Operation::Receive`]: an attachment that it names is not here.
    /// Nothing changed.
    AttachmentMissing,
    /// [`Operation::Accept`] of a message in another's place: no dead letter waits for that. What
    /// was sent in its place before, if anything was. Nothing changed.
    NotRequeued(Option<MessageId>),
    /// [`Operation::Hold`], [`Operation::Release`], [`Operation::Recall`], [`Operation::HoldPeer`].
    Turned(Turned),
    /// [`Operation::Receive`]: for each slip, in order.
    Received(Vec<Received>),
    /// [`Operation::TakeReceipt`]: it counted.
    ReceiptTaken,
    /// [`Operation::TakeReceipt`]: nothing changed, and the hop need not send it again: known
    /// already, of an unknown message or slip, or not this signer's to give.
    ReceiptIgnored(ReceiptIgnored),
    /// [`Operation::GiveUp`]: it is given up; or `false`, it did not wait here any more.
    GivenUp(bool),
    /// [`Operation::Reroute`]: it waits again; or `None`, its recipient's word is not overdue.
    Rerouted(Option<Rerouted>),
    /// [`Operation::Refill`]: so much of it.
    Refilled(Refilled),
    /// [`Operation::PeerEpoch`]: the epoch that was known before, where it is another.
    PeerEpoch(Option<Epoch>),
    /// [`Operation::Acknowledge`]: since when and by whom it is acknowledged. `fresh` where that is this call.
    Acknowledged {
        /// When it was first acknowledged.
        time: Timestamp,
        /// By which desk.
        desk: DeskName,
        /// Whether by this call.
        fresh: bool,
    },
    /// [`Operation::ReleaseAttachments`]: since when and by whom they are released. `fresh` where
    /// that is this call.
    Released {
        /// When they were first released.
        time: Timestamp,
        /// By which desk.
        desk: DeskName,
        /// Whether by this call.
        fresh: bool,
    },
    /// [`Operation::Acknowledge`], [`Operation::ReleaseAttachments`]: no such message in the inbox.
    NotFound,
    /// [`Operation::ConfirmBundles`]: so many were confirmed by this call.
    BundlesConfirmed(u64),
    /// [`Operation::ReceiptsTaken`], [`Operation::TimerHandled`], [`Operation::NotePeer`],
    /// [`Operation::KeepBundle`], [`Operation::NoteBundled`].
    Done,
}

/// What became of a slip that a link brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// New: its receipt was kept and is to be sent to the hop.
    Fresh,
    /// Seen before, and still for this node to answer: the receipt that was given then, encoded.
    Repeat(Bytes),
    /// It contradicts a slip of the same origin that came before, of this message: it is not taken,
    /// and both slips are kept as evidence.
    Forked(MessageId),
    /// This node has, or had, it from another hop: who holds it now. The hop that asks keeps
    /// custody: this node gave its own for it once, and gives it to nobody else.
    PassedOn(BureauCode),
}

/// What became of what a recipient misses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refilled {
    /// Messages that go back into the queue.
    pub queued: u64,
    /// Messages that are not here any more, or not whole, or expired: they are voided.
    pub gone: u64,
    /// The last sequence that was looked at, where more are left to do; 0: none are.
    pub last: u64,
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
