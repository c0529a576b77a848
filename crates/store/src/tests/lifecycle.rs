//! Held and released, recalled, requeued: over every engine, and after each a start anew.

use std::sync::Arc;

use bureau_core::{Lane, receipt::ReceiptKind};

use super::fixture::{
    Engine, HOUR_MS, Real, Sent, Sim, accept, at, code, give_up, receipt, receive, send, send_as,
    take,
};
use crate::contract::{
    Accept, Held, Hold, HoldReason, Operation, Outcome, Recall, ReceiveAction, Received, Release,
    State, Store, TimerKind, TrackedRecipient, Turned,
};

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
    held_is_out_of_the_queue_until_released,
    held_expires_and_hears_receipts,
    recalled_is_gone_unless_it_arrived,
    recalled_after_a_start_may_have_left,
    scheduled_goes_at_its_time_and_may_be_held_longer,
    dead_letters_are_listed_and_requeued_once,
    what_may_be_requeued_keeps_its_files,
    a_relay_holds_and_answers_as_if_it_waited,
    peers_are_held,
);

const DONE: Outcome = Outcome::Turned(Turned::Done { may_have_left: false });
const ALREADY: Outcome = Outcome::Turned(Turned::Already);
const UNKNOWN: Outcome = Outcome::Turned(Turned::Unknown);

async fn one(store: &dyn Store, operation: Operation) -> Outcome {
    store.commit(vec![operation]).await.unwrap().remove(0)
}

async fn look(store: &dyn Store, sent: &Sent, recipient: &str) -> TrackedRecipient {
    let tracked = store.track(sent.id()).await.unwrap().unwrap();
    let found = tracked.recipients.into_iter().find(|track| track.recipient == code(recipient));
    found.unwrap()
}

async fn state(store: &dyn Store, sent: &Sent, recipient: &str) -> State {
    look(store, sent, recipient).await.state
}

/// Closes and opens again.
async fn again(engine: &impl Engine, store: Arc<dyn Store>) -> Arc<dyn Store> {
    store.close().await.unwrap();
    drop(store);
    engine.open().await
}

fn held(reason: HoldReason) -> Held {
    let (since, desk) = (at(2), "ops".parse().ok());
    Held { reason, since, until: None, desk, note: "a word".to_owned() }
}

fn hold(sent: &Sent, recipient: &str, reason: HoldReason) -> Operation {
    let (message, recipient, may_have_left) = (sent.id(), code(recipient), false);
    Operation::Hold(Box::new(Hold { message, recipient, held: held(reason), may_have_left }))
}

fn release_at(sent: &Sent, recipient: &str, when_due: bool, ms: i64) -> Operation {
    let (message, recipient, now) = (sent.id(), code(recipient), at(ms));
    Operation::Release(Box::new(Release { message, recipient, when_due, now }))
}

fn release(sent: &Sent, recipient: &str) -> Operation {
    release_at(sent, recipient, false, 5)
}

fn recall(sent: &Sent, recipient: &str, may_have_left: bool) -> Operation {
    let (message, recipient, now) = (sent.id(), code(recipient), at(4));
    let desk = "desk".parse().unwrap();
    Operation::Recall(Box::new(Recall { message, recipient, desk, may_have_left, now }))
}

fn with(operation: Operation, change: impl FnOnce(&mut Accept)) -> Operation {
    let Operation::Accept(mut accept) = operation else { panic!("no accept") };
    change(&mut accept);
    Operation::Accept(accept)
}

async fn waiting(store: &dyn Store) -> Vec<bureau_core::MessageId> {
    let queued = store.queued(code("KE"), Lane::Routine, 0, 99, usize::MAX).await.unwrap();
    queued.into_iter().map(|queued| queued.entry.message).collect()
}

fn expired(sent: &Sent, signed_by: &str) -> Operation {
    give_up(receipt(sent, "KE", ReceiptKind::Expired, signed_by, at(HOUR_MS)))
}

