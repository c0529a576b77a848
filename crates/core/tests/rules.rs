//! What is refused although its signature is good, and what is accepted.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod network;

use bureau_core::{
    Context, Envelope, Lane, Manifest, Reason, Roster,
    envelope::Content,
    receipt::{ReceiptKind, stored_statement},
    roster::{self, Anchor, RosterError},
};
use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use network::{DAY, Network, at, code, key, member, roster_of};
use prost::Message as _;

fn envelope_reason(network: &Network, manifest: Manifest, body: &'static [u8]) -> Option<Reason> {
    let (envelope, _) = network.send("FR", "KE", manifest, Bytes::from_static(body), 2);
    network.verifier.envelope(envelope.encode(), at(0)).err().map(|refusal| refusal.reason)
}

#[test]
fn what_was_signed_comes_out_as_it_went_in() {
    let network = Network::new();
    let (envelope, slip) = network.message("text", 20);
    let verified = network.verifier.envelope(envelope.encode(), at(0)).unwrap();
    assert_eq!(verified, envelope);
    assert_eq!(network.verifier.slip(slip.encode(), &verified, at(0)).unwrap(), slip);
    let statement = bureau_core::receipt::Statement {
        reason: "NOT_UTF8".to_owned(),
        advice: "send it anew".to_owned(),
        previous_hop: Some(code("IPSG")),
        next_hop: Some(code("BR")),
        desk: Some("night".parse().unwrap()),
        ..network.statement(ReceiptKind::Refused, &slip, "KE")
    };
    let receipt = network.receipt("KE", statement.clone());
    assert_eq!(network.verifier.receipt(receipt.encode(), at(0)).unwrap(), receipt);
    assert_eq!(stored_statement(receipt.encode()).unwrap(), statement);
    let stored = bureau_core::envelope::stored_manifest(envelope.signed_manifest()).unwrap();
    assert_eq!(&stored, envelope.manifest());
    let again = bureau_core::envelope::assemble(envelope.signed_manifest(), "text".into()).unwrap();
    assert_eq!(again, envelope.encode());
}

#[test]
fn times_and_sizes_have_bounds() {
    let network = Network::new();
    let good = || network.manifest("FR", b"x");
    let cases = [
        (Manifest { expires: at(0), ..good() }, Reason::AlreadyExpired),
        (Manifest { created: at(-2 * DAY), expires: at(-1), ..good() }, Reason::AlreadyExpired),
        (Manifest { expires: at(31 * DAY), ..good() }, Reason::LifetimeTooLong),
        (Manifest { created: at(301_000), expires: at(DAY), ..good() }, Reason::CreatedInFuture),
        (
            Manifest { attachments: vec![Content::of(b"a"); 33], ..good() },
            Reason::TooManyAttachments,
        ),
        (
            Manifest { attachments: vec![Content { digest: [1; 32], size: 1 << 40 }], ..good() },
            Reason::AttachmentTooLarge,
        ),
        (
            Manifest { body: Content { digest: [1; 32], size: 1 << 30 }, ..good() },
            Reason::BodyTooLarge,
        ),
        (Manifest { body: Content::of(b"y"), ..good() }, Reason::DigestMismatch),
    ];
    for (manifest, reason) in cases {
        assert_eq!(envelope_reason(&network, manifest, b"x"), Some(reason));
    }
    assert_eq!(envelope_reason(&network, good(), b"x"), None);
    let skewed = Manifest { created: at(299_000), ..good() };
    assert_eq!(envelope_reason(&network, skewed, b"x"), None);
}

