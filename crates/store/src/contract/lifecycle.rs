//! What may be done with a message between its acceptance and its end: held and released, recalled,
//! and, where it ended undelivered, requeued. And what a store shows of it.

use bureau_core::{BureauCode, DeskName, Lane, MessageId, Timestamp};

use super::State;

/// Why a message is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldReason {
    /// An operator said so.
    Operator,
    /// Its sender named a time before which it must not go.
    Scheduled,
    /// Links end over it, or it cannot be read: the line behind it moves on without it.
    Poison,
}

impl HoldReason {
    /// Its name, as logs and people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "OPERATOR",
            Self::Scheduled => "SCHEDULED",
            Self::Poison => "POISON",
        }
    }
}

/// Why, since when and by whom something is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// When it is released by itself; `None`: when an operator says so.
    pub until: Option<Timestamp>,
    /// The desk that said so; `None`: this node.
    pub desk: Option<DeskName>,
    /// A word on it: an operator's, or what was wrong. At most [`NOTE_BYTES_MAX`].
    pub note: String,
}

/// Largest note of a hold.
pub const NOTE_BYTES_MAX: usize = 200;

/// Puts a message aside that waits here for one recipient. It leaves its queue, still expires, and
/// keeps its place in the count of slips.
#[derive(Debug, Clone)]
pub struct Hold {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
    /// Why, since when, by whom.
    pub held: Held,
    /// It was offered to a peer that has not answered: the recipient may have it.
    pub may_have_left: bool,
}

/// Puts a message that is held back into its queue, at the end.
#[derive(Debug, Clone)]
pub struct Release {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
    /// Only where it is scheduled and its time has come.
    pub when_due: bool,
    /// When.
    pub now: Timestamp,
}

/// Takes back an own message that waits here for one recipient. It never goes out.
#[derive(Debug, Clone)]
pub struct Recall {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
    /// The desk that recalls it.
    pub desk: DeskName,
    /// It was offered to a peer that has not answered: the recipient may have it.
    pub may_have_left: bool,
    /// When.
    pub now: Timestamp,
}

/// What a hold, a release or a recall did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It is done.
    Done {
        /// It was offered to a peer that has not answered: the recipient may have it, and its
        /// receipt would say so.
        may_have_left: bool,
    },
    /// It stood like that before. Nothing changed.
    Already,
    /// It does not wait here: how it stands, and which node holds it. Nothing changed but that a
    /// recalled message is not sent a second time.
    NotHere(State, Option<BureauCode>),
    /// No such message, or not for this recipient. Nothing changed.
    Unknown,
}

/// A message that was recalled for a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// When.
    pub time: Timestamp,
    /// By which desk.
    pub desk: DeskName,
    /// It had been offered to a peer that did not answer.
    pub may_have_left: bool,
}

/// A message that is held back, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEntry {
    /// For whom.
    pub recipient: BureauCode,
    /// How urgent.
    pub lane: Lane,
    /// The message.
    pub message: MessageId,
    /// Its origin.
    pub origin: BureauCode,
    /// Since when it is at this node.
    pub enqueued: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// Size of the envelope in bytes, about.
    pub size: u64,
    /// Why it is held, since when, by whom.
    pub held: Held,
}

/// How many messages are held back for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldDepth {
    /// For whom.
    pub destination: BureauCode,
    /// Why.
    pub reason: HoldReason,
    /// How many.
    pub messages: u64,
}

/// A place among dead letters: the latest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadPosition {
    /// When it ended.
    pub ended: Timestamp,
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
}

/// A message of this bureau that ended without being delivered to a recipient. It is remembered as
/// long as the message, or until the recipient has it after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands.
    pub position: DeadPosition,
    /// How urgent it was.
    pub lane: Lane,
    /// REFUSED or EXPIRED.
    pub state: State,
    /// Who said so.
    pub signer: BureauCode,
    /// REFUSED: why.
    pub reason: String,
    /// REFUSED: what its sender can do.
    pub advice: String,
    /// What was sent in its place.
    pub requeued: Option<Requeued>,
}

/// What was sent in a dead letter's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeued {
    /// The new message.
    pub message: MessageId,
    /// When.
    pub time: Timestamp,
    /// By which desk.
    pub desk: DeskName,
}
