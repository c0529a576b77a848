//! What a peer must not send: a hostile node, with a member's real keys and certificate, against
//! a real one. Each fault is answered by name, the line behind it moves on, and nothing is kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use bureau_core::{Context, signing};
use bureau_proto::{
    envelope::v1 as envelope,
    link::v1::{self as wire, frame::Kind},
};
use bytes::Bytes;
use harness::{
    Network, Program,
    peer::{Actor, Link, body, now},
    raw,
};
use prost::Message as _;

/// Stands in every body that is refused, and must be nowhere afterwards.
const MARKER: &str = "zebra-quartz-onyx";

const HOUR_MS: i64 = 3_600_000;

async fn network() -> (Network, Actor) {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["BR", "FR", "KE"], "IPSG");
    network.start("KE").await;
    let actor = Actor::of(&network.home("BR"));
    (network, actor)
}

/// A message as the wire has it, good until a test spoils it.
struct Draft {
    manifest: envelope::Manifest,
    body: Bytes,
    slip: envelope::Slip,
    /// The message that the slip names where it is not this one.
    other_message: Option<Vec<u8>>,
    more: Vec<u8>,
}

impl Draft {
    fn new(actor: &Actor) -> Self {
        Self::of(actor, body(MARKER))
    }

    fn of(actor: &Actor, body: Bytes) -> Self {
        let (signed, slips) = actor.sign(actor.manifest(&body), body.clone(), &["KE"]);
        let signed = envelope::Signed::decode(signed.signed_manifest()).unwrap();
        let slip = envelope::Signed::decode(slips[0].encode()).unwrap();
        Self {
            manifest: envelope::Manifest::decode(signed.payload).unwrap(),
            body,
            slip: envelope::Slip::decode(slip.payload).unwrap(),
            other_message: None,
            more: Vec::new(),
        }
    }

    /// Signs what was made of it.
    fn parcel(mut self, actor: &Actor) -> wire::Parcel {
        let manifest = [self.manifest.encode_to_vec(), self.more.clone()].concat();
        let own = || signing::digest(&actor.network, Context::Manifest, &manifest).to_vec();
        self.slip.message_id = self.other_message.take().unwrap_or_else(own).into();
        let slip = [self.slip.encode_to_vec(), self.more].concat();
        let manifest = Some(signed(actor, Context::Manifest, manifest));
        let envelope = envelope::Envelope { manifest, body: self.body };
        wire::Parcel {
            number: 0,
            envelope: envelope.encode_to_vec().into(),
            slips: vec![signed(actor, Context::Slip, slip).encode_to_vec().into()],
            hops: 1,
            refills: 0,
        }
    }
}

fn signed(actor: &Actor, context: Context, payload: Vec<u8>) -> envelope::Signed {
    let payload = Bytes::from(payload);
    let attestation = actor.signer.attest(&[(context, payload.clone())]).unwrap().remove(0);
    envelope::Signed { payload, attestation: Some(attestation) }
}

