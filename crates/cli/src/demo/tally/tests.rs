//! Counting, against made-up records with real signatures.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use bureau_core::{
    Epoch, Limits, Receipt, Roster, Signer, SigningKey, Timestamp,
    receipt::Statement,
    roster::{self, Anchor},
};
use bureau_proto::envelope::v1 as wire_envelope;

use super::*;
use crate::demo::ledger::tests::{arrived, sent};

const ID: [u8; 32] = [7; 32];

struct Scene {
    keys: Vec<(&'static str, SigningKey)>,
    verifier: Verifier,
    begin: Instant,
}

impl Scene {
    fn new() -> Self {
        let network = "test.example".parse().unwrap();
        let now = wire::now();
        let (begin, end) = (now.plus_ms(-1000).to_wire(), now.plus_ms(86_400_000).to_wire());
        let keys: Vec<_> =
            ["FR", "KE", "IPSG"].map(|code| (code, SigningKey::generate().unwrap())).into();
        let member = |(code, key): &(&str, SigningKey)| wire_envelope::Member {
            code: (*code).to_owned(),
            keys: vec![wire_envelope::MemberKey {
                public_key: key.public().as_bytes().to_vec().into(),
                suite: wire_envelope::SignatureSuite::Ed25519.into(),
                r#use: wire_envelope::KeyUse::Sign.into(),
                valid_from_time: Some(begin),
                valid_until_time: Some(end),
                revoke_time: None,
                kem_suite: 0,
            }],
            ..wire_envelope::Member::default()
        };
        let roster = wire_envelope::Roster {
            format: 1,
            network: "test.example".to_owned(),
            serial: 1,
            issue_time: Some(begin),
            expire_time: Some(end),
            members: keys.iter().map(member).collect(),
            ..wire_envelope::Roster::default()
        };
        let root = SigningKey::generate().unwrap();
        let anchor = Anchor { keys: vec![root.public()], threshold: 1 };
        let signed = roster::sign(&roster, &network, vec![root]).unwrap();
        let roster = Roster::verify(signed, &network, &anchor).unwrap();
        let verifier = Verifier::new(Arc::new(roster), Limits::default());
        Self { keys, verifier, begin: Instant::now() }
    }

    /// A receipt for KE, as `signer` signs it.
    fn receipt(&self, kind: ReceiptKind, signer: &str) -> ReceiptEntry {
        let (_, key) = self.keys.iter().find(|(code, _)| *code == signer).unwrap();
        let key = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
        let signer = Signer::new("test.example".parse().unwrap(), signer.parse().unwrap(), key);
        let mut group = signer.group();
        let ticket = group.add(Receipt::new(Statement {
            kind,
            message: MessageId(ID),
            recipient: "KE".parse().unwrap(),
            slip: [1; 32],
            signer: group_signer(&signer),
            signer_epoch: Epoch([2; 16]),
            time: Timestamp::from_ms(wire::now().as_ms()),
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        }));
        let signed_receipt = group.sign().unwrap().take(ticket).unwrap().encode();
        ReceiptEntry { kind: kind.into(), signed_receipt, ..ReceiptEntry::default() }
    }

    fn count(&self, records: &Records, receipts: Vec<ReceiptEntry>) -> Tally {
        let status = RecipientStatus {
            recipient: "KE".to_owned(),
            state: DeliveryState::Acknowledged.into(),
            receipts,
            ..RecipientStatus::default()
        };
        let way = TrackResponse { recipients: vec![status], ..TrackResponse::default() };
        let outage = Outage {
            begin: self.begin + Duration::from_secs(10),
            end: self.begin + Duration::from_secs(20),
        };
        let id = MessageId(ID).to_string();
        count(records, &BTreeMap::from([(id, way)]), &self.verifier, outage)
    }

