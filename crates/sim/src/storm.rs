//! What goes wrong: to nodes, their disks and clocks, and the ways between them. Each mends itself
//! after a while; at the end all is mended.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{World, chance::Chance, plan::Way};

/// Goes on for the time that the plan says, and returns when all is mended.
pub(crate) async fn run(world: Arc<World>) {
    let mut chance = Chance::new(world.plan.seed, 4);
    let end = Instant::now() + Duration::from_secs(world.plan.seconds);
    // Each seed has its own weather: not everything happens in each.
    let allowed: Vec<u64> = (0..10).filter(|_| chance.one_in(2)).collect();
    let allowed = if allowed.is_empty() { vec![0] } else { allowed };
    let mut open = JoinSet::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(chance.between(500, 15_000))).await;
        let what = allowed[chance.index(allowed.len())];
        open.spawn(happen(Arc::clone(&world), what, chance.next()));
    }
    while open.join_next().await.is_some() {}
    heal(&world).await;
}

async fn happen(world: Arc<World>, what: u64, seed: u64) {
    let mut chance = Chance::new(seed, 5);
    let node = Arc::clone(&world.nodes[chance.index(world.nodes.len())]);
    let pair = world.plan.pairs[chance.index(world.plan.pairs.len())];
    let (low, high) = (pair.low, pair.high);
    let net = &world.net;
    match what {
        0 | 1 => {
            node.crash(chance.next(), chance.one_in(2));
            // Sometimes it stays away for long.
            let away_ms = if chance.one_in(4) { 90_000 } else { 5_000 };
            sleep(Duration::from_millis(chance.between(10, away_ms))).await;
            world.start(&node).await;
        }
        2 => {
            node.pause(true);
            sleep(Duration::from_millis(chance.between(500, 40_000))).await;
            node.pause(false);
        }
        3 => {
            world.note_way("is cut", low, high);
            net.cut(low, high, true);
            sleep(Duration::from_millis(chance.between(500, 90_000))).await;
            world.note_way("is mended", low, high);
            net.cut(low, high, false);
            if chance.one_in(2) {
                net.reset(low, high);
            }
        }
        4 => {
            world.note_way("is reset", low, high);
            net.reset(low, high);
        }
        5 => {
            world.note_way("swallows", low, high);
            net.swallow(low, high);
        }
        6 => {
            let most = chance.between(50, 3000);
            node.with_disk("slow", |home| home.set_sync_ms(Some(most)));
            sleep(Duration::from_millis(chance.between(1000, 30_000))).await;
            node.with_disk("as before", |home| home.set_sync_ms(None));
        }
        7 => {
            node.with_disk("low", |home| home.set_low(true));
            sleep(Duration::from_millis(chance.between(2000, 40_000))).await;
            node.with_disk("as before", |home| home.set_low(false));
        }
        8 if node.engine().is_some() => {
            node.with_disk("broken", bureau_store::sim::SimHome::fail_syncs);
        }
        8 => {}
        _ => {
            let hour = 3_600_000;
            let by_ms = match chance.index(4) {
                0 => hour,
                1 => -hour,
                _ => i64::try_from(chance.between(0, 480_000)).unwrap_or(0) - 240_000,
            };
            node.skew(by_ms);
            sleep(Duration::from_millis(chance.between(5000, 60_000))).await;
            node.skew(0);
            let way = Way::any(&mut chance);
            net.set_way(low, high, way);
        }
    }
}

/// Mends everything.
async fn heal(world: &Arc<World>) {
    world.book.note("all is mended");
    for pair in &world.plan.pairs {
        world.net.cut(pair.low, pair.high, false);
        world.net.set_way(pair.low, pair.high, Way::healed());
    }
    for node in &world.nodes {
        node.pause(false);
        node.skew(0);
        node.with_disk("as before", |home| {
            home.set_low(false);
            home.set_sync_ms(None);
        });
        world.start(node).await;
    }
}
