//! The origin's statement of what it sent to one recipient, and the recipient's of what it misses.

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

use crate::{
    ids::{BureauCode, Epoch, Lane},
    limits::{FORMAT, SPANS_MAX},
    ranges::Ranges,
    reason::Reason,
    signing::{Context, Signable},
    time::Timestamp,
};

/// Which count: of an origin, for a recipient, in a lane, within an epoch of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CountOf {
    /// The bureau that sends.
    pub origin: BureauCode,
    /// The bureau it sends to.
    pub recipient: BureauCode,
    /// The origin's store epoch.
    pub epoch: Epoch,
    /// The lane.
    pub lane: Lane,
}

impl CountOf {
    fn decode(origin: &str, recipient: &str, epoch: &[u8], lane: i32) -> Result<Self, Reason> {
        let (origin, recipient): (BureauCode, BureauCode) = (
            origin.parse().map_err(|_| Reason::Malformed)?,
            recipient.parse().map_err(|_| Reason::Malformed)?,
        );
        if origin == recipient {
            return Err(Reason::SelfRecipient);
        }
        Ok(Self {
            origin,
            recipient,
            epoch: Epoch::from_bytes(epoch).map_err(|_| Reason::Malformed)?,
            lane: Lane::from_wire(lane).ok_or(Reason::UnknownLane)?,
        })
    }
}

/// What an origin says of one count. What is neither voided nor pending has left it: a recipient
/// that has it not yet waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which count.
    pub count: CountOf,
    /// The first sequence it is about: where the epoch begins.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Digest of the slip of the last one, while it is remembered.
    pub slip: Option<[u8; 32]>,
    /// What will never come: recalled, refused, expired or forgotten.
    pub voided: Ranges,
    /// What still waits at the origin.
    pub pending: Ranges,
    /// When it was made.
    pub time: Timestamp,
}

impl Mark {
    /// What a recipient misses that has got these.
    #[must_use]
    pub fn missing(&self, arrived: &Ranges) -> Ranges {
        let missing = arrived.missing(self.first, self.last);
        missing.without(&self.voided).without(&self.pending)
    }

    fn encode(&self) -> Bytes {
        let mark = wire::HighWater {
            format: FORMAT,
            origin: self.count.origin.to_string(),
            recipient: self.count.recipient.to_string(),
            origin_epoch: Bytes::copy_from_slice(&self.count.epoch.0),
            lane: self.count.lane.to_wire(),
            sequence: self.last,
            slip_digest: self.slip.map(|slip| Bytes::copy_from_slice(&slip)).unwrap_or_default(),
            time: Some(self.time.to_wire()),
            first_sequence: self.first,
            voided: self.voided.to_wire(),
            pending: self.pending.to_wire(),
        };
        mark.encode_to_vec().into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Reason> {
        let mark = wire::HighWater::decode(bytes).map_err(|_| Reason::Malformed)?;
        if mark.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        if mark.voided.len() > SPANS_MAX || mark.pending.len() > SPANS_MAX {
            return Err(Reason::TooLarge);
        }
        if mark.first_sequence == 0 || mark.first_sequence > mark.sequence {
            return Err(Reason::FieldInvalid);
        }
        let slip = match mark.slip_digest.as_ref() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| Reason::Malformed)?),
        };
        let recipient = &mark.recipient;
        Ok(Self {
            count: CountOf::decode(&mark.origin, recipient, &mark.origin_epoch, mark.lane)?,
            first: mark.first_sequence,
            last: mark.sequence,
            slip,
            voided: Ranges::from_wire(&mark.voided),
            pending: Ranges::from_wire(&mark.pending),
            time: Timestamp::from_wire(mark.time.as_ref()).ok_or(Reason::Malformed)?,
        })
    }
}

/// What a recipient misses of a count, said to its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Which count.
    pub count: CountOf,
    /// What did not arrive.
    pub missing: Ranges,
    /// When this was said.
    pub time: Timestamp,
}

