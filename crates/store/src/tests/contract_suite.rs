//! The contract, over every engine. A second engine runs the same functions.

use bureau_core::{Lane, receipt::ReceiptKind};

use super::fixture::{
    Engine, HOUR_MS, InOrder, Real, Sim, accept, acknowledge, at, code, give_up, receipt, receive,
    request_key, send, send_as, take,
};
use crate::contract::{
    Operation, Outcome, PeerNote, ReceiptIgnored, ReceiveAction, Received, Role, State, Store,
    TimerKind,
};

macro_rules! over_every_engine {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[tokio::test] async fn $name() { super::$name(&super::Real::new()).await; })*
        }
        mod sim {
            $(#[tokio::test] async fn $name() { super::$name(&super::Sim::default()).await; })*
        }
        mod in_order {
            $(#[tokio::test] async fn $name() { super::$name(&super::InOrder::default()).await; })*
        }
    };
}

over_every_engine!(
    accepted_waits_in_order,
    requests_are_remembered,
    custody_and_receipts_move_a_message,
    receipts_out_of_order_end_right,
    a_relay_passes_on_and_forgets_content,
    arrivals_are_once_and_numbered,
    what_is_given_up_is_told,
    timers_expire_and_forget,
    large_bodies_are_files_and_go,
    prefixes_find_and_pages_turn,
    peers_that_are_away_are_remembered,
    who_passed_it_on_is_not_asked_again,
);

async fn one(store: &dyn Store, operation: Operation) -> Outcome {
    store.commit(vec![operation]).await.unwrap().remove(0)
}

async fn state(store: &dyn Store, sent: &super::fixture::Sent, recipient: &str) -> State {
    let tracked = store.track(sent.id()).await.unwrap().unwrap();
    let found = tracked.recipients.iter().find(|track| track.recipient == code(recipient));
    found.unwrap().state
}

async fn accepted_waits_in_order(engine: &impl Engine) {
    let store = engine.open().await;
    let mut changes = store.changes();
    let messages: Vec<_> = (1..=20).map(|n| send(&["KE"], n)).collect();
    let operations = messages.iter().map(|sent| accept(sent, None)).collect();
    let outcomes = store.commit(operations).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Accepted; 20]);
    assert_eq!(changes.recv().await.unwrap().destinations, [code("KE")]);
    let flash = send_as("FR", &["KE", "BR"], Lane::Flash, 1, b"now");
    assert_eq!(one(&*store, accept(&flash, None)).await, Outcome::Accepted);

    look(&*store, &messages, &flash).await;
    store.close().await.unwrap();
    drop(store);
    look(&*engine.open().await, &messages, &flash).await;
}

async fn look(store: &dyn Store, messages: &[super::fixture::Sent], flash: &super::fixture::Sent) {
    let queued = store.queued(code("KE"), Lane::Routine, 0, 100, usize::MAX).await.unwrap();
    let ids: Vec<_> = queued.iter().map(|queued| queued.entry.message).collect();
    assert_eq!(ids, messages.iter().map(super::fixture::Sent::id).collect::<Vec<_>>());
    let after = queued[4].entry.position.number;
    let rest = store.queued(code("KE"), Lane::Routine, after, 3, usize::MAX).await.unwrap();
    assert_eq!(rest.as_slice(), &queued[5..8]);
    assert_eq!(store.queued(code("KE"), Lane::Routine, 0, 9, 1).await.unwrap().len(), 1);
    assert_eq!(store.queued_slips(flash.id()).await.unwrap().len(), 2);
    assert_eq!((store.depth(code("KE")), store.depth(code("BR"))), (21, 1));
    assert_eq!(store.depths().len(), 3);
    let mut heads = store.heads().await.unwrap();
    heads.retain(|head| head.lane == Lane::Routine);
    assert_eq!((heads[0].sequence, heads[0].slip), (20, messages[19].slips[0].digest()));
}

