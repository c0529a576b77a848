//! The receipt: signed proof of one step in a message's life, for one recipient.

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

pub use bureau_proto::envelope::v1::ReceiptKind;

use crate::{
    ids::{BureauCode, DeskName, Epoch, MessageId},
    limits::{FORMAT, RECEIPT_TEXT_CHARS_MAX},
    reason::Reason,
    signing::{Context, Signable},
    time::Timestamp,
};

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What happened.
    pub kind: ReceiptKind,
    /// The message.
    pub message: MessageId,
    /// The bureau the message's slip names.
    pub recipient: BureauCode,
    /// Digest of that slip.
    pub slip: [u8; 32],
    /// Who says so.
    pub signer: BureauCode,
    /// The signer's store epoch.
    pub signer_epoch: Epoch,
    /// When, by the signer's clock.
    pub time: Timestamp,
    /// Why it was refused; a stable reason, of a newer version perhaps.
    pub reason: String,
    /// What the sender can do.
    pub advice: String,
    /// Where the signer had it from.
    pub previous_hop: Option<BureauCode>,
    /// Where it went.
    pub next_hop: Option<BureauCode>,
    /// The desk that took it.
    pub desk: Option<DeskName>,
}

impl Statement {
    fn encode(&self) -> Bytes {
        let text =
            |code: &Option<BureauCode>| code.map(|code| code.to_string()).unwrap_or_default();
        let receipt = wire::Receipt {
            format: FORMAT,
            kind: self.kind.into(),
            message_id: Bytes::copy_from_slice(&self.message.0),
            recipient: self.recipient.to_string(),
            slip_digest: Bytes::copy_from_slice(&self.slip),
            signer: self.signer.to_string(),
            signer_epoch: Bytes::copy_from_slice(&self.signer_epoch.0),
            time: Some(self.time.to_wire()),
            reason: self.reason.clone(),
            advice: self.advice.clone(),
            previous_hop: text(&self.previous_hop),
            next_hop: text(&self.next_hop),
            desk: self.desk.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        receipt.encode_to_vec().into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Reason> {
        let receipt = wire::Receipt::decode(bytes).map_err(|_| Reason::Malformed)?;
        if receipt.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        let kind = ReceiptKind::try_from(receipt.kind).ok();
        let code = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Reason::Malformed),
        };
        for text in [&receipt.reason, &receipt.advice] {
            crate::body::check_line(text, RECEIPT_TEXT_CHARS_MAX)?;
        }
        Ok(Self {
            kind: kind
                .filter(|kind| *kind != ReceiptKind::Unspecified)
                .ok_or(Reason::UnknownKind)?,
            message: MessageId::from_bytes(&receipt.message_id).map_err(|_| Reason::Malformed)?,
            recipient: receipt.recipient.parse().map_err(|_| Reason::Malformed)?,
            slip: receipt.slip_digest.as_ref().try_into().map_err(|_| Reason::Malformed)?,
            signer: receipt.signer.parse().map_err(|_| Reason::Malformed)?,
            signer_epoch: Epoch::from_bytes(&receipt.signer_epoch)
                .map_err(|_| Reason::Malformed)?,
            time: Timestamp::from_wire(receipt.time.as_ref()).ok_or(Reason::Malformed)?,
            reason: receipt.reason,
            advice: receipt.advice,
            previous_hop: code(&receipt.previous_hop)?,
            next_hop: code(&receipt.next_hop)?,
            desk: match receipt.desk.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| Reason::Malformed)?),
            },
        })
    }
}

/// A receipt with its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    statement: Statement,
    signed: wire::Signed,
}

impl Receipt {
    /// A receipt to be signed.
    #[must_use]
    pub fn new(statement: Statement) -> Self {
        let payload = statement.encode();
        Self { statement, signed: wire::Signed { payload, attestation: None } }
    }

    pub(crate) fn from_signed(signed: wire::Signed) -> Result<Self, Reason> {
        Ok(Self { statement: Statement::decode(signed.payload.clone())?, signed })
    }

    /// What it says.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The signed receipt, encoded: what a store keeps and a link carries.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.signed.encode_to_vec().into()
    }
}

impl Signable for Receipt {
    const CONTEXT: Context = Context::Receipt;

    fn payload(&self) -> &Bytes {
        &self.signed.payload
    }

    fn attach(&mut self, attestation: wire::Attestation) {
        self.signed.attestation = Some(attestation);
    }
}

/// Reads what a stored receipt says; it was verified before it was stored.
///
/// # Errors
/// The [`Reason`] it does not decode for.
pub fn stored_statement(signed: Bytes) -> Result<Statement, Reason> {
    let signed = wire::Signed::decode(signed).map_err(|_| Reason::Malformed)?;
    Statement::decode(signed.payload)
}
