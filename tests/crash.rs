//! Accepted is never lost and never twice, whatever ends a process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{collections::HashSet, time::Duration};

use bureau_proto::desk::v1::{DeliveryState, SubmitManyRequest, submit_many_response::Outcome};
use harness::{Desk, Network, Program, desk::message, until};
use tokio_stream::StreamExt as _;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// Submits many by stream until it ends, by itself or with the node; gives what was accepted.
async fn submit_many(desk: &Desk, to: &'static [&'static str], count: usize) -> Vec<String> {
    let (requests, stream) = tokio::sync::mpsc::channel(256);
    tokio::spawn(async move {
        for number in 0..count {
            let request = Some(message(to, &format!("number {number}")));
            // The node may be gone; then nobody takes more.
            if requests.send(SubmitManyRequest { request }).await.is_err() {
                return;
            }
        }
    });
    let mut client = desk.client().await;
    let stream = client.submit_many(tokio_stream::wrappers::ReceiverStream::new(stream)).await;
    let Ok(stream) = stream else { return Vec::new() };
    let mut responses = stream.into_inner();
    let mut accepted = Vec::new();
    while let Some(Ok(response)) = responses.next().await {
        match response.outcome.unwrap() {
            Outcome::Accepted(accepted_one) => accepted.push(accepted_one.message_id),
            Outcome::Error(error) => panic!("{error:?}"),
        }
    }
    accepted
}

async fn all_arrive(desk: &Desk, ids: &[String]) {
    let wanted: HashSet<&String> = ids.iter().collect();
    let inbox = until("all arrive", async || {
        let inbox = desk.inbox().await;
        let held: HashSet<&String> = inbox.iter().map(|(_, id)| id).collect();
        wanted.is_subset(&held).then_some(inbox.clone())
    })
    .await;
    let distinct: HashSet<&String> = inbox.iter().map(|(_, id)| id).collect();
    assert_eq!(distinct.len(), inbox.len(), "a message came twice");
}

#[tokio::test]
async fn what_was_accepted_while_the_peer_was_down_arrives_once_after_a_kill() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let accepted = submit_many(&network.desk("FR"), &["KE"], 2000).await;
    assert_eq!(accepted.len(), 2000);
    network.kill("FR");
    network.start_all(&["FR", "KE"]).await;
    all_arrive(&network.desk("KE"), &accepted).await;
    let fr = network.desk("FR");
    for id in accepted.iter().step_by(199) {
        fr.tracked(id, "KE", DeliveryState::Delivered).await;
    }
}

#[tokio::test]
async fn a_node_killed_while_it_accepts_keeps_what_it_answered() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE", "IPSG"]).await;
    let mut accepted = Vec::new();
    for round in 0..4 {
        let desk = network.desk("FR");
        let submitting = tokio::spawn(async move { submit_many(&desk, &["KE"], 20_000).await });
        tokio::time::sleep(Duration::from_millis(400)).await;
        // The sender, the relay, the recipient, the sender.
        let victim = ["FR", "IPSG", "KE", "FR"][round];
        network.kill(victim);
        network.start(victim).await;
        if victim != "FR" {
            network.kill("FR");
            network.start("FR").await;
        }
        accepted.extend(submitting.await.unwrap());
    }
    assert!(accepted.len() > 100, "only {} were accepted", accepted.len());
    all_arrive(&network.desk("KE"), &accepted).await;
    let fr = network.desk("FR");
    for id in accepted.iter().step_by(accepted.len() / 20) {
        fr.tracked(id, "KE", DeliveryState::Delivered).await;
    }
}

#[tokio::test]
async fn a_kill_amid_checkpoints_and_snapshots_loses_nothing() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    // As small as they may be: some are always under way.
    network.configure("FR", |text| {
        let store = "[store]\njournal_segment_bytes = 4194304\nsnapshot_bytes = 4194304\n\n";
        text.replace("[policy]", &format!("{store}[policy]"))
    });
    network.start("FR").await;
    let mut accepted = Vec::new();
    for _ in 0..4 {
        let desk = network.desk("FR");
        let submitting = tokio::spawn(async move { submit_many(&desk, &["KE"], 50_000).await });
        tokio::time::sleep(Duration::from_millis(900)).await;
        network.kill("FR");
        network.start("FR").await;
        accepted.extend(submitting.await.unwrap());
    }
    assert!(network.log("FR").contains("snapshot_taken"));
    network.start("KE").await;
    all_arrive(&network.desk("KE"), &accepted).await;
}

#[tokio::test]
async fn the_same_numbers_come_again_until_they_are_acknowledged() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let accepted = submit_many(&network.desk("FR"), &["KE"], 20).await;
    all_arrive(&network.desk("KE"), &accepted).await;
    let before = network.desk("KE").inbox().await;
    network.kill("KE");
    network.start("KE").await;
    let ke = network.desk("KE");
    assert_eq!(ke.inbox().await, before);
    ke.acknowledge(&[&accepted[3]]).await.unwrap();
    network.kill("KE");
    network.start("KE").await;
    let left: Vec<_> = before.into_iter().filter(|(_, id)| *id != accepted[3]).collect();
    assert_eq!(network.desk("KE").inbox().await, left);
    let mut watch = network.desk("KE").watch(left[4].0).await;
    assert_eq!(watch.next().await.unwrap().entry.unwrap().number, left[5].0);
}