/// Manifest and slip, each spoiled in one thing, and signed as if nothing were wrong.
fn spoiled(actor: &Actor) -> Vec<(&'static str, Draft)> {
    type Spoil = fn(&mut Draft);
    let later = |draft: &mut Draft, created: i64, expires: i64| {
        draft.manifest.create_time = Some(now().plus_ms(created).to_wire());
        draft.manifest.expire_time = Some(now().plus_ms(expires).to_wire());
    };
    let spoils: [(&str, Spoil); 25] = [
        ("UNKNOWN_FORMAT", |draft| draft.manifest.format = 2),
        ("WRONG_ORIGIN", |draft| draft.manifest.origin = "FR".to_owned()),
        ("MALFORMED", |draft| draft.manifest.origin = "fr\n".to_owned()),
        ("WRONG_ORIGIN", |draft| draft.manifest.key_id = vec![1; 16].into()),
        ("UNKNOWN_KIND", |draft| draft.manifest.kind = 99),
        ("UNKNOWN_KIND", |draft| draft.manifest.kind = 0),
        ("UNKNOWN_LANE", |draft| draft.manifest.lane = 9),
        ("UNKNOWN_SUITE", |draft| draft.manifest.sealing_suite = 77),
        ("UNKNOWN_SUITE", |draft| draft.manifest.sealing_suite = 0),
        ("FIELD_INVALID", |draft| draft.manifest.handling_code = 9),
        ("MALFORMED", |draft| draft.manifest.nonce = vec![1; 15].into()),
        ("MALFORMED", |draft| draft.manifest.create_time = None),
        ("FIELD_MISSING", |draft| draft.manifest.body = None),
        ("DIGEST_MISMATCH", |draft| draft.body = body("zebra-quartz-onyx of another")),
        ("TOO_LARGE", |draft| draft.manifest.key_commitment = vec![1; 4096].into()),
        ("UNKNOWN_FORMAT", |draft| draft.slip.format = 2),
        ("UNKNOWN_LANE", |draft| draft.slip.lane = 9),
        ("LANE_MISMATCH", |draft| draft.slip.lane = 4),
        ("UNKNOWN_SUITE", |draft| draft.slip.sealing_suite = 77),
        ("MALFORMED", |draft| draft.slip.origin_epoch = vec![1; 3].into()),
        ("SELF_RECIPIENT", |draft| draft.slip.recipient = "BR".to_owned()),
        ("UNKNOWN_BUREAU", |draft| draft.slip.recipient = "ZZ".to_owned()),
        ("WRONG_RECIPIENT", |draft| draft.slip.recipient = "FR".to_owned()),
        ("TOO_LARGE", |draft| draft.slip.encapsulation_digest = vec![1; 1024].into()),
        ("SLIP_MISMATCH", |draft| draft.other_message = Some(vec![9; 32])),
    ];
    let mut all: Vec<_> = spoils
        .into_iter()
        .map(|(reason, spoil)| {
            let mut draft = Draft::new(actor);
            spoil(&mut draft);
            (reason, draft)
        })
        .collect();
    for (reason, created, expires) in [
        ("ALREADY_EXPIRED", -2 * HOUR_MS, -HOUR_MS),
        ("ALREADY_EXPIRED", 0, 0),
        ("CREATED_IN_FUTURE", HOUR_MS / 10, HOUR_MS),
        ("LIFETIME_TOO_LONG", 0, 31 * 24 * HOUR_MS),
    ] {
        let mut draft = Draft::new(actor);
        later(&mut draft, created, expires);
        all.push((reason, draft));
    }
    let padding = vec![b'x'; 1024 * 1024 + 64 * 1024];
    let padded = envelope::Body { padding: padding.into(), ..open_body() };
    all.push(("BODY_TOO_LARGE", Draft::of(actor, padded.encode_to_vec().into())));
    all.push(("ATTACHMENT_MISSING", attached(actor, 1, vec![said(9)])));
    all
}

/// A message that names an attachment which no link brought: it must not be delivered without.
fn attached(actor: &Actor, digest: u8, said: Vec<envelope::AttachmentDescription>) -> Draft {
    let body = envelope::Body { attachments: said, ..open_body() };
    let mut draft = Draft::of(actor, body.encode_to_vec().into());
    draft.manifest.attachments =
        vec![envelope::Content { digest: vec![digest; 32].into(), size: 9 }];
    draft
}

/// What a body says of an attachment.
fn said(size: u64) -> envelope::AttachmentDescription {
    envelope::AttachmentDescription {
        name: "a.txt".into(),
        size,
        ..envelope::AttachmentDescription::default()
    }
}

fn open_body() -> envelope::Body {
    envelope::Body { format: 1, content: MARKER.into(), ..envelope::Body::default() }
}

/// Envelopes that are authentic, with a body that no desk may be shown: their origin is told by a
/// signed receipt.
fn refused_bodies(actor: &Actor) -> Vec<(&'static str, Draft)> {
    let content = |content: Vec<u8>| envelope::Body { content: content.into(), ..open_body() };
    let after = |bytes: &[u8]| [MARKER.as_bytes(), bytes].concat();
    let large = vec![b'x'; 1024 * 1024 + 1];
    let bodies = [
        ("REFUSED NOT_UTF8", content(after(&[0xff]))),
        ("REFUSED CONTROL_CHARACTERS", content(after(b"\x1b[2J"))),
        ("REFUSED CONTROL_CHARACTERS", content(after("\u{202e}".as_bytes()))),
        ("REFUSED BODY_EMPTY", content(Vec::new())),
        ("REFUSED BODY_TOO_LARGE", content(large)),
        ("REFUSED CONTROL_CHARACTERS", envelope::Body { subject: "a\nb".into(), ..open_body() }),
        ("REFUSED FIELD_TOO_LONG", envelope::Body { subject: "a".repeat(201), ..open_body() }),
        ("REFUSED FIELD_INVALID", envelope::Body { purpose: 99, ..open_body() }),
        ("REFUSED UNKNOWN_FORMAT", envelope::Body { format: 2, ..open_body() }),
    ];
    let draft = |body: Vec<u8>| Draft::of(actor, body.into());
    let mut all: Vec<_> =
        bodies.into_iter().map(|(reason, body)| (reason, draft(body.encode_to_vec()))).collect();
    all.push(("REFUSED MALFORMED", draft(after(&[0xff; 9]))));
    // Manifest and body of one message say different things of its attachments.
    all.push(("REFUSED DIGEST_MISMATCH", attached(actor, 2, Vec::new())));
    all.push(("REFUSED DIGEST_MISMATCH", attached(actor, 2, vec![said(8)])));
    all.push(("REFUSED DIGEST_MISMATCH", attached(actor, 2, vec![said(9), said(9)])));
    let subject = raw::field(2, &after(&[0xff]));
    all.push(("REFUSED MALFORMED", draft([open_body().encode_to_vec(), subject].concat())));
    all
}

