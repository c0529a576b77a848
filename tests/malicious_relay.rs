//! A relay that is not to be trusted, between two real nodes: the hub's own certificate and key, in
//! hostile hands. It drops, delays, reorders, duplicates, alters, replays, withholds and lies. Nothing
//! altered or forged is ever accepted, nothing arrives twice, and what it withholds is noticed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;
#[path = "malicious_relay/relay.rs"]
mod relay;

use std::collections::BTreeMap;

use bureau_core::receipt::{ReceiptKind, Statement};
use bureau_proto::{
    desk::v1::DeliveryState,
    envelope::v1 as envelope,
    link::v1::{self as wire, frame::Kind},
};
use bytes::Bytes;
use harness::Network;
use prost::Message as _;
use relay::{ENDS, Mischief, Relay, Scene, slip_of, statement};

fn as_it_is(text: String) -> String {
    text
}

/// The signers of the receipts of a kind that FR keeps for a message.
async fn signers(network: &Network, id: &str, kind: ReceiptKind) -> Vec<String> {
    let track = network.desk("FR").track(id).await;
    let receipts = track.recipients.into_iter().flat_map(|status| status.receipts);
    receipts.filter(|receipt| receipt.kind() == kind).map(|receipt| receipt.signer).collect()
}

struct Honest;

impl Mischief for Honest {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        relay.pass_on(&parcel);
    }
}

/// Everything three times, receipts too; and the last first.
#[derive(Default)]
struct DuplicatesAndReorders {
    parcels: Vec<wire::Parcel>,
    receipts: Vec<Bytes>,
}

impl Mischief for DuplicatesAndReorders {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        self.parcels.push(parcel);
    }

    fn receipt(&mut self, _relay: &mut Relay, receipt: Bytes) {
        self.receipts.push(receipt);
    }

    fn idle(&mut self, relay: &mut Relay) {
        let (parcels, receipts) =
            (std::mem::take(&mut self.parcels), std::mem::take(&mut self.receipts));
        for _ in 0..3 {
            parcels.iter().rev().for_each(|parcel| relay.pass_on(parcel));
            receipts.iter().rev().for_each(|receipt| relay.tell_origin(receipt.clone()));
        }
    }
}

#[tokio::test]
async fn duplicated_and_reordered_it_arrives_once() {
    let mut scene = Scene::begin(as_it_is).await;
    scene.with(DuplicatesAndReorders::default()).await;
    let sent = scene.send(40, &["KE", "BR"]).await;
    scene.arrived("KE", &sent).await;
    scene.arrived("BR", &sent).await;
    let desk = scene.network.desk("FR");
    for id in sent.keys() {
        desk.tracked(id, "KE", DeliveryState::Delivered).await;
        desk.tracked(id, "BR", DeliveryState::Delivered).await;
        assert_eq!(signers(&scene.network, id, ReceiptKind::Delivered).await, ["BR", "KE"]);
    }
    // All of it once more, to whom it is not for as well.
    scene.only("KE", &sent).await;
    scene.only("BR", &sent).await;
}

/// Changes what it can: body, manifest, slip, the recipient; mixes parts of two messages.
#[derive(Default)]
struct Alters {
    before: Option<wire::Parcel>,
    turn: usize,
}

impl Mischief for Alters {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        let slips = parcel.slips.clone();
        // At many places of envelope and slip, one bit each.
        for step in 0..16 {
            let mut altered = parcel.clone();
            let mut bytes = altered.envelope.to_vec();
            let place = (self.turn * 31 + step * 97) % bytes.len();
            bytes[place] ^= 1 << (step % 8);
            altered.envelope = bytes.into();
            self.deliver(relay, &altered, "KE");
            let mut bytes = slips[0].to_vec();
            let place = (self.turn * 17 + step * 41) % bytes.len();
            bytes[place] ^= 1 << (step % 8);
            self.deliver(
                relay,
                &wire::Parcel { slips: vec![bytes.into()], ..parcel.clone() },
                "KE",
            );
        }
        // KE's message for BR, and with another message's slip.
        self.deliver(relay, &parcel, "BR");
        if let Some(before) = &self.before {
            let mixed = wire::Parcel { slips: before.slips.clone(), ..parcel.clone() };
            self.deliver(relay, &mixed, "KE");
            let signed = |parcel: &wire::Parcel| {
                envelope::Envelope::decode(parcel.envelope.clone()).unwrap()
            };
            let body = envelope::Envelope { body: signed(before).body, ..signed(&parcel) };
            let swapped = wire::Parcel { envelope: body.encode_to_vec().into(), ..parcel.clone() };
            self.deliver(relay, &swapped, "KE");
        }
        // A message of its own, in FR's name: signed with the wrong key.
        let body = harness::peer::body("forged");
        let manifest =
            bureau_core::Manifest { origin: "FR".parse().unwrap(), ..relay.actor.manifest(&body) };
        let (envelope, forged) = relay.actor.sign(manifest, body, &["KE"]);
        self.deliver(relay, &harness::peer::parcel(0, &envelope, &forged), "KE");
        self.before = Some(parcel);
        self.turn += 1;
    }
}

