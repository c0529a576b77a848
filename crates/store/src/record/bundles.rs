//! Records of bundles that are carried by hand.

use bureau_core::{BundleId, BureauCode, Timestamp};
use prost::Message;

use super::TrackRecord;
use crate::contract::{BundleKept, BundleWay, Bundled, ReceiptRange};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleRecord {
    #[prost(int64, tag = "1")]
    pub(crate) time_ms: i64,
    #[prost(uint64, tag = "2")]
    pub(crate) messages: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) attachments: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) receipts: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) bytes: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) left_out: u64,
    #[prost(int64, tag = "7")]
    pub(crate) confirmed_ms: i64,
    #[prost(int64, tag = "8")]
    pub(crate) forget_ms: i64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) ranges: Vec<RangeRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRecord {
    #[prost(string, tag = "1")]
    pub(crate) destination: String,
    #[prost(uint64, tag = "2")]
    pub(crate) first: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) last: u64,
}

impl BundleRecord {
    pub(crate) fn of(bundle: &BundleKept) -> Self {
        let range = |range: &ReceiptRange| RangeRecord {
            destination: range.destination.to_string(),
            first: range.first,
            last: range.last,
        };
        Self {
            time_ms: bundle.time.as_ms(),
            messages: bundle.messages,
            attachments: bundle.attachments,
            receipts: bundle.receipts,
            bytes: bundle.bytes,
            left_out: bundle.left_out,
            confirmed_ms: bundle.confirmed.map_or(0, Timestamp::as_ms),
            forget_ms: bundle.forget.as_ms(),
            ranges: bundle.ranges.iter().map(range).collect(),
        }
    }

    pub(crate) fn kept(&self, (way, peer, id): (BundleWay, BureauCode, BundleId)) -> BundleKept {
        BundleKept {
            way,
            id,
            peer,
            time: Timestamp::from_ms(self.time_ms),
            messages: self.messages,
            attachments: self.attachments,
            receipts: self.receipts,
            bytes: self.bytes,
            left_out: self.left_out,
            confirmed: (self.confirmed_ms > 0).then(|| Timestamp::from_ms(self.confirmed_ms)),
            forget: Timestamp::from_ms(self.forget_ms),
            ranges: self.ranges(),
        }
    }

    pub(crate) fn ranges(&self) -> Vec<ReceiptRange> {
        let range = |range: &RangeRecord| {
            let destination = range.destination.parse().ok()?;
            Some(ReceiptRange { destination, first: range.first, last: range.last })
        };
        self.ranges.iter().filter_map(range).collect()
    }
}

impl TrackRecord {
    /// The last bundle it was put into.
    pub(crate) fn bundled(&self) -> Option<Bundled> {
        Some(Bundled {
            bundle: BundleId::from_bytes(&self.bundle).ok()?,
            peer: self.bundled_to.parse().ok()?,
            time: Timestamp::from_ms(self.bundled_ms),
        })
    }
}