/// Parcels that are wrong before anything in them is read, or after it was signed.
fn broken(actor: &Actor) -> Vec<(&'static str, wire::Parcel)> {
    let good = || Draft::new(actor).parcel(actor);
    let envelope = |bytes: Vec<u8>| wire::Parcel { envelope: bytes.into(), ..good() };
    let slip = |bytes: Vec<u8>| wire::Parcel { slips: vec![bytes.into()], ..good() };
    let resigned = |change: fn(&mut envelope::RootSignature)| {
        let parcel = good();
        let mut envelope = envelope::Envelope::decode(parcel.envelope.clone()).unwrap();
        let attestation = envelope.manifest.as_mut().unwrap().attestation.as_mut().unwrap();
        change(attestation.root.as_mut().unwrap());
        wire::Parcel { envelope: envelope.encode_to_vec().into(), ..parcel }
    };
    let unsigned = envelope::Envelope { manifest: None, body: body(MARKER) };
    vec![
        ("MALFORMED", envelope([MARKER.as_bytes(), &[0xff]].concat())),
        ("FIELD_MISSING", envelope(Vec::new())),
        ("FIELD_MISSING", envelope(unsigned.encode_to_vec())),
        ("MALFORMED", slip(vec![0xff; 30])),
        ("FIELD_MISSING", slip(Vec::new())),
        ("MALFORMED", wire::Parcel { slips: Vec::new(), ..good() }),
        ("MALFORMED", wire::Parcel { slips: vec![good().slips[0].clone(); 1025], ..good() }),
        ("TOO_MANY_HOPS", wire::Parcel { hops: 9, ..good() }),
        ("UNKNOWN_SUITE", resigned(|root| root.suite = 2)),
        ("UNKNOWN_SUITE", resigned(|root| root.suite = 0)),
        ("UNKNOWN_KEY", resigned(|root| root.bureau = "FR".to_owned())),
        ("UNKNOWN_KEY", resigned(|root| root.key_id = vec![1; 16].into())),
        ("UNKNOWN_BUREAU", resigned(|root| root.bureau = "ZZ".to_owned())),
        ("BAD_SIGNATURE", resigned(|root| root.signature = vec![0; 64].into())),
        ("BAD_SIGNATURE", resigned(|root| root.tree_size = 16)),
        // A slip shown as a manifest: the same key, another context.
        ("BAD_SIGNATURE", {
            let slip = envelope::Signed::decode(good().slips[0].clone()).unwrap();
            let envelope = envelope::Envelope { manifest: Some(slip), body: body(MARKER) };
            wire::Parcel { envelope: envelope.encode_to_vec().into(), ..good() }
        }),
    ]
}

/// Sends parcels by number, a good one behind each that is refused.
struct Line<'a> {
    actor: &'a Actor,
    link: Link,
    number: u64,
    good: usize,
}

impl Line<'_> {
    async fn offer(&mut self, parcel: wire::Parcel) -> String {
        self.number += 1;
        self.link.offer(wire::Parcel { number: self.number, ..parcel }).await
    }

    async fn refused(&mut self, reason: &str, parcel: wire::Parcel) {
        assert_eq!(self.offer(parcel).await, reason);
        self.moves_on().await;
    }

    async fn moves_on(&mut self) {
        self.good += 1;
        let parcel = self.actor.parcel(0, "granite-basalt", &["KE"]);
        assert_eq!(self.offer(parcel).await, "DELIVERED");
    }
}

