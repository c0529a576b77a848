//! The roster: who belongs to the network, with which keys. A threshold of offline root keys
//! signs it. Keys are judged at the moment something is accepted, never by its `created`: a thief
//! can backdate.

use std::collections::{BTreeMap, BTreeSet};

use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

use crate::{
    body::check_line,
    ids::{BureauCode, KeyId, NetworkName, NodeName},
    keys::{KeyError, PublicKey, SigningKey},
    limits::{
        ADDRESS_BYTES_MAX, BUREAU_NAME_CHARS_MAX, FORMAT, Limits, ROSTER_BYTES_MAX,
        ROSTER_SIGNATURES_MAX, SIGNATURE_BYTES_MAX,
    },
    reason::Reason,
    signing::{Context, SignError, Signer, lead_to_root},
    time::Timestamp,
};

/// The bureau code under a root signature of a roster. No member may have it.
pub const ROSTER_SIGNER: &str = "ROSTER";

/// Why a roster is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The bytes are no roster, or one of an unknown format.
    #[error("not a roster of a known format")]
    Malformed,
    /// Fewer good signatures of distinct trusted root keys than needed.
    #[error("{good} good signatures of trusted root keys, {needed} needed")]
    Threshold {
        /// How many were good.
        good: usize,
        /// How many are needed.
        needed: usize,
    },
    /// It is of another network.
    #[error("the roster is of the network {found:?}")]
    WrongNetwork {
        /// Which one.
        found: String,
    },
    /// A member is not well formed.
    #[error("member {code:?}: {fault}")]
    Member {
        /// Its code.
        code: String,
        /// What is wrong.
        fault: MemberFault,
    },
}

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    /// The code is not a bureau code, or reserved.
    #[error("not a bureau code")]
    Code,
    /// The code stands twice.
    #[error("listed twice")]
    Twice,
    /// Its name for people is too long, or has control characters.
    #[error("a name that is too long or has control characters")]
    Name,
    /// A node's name is not one.
    #[error("not a node name")]
    Node,
    /// A node stands twice: one of the two would be lost in silence.
    #[error("a node listed twice")]
    NodeTwice,
    /// An address is not one.
    #[error("an address that is not host:port")]
    Address,
    /// A key stands twice, here or with another member: a revoked one could come back, or one
    /// bureau sign as another.
    #[error("a key listed twice")]
    KeyTwice,
    /// A key is not one, or weak.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A key's window is missing or ends before it begins.
    #[error("a key without a window, or with one that ends before it begins")]
    Window,
    /// A hub it is reached through is no member.
    #[error("reached through a hub that is not a member")]
    Via,
}

/// Signs a roster with root keys.
///
/// # Errors
/// [`SignError`].
pub fn sign(
    roster: &wire::Roster,
    network: &NetworkName,
    root_keys: Vec<SigningKey>,
) -> Result<Bytes, SignError> {
    let bytes = Bytes::from(roster.encode_to_vec());
    let mut attestations = Vec::with_capacity(root_keys.len());
    for key in root_keys {
        let Ok(signer) = ROSTER_SIGNER.parse() else { continue };
        let signer = Signer::new(network.clone(), signer, key);
        attestations.extend(signer.attest(&[(Context::Roster, bytes.clone())])?);
    }
    Ok(wire::SignedRoster { roster: bytes, attestations }.encode_to_vec().into())
}

/// Root keys a bureau trusts, and how many of them must have signed.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// How many must have signed; at least one.
    pub threshold: usize,
}

/// A verified roster.
#[derive(Debug, Clone)]
pub struct Roster {
    network: NetworkName,
    serial: u64,
    issued: Timestamp,
    expires: Timestamp,
    members: BTreeMap<BureauCode, Member>,
}

/// A member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name for people.
    pub name: String,
    /// Its nodes and the addresses of their link faces.
    pub nodes: BTreeMap<NodeName, Vec<String>>,
    /// Whether it relays for others.
    pub relay: bool,
    /// Hubs it can be reached through, best first.
    pub via: Vec<BureauCode>,
    /// Nothing of it is accepted, nothing sent to it.
    pub suspended: bool,
    keys: BTreeMap<KeyId, Key>,
}

#[derive(Debug, Clone)]
struct Key {
    /// `None` where it is not for signatures of a known suite.
    public: Option<PublicKey>,
    /// `None` where it is not for sealing by a known suite.
    sealing: Option<[u8; 32]>,
    valid_from: Timestamp,
    valid_until: Timestamp,
    revoked: bool,
}

