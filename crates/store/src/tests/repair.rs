//! What an origin does with what does not get on, and what a recipient finds missing.

use bureau_core::{
    Epoch, Lane, Verified,
    high_water::{CountOf, HighWater, Mark, Need, Shortfall, stored_mark},
    ranges::Ranges,
    receipt::ReceiptKind,
};

use super::fixture::{
    Engine, HOUR_MS, Sent, Sim, accept, at, code, receipt, receive, send, send_as, signer, take,
};
use crate::contract::{
    Operation, Outcome, ReceiveAction, Received, Refilled, Rerouted, State, Store, TimerKind,
    TrackedRecipient,
};

async fn one(store: &dyn Store, operation: Operation) -> Outcome {
    store.commit(vec![operation]).await.unwrap().remove(0)
}

async fn track(store: &dyn Store, sent: &Sent) -> TrackedRecipient {
    store.track(sent.id()).await.unwrap().unwrap().recipients.remove(0)
}

/// Minutes until the next look at custody, from the time of the last receipt.
async fn next_look(store: &dyn Store) -> Option<i64> {
    let far = store.due(at(HOUR_MS), 99).await.unwrap();
    let timer = far.into_iter().find(|timer| timer.kind == TimerKind::Reroute)?;
    let tick = i64::try_from(timer.tick).unwrap() * 5000;
    let minutes = (tick - at(2).as_ms()) / 60_000;
    one(store, Operation::TimerHandled { timer, now: at(HOUR_MS) }).await;
    Some(minutes)
}

#[tokio::test]
async fn custody_without_the_recipients_word_goes_another_way() {
    let store = Sim::default().open().await;
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    let before = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap().remove(0);
    let custody = |by: &str| take(receipt(&sent, "KE", ReceiptKind::Custody, by, at(2)), by);
    let reroute =
        |ms| Operation::Reroute { message: sent.id(), recipient: code("KE"), now: at(ms) };
    assert_eq!(one(&*store, reroute(1)).await, Outcome::Rerouted(None), "it waits here");
    one(&*store, custody("IPSG")).await;
    assert_eq!(next_look(&*store).await, Some(10));
    assert_eq!(one(&*store, reroute(599_000)).await, Outcome::Rerouted(None), "not overdue");

    let rerouted = Rerouted { holder: Some(code("IPSG")), since: at(2), reroutes: 1 };
    assert_eq!(one(&*store, reroute(601_000)).await, Outcome::Rerouted(Some(rerouted)));
    assert_eq!(one(&*store, reroute(601_000)).await, Outcome::Rerouted(None), "it waits already");
    let again = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap().remove(0);
    assert_eq!(again.entry.attachments, 0);
    assert_eq!((&again.slip, &again.signed_manifest), (&before.slip, &before.signed_manifest));
    assert_eq!(again.entry.slip_digest, before.entry.slip_digest);
    assert_eq!(store.depth(code("KE")), 1);

    // The same relay answers with the same receipt: it counts, and is watched twice as long.
    assert_eq!(one(&*store, custody("IPSG")).await, Outcome::ReceiptTaken);
    let found = track(&*store, &sent).await;
    assert_eq!((found.state, found.holder), (State::Relayed, Some(code("IPSG"))));
    assert_eq!((found.custody.reroutes, found.custody.overdue_at), (1, Some(code("IPSG"))));
    assert_eq!(next_look(&*store).await, Some(20));
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Delivered, "KE", at(3)), "IPSG")).await;
    assert_eq!(one(&*store, reroute(HOUR_MS)).await, Outcome::Rerouted(None), "it is there");
}

#[tokio::test]
async fn who_passed_it_on_says_where_it_is() {
    let store = Sim::default().open().await;
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    let word = |kind, by: &str| take(receipt(&sent, "KE", kind, by, at(2)), by);
    one(&*store, word(ReceiptKind::PassedOn, "ZA")).await;
    assert_eq!(
        track(&*store, &sent).await.state,
        State::Queued,
        "its own word does not release it"
    );
    one(&*store, word(ReceiptKind::Custody, "IPSG")).await;
    let reroute =
        Operation::Reroute { message: sent.id(), recipient: code("KE"), now: at(601_000) };
    assert!(matches!(one(&*store, reroute).await, Outcome::Rerouted(Some(_))));
    // Sent again, it finds that ZA has it already, from IPSG.
    assert_eq!(one(&*store, word(ReceiptKind::PassedOn, "ZA")).await, Outcome::ReceiptTaken);
    assert_eq!(track(&*store, &sent).await.state, State::Relayed);
    assert_eq!(store.depth(code("KE")), 0);
}

#[tokio::test]
async fn what_is_sent_again_survives_a_restart_and_is_forgotten_whole() {
    let engine = Sim::default();
    let store = engine.open().await;
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Custody, "IPSG", at(2)), "IPSG")).await;
    let reroute =
        Operation::Reroute { message: sent.id(), recipient: code("KE"), now: at(601_000) };
    one(&*store, reroute).await;
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].slip, sent.slip("KE").encode());
}

