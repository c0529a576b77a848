//! Promise 1: accepted is never lost and never delivered twice, whichever node is killed when.
//!
//! FR sends over the hub IPSG to KE, whose desk watches and acknowledges; one of the three is
//! killed again and again. The checker counts as Jepsen does: lost = accepted - delivered once all is
//! healed; phantom = delivered - attempted; duplicated = one message under two inbox numbers, or one
//! request that gave two messages.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bureau_proto::desk::v1::{
    AcknowledgeRequest, DeliveryState, TrackRequest, WatchInboxRequest,
    desk_service_client::DeskServiceClient, watch_inbox_response::Event,
};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    Format, desks,
    harness::{Desk, Network},
    program,
};

const NODES: [&str; 3] = ["FR", "KE", "IPSG"];
const SENDERS: usize = 8;
/// How long everything may take to arrive once all nodes run.
const HEALING: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    cycles: u64,
    attempted: u64,
    accepted: usize,
    delivered: usize,
    acknowledged: usize,
    lost: usize,
    phantom: usize,
    duplicated: u64,
    kills: HashMap<&'static str, u64>,
    ready_ms_max: u128,
    healed_ms: u128,
    seconds: u64,
}

/// Inbox numbers by message, as KE's desk saw them.
type Seen = Arc<Mutex<HashMap<String, HashSet<u64>>>>;

pub(crate) async fn kill(cycles: u64, rate: u64, seed: u64, output: Format) -> bool {
    let started = Instant::now();
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    network.start_all(&NODES).await;
    let (sending, watching) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let period = Duration::from_micros(SENDERS as u64 * 1_000_000 / rate.max(1));
    let senders: Vec<_> = (0..SENDERS)
        .map(|name| {
            let stop = Arc::clone(&sending);
            tokio::spawn(desks::persist(network.desk("FR"), name, period, stop))
        })
        .collect();
    let seen = Seen::default();
    let watcher = tokio::spawn(watch(network.desk("KE"), Arc::clone(&seen), Arc::clone(&watching)));

    let (kills, ready_max) = strike(&mut network, cycles, seed, &seen).await;
    sending.store(true, Ordering::Relaxed);
    let (mut accepted, mut attempted, mut duplicated) = (Vec::new(), 0, 0);
    for sender in senders {
        let sent = sender.await.unwrap();
        attempted += sent.attempts;
        duplicated += sent.forked;
        accepted.extend(sent.ids);
    }
    duplicated += (accepted.len() - desks::distinct(&accepted)) as u64;
    let begun = Instant::now();
    let acknowledged = heal(&network.desk("FR"), &accepted).await;
    let healed = begun.elapsed();
    watching.store(true, Ordering::Relaxed);
    watcher.await.unwrap();

    let seen = lock(&seen);
    duplicated += seen.values().filter(|numbers| numbers.len() > 1).count() as u64;
    let outcome = Outcome {
        seed,
        cycles,
        attempted,
        accepted: accepted.len(),
        delivered: seen.len(),
        acknowledged,
        lost: accepted.iter().filter(|id| !seen.contains_key(*id)).count(),
        // A request that was accepted and whose answer was lost is attempted, not accepted.
        phantom: seen.len().saturating_sub(usize::try_from(attempted).unwrap()),
        duplicated,
        kills,
        ready_ms_max: ready_max.as_millis(),
        healed_ms: healed.as_millis(),
        seconds: started.elapsed().as_secs(),
    };
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&outcome).unwrap()),
        Format::Table => println!("{outcome:#?}"),
    }
    let all_acknowledged = outcome.acknowledged == outcome.accepted;
    outcome.lost == 0 && outcome.phantom == 0 && outcome.duplicated == 0 && all_acknowledged
}

/// Kills and starts nodes at random; gives how often each, and the longest time until one served.
async fn strike(
    network: &mut Network,
    cycles: u64,
    seed: u64,
    seen: &Seen,
) -> (HashMap<&'static str, u64>, Duration) {
    let mut kills = HashMap::new();
    let mut ready_max = Duration::ZERO;
    let mut random = seed;
    for cycle in 1..=cycles {
        let victim = NODES[usize::try_from(next(&mut random) % 3).unwrap()];
        tokio::time::sleep(Duration::from_millis(50 + next(&mut random) % 500)).await;
        network.kill(victim);
        *kills.entry(victim).or_insert(0) += 1;
        let begun = Instant::now();
        network.start(victim).await;
        ready_max = ready_max.max(begun.elapsed());
        if cycle % 10 == 0 || cycle == cycles {
            let arrived = lock(seen).len();
            eprintln!("cycle {cycle} of {cycles}: {arrived} messages have arrived");
        }
    }
    (kills, ready_max)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// xorshift64: the same victims and moments for a seed.
const fn next(random: &mut u64) -> u64 {
    *random = (*random).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// Waits until FR has the receipts of every message; gives how many are acknowledged.
async fn heal(desk: &Desk, accepted: &[String]) -> usize {
    let begun = Instant::now();
    let mut client = desk.client().await;
    let mut open: Vec<&String> = accepted.iter().collect();
    loop {
        let mut still = Vec::new();
        for id in open {
            let request = TrackRequest { message_id: id.clone() };
            let track = client.track(request).await.unwrap().into_inner();
            if track.recipients[0].state() != DeliveryState::Acknowledged {
                still.push(id);
            }
        }
        if still.is_empty() || begun.elapsed() > HEALING {
            return accepted.len() - still.len();
        }
        open = still;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// KE's desk: takes what comes, again after each break, and acknowledges in batches.
async fn watch(desk: Desk, seen: Seen, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(channel) = desk.channel().await {
            let mut client = DeskServiceClient::new(channel.channel());
            // It ends with the node; then it begins anew.
            drop(watch_once(&mut client, &seen, &stop).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_once(
    client: &mut DeskServiceClient<Channel>,
    seen: &Seen,
    stop: &AtomicBool,
) -> Result<(), tonic::Status> {
    let request = WatchInboxRequest { after_number: 0 };
    let mut stream = client.watch_inbox(request).await?.into_inner();
    let mut taken = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let next = tokio::time::timeout(Duration::from_millis(100), stream.message()).await;
        let quiet = next.is_err();
        if let Ok(next) = next {
            let Some(response) = next? else { return Ok(()) };
            if let Some(Event::Message(message)) = response.event {
                let entry = message.entry.unwrap();
                lock(seen).entry(entry.message_id.clone()).or_default().insert(entry.number);
                taken.push(entry.message_id);
            }
        }
        if !taken.is_empty() && (quiet || taken.len() >= 100) {
            let message_ids = std::mem::take(&mut taken);
            client.acknowledge(AcknowledgeRequest { message_ids }).await?;
        }
    }
    Ok(())
}
