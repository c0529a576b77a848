//! Ways between real nodes: over two hubs, around what is down, never back, and by cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use bureau_core::envelope::Content;
use bureau_proto::{
    desk::v1::{
        AttachmentToSend, DeliveryState, InboxEntry, SubmitRequest, UploadAttachmentRequest,
        UploadHeader, upload_attachment_request::Piece,
    },
    envelope::v1::ReceiptKind,
    link::v1::frame::Kind,
};
use harness::{
    Desk, Network, Program,
    desk::message,
    peer::{Actor, now},
    until,
};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// FR with the hub EUR, KE with the hub AFR, and a link between the hubs.
fn regions() -> Network {
    Network::regions(program(), &["FR", "KE"], &["EUR", "AFR"])
}

/// What arrives next at a bureau.
async fn arrived(network: &Network, bureau: &str, after: u64) -> InboxEntry {
    network.desk(bureau).watch(after).await.next().await.unwrap().entry.unwrap()
}

/// Who signed the custody receipts that the origin has for a recipient.
async fn custodians(desk: &Desk, id: &str, recipient: &str) -> Vec<String> {
    let track = desk.track(id).await;
    let status = track.recipients.iter().find(|status| status.recipient == recipient).unwrap();
    let custody = status.receipts.iter().filter(|kept| kept.kind() == ReceiptKind::Custody);
    custody.map(|receipt| receipt.signer.clone()).collect()
}

