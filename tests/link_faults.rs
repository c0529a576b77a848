//! What a peer must not say: greetings of somebody else, frames that are none, and receipts that
//! are not its to give.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use bureau_core::{
    Context, Epoch, MessageId, Receipt,
    receipt::{ReceiptKind, Statement},
    signing,
};
use bureau_proto::{
    desk::v1::DeliveryState,
    envelope::v1 as envelope,
    link::v1::{self as wire, frame::Kind},
};
use bytes::Bytes;
use harness::{
    Network, Program,
    peer::{Actor, Link, now},
};
use prost::Message as _;

async fn network(node: &str) -> (Network, Actor) {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["BR", "FR", "KE"], "IPSG");
    network.start(node).await;
    let actor = Actor::of(&network.home("BR"));
    (network, actor)
}

/// The reason that the node says goodbye with.
async fn bye(link: &mut Link) -> String {
    loop {
        match link.next().await {
            Some(Kind::Bye(bye)) => return bye.reason,
            Some(_) => {}
            None => return "no goodbye".to_owned(),
        }
    }
}

#[tokio::test]
async fn a_greeting_must_be_the_certificates_own_and_in_time() {
    let (network, actor) = network("KE").await;
    let home = network.home("KE");
    let mut silent = actor.dial(&home, "KE").await.unwrap();

    let good = || actor.hello();
    let at = |ms: i64| wire::Hello { time: Some(now().plus_ms(ms).to_wire()), ..good() };
    let greetings = [
        ("WRONG_BUREAU", wire::Hello { bureau: "FR".to_owned(), ..good() }),
        ("WRONG_BUREAU", wire::Hello { bureau: "KE".to_owned(), ..good() }),
        ("WRONG_BUREAU", wire::Hello { bureau: String::new(), ..good() }),
        ("WRONG_BUREAU", wire::Hello { node: "br-2".to_owned(), ..good() }),
        (
            "VERSION_UNSUPPORTED",
            wire::Hello { protocol_version_max: 9, protocol_version_min: 2, ..good() },
        ),
        ("VERSION_UNSUPPORTED", wire::Hello::default()),
        ("CLOCK_SKEW", at(6 * 60_000)),
        ("CLOCK_SKEW", at(-6 * 60_000)),
        ("MALFORMED", wire::Hello { time: None, ..good() }),
        ("MALFORMED", wire::Hello { epoch: vec![1; 15].into(), ..good() }),
    ];
    for (reason, hello) in greetings {
        let mut link = actor.dial(&home, "KE").await.unwrap();
        link.send(Kind::Hello(hello)).await;
        assert_eq!(bye(&mut link).await, reason);
        network.logged("KE", &["link_refused", "peer=BR", reason]).await;
    }
    network.logged("KE", &["clock_skew", "peer=BR"]).await;
    let parcel = || Kind::Parcel(actor.parcel(1, "too early", &["KE"]));
    let early = [parcel(), Kind::Ping(wire::Ping { number: 1 }), Kind::Roster(Bytes::new())];
    for first in early {
        let mut link = actor.dial(&home, "KE").await.unwrap();
        link.send(first).await;
        assert_eq!(bye(&mut link).await, "PROTOCOL_VIOLATION");
    }
    // A clock that is off by less, and versions that are newer too, are no faults.
    let hello = wire::Hello { protocol_version_max: 9, ..at(4 * 60_000) };
    let mut link = actor.dial(&home, "KE").await.unwrap();
    link.send(Kind::Hello(hello)).await;
    assert!(matches!(link.next().await, Some(Kind::Hello(_))));
    assert_eq!(link.offer(actor.parcel(1, "a good one", &["KE"])).await, "DELIVERED");
    link.send(Kind::Hello(good())).await;
    assert_eq!(bye(&mut link).await, "PROTOCOL_VIOLATION");

    assert_eq!(bye(&mut silent).await, "STALLED");
    assert_eq!(network.desk("KE").inbox().await.len(), 1, "only the good one was taken");
}

#[tokio::test]
async fn a_frame_too_large_ends_the_link_and_the_next_one_works() {
    let (network, actor) = network("KE").await;
    let mut link = actor.link(&network.home("KE"), "KE").await;
    let parcel = wire::Parcel {
        number: 1,
        envelope: vec![7; 5 << 20].into(),
        slips: vec![Bytes::from_static(b"x")],
        hops: 1,
        refills: 0,
    };
    link.send(Kind::Parcel(parcel)).await;
    assert_eq!(bye(&mut link).await, "TOO_LARGE");
    let mut link = actor.link(&network.home("KE"), "KE").await;
    assert_eq!(link.offer(actor.parcel(1, "a good one", &["KE"])).await, "DELIVERED");
}

/// The slip of the same message for another recipient. Under suite OPEN all that stands in the
/// first one can be guessed; a hostile recipient does.
fn slip_of(actor: &Actor, own: &envelope::Slip, recipient: &str) -> [u8; 32] {
    let slip = envelope::Slip { recipient: recipient.to_owned(), ..own.clone() };
    signing::digest(&actor.network, Context::Slip, &slip.encode_to_vec())
}

fn statement(kind: ReceiptKind, slip: &envelope::Slip, digest: [u8; 32]) -> Statement {
    Statement {
        kind,
        message: MessageId::from_bytes(&slip.message_id).unwrap(),
        recipient: slip.recipient.parse().unwrap(),
        slip: digest,
        signer: "BR".parse().unwrap(),
        signer_epoch: Epoch([7; 16]),
        time: now(),
        reason: String::new(),
        advice: String::new(),
        previous_hop: None,
        next_hop: None,
        desk: None,
    }
}

