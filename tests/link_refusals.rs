//! Bad input from a link: BR's node is played by hand, with BR's real certificate and keys,
//! against the real node of KE. Each bad parcel is refused by name and by itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;

use bureau_core::{
    Context, Manifest,
    envelope::{Content, Kind},
    receipt::ReceiptKind,
};
use bureau_proto::{
    desk::v1::DeliveryState,
    envelope::v1 as envelope_wire,
    link::v1::{self as wire, frame},
};
use bytes::Bytes;
use harness::{
    Network, Program,
    peer::{Actor, body, now, parcel},
};
use prost::Message as _;

/// Stands in what is refused; it must be found nowhere afterwards.
const MARKER: &str = "mombasa-5522";

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

async fn ke_and_an_actor() -> (Network, Actor) {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start("KE").await;
    let actor = Actor::of(&network.home("BR"));
    (network, actor)
}

/// A parcel of a changed manifest, well signed.
fn with(actor: &Actor, text: &str, change: impl FnOnce(&mut Manifest)) -> wire::Parcel {
    let body = body(text);
    let mut manifest = actor.manifest(&body);
    change(&mut manifest);
    let (envelope, slips) = actor.sign(manifest, body, &["KE"]);
    parcel(0, &envelope, &slips)
}

/// A parcel whose manifest no constructor would make, well signed.
fn raw(actor: &Actor, change: impl FnOnce(&mut envelope_wire::Manifest)) -> wire::Parcel {
    let good = actor.parcel(0, "raw", &["KE"]);
    let mut envelope = envelope_wire::Envelope::decode(good.envelope.clone()).unwrap();
    let signed = envelope.manifest.as_mut().unwrap();
    let mut manifest = envelope_wire::Manifest::decode(signed.payload.clone()).unwrap();
    change(&mut manifest);
    let payload = Bytes::from(manifest.encode_to_vec());
    let attested = actor.signer.attest(&[(Context::Manifest, payload.clone())]).unwrap();
    *signed = envelope_wire::Signed { payload, attestation: attested.into_iter().next() };
    wire::Parcel { envelope: envelope.encode_to_vec().into(), ..good }
}

fn bad_parcels(actor: &Actor) -> Vec<(&'static str, wire::Parcel)> {
    let good = || actor.parcel(0, MARKER, &["KE"]);
    let changed = |at: usize| {
        let mut bytes = good().envelope.to_vec();
        let at = bytes.len() * at / 10;
        bytes[at] ^= 0x20;
        wire::Parcel { envelope: bytes.into(), ..good() }
    };
    let truncated = good().envelope.slice(..good().envelope.len() / 2);
    let other = actor.parcel(0, &format!("{MARKER} other"), &["KE"]);
    let day_ms = 24 * 3600 * 1000;
    let huge = Bytes::from(vec![b'x'; 1_200_000]);
    let (huge_envelope, huge_slips) = actor.sign(actor.manifest(&huge), huge, &["KE"]);
    vec![
        ("MALFORMED", wire::Parcel { envelope: Bytes::from_static(b"\xff\xff\xff"), ..good() }),
        ("MALFORMED", wire::Parcel { envelope: truncated, ..good() }),
        ("MALFORMED", wire::Parcel { slips: Vec::new(), ..good() }),
        ("MALFORMED", wire::Parcel { slips: vec![Bytes::from_static(b"\x0a\x7f")], ..good() }),
        ("*", changed(1)),
        ("*", changed(4)),
        ("*", changed(9)),
        ("FIELD_MISSING", wire::Parcel { envelope: Bytes::new(), ..good() }),
        ("SLIP_MISMATCH", wire::Parcel { slips: other.slips, ..good() }),
        ("WRONG_RECIPIENT", actor.parcel(0, MARKER, &["FR"])),
        ("SELF_RECIPIENT", actor.parcel(0, MARKER, &["BR"])),
        ("UNKNOWN_BUREAU", actor.parcel(0, MARKER, &["XX"])),
        ("TOO_MANY_HOPS", wire::Parcel { hops: 9, ..good() }),
        ("ALREADY_EXPIRED", with(actor, MARKER, |m| m.expires = now().plus_ms(-1))),
        (
            "CREATED_IN_FUTURE",
            with(actor, MARKER, |m| {
                m.created = now().plus_ms(400_000);
                m.expires = now().plus_ms(800_000);
            }),
        ),
        ("LIFETIME_TOO_LONG", with(actor, MARKER, |m| m.expires = now().plus_ms(31 * day_ms))),
        ("DIGEST_MISMATCH", with(actor, MARKER, |m| m.body = Content::of(b"another"))),
        ("TOO_MANY_ATTACHMENTS", with(actor, MARKER, |m| m.attachments = vec![Content::of(b"a")])),
        ("BODY_TOO_LARGE", parcel(0, &huge_envelope, &huge_slips)),
        ("WRONG_ORIGIN", raw(actor, |m| m.origin = "FR".to_owned())),
        ("UNKNOWN_KIND", raw(actor, |m| m.kind = 77)),
        ("UNKNOWN_SUITE", raw(actor, |m| m.sealing_suite = 77)),
        ("UNKNOWN_LANE", raw(actor, |m| m.lane = 77)),
        ("UNKNOWN_FORMAT", raw(actor, |m| m.format = 2)),
        // The origin's signature is good and the slip is KE's: the refusal is a signed receipt.
        ("REFUSED MALFORMED", {
            let noise = Bytes::from_static(b"\xff\xff");
            let (envelope, slips) = actor.sign(actor.manifest(&noise), noise, &["KE"]);
            parcel(0, &envelope, &slips)
        }),
        ("REFUSED CONTROL_CHARACTERS", actor.parcel(0, &format!("{MARKER}\u{1b}[2J"), &["KE"])),
        ("REFUSED NOT_UTF8", {
            let text = envelope_wire::Body {
                format: 1,
                content: Bytes::from_static(b"\xff\xfe"),
                ..envelope_wire::Body::default()
            };
            let body = Bytes::from(text.encode_to_vec());
            let (envelope, slips) = actor.sign(actor.manifest(&body), body, &["KE"]);
            parcel(0, &envelope, &slips)
        }),
    ]
}

