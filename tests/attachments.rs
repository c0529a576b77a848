//! Attachments between real nodes: from desk to desk, through a hub, resumed after kills, refused
//! where they are wrong, held back where policy says so, and given back when nobody needs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use bureau_core::{envelope::Content, receipt::ReceiptKind};
use bureau_proto::{
    desk::v1::{AttachmentToSend, DeliveryState, SubmitRequest},
    envelope::v1 as envelope,
    link::v1::{self as wire, frame::Kind},
};
use bytes::Bytes;
use harness::{
    Network, Program,
    desk::message,
    files::noise,
    peer::{Actor, Link, parcel},
    until,
};
use prost::Message as _;

const MIB: usize = 1024 * 1024;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

fn with(to: &[&str], text: &str, attachments: &[AttachmentToSend]) -> SubmitRequest {
    SubmitRequest { attachments: attachments.to_vec(), ..message(to, text) }
}

/// Files that hold bodies and attachments, apart from those that are coming in.
fn bodies(network: &Network, bureau: &str) -> Vec<(PathBuf, u64)> {
    network.kept_files(bureau).into_iter().filter(|(path, _)| path.extension().is_none()).collect()
}

/// A figure of a log line.
fn figure(line: &str, name: &str) -> u64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
}

fn arrivals(network: &Network, bureau: &str) -> Vec<String> {
    let log = network.log(bureau);
    log.lines().filter(|line| line.contains("attachment_arrived")).map(str::to_owned).collect()
}

/// Waits for something that takes longer than everything else.
async fn patiently<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hub_stores_and_forwards_and_everybody_gives_back() {
    let mut network = Network::star(program(), &["FR", "KE", "BR"], "IPSG");
    network.start_all(&["FR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;
    let (photo, note) = (noise(1, 3 * MIB + 17), noise(2, 1));
    let files = [
        AttachmentToSend { name: "photo.jpg".into(), ..fr.upload(&photo).await },
        fr.upload(&note).await,
    ];
    let id = fr.submit(with(&["KE", "BR"], "see the photo", &files)).await.unwrap();
    fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    assert_eq!(bodies(&network, "IPSG").len(), 2);

    // The origin is not needed any more.
    network.terminate("FR").await;
    network.start_all(&["KE", "BR"]).await;
    for bureau in ["KE", "BR"] {
        let desk = network.desk(bureau);
        let arrived = desk.watch(0).await.next().await.unwrap();
        assert_eq!(arrived.entry.unwrap().attachment_count, 2);
        assert_eq!(
            (&*arrived.attachments[0].name, arrived.attachments[0].size),
            ("photo.jpg", 3 * 1024 * 1024 + 17)
        );
        assert!(desk.download(&id, 0, 0).await.unwrap() == photo);
        assert_eq!(desk.download(&id, 0, 3 * 1024 * 1024).await.unwrap(), photo.slice(3 * MIB..));
        assert_eq!(desk.download(&id, 1, 0).await.unwrap(), note);
        assert_eq!(desk.download(&id, 2, 0).await.unwrap_err().reason.unwrap(), "NOT_FOUND");
    }
    until("the hub gives back", async || bodies(&network, "IPSG").is_empty().then_some(())).await;
    assert_eq!(network.coming_in("IPSG"), 0);
    assert_eq!(bodies(&network, "FR").len(), 2, "the origin keeps it until the recipients have it");
    network.start("FR").await;
    fr_has_told(&network, &id).await;
    until("the origin gives back", async || bodies(&network, "FR").is_empty().then_some(())).await;
}

async fn fr_has_told(network: &Network, id: &str) {
    let fr = network.desk("FR");
    for bureau in ["KE", "BR"] {
        let track = fr.tracked(id, bureau, DeliveryState::Delivered).await;
        let status = track.recipients.iter().find(|status| status.recipient == bureau).unwrap();
        let delivered = |kind| kind == ReceiptKind::Delivered;
        assert!(status.receipts.iter().any(|receipt| delivered(receipt.kind())));
    }
}

#[tokio::test]
async fn what_messages_share_goes_over_a_link_once() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let shared = noise(3, 2 * MIB);
    let file = fr.upload(&shared).await;
    let other = fr.upload(&noise(4, 1000)).await;
    let mut ids = Vec::new();
    for turn in 0..6 {
        let text = format!("number {turn}");
        ids.push(fr.submit(with(&["KE"], &text, &[file.clone(), other.clone()])).await.unwrap());
    }
    assert_eq!(bodies(&network, "FR").len(), 2);
    network.start("KE").await;
    for id in &ids {
        fr.tracked(id, "KE", DeliveryState::Delivered).await;
    }
    let ke = network.desk("KE");
    assert!(ke.download(&ids[5], 0, 0).await.unwrap() == shared);
    assert_eq!(bodies(&network, "KE").len(), 2);
    let arrived = arrivals(&network, "KE");
    assert_eq!(arrived.len(), 2, "{arrived:#?}");
    let brought: u64 = arrived.iter().map(|line| figure(line, "brought")).sum();
    assert_eq!(brought, 2 * MIB as u64 + 1000, "nothing of it came twice");
    until("given back", async || bodies(&network, "FR").is_empty().then_some(())).await;
    // What is there already is not sent again.
    let again = fr.upload(&shared).await;
    let id = fr.submit(with(&["KE"], "once more", &[again])).await.unwrap();
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert_eq!(arrivals(&network, "KE").len(), 2);
}

#[tokio::test]
async fn after_a_kill_it_goes_on_where_it_was() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;
    let film = noise(5, 48 * MIB);
    let file = fr.upload(&film).await;
    // The relay is killed while it takes the file in.
    let id = fr.submit(with(&["KE"], "a film", &[file])).await.unwrap();
    let had = kill_at(&mut network, "IPSG", "IPSG").await;
    network.start("IPSG").await;
    goes_on(&network, "IPSG", had, film.len()).await;
    // Then the receiver, and then the sender, while it goes on.
    network.start("KE").await;
    let had = kill_at(&mut network, "KE", "KE").await;
    network.start("KE").await;
    goes_on(&network, "KE", had, film.len()).await;
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert!(network.desk("KE").download(&id, 0, 0).await.unwrap() == film);
}

