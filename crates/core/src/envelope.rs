//! The envelope: a manifest that its origin signed, and a body. What may be said in them is
//! checked in `verify`; here is what they are.

use std::fmt;

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

pub use bureau_proto::envelope::v1::{HandlingCode, Kind, SealingSuite};

use crate::{
    ids::{BureauCode, KeyId, Lane, MessageId, NetworkName},
    limits::{FORMAT, NONCE_BYTES},
    reason::Reason,
    signing::{Context, Signable, digest},
    time::Timestamp,
};

/// What everyone on the way may see of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The bureau that sends it.
    pub origin: BureauCode,
    /// Its key that signed.
    pub key_id: KeyId,
    /// What kind of envelope.
    pub kind: Kind,
    /// How urgent.
    pub lane: Lane,
    /// When it was made, by the origin's clock.
    pub created: Timestamp,
    /// When it is given up.
    pub expires: Timestamp,
    /// Makes two equal messages two messages.
    pub nonce: [u8; NONCE_BYTES],
    /// How body and attachments are sealed.
    pub suite: SealingSuite,
    /// Exercise traffic.
    pub exercise: bool,
    /// What recipients may do with it.
    pub handling: HandlingCode,
    /// The body as it travels.
    pub body: Content,
    /// The attachments as they travel.
    pub attachments: Vec<Content>,
    /// Commitment to the content key; empty under OPEN.
    pub key_commitment: Bytes,
}

/// Some bytes, by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// SHA-256.
    pub digest: [u8; 32],
    /// How many bytes.
    pub size: u64,
}

impl Content {
    /// Names these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Sha256::digest(bytes).into(), size: bytes.len() as u64 }
    }

    fn from_wire(content: Option<&wire::Content>) -> Result<Self, Reason> {
        let content = content.ok_or(Reason::FieldMissing)?;
        let digest = content.digest.as_ref().try_into().map_err(|_| Reason::Malformed)?;
        Ok(Self { digest, size: content.size })
    }

    fn to_wire(self) -> wire::Content {
        wire::Content { digest: Bytes::copy_from_slice(&self.digest), size: self.size }
    }
}

impl Manifest {
    /// The bytes that are signed.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let manifest = wire::Manifest {
            format: FORMAT,
            origin: self.origin.to_string(),
            key_id: Bytes::copy_from_slice(&self.key_id.0),
            kind: self.kind.into(),
            lane: self.lane.to_wire(),
            create_time: Some(self.created.to_wire()),
            expire_time: Some(self.expires.to_wire()),
            nonce: Bytes::copy_from_slice(&self.nonce),
            sealing_suite: self.suite.into(),
            exercise: self.exercise,
            handling_code: self.handling.into(),
            body: Some(self.body.to_wire()),
            attachments: self.attachments.iter().map(|content| content.to_wire()).collect(),
            key_commitment: self.key_commitment.clone(),
        };
        manifest.encode_to_vec().into()
    }

    /// Reads signed bytes. Unknown fields are no error: a newer origin may sign them.
    ///
    /// # Errors
    /// The [`Reason`] the bytes are refused for.
    pub fn decode(bytes: Bytes) -> Result<Self, Reason> {
        let manifest = wire::Manifest::decode(bytes).map_err(|_| Reason::Malformed)?;
        if manifest.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        let suite = SealingSuite::try_from(manifest.sealing_suite).ok();
        let kind = Kind::try_from(manifest.kind).ok();
        let handling = HandlingCode::try_from(manifest.handling_code).ok();
        let time = |wire: &Option<_>| Timestamp::from_wire(wire.as_ref()).ok_or(Reason::Malformed);
        let attachments =
            manifest.attachments.iter().map(|content| Content::from_wire(Some(content)));
        Ok(Self {
            origin: manifest.origin.parse().map_err(|_| Reason::Malformed)?,
            key_id: KeyId::from_bytes(&manifest.key_id).map_err(|_| Reason::Malformed)?,
            kind: kind.filter(|kind| *kind != Kind::Unspecified).ok_or(Reason::UnknownKind)?,
            lane: Lane::from_wire(manifest.lane).ok_or(Reason::UnknownLane)?,
            created: time(&manifest.create_time)?,
            expires: time(&manifest.expire_time)?,
            nonce: manifest.nonce.as_ref().try_into().map_err(|_| Reason::Malformed)?,
            suite: suite
                .filter(|suite| *suite != SealingSuite::Unspecified)
                .ok_or(Reason::UnknownSuite)?,
            exercise: manifest.exercise,
            handling: handling
                .filter(|code| *code != HandlingCode::Unspecified)
                .ok_or(Reason::FieldInvalid)?,
            body: Content::from_wire(manifest.body.as_ref())?,
            attachments: attachments.collect::<Result<_, _>>()?,
            key_commitment: manifest.key_commitment,
        })
    }
}

/// The signed unit: a manifest and a body, the same for every recipient.
#[derive(Clone, PartialEq)]
pub struct Envelope {
    id: MessageId,
    manifest: Manifest,
    signed: wire::Signed,
    body: Bytes,
}

impl Envelope {
    /// An envelope to be signed.
    #[must_use]
    pub fn new(network: &NetworkName, manifest: Manifest, body: Bytes) -> Self {
        let payload = manifest.encode();
        let id = MessageId(digest(network, Context::Manifest, &payload));
        let signed = wire::Signed { payload, attestation: None };
        Self::from_parts(id, manifest, signed, body)
    }

    /// Of a payload whose digest the caller has counted already.
    pub(crate) const fn from_parts(
        id: MessageId,
        manifest: Manifest,
        signed: wire::Signed,
        body: Bytes,
    ) -> Self {
        Self { id, manifest, signed, body }
    }

    /// The message's id.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// What it says.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The body as it travels.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The signed manifest, encoded: what a store keeps.
    #[must_use]
    pub fn signed_manifest(&self) -> Bytes {
        self.signed.encode_to_vec().into()
    }

    /// The whole envelope, encoded: what a parcel carries.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let envelope =
            wire::Envelope { manifest: Some(self.signed.clone()), body: self.body.clone() };
        envelope.encode_to_vec().into()
    }
}

impl fmt::Debug for Envelope {
    /// Without the body: whatever prints this may be a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("manifest", &self.manifest)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Signable for Envelope {
    const CONTEXT: Context = Context::Manifest;

    fn payload(&self) -> &Bytes {
        &self.signed.payload
    }

    fn attach(&mut self, attestation: wire::Attestation) {
        self.signed.attestation = Some(attestation);
    }
}

/// Puts an envelope together from a stored signed manifest and its body, without a look at them.
///
/// # Errors
/// [`Reason::Malformed`] where the manifest's bytes do not decode.
pub fn assemble(signed_manifest: Bytes, body: Bytes) -> Result<Bytes, Reason> {
    let manifest = wire::Signed::decode(signed_manifest).map_err(|_| Reason::Malformed)?;
    Ok(wire::Envelope { manifest: Some(manifest), body }.encode_to_vec().into())
}

/// Reads the manifest of a stored signed manifest, which was verified before it was stored.
///
/// # Errors
/// The [`Reason`] it does not decode for.
pub fn stored_manifest(signed_manifest: Bytes) -> Result<Manifest, Reason> {
    let signed = wire::Signed::decode(signed_manifest).map_err(|_| Reason::Malformed)?;
    Manifest::decode(signed.payload)
}
