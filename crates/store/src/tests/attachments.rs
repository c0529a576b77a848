//! Attachments: grown, checked, claimed, shared, given back; over every engine.

use bureau_core::{Lane, envelope::Content, receipt::ReceiptKind};
use bytes::Bytes;

use super::fixture::{Engine, Real, Sent, Sim, accept, at, receipt, receive, send_with, take};
use crate::{
    contract::{AttachmentHeld, Outcome, ReceiveAction, Source, Store},
    disk::Unsynced,
};

fn file(seed: u8, bytes: usize) -> (Content, Bytes) {
    let content: Vec<u8> = (0..bytes).map(|at| seed.wrapping_add((at % 251) as u8)).collect();
    (Content::of(&content), content.into())
}

fn with(number: u64, attachments: &[Content]) -> Sent {
    let body = format!("see the files {number}");
    send_with("FR", &["KE", "BR"], Lane::Routine, number, body.as_bytes(), attachments)
}

fn desk() -> Source {
    Source::Desk("records".parse().unwrap())
}

async fn upload(store: &dyn Store, content: Content, bytes: &Bytes, piece: usize) {
    let mut offset = 0;
    for data in bytes.chunks(piece) {
        let data = Bytes::copy_from_slice(data);
        let held = store.attachment_add(desk(), content, offset, data.clone()).await.unwrap();
        offset += data.len() as u64;
        let whole = offset == content.size;
        let expected =
            if whole { AttachmentHeld::Whole(offset) } else { AttachmentHeld::Part(offset) };
        assert_eq!(held, expected);
    }
}

async fn one(store: &dyn Store, operation: crate::contract::Operation) -> Outcome {
    store.commit(vec![operation]).await.unwrap().remove(0)
}

async fn grown_shared_and_given_back(engine: &impl Engine) {
    let store = engine.open().await;
    let ((first, bytes), (second, more)) = (file(1, 100_000), file(2, 5000));
    // Out of turn, beyond the end, or before the beginning of a file: nothing changes.
    let odd = store.attachment_add(desk(), first, 7, bytes.slice(..9)).await.unwrap();
    assert_eq!(odd, AttachmentHeld::Part(0));
    let begun = store.attachment_add(desk(), first, 0, bytes.slice(..60_000)).await.unwrap();
    assert_eq!(begun, AttachmentHeld::Part(60_000));
    let repeated = store.attachment_add(desk(), first, 0, bytes.slice(..60_000)).await.unwrap();
    assert_eq!(repeated, AttachmentHeld::Part(60_000));
    let long = Bytes::from(vec![0; 50_000]);
    let beyond = store.attachment_add(desk(), first, 60_000, long).await.unwrap();
    assert_eq!(beyond, AttachmentHeld::Part(60_000));
    let sent = with(1, &[first, second]);
    assert_eq!(one(&*store, accept(&sent, None)).await, Outcome::AttachmentMissing);
    assert!(store.track(sent.id()).await.unwrap().is_none(), "nothing was accepted");

    // It goes on after a restart.
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    assert_eq!(store.attachment(desk(), first.digest).await.unwrap(), AttachmentHeld::Part(60_000));
    let rest = bytes.slice(60_000..);
    let whole = store.attachment_add(desk(), first, 60_000, rest).await.unwrap();
    assert_eq!(whole, AttachmentHeld::Whole(100_000));
    upload(&*store, second, &more, 999).await;
    assert_eq!(one(&*store, accept(&sent, None)).await, Outcome::Accepted);
    let queued = store.queued(super::fixture::code("KE"), Lane::Routine, 0, 9, 9).await.unwrap();
    assert_eq!(queued[0].entry.attachments, 2);
    // Another message names the same file: there is one.
    let again = with(2, &[first]);
    assert_eq!(one(&*store, accept(&again, None)).await, Outcome::Accepted);
    assert_eq!(engine.body_files(), 2);
    let middle = store.attachment_read(first.digest, 99_990, 100).await.unwrap();
    assert_eq!(middle, Some(bytes.slice(99_990..)));

    for sent in [&sent, &again] {
        for recipient in ["KE", "BR"] {
            let delivered = receipt(sent, recipient, ReceiptKind::Delivered, recipient, at(2));
            assert_eq!(one(&*store, take(delivered, recipient)).await, Outcome::ReceiptTaken);
        }
        let last = sent.id() == again.id();
        let kept = store.attachment_read(first.digest, 0, 1).await.unwrap();
        assert_eq!(kept.is_some(), !last, "kept as long as a message needs it");
    }
    assert_eq!(engine.body_files(), 0);
}

async fn what_is_not_what_it_says_begins_anew(engine: &impl Engine) {
    let store = engine.open().await;
    let (content, bytes) = file(3, 10_000);
    let mut wrong = bytes.to_vec();
    wrong[77] ^= 1;
    let held = store.attachment_add(desk(), content, 0, wrong.into()).await.unwrap();
    assert_eq!(held, AttachmentHeld::Mismatch);
    assert_eq!(store.attachment(desk(), content.digest).await.unwrap(), AttachmentHeld::Part(0));
    upload(&*store, content, &bytes, 3000).await;
    let read = store.attachment_read(content.digest, 0, 20_000).await.unwrap();
    assert_eq!(read, Some(bytes));
}