fn deliver(sent: &Sent) -> Operation {
    receive(sent, "FR", "KE", ReceiveAction::Deliver)
}

async fn arrive(store: &dyn Store, sent: &Sent) -> Received {
    match one(store, deliver(sent)).await {
        Outcome::Received(mut received) => received.remove(0),
        other => panic!("{other:?}"),
    }
}

/// What FR says of its count for KE.
async fn mark(store: &dyn Store, ms: i64) -> Verified<HighWater> {
    let sent = store.sent().await.unwrap().remove(0);
    let mut pending = Ranges::of(sent.first, sent.last).without(&sent.handed);
    pending = pending.without(&sent.voided);
    statement(Mark {
        count: CountOf {
            origin: code("FR"),
            recipient: sent.recipient,
            epoch: Epoch([1; 16]),
            lane: sent.lane,
        },
        first: sent.first,
        last: sent.last,
        slip: sent.slip,
        voided: sent.voided,
        pending,
        time: at(ms),
    })
}

fn statement(mark: Mark) -> Verified<HighWater> {
    let signer = signer(mark.count.origin.as_str());
    let mut group = signer.group();
    let ticket = group.add(HighWater::new(mark));
    group.sign().unwrap().take(ticket).unwrap()
}

/// What KE misses, by the statement it keeps.
async fn missing(store: &dyn Store) -> Ranges {
    let counted = store.counted().await.unwrap();
    let Some(counted) = counted.first() else { return Ranges::default() };
    stored_mark(counted.statement.clone()).unwrap().missing(&counted.arrived)
}

#[tokio::test]
async fn two_slips_for_one_place_are_a_fork_and_refused() {
    let store = Sim::default().open().await;
    let first = send(&["KE"], 1);
    let second = send(&["KE"], 2);
    assert_eq!(arrive(&*store, &first).await, Received::Fresh);
    assert_eq!(arrive(&*store, &second).await, Received::Fresh);
    // Another message in the second's place; and one that follows a second nobody sent.
    let other = send_as("FR", &["KE"], Lane::Routine, 2, b"another");
    let third = send(&["KE"], 3);
    for _ in 0..2 {
        assert_eq!(arrive(&*store, &other).await, Received::Forked(second.id()));
        assert_eq!(arrive(&*store, &third).await, Received::Forked(second.id()));
    }
    assert_eq!(store.inbox(0, 9, true, false).await.unwrap().len(), 2);
    // The other lane counts by itself, and what came before is known still.
    let flash = send_as("FR", &["KE"], Lane::Flash, 2, b"now");
    assert_eq!(arrive(&*store, &flash).await, Received::Fresh);
    assert!(matches!(arrive(&*store, &second).await, Received::Repeat(_)));
}

#[tokio::test]
async fn out_of_order_is_no_fork() {
    let store = Sim::default().open().await;
    let messages: Vec<_> = (1..=6).map(|sequence| send(&["KE"], sequence)).collect();
    for index in [3, 1, 5, 0, 2, 4, 3] {
        let received = arrive(&*store, &messages[index]).await;
        assert!(matches!(received, Received::Fresh | Received::Repeat(_)), "{index}: {received:?}");
    }
    assert_eq!(store.inbox(0, 9, true, false).await.unwrap().len(), 6);
}

#[tokio::test]
async fn what_left_and_did_not_come_is_missed_and_sent_again() {
    let (fr, ke) = (Sim::default().open().await, Sim::default().open().await);
    let messages: Vec<_> = (1..=6).map(|sequence| send(&["KE"], sequence)).collect();
    for sent in &messages {
        one(&*fr, accept(sent, None)).await;
    }
    assert_eq!(fr.sent().await.unwrap(), [], "nothing has left");
    let word = |sent: &Sent, kind, by: &str| take(receipt(sent, "KE", kind, by, at(2)), by);
    // The first arrived, the second a relay has, the third was refused, the sixth is lost by KE.
    one(&*ke, deliver(&messages[0])).await;
    one(&*fr, word(&messages[0], ReceiptKind::Delivered, "KE")).await;
    one(&*fr, word(&messages[1], ReceiptKind::Custody, "IPSG")).await;
    one(&*fr, word(&messages[2], ReceiptKind::Refused, "KE")).await;
    one(&*fr, word(&messages[5], ReceiptKind::Delivered, "KE")).await;
    let said = mark(&*fr, 10).await;
    assert_eq!(said.mark().slip, Some(messages[5].slip("KE").digest()));
    one(&*ke, Operation::TakeMark(Box::new(said.clone()))).await;
    let found = missing(&*ke).await;
    assert_eq!(found.numbers().collect::<Vec<_>>(), [2, 6], "waiting and voided are no gaps");

    let need = shortfall(said.mark(), found);
    let refill = || Operation::Refill { need: Box::new(need.clone()), after: 0, now: at(20) };
    let refilled = |queued, gone| Outcome::Refilled(Refilled { queued, gone, last: 0 });
    assert_eq!(one(&*fr, refill()).await, refilled(2, 0));
    assert_eq!(one(&*fr, refill()).await, refilled(0, 0), "they wait already");
    let queued = fr.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
    let again: Vec<_> = queued.iter().map(|queued| queued.entry.refills).collect();
    assert_eq!(again, [0, 0, 1, 1]);
    assert_eq!(queued[3].slip, messages[5].slip("KE").encode());
    // What waits again is not missed any more; an older statement does not count.
    one(&*ke, Operation::TakeMark(Box::new(mark(&*fr, 30).await))).await;
    one(&*ke, Operation::TakeMark(Box::new(said))).await;
    assert!(missing(&*ke).await.is_empty());
    // The answer counts although the same was said before.
    let delivered = || word(&messages[5], ReceiptKind::Delivered, "KE");
    assert_eq!(one(&*fr, delivered()).await, Outcome::ReceiptTaken);
    assert!(matches!(one(&*fr, delivered()).await, Outcome::ReceiptIgnored(_)));
}