async fn requests_are_remembered(engine: &impl Engine) {
    let store = engine.open().await;
    let (first, other) = (send(&["KE"], 1), send(&["KE"], 2));
    assert_eq!(one(&*store, accept(&first, Some(1))).await, Outcome::Accepted);
    let Outcome::RequestRepeated(made) = one(&*store, accept(&first, Some(1))).await else {
        panic!("not repeated");
    };
    assert_eq!((made.message, made.accepted), (first.id(), at(0)));
    assert_eq!(one(&*store, accept(&other, Some(1))).await, Outcome::RequestReused);
    assert_eq!(store.depth(code("KE")), 1);
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    let found = store.requests(vec![request_key(1), request_key(2)]).await.unwrap();
    assert_eq!(found, [Some(made), None]);
}

async fn custody_and_receipts_move_a_message(engine: &impl Engine) {
    let store = engine.open().await;
    let sent = send(&["KE"], 1);
    one(&*store, accept(&sent, None)).await;
    let receipt = |kind, by: &str| receipt(&sent, "KE", kind, by, at(2));
    let stranger = receipt(ReceiptKind::Refused, "BR");
    let ignored = Outcome::ReceiptIgnored(ReceiptIgnored::NotItsToGive);
    assert_eq!(one(&*store, take(stranger, "IPSG")).await, ignored);
    let custody = || take(receipt(ReceiptKind::Custody, "IPSG"), "IPSG");
    assert_eq!(one(&*store, custody()).await, Outcome::ReceiptTaken);
    let repeated = Outcome::ReceiptIgnored(ReceiptIgnored::Repeated);
    assert_eq!(one(&*store, custody()).await, repeated);
    assert_eq!(state(&*store, &sent, "KE").await, State::Relayed);
    assert_eq!(store.depth(code("KE")), 0);
    for (kind, after) in [
        (ReceiptKind::Delivered, State::Delivered),
        (ReceiptKind::Acknowledged, State::Acknowledged),
    ] {
        one(&*store, take(receipt(kind, "KE"), "IPSG")).await;
        assert_eq!(state(&*store, &sent, "KE").await, after);
    }
    let unknown = send(&["KE"], 9);
    let unknown = super::fixture::receipt(&unknown, "KE", ReceiptKind::Delivered, "KE", at(2));
    let ignored = Outcome::ReceiptIgnored(ReceiptIgnored::UnknownMessage);
    assert_eq!(one(&*store, take(unknown, "IPSG")).await, ignored);
    let tracked = store.track(sent.id()).await.unwrap().unwrap();
    let kinds: Vec<_> = tracked.recipients[0].receipts.iter().map(|kept| kept.kind).collect();
    let all = [ReceiptKind::Custody, ReceiptKind::Delivered, ReceiptKind::Acknowledged];
    assert_eq!(kinds, all);
}

async fn receipts_out_of_order_end_right(engine: &impl Engine) {
    let store = engine.open().await;
    let sent = send(&["KE", "BR"], 1);
    one(&*store, accept(&sent, None)).await;
    let receipt = |to: &str, kind, by: &str, ms| receipt(&sent, to, kind, by, at(ms));
    // ACKNOWLEDGED overtakes DELIVERED.
    one(&*store, take(receipt("KE", ReceiptKind::Acknowledged, "KE", 5), "KE")).await;
    one(&*store, take(receipt("KE", ReceiptKind::Delivered, "KE", 4), "KE")).await;
    assert_eq!(state(&*store, &sent, "KE").await, State::Acknowledged);
    // Nobody may say EXPIRED before the time; and DELIVERED counts after it.
    one(&*store, take(receipt("BR", ReceiptKind::Custody, "IPSG", 2), "IPSG")).await;
    let early = receipt("BR", ReceiptKind::Expired, "IPSG", 10);
    let ignored = Outcome::ReceiptIgnored(ReceiptIgnored::NotItsToGive);
    assert_eq!(one(&*store, take(early, "IPSG")).await, ignored);
    let late = receipt("BR", ReceiptKind::Expired, "IPSG", HOUR_MS);
    assert_eq!(one(&*store, take(late, "IPSG")).await, Outcome::ReceiptTaken);
    assert_eq!(state(&*store, &sent, "BR").await, State::Expired);
    one(&*store, take(receipt("BR", ReceiptKind::Delivered, "BR", 9), "IPSG")).await;
    assert_eq!(state(&*store, &sent, "BR").await, State::Delivered);
}

