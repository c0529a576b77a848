//! Untrusted bytes in, [`Verified`] out. The order matters: the signature is checked over the
//! very bytes that are then parsed, and nothing of the content is believed before.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

use crate::{
    bundle::{HEADER_BYTES_MAX, Header, Label},
    envelope::{Content, Envelope, Manifest, SealingSuite},
    high_water::{HighWater, Need},
    ids::{BureauCode, KeyId, MessageId},
    limits::{
        BODY_OVERHEAD_BYTES_MAX, CLOCK_SKEW_MS_MAX, Limits, MANIFEST_BYTES_MAX, RECEIPT_BYTES_MAX,
        SLIP_BYTES_MAX, STATEMENT_BYTES_MAX,
    },
    merkle::Hash,
    reason::Reason,
    receipt::{Receipt, ReceiptKind},
    roster::Roster,
    signing::{Context, digest, lead_to_root, open_signed},
    slip::{Count, Slip},
    time::Timestamp,
    verified::Verified,
};

/// Roots remembered in each of two generations: 8,192 × 32 bytes.
const ROOTS_REMEMBERED: usize = 4096;

/// An envelope that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeRefusal {
    /// Why.
    pub reason: Reason,
    /// Set where the origin's signature is good: then the origin may be told by a signed receipt.
    /// Otherwise only the hop is answered.
    pub authentic: Option<Authentic>,
}

/// What a good signature proves of an envelope that is refused all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentic {
    /// Its id.
    pub message: MessageId,
    /// Who sent it.
    pub origin: BureauCode,
}

impl From<Reason> for EnvelopeRefusal {
    fn from(reason: Reason) -> Self {
        Self { reason, authentic: None }
    }
}

/// A [`wire::Envelope`] with its manifest still encoded, so that its size can be looked at first.
#[derive(Clone, PartialEq, prost::Message)]
struct OpaqueEnvelope {
    #[prost(bytes = "bytes", optional, tag = "1")]
    manifest: Option<Bytes>,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// Verifies what comes from outside, against one roster. A new roster means a new verifier, with
/// an empty memory of roots.
#[derive(Debug)]
pub struct Verifier {
    roster: Arc<Roster>,
    limits: Limits,
    roots: Mutex<RootMemory>,
}

/// Roots whose signature was good, in two generations: when the younger is full, the older goes.
#[derive(Debug, Default)]
struct RootMemory {
    younger: HashSet<Hash>,
    older: HashSet<Hash>,
}

impl RootMemory {
    fn knows(&self, root: &Hash) -> bool {
        self.younger.contains(root) || self.older.contains(root)
    }

    fn remember(&mut self, root: Hash) {
        if self.younger.len() >= ROOTS_REMEMBERED {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(root);
    }
}

impl Verifier {
    /// A verifier against a roster.
    #[must_use]
    pub fn new(roster: Arc<Roster>, limits: Limits) -> Self {
        Self { roster, limits, roots: Mutex::default() }
    }

    /// The roster it verifies against.
    #[must_use]
    pub const fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Verifies an encoded envelope: signature, form, times, limits, digest of the body.
    ///
    /// # Errors
    /// [`EnvelopeRefusal`].
    pub fn envelope(
        &self,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<Verified<Envelope>, EnvelopeRefusal> {
        let envelope = OpaqueEnvelope::decode(bytes).map_err(|_| Reason::Malformed)?;
        let manifest = envelope.manifest.ok_or(Reason::FieldMissing)?;
        let (id, manifest, signed) = self.signed_manifest(manifest, now)?;
        if manifest.body.size != envelope.body.len() as u64
            || manifest.body != Content::of(&envelope.body)
        {
            // The origin signed another body: whoever changed it, the origin cannot be blamed.
            return Err(Reason::DigestMismatch.into());
        }
        Ok(Verified::new(Envelope::from_parts(id, manifest, signed, envelope.body)))
    }

    /// Verifies an encoded signed manifest alone: what is about to come, before it comes.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn manifest(&self, signed: Bytes, now: Timestamp) -> Result<(MessageId, Manifest), Reason> {
        let verified = self.signed_manifest(signed, now).map_err(|refusal| refusal.reason);
        verified.map(|(id, manifest, _)| (id, manifest))
    }

