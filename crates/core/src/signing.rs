//! Group signatures: what is committed as one group is signed once, over a Merkle root; every
//! item carries root signature and path and stands alone. So cost falls under load, by itself.

use bureau_proto::envelope::v1 as wire;
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{BureauCode, NetworkName},
    keys::{PublicKey, SigningKey},
    limits::SIGNATURE_BYTES_MAX,
    merkle::{self, Hash, Tree},
    reason::Reason,
    verified::Verified,
};

/// What kind of thing some signed bytes are. It stands under the signature, so that bytes signed
/// as one kind can never be shown as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Context {
    /// A manifest.
    Manifest,
    /// A slip.
    Slip,
    /// A receipt.
    Receipt,
    /// A roster.
    Roster,
    /// A checkpoint of the audit log.
    Checkpoint,
    /// A permit for onward release.
    Permit,
    /// A statement of what was sent.
    HighWater,
    /// A statement of what is missing.
    Need,
    /// The header of a bundle.
    Bundle,
}

impl Context {
    const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Manifest => b"manifest",
            Self::Slip => b"slip",
            Self::Receipt => b"receipt",
            Self::Roster => b"roster",
            Self::Checkpoint => b"checkpoint",
            Self::Permit => b"permit",
            Self::HighWater => b"high-water",
            Self::Need => b"need",
            Self::Bundle => b"bundle",
        }
    }
}

const LEAF: u8 = 0;
const DIGEST: u8 = 2;
const SALT_BYTES: usize = 16;
const ROOT_LABEL: &[u8] = b"bureau/root/v1\0";

/// Digest of signed bytes under their context, without salt, path or signature: the message id
/// of a manifest, the slip digest of a slip.
#[must_use]
pub fn digest(network: &NetworkName, context: Context, bytes: &[u8]) -> Hash {
    hasher(DIGEST, network, context).chain_update(bytes).finalize().into()
}

fn leaf(network: &NetworkName, context: Context, salt: &[u8], bytes: &[u8]) -> Hash {
    hasher(LEAF, network, context).chain_update(salt).chain_update(bytes).finalize().into()
}

fn hasher(kind: u8, network: &NetworkName, context: Context) -> Sha256 {
    let network = network.as_str().as_bytes();
    Sha256::new_with_prefix([kind])
        .chain_update(length(network))
        .chain_update(network)
        .chain_update(length(context.as_bytes()))
        .chain_update(context.as_bytes())
}

/// Names are shorter than 4 GiB by their types.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a root signature covers.
fn root_bytes(network: &NetworkName, root: &wire::RootSignature) -> Bytes {
    let mut bytes = BytesMut::with_capacity(192);
    bytes.put_slice(ROOT_LABEL);
    bytes.put_slice(&length(network.as_str().as_bytes()));
    bytes.put_slice(network.as_str().as_bytes());
    bytes.put_i32(root.suite);
    for field in [root.bureau.as_bytes(), root.key_id.as_ref()] {
        bytes.put_slice(&length(field));
        bytes.put_slice(field);
    }
    bytes.put_u32(root.tree_size);
    bytes.put_slice(&root.root);
    bytes.freeze()
}

/// Why a group could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandom,
    /// More than 4,096 items in a group.
    #[error("more than 4096 items in one group")]
    GroupTooLarge,
    /// The ticket is of another group.
    #[error("a ticket of another group")]
    ForeignTicket,
}

/// Fills bytes by chance; `false` where there is none to give.
type Chance = dyn Fn(&mut [u8]) -> bool + Send + Sync;

/// Signs as one bureau.
pub struct Signer {
    network: NetworkName,
    bureau: String,
    key: SigningKey,
    public: PublicKey,
    chance: Box<Chance>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("bureau", &self.bureau).finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer for a bureau.
    #[must_use]
    pub fn new(network: NetworkName, bureau: BureauCode, key: SigningKey) -> Self {
        let public = key.public();
        let chance = Box::new(|bytes: &mut [u8]| getrandom::fill(bytes).is_ok());
        Self { network, bureau: bureau.as_str().to_owned(), key, public, chance }
    }

    /// The same signer with salts from elsewhere than the system: for a simulation that must be
    /// repeated, and for nothing else, because who knows the salts can guess at what is signed.
    #[must_use]
    pub fn with_chance(self, chance: impl Fn(&mut [u8]) -> bool + Send + Sync + 'static) -> Self {
        Self { chance: Box::new(chance), ..self }
    }

    /// The network's name.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The public half of its key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Begins a group.
    #[must_use]
    pub const fn group(&self) -> Group<'_> {
        Group { signer: self, items: Vec::new() }
    }

    /// Signs items as one group: an attestation for each, in order.
    ///
    /// # Errors
    /// [`SignError::GroupTooLarge`], [`SignError::NoRandom`].
    pub fn attest(&self, items: &[(Context, Bytes)]) -> Result<Vec<wire::Attestation>, SignError> {
        let Some(size) = merkle::padded_size(items.len()) else {
            return if items.is_empty() { Ok(Vec::new()) } else { Err(SignError::GroupTooLarge) };
        };
        let salts = items.len() * SALT_BYTES;
        let mut random = vec![0; salts + merkle::HEIGHT_MAX * size_of::<Hash>()];
        if !(self.chance)(&mut random) {
            return Err(SignError::NoRandom);
        }
        let random = Bytes::from(random);
        let mut fill = [Hash::default(); merkle::HEIGHT_MAX];
        fill.as_flattened_mut().copy_from_slice(&random[salts..]);

        let mut leaves: Vec<Hash> = Vec::with_capacity(items.len());
        for ((context, bytes), salt) in items.iter().zip(random.chunks_exact(SALT_BYTES)) {
            leaves.push(leaf(&self.network, *context, salt, bytes));
        }
        let tree = Tree::new(&leaves, size.trailing_zeros() as usize, &fill);
        let root = self.sign_root(tree.root(), size);
        let attestation = |index: usize| wire::Attestation {
            salt: random.slice(index * SALT_BYTES..(index + 1) * SALT_BYTES),
            leaf_index: u32::try_from(index).unwrap_or(u32::MAX),
            path: tree.path(index).collect(),
            root: Some(root.clone()),
        };
        Ok((0..items.len()).map(attestation).collect())
    }

    fn sign_root(&self, root: Bytes, size: usize) -> wire::RootSignature {
        let mut signed = wire::RootSignature {
            suite: wire::SignatureSuite::Ed25519.into(),
            bureau: self.bureau.clone(),
            key_id: Bytes::copy_from_slice(&self.public.id().0),
            tree_size: u32::try_from(size).unwrap_or(u32::MAX),
            root,
            signature: Bytes::new(),
        };
        let bytes = root_bytes(&self.network, &signed);
        signed.signature = Bytes::copy_from_slice(&self.key.sign(&bytes));
        signed
    }
}

