//! Links that break: silent and half-open ones, both sides dialing at once, peers that are away,
//! and what an operator can ask and do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bureau_proto::{
    admin::v1::Peer,
    desk::v1::DeliveryState,
    link::v1::{self as wire, frame::Kind},
};
use harness::{Network, Program, peer::Actor, until};
use rustix::process::Signal;
use tokio::net::TcpListener;

/// Fast enough for a test: a stalled link is found within so long.
const STALL: Duration = Duration::from_secs(2);
const FAST: &str = "ping_ms = 500\nstall_ms = 2_000\nconnect_timeout_ms = 500\n";

fn network(bureaus: &[&str], links: &str) -> Network {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let network = Network::mesh(program, bureaus, "IPSG");
    for bureau in bureaus {
        network.configure(bureau, |text| format!("{text}\n[links]\n{FAST}{links}"));
    }
    network
}

/// A configuration with something else said of one of its peers.
fn with_peer(text: &str, code: &str, key: &str, value: impl Into<toml::Value>) -> String {
    let mut config: toml::Table = text.parse().unwrap();
    let peers = config["peer"].as_array_mut().unwrap();
    let peer = peers.iter_mut().find(|peer| peer["bureau"].as_str() == Some(code)).unwrap();
    peer.as_table_mut().unwrap().insert(key.to_owned(), value.into());
    config.to_string()
}

async fn peer(network: &Network, bureau: &str, code: &str) -> Peer {
    let peers = network.desk(bureau).peers().await;
    peers.into_iter().find(|peer| peer.bureau == code).unwrap()
}

/// How often a log has a line with these words.
fn count(network: &Network, bureau: &str, words: &[&str]) -> usize {
    let log = network.log(bureau);
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test]
async fn a_node_that_is_frozen_is_found_by_either_side() {
    let mut network = network(&["FR", "KE"], "");
    network.start_all(&["FR", "KE"]).await;
    for (frozen, other) in [("KE", "FR"), ("FR", "KE")] {
        let desk = network.desk(other);
        desk.linked(frozen, true).await;
        network.desk(frozen).linked(other, true).await;
        let stalled = || count(&network, other, &["link_down", "reason=STALLED"]);
        let (before, begun) = (stalled(), Instant::now());
        network.signal(frozen, Signal::STOP);
        let id = desk.send(&[frozen], "into the silence").await;
        until("it is found", async || (stalled() > before).then_some(())).await;
        let took = begun.elapsed();
        // A slow machine may take a little longer, a broken node never finds it.
        assert!(took < STALL + Duration::from_secs(3), "{took:?}");
        network.signal(frozen, Signal::CONT);
        desk.tracked(&id, frozen, DeliveryState::Delivered).await;
    }
}

#[tokio::test]
async fn who_greets_and_then_is_silent_deaf_or_busy_is_cut() {
    let mut network = network(&["FR", "BR"], "");
    network.start("FR").await;
    let (home, actor) = (network.home("FR"), Actor::of(&network.home("BR")));
    let fr = network.desk("FR");
    let waiting: Vec<_> = (0..40).map(|_| "x".repeat(60_000)).collect();
    for text in &waiting {
        fr.send(&["BR"], text).await;
    }
    // Silent, and its connection takes nothing: the receipts of what it is sent never come.
    let silent = actor.link(&home, "FR").await;
    network.logged("FR", &["link_down", "reason=STALLED", "peer=BR"]).await;
    drop(silent);
    // It talks on and on, and never answers.
    let before = count(&network, "FR", &["link_down"]);
    let deaf = actor.link(&home, "FR").await;
    let talking = async {
        for number in 1_000.. {
            deaf.send(Kind::Ping(wire::Ping { number })).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = until("it is found", async || {
        (count(&network, "FR", &["link_down"]) > before).then_some(())
    });
    tokio::select! {
        () = found => {}
        () = talking => {}
    }
    assert_eq!(count(&network, "FR", &["link_down", "reason=STALLED"]), before + 1);
    assert_eq!(peer(&network, "FR", "BR").await.queued, 40);
}

#[tokio::test]
async fn of_two_calls_at_once_one_link_remains() {
    let mut network = network(&["FR", "KE"], "");
    for turn in 0..4 {
        network.spawn("FR");
        network.spawn("KE");
        network.serving("FR").await;
        network.serving("KE").await;
        let (fr, ke) = (network.desk("FR"), network.desk("KE"));
        fr.linked("KE", true).await;
        ke.linked("FR", true).await;
        let id = fr.send(&["KE"], &format!("turn {turn}")).await;
        fr.tracked(&id, "KE", DeliveryState::Delivered).await;
        // Over so many pings it is the same link.
        let since = peer(&network, "FR", "KE").await.state_since_time;
        network.json("FR", &["peers", "ping", "KE", "--count", "100"]);
        network.json("KE", &["peers", "ping", "FR", "--count", "100"]);
        assert_eq!(peer(&network, "FR", "KE").await.state_since_time, since);
        if turn % 2 == 0 {
            network.kill("FR");
            network.kill("KE");
        } else {
            network.terminate("FR").await;
            network.terminate("KE").await;
        }
    }
    for (bureau, other) in [("FR", "peer=KE"), ("KE", "peer=FR")] {
        let ups = count(&network, bureau, &["link_up", other]);
        assert!((4..=8).contains(&ups), "{bureau}: {ups} links in 4 turns");
    }
}

/// Listens, takes every connection, and treats it in a way; notes when each came.
async fn listener(closes: bool) -> (String, Arc<Mutex<Vec<Instant>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, calls) = (listener.local_addr().unwrap().to_string(), Arc::default());
    let noted: Arc<Mutex<Vec<Instant>>> = Arc::clone(&calls);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            noted.lock().unwrap().push(Instant::now());
            if !closes {
                held.push(stream);
            }
        }
    });
    (address, calls)
}

