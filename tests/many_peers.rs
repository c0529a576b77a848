//! A node with 200 peers of which 195 are away: it dials each now and then, says little, and serves
//! the five others as ever. What it costs is measured by `bureau-bench -- peers`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use bureau_proto::desk::v1::DeliveryState;
use harness::{Network, Program, until};

const PEERS: usize = 200;
const UP: usize = 5;

/// How often the hub has dialed each peer.
async fn attempts(network: &Network) -> Vec<u64> {
    let text = network.metrics("HUB").await;
    let of_peer = |line: &&str| line.starts_with("bureau_links_connect_attempts_total{");
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse().unwrap();
    text.lines().filter(of_peer).map(number).collect()
}

#[tokio::test]
async fn two_hundred_peers_of_which_five_are_there() {
    let codes: Vec<String> = (0..PEERS).map(|number| format!("B{number}")).collect();
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let mut network = Network::crowd(Program::at(env!("CARGO_BIN_EXE_bureau")), &codes, "HUB", UP);
    let (here, away) = codes.split_at(UP);
    // Most of those that are away refuse, some take a connection and say nothing.
    let silent = away.iter().step_by(4).map(|code| {
        let text = std::fs::read_to_string(network.config(code)).unwrap();
        let config: toml::Table = text.parse().unwrap();
        TcpListener::bind(config["link"]["listen"].as_str().unwrap()).unwrap()
    });
    let _silent: Vec<TcpListener> = silent.collect();
    let begun = Instant::now();
    network.start("HUB").await;
    network.start_all(here).await;
    let hub = network.desk("HUB");
    for code in here {
        hub.linked(code, true).await;
    }
    // All of them are being dialed by now; some more than once.
    until("peers were dialed again", async || {
        (attempts(&network).await.iter().sum::<u64>() > 3 * PEERS as u64).then_some(())
    })
    .await;
    let sent = Instant::now();
    for code in here {
        let id = hub.send(&[code], "as ever").await;
        hub.tracked(&id, code, DeliveryState::Delivered).await;
    }
    let each = sent.elapsed() / UP as u32;
    assert!(each < Duration::from_secs(2), "{each:?} a message");

    // A message for all, those that are away included, is with the five at once.
    let id = hub.send(&codes, "for all").await;
    for code in here {
        hub.tracked(&id, code, DeliveryState::Delivered).await;
    }
    hub.tracked(&id, away[0], DeliveryState::Queued).await;

    let (attempts, elapsed) = (attempts(&network).await, begun.elapsed().as_secs());
    let most = attempts.iter().copied().max().unwrap();
    assert!(most <= elapsed + 1, "{most} attempts in {elapsed} s");
    // Told at the attempts 1, 2, 4, 8 and so on.
    let log = network.log("HUB");
    for code in away {
        let lines = log.matches(&format!("link_attempt_failed    peer={code} ")).count();
        let told = 64 - u64::leading_zeros(most);
        assert!(lines as u32 <= told, "{code}: {lines} lines for {most} attempts");
    }
}