fn shortfall(mark: &Mark, missing: Ranges) -> Verified<Need> {
    let signer = signer("KE");
    let mut group = signer.group();
    let ticket = group.add(Need::new(Shortfall { count: mark.count, missing, time: at(15) }));
    group.sign().unwrap().take(ticket).unwrap()
}

#[tokio::test]
async fn what_cannot_be_sent_again_is_voided() {
    let store = Sim::default().open().await;
    // A large body is given back when it is delivered.
    let large = send_as("FR", &["KE"], Lane::Routine, 1, &vec![b'x'; 50_000]);
    one(&*store, accept(&large, None)).await;
    one(&*store, take(receipt(&large, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE")).await;
    let said = mark(&*store, 10).await;
    let need = |missing| Box::new(shortfall(said.mark(), missing));
    let refill = |missing| Operation::Refill { need: need(missing), after: 0, now: at(20) };
    let gone = |gone| Outcome::Refilled(Refilled { queued: 0, gone, last: 0 });
    assert_eq!(one(&*store, refill(Ranges::of(1, 1))).await, gone(1));
    assert_eq!(store.sent().await.unwrap(), [], "nothing is missed of it now");
    // Numbers that were never given out change nothing, however many.
    assert_eq!(one(&*store, refill(Ranges::of(5, u64::MAX))).await, gone(0));
    let next = send(&["KE"], 2);
    one(&*store, accept(&next, None)).await;
    one(&*store, take(receipt(&next, "KE", ReceiptKind::Delivered, "KE", at(3)), "KE")).await;
    let sent = store.sent().await.unwrap().remove(0);
    assert_eq!((sent.last, sent.voided.count()), (2, 1));
}

#[tokio::test]
async fn a_relay_carries_again_what_its_recipient_lost() {
    let store = Sim::default().open().await;
    let sent = send(&["KE"], 1);
    let bring = |refills| match receive(&sent, "FR", "IPSG", ReceiveAction::Relay) {
        Operation::Receive(receive) => {
            Operation::Receive(Box::new(crate::contract::Receive { refills, ..*receive }))
        }
        other => other,
    };
    one(&*store, bring(0)).await;
    let delivered = || take(receipt(&sent, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE");
    one(&*store, delivered()).await;
    assert!(
        matches!(one(&*store, bring(0)).await, Outcome::Received(of) if of != [Received::Fresh])
    );
    for _ in 0..2 {
        let again = one(&*store, bring(1)).await;
        let fresh = again == Outcome::Received(vec![Received::Fresh]);
        assert_eq!(store.depth(code("KE")), u64::from(fresh), "{again:?}");
        one(&*store, delivered()).await;
        assert_eq!(store.depth(code("KE")), 0);
    }
}

#[tokio::test]
async fn a_new_epoch_begins_counts_anew_and_survives() {
    let engine = Sim::default();
    let store = engine.open().await;
    let before = store.epoch();
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    one(&*store, Operation::BeginEpoch(Epoch([9; 16]))).await;
    assert_ne!(before, Epoch([9; 16]));
    assert_eq!(store.epoch(), Epoch([9; 16]));
    one(&*store, take(receipt(&sent, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE")).await;
    assert_eq!(store.sent().await.unwrap(), [], "it is of the epoch before");
    let next = send(&["KE"], 2);
    one(&*store, accept(&next, None)).await;
    one(&*store, take(receipt(&next, "KE", ReceiptKind::Delivered, "KE", at(3)), "KE")).await;
    let peer = |epoch| Operation::PeerEpoch { peer: code("KE"), epoch: Epoch(epoch) };
    assert_eq!(one(&*store, peer([5; 16])).await, Outcome::PeerEpoch(None));
    assert_eq!(one(&*store, peer([6; 16])).await, Outcome::PeerEpoch(Some(Epoch([5; 16]))));
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    assert_eq!(store.epoch(), Epoch([9; 16]));
    assert_eq!(one(&*store, peer([6; 16])).await, Outcome::PeerEpoch(None));
    let sent = store.sent().await.unwrap().remove(0);
    assert_eq!((sent.first, sent.last), (2, 2));
}
