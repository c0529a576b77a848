//! Where two things meet: a repeat and a release, a loop and a lost answer, a timer and a late
//! comer. Each of these once lost something or left something behind.

use std::time::{Duration, Instant};

use bureau_core::{
    Lane, Receipt, Verified,
    receipt::{ReceiptKind, stored_statement},
};

use super::fixture::{
    Engine, HOUR_MS, Real, Sent, Sim, accept, at, code, give_up, receipt, receive, send, send_as,
    take,
};
use crate::{
    contract::{
        Operation, Outcome, ReceiptIgnored, ReceiveAction, Received, State, Store, TimerKind,
    },
    disk::{Disk as _, DiskFile as _},
};

async fn one(store: &dyn Store, operation: Operation) -> Outcome {
    store.commit(vec![operation]).await.unwrap().remove(0)
}

fn large(sequence: u64) -> Sent {
    send_as("FR", &["KE"], Lane::Routine, sequence, &vec![b'x'; 50_000])
}

async fn state(store: &dyn Store, sent: &Sent) -> State {
    store.track(sent.id()).await.unwrap().unwrap().recipients[0].state
}

async fn waits(store: &dyn Store, sent: &Sent) -> bool {
    let queued = store.queued(code("KE"), Lane::Routine, 0, 99, usize::MAX).await.unwrap();
    queued.iter().any(|queued| queued.entry.message == sent.id())
}

#[tokio::test]
async fn what_is_not_kept_leaves_no_file() {
    let engine = Sim::default();
    let store = engine.open().await;
    let refused = large(1);
    one(&*store, receive(&refused, "FR", "KE", ReceiveAction::Refuse)).await;
    assert_eq!(engine.body_files(), 0, "refused");

    // Passed on, and brought again by the hop that missed the answer.
    let passed = large(2);
    one(&*store, receive(&passed, "FR", "IPSG", ReceiveAction::Relay)).await;
    assert_eq!(engine.body_files(), 1);
    one(&*store, take(receipt(&passed, "KE", ReceiptKind::Custody, "ZA", at(2)), "ZA")).await;
    assert_eq!(engine.body_files(), 0);
    let again = one(&*store, receive(&passed, "FR", "IPSG", ReceiveAction::Relay)).await;
    assert!(
        matches!(again, Outcome::Received(ref all) if matches!(all[..], [Received::Repeat(_)]))
    );
    assert_eq!(engine.body_files(), 0, "repeated");

    // Delivered, and asked for again under the same request id.
    let own = large(3);
    one(&*store, accept(&own, Some(1))).await;
    one(&*store, take(receipt(&own, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE")).await;
    let again = one(&*store, accept(&own, Some(1))).await;
    assert!(matches!(again, Outcome::RequestRepeated(_)), "{again:?}");
    assert_eq!(engine.body_files(), 0, "asked again");
}

#[tokio::test]
async fn a_file_that_no_record_names_goes_after_a_start() {
    let engine = Sim::default();
    let store = engine.open().await;
    let kept = large(1);
    one(&*store, accept(&kept, None)).await;
    store.close().await.unwrap();
    drop(store);
    // The power went after the file and before the record.
    let path = std::path::Path::new("/store/bodies").join("ab".repeat(32));
    engine.disk.create(&path).unwrap().write_at(0, b"nobody's").unwrap();
    let store = engine.open().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while engine.disk.exists(&path) {
        assert!(Instant::now() < deadline, "it stays");
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.body_files(), 1);
    assert!(waits(&*store, &kept).await);
}

/// What a hop does with an answer to a message it offered: it takes the custody it is given.
async fn settle(hop: &dyn Store, peer: &str, answer: Outcome, custody: Verified<Receipt>) {
    let Outcome::Received(answers) = answer else { panic!("{answer:?}") };
    match &answers[0] {
        Received::Fresh => {}
        Received::Repeat(first) => {
            let first = stored_statement(first.clone()).unwrap();
            assert_eq!((first.kind, first.signer), (ReceiptKind::Custody, code(peer)));
        }
        Received::PassedOn(_) | Received::Forked(_) => return,
    }
    one(hop, take(custody, peer)).await;
}

#[tokio::test]
async fn a_loop_of_relays_and_a_lost_answer_lose_nothing() {
    let engines = [Sim::default(), Sim::default(), Sim::default()];
    let (hub, south, west) =
        (engines[0].open().await, engines[1].open().await, engines[2].open().await);
    let sent = send(&["KE"], 1);
    let bring = |from: &str, here: &str| receive(&sent, from, here, ReceiveAction::Relay);
    let custody = |by: &str| receipt(&sent, "KE", ReceiptKind::Custody, by, at(1));
    one(&*hub, bring("FR", "IPSG")).await;
    // IPSG offers it to ZA, whose answer is lost; ZA passes it on to BR, and BR's route leads back.
    one(&*south, bring("IPSG", "ZA")).await;
    let answer = one(&*west, bring("ZA", "BR")).await;
    settle(&*south, "BR", answer, custody("BR")).await;
    let answer = one(&*hub, bring("BR", "IPSG")).await;
    settle(&*west, "IPSG", answer, custody("IPSG")).await;
    // IPSG offers it to ZA again and gets the answer that was lost.
    let answer = one(&*south, bring("IPSG", "ZA")).await;
    settle(&*hub, "ZA", answer, custody("ZA")).await;
    let mut holders = 0;
    for store in [&hub, &south, &west] {
        holders += usize::from(waits(&**store, &sent).await);
    }
    assert!(holders > 0, "every one of them relies on the next");
}

#[tokio::test]
async fn a_recipient_that_only_acknowledged_releases_any_hop() {
    let store = Sim::default().open().await;
    let sent = send(&["KE"], 1);
    one(&*store, receive(&sent, "FR", "IPSG", ReceiveAction::Relay)).await;
    let word = receipt(&sent, "KE", ReceiptKind::Acknowledged, "KE", at(2));
    one(&*store, take(word.clone(), "KE")).await;
    let answer = one(&*store, receive(&sent, "ZA", "IPSG", ReceiveAction::Relay)).await;
    assert_eq!(answer, Outcome::Received(vec![Received::Repeat(word.encode())]));
}

#[tokio::test]
async fn who_holds_nothing_gives_nothing_up() {
    let store = Sim::default().open().await;
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Custody, "IPSG", at(1)), "IPSG")).await;
    let ignored = Outcome::ReceiptIgnored(ReceiptIgnored::NotItsToGive);
    for kind in [ReceiptKind::Refused, ReceiptKind::Expired] {
        // It brings its own word, but IPSG has custody.
        let word = receipt(&sent, "KE", kind, "ZA", at(HOUR_MS));
        assert_eq!(one(&*store, take(word, "ZA")).await, ignored);
        assert_eq!(state(&*store, &sent).await, State::Relayed);
    }
    // The recipient's refusal is final: a custodian's clock does not undo it.
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Refused, "KE", at(2)), "IPSG")).await;
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Expired, "IPSG", at(HOUR_MS)), "IPSG"))
        .await;
    assert_eq!(state(&*store, &sent).await, State::Refused);
}

