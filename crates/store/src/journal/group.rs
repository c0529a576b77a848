//! How a group stands in a segment. Decoding is total: any bytes give writes or nothing.

use sha2::{Digest as _, Sha256};

/// A checksum: the first 16 bytes of SHA-256.
pub(crate) type Sum = [u8; 16];

/// The checksum before the first group.
pub(crate) const FIRST_SUM: Sum = [0; 16];

const MAGIC: [u8; 4] = *b"BJ01";
/// Magic, segment, number, length, previous checksum, checksum.
pub(crate) const HEADER_BYTES: usize = 4 + 8 + 8 + 4 + 16 + 16;

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
    pub(crate) previous: Sum,
}

/// A group that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) header: Header,
    pub(crate) sum: Sum,
    pub(crate) payload_bytes: usize,
}

pub(crate) fn encode(header: &Header, payload: &[u8]) -> (Vec<u8>, Sum) {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&header.segment.to_be_bytes());
    bytes.extend_from_slice(&header.number.to_be_bytes());
    // A segment is far below 4 GiB, and a group is smaller.
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&header.previous);
    let sum = checksum(&bytes, payload);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(payload);
    (bytes, sum)
}

fn checksum(head: &[u8], payload: &[u8]) -> Sum {
    let digest = Sha256::new_with_prefix(head).chain_update(payload).finalize();
    let mut sum = FIRST_SUM;
    sum.copy_from_slice(&digest[..16]);
    sum
}

/// Reads the group at the beginning of some bytes; `None` where there is no whole, undamaged one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Group, &[u8])> {
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
    if sum != checksum(fields, payload) {
        return None;
    }
    let header = Header {
        segment: number(4..12)?,
        number: number(12..20)?,
        previous: fields.get(24..40)?.try_into().ok()?,
    };
    let group = Group { header, sum: sum.try_into().ok()?, payload_bytes: length };
    Some((group, payload))
}

/// Where the next whole group begins in some bytes.
pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    starts.map(|(at, _)| at).find(|at| decode(&bytes[*at..]).is_some())
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
            let _ = decode(&bytes);
        }

        #[test]
        fn every_prefix_and_every_changed_byte_is_refused(
            writes in writes(), at: prop::sample::Index, mask in 1u8..,
        ) {
            let header = Header { segment: 3, number: 7, previous: [9; 16] };
            let (encoded, sum) = encode(&header, &encode_writes(&writes));
            let (group, _) = decode(&encoded).unwrap();
            prop_assert_eq!((group.header, group.sum), (header, sum));
            let at = at.index(encoded.len());
            prop_assert!(decode(&encoded[..at]).is_none());
            let mut changed = encoded;
            changed[at] ^= mask;
            prop_assert!(decode(&changed).is_none());
        }
    }
}
