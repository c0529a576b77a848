//! Where a message is, asked of real nodes: every place on its way, and every end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use bureau_proto::{
    admin::v1::LinkState,
    desk::v1::{DeliveryState, SubmitRequest},
    envelope::v1::Lane,
};
use harness::{Network, Program, desk::message, until};
use serde_json::Value;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// What a bureau's operator is told of a message for a recipient.
fn why(network: &Network, bureau: &str, id: &str, recipient: &str) -> Value {
    let explained = network.json(bureau, &["why", id, "--to", recipient]);
    assert_eq!(explained["message_id"].as_str().unwrap().get(..6), id.get(..6));
    let explanations = explained["explanations"].as_array().unwrap();
    assert_eq!(explanations.len(), 1, "{explained}");
    assert_eq!(explanations[0]["recipient"], recipient);
    explanations[0].clone()
}

/// Waits until a bureau's operator is told this cause.
async fn because(network: &Network, bureau: &str, id: &str, recipient: &str, cause: &str) -> Value {
    until(&format!("{bureau} says {cause} of {id}"), async || {
        let explanation = why(network, bureau, id, recipient);
        (explanation["cause"] == cause).then_some(explanation)
    })
    .await
}

#[tokio::test]
async fn an_outage_is_told_with_what_is_ahead() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let flash = SubmitRequest { lane: Lane::Flash.into(), ..message(&["KE"], "urgent") };
    fr.send(&["KE"], "the first").await;
    let id = fr.send(&["KE"], "the second").await;
    fr.submit(flash).await.unwrap();
    until("the link has been tried", async || {
        let peers = fr.peers().await;
        let failed = peers.iter().find(|peer| peer.bureau == "KE").map(|peer| peer.failed_attempts);
        failed.is_some_and(|failed| failed > 0).then_some(())
    })
    .await;

    let explanation = because(&network, "FR", &id, "KE", "LINK_DOWN").await;
    assert_eq!((&explanation["state"], &explanation["role"]), (&"QUEUED".into(), &"ORIGIN".into()));
    assert_eq!((&explanation["holder"], &explanation["next_hop"]), (&"FR".into(), &"KE".into()));
    assert_eq!(explanation["last_reason"], "UNREACHABLE");
    assert!(explanation["failed_attempts"].as_u64().unwrap() > 0);
    assert_eq!(explanation["route"], "straight, or over IPSG as soon as that link is up");
    assert_eq!(
        (&explanation["estimate_time"], explanation["ahead"]["messages"].as_u64()),
        (&Value::Null, Some(2))
    );
    let lanes = serde_json::json!([
        {"lane": "FLASH", "messages": 1}, {"lane": "ROUTINE", "messages": 1}
    ]);
    assert_eq!(explanation["ahead"]["lanes"], lanes);
    assert!(explanation["ahead"]["bytes"].as_u64().unwrap() > 500);

    let told = network.cli("FR", &["why", &id[..8]]);
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("KE  waits here: the link to KE is "), "{text}");
    assert!(text.contains("    ahead      2 messages, "), "{text}");

    // By hub, with the hub waiting for the recipient.
    network.start("IPSG").await;
    let at_hub = because(&network, "FR", &id, "KE", "WITH_RELAY").await;
    assert_eq!((&at_hub["holder"], &at_hub["state"]), (&"IPSG".into(), &"RELAYED".into()));
    assert!(at_hub["since_time"].is_string());
    let hub = because(&network, "IPSG", &id, "KE", "LINK_DOWN").await;
    assert_eq!((&hub["role"], &hub["next_hop"]), (&"RELAY".into(), &"KE".into()));
    assert_eq!(hub["ahead"]["messages"], 2);
    // At a hub a message is as large as at its origin.
    assert_eq!(hub["ahead"]["bytes"], explanation["ahead"]["bytes"]);
    let waits = fr.depths().await;
    assert!(waits.is_empty(), "{waits:?}");

    // There, and then taken over.
    network.start("KE").await;
    let there = because(&network, "FR", &id, "KE", "DELIVERED").await;
    assert_eq!((&there["holder"], &there["state"]), (&"KE".into(), &"DELIVERED".into()));
    let inbox = why(&network, "KE", &id, "KE");
    assert_eq!((&inbox["role"], &inbox["cause"]), (&"RECIPIENT".into(), &"DELIVERED".into()));
    assert!(inbox["inbox_number"].as_u64().unwrap() > 0);
    assert_eq!(network.desk("KE").peers().await[1].state(), LinkState::Up);
    network.desk("KE").acknowledge(&[&id]).await.unwrap();
    let taken = because(&network, "FR", &id, "KE", "ACKNOWLEDGED").await;
    assert_eq!(taken["sentence"], "desk desk of KE has taken it over, by its own receipt");
    assert_eq!(why(&network, "KE", &id, "KE")["cause"], "ACKNOWLEDGED");
    // The hub has nothing more to do with it, and remembers: that a desk took it over may go home
    // straight.
    let hub = why(&network, "IPSG", &id, "KE");
    assert_eq!((&hub["role"], &hub["holder"]), (&"RELAY".into(), &"KE".into()));
}