impl Alters {
    fn deliver(&self, relay: &mut Relay, parcel: &wire::Parcel, to: &str) {
        relay.parcels += 1;
        let parcel = wire::Parcel { number: relay.parcels, hops: 2, ..parcel.clone() };
        relay.out.push((to.to_owned(), Kind::Parcel(parcel)));
    }
}

#[tokio::test]
async fn nothing_altered_or_forged_is_taken_and_the_true_one_still_is() {
    let mut scene = Scene::begin(as_it_is).await;
    scene.with(Alters::default()).await;
    let sent = scene.send(10, &["KE"]).await;
    let desk = scene.network.desk("FR");
    for id in sent.keys() {
        desk.tracked(id, "KE", DeliveryState::Relayed).await;
    }
    // A last true message behind all the false ones shows that they were judged.
    let honest = BTreeMap::from([(desk.send(&["BR"], "the last").await, "the last".to_owned())]);
    scene.network.logged("KE", &["parcel_rejected", "peer=IPSG"]).await;
    scene.with(Honest).await;
    let last = scene.send(1, &["KE", "BR"]).await;
    scene.arrived("KE", &last).await;
    let all: BTreeMap<_, _> = honest.into_iter().chain(last).collect();
    let delivered = |scene: &Scene| scene.network.log("KE").matches("message_delivered").count();
    assert_eq!(delivered(&scene), 1, "an altered one was taken");
    scene.only("BR", &all).await;
    assert!(!scene.network.log("KE").contains("forged"));
}

/// Keeps everything that went through, and gives all of it to everybody again.
#[derive(Default)]
struct Replays {
    seen: Vec<wire::Parcel>,
    receipts: Vec<Bytes>,
    again: bool,
}

impl Mischief for Replays {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        relay.pass_on(&parcel);
        self.seen.push(parcel);
    }

    fn receipt(&mut self, relay: &mut Relay, receipt: Bytes) {
        relay.tell_origin(receipt.clone());
        self.receipts.push(receipt);
    }

    fn idle(&mut self, relay: &mut Relay) {
        if self.again {
            self.again = false;
            self.seen.iter().for_each(|parcel| relay.pass_on(parcel));
            self.receipts.iter().for_each(|receipt| relay.tell_origin(receipt.clone()));
        }
    }
}

#[tokio::test]
async fn what_is_replayed_after_a_restart_changes_nothing() {
    let mut scene = Scene::begin(as_it_is).await;
    let (share, taken) = std::sync::mpsc::channel();
    scene.with(Shares { inner: Replays::default(), share }).await;
    let sent = scene.send(5, &["KE", "BR"]).await;
    scene.arrived("KE", &sent).await;
    scene.arrived("BR", &sent).await;
    let ids: Vec<_> = sent.keys().map(String::as_str).collect();
    scene.network.desk("KE").acknowledge(&ids).await.unwrap();
    for id in &ids {
        scene.network.desk("FR").tracked(id, "KE", DeliveryState::Acknowledged).await;
        scene.network.desk("FR").tracked(id, "BR", DeliveryState::Delivered).await;
    }
    scene.without().await;
    let (seen, receipts) = taken.recv().unwrap();
    for end in ENDS {
        scene.network.kill(end);
        scene.network.start(end).await;
    }
    scene.with(Replays { seen, receipts, again: true }).await;
    // A true message behind all that is old.
    let last = scene.send(1, &["KE", "BR"]).await;
    scene.arrived("KE", &last).await;
    let all: BTreeMap<_, _> = sent.clone().into_iter().chain(last).collect();
    scene.arrived("BR", &all).await;
    for id in &ids {
        scene.network.desk("FR").tracked(id, "KE", DeliveryState::Acknowledged).await;
    }
}

/// Gives what it has seen away at its end.
struct Shares {
    inner: Replays,
    share: std::sync::mpsc::Sender<(Vec<wire::Parcel>, Vec<Bytes>)>,
}

impl Mischief for Shares {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        self.inner.parcel(relay, parcel);
    }

    fn receipt(&mut self, relay: &mut Relay, receipt: Bytes) {
        self.inner.receipt(relay, receipt);
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let Replays { seen, receipts, .. } = std::mem::take(&mut self.inner);
        // Nobody asks where a test failed.
        self.share.send((seen, receipts)).ok();
    }
}