impl Shortfall {
    fn encode(&self) -> Bytes {
        let shortfall = wire::Shortfall {
            format: FORMAT,
            origin: self.count.origin.to_string(),
            recipient: self.count.recipient.to_string(),
            origin_epoch: Bytes::copy_from_slice(&self.count.epoch.0),
            lane: self.count.lane.to_wire(),
            missing: self.missing.to_wire(),
            time: Some(self.time.to_wire()),
        };
        shortfall.encode_to_vec().into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Reason> {
        let wire = wire::Shortfall::decode(bytes).map_err(|_| Reason::Malformed)?;
        if wire.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        if wire.missing.len() > SPANS_MAX {
            return Err(Reason::TooLarge);
        }
        let recipient = &wire.recipient;
        Ok(Self {
            count: CountOf::decode(&wire.origin, recipient, &wire.origin_epoch, wire.lane)?,
            missing: Ranges::from_wire(&wire.missing),
            time: Timestamp::from_wire(wire.time.as_ref()).ok_or(Reason::Malformed)?,
        })
    }
}

macro_rules! signed_statement {
    ($name:ident, $content:ident, $field:ident, $context:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $field: $content,
            signed: wire::Signed,
        }

        impl $name {
            /// One to be signed.
            #[must_use]
            pub fn new($field: $content) -> Self {
                let payload = $field.encode();
                Self { $field, signed: wire::Signed { payload, attestation: None } }
            }

            pub(crate) fn from_signed(signed: wire::Signed) -> Result<Self, Reason> {
                Ok(Self { $field: $content::decode(signed.payload.clone())?, signed })
            }

            /// What it says.
            #[must_use]
            pub const fn $field(&self) -> &$content {
                &self.$field
            }

            /// With its signature, encoded: what a store keeps and a link carries.
            #[must_use]
            pub fn encode(&self) -> Bytes {
                self.signed.encode_to_vec().into()
            }
        }

        impl Signable for $name {
            const CONTEXT: Context = $context;

            fn payload(&self) -> &Bytes {
                &self.signed.payload
            }

            fn attach(&mut self, attestation: wire::Attestation) {
                self.signed.attestation = Some(attestation);
            }
        }
    };
}

signed_statement!(HighWater, Mark, mark, Context::HighWater, "A mark with its origin's signature.");
signed_statement!(
    Need,
    Shortfall,
    shortfall,
    Context::Need,
    "A shortfall with its recipient's signature: no relay can make an origin send again."
);

/// Reads what a stored statement says; it was verified before it was stored.
///
/// # Errors
/// The [`Reason`] it does not decode for.
pub fn stored_mark(signed: Bytes) -> Result<Mark, Reason> {
    let signed = wire::Signed::decode(signed).map_err(|_| Reason::Malformed)?;
    Mark::decode(signed.payload)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            count: CountOf {
                origin: "FR".parse().unwrap(),
                recipient: "KE".parse().unwrap(),
                epoch: Epoch([3; 16]),
                lane: Lane::Flash,
            },
            first: 3,
            last: 20,
            slip: Some([4; 32]),
            voided: Ranges::of(5, 7),
            pending: Ranges::of(18, 19),
            time: Timestamp::from_ms(1_800_000_000_000),
        }
    }

    #[test]
    fn what_is_said_is_read_back() {
        assert_eq!(Mark::decode(mark().encode()), Ok(mark()));
        let forgotten = Mark { slip: None, ..mark() };
        assert_eq!(Mark::decode(forgotten.encode()), Ok(forgotten));
        let (count, time) = (mark().count, mark().time);
        let shortfall = Shortfall { count, missing: Ranges::of(8, 9), time };
        assert_eq!(Shortfall::decode(shortfall.encode()), Ok(shortfall));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |mark: Mark| Mark::decode(mark.encode()).unwrap_err();
        assert_eq!(refused(Mark { first: 0, ..mark() }), Reason::FieldInvalid);
        assert_eq!(refused(Mark { first: 21, ..mark() }), Reason::FieldInvalid);
        let own = CountOf { recipient: "FR".parse().unwrap(), ..mark().count };
        assert_eq!(refused(Mark { count: own, ..mark() }), Reason::SelfRecipient);
        let mut many = Ranges::default();
        (0..=SPANS_MAX as u64).for_each(|number| many.insert(number * 2));
        assert_eq!(refused(Mark { voided: many, ..mark() }), Reason::TooLarge);
    }

    #[test]
    fn missing_is_what_left_and_did_not_come() {
        let mut arrived = Ranges::of(1, 4);
        arrived.insert(9);
        let missing = mark().missing(&arrived);
        assert_eq!(missing.spans().collect::<Vec<_>>(), [(8, 8), (10, 17), (20, 20)]);
    }
}
