//! What operators and senders do with a message on its way, over real nodes that are killed in
//! between: held stays held, recalled never arrives, scheduled goes at its time, what ended
//! undelivered is sent anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use std::time::Duration;

use bureau_proto::{
    admin::v1::{
        DeadLetter, HoldMessagesRequest, HoldPeerRequest, HoldReason, ListDeadLettersRequest,
        ListQueueRequest, MessageOutcome, MessageResult, QueueEntry, ReleaseMessagesRequest,
        ReleasePeerRequest, RequeueMessagesRequest, RetryMessagesRequest,
    },
    desk::v1::{DeliveryHoldReason, DeliveryState, RecallOutcome, RecallRequest, SubmitRequest},
};
use harness::{Desk, Network, Program, desk::message, peer::now, until};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

fn outcomes(results: &[MessageResult]) -> Vec<MessageOutcome> {
    results.iter().map(MessageResult::outcome).collect()
}

async fn hold(desk: &Desk, id: &str) -> Vec<MessageOutcome> {
    let message_ids = vec![id.to_owned()];
    let request =
        HoldMessagesRequest { message_ids, note: "asked by the court".into(), ..<_>::default() };
    outcomes(&desk.admin().await.hold_messages(request).await.unwrap().into_inner().results)
}

async fn release(desk: &Desk, id: &str) -> Vec<MessageOutcome> {
    let request =
        ReleaseMessagesRequest { message_ids: vec![id.to_owned()], recipient: String::new() };
    outcomes(&desk.admin().await.release_messages(request).await.unwrap().into_inner().results)
}

async fn retry(desk: &Desk, id: &str) -> Vec<MessageOutcome> {
    let request =
        RetryMessagesRequest { message_ids: vec![id.to_owned()], recipient: String::new() };
    outcomes(&desk.admin().await.retry_messages(request).await.unwrap().into_inner().results)
}

async fn requeue(desk: &Desk, id: &str) -> Vec<MessageResult> {
    let request =
        RequeueMessagesRequest { message_ids: vec![id.to_owned()], recipient: String::new() };
    desk.admin().await.requeue_messages(request).await.unwrap().into_inner().results
}

async fn held(desk: &Desk) -> Vec<QueueEntry> {
    let request = ListQueueRequest { held: true, ..ListQueueRequest::default() };
    desk.admin().await.list_queue(request).await.unwrap().into_inner().entries
}

async fn dead(desk: &Desk) -> Vec<DeadLetter> {
    let request = ListDeadLettersRequest::default();
    desk.admin().await.list_dead_letters(request).await.unwrap().into_inner().letters
}

async fn recall(desk: &Desk, id: &str) -> Vec<(String, RecallOutcome)> {
    let request = RecallRequest { message_id: id.to_owned(), recipients: Vec::new() };
    let recalled = desk.client().await.recall(request).await.unwrap().into_inner();
    let of = |one: &bureau_proto::desk::v1::RecipientRecall| (one.recipient.clone(), one.outcome());
    recalled.recipients.iter().map(of).collect()
}

/// Waits until a message is in an inbox, and gives the ids of all that is.
async fn arrived(desk: &Desk, id: &str) -> Vec<String> {
    until(&format!("{id} arrives"), async || {
        let ids: Vec<String> = desk.inbox().await.into_iter().map(|(_, id)| id).collect();
        ids.iter().any(|found| found == id).then_some(ids)
    })
    .await
}

#[tokio::test]
async fn held_stays_held_over_a_kill_and_goes_when_released() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let (first, second) = (fr.send(&["KE"], "first").await, fr.send(&["KE"], "second").await);
    assert_eq!(hold(&fr, &first[..8]).await, [MessageOutcome::Done]);
    assert_eq!(hold(&fr, &first).await, [MessageOutcome::Already]);
    assert_eq!(retry(&fr, &first).await, [MessageOutcome::Held]);
    assert_eq!(hold(&fr, "aaaaaaaa").await, [MessageOutcome::NotFound]);
    network.kill("FR");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    assert_eq!(arrived(&ke, &second).await, std::slice::from_ref(&second), "the held one waits");
    let track = fr.tracked(&first, "KE", DeliveryState::Held).await;
    let why = track.recipients[0].hold.clone().unwrap();
    assert_eq!((why.reason(), why.desk.as_str()), (DeliveryHoldReason::Operator, "desk"));
    let entries = held(&fr).await;
    assert_eq!((entries.len(), entries[0].message_id.as_str()), (1, first.as_str()));
    assert_eq!(entries[0].hold.as_ref().unwrap().note, "asked by the court");
    assert_eq!(release(&fr, &first).await, [MessageOutcome::Done]);
    assert_eq!(arrived(&ke, &first).await, [second, first.clone()]);
    fr.tracked(&first, "KE", DeliveryState::Delivered).await;
    assert_eq!(release(&fr, &first).await, [MessageOutcome::NotHere]);
    assert!(held(&fr).await.is_empty());
    network.logged("FR", &["message_held", &first]).await;
    network.logged("FR", &["message_released", &first]).await;
}