#[tokio::test]
async fn every_bad_parcel_is_refused_by_itself_and_the_line_moves_on() {
    let (network, actor) = ke_and_an_actor().await;
    let mut link = actor.link(&network.home("KE"), "KE").await;
    let mut good = 0;
    for (number, (expected, parcel)) in (1..).step_by(2).zip(bad_parcels(&actor)) {
        let answer = link.offer(wire::Parcel { number, ..parcel }).await;
        let accepted = ["DELIVERED", "CUSTODY"].contains(&answer.as_str());
        assert!(answer == expected || (expected == "*" && !accepted), "{expected}: {answer}");
        let good_one = actor.parcel(number + 1, &format!("good {number}"), &["KE"]);
        assert_eq!(link.offer(good_one).await, "DELIVERED", "after {expected}");
        good += 1;
    }
    let inbox = network.desk("KE").inbox().await;
    assert_eq!(inbox.len(), good);
    assert!(!harness::holds(&network.home("KE").join("data"), MARKER));
    assert!(!network.log("KE").contains(MARKER));
    // A newer origin's unknown field inside what it signed is no fault.
    let newer = raw(&actor, |m| m.kind = Kind::Message.into());
    assert_eq!(link.offer(wire::Parcel { number: 999, ..newer }).await, "DELIVERED");
}

#[tokio::test]
async fn a_repeat_gets_the_same_receipt_and_no_second_place() {
    let (mut network, actor) = ke_and_an_actor().await;
    let mut link = actor.link(&network.home("KE"), "KE").await;
    let parcel = actor.parcel(1, "once", &["KE"]);
    let mut receipts = Vec::new();
    for restart in [false, true] {
        if restart {
            network.kill("KE");
            network.start("KE").await;
            link = actor.link(&network.home("KE"), "KE").await;
        }
        for number in 1..=2 {
            link.send(frame::Kind::Parcel(wire::Parcel { number, ..parcel.clone() })).await;
            let receipt = loop {
                match link.next().await.unwrap() {
                    frame::Kind::Receipts(batch) => break batch.receipts[0].clone(),
                    frame::Kind::Rejection(rejection) => panic!("{rejection:?}"),
                    _ => {}
                }
            };
            receipts.push(receipt);
        }
    }
    assert!(receipts.iter().all(|receipt| *receipt == receipts[0]));
    assert_eq!(network.desk("KE").inbox().await.len(), 1);
}

#[tokio::test]
async fn a_greeting_must_be_true() {
    let (network, actor) = ke_and_an_actor().await;
    let home = network.home("KE");
    let skewed = now().plus_ms(6 * 60 * 1000).to_wire();
    let hello = |change: fn(&mut wire::Hello)| {
        let mut hello = actor.hello();
        change(&mut hello);
        frame::Kind::Hello(hello)
    };
    let cases = [
        ("WRONG_BUREAU", hello(|hello| hello.bureau = "FR".to_owned())),
        ("WRONG_BUREAU", hello(|hello| hello.node = "other".to_owned())),
        (
            "VERSION_UNSUPPORTED",
            hello(|hello| {
                hello.protocol_version_min = 2;
                hello.protocol_version_max = 3;
            }),
        ),
        ("MALFORMED", hello(|hello| hello.epoch = Bytes::new())),
        ("MALFORMED", hello(|hello| hello.time = None)),
        ("CLOCK_SKEW", {
            let hello = wire::Hello { time: Some(skewed), ..actor.hello() };
            frame::Kind::Hello(hello)
        }),
        ("PROTOCOL_VIOLATION", frame::Kind::Ping(wire::Ping { number: 1 })),
    ];
    for (reason, first) in cases {
        let mut link = actor.dial(&home, "KE").await.unwrap();
        link.send(first).await;
        let said = loop {
            match link.next().await {
                Some(frame::Kind::Bye(bye)) => break bye.reason,
                Some(_) => {}
                None => break "CLOSED".to_owned(),
            }
        };
        assert_eq!(said, reason);
        network.logged("KE", &["link_refused", "peer=BR", reason]).await;
    }
    let mut link = actor.link(&home, "KE").await;
    assert_eq!(link.offer(actor.parcel(1, "fine", &["KE"])).await, "DELIVERED");
    link.send(frame::Kind::Hello(actor.hello())).await;
    network.logged("KE", &["link_down", "PROTOCOL_VIOLATION"]).await;
}

