//! What stands under the keys: a version, a checksum over key and value, and a protobuf message.
//! The checksum is looked at whenever a record is read, so that a value under a wrong key, or a
//! changed one, is never taken for what was written.

mod bundles;

use bureau_core::{BureauCode, Lane, MessageId, Timestamp};
use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::{
    StoreError,
    contract::{Held, HoldReason, Role, State},
};

pub(crate) use bundles::BundleRecord;

/// Version of every record of this layout.
const VERSION: u8 = 1;
const SUM_BYTES: usize = 8;

/// Encodes a record for a key.
pub(crate) fn encode(key: &[u8], record: &impl Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + SUM_BYTES + record.encoded_len());
    value.push(VERSION);
    value.extend_from_slice(&[0; SUM_BYTES]);
    // A Vec grows as needed, so this cannot fail.
    record.encode(&mut value).unwrap_or_default();
    let sum = sum(key, &value[1 + SUM_BYTES..]);
    value[1..=SUM_BYTES].copy_from_slice(&sum);
    value
}

/// Reads a record under a key.
pub(crate) fn decode<R: Message + Default>(key: &[u8], value: &[u8]) -> Result<R, StoreError> {
    let damaged = || StoreError::Record { kind: char::from(key.first().copied().unwrap_or(b'?')) };
    let (version, rest) = value.split_first().ok_or_else(damaged)?;
    if *version > VERSION {
        return Err(StoreError::NewerSchema { found: u32::from(*version), known: VERSION.into() });
    }
    let (found, record) = rest.split_at_checked(SUM_BYTES).ok_or_else(damaged)?;
    if found != sum(key, record) {
        return Err(damaged());
    }
    R::decode(Bytes::copy_from_slice(record)).map_err(|_| damaged())
}

fn sum(key: &[u8], record: &[u8]) -> [u8; SUM_BYTES] {
    let digest = Sha256::new_with_prefix(key).chain_update(record).finalize();
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&digest[..SUM_BYTES]);
    sum
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageRecord {
    /// The signed manifest, encoded.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) signed_manifest: Bytes,
    /// The body, where it is small.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) body: Bytes,
    /// The digest of the body, where it is a file.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body_digest: Bytes,
    /// The request it was submitted by.
    #[prost(string, tag = "4")]
    pub(crate) request_desk: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) request_id: Bytes,
    /// How many attachments are kept for it, of those its manifest names.
    #[prost(uint32, tag = "6")]
    pub(crate) attachments: u32,
    /// Before this it was not to go; 0: at once.
    #[prost(int64, tag = "7")]
    pub(crate) send_ms: i64,
}

impl MessageRecord {
    pub(crate) fn file(&self) -> Option<[u8; 32]> {
        self.body_digest.as_ref().try_into().ok()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) role: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) state: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) slip: Bytes,
    #[prost(string, tag = "4")]
    pub(crate) origin: String,
    #[prost(int64, tag = "5")]
    pub(crate) expires_ms: i64,
    /// Number in the queue while it waits; 0: it does not.
    #[prost(uint64, tag = "6")]
    pub(crate) queue_number: u64,
    #[prost(uint32, tag = "7")]
    pub(crate) lane: u32,
    #[prost(string, tag = "8")]
    pub(crate) previous_hop: String,
    /// Who holds it, by the last custody receipt.
    #[prost(string, tag = "9")]
    pub(crate) holder: String,
    #[prost(uint64, tag = "10")]
    pub(crate) inbox_number: u64,
    /// The receipt this node gave for it.
    #[prost(bytes = "bytes", tag = "11")]
    pub(crate) given: Bytes,
    /// When its sender recalled it, and by which desk; 0: never. Where `may_have_left` is not set
    /// no node was ever offered it: its place in the count is void.
    #[prost(int64, tag = "12")]
    pub(crate) recalled_ms: i64,
    #[prost(string, tag = "13")]
    pub(crate) recalled_desk: String,
    /// It was offered to a peer that had not answered when it was recalled.
    #[prost(bool, tag = "14")]
    pub(crate) may_have_left: bool,
    /// Under which time its dead letter stands; 0: there is none.
    #[prost(int64, tag = "15")]
    pub(crate) dead_ms: i64,
    /// The place of its slip in its count; 0: of a version that did not note it.
    #[prost(uint64, tag = "20")]
    pub(crate) sequence: u64,
    /// At the origin: since when another has custody, and how often it was sent again because that
    /// one's, and the recipient's, word was overdue.
    #[prost(int64, tag = "21")]
    pub(crate) relayed_ms: i64,
    #[prost(uint32, tag = "22")]
    pub(crate) reroutes: u32,
    /// Who had custody then.
    #[prost(string, tag = "23")]
    pub(crate) avoid: String,
    /// The origin's epoch that its slip counts in, where it is for this bureau.
    #[prost(bytes = "bytes", tag = "24")]
    pub(crate) origin_epoch: Bytes,
    /// How often it was sent again because its recipient lost it: at the origin, and at a relay the
    /// highest that came by.
    #[prost(uint32, tag = "25")]
    pub(crate) refills: u32,
    /// The last bundle it was put into, when and for whom.
    #[prost(bytes = "bytes", tag = "30")]
    pub(crate) bundle: Bytes,
    #[prost(int64, tag = "31")]
    pub(crate) bundled_ms: i64,
    #[prost(string, tag = "32")]
    pub(crate) bundled_to: String,
    /// The last bundle it came in, and was answered for.
    #[prost(bytes = "bytes", tag = "33")]
    pub(crate) came_in: Bytes,
}