/// Says of every message for KE that it has arrived, was taken by a desk, has expired; in its own
/// name and in KE's, and keeps the message.
struct Lies;

impl Mischief for Lies {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        let actor = &relay.actor;
        let mut lies = Vec::new();
        for slip in &parcel.slips {
            for kind in [
                ReceiptKind::Delivered,
                ReceiptKind::Acknowledged,
                ReceiptKind::Expired,
                ReceiptKind::Refused,
            ] {
                for signer in ["IPSG", "KE"] {
                    let lie = statement(actor, kind, slip);
                    lies.push(Statement { signer: signer.parse().unwrap(), ..lie });
                }
            }
        }
        // What KE has signed of another message is not of this one.
        for lie in lies.into_iter().filter(|lie| lie.kind != ReceiptKind::Refused) {
            let receipt = relay.sign(lie);
            relay.tell_origin(receipt);
        }
        relay.take_custody(&parcel);
    }
}

#[tokio::test]
async fn no_lie_in_a_receipt_ends_a_message_and_its_holder_is_named() {
    let overdue =
        |text: String| text.replace("[links]\n", "") + "\n[links]\ncustody_overdue_ms = 1_500\n";
    let mut scene = Scene::begin(overdue).await;
    scene.with(Lies).await;
    let sent = scene.send(3, &["KE"]).await;
    for id in sent.keys() {
        let words = ["custody_overdue", &format!("message={id}"), "recipient=KE", "holder=IPSG"];
        scene.network.logged("FR", &words).await;
        let track = scene.network.desk("FR").track(id).await;
        assert!(
            matches!(track.recipients[0].state(), DeliveryState::Queued | DeliveryState::Relayed),
            "{track:?}"
        );
        assert!(signers(&scene.network, id, ReceiptKind::Delivered).await.is_empty());
        assert!(signers(&scene.network, id, ReceiptKind::Expired).await.is_empty());
    }
    assert_eq!(scene.network.desk("KE").inbox().await, []);
    // In honest hands again it arrives, though custody was given before.
    scene.with(Honest).await;
    scene.arrived("KE", &sent).await;
}

/// Withholds what is for KE, and nothing else.
struct WithholdsOne;

impl Mischief for WithholdsOne {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        let slips = parcel.slips.iter().filter(|slip| slip_of(slip).recipient != "KE");
        relay.pass_on(&wire::Parcel { slips: slips.cloned().collect(), ..parcel.clone() });
    }
}

#[tokio::test]
async fn who_withholds_one_recipients_messages_is_found_every_time() {
    let overdue = |text: String| text + "\n[links]\ncustody_overdue_ms = 1_500\n";
    let mut scene = Scene::begin(overdue).await;
    scene.with(WithholdsOne).await;
    let sent = scene.send(5, &["KE", "BR"]).await;
    scene.arrived("BR", &sent).await;
    for id in sent.keys() {
        let words = ["custody_overdue", &format!("message={id}"), "recipient=KE", "holder=IPSG"];
        scene.network.logged("FR", &words).await;
    }
    let log = scene.network.log("FR");
    let mut overdue = log.lines().filter(|line| line.contains("custody_overdue"));
    assert!(overdue.all(|line| line.contains("recipient=KE")), "BR's were not withheld");
    scene.with(Honest).await;
    scene.arrived("KE", &sent).await;
    scene.only("BR", &sent).await;
}

/// Takes custody and holds each message back until its origin sends it again; then both go on.
#[derive(Default)]
struct Delays {
    held: Vec<wire::Parcel>,
}

impl Mischief for Delays {
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel) {
        relay.take_custody(&parcel);
        match self.held.iter().position(|held| held.slips == parcel.slips) {
            Some(first) => {
                relay.pass_on(&self.held.remove(first));
                relay.pass_on(&parcel);
            }
            None => self.held.push(parcel),
        }
    }
}

#[tokio::test]
async fn what_was_delayed_and_sent_again_arrives_once() {
    let overdue = |text: String| text + "\n[links]\ncustody_overdue_ms = 1_500\n";
    let mut scene = Scene::begin(overdue).await;
    scene.with(Delays::default()).await;
    let sent = scene.send(5, &["KE"]).await;
    for id in sent.keys() {
        scene.network.logged("FR", &["custody_overdue", &format!("message={id}")]).await;
    }
    scene.arrived("KE", &sent).await;
    let desk = scene.network.desk("FR");
    for id in sent.keys() {
        desk.tracked(id, "KE", DeliveryState::Delivered).await;
    }
    scene.only("KE", &sent).await;
}