/// Something that can be put into a group: an envelope, a slip, a receipt.
pub trait Signable: Sized {
    /// Under which context it is signed.
    const CONTEXT: Context;

    /// The bytes that are signed.
    fn payload(&self) -> &Bytes;

    /// Takes the signature.
    fn attach(&mut self, attestation: wire::Attestation);
}

/// Things that are about to be signed together.
#[derive(Debug)]
pub struct Group<'a> {
    signer: &'a Signer,
    items: Vec<(Context, Bytes)>,
}

/// The place of a thing in a group, and the thing itself while it is unsigned.
#[derive(Debug)]
pub struct Ticket<T> {
    index: usize,
    item: T,
}

impl<T> Ticket<T> {
    /// The thing, still unsigned.
    pub const fn item(&self) -> &T {
        &self.item
    }
}

impl Group<'_> {
    /// Puts a thing in.
    pub fn add<T: Signable>(&mut self, item: T) -> Ticket<T> {
        self.items.push((T::CONTEXT, item.payload().clone()));
        Ticket { index: self.items.len() - 1, item }
    }

    /// How many are in.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Signs all. A group of more than 4,096 is signed as several.
    ///
    /// # Errors
    /// [`SignError::NoRandom`].
    pub fn sign(self) -> Result<SignedGroup, SignError> {
        let mut attestations = Vec::with_capacity(self.items.len());
        for part in self.items.chunks(merkle::LEAVES_MAX) {
            attestations.extend(self.signer.attest(part)?.into_iter().map(Some));
        }
        Ok(SignedGroup { items: self.items, attestations })
    }
}

/// A group that is signed: give the tickets back to get the things.
#[derive(Debug)]
pub struct SignedGroup {
    items: Vec<(Context, Bytes)>,
    attestations: Vec<Option<wire::Attestation>>,
}

impl SignedGroup {
    /// The signed thing of a ticket.
    ///
    /// # Errors
    /// [`SignError::ForeignTicket`].
    pub fn take<T: Signable>(&mut self, ticket: Ticket<T>) -> Result<Verified<T>, SignError> {
        let Ticket { index, mut item } = ticket;
        // Without this look, another group's ticket would get a signature over something else, and
        // the mark of the verified with it.
        let is_ours = self
            .items
            .get(index)
            .is_some_and(|(context, bytes)| *context == T::CONTEXT && bytes == item.payload());
        let attestation = self.attestations.get_mut(index).filter(|_| is_ours);
        item.attach(attestation.and_then(Option::take).ok_or(SignError::ForeignTicket)?);
        Ok(Verified::new(item))
    }
}

/// Decodes signed bytes of a bounded size. Nothing of them is believed yet.
pub(crate) fn open_signed(bytes: Bytes, payload_bytes_max: usize) -> Result<wire::Signed, Reason> {
    if bytes.len() > payload_bytes_max + SIGNATURE_BYTES_MAX {
        return Err(Reason::TooLarge);
    }
    let signed = wire::Signed::decode(bytes).map_err(|_| Reason::Malformed)?;
    if signed.payload.len() > payload_bytes_max {
        return Err(Reason::TooLarge);
    }
    Ok(signed)
}

/// Checks an attestation of bytes, up to the signature: the root it leads to, and what that root's
/// signature must be checked with. `None` where the path does not lead to the root.
pub(crate) fn lead_to_root(
    network: &NetworkName,
    context: Context,
    payload: &[u8],
    attestation: &wire::Attestation,
) -> Option<RootClaim> {
    let root = attestation.root.as_ref()?;
    if attestation.salt.len() != SALT_BYTES || root.signature.len() != 64 {
        return None;
    }
    let hash = leaf(network, context, &attestation.salt, payload);
    let found = merkle::root_of(hash, attestation.leaf_index, root.tree_size, &attestation.path)?;
    if root.root != found.as_slice() {
        return None;
    }
    Some(RootClaim { bytes: root_bytes(network, root), signature: root.signature.clone() })
}

/// A root and a signature that is claimed to be over it.
pub(crate) struct RootClaim {
    bytes: Bytes,
    signature: Bytes,
}

impl RootClaim {
    pub(crate) fn check(&self, key: &PublicKey) -> Result<(), Reason> {
        key.verify(&self.bytes, &self.signature)
    }

    /// Names claim and key, for a memory of what was checked.
    pub(crate) fn fingerprint(&self, key: &PublicKey) -> Hash {
        Sha256::new_with_prefix(key.as_bytes())
            .chain_update(&self.signature)
            .chain_update(&self.bytes)
            .finalize()
            .into()
    }
}