#[tokio::test]
async fn recalled_never_arrives_when_the_link_returns() {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start_all(&["FR", "BR"]).await;
    let fr = network.desk("FR");
    let (both, other) = (fr.send(&["BR", "KE"], "both").await, fr.send(&["KE"], "other").await);
    fr.tracked(&both, "BR", DeliveryState::Delivered).await;
    let (br, ke) = ("BR".to_owned(), "KE".to_owned());
    let expected = [(br.clone(), RecallOutcome::Delivered), (ke.clone(), RecallOutcome::Recalled)];
    assert_eq!(recall(&fr, &both).await, expected);
    let again = [(br, RecallOutcome::Delivered), (ke, RecallOutcome::Already)];
    assert_eq!(recall(&fr, &both).await, again);
    network.kill("FR");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    assert_eq!(arrived(&ke, &other).await, [other]);
    let last = fr.send(&["KE"], "last").await;
    assert!(!arrived(&ke, &last).await.contains(&both));
    let track = fr.tracked(&both, "KE", DeliveryState::Recalled).await;
    let status = track.recipients.iter().find(|status| status.recipient == "KE").unwrap();
    assert_eq!((status.recall_desk.as_str(), status.may_have_arrived), ("desk", false));
}

#[tokio::test]
async fn what_a_process_before_may_have_offered_is_not_called_safe() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let id = network.desk("FR").send(&["KE"], "doubt").await;
    network.kill("FR");
    network.start("FR").await;
    let fr = network.desk("FR");
    assert_eq!(recall(&fr, &id).await, [("KE".to_owned(), RecallOutcome::MayHaveLeft)]);
    assert!(fr.track(&id).await.recipients[0].may_have_arrived);
    // What a hub holds is not ours to take back.
    network.start("IPSG").await;
    fr.linked("IPSG", true).await;
    let id = fr.send(&["KE"], "gone on").await;
    fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    assert_eq!(recall(&fr, &id).await, [("KE".to_owned(), RecallOutcome::Elsewhere)]);
    // But the hub's operator may hold it.
    let hub = network.desk("IPSG");
    assert_eq!(hold(&hub, &id).await, [MessageOutcome::Done]);
    network.kill("IPSG");
    network.start_all(&["IPSG", "KE"]).await;
    let (hub, ke) = (network.desk("IPSG"), network.desk("KE"));
    let later = fr.send(&["KE"], "later").await;
    assert_eq!(arrived(&ke, &later).await, [later]);
    assert_eq!(release(&hub, &id).await, [MessageOutcome::Done]);
    arrived(&ke, &id).await;
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
}

#[tokio::test]
async fn scheduled_goes_at_its_time_though_the_node_was_killed() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    let at = now().plus_ms(8_000);
    let later = |text: &str, ms: i64| SubmitRequest {
        send_time: Some(now().plus_ms(ms).to_wire()),
        ..message(&["KE"], text)
    };
    let id = fr.submit(later("at its time", 8_000)).await.unwrap();
    let (early, taken_back) = (
        fr.submit(later("early", 3_600_000)).await.unwrap(),
        fr.submit(later("no", 8_000)).await.unwrap(),
    );
    let late = SubmitRequest {
        expire_time: Some(now().plus_ms(60_000).to_wire()),
        ..later("never", 70_000)
    };
    assert_eq!(fr.submit(late).await.unwrap_err().reason.as_deref(), Some("FIELD_INVALID"));
    network.kill("FR");
    network.start("FR").await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let entries = held(&fr).await;
    assert!(
        entries
            .iter()
            .all(|entry| { entry.hold.as_ref().unwrap().reason() == HoldReason::Scheduled })
    );
    assert_eq!(recall(&fr, &taken_back).await, [("KE".to_owned(), RecallOutcome::Recalled)]);
    assert_eq!(release(&fr, &early).await, [MessageOutcome::Done]);
    assert_eq!(arrived(&ke, &early).await, std::slice::from_ref(&early));
    assert_eq!(arrived(&ke, &id).await, [early, id.clone()]);
    assert!(now() >= at, "not before its time");
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert!(fr.track(&id).await.send_time.is_some());
}