    /// FR sent to KE, and there it came `after` under these numbers.
    fn records(&self, after: Duration, numbers: &[u64]) -> Ledger {
        let ledger = Ledger::default();
        let id = MessageId(ID).to_string();
        ledger.sent(id.clone(), sent(&["KE"], self.begin));
        for number in numbers {
            ledger.arrived("KE", id.clone(), *number, arrived(self.begin + after));
        }
        ledger
    }
}

fn group_signer(signer: &Signer) -> BureauCode {
    let attestation = signer.attest(&[(bureau_core::Context::Receipt, Vec::new().into())]).unwrap();
    attestation[0].root.as_ref().unwrap().bureau.parse().unwrap()
}

#[test]
fn what_came_once_with_its_receipts_is_good() {
    let scene = Scene::new();
    let receipts = vec![
        scene.receipt(ReceiptKind::Delivered, "KE"),
        scene.receipt(ReceiptKind::Acknowledged, "KE"),
    ];
    let ledger = scene.records(Duration::from_millis(5), &[1]);
    let tally = scene.count(&ledger.records(), receipts);
    assert!(tally.is_good(), "{tally:?}");
    assert!((tally.delivery_ms.quantile(0.5) - 5.0).abs() < 0.001);
}

#[test]
fn losses_duplicates_and_missing_receipts_are_bad() {
    let scene = Scene::new();
    let delivered = || scene.receipt(ReceiptKind::Delivered, "KE");
    let both = || vec![delivered(), scene.receipt(ReceiptKind::Acknowledged, "KE")];
    let at = Duration::from_millis(5);
    let lost = scene.count(&scene.records(at, &[]).records(), both());
    assert_eq!((lost.lost(), lost.is_good()), (1, false));
    let twice = scene.count(&scene.records(at, &[1, 2]).records(), both());
    assert_eq!((twice.duplicated, twice.is_good()), (1, false));
    let unproven = scene.count(&scene.records(at, &[1]).records(), vec![delivered()]);
    assert_eq!((unproven.unverified, unproven.is_good()), (1, false));
}

#[test]
fn only_the_recipients_own_signature_proves() {
    let scene = Scene::new();
    let acknowledged = || scene.receipt(ReceiptKind::Acknowledged, "KE");
    let at = Duration::from_millis(5);
    let unverified = |delivered: ReceiptEntry| {
        scene.count(&scene.records(at, &[1]).records(), vec![delivered, acknowledged()]).unverified
    };
    assert_eq!(unverified(scene.receipt(ReceiptKind::Delivered, "KE")), 0);
    assert_eq!(unverified(scene.receipt(ReceiptKind::Delivered, "IPSG")), 1);
    // What the node says beside the signed bytes counts for nothing.
    let mut other_kind = scene.receipt(ReceiptKind::Custody, "KE");
    other_kind.kind = ReceiptKind::Delivered.into();
    assert_eq!(unverified(other_kind), 1);
    let mut torn = scene.receipt(ReceiptKind::Delivered, "KE");
    torn.signed_receipt = torn.signed_receipt.slice(1..);
    assert_eq!(unverified(torn), 1);
}

#[test]
fn the_outage_is_left_out_of_the_latencies() {
    let scene = Scene::new();
    let counted = |after| {
        let ledger = scene.records(after, &[1]);
        let tally = scene.count(&ledger.records(), Vec::new());
        tally.delivery_ms.len()
    };
    assert_eq!(counted(Duration::from_secs(9)), 1);
    assert_eq!(counted(Duration::from_secs(11)), 0);
    assert_eq!(counted(Duration::from_secs(21)), 0);
}

#[test]
fn quantiles_are_values_that_were_seen() {
    let latencies = Latencies::of((1..=100).rev().map(f64::from).collect());
    let seen = [0.0, 0.5, 0.99, 1.0].map(|share| latencies.quantile(share));
    assert_eq!(seen, [1.0, 50.0, 99.0, 100.0]);
    assert!(Latencies::of(Vec::new()).quantile(0.5).abs() < f64::EPSILON);
}