impl TrackRecord {
    pub(crate) fn role(&self) -> Role {
        match self.role {
            1 => Role::Origin,
            2 => Role::Relay,
            _ => Role::Recipient,
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.state {
            1 => State::Queued,
            2 => State::Relayed,
            3 => State::Delivered,
            4 => State::Acknowledged,
            5 => State::Refused,
            7 => State::Held,
            8 => State::Recalled,
            _ => State::Expired,
        }
    }

    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state_number(state);
    }

    pub(crate) fn lane(&self) -> Option<Lane> {
        i32::try_from(self.lane).ok().and_then(Lane::from_wire)
    }

    pub(crate) fn origin(&self) -> Option<BureauCode> {
        self.origin.parse().ok()
    }

    pub(crate) fn holder(&self) -> Option<BureauCode> {
        self.holder.parse().ok()
    }

    pub(crate) fn slip(&self) -> [u8; 32] {
        self.slip.as_ref().try_into().unwrap_or_default()
    }

    pub(crate) fn expires(&self) -> Timestamp {
        Timestamp::from_ms(self.expires_ms)
    }
}

pub(crate) const fn role_number(role: Role) -> u32 {
    match role {
        Role::Origin => 1,
        Role::Relay => 2,
        Role::Recipient => 3,
    }
}

pub(crate) const fn state_number(state: State) -> u32 {
    match state {
        State::Queued => 1,
        State::Relayed => 2,
        State::Delivered => 3,
        State::Acknowledged => 4,
        State::Refused => 5,
        State::Expired => 6,
        State::Held => 7,
        State::Recalled => 8,
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueueRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    /// The signed slip, encoded.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) slip: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) slip_digest: Bytes,
    #[prost(string, tag = "4")]
    pub(crate) origin: String,
    #[prost(int64, tag = "5")]
    pub(crate) enqueued_ms: i64,
    #[prost(int64, tag = "6")]
    pub(crate) expires_ms: i64,
    #[prost(uint64, tag = "7")]
    pub(crate) size: u64,
    #[prost(uint32, tag = "8")]
    pub(crate) hops: u32,
    #[prost(uint32, tag = "9")]
    pub(crate) fan_out: u32,
    #[prost(string, tag = "10")]
    pub(crate) previous_hop: String,
    #[prost(uint32, tag = "11")]
    pub(crate) attachments: u32,
    /// It was offered to a peer that did not answer, and held back then.
    #[prost(bool, tag = "12")]
    pub(crate) may_have_left: bool,
    /// Peers that passed it on before and will not take it again.
    #[prost(string, repeated, tag = "24")]
    pub(crate) declined: Vec<String>,
    /// How often it was sent again because its recipient lost it.
    #[prost(uint32, tag = "17")]
    pub(crate) refills: u32,
    #[prost(bytes = "bytes", tag = "20")]
    pub(crate) bundle: Bytes,
}

impl QueueRecord {
    pub(crate) fn message(&self) -> MessageId {
        MessageId::from_bytes(&self.message).unwrap_or(MessageId([0; 32]))
    }

    /// Peers that it must not go to.
    pub(crate) fn avoid(&self) -> Vec<BureauCode> {
        let codes = std::iter::once(&self.previous_hop).chain(&self.declined);
        codes.filter_map(|code| code.parse().ok()).collect()
    }
}

/// A message or a peer that is held back. With the message what it needs to wait again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeldRecord {
    #[prost(message, optional, tag = "1")]
    pub(crate) queued: Option<QueueRecord>,
    #[prost(uint32, tag = "2")]
    pub(crate) lane: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) reason: u32,
    #[prost(int64, tag = "4")]
    pub(crate) since_ms: i64,
    /// When it is released by itself; 0: when an operator says so.
    #[prost(int64, tag = "5")]
    pub(crate) until_ms: i64,
    #[prost(string, tag = "6")]
    pub(crate) desk: String,
    #[prost(string, tag = "7")]
    pub(crate) note: String,
}

