//! A small network: FR, KE, BR and the hub IPSG, with keys and a roster.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "a fixture: tests fail by panicking, and not every test uses every part"
)]

use std::{collections::BTreeMap, sync::Arc};

use bureau_core::{
    BureauCode, Envelope, Epoch, Lane, Limits, Manifest, MessageId, NetworkName, Receipt, Roster,
    Signer, SigningKey, Slip, Timestamp, Verified, Verifier,
    envelope::{Content, HandlingCode, Kind, SealingSuite},
    receipt::{ReceiptKind, Statement},
    roster::{self, Anchor},
    slip::{Count, Label},
};
use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use prost::Message as _;

pub const NOW: i64 = 1_800_000_000_000;
pub const DAY: i64 = 24 * 3600 * 1000;

pub fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(NOW + ms)
}

pub struct Network {
    pub name: NetworkName,
    pub root: SigningKey,
    pub signers: BTreeMap<&'static str, Signer>,
    pub members: Vec<wire::Member>,
    pub verifier: Verifier,
}

pub fn code(text: &str) -> BureauCode {
    text.parse().unwrap()
}

/// The same key for a seed every time.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub fn member(code: &str, seed: u8) -> wire::Member {
    let public = key(seed).public();
    wire::Member {
        code: code.to_owned(),
        name: code.to_owned(),
        keys: vec![wire::MemberKey {
            public_key: Bytes::copy_from_slice(public.as_bytes()),
            suite: wire::SignatureSuite::Ed25519.into(),
            r#use: wire::KeyUse::Sign.into(),
            valid_from_time: Some(at(-DAY).to_wire()),
            valid_until_time: Some(at(365 * DAY).to_wire()),
            revoke_time: None,
            kem_suite: 0,
        }],
        nodes: vec![wire::MemberNode { name: "node-1".to_owned(), addresses: Vec::new() }],
        ..wire::Member::default()
    }
}

pub fn roster_of(name: &NetworkName, members: Vec<wire::Member>) -> wire::Roster {
    wire::Roster {
        format: 1,
        network: name.to_string(),
        serial: 1,
        issue_time: Some(at(-DAY).to_wire()),
        expire_time: Some(at(30 * DAY).to_wire()),
        members,
        root_keys: Vec::new(),
        threshold: 1,
    }
}

impl Network {
    pub fn new() -> Self {
        let members = [("BR", 1), ("FR", 2), ("IPSG", 3), ("KE", 4)];
        Self::with(members.iter().map(|(code, seed)| member(code, *seed)).collect())
    }

    pub fn with(members: Vec<wire::Member>) -> Self {
        let name: NetworkName = "test.example".parse().unwrap();
        let signers = [("BR", 1), ("FR", 2), ("IPSG", 3), ("KE", 4)];
        let signer = |(bureau, seed): (&'static str, u8)| {
            (bureau, Signer::new(name.clone(), code(bureau), key(seed)))
        };
        let signers = signers.into_iter().map(signer).collect();
        let root = key(99);
        let wire = roster_of(&name, members.clone());
        let signed = roster::sign(&wire, &name, vec![key(99)]).unwrap();
        let anchor = Anchor { keys: vec![root.public()], threshold: 1 };
        let roster = Roster::verify(signed, &name, &anchor).unwrap();
        let verifier = Verifier::new(Arc::new(roster), Limits::default());
        Self { name, root, signers, members, verifier }
    }

    pub fn manifest(&self, origin: &str, body: &[u8]) -> Manifest {
        Manifest {
            origin: code(origin),
            key_id: self.signers[origin].public().id(),
            kind: Kind::Message,
            lane: Lane::Priority,
            created: at(0),
            expires: at(DAY),
            nonce: [5; 16],
            suite: SealingSuite::Open,
            exercise: false,
            handling: HandlingCode::H2,
            body: Content::of(body),
            attachments: Vec::new(),
            key_commitment: Bytes::new(),
        }
    }

    pub fn label(&self, message: MessageId, recipient: &str) -> Label {
        Label {
            message,
            recipient: code(recipient),
            lane: Lane::Priority,
            origin_epoch: Epoch([7; 16]),
            suite: SealingSuite::Open,
            private: Count { sequence: 2, previous: Some([9; 32]) }.encode(),
            encapsulation: Bytes::new(),
        }
    }

    pub fn statement(&self, kind: ReceiptKind, slip: &Slip, signer: &str) -> Statement {
        Statement {
            kind,
            message: slip.label().message,
            recipient: slip.label().recipient,
            slip: slip.digest(),
            signer: code(signer),
            signer_epoch: Epoch([8; 16]),
            time: at(1000),
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        }
    }

    /// An envelope of an origin with a slip for a recipient, in a group of so many.
    pub fn send(
        &self,
        origin: &str,
        recipient: &str,
        manifest: Manifest,
        body: Bytes,
        group_size: usize,
    ) -> (Verified<Envelope>, Verified<Slip>) {
        let mut group = self.signers[origin].group();
        let envelope = group.add(Envelope::new(&self.name, manifest, body));
        let label = self.label(envelope.item().id(), recipient);
        let slip = group.add(Slip::new(&self.name, label));
        while group.len() < group_size {
            let other = self.manifest(origin, &group.len().to_be_bytes());
            group.add(Envelope::new(&self.name, other, Bytes::new()));
        }
        let mut signed = group.sign().unwrap();
        (signed.take(envelope).unwrap(), signed.take(slip).unwrap())
    }

    /// A plain one from FR to KE.
    pub fn message(&self, text: &str, group_size: usize) -> (Verified<Envelope>, Verified<Slip>) {
        let body = Bytes::from(text.to_owned());
        self.send("FR", "KE", self.manifest("FR", &body), body, group_size)
    }

    pub fn receipt(&self, signer: &str, statement: Statement) -> Verified<Receipt> {
        let mut group = self.signers[signer].group();
        let ticket = group.add(Receipt::new(statement));
        group.sign().unwrap().take(ticket).unwrap()
    }

    /// Signs bytes that no constructor would make.
    pub fn sign_raw(&self, signer: &str, context: bureau_core::Context, payload: Bytes) -> Bytes {
        let attested = self.signers[signer].attest(&[(context, payload.clone())]).unwrap();
        let attestation = attested.into_iter().next();
        wire::Signed { payload, attestation }.encode_to_vec().into()
    }
}