async fn held_is_out_of_the_queue_until_released(engine: &impl Engine) {
    let store = engine.open().await;
    let (first, second) = (send(&["KE"], 1), send(&["KE"], 2));
    store.commit(vec![accept(&first, None), accept(&second, None)]).await.unwrap();
    assert_eq!(one(&*store, hold(&first, "KE", HoldReason::Operator)).await, DONE);
    assert_eq!(one(&*store, hold(&first, "KE", HoldReason::Poison)).await, ALREADY);
    assert_eq!(one(&*store, hold(&first, "BR", HoldReason::Operator)).await, UNKNOWN);
    assert_eq!(one(&*store, release(&second, "KE")).await, ALREADY);
    let store = again(engine, store).await;
    assert_eq!(waiting(&*store).await, [second.id()]);
    assert_eq!((store.depth(code("KE")), store.held_depths()[0].messages), (1, 1));
    let track = look(&*store, &first, "KE").await;
    assert_eq!((track.state, track.held), (State::Held, Some(held(HoldReason::Operator))));
    assert_eq!(track.position, None);
    let page = store.held_page(None, None, 9).await.unwrap();
    assert_eq!((page.len(), page[0].message, page[0].lane), (1, first.id(), Lane::Routine));
    let after = Some((code("KE"), first.id()));
    assert!(store.held_page(Some(code("KE")), after, 9).await.unwrap().is_empty());
    assert!(store.held_page(Some(code("BR")), None, 9).await.unwrap().is_empty());

    let mut changes = store.changes();
    // It was here before this start, so a peer may have been offered it then.
    let left = Outcome::Turned(Turned::Done { may_have_left: false });
    assert_eq!(one(&*store, release(&first, "KE")).await, left);
    assert_eq!(changes.recv().await.unwrap().destinations, [code("KE")]);
    assert_eq!(waiting(&*store).await, [second.id(), first.id()], "at the end");
    assert!(store.held_depths().is_empty());
    assert_eq!(look(&*store, &first, "KE").await.held, None);
}

async fn held_expires_and_hears_receipts(engine: &impl Engine) {
    let store = engine.open().await;
    let messages: Vec<_> = (1..=4).map(|n| send(&["KE"], n)).collect();
    for sent in &messages {
        one(&*store, accept(sent, None)).await;
        one(&*store, hold(sent, "KE", HoldReason::Poison)).await;
    }
    let taken = |sent, kind, by: &str| take(receipt(sent, "KE", kind, by, at(3)), by);
    assert_eq!(one(&*store, expired(&messages[0], "FR")).await, Outcome::GivenUp(true));
    // These were on their way when they were held.
    for (sent, kind, by) in [
        (&messages[1], ReceiptKind::Delivered, "KE"),
        (&messages[2], ReceiptKind::Custody, "IPSG"),
        (&messages[3], ReceiptKind::Refused, "KE"),
    ] {
        assert_eq!(one(&*store, taken(sent, kind, by)).await, Outcome::ReceiptTaken);
    }
    let store = again(engine, store).await;
    let mut states = Vec::new();
    for sent in &messages {
        states.push(state(&*store, sent, "KE").await);
    }
    assert_eq!(states, [State::Expired, State::Delivered, State::Relayed, State::Refused]);
    assert!(store.held_depths().is_empty());
    assert!(store.held_page(None, None, 9).await.unwrap().is_empty());
}