#[test]
fn unknown_values_are_refused_and_unknown_fields_are_not() {
    let network = Network::new();
    let encoded = network.manifest("FR", b"x").encode();
    let good = wire::Manifest::decode(encoded.clone()).unwrap();
    let reason = |manifest: Bytes| {
        let signed = network.sign_raw("FR", Context::Manifest, manifest);
        let manifest = Some(wire::Signed::decode(signed).unwrap());
        let envelope = wire::Envelope { manifest, body: "x".into() }.encode_to_vec();
        network.verifier.envelope(envelope.into(), at(0)).err().map(|refusal| refusal.reason)
    };
    let with = |change: fn(&mut wire::Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        reason(manifest.encode_to_vec().into())
    };
    assert_eq!(with(|manifest| manifest.kind = 77), Some(Reason::UnknownKind));
    assert_eq!(with(|manifest| manifest.kind = 0), Some(Reason::UnknownKind));
    assert_eq!(with(|manifest| manifest.lane = 9), Some(Reason::UnknownLane));
    assert_eq!(with(|manifest| manifest.sealing_suite = 9), Some(Reason::UnknownSuite));
    assert_eq!(with(|manifest| manifest.format = 2), Some(Reason::UnknownFormat));
    assert_eq!(with(|manifest| manifest.handling_code = 0), Some(Reason::FieldInvalid));
    assert_eq!(with(|manifest| manifest.nonce.truncate(15)), Some(Reason::Malformed));
    assert_eq!(with(|manifest| manifest.body = None), Some(Reason::FieldMissing));
    assert_eq!(with(|manifest| manifest.origin = "KE".to_owned()), Some(Reason::WrongOrigin));
    assert_eq!(with(|manifest| manifest.create_time = None), Some(Reason::Malformed));
    // Field 1000, as a newer origin may sign it.
    let mut newer = encoded.to_vec();
    newer.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
    assert_eq!(reason(newer.into()), None);
    let huge = [encoded.as_ref(), &[0xc2, 0x3e, 0xff, 0x7f], &[b'x'; 16_383]].concat();
    assert_eq!(reason(huge.into()), Some(Reason::TooLarge));
}

#[test]
fn one_kind_of_thing_is_never_another() {
    let network = Network::new();
    let (envelope, slip) = network.message("text", 2);
    let statement = network.statement(ReceiptKind::Delivered, &slip, "KE");
    let receipt = network.receipt("KE", statement);
    for bytes in [slip.encode(), receipt.encode(), envelope.signed_manifest()] {
        let manifest = wire::Signed::decode(bytes.clone()).ok();
        let shown = wire::Envelope { manifest, body: "text".into() }.encode_to_vec();
        if bytes != envelope.signed_manifest() {
            assert!(network.verifier.envelope(shown.into(), at(0)).is_err());
            let shown = network.verifier.slip(bytes.clone(), &envelope, at(0));
            assert_eq!(shown.is_ok(), bytes == slip.encode());
        }
        assert_eq!(
            network.verifier.receipt(bytes.clone(), at(0)).is_ok(),
            bytes == receipt.encode()
        );
    }
}

#[test]
fn a_slip_belongs_to_its_message_origin_and_lane() {
    let network = Network::new();
    let (envelope, _) = network.message("text", 2);
    let (_, other) = network.message("other", 2);
    let reason = |bytes: Bytes| network.verifier.slip(bytes, &envelope, at(0)).err();
    assert_eq!(reason(other.encode()), Some(Reason::SlipMismatch));
    let sign = |signer: &str, label: bureau_core::slip::Label| {
        let mut group = network.signers[signer].group();
        let ticket = group.add(bureau_core::Slip::new(&network.name, label));
        group.sign().unwrap().take(ticket).unwrap().encode()
    };
    let label = |recipient| network.label(envelope.id(), recipient);
    assert_eq!(reason(sign("FR", label("KE"))), None);
    assert_eq!(reason(sign("BR", label("KE"))), Some(Reason::WrongOrigin));
    assert_eq!(reason(sign("FR", label("FR"))), Some(Reason::SelfRecipient));
    assert_eq!(reason(sign("FR", label("XX"))), Some(Reason::UnknownBureau));
    let flash = bureau_core::slip::Label { lane: Lane::Flash, ..label("KE") };
    assert_eq!(reason(sign("FR", flash)), Some(Reason::LaneMismatch));
}

#[test]
fn receipts_count_only_from_those_who_may_give_them() {
    let network = Network::new();
    let (_, slip) = network.message("text", 2);
    let reason = |signer: &str, kind| {
        let receipt = network.receipt(signer, network.statement(kind, &slip, signer));
        network.verifier.receipt(receipt.encode(), at(0)).err()
    };
    for kind in [ReceiptKind::Delivered, ReceiptKind::Acknowledged] {
        assert_eq!(reason("KE", kind), None);
        assert_eq!(reason("IPSG", kind), Some(Reason::WrongOrigin));
    }
    assert_eq!(reason("IPSG", ReceiptKind::Custody), None);
    // BR signs what says it is KE's.
    let forged = network.receipt("BR", network.statement(ReceiptKind::Delivered, &slip, "KE"));
    let refused = network.verifier.receipt(forged.encode(), at(0));
    assert_eq!(refused.err(), Some(Reason::WrongOrigin));
}