#[tokio::test]
async fn after_a_kill_of_the_sender_too() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let film = noise(6, 48 * MIB);
    let fr = network.desk("FR");
    let file = fr.upload(&film).await;
    let id = fr.submit(with(&["KE"], "a film", &[file])).await.unwrap();
    let had = kill_at(&mut network, "KE", "FR").await;
    network.start("FR").await;
    goes_on(&network, "KE", had, film.len()).await;
    network.desk("FR").tracked(&id, "KE", DeliveryState::Delivered).await;
    assert!(network.desk("KE").download(&id, 0, 0).await.unwrap() == film);
}

/// Kills a node when some of a file has come in at another. Gives how much.
async fn kill_at(network: &mut Network, receiver: &str, victim: &str) -> u64 {
    patiently("a part of it comes in", async || {
        (network.coming_in(receiver) > MIB as u64).then_some(())
    })
    .await;
    network.kill(victim);
    network.coming_in(receiver)
}

/// What comes after a kill begins where the file ended, and no byte of it comes twice.
async fn goes_on(network: &Network, bureau: &str, had: u64, size: usize) {
    let line = patiently("it arrives", async || arrivals(network, bureau).pop()).await;
    let (from, brought) = (figure(&line, "from"), figure(&line, "brought"));
    // What was on its way when the sender was killed may still have come.
    assert!((had..size as u64).contains(&from) && had > 0, "{had}: {line}");
    assert_eq!(from + brought, size as u64, "{line}");
}