impl HeldRecord {
    pub(crate) fn of(held: &Held, lane: u32, queued: Option<QueueRecord>) -> Self {
        Self {
            queued,
            lane,
            reason: match held.reason {
                HoldReason::Operator => 1,
                HoldReason::Scheduled => 2,
                HoldReason::Poison => 3,
            },
            since_ms: held.since.as_ms(),
            until_ms: held.until.map_or(0, Timestamp::as_ms),
            desk: held.desk.as_ref().map(ToString::to_string).unwrap_or_default(),
            note: held.note.clone(),
        }
    }

    pub(crate) fn held(&self) -> Held {
        Held {
            reason: match self.reason {
                2 => HoldReason::Scheduled,
                3 => HoldReason::Poison,
                _ => HoldReason::Operator,
            },
            since: Timestamp::from_ms(self.since_ms),
            until: (self.until_ms > 0).then(|| Timestamp::from_ms(self.until_ms)),
            desk: self.desk.parse().ok(),
            note: self.note.clone(),
        }
    }
}

/// An own message that ended undelivered.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeadRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) state: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) lane: u32,
    #[prost(string, tag = "3")]
    pub(crate) signer: String,
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
    #[prost(string, tag = "5")]
    pub(crate) advice: String,
    /// What was sent in its place, when and by which desk.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) requeued: Bytes,
    #[prost(int64, tag = "7")]
    pub(crate) requeued_ms: i64,
    #[prost(string, tag = "8")]
    pub(crate) requeued_desk: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceiptRecord {
    #[prost(int64, tag = "1")]
    pub(crate) received_ms: i64,
    /// The signed receipt, encoded.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) receipt: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InboxRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) slip: Bytes,
    #[prost(string, tag = "3")]
    pub(crate) hop: String,
    #[prost(int64, tag = "4")]
    pub(crate) delivered_ms: i64,
    #[prost(int64, tag = "5")]
    pub(crate) acknowledged_ms: i64,
    #[prost(string, tag = "6")]
    pub(crate) acknowledged_desk: String,
    /// When and by which desk its attachments were released.
    #[prost(int64, tag = "7")]
    pub(crate) released_ms: i64,
    #[prost(string, tag = "8")]
    pub(crate) released_desk: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) message: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) accepted_ms: i64,
    #[prost(int64, tag = "4")]
    pub(crate) expires_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeadRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) slip: Bytes,
}

/// What is remembered of a peer that is away.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) failed_attempts: u32,
    #[prost(int64, tag = "2")]
    pub(crate) next_attempt_ms: i64,
    #[prost(int64, tag = "3")]
    pub(crate) down_since_ms: i64,
    #[prost(string, tag = "4")]
    pub(crate) last_reason: String,
}

/// A slip that this bureau gave out, until its message is forgotten.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SentRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    /// The signed slip, encoded: what a message that is sent again needs.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) slip: Bytes,
}

/// What is known of one count of this bureau: spans, each its first and its last.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SentCountRecord {
    /// Where it begins in this epoch.
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    /// What was handed on.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) handed: Vec<u64>,
    /// What will never come.
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) voided: Vec<u64>,
}

/// A slip for this bureau, until its message is forgotten.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ArrivedRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) message: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
    /// The signed slip, encoded: half of the evidence, where another stands in its place.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) slip: Bytes,
}

/// What came of a count of another bureau.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CountRecord {
    /// Spans, each its first and its last.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) spans: Vec<u64>,
    /// How many of its slips are remembered.
    #[prost(uint64, tag = "2")]
    pub(crate) held: u64,
}

/// What the origin says of a count.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MarkRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) statement: Bytes,
}

/// Two slips that contradict each other.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForkRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) first: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) second: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) found_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TimerRecord {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) messages: Vec<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct CountersRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) queue: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) inbox: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) receipt: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) timer: u64,
    #[prost(int64, tag = "5")]
    pub(crate) latest_ms: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) value: Bytes,
}