#[tokio::test]
async fn a_message_and_its_receipts_pass_two_hubs_both_ways() {
    let mut network = regions();
    network.start_all(&["FR", "KE", "EUR", "AFR"]).await;
    for (from, to, last) in [("FR", "KE", "AFR"), ("KE", "FR", "EUR")] {
        let desk = network.desk(from);
        let id = desk.send(&[to], "over two hubs").await;
        let entry = arrived(&network, to, 0).await;
        assert_eq!((entry.message_id.as_str(), entry.previous_hop.as_str()), (&*id, last));
        desk.tracked(&id, to, DeliveryState::Delivered).await;
        until("both hubs gave custody", async || {
            let mut custodians = custodians(&desk, &id, to).await;
            custodians.sort();
            (custodians == ["AFR", "EUR"]).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_hub_that_is_down_is_waited_for_where_no_other_leads_there() {
    let mut network = regions();
    network.start_all(&["FR", "EUR"]).await;
    let fr = network.desk("FR");
    fr.linked("EUR", true).await;
    let id = fr.send(&["KE"], "in two steps").await;
    let track = fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    assert_eq!(track.recipients[0].holder, "EUR");
    // The first hub ends, the second begins: what the first holds, it still holds.
    network.kill("EUR");
    network.start_all(&["AFR", "EUR"]).await;
    until("the second hub holds it", async || {
        let track = fr.track(&id).await;
        (track.recipients[0].holder == "AFR").then_some(())
    })
    .await;
    network.start("KE").await;
    assert_eq!(arrived(&network, "KE", 0).await.message_id, id);
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
}

#[tokio::test]
async fn a_way_that_is_down_or_leads_nowhere_is_replaced() {
    let mut network = Network::of(program(), &["FR", "KE"], &["EUR", "AFR"], "hub");
    // EUR is the first hub of KE by the roster, and has no link to it.
    network.configure("EUR", |text| without_peer(&text, "KE"));
    network.configure("KE", |text| without_peer(&text, "EUR"));
    network.start_all(&["FR", "KE", "EUR", "AFR"]).await;
    let fr = network.desk("FR");
    fr.linked("EUR", true).await;
    fr.linked("AFR", true).await;
    network.desk("KE").linked("AFR", true).await;
    let first = fr.send(&["KE"], "EUR does not know the way").await;
    assert_eq!(arrived(&network, "KE", 0).await.previous_hop, "AFR");
    network.logged("FR", &["parcel_refused_by_peer", "peer=EUR", "NO_ROUTE"]).await;
    fr.tracked(&first, "KE", DeliveryState::Delivered).await;
    // The next ones do not try in vain.
    let second = fr.send(&["KE"], "the way is known").await;
    fr.tracked(&second, "KE", DeliveryState::Delivered).await;
    let refused = |log: String| log.matches("parcel_refused_by_peer").count();
    assert_eq!(refused(network.log("FR")), 1);
    // AFR goes, EUR learns the way: a new link, a new word.
    network.kill("AFR");
    fr.linked("AFR", false).await;
    network.terminate("EUR").await;
    network.configure("EUR", |text| {
        let ke = Actor::link_address(&network.home("KE"));
        format!("{text}\n[[peer]]\nbureau = \"KE\"\naddresses = [\"{ke}\"]\n")
    });
    network.start("EUR").await;
    let third = fr.send(&["KE"], "the other way").await;
    let entry = arrived(&network, "KE", 2).await;
    assert_eq!((entry.message_id.as_str(), entry.previous_hop.as_str()), (&*third, "EUR"));
    assert_eq!(network.desk("KE").inbox().await.len(), 3, "each once");
}

/// A configuration without one of its peers.
fn without_peer(text: &str, code: &str) -> String {
    let mut config: toml::Table = text.parse().unwrap();
    let peers = config["peer"].as_array_mut().unwrap();
    peers.retain(|peer| peer["bureau"].as_str() != Some(code));
    config.to_string()
}

/// A configuration with something else said of one of its peers.
fn with_peer(text: &str, code: &str, key: &str, value: impl Into<toml::Value>) -> String {
    let mut config: toml::Table = text.parse().unwrap();
    let peers = config["peer"].as_array_mut().unwrap();
    let peer = peers.iter_mut().find(|peer| peer["bureau"].as_str() == Some(code)).unwrap();
    peer.as_table_mut().unwrap().insert(key.to_owned(), value.into());
    config.to_string()
}

#[tokio::test]
async fn nothing_goes_back_or_in_a_circle() {
    let mut network = regions();
    network.start_all(&["FR", "EUR"]).await;
    let fr = network.desk("FR");
    fr.linked("EUR", true).await;
    let actor = Actor::of(&network.home("AFR"));
    let home = network.home("EUR");
    let mut afr = actor.link(&home, "EUR").await;
    // What is for KE leads over AFR alone: EUR does not take it from there.
    assert_eq!(afr.offer(actor.parcel(1, "yours", &["KE"])).await, "NO_ROUTE");
    let far = |hops| {
        let mut parcel = actor.parcel(1 + u64::from(hops), "far", &["FR"]);
        parcel.hops = hops;
        parcel
    };
    assert_eq!(afr.offer(far(9)).await, "TOO_MANY_HOPS");
    assert_eq!(afr.offer(far(8)).await, "CUSTODY");
    // What EUR hands over comes back from there: EUR says who has it, and keeps nothing.
    let id = fr.send(&["KE"], "round and round").await;
    let parcel = loop {
        match afr.next().await {
            Some(Kind::Parcel(parcel)) => break parcel,
            Some(_) => {}
            None => panic!("the link ended"),
        }
    };
    assert_eq!(parcel.hops, 2);
    let back = bureau_proto::link::v1::Parcel { number: 20, hops: 3, ..parcel };
    assert_eq!(afr.offer(back).await, "NO_ROUTE");
    fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    assert_eq!(custodians(&fr, &id, "KE").await, ["EUR"]);
    let listed = network.json("EUR", &["queue", "list"]);
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn a_bureau_that_only_dials_out_is_a_full_member() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.configure("IPSG", |text| {
        let text = with_peer(&text, "KE", "dial", false);
        with_peer(&text, "KE", "addresses", Vec::<String>::new())
    });
    network.start_all(&["FR", "IPSG"]).await;
    let (fr, hub) = (network.desk("FR"), network.desk("IPSG"));
    fr.linked("IPSG", true).await;
    let id = fr.send(&["KE"], "for one behind a wall").await;
    fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    let peer = hub.peers().await.into_iter().find(|peer| peer.bureau == "KE").unwrap();
    assert_eq!((peer.dials, peer.failed_attempts, peer.next_attempt_time), (false, 0, None));
    let retried = network.json("IPSG", &["peers", "retry", "KE"]);
    assert_eq!(retried["dialed"], false);
    network.start("KE").await;
    assert_eq!(arrived(&network, "KE", 0).await.message_id, id);
    let ke = network.desk("KE");
    let answer = ke.send(&["FR", "IPSG"], "and back").await;
    for bureau in ["FR", "IPSG"] {
        ke.tracked(&answer, bureau, DeliveryState::Delivered).await;
    }
    // The hub ends and comes back: it is dialed again.
    network.kill("IPSG");
    network.start("IPSG").await;
    let again = network.desk("FR").send(&["KE"], "still there").await;
    network.desk("FR").tracked(&again, "KE", DeliveryState::Delivered).await;
}

#[tokio::test]
async fn what_costs_is_the_last_way() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.configure("FR", |text| with_peer(&text, "KE", "metered", true));
    network.start_all(&["FR", "KE", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    fr.linked("IPSG", true).await;
    network.desk("KE").linked("IPSG", true).await;
    fr.send(&["KE"], "around").await;
    assert_eq!(arrived(&network, "KE", 0).await.previous_hop, "IPSG");
    assert!(fr.peers().await.iter().any(|peer| peer.bureau == "KE" && peer.metered));
    network.kill("IPSG");
    fr.linked("IPSG", false).await;
    fr.send(&["KE"], "straight").await;
    assert_eq!(arrived(&network, "KE", 1).await.previous_hop, "FR");
}

/// An hour of the day by UTC that is not now, as a configuration writes it.
fn another_hour() -> String {
    let hour = now().as_ms() / 3_600_000 % 24;
    format!("{:02}:00-{:02}:00", (hour + 3) % 24, (hour + 4) % 24)
}

/// The hour of the day by UTC that is now, and the next.
fn this_hour() -> String {
    let hour = now().as_ms() / 3_600_000 % 24;
    format!("{hour:02}:00-{:02}:00", (hour + 2) % 24)
}

async fn upload(desk: &Desk, bytes: &[u8]) -> AttachmentToSend {
    let Content { digest, size } = Content::of(bytes);
    let digest = bytes::Bytes::copy_from_slice(&digest);
    let header = UploadHeader { digest: digest.clone(), size, offset: 0 };
    let pieces = [Piece::Header(header), Piece::Data(bytes::Bytes::copy_from_slice(bytes))];
    let pieces = pieces.map(|piece| UploadAttachmentRequest { piece: Some(piece) });
    desk.client().await.upload_attachment(tokio_stream::iter(pieces)).await.unwrap();
    AttachmentToSend { digest, size, name: "film.bin".to_owned(), media_type: String::new() }
}

#[tokio::test]
async fn attachments_wait_for_their_hours_and_nothing_else_does() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let hours = another_hour();
    network.configure("FR", |text| with_peer(&text, "KE", "bulk_hours", hours.as_str()));
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    let attachments = vec![upload(&fr, &vec![7; 200_000]).await];
    let film =
        fr.submit(SubmitRequest { attachments, ..message(&["KE"], "a film") }).await.unwrap();
    let word = fr.send(&["KE"], "a word").await;
    fr.tracked(&word, "KE", DeliveryState::Delivered).await;
    // Each ping is a chance that is not taken.
    let ping = network.json("FR", &["peers", "ping", "KE", "--count", "20"]);
    assert_eq!(ping["round_trip_micros"].as_array().unwrap().len(), 20);
    fr.tracked(&film, "KE", DeliveryState::Queued).await;
    assert!(fr.peers().await.iter().any(|peer| peer.bureau == "KE" && peer.bulk_hours == hours));
    network.terminate("FR").await;
    network.configure("FR", |text| text.replace(&hours, &this_hour()));
    network.start("FR").await;
    network.desk("FR").tracked(&film, "KE", DeliveryState::Delivered).await;
}