    fn signed_manifest(
        &self,
        signed: Bytes,
        now: Timestamp,
    ) -> Result<(MessageId, Manifest, wire::Signed), EnvelopeRefusal> {
        let signed = open_signed(signed, MANIFEST_BYTES_MAX)?;
        let (signer, key) = self.signature(Context::Manifest, &signed, now)?;
        let id = digest(self.roster.network(), Context::Manifest, &signed.payload);
        let id = MessageId(id);
        let authentic = Some(Authentic { message: id, origin: signer });
        let refuse = |reason| EnvelopeRefusal { reason, authentic };
        let manifest = Manifest::decode(signed.payload.clone()).map_err(refuse)?;
        if manifest.origin != signer || manifest.key_id != key {
            return Err(Reason::WrongOrigin.into());
        }
        self.check_manifest(&manifest, now).map_err(refuse)?;
        Ok((id, manifest, signed))
    }

    fn check_manifest(&self, manifest: &Manifest, now: Timestamp) -> Result<(), Reason> {
        let lifetime = manifest.expires.since(manifest.created);
        if lifetime <= 0 {
            return Err(Reason::AlreadyExpired);
        }
        if lifetime > self.limits.lifetime_ms {
            return Err(Reason::LifetimeTooLong);
        }
        if manifest.created > now.plus_ms(CLOCK_SKEW_MS_MAX) {
            return Err(Reason::CreatedInFuture);
        }
        if manifest.expires <= now {
            return Err(Reason::AlreadyExpired);
        }
        let body_bytes_max = self.limits.body_bytes.saturating_add(BODY_OVERHEAD_BYTES_MAX);
        if manifest.body.size > body_bytes_max as u64 {
            return Err(Reason::BodyTooLarge);
        }
        if manifest.attachments.len() > self.limits.attachments {
            return Err(Reason::TooManyAttachments);
        }
        if manifest.attachments.iter().any(|part| part.size > self.limits.attachment_bytes) {
            return Err(Reason::AttachmentTooLarge);
        }
        if manifest.attachments.iter().any(|part| part.size == 0) {
            return Err(Reason::FieldInvalid);
        }
        if manifest.suite == SealingSuite::Open && !manifest.key_commitment.is_empty() {
            return Err(Reason::FieldInvalid);
        }
        Ok(())
    }

    /// Verifies an encoded slip of an envelope: signed by the envelope's origin, of this message,
    /// with its lane and suite, for a member.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn slip(
        &self,
        bytes: Bytes,
        envelope: &Verified<Envelope>,
        now: Timestamp,
    ) -> Result<Verified<Slip>, Reason> {
        let signed = open_signed(bytes, SLIP_BYTES_MAX)?;
        let (signer, _) = self.signature(Context::Slip, &signed, now)?;
        if signer != envelope.manifest().origin {
            return Err(Reason::WrongOrigin);
        }
        let slip = Slip::from_signed(self.roster.network(), signed)?;
        let label = slip.label();
        if label.message != envelope.id() {
            return Err(Reason::SlipMismatch);
        }
        if label.lane != envelope.manifest().lane {
            return Err(Reason::LaneMismatch);
        }
        if label.suite != envelope.manifest().suite {
            return Err(Reason::SlipMismatch);
        }
        if label.recipient == signer {
            return Err(Reason::SelfRecipient);
        }
        self.roster.member(&label.recipient)?;
        if label.suite == SealingSuite::Open {
            // In clear, so a count that is none is found here and not after it was stored.
            Count::decode(label.private.clone())?;
            if !label.encapsulation.is_empty() {
                return Err(Reason::FieldInvalid);
            }
        }
        Ok(Verified::new(slip))
    }

    /// Verifies an encoded receipt: signed by who it says, and of a kind that this signer may give.
    /// Whether the message is known is for the caller.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn receipt(&self, bytes: Bytes, now: Timestamp) -> Result<Verified<Receipt>, Reason> {
        let signed = open_signed(bytes, RECEIPT_BYTES_MAX)?;
        let (signer, _) = self.signature(Context::Receipt, &signed, now)?;
        let receipt = Receipt::from_signed(signed)?;
        let statement = receipt.statement();
        if statement.signer != signer {
            return Err(Reason::WrongOrigin);
        }
        let from_recipient_only =
            matches!(statement.kind, ReceiptKind::Delivered | ReceiptKind::Acknowledged);
        if from_recipient_only && statement.recipient != signer {
            return Err(Reason::WrongOrigin);
        }
        if statement.time > now.plus_ms(CLOCK_SKEW_MS_MAX) {
            return Err(Reason::CreatedInFuture);
        }
        Ok(Verified::new(receipt))
    }