async fn a_relay_passes_on_and_forgets_content(engine: &impl Engine) {
    let store = engine.open().await;
    let sent = send(&["KE"], 1);
    let arrive = |hop: &str| receive(&sent, hop, "IPSG", ReceiveAction::Relay);
    assert_eq!(one(&*store, arrive("FR")).await, Outcome::Received(vec![Received::Fresh]));
    let Outcome::Received(again) = one(&*store, arrive("FR")).await else { panic!() };
    assert!(matches!(again.as_slice(), [Received::Repeat(_)]));
    let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
    assert_eq!((queued.len(), queued[0].entry.previous_hop), (1, Some(code("FR"))));
    // A second relay takes it on.
    let custody = receipt(&sent, "KE", ReceiptKind::Custody, "ZA", at(2));
    assert_eq!(one(&*store, take(custody, "ZA")).await, Outcome::ReceiptTaken);
    assert_eq!(store.depth(code("KE")), 0);
    assert_eq!(store.track(sent.id()).await.unwrap().unwrap().manifest, None);
    let home = store.receipts(code("FR"), 0, 9).await.unwrap();
    assert_eq!(home.len(), 1);
    // Offered by another hop, that one keeps custody: A to B to A loses nothing.
    let passed = Outcome::Received(vec![Received::PassedOn(code("ZA"))]);
    assert_eq!(one(&*store, arrive("ZA")).await, passed);
    let delivered = receipt(&sent, "KE", ReceiptKind::Delivered, "KE", at(3));
    let encoded = delivered.encode();
    one(&*store, take(delivered, "ZA")).await;
    let released = Outcome::Received(vec![Received::Repeat(encoded)]);
    assert_eq!(one(&*store, arrive("ZA")).await, released);
    assert_eq!(store.receipt_destinations(), [code("FR")]);
    let positions: Vec<_> =
        store.receipts(code("FR"), 0, 9).await.unwrap().iter().map(|out| out.position).collect();
    assert_eq!(positions.len(), 2);
    one(&*store, Operation::ReceiptsTaken(positions)).await;
    assert!(store.receipt_destinations().is_empty());
}

async fn peers_that_are_away_are_remembered(engine: &impl Engine) {
    let store = engine.open().await;
    assert_eq!(store.peer_notes().await.unwrap(), []);
    let note = |failed_attempts| PeerNote {
        failed_attempts,
        next_attempt: at(i64::from(failed_attempts)),
        down_since: at(0),
        last_reason: "UNREACHABLE".to_owned(),
    };
    let tell = |peer, failed| Operation::NotePeer { peer: code(peer), note: note(failed) };
    store.commit(vec![tell("KE", 1), tell("BR", 4), tell("KE", 8)]).await.unwrap();
    let both = [(code("BR"), note(4)), (code("KE"), note(8))];
    assert_eq!(store.peer_notes().await.unwrap(), both);
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    assert_eq!(store.peer_notes().await.unwrap(), both);
    // It came back.
    assert_eq!(one(&*store, tell("BR", 0)).await, Outcome::Done);
    assert_eq!(store.peer_notes().await.unwrap(), [(code("KE"), note(8))]);
}

async fn who_passed_it_on_is_not_asked_again(engine: &impl Engine) {
    let store = engine.open().await;
    let sent = send(&["KE"], 1);
    one(&*store, receive(&sent, "FR", "IPSG", ReceiveAction::Relay)).await;
    let passed_on = |by: &str| take(receipt(&sent, "KE", ReceiptKind::PassedOn, by, at(2)), by);
    for hop in ["ZA", "BR"] {
        assert_eq!(one(&*store, passed_on(hop)).await, Outcome::ReceiptTaken);
    }
    let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
    let avoid = ["FR", "ZA", "BR"].map(code);
    assert_eq!((queued.len(), queued[0].entry.avoid.as_slice()), (1, avoid.as_slice()));
    assert_eq!(store.queued_slips(sent.id()).await.unwrap()[0].avoid, avoid);
}