#[tokio::test]
async fn what_must_not_be_is_refused_before_a_byte_is_stored() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let limited = "attachment_bytes = 65_536";
    network.configure("KE", |text| {
        format!("{text}\n[limits]\n{limited}\n[store]\nstaged_bytes = 1_048_576\n")
    });
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let reason = |refused: Result<AttachmentToSend, bureau_net::status::ReceivedRefusal>| {
        refused.unwrap_err().violations[0].reason.clone()
    };
    assert_eq!(reason(ke.try_upload(&noise(7, 65_537)).await), "ATTACHMENT_TOO_LARGE");
    assert_eq!(reason(ke.try_upload(&Bytes::new()).await), "FIELD_INVALID");
    assert_eq!(network.kept_files("KE"), []);

    // By link, too: its sender is told.
    let file = fr.upload(&noise(7, 65_537)).await;
    let id = fr.submit(with(&["KE"], "too large", std::slice::from_ref(&file))).await.unwrap();
    let track = fr.tracked(&id, "KE", DeliveryState::Refused).await;
    assert_eq!(track.recipients[0].receipts[0].reason, "ATTACHMENT_TOO_LARGE");
    assert_eq!(network.kept_files("KE"), []);

    // Named, and not there; or there, and not as large.
    let missing = AttachmentToSend { digest: vec![7; 32].into(), ..file.clone() };
    let refused = fr.submit(with(&["KE"], "none", &[missing])).await.unwrap_err();
    assert_eq!(refused.violations[0].reason, "ATTACHMENT_MISSING");
    let other = fr.upload(&noise(8, 100)).await;
    let larger = AttachmentToSend { size: 101, ..other };
    let refused = fr.submit(with(&["KE"], "larger", &[larger])).await.unwrap_err();
    assert_eq!(refused.violations[0].reason, "ATTACHMENT_MISSING");

    // More than there is room for waits, and holds nobody up.
    for seed in 0..16 {
        ke.upload(&noise(100 + seed, 65_536)).await;
    }
    let full = ke.try_upload(&noise(9, 100)).await.unwrap_err();
    assert_eq!(full.reason.as_deref(), Some("STAGING_FULL"));
    let file = fr.upload(&noise(9, 100)).await;
    let waits = fr.submit(with(&["KE"], "waits", &[file])).await.unwrap();
    network.logged("FR", &["offer_refused_by_peer", "STAGING_FULL"]).await;
    let passes = fr.send(&["KE"], "passes").await;
    fr.tracked(&passes, "KE", DeliveryState::Delivered).await;
    assert_eq!(fr.track(&waits).await.recipients[0].state(), DeliveryState::Queued);
    let tries = network.log("KE").matches("offer_rejected").count();
    assert!(tries < 10, "{tries} tries: the peer asked for patience");
    network.terminate("KE").await;
    network.configure("KE", |text| text.replace("1_048_576", "2_097_152"));
    network.start("KE").await;
    fr.tracked(&waits, "KE", DeliveryState::Delivered).await;
}

#[tokio::test]
async fn policy_holds_back_until_a_desk_releases() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.configure("KE", |text| {
        text.replace("sealing_suites", "quarantine_attachments = true\nsealing_suites")
    });
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let photo = noise(10, 5000);
    let file = fr.upload(&photo).await;
    let id = fr.submit(with(&["KE"], "a photo", &[file])).await.unwrap();
    let arrived = ke.watch(0).await.next().await.unwrap();
    assert!(arrived.attachments[0].quarantined);
    let held = ke.download(&id, 0, 0).await.unwrap_err();
    assert_eq!(held.reason.as_deref(), Some("ATTACHMENT_QUARANTINED"));
    let denied = ke.release(&id).await.unwrap_err();
    assert_eq!(denied.reason.as_deref(), Some("NOT_PERMITTED"));

    network.configure("KE", |text| text.replace("permissions = [", "permissions = [\"release\", "));
    network.signal("KE", rustix::process::Signal::HUP);
    network.logged("KE", &["reloaded"]).await;
    let first = ke.release(&id[..10]).await.unwrap();
    assert_eq!((&first.message_id, &*first.release_desk), (&id, "desk"));
    assert_eq!(ke.release("#1").await.unwrap(), first, "repeating it changes nothing");
    assert_eq!(ke.download(&id, 0, 0).await.unwrap(), photo);
    // It stays released.
    network.kill("KE");
    network.start("KE").await;
    assert_eq!(ke.download(&id, 0, 4990).await.unwrap(), photo.slice(4990..));
}

/// A message of the actor's with one attachment of these bytes.
fn attached(actor: &Actor, number: u64, text: &str, file: &[u8]) -> (wire::Offer, wire::Parcel) {
    let description = envelope::AttachmentDescription {
        size: file.len() as u64,
        name: "a".into(),
        ..Default::default()
    };
    let body = envelope::Body {
        format: 1,
        content: text.to_owned().into(),
        attachments: vec![description],
        ..Default::default()
    };
    let body = Bytes::from(body.encode_to_vec());
    let mut manifest = actor.manifest(&body);
    manifest.attachments = vec![Content::of(file)];
    let (envelope, slips) = actor.sign(manifest, body, &["KE"]);
    let offer = wire::Offer {
        number,
        signed_manifest: envelope.signed_manifest().clone(),
        recipients: vec!["KE".to_owned()],
        withdrawn: Vec::new(),
    };
    (offer, parcel(number, &envelope, &slips))
}