    /// Verifies an encoded statement of what was sent: signed by its origin, about members.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn high_water(&self, bytes: Bytes, now: Timestamp) -> Result<Verified<HighWater>, Reason> {
        let signed = open_signed(bytes, STATEMENT_BYTES_MAX)?;
        let (signer, _) = self.signature(Context::HighWater, &signed, now)?;
        let statement = HighWater::from_signed(signed)?;
        let mark = statement.mark();
        self.statement(signer, mark.count.origin, mark.count.recipient, mark.time, now)?;
        Ok(Verified::new(statement))
    }

    /// Verifies an encoded statement of what is missing: signed by its recipient, about members.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn need(&self, bytes: Bytes, now: Timestamp) -> Result<Verified<Need>, Reason> {
        let signed = open_signed(bytes, STATEMENT_BYTES_MAX)?;
        let (signer, _) = self.signature(Context::Need, &signed, now)?;
        let need = Need::from_signed(signed)?;
        let said = need.shortfall();
        self.statement(signer, said.count.recipient, said.count.origin, said.time, now)?;
        Ok(Verified::new(need))
    }

    fn statement(
        &self,
        signer: BureauCode,
        speaker: BureauCode,
        other: BureauCode,
        time: Timestamp,
        now: Timestamp,
    ) -> Result<(), Reason> {
        if speaker != signer {
            return Err(Reason::WrongOrigin);
        }
        self.roster.member(&other)?;
        if time > now.plus_ms(CLOCK_SKEW_MS_MAX) {
            return Err(Reason::CreatedInFuture);
        }
        Ok(())
    }

    /// Verifies the encoded signed header of a bundle: signed by the bureau that it names as its
    /// exporter, of this network. Whose it is, is for the caller.
    ///
    /// # Errors
    /// The [`Reason`] it is refused for.
    pub fn bundle(&self, bytes: Bytes, now: Timestamp) -> Result<Verified<Header>, Reason> {
        let signed = open_signed(bytes, HEADER_BYTES_MAX)?;
        // Another network's name stands under its signatures: they say nothing here.
        if Label::decode(signed.payload.clone())?.network != *self.roster.network() {
            return Err(Reason::WrongNetwork);
        }
        let (signer, _) = self.signature(Context::Bundle, &signed, now)?;
        let header = Header::from_signed(signed)?;
        if header.label().from != signer {
            return Err(Reason::WrongOrigin);
        }
        if header.label().created > now.plus_ms(CLOCK_SKEW_MS_MAX) {
            return Err(Reason::CreatedInFuture);
        }
        Ok(Verified::new(header))
    }

    /// Checks who signed some bytes, and that the roster lets that key sign now.
    fn signature(
        &self,
        context: Context,
        signed: &wire::Signed,
        now: Timestamp,
    ) -> Result<(BureauCode, KeyId), Reason> {
        let attestation = signed.attestation.as_ref().ok_or(Reason::FieldMissing)?;
        let root = attestation.root.as_ref().ok_or(Reason::FieldMissing)?;
        if root.suite() != wire::SignatureSuite::Ed25519 {
            return Err(Reason::UnknownSuite);
        }
        let signer: BureauCode = root.bureau.parse().map_err(|_| Reason::Malformed)?;
        let id = KeyId::from_bytes(&root.key_id).map_err(|_| Reason::Malformed)?;
        let key = self.roster.signing_key(&signer, id, now)?;
        let network = self.roster.network();
        let claim = lead_to_root(network, context, &signed.payload, attestation)
            .ok_or(Reason::BadSignature)?;
        let fingerprint = claim.fingerprint(key);
        let memory = || self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if !memory().knows(&fingerprint) {
            claim.check(key)?;
            memory().remember(fingerprint);
        }
        Ok((signer, id))
    }
}
