//! A message that does not get on, and what a bureau finds missing: between real nodes, with a hub
//! that is played by hand where it must be dishonest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;

use bureau_proto::{
    desk::v1::DeliveryState,
    envelope::v1::ReceiptKind,
    link::v1::{self as wire, frame::Kind},
};
use harness::{
    Network, Program,
    peer::{Actor, Link},
};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// Options of `[links]` that make the node look sooner.
fn hurry(network: &Network, bureau: &str, options: &str) {
    network.configure(bureau, |text| format!("{text}\n[links]\n{options}\n"));
}

/// The next parcel that a node sends.
async fn parcel(link: &mut Link) -> wire::Parcel {
    loop {
        match link.next().await {
            Some(Kind::Parcel(parcel)) => return parcel,
            Some(Kind::Bye(bye)) => panic!("{bye:?}"),
            Some(_) => {}
            None => panic!("the link ended"),
        }
    }
}

/// Says about a parcel what a relay says that will get it on.
async fn take_custody(actor: &Actor, link: &Link, parcel: &wire::Parcel) {
    let receipts = vec![actor.receipt(parcel, ReceiptKind::Custody)];
    link.send(Kind::Receipts(wire::ReceiptBatch { number: 0, receipts, home: String::new() }))
        .await;
}

#[tokio::test]
async fn a_relay_that_swallows_is_named_and_left_for_another_way() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    hurry(&network, "FR", "custody_overdue_ms = 1000");
    network.start("FR").await;
    let fr = network.desk("FR");
    let hub = Actor::of(&network.home("IPSG"));
    let mut link = hub.link(&network.home("FR"), "FR").await;
    let id = fr.send(&["KE"], "swallowed").await;
    let swallowed = parcel(&mut link).await;
    take_custody(&hub, &link, &swallowed).await;
    fr.tracked(&id, "KE", DeliveryState::Relayed).await;

    // Nothing else leads to KE yet: it goes to the same relay again, and that one says the same.
    let line = network.logged("FR", &["custody_overdue", &id, "holder=IPSG"]).await;
    assert!(line.contains("recipient=KE") && line.contains("since="), "{line}");
    let again = parcel(&mut link).await;
    assert_eq!(again.slips, swallowed.slips, "the slip it had before");
    take_custody(&hub, &link, &again).await;
    let track = fr.tracked(&id, "KE", DeliveryState::Relayed).await;
    assert_eq!(track.recipients[0].reroutes, 1);

    // Then there is another way.
    network.start("KE").await;
    let track = fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert_eq!(track.recipients[0].overdue_holder, "IPSG");
    assert!(track.recipients[0].reroutes >= 2);
    let inbox = network.desk("KE").inbox().await;
    assert_eq!(inbox.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), [id]);
}

const QUICK: &str = "repair_after_ms = 1000";

async fn arrived(network: &Network, bureau: &str, count: usize) -> Vec<String> {
    harness::until(&format!("{count} are at {bureau}"), async || {
        let inbox = network.desk(bureau).inbox().await;
        (inbox.len() >= count).then(|| inbox.into_iter().map(|(_, id)| id).collect::<Vec<_>>())
    })
    .await
}

/// Sends so many messages and waits until they are delivered.
async fn deliver(network: &Network, from: &str, to: &str, count: usize) -> Vec<String> {
    let desk = network.desk(from);
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(desk.send(&[to], &format!("number {number}")).await);
    }
    for id in &ids {
        desk.tracked(id, to, DeliveryState::Delivered).await;
    }
    ids.sort();
    ids
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

fn data_dir(network: &Network, bureau: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(network.config(bureau)).unwrap();
    let config: toml::Table = text.parse().unwrap();
    network.home(bureau).join(config["data_dir"].as_str().unwrap())
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn a_wiped_node_is_refilled_by_its_peers() {
    for star in [false, true] {
        let names = ["FR", "KE", "IPSG"];
        let make = if star { Network::star } else { Network::mesh };
        let mut network = make(program(), &["FR", "KE"], "IPSG");
        names.iter().for_each(|bureau| hurry(&network, bureau, QUICK));
        let running: &[&str] = if star { &names } else { &names[..2] };
        network.start_all(running).await;
        let sent = deliver(&network, "FR", "KE", 20).await;
        network.terminate("KE").await;
        std::fs::remove_dir_all(data_dir(&network, "KE")).unwrap();
        network.start("KE").await;
        let again = arrived(&network, "KE", 20).await;
        assert_eq!(sorted(again), sent, "star: {star}");
        network.logged("KE", &["refill_asked", "origin=FR"]).await;
        network.logged("FR", &["refill_begun", "recipient=KE", "messages=20"]).await;
        network.logged("KE", &["refill_done", "origin=FR"]).await;
        let witness = if star { "IPSG" } else { "FR" };
        network.logged(witness, &["peer_epoch_changed", "peer=KE"]).await;
        // And nothing comes twice.
        let more = deliver(&network, "FR", "KE", 1).await;
        let all = sorted(arrived(&network, "KE", 21).await);
        assert_eq!(all, sorted([sent, more].concat()), "star: {star}");
    }
}

#[tokio::test]
async fn a_recipient_restored_from_a_copy_is_refilled() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    ["FR", "KE"].iter().for_each(|bureau| hurry(&network, bureau, QUICK));
    network.start_all(&["FR", "KE"]).await;
    let before = deliver(&network, "FR", "KE", 5).await;
    network.terminate("KE").await;
    let (data, kept) = (data_dir(&network, "KE"), network.home("KE").join("copy"));
    copy(&data, &kept);
    network.start("KE").await;
    let after = deliver(&network, "FR", "KE", 7).await;
    network.terminate("KE").await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    network.start("KE").await;
    let all = sorted(arrived(&network, "KE", 12).await);
    assert_eq!(all, sorted([before, after].concat()));
    network.logged("FR", &["refill_begun", "messages=7"]).await;
}