async fn send_file(link: &Link, digest_of: &[u8], offset: usize, bytes: &[u8]) {
    let digest = Bytes::copy_from_slice(&Content::of(digest_of).digest);
    let part = wire::Part { digest, offset: offset as u64, data: Bytes::copy_from_slice(bytes) };
    link.send(Kind::Part(part)).await;
}

/// The offsets and rejections that the node says, as text.
async fn said(link: &mut Link) -> String {
    loop {
        match link.next().await.unwrap() {
            Kind::PartTaken(taken) => return format!("{}", taken.offset),
            Kind::Rejection(no) => return format!("{} {}", no.parcel_number, no.reason),
            Kind::Receipts(batch) => return format!("{} receipts", batch.receipts.len()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn wrong_bytes_begin_anew_and_then_are_refused() {
    let mut network = Network::mesh(program(), &["BR", "KE"], "IPSG");
    network.start("KE").await;
    let actor = Actor::of(&network.home("BR"));
    let mut link = actor.link(&network.home("KE"), "KE").await;
    let (right, wrong) = (b"the right bytes", b"the wrong bytes");
    // Not offered, not looked at.
    send_file(&link, right, 0, right).await;
    let (offer, good) = attached(&actor, 1, "first", right);
    link.send(Kind::Offer(offer)).await;
    assert_eq!(said(&mut link).await, "0");
    assert_eq!(link.offer(good.clone()).await, "ATTACHMENT_MISSING");
    send_file(&link, right, 0, wrong).await;
    assert_eq!(said(&mut link).await, "0");
    assert_eq!(network.kept_files("KE"), []);
    // Beyond a gap, one word is enough; then it goes on.
    send_file(&link, right, 4, &right[4..8]).await;
    send_file(&link, right, 8, &right[8..]).await;
    send_file(&link, right, 0, &right[..6]).await;
    send_file(&link, right, 9, &right[9..]).await;
    assert_eq!(said(&mut link).await, "6");
    send_file(&link, right, 6, &right[6..]).await;
    assert_eq!(said(&mut link).await, "15");
    assert_eq!(link.offer(good).await, "DELIVERED");

    // Two messages name what never comes right: both are refused, and nothing is left of it.
    let (one, _) = attached(&actor, 2, "second", b"never comes");
    let (other, parcel) = attached(&actor, 3, "third", b"never comes");
    for offer in [one, other] {
        link.send(Kind::Offer(offer)).await;
        assert_eq!(said(&mut link).await, "0");
    }
    for _ in 0..2 {
        send_file(&link, b"never comes", 0, b"other bytes").await;
        assert_eq!(said(&mut link).await, "0");
    }
    send_file(&link, b"never comes", 0, b"other bytes").await;
    let both = [said(&mut link).await, said(&mut link).await];
    assert_eq!(both, ["2 DIGEST_MISMATCH", "3 DIGEST_MISMATCH"]);
    assert_eq!(link.offer(parcel).await, "ATTACHMENT_MISSING");
    assert_eq!(network.kept_files("KE").len(), 1);
    assert_eq!(network.desk("KE").inbox().await.len(), 1);
}

#[tokio::test]
async fn a_large_file_holds_up_nothing_and_fills_no_memory() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    // Idle is after a first message: what is made once is made.
    let id = fr.send(&["KE"], "first").await;
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    let idle = [memory_kib(&network, "FR"), memory_kib(&network, "KE")];

    let disk = noise(11, 200 * MIB);
    let file = fr.upload(&disk).await;
    let id = fr.submit(with(&["KE"], "a disk", &[file])).await.unwrap();
    patiently("it is under way", async || (network.coming_in("KE") > 0).then_some(())).await;
    let mut passed = 0;
    while network.coming_in("KE") > 0 {
        let flash = SubmitRequest { lane: envelope::Lane::Flash.into(), ..message(&["KE"], "now") };
        let flash = fr.submit(flash).await.unwrap();
        fr.tracked(&flash, "KE", DeliveryState::Delivered).await;
        passed += u32::from(network.coming_in("KE") > 0);
    }
    assert!(passed >= 5, "only {passed} passed it");
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert!(ke.download(&id, 0, 0).await.unwrap() == disk);
    for (bureau, idle) in ["FR", "KE"].into_iter().zip(idle) {
        let grown = memory_kib(&network, bureau) - idle;
        assert!(grown < 64 * 1024, "{bureau} grew by {grown} KiB above {idle} KiB");
    }
}

/// The most memory that a node ever had.
fn memory_kib(network: &Network, bureau: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", network.pid(bureau))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
