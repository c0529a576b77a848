//! The layout of keys: one tree, a prefix for each kind, numbers big-endian so that they sort.
//! Nothing here knows values.

use bureau_core::{BundleId, BureauCode, Epoch, Lane, MessageId, Timestamp, receipt::ReceiptKind};

use crate::contract::{
    BundleWay, DeadPosition, QueuePosition, ReceiptPosition, RequestKey, TimerKind,
};

/// Prefixes. One letter each, in the words of `docs`: never reuse one.
pub(crate) mod prefix {
    pub(crate) const MESSAGE: u8 = b'm';
    pub(crate) const BODY: u8 = b'b';
    pub(crate) const QUEUE: u8 = b'q';
    pub(crate) const TRACK: u8 = b't';
    pub(crate) const RECEIPT: u8 = b'e';
    pub(crate) const INBOX: u8 = b'i';
    pub(crate) const ACKNOWLEDGED: u8 = b'j';
    pub(crate) const OUTGOING: u8 = b'o';
    pub(crate) const REQUEST: u8 = b'r';
    pub(crate) const HEAD: u8 = b'h';
    pub(crate) const TIMER: u8 = b'x';
    pub(crate) const HELD: u8 = b'k';
    pub(crate) const HELD_PEER: u8 = b'w';
    pub(crate) const DEAD: u8 = b'd';
    pub(crate) const PEER: u8 = b'p';
    pub(crate) const SENT: u8 = b's';
    pub(crate) const SENT_COUNT: u8 = b'v';
    pub(crate) const ARRIVED: u8 = b'a';
    pub(crate) const COUNT: u8 = b'c';
    pub(crate) const FORK: u8 = b'g';
    pub(crate) const BUNDLE: u8 = b'n';
}

/// The store's epoch.
pub(crate) const EPOCH: &[u8] = b"zepoch";
/// Version of the layout.
pub(crate) const SCHEMA: &[u8] = b"zschema";
/// The numbers that were given out.
pub(crate) const COUNTERS: &[u8] = b"zcounters";