#[tokio::test]
async fn an_origin_restored_from_a_copy_begins_a_new_epoch() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    ["FR", "KE"].iter().for_each(|bureau| hurry(&network, bureau, QUICK));
    network.configure("FR", |text| format!("{text}\n[log]\nlevel = \"debug\"\n"));
    network.start_all(&["FR", "KE"]).await;
    deliver(&network, "FR", "KE", 3).await;
    network.terminate("FR").await;
    let (data, kept) = (data_dir(&network, "FR"), network.home("FR").join("copy"));
    copy(&data, &kept);
    network.start("FR").await;
    let epoch = network.desk("FR").status().await.epoch;
    deliver(&network, "FR", "KE", 4).await;
    // Until KE has FR's word on all of them.
    network.logged("FR", &["high_water_said", "sequence=7"]).await;
    network.terminate("FR").await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    network.start("FR").await;
    network.logged("FR", &["store_went_back", "peer=KE", "signed=7"]).await;
    assert_ne!(network.desk("FR").status().await.epoch, epoch);
    deliver(&network, "FR", "KE", 5).await;
    assert_eq!(arrived(&network, "KE", 12).await.len(), 12);
    assert!(!network.log("KE").contains("fork_found") && !network.log("KE").contains("gap_open"));
}

#[tokio::test]
async fn what_expires_or_is_on_its_way_is_no_gap() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    ["FR", "KE", "IPSG"].iter().for_each(|bureau| hurry(&network, bureau, QUICK));
    network.start_all(&["FR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;
    let expire_time = harness::peer::now().plus_ms(2_000).to_wire();
    let request = bureau_proto::desk::v1::SubmitRequest {
        expire_time: Some(expire_time),
        ..harness::desk::message(&["KE"], "soon")
    };
    let expired = fr.submit(request).await.unwrap();
    let waits = fr.send(&["KE"], "waits at the hub").await;
    fr.tracked(&expired, "KE", DeliveryState::Expired).await;
    fr.tracked(&waits, "KE", DeliveryState::Relayed).await;
    network.start("KE").await;
    assert_eq!(arrived(&network, "KE", 1).await, [waits]);
    deliver(&network, "FR", "KE", 3).await;
    let mut admin = network.desk("KE").admin().await;
    let request = bureau_proto::admin::v1::ListGapsRequest {};
    assert_eq!(admin.list_gaps(request).await.unwrap().into_inner().gaps, []);
    assert!(!network.log("KE").contains("gap_open"));
}

#[tokio::test]
async fn what_a_relay_withholds_is_missed_by_its_recipient() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    hurry(&network, "FR", QUICK);
    hurry(&network, "KE", QUICK);
    network.start_all(&["FR", "KE"]).await;
    let hub = Actor::of(&network.home("IPSG"));
    let mut of_fr = hub.link(&network.home("FR"), "FR").await;
    let mut of_ke = hub.link(&network.home("KE"), "KE").await;
    let fr = network.desk("FR");
    let withheld = fr.send(&["KE"], "withheld").await;
    let swallowed = parcel(&mut of_fr).await;
    take_custody(&hub, &of_fr, &swallowed).await;
    fr.tracked(&withheld, "KE", DeliveryState::Relayed).await;
    // What FR says of it the relay hands on, and KE's question it keeps.
    let said = loop {
        match of_fr.next().await {
            Some(Kind::HighWaters(said)) => break said,
            Some(_) => {}
            None => panic!("the link ended"),
        }
    };
    of_ke.send(Kind::HighWaters(said)).await;
    let asked = loop {
        match of_ke.next().await {
            Some(Kind::Shortfalls(asked)) => break asked,
            Some(_) => {}
            None => panic!("the link ended"),
        }
    };
    let line = network.logged("KE", &["gap_open", "origin=FR", "messages=1"]).await;
    assert!(line.contains("first=1") && line.contains("since="), "{line}");
    let mut admin = network.desk("KE").admin().await;
    let request = bureau_proto::admin::v1::ListGapsRequest {};
    let gaps = admin.list_gaps(request).await.unwrap().into_inner().gaps;
    assert!(matches!(gaps.as_slice(), [gap] if gap.open && gap.origin == "FR"), "{gaps:?}");
    // The question, once it gets through, brings the message again; then nothing is missing.
    of_fr.send(Kind::Shortfalls(asked)).await;
    let again = parcel(&mut of_fr).await;
    assert_eq!((&again.slips, again.refills), (&swallowed.slips, 1));
    assert_eq!(of_ke.offer(again).await, "DELIVERED");
    network.logged("KE", &["gap_closed", "origin=FR"]).await;
}