async fn recalled_is_gone_unless_it_arrived(engine: &impl Engine) {
    let store = engine.open().await;
    let body = vec![b'x'; 100_000];
    let sent = send_as("FR", &["BR", "KE", "ZA"], Lane::Routine, 1, &body);
    one(&*store, accept(&sent, None)).await;
    one(&*store, hold(&sent, "BR", HoldReason::Operator)).await;
    assert_eq!(one(&*store, recall(&sent, "BR", false)).await, DONE);
    assert_eq!(one(&*store, recall(&sent, "KE", false)).await, DONE);
    assert_eq!(one(&*store, recall(&sent, "KE", false)).await, ALREADY);
    assert_eq!(one(&*store, recall(&send(&["KE"], 9), "KE", false)).await, UNKNOWN);
    assert_eq!(one(&*store, release(&sent, "BR")).await, not_here(State::Recalled, None));
    let offered = Outcome::Turned(Turned::Done { may_have_left: true });
    assert_eq!(one(&*store, recall(&sent, "ZA", true)).await, offered);
    assert_eq!(engine.body_files(), 0, "nobody needs it");
    let store = again(engine, store).await;
    assert!(waiting(&*store).await.is_empty());
    let track = look(&*store, &sent, "ZA").await;
    let recalled = track.recalled.unwrap();
    assert_eq!(
        (track.state, recalled.time, recalled.may_have_left),
        (State::Recalled, at(4), true)
    );
    // It had arrived: the recipient's word counts. That time went by does not.
    let receipt = |to: &str, kind| receipt(&sent, to, kind, to, at(HOUR_MS));
    one(&*store, take(receipt("ZA", ReceiptKind::Delivered), "ZA")).await;
    assert_eq!(state(&*store, &sent, "ZA").await, State::Delivered);
    one(&*store, take(receipt("KE", ReceiptKind::Expired), "KE")).await;
    assert_eq!(state(&*store, &sent, "KE").await, State::Recalled);
    let custody = super::fixture::receipt(&sent, "BR", ReceiptKind::Custody, "IPSG", at(5));
    one(&*store, take(custody, "IPSG")).await;
    let track = look(&*store, &sent, "BR").await;
    assert_eq!((track.state, track.holder), (State::Relayed, Some(code("IPSG"))));
    let elsewhere = not_here(State::Relayed, Some(code("IPSG")));
    assert_eq!(one(&*store, recall(&sent, "BR", false)).await, elsewhere);
    assert!(store.dead_page(None, None, 9).await.unwrap().is_empty());
}

fn not_here(state: State, holder: Option<bureau_core::BureauCode>) -> Outcome {
    Outcome::Turned(Turned::NotHere(state, holder))
}

async fn recalled_after_a_start_may_have_left(engine: &impl Engine) {
    let store = engine.open().await;
    let (first, second) = (send(&["KE"], 1), send(&["KE"], 2));
    one(&*store, accept(&first, None)).await;
    one(&*store, accept(&second, None)).await;
    let store = again(engine, store).await;
    let offered = Outcome::Turned(Turned::Done { may_have_left: true });
    assert_eq!(one(&*store, recall(&first, "KE", false)).await, offered);
    // Held and released it is a new place in the queue, and the same doubt.
    assert_eq!(one(&*store, hold(&second, "KE", HoldReason::Operator)).await, offered);
    assert_eq!(one(&*store, release(&second, "KE")).await, offered);
    assert_eq!(one(&*store, recall(&second, "KE", false)).await, offered);
}

async fn scheduled_goes_at_its_time_and_may_be_held_longer(engine: &impl Engine) {
    let store = engine.open().await;
    let (first, second) = (send(&["KE"], 1), send(&["KE"], 2));
    let later = |sent: &Sent| with(accept(sent, None), |accept| accept.send_at = Some(at(60_000)));
    store.commit(vec![later(&first), later(&second)]).await.unwrap();
    let track = look(&*store, &first, "KE").await;
    let scheduled = track.held.unwrap();
    assert_eq!((scheduled.reason, scheduled.until), (HoldReason::Scheduled, Some(at(60_000))));
    assert_eq!(store.track(first.id()).await.unwrap().unwrap().send_at, Some(at(60_000)));
    let store = again(engine, store).await;
    assert!(waiting(&*store).await.is_empty() && store.depth(code("KE")) == 0);
    assert_eq!(one(&*store, release_at(&first, "KE", true, 59_999)).await, ALREADY);
    assert!(store.due(at(59_999), 9).await.unwrap().is_empty());

    // An operator's word is above the sender's time, until he lets go.
    assert_eq!(one(&*store, hold(&second, "KE", HoldReason::Operator)).await, DONE);
    assert_eq!(one(&*store, release_at(&second, "KE", false, 30_000)).await, DONE);
    assert_eq!(state(&*store, &second, "KE").await, State::Held);
    assert_eq!(one(&*store, hold(&second, "KE", HoldReason::Operator)).await, DONE);
    let due = store.due(at(65_000), 9).await.unwrap();
    assert!(due.iter().all(|timer| timer.kind == TimerKind::Release), "{due:?}");
    for (sent, outcome) in [(&first, DONE), (&second, ALREADY)] {
        assert_eq!(one(&*store, release_at(sent, "KE", true, 65_000)).await, outcome);
    }
    for timer in due {
        one(&*store, Operation::TimerHandled { timer, now: at(65_000) }).await;
    }
    assert_eq!(waiting(&*store).await, [first.id()]);
    assert_eq!(one(&*store, release_at(&second, "KE", false, 70_000)).await, DONE);
    assert_eq!(waiting(&*store).await, [first.id(), second.id()]);
    assert!(store.due(at(70_000), 9).await.unwrap().is_empty());
}