#[tokio::test]
async fn every_fault_of_a_parcel_is_refused_by_name_and_leaves_no_trace() {
    let (network, actor) = network().await;
    let link = actor.link(&network.home("KE"), "KE").await;
    let mut line = Line { actor: &actor, link, number: 0, good: 0 };
    for (reason, draft) in spoiled(&actor).into_iter().chain(refused_bodies(&actor)) {
        line.refused(reason, draft.parcel(&actor)).await;
    }
    for (reason, parcel) in broken(&actor) {
        line.refused(reason, parcel).await;
    }
    every_byte_and_every_cut(&mut line).await;
    let refused = line.good;
    newer_fields_and_repeats(&mut line).await;

    let ke = network.desk("KE");
    assert_eq!(ke.inbox().await.len(), refused + 2);
    let links_up = network.log("KE").matches("link_up ").count();
    assert_eq!(links_up, 1, "the link never went down");
    let data = network.home("KE").join("data");
    assert_ne!(raw::files_with(&data, "granite-basalt"), [""; 0], "the search finds nothing");
    assert_eq!(raw::files_with(&data, MARKER), [""; 0], "what was refused is on disk");
    assert!(!network.log("KE").contains(MARKER), "what was refused is in the log");
}

/// A parcel with one byte changed, and one cut short, at every place of envelope and slip.
async fn every_byte_and_every_cut(line: &mut Line<'_>) {
    let good = Draft::new(line.actor).parcel(line.actor);
    let (envelope, slip) = (good.envelope.clone(), good.slips[0].clone());
    let (mut in_envelope, mut in_slip) = (Vec::new(), Vec::new());
    for (bytes, variants) in [(&envelope, &mut in_envelope), (&slip, &mut in_slip)] {
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            variants.push(Bytes::from(changed));
            if place % 8 == 0 {
                variants.push(bytes.slice(..place));
            }
        }
    }
    let envelopes =
        in_envelope.into_iter().map(|envelope| wire::Parcel { envelope, ..good.clone() });
    let slips = in_slip.into_iter().map(|slip| wire::Parcel { slips: vec![slip], ..good.clone() });
    for parcel in envelopes.chain(slips) {
        let answer = line.offer(parcel.clone()).await;
        let mut taken = ["DELIVERED", "REFUSED", "BYE", "CLOSED"].iter();
        let taken = taken.any(|word| answer.starts_with(word));
        assert!(!taken, "{answer}: {parcel:?}");
    }
    line.moves_on().await;
}

/// A newer origin may sign fields that this node does not know; what comes again is answered by
/// the very same receipt.
async fn newer_fields_and_repeats(line: &mut Line<'_>) {
    let newer = [body("newer").to_vec(), raw::field(99, b"later")].concat();
    let mut draft = Draft::of(line.actor, newer.into());
    draft.more = raw::field(77, b"later");
    let mut parcel = draft.parcel(line.actor);
    parcel.envelope = [parcel.envelope.to_vec(), raw::field(55, b"later")].concat().into();
    let first = line.receipts(parcel.clone()).await;
    assert_eq!(line.receipts(parcel.clone()).await, first);
    // The slip twice in one parcel, too.
    let twice = wire::Parcel { slips: vec![parcel.slips[0].clone(); 2], ..parcel };
    assert_eq!(line.receipts(twice).await, [first[0].clone(), first[0].clone()]);
    // What was refused by a signed receipt is refused by the same one.
    let mut refused = Draft::of(line.actor, vec![0xff].into());
    refused.more = raw::field(77, b"later");
    let refused = refused.parcel(line.actor);
    let first = line.receipts(refused.clone()).await;
    assert_eq!(line.receipts(refused).await, first);
    // New, and its slip twice: once in the inbox.
    let new = line.actor.parcel(0, "slip twice", &["KE"]);
    let twice = wire::Parcel { slips: vec![new.slips[0].clone(); 2], ..new };
    let receipts = line.receipts(twice).await;
    assert_eq!(receipts[0], receipts[1]);
}

impl Line<'_> {
    /// The bytes of the receipts that answer a parcel.
    async fn receipts(&mut self, parcel: wire::Parcel) -> Vec<Bytes> {
        self.number += 1;
        self.link.send(Kind::Parcel(wire::Parcel { number: self.number, ..parcel })).await;
        loop {
            match self.link.next().await {
                Some(Kind::Receipts(batch)) => return batch.receipts,
                Some(Kind::Rejection(rejection)) => panic!("{rejection:?}"),
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    }
}
