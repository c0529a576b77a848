//! How a group stands in a segment. Decoding is total: any bytes give writes or nothing.
//!
//! Segments hold what strangers wrote: a body may look like a group, whole with its checksums. So
//! each checksum begins with a secret of the segment, which is drawn by chance, stands in the
//! segment's head and leaves the machine with nothing that is sent: bytes that came from elsewhere
//! are never taken for a group.

use sha2::{Digest as _, Sha256};

/// A checksum: the first 16 bytes of SHA-256.
pub(crate) type Sum = [u8; 16];

/// The chain before the first group.
pub(crate) const FIRST_SUM: Sum = [0; 16];

const MAGIC: [u8; 4] = *b"BJ02";
/// Magic, segment, number, length, chain before it, checksum.
pub(crate) const HEADER_BYTES: usize = 4 + 8 + 8 + 4 + 16 + 16;

/// What only this segment's groups are checked by.
pub(crate) type Secret = [u8; 32];

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// The key.
    pub(crate) key: Vec<u8>,
    /// `None`: the key is deleted.
    pub(crate) value: Option<Vec<u8>>,
}

/// What a header says beside lengths and checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    pub(crate) number: u64,
    /// The chain up to the group before it.
    pub(crate) previous: Sum,
}

/// A group that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) header: Header,
    /// The chain up to this group: the same for a copy in another segment.
    pub(crate) chain: Sum,
    pub(crate) payload_bytes: usize,
}

/// Encodes a group; also gives the chain up to it.
pub(crate) fn encode(secret: &Secret, header: &Header, payload: &[u8]) -> (Vec<u8>, Sum) {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&header.segment.to_be_bytes());
    bytes.extend_from_slice(&header.number.to_be_bytes());
    // A segment is far below 4 GiB, and a group is smaller.
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&header.previous);
    let digest = Sha256::digest(payload);
    let sum = first_half(&[secret, &bytes, &digest]);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(payload);
    (bytes, chain(header, &digest))
}

fn chain(header: &Header, digest: &[u8]) -> Sum {
    first_half(&[&header.previous, &header.number.to_be_bytes(), digest])
}

fn first_half(parts: &[&[u8]]) -> Sum {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut sum = FIRST_SUM;
    sum.copy_from_slice(&hash.finalize()[..16]);
    sum
}

/// Reads the group at the beginning of some bytes; `None` where there is no whole, undamaged one
/// of this segment.
pub(crate) fn decode<'a>(secret: &Secret, bytes: &'a [u8]) -> Option<(Group, &'a [u8])> {
    let (head, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (fields, sum) = head.split_at(HEADER_BYTES - 16);
    let number = |range: std::ops::Range<usize>| {
        fields.get(range).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
    };
    if !fields.starts_with(&MAGIC) {
        return None;
    }
    let length = u32::from_be_bytes(fields.get(20..24)?.try_into().ok()?) as usize;
    let payload = rest.get(..length)?;
    let digest = Sha256::digest(payload);
    if sum != first_half(&[secret, fields, &digest]) {
        return None;
    }
    let header = Header {
        segment: number(4..12)?,
        number: number(12..20)?,
        previous: fields.get(24..40)?.try_into().ok()?,
    };
    let group = Group { header, chain: chain(&header, &digest), payload_bytes: length };
    Some((group, payload))
}

/// Where the next whole group begins in some bytes.
pub(crate) fn find(secret: &Secret, bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    starts.map(|(at, _)| at).find(|at| decode(secret, &bytes[*at..]).is_some())
}

const PUT: u8 = 1;
const DELETE: u8 = 2;

pub(crate) fn encode_writes(writes: &[Write]) -> Vec<u8> {
    let size = |write: &Write| 9 + write.key.len() + write.value.as_ref().map_or(0, Vec::len);
    let mut bytes = Vec::with_capacity(writes.iter().map(size).sum());
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    for write in writes {
        bytes.push(if write.value.is_some() { PUT } else { DELETE });
        bytes.extend_from_slice(&length(write.key.len()));
        bytes.extend_from_slice(&write.key);
        if let Some(value) = &write.value {
            bytes.extend_from_slice(&length(value.len()));
            bytes.extend_from_slice(value);
        }
    }
    bytes
}

/// Reads the writes of a payload; `None` where it is not one.
pub(crate) fn decode_writes(mut payload: &[u8]) -> Option<Vec<Write>> {
    fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bytes.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let (taken, rest) = rest.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    }
    let mut writes = Vec::new();
    while let Some((kind, rest)) = payload.split_first() {
        payload = rest;
        let key = take(&mut payload)?.to_vec();
        let value = match *kind {
            PUT => Some(take(&mut payload)?.to_vec()),
            DELETE => None,
            _ => return None,
        };
        writes.push(Write { key, value });
    }
    Some(writes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = [7; 32];

    fn writes() -> impl Strategy<Value = Vec<Write>> {
        let write = (any::<Vec<u8>>(), any::<Option<Vec<u8>>>());
        prop::collection::vec(write.prop_map(|(key, value)| Write { key, value }), 0..20)
    }

    proptest! {
        #[test]
        fn writes_round_trip(writes in writes()) {
            prop_assert_eq!(decode_writes(&encode_writes(&writes)).unwrap(), writes);
        }

        #[test]
        fn any_bytes_decode_or_not(bytes: Vec<u8>) {
            let _ = decode_writes(&bytes);
            let _ = decode(&SECRET, &bytes);
        }

        #[test]
        fn every_prefix_and_every_changed_byte_is_refused(
            writes in writes(), at: prop::sample::Index, mask in 1u8..,
        ) {
            let header = Header { segment: 3, number: 7, previous: [9; 16] };
            let (encoded, chain) = encode(&SECRET, &header, &encode_writes(&writes));
            let (group, _) = decode(&SECRET, &encoded).unwrap();
            prop_assert_eq!((group.header, group.chain), (header, chain));
            prop_assert!(decode(&[8; 32], &encoded).is_none(), "another segment's secret");
            let at = at.index(encoded.len());
            prop_assert!(decode(&SECRET, &encoded[..at]).is_none());
            let mut changed = encoded;
            changed[at] ^= mask;
            prop_assert!(decode(&SECRET, &changed).is_none());
        }
    }
}