#[tokio::test]
async fn who_comes_while_a_timer_is_handled_is_not_forgotten() {
    let store = Sim::default().open().await;
    let (early, late) = (send(&["KE"], 1), send(&["KE"], 2));
    one(&*store, accept(&early, None)).await;
    let now = at(HOUR_MS);
    let due = store.due(now, 9).await.unwrap();
    one(&*store, accept(&late, None)).await;
    one(&*store, give_up(receipt(&early, "KE", ReceiptKind::Expired, "FR", now))).await;
    for timer in due {
        one(&*store, Operation::TimerHandled { timer, now }).await;
    }
    let left = store.due(now, 9).await.unwrap();
    let left: Vec<_> = left.iter().map(|timer| (timer.kind, timer.messages.clone())).collect();
    let expected = [(TimerKind::Warn, vec![late.id()]), (TimerKind::Expire, vec![early.id()])];
    assert_eq!(left, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_read_while_it_goes_is_whole_or_gone() {
    let engine = Real::new();
    let store = engine.open().await;
    for turn in 0..60 {
        let sent = large(turn + 1);
        one(&*store, accept(&sent, None)).await;
        let reading = tokio::spawn({
            let store = std::sync::Arc::clone(&store);
            let message = sent.id();
            async move {
                for _ in 0..40 {
                    let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await;
                    assert!(queued.unwrap().iter().all(|queued| queued.body.len() == 50_000));
                    store.track(message).await.unwrap().unwrap();
                }
            }
        });
        one(&*store, take(receipt(&sent, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE")).await;
        reading.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_goes_away_takes_no_body_with_it() {
    let engine = Real::new();
    let store = engine.open().await;
    for turn in 0..100 {
        let (first, second) = (large(2 * turn + 1), large(2 * turn + 2));
        let delivered =
            |sent: &Sent| take(receipt(sent, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE");
        one(&*store, accept(&first, None)).await;
        // The second caller enters the store while the first one's body is let go of, and leaves.
        let release = {
            let (store, release) = (std::sync::Arc::clone(&store), delivered(&first));
            async move { store.commit(vec![release]).await }
        };
        let commit = {
            let (store, accept) = (std::sync::Arc::clone(&store), accept(&second, None));
            tokio::spawn(async move { store.commit(vec![accept]).await })
        };
        tokio::time::sleep(Duration::from_micros(turn * 20 % 1000)).await;
        let release = tokio::spawn(release);
        tokio::time::sleep(Duration::from_micros(turn * 7 % 500)).await;
        commit.abort();
        drop(commit.await);
        release.await.unwrap().unwrap();
        // Whatever was before this is visible after it.
        one(&*store, Operation::ReceiptsTaken(Vec::new())).await;
        // The second was accepted or not; if it was, its body is there.
        let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
        assert!(queued.iter().all(|queued| queued.body.len() == 50_000));
        one(&*store, delivered(&second)).await;
    }
}