#[tokio::test]
async fn a_peer_is_dialed_once_a_second_over_all_its_addresses() {
    let mut network = network(&["FR", "KE", "BR"], "backoff_base_ms = 10\nbackoff_max_ms = 10\n");
    let (mut addresses, mut calls) = (Vec::new(), Vec::new());
    for closes in [true, false, true] {
        let (address, noted) = listener(closes).await;
        addresses.push(address);
        calls.push(noted);
    }
    network.configure("FR", |text| with_peer(&text, "KE", "addresses", addresses));
    network.start_all(&["FR", "BR"]).await;
    let all = || {
        let mut all: Vec<_> =
            calls.iter().flat_map(|calls| calls.lock().unwrap().clone()).collect();
        all.sort();
        all
    };
    until("six calls came", async || (all().len() >= 6).then_some(())).await;
    let all = all();
    for pair in all.windows(2) {
        let apart = pair[1] - pair[0];
        // When a call begins and when it is taken differ by what the machine is slow.
        assert!(apart > Duration::from_millis(700), "{apart:?} apart");
    }
    for calls in &calls {
        assert!(calls.lock().unwrap().len() >= 2, "addresses take turns");
    }
    network.logged("FR", &["link_attempt_failed", "peer=KE", "attempts=4"]).await;
    assert_eq!(count(&network, "FR", &["link_attempt_failed", "peer=KE", "attempts=3"]), 0);
    // The other peer notices nothing.
    let fr = network.desk("FR");
    let id = fr.send(&["BR"], "as ever").await;
    fr.tracked(&id, "BR", DeliveryState::Delivered).await;
}

#[tokio::test]
async fn what_is_known_of_a_peer_that_is_away_outlives_a_restart() {
    let links = "backoff_base_ms = 60_000\nbackoff_max_ms = 3_600_000\n";
    let mut network = network(&["FR", "KE"], links);
    network.configure("KE", |text| with_peer(&text, "FR", "dial", false));
    network.start("FR").await;
    let attempt = ["link_attempt_failed", "peer=KE", "attempts=1"];
    network.logged("FR", &attempt).await;
    let before = until("it is noted", async || {
        let before = peer(&network, "FR", "KE").await;
        before.next_attempt_time.is_some().then_some(before)
    })
    .await;
    let (id, refused) = {
        let fr = network.desk("FR");
        let ping = network.cli("FR", &["peers", "ping", "KE"]);
        (fr.send(&["KE"], "patience").await, ping)
    };
    assert_eq!(refused.status.code(), Some(64 + 14));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("PEER_DOWN") && told.contains("next try at"), "{told}");
    // The note is on disk as soon as it is a commit; the message came later.
    network.kill("FR");
    network.start("FR").await;
    let after = peer(&network, "FR", "KE").await;
    assert!(after.failed_attempts >= 1, "{after:?}");
    assert_eq!(after.state_since_time, before.state_since_time);
    assert_eq!(after.last_reason, before.last_reason);
    network.start("KE").await;
    let retried = network.json("FR", &["peers", "retry", "KE"]);
    assert_eq!(retried["peer"]["bureau"], "KE");
    network.desk("FR").tracked(&id, "KE", DeliveryState::Delivered).await;
    assert_eq!(count(&network, "FR", &attempt), 1, "it began anew");
    let up = network.json("FR", &["peers", "retry", "KE"]);
    assert_eq!((&up["dialed"], &up["peer"]["state"]), (&false.into(), &"UP".into()));
    // Forgotten now that it was heard from.
    network.kill("FR");
    network.kill("KE");
    network.start("FR").await;
    network.logged("FR", &["link_attempt_failed", "peer=KE"]).await;
    until("it is dialed as if for the first time", async || {
        (count(&network, "FR", &attempt) == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_is_told_what_cannot_be_asked() {
    let mut network = network(&["FR", "KE"], "");
    network.start("FR").await;
    for (arguments, code, told) in [
        (["peers", "ping", "ZA"], 64 + 5, "NOT_FOUND"),
        (["peers", "retry", "ZA"], 64 + 5, "NOT_FOUND"),
        (["peers", "ping", "z"], 64 + 3, "bureau"),
        (["peers", "ping", "KE"], 64 + 14, "PEER_DOWN"),
    ] {
        let output = network.cli("FR", &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
}
