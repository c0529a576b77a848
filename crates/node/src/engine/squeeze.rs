//! Frames made smaller for links where every byte takes its time. Each frame is compressed by
//! itself, so that nothing of one message shows in the size of another; and never more is made of
//! one than a frame may be.

use std::io::Read as _;

use bureau_core::Reason;
use bureau_proto::link::v1::{Frame, frame::Kind};
use bytes::Bytes;
use prost::Message as _;

use super::{outbound::frame, session::FRAME_BYTES_MAX};

/// Below this nothing is gained.
const WORTH_BYTES: usize = 200;
/// Above this the time is not spent: what is large comes in pieces, which are below it.
const SQUEEZED_BYTES_MAX: usize = 128 * 1024;
/// zstd's fastest that still finds the repeated signatures of a batch.
const LEVEL: i32 = 1;

/// The frame, compressed where that makes it smaller.
#[must_use]
pub(super) fn squeeze(whole: Frame) -> Frame {
    let worth = matches!(
        whole.kind,
        Some(Kind::Parcel(_) | Kind::ParcelPiece(_) | Kind::Receipts(_) | Kind::HighWaters(_))
    );
    let size = whole.encoded_len();
    if !worth || !(WORTH_BYTES..=SQUEEZED_BYTES_MAX).contains(&size) {
        return whole;
    }
    match zstd::bulk::compress(&whole.encode_to_vec(), LEVEL) {
        Ok(squeezed) if squeezed.len() + 8 < size => frame(Kind::Zstd(Bytes::from(squeezed))),
        // Sealed or compressed before: then it goes as it is.
        _ => whole,
    }
}

/// The frame that was compressed.
///
/// # Errors
/// The [`Reason`] it is refused for: not zstd, larger than a frame may be, or compressed twice.
pub(super) fn unsqueeze(squeezed: &[u8]) -> Result<Frame, Reason> {
    let decoder = zstd::stream::read::Decoder::new(squeezed);
    let limit = u64::from(FRAME_BYTES_MAX);
    let mut bytes = Vec::new();
    let read = decoder.and_then(|decoder| decoder.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|_| Reason::Malformed)?;
    if bytes.len() as u64 > limit {
        return Err(Reason::TooLarge);
    }
    let frame = Frame::decode(Bytes::from(bytes)).map_err(|_| Reason::Malformed)?;
    match frame.kind {
        Some(Kind::Zstd(_)) => Err(Reason::ProtocolViolation),
        _ => Ok(frame),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod tests {
    use bureau_proto::link::v1::{Ping, ReceiptBatch};

    use super::*;

    fn batch(receipts: usize) -> Frame {
        let receipt = |n: usize| Bytes::from(format!("{n} the same signed root, and more of it"));
        let receipts = (0..receipts).map(receipt).collect();
        frame(Kind::Receipts(ReceiptBatch { number: 1, receipts, home: String::new() }))
    }

    #[test]
    fn what_repeats_becomes_small_and_comes_back() {
        let whole = batch(64);
        let small = squeeze(whole.clone());
        assert!(small.encoded_len() * 3 < whole.encoded_len(), "{}", small.encoded_len());
        let Some(Kind::Zstd(bytes)) = &small.kind else { panic!("not compressed") };
        assert_eq!(unsqueeze(bytes).unwrap(), whole);
        for cut in 0..bytes.len() {
            assert!(unsqueeze(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_small_or_noise_goes_as_it_is() {
        let ping = frame(Kind::Ping(Ping { number: 7 }));
        assert_eq!(squeeze(ping.clone()), ping);
        let mut noise = vec![0; 4096];
        getrandom::fill(&mut noise).unwrap();
        let receipts = vec![Bytes::from(noise)];
        let noise =
            frame(Kind::Receipts(ReceiptBatch { number: 1, receipts, home: String::new() }));
        assert_eq!(squeeze(noise.clone()), noise);
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        let zeros = vec![0; 1 << 30];
        let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
        assert!(bomb.len() < 128 * 1024, "{}", bomb.len());
        assert_eq!(unsqueeze(&bomb), Err(Reason::TooLarge));
        let nested = frame(Kind::Zstd(Bytes::from_static(b"x"))).encode_to_vec();
        let nested = zstd::bulk::compress(&nested, 1).unwrap();
        assert_eq!(unsqueeze(&nested), Err(Reason::ProtocolViolation));
    }
}
