//! The first roster of a network, signed by its one root key.

use std::collections::BTreeMap;

use bureau_core::{BureauCode, SealingKey, SigningKey, Timestamp, limits::FORMAT, roster};
use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;

use super::{InitError, Plan, plan::Member};

/// From when until when the keys and the roster are good.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
}

/// The keys of a bureau.
pub(super) struct Keys {
    pub(super) signing: SigningKey,
    pub(super) sealing: SealingKey,
}

pub(super) fn signed(
    plan: &Plan,
    keys: &BTreeMap<BureauCode, Keys>,
    root_key: SigningKey,
    now: Timestamp,
    window: Window,
) -> Result<Bytes, InitError> {
    let mut members: Vec<wire::Member> = plan
        .members()
        .iter()
        .map(|member| listed(plan, member, keys.get(&member.code), window))
        .collect();
    members.sort_by(|one, other| one.code.cmp(&other.code));
    let roster = wire::Roster {
        format: FORMAT,
        network: plan.network().to_string(),
        serial: 1,
        issue_time: Some(now.to_wire()),
        expire_time: Some(window.end.to_wire()),
        members,
        root_keys: vec![root_key.public().as_bytes().to_vec().into()],
        threshold: 1,
    };
    Ok(roster::sign(&roster, plan.network(), vec![root_key])?)
}

fn listed(plan: &Plan, member: &Member, keys: Option<&Keys>, window: Window) -> wire::Member {
    let unused = wire::MemberKey {
        valid_from_time: Some(window.begin.to_wire()),
        valid_until_time: Some(window.end.to_wire()),
        ..wire::MemberKey::default()
    };
    let of_member = |keys: &Keys| {
        let signing = wire::MemberKey {
            public_key: keys.signing.public().as_bytes().to_vec().into(),
            suite: wire::SignatureSuite::Ed25519.into(),
            r#use: wire::KeyUse::Sign.into(),
            ..unused.clone()
        };
        let sealing = wire::MemberKey {
            public_key: keys.sealing.public().to_vec().into(),
            kem_suite: wire::KemSuite::X25519HkdfSha256.into(),
            r#use: wire::KeyUse::Seal.into(),
            ..unused.clone()
        };
        vec![signing, sealing]
    };
    wire::Member {
        code: member.code.to_string(),
        name: format!("Bureau {}", member.code),
        keys: keys.map(of_member).unwrap_or_default(),
        nodes: vec![wire::MemberNode {
            name: plan.node(member),
            addresses: vec![format!("127.0.0.1:{}", member.ports.link)],
        }],
        relay: member.hub,
        via: plan.hubs_of(member).map(|hub| hub.to_string()).collect(),
        suspended: false,
    }
}