#[tokio::test]
async fn a_dead_letter_is_sent_anew_once_and_arrives() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let expire_time = now().plus_ms(1_000).to_wire();
    let text = "x".repeat(100_000);
    let request = SubmitRequest { expire_time: Some(expire_time), ..message(&["KE"], &text) };
    let id = fr.submit(request).await.unwrap();
    assert!(dead(&fr).await.is_empty());
    assert_eq!(outcomes(&requeue(&fr, &id).await), [MessageOutcome::NotHere]);
    fr.tracked(&id, "KE", DeliveryState::Expired).await;
    network.kill("FR");
    network.start("FR").await;
    let fr = network.desk("FR");
    let letters = dead(&fr).await;
    assert_eq!((letters.len(), letters[0].state.as_str()), (1, "EXPIRED"));
    network.start("KE").await;
    let ke = network.desk("KE");
    fr.linked("KE", true).await;
    let results = requeue(&fr, &id).await;
    assert_eq!(outcomes(&results), [MessageOutcome::Requeued]);
    let new = results[0].new_message_id.clone();
    let again = requeue(&fr, &id).await;
    assert_eq!(outcomes(&again), [MessageOutcome::AlreadyRequeued]);
    assert_eq!(again[0].new_message_id, new);
    let arrived = ke.watch(0).await.next().await.unwrap();
    assert_eq!((arrived.entry.unwrap().message_id, arrived.replaces), (new.clone(), id.clone()));
    assert!(arrived.content == text.as_bytes());
    assert_eq!(fr.track(&id).await.recipients[0].requeued_as, new);
    assert_eq!(dead(&fr).await[0].requeued_as, new);
}

#[tokio::test]
async fn a_held_peer_gets_nothing_and_routes_lead_past_it() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    let request = HoldPeerRequest { peer: "KE".into(), note: "maintenance".into() };
    let mut admin = fr.admin().await;
    assert!(!admin.hold_peer(request.clone()).await.unwrap().into_inner().already);
    assert!(admin.hold_peer(request).await.unwrap().into_inner().already);
    let nobody = HoldPeerRequest { peer: "ZA".into(), note: String::new() };
    assert_eq!(admin.hold_peer(nobody).await.unwrap_err().code(), tonic::Code::NotFound);
    let id = fr.send(&["KE"], "not now").await;
    // The other way is open, and so are receipts.
    let back = ke.send(&["FR"], "here").await;
    ke.tracked(&back, "FR", DeliveryState::Delivered).await;
    assert!(ke.inbox().await.is_empty());
    network.kill("FR");
    network.start("FR").await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    let peers = fr.peers().await;
    let peer = peers.iter().find(|peer| peer.bureau == "KE").unwrap();
    assert_eq!(peer.hold.as_ref().unwrap().note, "maintenance");
    fr.tracked(&id, "KE", DeliveryState::Queued).await;
    assert!(ke.inbox().await.is_empty());
    // Over the hub it goes.
    network.start("IPSG").await;
    assert_eq!(arrived(&ke, &id).await, std::slice::from_ref(&id));
    network.kill("IPSG");
    fr.linked("IPSG", false).await;
    let direct = fr.send(&["KE"], "now").await;
    let request = ReleasePeerRequest { peer: "KE".into() };
    fr.admin().await.release_peer(request).await.unwrap();
    assert_eq!(arrived(&ke, &direct).await, [id, direct]);
}

#[tokio::test]
async fn a_warning_comes_before_the_end() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let begun = now();
    let expire_time = begun.plus_ms(48_000).to_wire();
    let request = SubmitRequest { expire_time: Some(expire_time), ..message(&["KE"], "soon") };
    let id = fr.submit(request).await.unwrap();
    let warned = fr.track(&id).await.warn_time.unwrap();
    assert!(warned.seconds < expire_time.seconds && warned.seconds > begun.as_ms() / 1000 + 30);
    let deadline = Duration::from_secs(60);
    let warning = async {
        while !network
            .log("FR")
            .lines()
            .any(|line| line.contains("expiry_near") && line.contains(&id))
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(deadline, warning).await.expect("no warning");
    fr.tracked(&id, "KE", DeliveryState::Queued).await;
    network.logged("FR", &["message_expired", &id]).await;
}
