//! The checker counts as Jepsen does: lost = accepted - delivered once all is healed; phantom =
//! delivered - attempted; duplicated = one message under two inbox numbers, or one request that
//! gave two messages.

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
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::{
    desks::{self, Sent},
    harness::{Desk, Network},
};

const SENDERS: usize = 8;
/// How long everything may take to arrive once all nodes run and all links are up.
const HEALING: Duration = Duration::from_secs(300);

/// What was counted.
#[derive(Debug, Serialize)]
pub(super) struct Tally {
    attempted: u64,
    accepted: usize,
    delivered: usize,
    acknowledged: usize,
    lost: usize,
    phantom: usize,
    duplicated: u64,
    healed_ms: u128,
}

impl Tally {
    /// Whether every promise was kept.
    pub(super) const fn is_good(&self) -> bool {
        let all_acknowledged = self.acknowledged == self.accepted;
        self.lost == 0 && self.phantom == 0 && self.duplicated == 0 && all_acknowledged
    }
}

/// Inbox numbers by message, as KE's desk saw them.
type Seen = Arc<Mutex<HashMap<String, HashSet<u64>>>>;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Desks that send and one that takes what comes, while something goes on.
pub(super) struct Checker {
    from: Desk,
    stop_sending: Arc<AtomicBool>,
    stop_watching: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Sent>>,
    watcher: JoinHandle<()>,
    seen: Seen,
}

impl Checker {
    /// Begins to send from FR to KE at a rate a second.
    pub(super) fn begin(network: &Network, rate: u64) -> Self {
        let (stop_sending, stop_watching) = (Arc::<AtomicBool>::default(), Arc::default());
        let period = Duration::from_micros(SENDERS as u64 * 1_000_000 / rate.max(1));
        let sender = |name| {
            let stop = Arc::clone(&stop_sending);
            tokio::spawn(desks::persist(network.desk("FR"), name, period, stop))
        };
        let senders = (0..SENDERS).map(sender).collect();
        let seen = Seen::default();
        let watching = watch(network.desk("KE"), Arc::clone(&seen), Arc::clone(&stop_watching));
        let watcher = tokio::spawn(watching);
        Self { from: network.desk("FR"), stop_sending, stop_watching, senders, watcher, seen }
    }

    /// How many messages have arrived.
    pub(super) fn arrived(&self) -> usize {
        lock(&self.seen).len()
    }

    /// Stops sending, waits until all is healed, and counts; `before`: what was accepted earlier.
    pub(super) async fn end(self, before: Vec<String>) -> Tally {
        self.stop_sending.store(true, Ordering::Relaxed);
        let (mut attempted, mut duplicated) = (before.len() as u64, 0);
        let mut accepted = before;
        for sender in self.senders {
            let sent = sender.await.unwrap();
            attempted += sent.attempts;
            duplicated += sent.forked;
            accepted.extend(sent.ids);
        }
        duplicated += (accepted.len() - desks::distinct(&accepted)) as u64;
        let begun = Instant::now();
        let acknowledged = heal(&self.from, &accepted).await;
        let healed = begun.elapsed();
        self.stop_watching.store(true, Ordering::Relaxed);
        self.watcher.await.unwrap();
        let seen = lock(&self.seen);
        duplicated += seen.values().filter(|numbers| numbers.len() > 1).count() as u64;
        Tally {
            attempted,
            accepted: accepted.len(),
            delivered: seen.len(),
            acknowledged,
            lost: accepted.iter().filter(|id| !seen.contains_key(*id)).count(),
            // A request that was accepted and whose answer was lost is attempted, not accepted.
            phantom: seen.len().saturating_sub(usize::try_from(attempted).unwrap()),
            duplicated,
            healed_ms: healed.as_millis(),
        }
    }
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