fn key(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(prefix);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn message(id: &MessageId) -> Vec<u8> {
    key(prefix::MESSAGE, &[&id.0])
}

pub(crate) fn body(digest: &[u8; 32], id: &MessageId) -> Vec<u8> {
    key(prefix::BODY, &[digest, &id.0])
}

pub(crate) fn bodies_of(digest: &[u8; 32]) -> Vec<u8> {
    key(prefix::BODY, &[digest])
}

pub(crate) fn queue(position: &QueuePosition) -> Vec<u8> {
    let lane = [position.lane as u8];
    let number = position.number.to_be_bytes();
    key(prefix::QUEUE, &[position.destination.padded(), &lane, &number])
}

pub(crate) fn queue_lane(destination: &BureauCode, lane: Lane) -> Vec<u8> {
    key(prefix::QUEUE, &[destination.padded(), &[lane as u8]])
}

pub(crate) fn queue_of(destination: &BureauCode) -> Vec<u8> {
    key(prefix::QUEUE, &[destination.padded()])
}

pub(crate) fn queue_position(key: &[u8]) -> Option<QueuePosition> {
    let rest = key.strip_prefix(&[prefix::QUEUE])?;
    let (destination, rest) = rest.split_at_checked(BureauCode::WIDTH)?;
    let (lane, number) = rest.split_first()?;
    Some(QueuePosition {
        destination: BureauCode::from_padded(destination).ok()?,
        lane: Lane::from_wire(i32::from(*lane))?,
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

pub(crate) fn held(recipient: &BureauCode, id: &MessageId) -> Vec<u8> {
    key(prefix::HELD, &[recipient.padded(), &id.0])
}

pub(crate) fn held_for(recipient: &BureauCode) -> Vec<u8> {
    key(prefix::HELD, &[recipient.padded()])
}

pub(crate) fn held_parts(key: &[u8]) -> Option<(BureauCode, MessageId)> {
    let rest = key.strip_prefix(&[prefix::HELD])?;
    let (recipient, id) = rest.split_at_checked(BureauCode::WIDTH)?;
    Some((BureauCode::from_padded(recipient).ok()?, MessageId::from_bytes(id).ok()?))
}

pub(crate) fn held_peer(peer: &BureauCode) -> Vec<u8> {
    key(prefix::HELD_PEER, &[peer.padded()])
}

pub(crate) fn held_peer_code(key: &[u8]) -> Option<BureauCode> {
    BureauCode::from_padded(key.strip_prefix(&[prefix::HELD_PEER])?).ok()
}

/// Times count down here, so that the latest stands first.
pub(crate) fn dead(position: &DeadPosition) -> Vec<u8> {
    let DeadPosition { ended, message, recipient } = position;
    let time = u64::try_from(ended.as_ms()).map_or(u64::MAX, |ms| u64::MAX - ms);
    key(prefix::DEAD, &[&time.to_be_bytes(), &message.0, recipient.padded()])
}

pub(crate) fn dead_position(key: &[u8]) -> Option<DeadPosition> {
    let rest = key.strip_prefix(&[prefix::DEAD])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let (id, recipient) = rest.split_at_checked(32)?;
    let ms = u64::MAX - u64::from_be_bytes(time.try_into().ok()?);
    Some(DeadPosition {
        ended: Timestamp::from_ms(i64::try_from(ms).ok()?),
        message: MessageId::from_bytes(id).ok()?,
        recipient: BureauCode::from_padded(recipient).ok()?,
    })
}

pub(crate) fn track(id: &MessageId, recipient: &BureauCode) -> Vec<u8> {
    key(prefix::TRACK, &[&id.0, recipient.padded()])
}

pub(crate) fn tracks_of(id: &MessageId) -> Vec<u8> {
    key(prefix::TRACK, &[&id.0])
}

pub(crate) fn track_parts(key: &[u8]) -> Option<(MessageId, BureauCode)> {
    let rest = key.strip_prefix(&[prefix::TRACK])?;
    let (id, recipient) = rest.split_at_checked(32)?;
    Some((MessageId::from_bytes(id).ok()?, BureauCode::from_padded(recipient).ok()?))
}

pub(crate) fn receipt(
    id: &MessageId,
    recipient: &BureauCode,
    kind: ReceiptKind,
    signer: &BureauCode,
) -> Vec<u8> {
    let kind = [u8::try_from(i32::from(kind)).unwrap_or(0)];
    key(prefix::RECEIPT, &[&id.0, recipient.padded(), &kind, signer.padded()])
}

pub(crate) fn receipts_of(id: &MessageId, recipient: &BureauCode) -> Vec<u8> {
    key(prefix::RECEIPT, &[&id.0, recipient.padded()])
}

pub(crate) fn inbox(number: u64) -> Vec<u8> {
    key(prefix::INBOX, &[&number.to_be_bytes()])
}

pub(crate) fn acknowledged(number: u64) -> Vec<u8> {
    key(prefix::ACKNOWLEDGED, &[&number.to_be_bytes()])
}

pub(crate) fn outgoing(position: &ReceiptPosition) -> Vec<u8> {
    key(prefix::OUTGOING, &[position.destination.padded(), &position.number.to_be_bytes()])
}

pub(crate) fn outgoing_of(destination: &BureauCode) -> Vec<u8> {
    key(prefix::OUTGOING, &[destination.padded()])
}

pub(crate) fn outgoing_position(key: &[u8]) -> Option<ReceiptPosition> {
    let rest = key.strip_prefix(&[prefix::OUTGOING])?;
    let (destination, number) = rest.split_at_checked(BureauCode::WIDTH)?;
    Some(ReceiptPosition {
        destination: BureauCode::from_padded(destination).ok()?,
        number: u64::from_be_bytes(number.try_into().ok()?),
    })
}

/// A desk's name ends at a byte that no name has, so that no two requests share a key.
pub(crate) fn request(request: &RequestKey) -> Vec<u8> {
    key(prefix::REQUEST, &[request.desk.as_str().as_bytes(), &[0], &request.id])
}

pub(crate) fn head(recipient: &BureauCode, lane: Lane) -> Vec<u8> {
    key(prefix::HEAD, &[recipient.padded(), &[lane as u8]])
}

pub(crate) fn head_parts(key: &[u8]) -> Option<(BureauCode, Lane)> {
    let rest = key.strip_prefix(&[prefix::HEAD])?;
    let (recipient, lane) = rest.split_at_checked(BureauCode::WIDTH)?;
    let lane = Lane::from_wire(i32::from(*lane.first()?))?;
    Some((BureauCode::from_padded(recipient).ok()?, lane))
}

pub(crate) fn sent(recipient: &BureauCode, lane: Lane, sequence: u64) -> Vec<u8> {
    key(prefix::SENT, &[recipient.padded(), &[lane as u8], &sequence.to_be_bytes()])
}

pub(crate) fn sent_count(recipient: &BureauCode, lane: Lane) -> Vec<u8> {
    key(prefix::SENT_COUNT, &[recipient.padded(), &[lane as u8]])
}

pub(crate) fn sent_count_parts(key: &[u8]) -> Option<(BureauCode, Lane)> {
    let rest = key.strip_prefix(&[prefix::SENT_COUNT])?;
    let (recipient, lane) = rest.split_at_checked(BureauCode::WIDTH)?;
    let lane = Lane::from_wire(i32::from(*lane.first()?))?;
    Some((BureauCode::from_padded(recipient).ok()?, lane))
}

pub(crate) fn arrived(origin: &BureauCode, epoch: &Epoch, lane: Lane, sequence: u64) -> Vec<u8> {
    let sequence = sequence.to_be_bytes();
    key(prefix::ARRIVED, &[origin.padded(), &epoch.0, &[lane as u8], &sequence])
}

/// Counts, the statements about them, and the epochs of peers share a prefix.
const COUNTED: u8 = 0;
const MARKED: u8 = 1;
const PEER_EPOCH: u8 = 2;

pub(crate) fn count(origin: &BureauCode, epoch: &Epoch, lane: Lane) -> Vec<u8> {
    key(prefix::COUNT, &[&[COUNTED], origin.padded(), &epoch.0, &[lane as u8]])
}

pub(crate) fn mark(origin: &BureauCode, epoch: &Epoch, lane: Lane) -> Vec<u8> {
    key(prefix::COUNT, &[&[MARKED], origin.padded(), &epoch.0, &[lane as u8]])
}

pub(crate) fn marks() -> Vec<u8> {
    key(prefix::COUNT, &[&[MARKED]])
}

pub(crate) fn marks_of(origin: &BureauCode) -> Vec<u8> {
    key(prefix::COUNT, &[&[MARKED], origin.padded()])
}

pub(crate) fn peer_epoch(peer: &BureauCode) -> Vec<u8> {
    key(prefix::COUNT, &[&[PEER_EPOCH], peer.padded()])
}

pub(crate) fn fork(origin: &BureauCode, slip: &[u8; 32]) -> Vec<u8> {
    key(prefix::FORK, &[origin.padded(), slip])
}

pub(crate) fn forks_of(origin: &BureauCode) -> Vec<u8> {
    key(prefix::FORK, &[origin.padded()])
}

pub(crate) fn timer(tick: u64, kind: TimerKind, number: u64) -> Vec<u8> {
    key(prefix::TIMER, &[&tick.to_be_bytes(), &[kind as u8], &number.to_be_bytes()])
}

pub(crate) fn timer_parts(key: &[u8]) -> Option<(u64, TimerKind, u64)> {
    let rest = key.strip_prefix(&[prefix::TIMER])?;
    let (tick, rest) = rest.split_at_checked(8)?;
    let (kind, number) = rest.split_first()?;
    let kind = match kind {
        1 => TimerKind::Expire,
        2 => TimerKind::Overdue,
        3 => TimerKind::Forget,
        4 => TimerKind::Warn,
        5 => TimerKind::Release,
        6 => TimerKind::Reroute,
        _ => return None,
    };
    let number_of = |bytes: &[u8]| Some(u64::from_be_bytes(bytes.try_into().ok()?));
    Some((number_of(tick)?, kind, number_of(number)?))
}

pub(crate) fn peer(peer: &BureauCode) -> Vec<u8> {
    key(prefix::PEER, &[peer.padded()])
}

pub(crate) fn peer_parts(key: &[u8]) -> Option<BureauCode> {
    BureauCode::from_padded(key.strip_prefix(&[prefix::PEER])?).ok()
}

pub(crate) fn bundle(way: BundleWay, peer: &BureauCode, id: &BundleId) -> Vec<u8> {
    key(prefix::BUNDLE, &[&[way as u8], peer.padded(), &id.0])
}

pub(crate) fn bundle_parts(key: &[u8]) -> Option<(BundleWay, BureauCode, BundleId)> {
    let rest = key.strip_prefix(&[prefix::BUNDLE])?;
    let (way, rest) = rest.split_first()?;
    let way = [BundleWay::Exported, BundleWay::Imported].into_iter().find(|w| *w as u8 == *way)?;
    let (peer, id) = rest.split_at_checked(BureauCode::WIDTH)?;
    Some((way, BureauCode::from_padded(peer).ok()?, BundleId::from_bytes(id).ok()?))
}

/// The number at the end of a key of the inbox.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}