async fn dead_letters_are_listed_and_requeued_once(engine: &impl Engine) {
    let store = engine.open().await;
    let messages: Vec<_> = (1..=3).map(|n| send(&["KE"], n)).collect();
    for sent in &messages {
        one(&*store, accept(sent, None)).await;
    }
    one(&*store, expired(&messages[0], "FR")).await;
    let refused = receipt(&messages[1], "KE", ReceiptKind::Refused, "KE", at(3));
    one(&*store, take(refused, "KE")).await;
    one(&*store, take(receipt(&messages[2], "KE", ReceiptKind::Delivered, "KE", at(3)), "KE"))
        .await;
    let store = again(engine, store).await;
    let page = store.dead_page(None, None, 9).await.unwrap();
    let shown: Vec<_> = page.iter().map(|dead| (dead.position.message, dead.state)).collect();
    let (late, first) = ((messages[0].id(), State::Expired), (messages[1].id(), State::Refused));
    assert_eq!(shown, [late, first], "the latest first");
    assert_eq!(store.dead_page(None, Some(page[0].position), 9).await.unwrap(), page[1..]);
    assert!(store.dead_page(Some(code("BR")), None, 9).await.unwrap().is_empty());
    assert_eq!(store.dead_letters(messages[1].id()).await.unwrap(), page[1..]);

    let requeue = |new: &Sent, old: &Sent| {
        with(accept(new, None), |accept| accept.requeue_of = Some(old.id()))
    };
    let (new, other) = (send(&["KE"], 4), send(&["KE"], 5));
    let alive = Outcome::NotRequeued(None);
    assert_eq!(one(&*store, requeue(&new, &messages[2])).await, alive);
    assert_eq!(one(&*store, requeue(&new, &messages[0])).await, Outcome::Accepted);
    let before = Outcome::NotRequeued(Some(new.id()));
    assert_eq!(one(&*store, requeue(&other, &messages[0])).await, before);
    assert_eq!(store.track(other.id()).await.unwrap(), None);
    let store = again(engine, store).await;
    assert_eq!(waiting(&*store).await, [new.id()]);
    let dead = look(&*store, &messages[0], "KE").await.dead.unwrap();
    assert_eq!(dead.requeued.unwrap().message, new.id());

    // Delivered after all: no dead letter any more.
    let late = receipt(&messages[1], "KE", ReceiptKind::Delivered, "KE", at(4));
    one(&*store, take(late, "KE")).await;
    assert_eq!(store.dead_page(None, None, 9).await.unwrap().len(), 1);
    assert_eq!(look(&*store, &messages[1], "KE").await.dead, None);
    forget(&*store).await;
    assert!(store.dead_page(None, None, 9).await.unwrap().is_empty());
}

