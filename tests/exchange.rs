//! The whole way of a message, between real nodes: direct, through a hub, to many, and what
//! everybody sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use bureau_proto::{
    desk::v1::{DeliveryState, SubmitRequest},
    envelope::v1::{Lane, ReceiptKind},
};
use harness::{Network, Program, desk::message, until};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// Kind and signer of every receipt for a recipient.
fn receipts(
    track: &bureau_proto::desk::v1::TrackResponse,
    recipient: &str,
) -> Vec<(ReceiptKind, String)> {
    let status = track.recipients.iter().find(|status| status.recipient == recipient).unwrap();
    status.receipts.iter().map(|receipt| (receipt.kind(), receipt.signer.clone())).collect()
}

#[tokio::test]
async fn two_bureaus_exchange_directly() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let mut inbox = ke.watch(0).await;

    let id = fr.send(&["KE"], "Bonjour, Nairobi.").await;
    let arrived = inbox.next().await.unwrap();
    let entry = arrived.entry.unwrap();
    assert_eq!((entry.message_id.as_str(), entry.origin.as_str()), (id.as_str(), "FR"));
    assert_eq!(arrived.content.as_ref(), b"Bonjour, Nairobi.");
    assert_eq!(arrived.visible_recipients, ["KE"]);
    assert_eq!(entry.previous_hop, "FR");

    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    ke.acknowledge(&[&id[..8]]).await.unwrap();
    let track = fr.tracked(&id, "KE", DeliveryState::Acknowledged).await;
    let ke_code = || "KE".to_owned();
    assert_eq!(
        receipts(&track, "KE"),
        [(ReceiptKind::Delivered, ke_code()), (ReceiptKind::Acknowledged, ke_code())]
    );
    assert_eq!(track.recipients[0].receipts[1].desk, "desk");
    // Acknowledged again, nothing changes; and it comes no more.
    ke.acknowledge(&["#1"]).await.unwrap();
    assert_eq!(ke.inbox().await, []);
    assert!(ke.acknowledge(&["#2"]).await.is_err());
}

#[tokio::test]
async fn a_hub_relays_and_its_custody_is_known() {
    let mut network = Network::star(program(), &["FR", "KE", "BR"], "IPSG");
    network.start_all(&["FR", "BR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;

    let id = fr.send(&["KE", "BR"], "For two.").await;
    let track = fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    let ke = track.recipients.iter().find(|status| status.recipient == "KE").unwrap();
    assert_eq!(ke.holder, "IPSG");
    fr.tracked(&id, "BR", DeliveryState::Delivered).await;
    // The origin may go: the hub has custody.
    network.terminate("FR").await;
    network.start("KE").await;
    let ke = network.desk("KE");
    let arrived = ke.watch(0).await.next().await.unwrap().entry.unwrap();
    assert_eq!((arrived.message_id, arrived.previous_hop), (id.clone(), "IPSG".to_owned()));
    ke.acknowledge(&[&id]).await.unwrap();
    network.start("FR").await;
    let track = network.desk("FR").tracked(&id, "KE", DeliveryState::Acknowledged).await;
    let (hub, ke) = ("IPSG".to_owned(), "KE".to_owned());
    assert_eq!(
        receipts(&track, "KE"),
        [
            (ReceiptKind::Custody, hub),
            (ReceiptKind::Delivered, ke.clone()),
            (ReceiptKind::Acknowledged, ke)
        ]
    );
}

#[tokio::test]
async fn urgent_goes_first_and_order_is_kept() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let mut client = fr.client().await;
    let mut expected: Vec<(Lane, String)> = Vec::new();
    for turn in 0..12 {
        let lane = [Lane::Routine, Lane::Priority, Lane::Immediate, Lane::Flash][turn % 4];
        let request =
            SubmitRequest { lane: lane.into(), ..message(&["KE"], &format!("number {turn}")) };
        let id = client.submit(request).await.unwrap().into_inner().message_id;
        expected.push((lane, id));
    }
    expected.sort_by_key(|(lane, _)| *lane as i32);
    network.start("KE").await;
    let mut inbox = network.desk("KE").watch(0).await;
    for (number, (lane, id)) in (1..).zip(expected) {
        let entry = inbox.next().await.unwrap().entry.unwrap();
        assert_eq!((entry.number, entry.lane(), entry.message_id), (number, lane, id));
    }
}

#[tokio::test]
async fn a_request_repeated_is_one_message() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let request =
        SubmitRequest { request_id: uuid::Uuid::now_v7().to_string(), ..message(&["KE"], "once") };
    let first = network.desk("FR").submit(request.clone()).await.unwrap();
    // All at once, and again after a restart.
    let desk = network.desk("FR");
    let many = (0..8).map(|_| desk.submit(request.clone()));
    for repeated in futures_util::future::join_all(many).await {
        assert_eq!(repeated.unwrap(), first);
    }
    network.kill("FR");
    network.start("FR").await;
    let desk = network.desk("FR");
    assert_eq!(desk.submit(request.clone()).await.unwrap(), first);
    let other = SubmitRequest { content: "other".into(), ..request };
    let refusal = desk.submit(other).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("REQUEST_ID_REUSED"));
    network.start("KE").await;
    let ke = network.desk("KE");
    until("it arrives", async || (!ke.inbox().await.is_empty()).then_some(())).await;
    assert_eq!(ke.inbox().await, [(1, first)]);
}

#[tokio::test]
async fn what_expires_is_told_to_its_sender() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;
    let expire_time = harness::peer::now().plus_ms(2_000).to_wire();
    let request = SubmitRequest { expire_time: Some(expire_time), ..message(&["KE"], "soon") };
    let id = fr.submit(request).await.unwrap();
    let track = fr.tracked(&id, "KE", DeliveryState::Expired).await;
    // The hub had custody, so the hub says so.
    let expired = (ReceiptKind::Expired, "IPSG".to_owned());
    assert!(receipts(&track, "KE").contains(&expired), "{track:?}");
    network.start("KE").await;
    network.desk("KE").linked("IPSG", true).await;
    assert_eq!(network.desk("KE").inbox().await, []);
}

#[tokio::test]
async fn a_large_message_and_one_to_many_arrive_whole() {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start_all(&["FR", "KE", "BR", "IPSG"]).await;
    let fr = network.desk("FR");
    let text = "é".repeat(512 * 1024);
    let id = fr.send(&["KE", "BR", "IPSG"], &text).await;
    for bureau in ["KE", "BR", "IPSG"] {
        let arrived = network.desk(bureau).watch(0).await.next().await.unwrap();
        assert_eq!(arrived.entry.unwrap().message_id, id);
        assert!(arrived.content == text.as_bytes());
        fr.tracked(&id, bureau, DeliveryState::Delivered).await;
    }
}