#[tokio::test]
async fn forged_receipts_change_nothing() {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let id = fr.send(&["KE"], "for KE alone").await;
    let actor = Actor::of(&network.home("BR"));
    let link = actor.link(&network.home("FR"), "FR").await;
    let message = id.parse().unwrap();
    for (kind, signer) in [
        (ReceiptKind::Delivered, "BR"),
        (ReceiptKind::Delivered, "KE"),
        (ReceiptKind::Acknowledged, "KE"),
        (ReceiptKind::Refused, "BR"),
        (ReceiptKind::Expired, "BR"),
        (ReceiptKind::Custody, "BR"),
    ] {
        let statement = bureau_core::receipt::Statement {
            kind,
            message,
            recipient: "KE".parse().unwrap(),
            // BR does not know the slip: it guesses.
            slip: [7; 32],
            signer: signer.parse().unwrap(),
            signer_epoch: bureau_core::Epoch([7; 16]),
            time: now(),
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        };
        let mut group = actor.signer.group();
        let ticket = group.add(bureau_core::Receipt::new(statement));
        let receipt = group.sign().unwrap().take(ticket).unwrap().encode();
        let receipts = vec![receipt];
        link.send(frame::Kind::Receipts(wire::ReceiptBatch { number: 1, receipts })).await;
    }
    // What comes after on the same link was taken after them.
    let mut link = link;
    assert_eq!(link.offer(actor.parcel(1, "a real one", &["FR"])).await, "DELIVERED");
    let track = fr.track(&id).await;
    assert_eq!(track.recipients[0].state(), DeliveryState::Queued);
    assert_eq!(track.recipients[0].receipts, []);
}

#[tokio::test]
async fn a_recipient_cannot_talk_anothers_message_out_of_the_queue() {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let id = fr.send(&["KE", "BR"], "for both").await;
    let actor = Actor::of(&network.home("BR"));
    let mut link = actor.link(&network.home("FR"), "FR").await;
    let parcel = loop {
        if let Some(frame::Kind::Parcel(parcel)) = link.next().await {
            break parcel;
        }
    };
    // BR has its own slip, and so all that KE's is made of but what it can guess: the first count.
    let own = envelope_wire::Signed::decode(parcel.slips[0].clone()).unwrap();
    let own = envelope_wire::Slip::decode(own.payload).unwrap();
    let label = bureau_core::slip::Label {
        message: id.parse().unwrap(),
        recipient: "KE".parse().unwrap(),
        lane: bureau_core::Lane::from_wire(own.lane).unwrap(),
        origin_epoch: bureau_core::Epoch::from_bytes(&own.origin_epoch).unwrap(),
        suite: bureau_core::envelope::SealingSuite::Open,
        private: bureau_core::slip::Count { sequence: 1, previous: None }.encode(),
        encapsulation: Bytes::new(),
    };
    let guessed = bureau_core::Slip::new(&actor.network, label).digest();
    for kind in [ReceiptKind::Custody, ReceiptKind::Refused, ReceiptKind::PassedOn] {
        let statement = bureau_core::receipt::Statement {
            kind,
            message: id.parse().unwrap(),
            recipient: "KE".parse().unwrap(),
            slip: guessed,
            signer: actor.bureau,
            signer_epoch: bureau_core::Epoch([7; 16]),
            time: now(),
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        };
        let mut group = actor.signer.group();
        let ticket = group.add(bureau_core::Receipt::new(statement));
        let receipts = vec![group.sign().unwrap().take(ticket).unwrap().encode()];
        link.send(frame::Kind::Receipts(wire::ReceiptBatch { number: 1, receipts })).await;
    }
    assert_eq!(link.offer(actor.parcel(1, "a real one", &["FR"])).await, "DELIVERED");
    let track = fr.track(&id).await;
    let ke = track.recipients.iter().find(|status| status.recipient == "KE").unwrap();
    assert_eq!((ke.state(), ke.receipts.len()), (DeliveryState::Queued, 0));
    network.logged("FR", &["receipt_rejected", "NOT_PERMITTED"]).await;
}