/// Lets all timers go by.
async fn forget(store: &dyn Store) {
    let mut now = at(HOUR_MS);
    for _ in 0..60 {
        now = now.plus_ms(6 * HOUR_MS);
        for timer in store.due(now, 99).await.unwrap() {
            if timer.kind == TimerKind::Expire {
                for message in &timer.messages {
                    let tracked = store.track(*message).await.unwrap().unwrap();
                    assert!(tracked.expires <= now, "a warning comes first");
                }
            }
            one(store, Operation::TimerHandled { timer, now }).await;
        }
    }
}

async fn what_may_be_requeued_keeps_its_files(engine: &impl Engine) {
    let store = engine.open().await;
    let body = vec![b'x'; 100_000];
    let old = send_as("FR", &["KE"], Lane::Routine, 1, &body);
    one(&*store, accept(&old, None)).await;
    one(&*store, expired(&old, "FR")).await;
    assert_eq!(engine.body_files(), 1);
    assert_eq!(store.track(old.id()).await.unwrap().unwrap().body.len(), body.len());
    let new = send_as("FR", &["KE"], Lane::Routine, 2, &vec![b'y'; 100_000]);
    let requeue = with(accept(&new, None), |accept| accept.requeue_of = Some(old.id()));
    assert_eq!(one(&*store, requeue.clone()).await, Outcome::Accepted);
    assert_eq!(engine.body_files(), 1, "the new one; the old one is not needed");
    let again = send_as("FR", &["KE"], Lane::Routine, 3, &vec![b'z'; 100_000]);
    let again = with(accept(&again, None), |accept| accept.requeue_of = Some(old.id()));
    assert_eq!(one(&*store, again).await, Outcome::NotRequeued(Some(new.id())));
    assert_eq!(engine.body_files(), 1, "what was written for nothing is gone");
    one(&*store, expired(&new, "FR")).await;
    forget(&*store).await;
    assert_eq!(engine.body_files(), 0, "with the memory of it");
}

async fn a_relay_holds_and_answers_as_if_it_waited(engine: &impl Engine) {
    let store = engine.open().await;
    let foreign = send_as("BR", &["KE"], Lane::Routine, 1, b"x");
    one(&*store, receive(&foreign, "BR", "FR", ReceiveAction::Relay)).await;
    assert_eq!(one(&*store, hold(&foreign, "KE", HoldReason::Operator)).await, DONE);
    assert_eq!(one(&*store, recall(&foreign, "KE", false)).await, UNKNOWN, "not ours to recall");
    let Outcome::Received(repeat) =
        one(&*store, receive(&foreign, "BR", "FR", ReceiveAction::Relay)).await
    else {
        panic!("not received");
    };
    assert!(matches!(repeat.as_slice(), [Received::Repeat(_)]));
    let other = one(&*store, receive(&foreign, "ZA", "FR", ReceiveAction::Relay)).await;
    assert_eq!(other, Outcome::Received(vec![Received::PassedOn(code("FR"))]));
    assert!(store.track(foreign.id()).await.unwrap().unwrap().manifest.is_some());
    assert_eq!(one(&*store, expired(&foreign, "FR")).await, Outcome::GivenUp(true));
    assert_eq!(store.receipts(code("BR"), 0, 9).await.unwrap().len(), 1);
    assert!(store.track(foreign.id()).await.unwrap().unwrap().manifest.is_none());
    assert!(store.dead_page(None, None, 9).await.unwrap().is_empty(), "its origin's to keep");
}

async fn peers_are_held(engine: &impl Engine) {
    let store = engine.open().await;
    let word =
        |held: Option<Held>| Operation::HoldPeer { peer: code("KE"), held: held.map(Box::new) };
    assert_eq!(one(&*store, word(None)).await, ALREADY);
    assert_eq!(one(&*store, word(Some(held(HoldReason::Operator)))).await, DONE);
    assert_eq!(one(&*store, word(Some(held(HoldReason::Operator)))).await, ALREADY);
    let store = again(engine, store).await;
    let peers = store.held_peers().await.unwrap();
    assert_eq!(peers, [(code("KE"), held(HoldReason::Operator))]);
    assert_eq!(one(&*store, word(None)).await, DONE);
    assert!(store.held_peers().await.unwrap().is_empty());
}