fn sign(actor: &Actor, statement: Statement) -> Bytes {
    let mut group = actor.signer.group();
    let ticket = group.add(Receipt::new(statement));
    group.sign().unwrap().take(ticket).unwrap().encode()
}

/// Every receipt that BR, a mere recipient, must not be believed.
fn forgeries(actor: &Actor, own: &envelope::Slip) -> Vec<(&'static str, Bytes)> {
    use ReceiptKind::{Acknowledged, Custody, Delivered, Expired, PassedOn, Refused};
    let ke = envelope::Slip { recipient: "KE".to_owned(), ..own.clone() };
    let digest = slip_of(actor, own, "KE");
    let of_ke = |kind| statement(kind, &ke, digest);
    let in_its_name = |kind| Statement { signer: "KE".parse().unwrap(), ..of_ke(kind) };
    let own_digest = slip_of(actor, own, "BR");
    let of_own = |kind| statement(kind, own, own_digest);
    let mut forgeries = Vec::new();
    for kind in [Delivered, Acknowledged, Custody, PassedOn, Refused, Expired] {
        forgeries.push(("by BR for KE", sign(actor, of_ke(kind))));
        forgeries.push(("in KE's name", sign(actor, in_its_name(kind))));
    }
    let passed_on = Statement { next_hop: Some("IPSG".parse().unwrap()), ..of_ke(PassedOn) };
    forgeries.push(("by BR for KE", sign(actor, passed_on)));
    let mut named = envelope::Signed::decode(sign(actor, in_its_name(Delivered))).unwrap();
    named.attestation.as_mut().unwrap().root.as_mut().unwrap().bureau = "KE".to_owned();
    forgeries.push(("as if KE had signed", named.encode_to_vec().into()));
    let other_slip = Statement { slip: [9; 32], ..of_own(Delivered) };
    forgeries.push(("of another slip", sign(actor, other_slip)));
    let unknown = Statement { message: MessageId([9; 32]), ..of_own(Delivered) };
    forgeries.push(("of no message", sign(actor, unknown)));
    forgeries.push(("expired in time", sign(actor, of_own(Expired))));
    forgeries.push(("custody of its own", sign(actor, of_own(Custody))));
    let text = Statement { reason: "a\u{1b}[2J".to_owned(), ..of_own(Refused) };
    forgeries.push(("with control characters", sign(actor, text)));
    let good = sign(actor, of_own(Delivered));
    for place in 0..good.len() {
        let mut changed = good.to_vec();
        changed[place] ^= 1;
        forgeries.push(("with a byte changed", changed.into()));
    }
    forgeries.push(("cut short", good.slice(..good.len() - 1)));
    forgeries.push(("empty", Bytes::new()));
    forgeries
}

#[tokio::test]
async fn a_receipt_counts_only_from_who_may_give_it() {
    let (network, actor) = network("FR").await;
    let fr = network.desk("FR");
    let mut link = actor.link(&network.home("FR"), "FR").await;
    let id = fr.send(&["BR", "KE"], "for two").await;
    let parcel = loop {
        if let Some(Kind::Parcel(parcel)) = link.next().await {
            break parcel;
        }
    };
    let slip = envelope::Signed::decode(parcel.slips[0].clone()).unwrap();
    let own = envelope::Slip::decode(slip.payload).unwrap();
    assert_eq!((parcel.slips.len(), own.recipient.as_str()), (1, "BR"));

    let mut number = 0;
    for (what, receipt) in forgeries(&actor, &own) {
        number += 1;
        tell(&mut link, number, receipt).await;
        let track = fr.track(&id).await;
        for recipient in &track.recipients {
            let code = &recipient.recipient;
            assert_eq!(recipient.state(), DeliveryState::Queued, "{code}: {what} ({number})");
            assert_eq!(recipient.receipts, [], "{code}: {what} ({number})");
        }
    }
    network.logged("FR", &["receipt_rejected", "peer=BR"]).await;
    let good = statement(ReceiptKind::Delivered, &own, slip_of(&actor, &own, "BR"));
    tell(&mut link, number + 1, sign(&actor, good)).await;
    let track = fr.tracked(&id, "BR", DeliveryState::Delivered).await;
    let ke = track.recipients.iter().find(|status| status.recipient == "KE").unwrap();
    assert_eq!(ke.state(), DeliveryState::Queued);
    // All that time the link was the same one.
    assert_eq!(network.log("FR").matches("link_up ").count(), 1);
    // What the peer itself signs in the future says that its clock went ahead: that ends the link.
    let good = statement(ReceiptKind::Acknowledged, &own, slip_of(&actor, &own, "BR"));
    let receipts = vec![sign(&actor, Statement { time: now().plus_ms(400_000), ..good })];
    let (number, home) = (number + 2, String::new());
    link.send(Kind::Receipts(wire::ReceiptBatch { number, receipts, home })).await;
    assert_eq!(bye(&mut link).await, "CLOCK_SKEW");
    fr.tracked(&id, "BR", DeliveryState::Delivered).await;
}

/// Sends one receipt and waits until it is taken note of.
async fn tell(link: &mut Link, number: u64, receipt: Bytes) {
    let batch = wire::ReceiptBatch { number, receipts: vec![receipt], home: String::new() };
    link.send(Kind::Receipts(batch)).await;
    loop {
        match link.next().await {
            Some(Kind::ReceiptsTaken(taken)) if taken.number == number => return,
            Some(Kind::Bye(bye)) => panic!("{bye:?}"),
            Some(_) => {}
            None => panic!("the link ended at receipt {number}"),
        }
    }
}