impl Roster {
    /// Verifies a signed roster against the trusted root keys.
    ///
    /// # Errors
    /// [`RosterError`].
    pub fn verify(
        bytes: Bytes,
        network: &NetworkName,
        anchor: &Anchor,
    ) -> Result<Self, RosterError> {
        if bytes.len() > ROSTER_BYTES_MAX {
            return Err(RosterError::Malformed);
        }
        let signed = OpaqueSignedRoster::decode(bytes).map_err(|_| RosterError::Malformed)?;
        if signed.attestations.len() > ROSTER_SIGNATURES_MAX {
            return Err(RosterError::Malformed);
        }
        let mut good = BTreeSet::new();
        for attestation in &signed.attestations {
            good.extend(root_signer(&signed.roster, attestation, network, anchor));
        }
        let needed = anchor.threshold.max(1);
        if good.len() < needed {
            return Err(RosterError::Threshold { good: good.len(), needed });
        }
        let roster = wire::Roster::decode(signed.roster).map_err(|_| RosterError::Malformed)?;
        Self::from_wire(roster, network)
    }

    fn from_wire(roster: wire::Roster, network: &NetworkName) -> Result<Self, RosterError> {
        if roster.network != network.as_str() {
            return Err(RosterError::WrongNetwork { found: roster.network });
        }
        let issued = Timestamp::from_wire(roster.issue_time.as_ref());
        let expires = Timestamp::from_wire(roster.expire_time.as_ref());
        let (Some(issued), Some(expires), FORMAT) = (issued, expires, roster.format) else {
            return Err(RosterError::Malformed);
        };
        let mut members = BTreeMap::new();
        let mut key_ids = BTreeSet::new();
        for member in &roster.members {
            let fault = |fault| RosterError::Member { code: member.code.clone(), fault };
            let code: BureauCode = member.code.parse().map_err(|_| fault(MemberFault::Code))?;
            if code.as_str() == ROSTER_SIGNER {
                return Err(fault(MemberFault::Code));
            }
            let parsed = Member::from_wire(member).map_err(fault)?;
            if !parsed.keys.keys().all(|id| key_ids.insert(*id)) {
                return Err(fault(MemberFault::KeyTwice));
            }
            if members.insert(code, parsed).is_some() {
                return Err(fault(MemberFault::Twice));
            }
        }
        for (code, member) in &members {
            if !member.via.iter().all(|hub| members.contains_key(hub)) {
                let code = code.to_string();
                return Err(RosterError::Member { code, fault: MemberFault::Via });
            }
        }
        Ok(Self { network: network.clone(), serial: roster.serial, issued, expires, members })
    }

    /// The network's name.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// Its serial.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// When it was issued.
    #[must_use]
    pub const fn issued(&self) -> Timestamp {
        self.issued
    }

    /// When it stops being fresh.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// All members, by code.
    pub fn members(&self) -> impl Iterator<Item = (&BureauCode, &Member)> {
        self.members.iter()
    }

    /// A member that is not suspended.
    ///
    /// # Errors
    /// [`Reason::UnknownBureau`].
    pub fn member(&self, code: &BureauCode) -> Result<&Member, Reason> {
        self.members.get(code).filter(|member| !member.suspended).ok_or(Reason::UnknownBureau)
    }

    /// The key a member may have signed with, judged now. A retired key is accepted one longest
    /// lifetime longer, for what is still on its way; a revoked one never.
    ///
    /// # Errors
    /// [`Reason::UnknownBureau`], [`Reason::UnknownKey`], [`Reason::KeyNotValid`].
    pub fn signing_key(
        &self,
        code: &BureauCode,
        id: KeyId,
        now: Timestamp,
    ) -> Result<&PublicKey, Reason> {
        let key = self.member(code)?.keys.get(&id).ok_or(Reason::UnknownKey)?;
        let last = key.valid_until.plus_ms(Limits::default().lifetime_ms);
        if key.revoked || now < key.valid_from || now > last {
            return Err(Reason::KeyNotValid);
        }
        key.public.as_ref().ok_or(Reason::KeyNotValid)
    }

    /// The key that something may be sealed with for a member now: of several, the one that is good
    /// for longest.
    ///
    /// # Errors
    /// [`Reason::UnknownBureau`], [`Reason::NoSealingKey`].
    pub fn sealing_key(&self, code: &BureauCode, now: Timestamp) -> Result<[u8; 32], Reason> {
        let good = |key: &&Key| !key.revoked && now >= key.valid_from && now <= key.valid_until;
        let keys = self.member(code)?.keys.values().filter(good);
        let keys = keys.filter_map(|key| Some((key.valid_until, key.sealing?)));
        keys.max().map(|(_, key)| key).ok_or(Reason::NoSealingKey)
    }

