//! Parcels that come piece by piece, put together again.

use std::collections::HashMap;

use bureau_core::Reason;
use bureau_proto::link::v1::{Parcel, ParcelPiece};
use prost::Message as _;

use crate::engine::session::FRAME_BYTES_MAX;

/// Parcels that may be open at one time: a peer sends one of each lane.
const OPEN_MAX: usize = 8;

/// Parcels of which pieces are missing.
#[derive(Debug, Default)]
pub struct Assembly {
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    size: usize,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a piece; with the last one, gives the parcel.
    ///
    /// # Errors
    /// The [`Reason`] why the peer breaks the protocol: a piece that does not follow on the one
    /// before, is empty, or too large, or more open parcels than there are lanes.
    pub fn take(&mut self, piece: &ParcelPiece) -> Result<Option<Parcel>, Reason> {
        let size = piece.size as usize;
        if piece.data.is_empty() || piece.size > FRAME_BYTES_MAX {
            return Err(Reason::ProtocolViolation);
        }
        if !self.open.contains_key(&piece.number) && self.open.len() >= OPEN_MAX {
            return Err(Reason::ProtocolViolation);
        }
        let fresh = || Open { size, bytes: Vec::new() };
        let open = self.open.entry(piece.number).or_insert_with(fresh);
        let end = open.bytes.len().saturating_add(piece.data.len());
        if open.size != size || open.bytes.len() != piece.offset as usize || end > size {
            return Err(Reason::ProtocolViolation);
        }
        open.bytes.extend_from_slice(&piece.data);
        if end < size {
            return Ok(None);
        }
        let whole = self.open.remove(&piece.number).map(|open| open.bytes).unwrap_or_default();
        // What does not decode is refused by itself, under the number that its pieces had.
        let parcel = Parcel::decode(bytes::Bytes::from(whole)).unwrap_or_default();
        Ok(Some(Parcel { number: piece.number, ..parcel }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn pieces(parcel: &Parcel, lengths: &[usize]) -> Vec<ParcelPiece> {
        let bytes = Bytes::from(parcel.encode_to_vec());
        let (mut pieces, mut offset, mut lengths) = (Vec::new(), 0, lengths.iter().cycle());
        while offset < bytes.len() {
            let end = (offset + lengths.next().unwrap()).min(bytes.len());
            pieces.push(ParcelPiece {
                number: parcel.number,
                size: u32::try_from(bytes.len()).unwrap(),
                offset: u32::try_from(offset).unwrap(),
                data: bytes.slice(offset..end),
            });
            offset = end;
        }
        pieces
    }

    fn parcel(number: u64, bytes: usize) -> Parcel {
        Parcel {
            number,
            envelope: vec![7; bytes].into(),
            slips: vec![Bytes::new()],
            hops: 1,
            refills: 0,
        }
    }

    proptest! {
        #[test]
        fn interleaved_parcels_come_out_whole(
            sizes in prop::collection::vec(1_usize..2000, 1..OPEN_MAX),
            lengths in prop::collection::vec(1_usize..500, 1..5),
        ) {
            let parcels: Vec<_> = (1..).zip(sizes).map(|(n, size)| parcel(n, size)).collect();
            let mut waiting: Vec<_> =
                parcels.iter().map(|parcel| pieces(parcel, &lengths).into_iter()).collect();
            let (mut assembly, mut whole) = (Assembly::default(), Vec::new());
            while whole.len() < parcels.len() {
                for pieces in &mut waiting {
                    if let Some(piece) = pieces.next() {
                        whole.extend(assembly.take(&piece).unwrap());
                    }
                }
            }
            whole.sort_by_key(|parcel| parcel.number);
            prop_assert_eq!(whole, parcels);
            prop_assert!(assembly.open.is_empty());
        }
    }

    #[test]
    fn what_does_not_follow_on_is_refused() {
        let good = pieces(&parcel(1, 1000), &[300]);
        let refused = |change: &dyn Fn(&mut ParcelPiece)| {
            let mut assembly = Assembly::default();
            assembly.take(&good[0]).unwrap();
            let mut piece = good[1].clone();
            change(&mut piece);
            assembly.take(&piece).is_err()
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|piece| piece.offset += 1));
        assert!(refused(&|piece| piece.offset = 0));
        assert!(refused(&|piece| piece.size += 1));
        assert!(refused(&|piece| piece.data = Bytes::new()));
        assert!(refused(&|piece| piece.data = vec![0; 5000].into()));
        assert!(refused(&|piece| piece.size = FRAME_BYTES_MAX + 1));
        let mut assembly = Assembly::default();
        for number in 1..=OPEN_MAX as u64 {
            assembly.take(&pieces(&parcel(number, 1000), &[10])[0]).unwrap();
        }
        assert!(assembly.take(&pieces(&parcel(99, 1000), &[10])[0]).is_err());
    }
}