async fn arrivals_are_once_and_numbered(engine: &impl Engine) {
    let store = engine.open().await;
    let messages: Vec<_> = (1..=5).map(|n| send(&["KE"], n)).collect();
    for sent in &messages {
        let fresh = Outcome::Received(vec![Received::Fresh]);
        let arrive = receive(sent, "FR", "KE", ReceiveAction::Deliver);
        assert_eq!(one(&*store, arrive).await, fresh);
    }
    store.close().await.unwrap();
    drop(store);
    let store = engine.open().await;
    for sent in &messages {
        // Over another hop now: the same receipt.
        let arrive = receive(sent, "IPSG", "KE", ReceiveAction::Deliver);
        let Outcome::Received(again) = one(&*store, arrive).await else { panic!() };
        assert!(matches!(again.as_slice(), [Received::Repeat(_)]));
    }
    let inbox = store.inbox(0, 99, false, true).await.unwrap();
    let numbers: Vec<_> = inbox.iter().map(|arrived| (arrived.number, arrived.message)).collect();
    let expected: Vec<_> = (1..).zip(messages.iter().map(super::fixture::Sent::id)).collect();
    assert_eq!(numbers, expected);
    assert_eq!(inbox[2].body.as_ref(), b"body 3");
    assert_eq!(store.inbox(3, 1, false, false).await.unwrap()[0].number, 4);

    let first = one(&*store, acknowledge(&messages[1], "KE", "day")).await;
    let day = "day".parse().unwrap();
    assert_eq!(first, Outcome::Acknowledged { time: at(3), desk: day, fresh: true });
    let again = one(&*store, acknowledge(&messages[1], "KE", "night")).await;
    let day = "day".parse().unwrap();
    assert_eq!(again, Outcome::Acknowledged { time: at(3), desk: day, fresh: false });
    assert_eq!(store.inbox(0, 99, false, false).await.unwrap().len(), 4);
    assert_eq!(store.inbox(0, 99, true, false).await.unwrap().len(), 5);
    assert_eq!(store.receipts(code("FR"), 0, 9).await.unwrap().len(), 1);
    assert_eq!(one(&*store, acknowledge(&send(&["KE"], 9), "KE", "day")).await, Outcome::NotFound);

    let refused = send(&["KE"], 7);
    one(&*store, receive(&refused, "FR", "KE", ReceiveAction::Refuse)).await;
    assert_eq!(store.inbox_message(refused.id()).await.unwrap(), None);
    assert_eq!(state(&*store, &refused, "KE").await, State::Refused);
    let stored = store.inbox_message(messages[0].id()).await.unwrap().unwrap();
    assert_eq!(store.inbox_number(1).await.unwrap(), Some(stored));
}

async fn what_is_given_up_is_told(engine: &impl Engine) {
    let store = engine.open().await;
    let (own, foreign) = (send(&["KE"], 1), send_as("BR", &["KE"], Lane::Flash, 1, b"x"));
    one(&*store, accept(&own, None)).await;
    one(&*store, receive(&foreign, "BR", "FR", ReceiveAction::Relay)).await;
    for sent in [&own, &foreign] {
        let expired = || receipt(sent, "KE", ReceiptKind::Expired, "FR", at(HOUR_MS));
        assert_eq!(one(&*store, give_up(expired())).await, Outcome::GivenUp(true));
        assert_eq!(one(&*store, give_up(expired())).await, Outcome::GivenUp(false));
        assert_eq!(state(&*store, sent, "KE").await, State::Expired);
    }
    assert_eq!(store.depth(code("KE")), 0);
    assert_eq!(store.receipts(code("BR"), 0, 9).await.unwrap().len(), 1);
    assert!(store.track(own.id()).await.unwrap().unwrap().manifest.is_some());
    assert!(store.track(foreign.id()).await.unwrap().unwrap().manifest.is_none());
}

