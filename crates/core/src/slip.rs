//! The slip: the origin's signed address label for one recipient.

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

use crate::{
    envelope::SealingSuite,
    ids::{BureauCode, Epoch, Lane, MessageId, NetworkName},
    limits::FORMAT,
    reason::Reason,
    signing::{Context, Signable, digest},
};

/// What a slip says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The message it is of.
    pub message: MessageId,
    /// The bureau it is for.
    pub recipient: BureauCode,
    /// The manifest's lane.
    pub lane: Lane,
    /// The origin's store epoch.
    pub origin_epoch: Epoch,
    /// How the private part is sealed.
    pub suite: SealingSuite,
    /// For the recipient alone.
    pub private: Bytes,
    /// What the private part is sealed under; empty under OPEN.
    pub encapsulation: Bytes,
}

/// The part for the recipient alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Counts from 1 for each recipient, lane and epoch.
    pub sequence: u64,
    /// Digest of the slip before it; `None` for the first.
    pub previous: Option<[u8; 32]>,
}

impl Count {
    /// The private part under suite OPEN.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let private = wire::SlipPrivate {
            sequence: self.sequence,
            previous_slip_digest: self
                .previous
                .map(|hash| Bytes::copy_from_slice(&hash))
                .unwrap_or_default(),
            wrapped_content_key: Bytes::new(),
        };
        private.encode_to_vec().into()
    }

    /// Reads a private part under suite OPEN.
    ///
    /// # Errors
    /// [`Reason::Malformed`].
    pub fn decode(private: Bytes) -> Result<Self, Reason> {
        let private = wire::SlipPrivate::decode(private).map_err(|_| Reason::Malformed)?;
        let previous = match private.previous_slip_digest.as_ref() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| Reason::Malformed)?),
        };
        if private.sequence == 0 || (private.sequence == 1) != previous.is_none() {
            return Err(Reason::Malformed);
        }
        Ok(Self { sequence: private.sequence, previous })
    }
}

impl Label {
    fn encode(&self) -> Bytes {
        let slip = wire::Slip {
            format: FORMAT,
            message_id: Bytes::copy_from_slice(&self.message.0),
            recipient: self.recipient.to_string(),
            lane: self.lane.to_wire(),
            origin_epoch: Bytes::copy_from_slice(&self.origin_epoch.0),
            sealing_suite: self.suite.into(),
            private_part: self.private.clone(),
            encapsulation_digest: self.encapsulation.clone(),
        };
        slip.encode_to_vec().into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Reason> {
        let slip = wire::Slip::decode(bytes).map_err(|_| Reason::Malformed)?;
        if slip.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        let suite = SealingSuite::try_from(slip.sealing_suite).ok();
        Ok(Self {
            message: MessageId::from_bytes(&slip.message_id).map_err(|_| Reason::Malformed)?,
            recipient: slip.recipient.parse().map_err(|_| Reason::Malformed)?,
            lane: Lane::from_wire(slip.lane).ok_or(Reason::UnknownLane)?,
            origin_epoch: Epoch::from_bytes(&slip.origin_epoch).map_err(|_| Reason::Malformed)?,
            suite: suite
                .filter(|suite| *suite != SealingSuite::Unspecified)
                .ok_or(Reason::UnknownSuite)?,
            private: slip.private_part,
            encapsulation: slip.encapsulation_digest,
        })
    }
}

/// A slip with its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Slip {
    digest: [u8; 32],
    label: Label,
    signed: wire::Signed,
}

impl Slip {
    /// A slip to be signed.
    #[must_use]
    pub fn new(network: &NetworkName, label: Label) -> Self {
        let payload = label.encode();
        let digest = digest(network, Context::Slip, &payload);
        Self { digest, label, signed: wire::Signed { payload, attestation: None } }
    }

    pub(crate) fn from_signed(network: &NetworkName, signed: wire::Signed) -> Result<Self, Reason> {
        let label = Label::decode(signed.payload.clone())?;
        let digest = digest(network, Context::Slip, &signed.payload);
        Ok(Self { digest, label, signed })
    }

    /// Its digest: what receipts and the next slip name it by.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What it says.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// The signed slip, encoded: what a store keeps and a parcel carries.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.signed.encode_to_vec().into()
    }
}

/// Reads what a stored slip says; it was verified before it was stored.
///
/// # Errors
/// The [`Reason`] it does not decode for.
pub fn stored_label(signed: Bytes) -> Result<Label, Reason> {
    let signed = wire::Signed::decode(signed).map_err(|_| Reason::Malformed)?;
    Label::decode(signed.payload)
}

/// Reads the count of a stored slip, under suite OPEN.
///
/// # Errors
/// The [`Reason`] it does not decode for.
pub fn stored_count(signed: Bytes) -> Result<Count, Reason> {
    Count::decode(stored_label(signed)?.private)
}

impl Signable for Slip {
    const CONTEXT: Context = Context::Slip;

    fn payload(&self) -> &Bytes {
        &self.signed.payload
    }

    fn attach(&mut self, attestation: wire::Attestation) {
        self.signed.attestation = Some(attestation);
    }
}
