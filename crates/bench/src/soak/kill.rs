//! Promise 1: accepted is never lost and never delivered twice, whichever node is killed when. FR
//! sends over the hub IPSG to KE; one of the three is killed again and again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    NODES,
    checker::{Checker, Tally},
    print,
};
use crate::{
    Format,
    harness::{Chance, Network},
    program,
};

#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    cycles: u64,
    #[serde(flatten)]
    tally: Tally,
    kills: HashMap<&'static str, u64>,
    ready_ms_max: u128,
    seconds: u64,
}

pub(crate) async fn kill(cycles: u64, rate: u64, seed: u64, output: Format) -> bool {
    let started = Instant::now();
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start_all(&NODES).await;
    let checker = Checker::begin(&network, rate);
    let (kills, ready_max) = strike(&mut network, cycles, seed, &checker).await;
    let tally = checker.end(Vec::new()).await;
    let seconds = started.elapsed().as_secs();
    let ready_ms_max = ready_max.as_millis();
    let outcome = Outcome { seed, cycles, tally, kills, ready_ms_max, seconds };
    print(&outcome, output);
    outcome.tally.is_good()
}

/// Kills and starts nodes at random; gives how often each, and the longest time until one served.
async fn strike(
    network: &mut Network,
    cycles: u64,
    seed: u64,
    checker: &Checker,
) -> (HashMap<&'static str, u64>, Duration) {
    let mut kills = HashMap::new();
    let mut ready_max = Duration::ZERO;
    let mut chance = Chance::of(seed);
    for cycle in 1..=cycles {
        let victim = NODES[usize::try_from(chance.up_to(2)).unwrap()];
        tokio::time::sleep(Duration::from_millis(chance.between(50, 550))).await;
        network.kill(victim);
        *kills.entry(victim).or_insert(0) += 1;
        let begun = Instant::now();
        network.start(victim).await;
        ready_max = ready_max.max(begun.elapsed());
        if cycle % 10 == 0 || cycle == cycles {
            eprintln!("cycle {cycle} of {cycles}: {} messages have arrived", checker.arrived());
        }
    }
    (kills, ready_max)
}