#[tokio::test]
async fn a_detour_and_an_end_are_told() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "IPSG"]).await;
    let fr = network.desk("FR");
    fr.linked("IPSG", true).await;
    let expire_time = harness::peer::now().plus_ms(2_500).to_wire();
    let request = SubmitRequest { expire_time: Some(expire_time), ..message(&["KE"], "soon") };
    let id = fr.submit(request).await.unwrap();
    because(&network, "FR", &id, "KE", "WITH_RELAY").await;
    fr.tracked(&id, "KE", DeliveryState::Expired).await;
    let expired = because(&network, "FR", &id, "KE", "EXPIRED").await;
    assert_eq!(expired["sentence"], "it was not delivered in time, says IPSG");
    assert_eq!((&expired["holder"], &expired["state"]), (&Value::Null, &"EXPIRED".into()));
}

#[tokio::test]
async fn what_is_not_known_and_what_is_not_one_is_refused() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    let id = fr.send(&["KE"], "one").await;
    let refused = |arguments: &[&str]| {
        let output = network.cli("FR", arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = refused(&["why", "aaaaaaaaaaaaaaaaaaaaaaaa"]);
    assert_eq!(code, Some(69), "{error}");
    assert!(
        error.contains("nothing is known of such a message at this node (NOT_FOUND)"),
        "{error}"
    );
    let (code, error) = refused(&["why", &id, "--to", "BR"]);
    assert_eq!(code, Some(69), "{error}");
    let (code, error) = refused(&["why", "abc"]);
    assert_eq!(code, Some(67), "{error}");
    let (code, error) = refused(&["why", &id, "--to", "ke"]);
    assert_eq!(code, Some(0), "{error}");
}

#[tokio::test]
async fn the_shape_of_the_queue_is_what_waits() {
    let mut network = Network::mesh(program(), &["FR", "KE", "BR"], "IPSG");
    network.start("FR").await;
    let fr = network.desk("FR");
    assert_eq!(network.json("FR", &["queue", "shape"])["rows"], serde_json::json!([]));
    for _ in 0..3 {
        fr.send(&["KE"], "waits").await;
    }
    fr.submit(SubmitRequest { lane: Lane::Flash.into(), ..message(&["BR"], "waits") })
        .await
        .unwrap();
    let shape = network.json("FR", &["queue", "shape"]);
    assert_eq!((&shape["total"], &shape["complete"]), (&4.into(), &true.into()));
    let rows = shape["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["recipient"], &rows[0]["total"]),
        (2, &"KE".into(), &3.into())
    );
    assert_eq!(rows[0]["messages"].as_array().unwrap()[0], 3);
    let lanes = network.json("FR", &["queue", "shape", "--by", "lane", "--recipient", "br"]);
    assert_eq!((&lanes["rows"][0]["lane"], &lanes["total"]), (&"FLASH".into(), &1.into()));
}
