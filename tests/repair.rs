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