async fn timers_expire_and_forget(engine: &impl Engine) {
    let store = engine.open().await;
    let messages: Vec<_> = (1..=40).map(|n| send(&["KE"], n)).collect();
    let requests = (1..).zip(&messages).map(|(id, sent)| accept(sent, Some(id)));
    store.commit(requests.collect()).await.unwrap();
    assert!(store.due(at(HOUR_MS * 3 / 4 - 1), 9).await.unwrap().is_empty());
    let mut now = at(HOUR_MS + 5000);
    for kind in [TimerKind::Warn, TimerKind::Expire, TimerKind::Overdue, TimerKind::Forget] {
        let due = store.due(now, 9).await.unwrap();
        let ids: usize = due.iter().map(|timer| timer.messages.len()).sum();
        assert!(due.iter().all(|timer| timer.kind == kind), "{due:?}");
        assert_eq!((due.len(), ids), (2, 40), "they share records");
        if kind == TimerKind::Expire {
            for sent in &messages {
                let expired = receipt(sent, "KE", ReceiptKind::Expired, "FR", now);
                one(&*store, give_up(expired)).await;
            }
        }
        for timer in due {
            one(&*store, Operation::TimerHandled { timer, now }).await;
        }
        now = now.plus_ms(8 * 24 * HOUR_MS);
    }
    assert_eq!(store.track(messages[0].id()).await.unwrap(), None);
    assert_eq!(store.requests(vec![request_key(1)]).await.unwrap(), [None]);
    assert!(store.due(now.plus_ms(99 * 24 * HOUR_MS), 9).await.unwrap().is_empty());
    // Counting goes on where it was: no number is given twice.
    assert_eq!(store.heads().await.unwrap()[0].sequence, 40);
}

async fn large_bodies_are_files_and_go(engine: &impl Engine) {
    let store = engine.open().await;
    let body = vec![b'x'; 100_000];
    let sent = |n| send_as("FR", &["KE"], Lane::Routine, n, &body);
    let (first, second) = (sent(1), sent(2));
    store.commit(vec![accept(&first, None), accept(&second, None)]).await.unwrap();
    let queued = store.queued(code("KE"), Lane::Routine, 0, 9, usize::MAX).await.unwrap();
    assert!(queued.iter().all(|queued| queued.body == body) && queued.len() == 2);
    // One file for both; it stays while one of them needs it.
    for (sent, left) in [(&first, 1), (&second, 0)] {
        one(&*store, take(receipt(sent, "KE", ReceiptKind::Delivered, "KE", at(2)), "KE")).await;
        assert_eq!(engine.body_files(), left);
    }
    let third = sent(3);
    one(&*store, accept(&third, None)).await;
    assert_eq!(engine.body_files(), 1);
}

async fn prefixes_find_and_pages_turn(engine: &impl Engine) {
    let store = engine.open().await;
    let messages: Vec<_> = (1..=30).map(|n| send(&["KE", "BR"], n)).collect();
    store.commit(messages.iter().map(|sent| accept(sent, None)).collect()).await.unwrap();
    let text = messages[7].id().to_string();
    let found = |role| store.find(text[..10].parse().unwrap(), role);
    assert_eq!(found(Role::Origin).await.unwrap(), [messages[7].id()]);
    assert!(found(Role::Recipient).await.unwrap().is_empty());
    assert!(store.find("aaaaaa".parse().unwrap(), Role::Origin).await.unwrap().is_empty());
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.queue_page(None, after, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        all.extend(page);
    }
    assert_eq!(all.len(), 60);
    assert!(all.is_sorted_by_key(|entry| entry.position));
    assert_eq!(store.queue_page(Some(code("KE")), None, 99).await.unwrap().len(), 30);
}
