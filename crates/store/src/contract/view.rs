//! What a store shows.

use bureau_core::{
    BundleId, BureauCode, DeskName, Epoch, Lane, Manifest, MessageId, Timestamp, ranges::Ranges,
    receipt::ReceiptKind,
};
use bytes::Bytes;

use super::{DeadLetter, Held, Recalled};

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
    /// Its content cannot be read from disk: manifest and body are empty here.
    pub unreadable: bool,
}

/// A slip that waits, without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedSlip {
    /// Where it stands.
    pub position: QueuePosition,
    /// The signed slip, encoded.
    pub slip: Bytes,
    /// Peers that it must not go to, as in [`QueuedEntry`].
    pub avoid: Vec<BureauCode>,
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
    /// Peers that it must not go to: the one it came from, and those that said PASSED_ON. They had
    /// it, and take custody of it once only.
    pub avoid: Vec<BureauCode>,
    /// How many attachments it has.
    pub attachments: u32,
    /// How often its origin sent it again because its recipient lost it.
    pub refills: u32,
    /// The last bundle it was put into.
    pub bundle: Option<BundleId>,
}

/// Who brings an attachment. Each has what it has brought to itself, so that nobody can spoil what
/// another brings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A desk of this bureau.
    Desk(DeskName),
    /// The link to a peer.
    Peer(BureauCode),
}

/// What is here of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentHeld {
    /// So many bytes from its beginning.
    Part(u64),
    /// All of it, so many bytes, checked and durable.
    Whole(u64),
    /// What came was not what its digest says: it is gone, and may begin anew.
    Mismatch,
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
    /// When and by which desk its attachments were released.
    pub released: Option<(Timestamp, DeskName)>,
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
    /// When its sender is warned that it is not delivered yet; `None` where it lives too short for
    /// that, or is not this bureau's own.
    pub warns: Option<Timestamp>,
    /// Before this time it was not to go, where its sender named one.
    pub send_at: Option<Timestamp>,
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
    /// Why it is held back, while it is.
    pub held: Option<Held>,
    /// When and by whom it was recalled.
    pub recalled: Option<Recalled>,
    /// What was kept of it as a dead letter.
    pub dead: Option<DeadLetter>,
    /// At the origin: what became of its way so far.
    pub custody: CustodyWatch,
    /// The last bundle it was put into here.
    pub bundled: Option<Bundled>,
    /// Every receipt that was kept, oldest first.
    pub receipts: Vec<KeptReceipt>,
}

/// What an origin keeps of a message that another has custody of, or had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CustodyWatch {
    /// Since when another has custody, while it has.
    pub since: Option<Timestamp>,
    /// How often it was sent again because the recipient's word was overdue.
    pub reroutes: u32,
    /// Who had custody the last time that happened.
    pub overdue_at: Option<BureauCode>,
}

/// A message whose recipient's word was overdue, and that waits for another way now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rerouted {
    /// Who had custody and did not get it on, by the last receipt.
    pub holder: Option<BureauCode>,
    /// Since when.
    pub since: Timestamp,
    /// How often it is sent again, this time included.
    pub reroutes: u32,
}

/// What this bureau sent of one count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentSoFar {
    /// The recipient.
    pub recipient: BureauCode,
    /// The lane.
    pub lane: Lane,
    /// Where the count begins in this epoch.
    pub first: u64,
    /// The last that was handed on or will never come.
    pub last: u64,
    /// Digest of its slip, while its message is remembered.
    pub slip: Option<[u8; 32]>,
    /// What was handed on.
    pub handed: Ranges,
    /// What will never come.
    pub voided: Ranges,
}

/// What came of one count of another bureau.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The origin.
    pub origin: BureauCode,
    /// Its epoch.
    pub epoch: Epoch,
    /// The lane.
    pub lane: Lane,
    /// What came.
    pub arrived: Ranges,
    /// What the origin says of it: the signed statement, encoded.
    pub statement: Bytes,
}

/// A bundle that a message was put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundled {
    /// The bundle.
    pub bundle: BundleId,
    /// For whom the bundle is.
    pub peer: BureauCode,
    /// When.
    pub time: Timestamp,
}

/// Which way a bundle goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BundleWay {
    /// From here.
    Exported = b'x',
    /// To here.
    Imported = b'i',
}

/// What is remembered of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleKept {
    /// Which way.
    pub way: BundleWay,
    /// Its id.
    pub id: BundleId,
    /// The bureau at the other end.
    pub peer: BureauCode,
    /// When it was exported or imported here.
    pub time: Timestamp,
    /// Messages in it.
    pub messages: u64,
    /// Attachments in it.
    pub attachments: u64,
    /// Receipts in it.
    pub receipts: u64,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Exported: messages that had no room. Imported: messages that were not taken.
    pub left_out: u64,
    /// Exported: when the peer's word came that it was imported.
    pub confirmed: Option<Timestamp>,
    /// Until when it is remembered.
    pub forget: Timestamp,
    /// Exported: which outgoing receipts are in it.
    pub ranges: Vec<ReceiptRange>,
}

/// Receipts for one destination, all that waited between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptRange {
    /// Where they must go.
    pub destination: BureauCode,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
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
    /// It is held back here, outside of the queue.
    Held,
    /// Its sender took it back.
    Recalled,
}

impl State {
    /// Its name, as logs and people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Relayed => "RELAYED",
            Self::Delivered => "DELIVERED",
            Self::Acknowledged => "ACKNOWLEDGED",
            Self::Refused => "REFUSED",
            Self::Expired => "EXPIRED",
            Self::Held => "HELD",
            Self::Recalled => "RECALLED",
        }
    }
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

/// What is remembered of a peer that is away, so that a restart does not begin anew with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerNote {
    /// Attempts that failed since its link was last up. 0: nothing is to be remembered.
    pub failed_attempts: u32,
    /// When it was to be tried next.
    pub next_attempt: Timestamp,
    /// Since when it is away.
    pub down_since: Timestamp,
    /// Why the last attempt failed.
    pub last_reason: String,
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
    /// They expire before long: the sender is warned of those that are not delivered.
    Warn = 4,
    /// The time has come that their sender named: those that are held back for it go.
    Release = 5,
    /// Another has had custody of them for so long that the origin looks for another way.
    Reroute = 6,
}

/// A warning leaves this much time before expiry, where that is at most half of a lifetime.
const WARN_BEFORE_MS: i64 = 5 * 60 * 1000;

/// When the sender of a message is warned that it is not delivered yet: after three quarters of its
/// lifetime, and at least five minutes before its end where it lives for ten or longer.
#[must_use]
pub fn warn_time(accepted: Timestamp, expires: Timestamp) -> Timestamp {
    let lifetime_ms = expires.since(accepted).max(0);
    let quarter_ms = lifetime_ms / 4;
    let long = lifetime_ms >= 2 * WARN_BEFORE_MS;
    expires.plus_ms(-if long { quarter_ms.max(WARN_BEFORE_MS) } else { quarter_ms })
}

/// How long after expiry an origin waits for the answer of a custodian.
pub const OVERDUE_AFTER_EXPIRY_MS: i64 = 10 * 60 * 1000;