    /// Whether a member may sign with this key now: what a node asks of its own key at its start.
    ///
    /// # Errors
    /// As [`Self::signing_key`]; a retired key is [`Reason::KeyNotValid`].
    pub fn may_sign(&self, code: &BureauCode, id: KeyId, now: Timestamp) -> Result<(), Reason> {
        self.signing_key(code, id, now)?;
        let retired = self.member(code)?.keys.get(&id).is_none_or(|key| now > key.valid_until);
        if retired { Err(Reason::KeyNotValid) } else { Ok(()) }
    }
}

impl Member {
    fn from_wire(member: &wire::Member) -> Result<Self, MemberFault> {
        check_line(&member.name, BUREAU_NAME_CHARS_MAX).map_err(|_| MemberFault::Name)?;
        let mut keys = BTreeMap::new();
        for key in &member.keys {
            if keys.insert(KeyId::of(&key.public_key), Key::from_wire(key)?).is_some() {
                return Err(MemberFault::KeyTwice);
            }
        }
        let mut nodes = BTreeMap::new();
        for node in &member.nodes {
            let name = node.name.parse().map_err(|_| MemberFault::Node)?;
            if !node.addresses.iter().all(|address| is_address(address)) {
                return Err(MemberFault::Address);
            }
            if nodes.insert(name, node.addresses.clone()).is_some() {
                return Err(MemberFault::NodeTwice);
            }
        }
        let via = member.via.iter().map(|hub| hub.parse().map_err(|_| MemberFault::Via));
        Ok(Self {
            name: member.name.clone(),
            nodes,
            relay: member.relay,
            via: via.collect::<Result<_, _>>()?,
            suspended: member.suspended,
            keys,
        })
    }
}

impl Key {
    fn from_wire(key: &wire::MemberKey) -> Result<Self, MemberFault> {
        let valid_from = Timestamp::from_wire(key.valid_from_time.as_ref());
        let valid_until = Timestamp::from_wire(key.valid_until_time.as_ref());
        let (Some(valid_from), Some(valid_until)) = (valid_from, valid_until) else {
            return Err(MemberFault::Window);
        };
        if valid_until < valid_from {
            return Err(MemberFault::Window);
        }
        // Keys of other uses and suites are other things than points of this curve. A roster that
        // lists some for newer nodes must not be refused for them.
        let signs =
            key.suite() == wire::SignatureSuite::Ed25519 && key.r#use() == wire::KeyUse::Sign;
        let public = signs.then(|| PublicKey::from_bytes(&key.public_key)).transpose()?;
        let seals = key.kem_suite() == wire::KemSuite::X25519HkdfSha256
            && key.r#use() == wire::KeyUse::Seal;
        let sealing =
            seals.then(|| key.public_key.as_ref().try_into().map_err(|_| KeyError::NotAPoint));
        let sealing = sealing.transpose()?;
        let revoked = key.revoke_time.is_some();
        Ok(Self { public, sealing, valid_from, valid_until, revoked })
    }
}

/// A [`wire::SignedRoster`] with its signatures still encoded, so that they can be counted first.
#[derive(Clone, PartialEq, prost::Message)]
struct OpaqueSignedRoster {
    #[prost(bytes = "bytes", tag = "1")]
    roster: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    attestations: Vec<Bytes>,
}

/// The trusted root key that made one signature of a roster. `None` where it is not good: others
/// may be.
fn root_signer(
    roster: &Bytes,
    attestation: &Bytes,
    network: &NetworkName,
    anchor: &Anchor,
) -> Option<KeyId> {
    if attestation.len() > SIGNATURE_BYTES_MAX {
        return None;
    }
    let attestation = wire::Attestation::decode(attestation.clone()).ok()?;
    let root = attestation.root.as_ref()?;
    if root.bureau != ROSTER_SIGNER || root.suite() != wire::SignatureSuite::Ed25519 {
        return None;
    }
    let key = anchor.keys.iter().find(|key| key.id().0 == root.key_id.as_ref())?;
    let claim = lead_to_root(network, Context::Roster, roster, &attestation)?;
    claim.check(key).ok()?;
    Some(key.id())
}

/// Whether a text can be an address: it is dialed, shown and logged.
fn is_address(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.len() <= ADDRESS_BYTES_MAX
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && host.bytes().all(good) && port.parse::<u16>().is_ok()
        })
}