#[test]
fn keys_are_judged_now_and_revoked_ones_never_pass() {
    let windowed = |from: i64, until: i64, revoked: bool| {
        let mut fr = member("FR", 2);
        fr.keys[0].valid_from_time = Some(at(from).to_wire());
        fr.keys[0].valid_until_time = Some(at(until).to_wire());
        fr.keys[0].revoke_time = revoked.then(|| at(-1).to_wire());
        let network = Network::with(vec![fr, member("KE", 4)]);
        envelope_reason(&network, network.manifest("FR", b"x"), b"x")
    };
    assert_eq!(windowed(-DAY, DAY, false), None);
    assert_eq!(windowed(DAY, 2 * DAY, false), Some(Reason::KeyNotValid));
    assert_eq!(windowed(-40 * DAY, -29 * DAY, false), None);
    assert_eq!(windowed(-40 * DAY, -31 * DAY, false), Some(Reason::KeyNotValid));
    assert_eq!(windowed(-DAY, DAY, true), Some(Reason::KeyNotValid));
    let stranger = Network::with(vec![member("FR", 77), member("KE", 4)]);
    let reason = envelope_reason(&stranger, stranger.manifest("FR", b"x"), b"x");
    assert_eq!(reason, Some(Reason::UnknownKey));
    let mut suspended = member("FR", 2);
    suspended.suspended = true;
    let network = Network::with(vec![suspended, member("KE", 4)]);
    let reason = envelope_reason(&network, network.manifest("FR", b"x"), b"x");
    assert_eq!(reason, Some(Reason::UnknownBureau));
}

#[test]
fn a_remembered_root_is_no_pass_for_other_leaves() {
    let network = Network::new();
    let (envelope, _) = network.message("text", 2);
    network.verifier.envelope(envelope.encode(), at(0)).unwrap();
    let mut wire = wire::Envelope::decode(envelope.encode()).unwrap();
    let other = Envelope::new(&network.name, network.manifest("FR", b"other"), "other".into());
    let signed = wire.manifest.as_mut().unwrap();
    signed.payload = other.manifest().encode();
    wire.body = "other".into();
    let refused = network.verifier.envelope(wire.encode_to_vec().into(), at(0)).unwrap_err();
    assert_eq!((refused.reason, refused.authentic), (Reason::BadSignature, None));
}

#[test]
fn a_roster_needs_its_threshold_of_distinct_trusted_keys() {
    let network = Network::new();
    let wire = roster_of(&network.name, network.members.clone());
    let good = |keys: Vec<u8>, trusted: &[u8], threshold| {
        let keys = keys.into_iter().map(key).collect();
        let signed = roster::sign(&wire, &network.name, keys).unwrap();
        let keys = trusted.iter().map(|seed| key(*seed).public()).collect();
        Roster::verify(signed, &network.name, &Anchor { keys, threshold })
    };
    assert!(good(vec![91, 92], &[91, 92, 93], 2).is_ok());
    let short = RosterError::Threshold { good: 1, needed: 2 };
    assert_eq!(good(vec![91, 91], &[91, 92, 93], 2).unwrap_err(), short);
    assert_eq!(good(vec![91, 94], &[91, 92, 93], 2).unwrap_err(), short);
    assert!(good(vec![91], &[], 0).is_err());
    let other: bureau_core::NetworkName = "other.example".parse().unwrap();
    let signed = roster::sign(&wire, &network.name, vec![key(91)]).unwrap();
    let anchor = Anchor { keys: vec![key(91).public()], threshold: 1 };
    assert!(Roster::verify(signed, &other, &anchor).is_err());
    for bad in [vec![member("ROSTER", 1)], vec![member("FR", 1), member("FR", 2)]] {
        let wire = roster_of(&network.name, bad);
        let signed = roster::sign(&wire, &network.name, vec![key(91)]).unwrap();
        assert!(Roster::verify(signed, &network.name, &anchor).is_err());
    }
}