async fn nobody_spoils_what_another_brings(engine: &impl Engine) {
    let store = engine.open().await;
    let (content, bytes) = file(9, 10_000);
    let from = |code: &str| Source::Peer(super::fixture::code(code));
    let (first, rest) = (bytes.slice(..6000), bytes.slice(6000..));
    let good = store.attachment_add(from("KE"), content, 0, first.clone()).await.unwrap();
    assert_eq!(good, AttachmentHeld::Part(6000));
    // Another one knows the digest, and brings something else, a wrong size too.
    let liar = crate::contract::Content { size: 50, ..content };
    let other = || Bytes::from(vec![7; 50]);
    let held = store.attachment_add(from("BR"), liar, 0, other()).await.unwrap();
    assert_eq!(held, AttachmentHeld::Mismatch);
    let held = store.attachment_add(from("BR"), content, 0, other()).await.unwrap();
    assert_eq!(held, AttachmentHeld::Part(50));
    let held = store.attachment(from("KE"), content.digest).await.unwrap();
    assert_eq!(held, AttachmentHeld::Part(6000));
    let whole = store.attachment_add(from("KE"), content, 6000, rest).await.unwrap();
    assert_eq!(whole, AttachmentHeld::Whole(10_000));
    // Then it is here for everybody, and what the other brought is gone.
    let held = store.attachment_add(from("BR"), content, 50, other()).await.unwrap();
    assert_eq!(held, AttachmentHeld::Whole(10_000));
    let sent = with(1, &[content]);
    assert_eq!(one(&*store, accept(&sent, None)).await, Outcome::Accepted);
    assert_eq!(engine.body_files(), 1);
}

async fn a_recipient_keeps_what_it_was_given(engine: &impl Engine) {
    let store = engine.open().await;
    let (content, bytes) = file(4, 70_000);
    let sent = send_with("FR", &["KE"], Lane::Routine, 1, b"a picture", &[content]);
    let arrives = || receive(&sent, "IPSG", "KE", ReceiveAction::Deliver);
    assert_eq!(one(&*store, arrives()).await, Outcome::AttachmentMissing);
    upload(&*store, content, &bytes, 64 * 1024).await;
    assert!(matches!(one(&*store, arrives()).await, Outcome::Received(_)));
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    // Repeated, it needs nothing and changes nothing.
    assert!(matches!(one(&*store, arrives()).await, Outcome::Received(_)));
    let read = store.attachment_read(content.digest, 0, 1 << 20).await.unwrap();
    assert_eq!(read, Some(bytes));
    let arrived = store.inbox_message(sent.id()).await.unwrap().unwrap();
    assert_eq!(arrived.manifest.attachments, [content]);
}

macro_rules! over_every_engine {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[tokio::test] async fn $name() { super::$name(&super::Real::new()).await; })*
        }
        mod sim {
            $(#[tokio::test] async fn $name() { super::$name(&super::Sim::default()).await; })*
        }
    };
}

over_every_engine!(
    grown_shared_and_given_back,
    what_is_not_what_it_says_begins_anew,
    nobody_spoils_what_another_brings,
    a_recipient_keeps_what_it_was_given,
);

#[tokio::test]
async fn accepted_means_that_its_files_survive_the_power() {
    for seed in 0..40 {
        let sim = Sim::default();
        let store = sim.open().await;
        let (content, bytes) = file(5, 30_000);
        upload(&*store, content, &bytes, 7000).await;
        let sent = with(1, &[content]);
        assert_eq!(one(&*store, accept(&sent, None)).await, Outcome::Accepted);
        let (other, more) = file(6, 30_000);
        store.attachment_add(desk(), other, 0, more.slice(..20_000)).await.unwrap();
        let unsynced = if seed == 0 { Unsynced::Lost } else { Unsynced::ByChance(seed) };
        let after = Sim { disk: sim.disk.crash(unsynced), home: sim.home.crash() };
        let store = after.open().await;
        let read = store.attachment_read(content.digest, 0, 1 << 20).await.unwrap();
        assert_eq!(read, Some(bytes), "seed {seed}");
        // What was coming in goes on from what is there, and what is wrong in it is found.
        let held = loop {
            let offset = match store.attachment(desk(), other.digest).await.unwrap() {
                AttachmentHeld::Part(offset) => offset,
                held => break held,
            };
            let from = usize::try_from(offset).unwrap();
            let to = (from + 7000).min(more.len());
            store.attachment_add(desk(), other, offset, more.slice(from..to)).await.unwrap();
        };
        assert_eq!(held, AttachmentHeld::Whole(30_000));
        let read = store.attachment_read(other.digest, 0, 1 << 20).await.unwrap();
        assert_eq!(read, Some(more), "seed {seed}");
    }
}

#[tokio::test]
async fn what_nobody_names_has_its_bound() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        crate::OpenOptions { staged_bytes: 100_000, ..super::fixture::options(directory.path()) };
    let (progress, _) = tokio::sync::watch::channel(crate::Progress::Reading);
    let store = crate::open_local(options, progress).await.unwrap();
    let (first, bytes) = file(7, 60_000);
    upload(&*store, first, &bytes, 60_000).await;
    let (second, more) = file(8, 60_000);
    let refused = store.attachment_add(desk(), second, 0, more.clone()).await.unwrap_err();
    assert!(matches!(refused, crate::StoreError::StagingFull { limit: 100_000 }), "{refused}");
    let sent = with(1, &[first]);
    assert_eq!(one(&*store, accept(&sent, None)).await, Outcome::Accepted);
    upload(&*store, second, &more, 60_000).await;
}
