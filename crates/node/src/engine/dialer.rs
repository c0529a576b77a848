//! How a link comes up: dial, greet, run; after a failure wait longer and longer, each time a
//! random while, and not at all once the peer was heard from or an operator asks for it. What was
//! learned of a peer that is away outlives a restart.
//!
//! When to dial is decided here; how a connection comes about is behind [`Connect`], so that a
//! simulation can give its own.

use std::{future::Future, sync::Arc, time::Duration};

use bureau_core::{BureauCode, Reason};
use bureau_net::{Dialer, Target};
use bureau_proto::link::v1::{
    Frame, OpenRequest, OpenResponse, link_service_client::LinkServiceClient,
};
use bureau_store::contract::{Operation, PeerNote};
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    outbound::End,
    session::{self, OUTBOUND_FRAMES_MAX, Peer as PeerName, Wire, end_of_status},
};
use crate::config::Peer;

/// Two attempts to reach a peer begin at least so far apart, over all its addresses and whatever the
/// configuration says: a peer that is in trouble needs no help with that.
const ATTEMPTS_APART: Duration = Duration::from_secs(1);
/// A link that was up for less did not mend anything: the next wait is longer all the same.
const SHORT_LIVED: Duration = Duration::from_secs(10);

/// How a connection to a node of a peer comes about.
pub trait Connect: Send + Sync {
    /// Calls an address of a peer: who answered, and the stream to it.
    ///
    /// # Errors
    /// Why there is none.
    fn open(
        &self,
        engine: &Engine,
        peer: BureauCode,
        address: String,
    ) -> impl Future<Output = Result<(PeerName, Wire), End>> + Send;
}

impl Connect for Dialer {
    async fn open(
        &self,
        engine: &Engine,
        peer: BureauCode,
        address: String,
    ) -> Result<(PeerName, Wire), End> {
        let network = engine.config.network.clone();
        open(engine, self, &Target { address, network, bureau: peer }).await
    }
}

/// Keeps the link to a peer up until it is cancelled.
pub async fn run(engine: Arc<Engine>, dialer: impl Connect, peer: Peer, cancel: CancellationToken) {
    let Some(changed) = engine.links.changed(peer.bureau) else { return };
    let mut calling = Calling { engine, dialer, peer, turn: 0, last: None, short_lived: 0 };
    let working = async {
        let waiting = calling.first_wait();
        if !waiting.is_zero() {
            calling.wait(waiting, &changed).await;
        }
        loop {
            // Up already: by the peer's own call.
            if calling.engine.links.is_up(calling.peer.bureau) {
                changed.notified().await;
                continue;
            }
            if let Some(last) = calling.last {
                sleep_until(last + ATTEMPTS_APART).await;
                if calling.engine.links.is_up(calling.peer.bureau) {
                    continue;
                }
            }
            let waiting = calling.attempt(&changed).await;
            if !calling.engine.links.is_up(calling.peer.bureau) {
                calling.wait(waiting, &changed).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => {}
        never = working => never,
    }
}

/// The calls to one peer.
struct Calling<C> {
    engine: Arc<Engine>,
    dialer: C,
    peer: Peer,
    /// Addresses take turns.
    turn: usize,
    /// When the last attempt began.
    last: Option<Instant>,
    /// Links in a row that ended soon.
    short_lived: u32,
}

impl<C: Connect> Calling<C> {
    /// A peer that was away before this node was started is not called at once: how long it is
    /// waited for.
    fn first_wait(&self) -> Duration {
        let Some(status) = self.engine.links.status(self.peer.bureau) else {
            return Duration::ZERO;
        };
        if status.failed_attempts == 0 {
            return Duration::ZERO;
        }
        let most_ms = self.engine.config.links.backoff_max_ms;
        let now = self.engine.clock.now();
        let left_ms = status.next_attempt.map_or(0, |next| next.since(now));
        match u64::try_from(left_ms) {
            Ok(left_ms) if left_ms > 0 => Duration::from_millis(left_ms.min(most_ms)),
            _ => backoff(&self.engine, status.failed_attempts),
        }
    }

    /// Waits for the time, or until the peer is heard from or an operator says so.
    async fn wait(&self, waiting: Duration, changed: &Notify) {
        let wait_ms = i64::try_from(waiting.as_millis()).unwrap_or(i64::MAX);
        let at = self.engine.clock.now().plus_ms(wait_ms);
        self.engine.links.next_attempt(self.peer.bureau, at);
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = sleep(waiting) => {}
        }
    }

    /// Calls the peer once and runs the session to its end. Gives how long to wait then.
    async fn attempt(&mut self, changed: &Notify) -> Duration {
        let (engine, code) = (&self.engine, self.peer.bureau);
        let addresses = addresses(engine, &self.peer);
        let begun = Instant::now();
        self.last = Some(begun);
        let end = match addresses.get(self.turn % addresses.len().max(1)) {
            None => failed(Reason::NoRoute.as_str(), "no address is known for this peer"),
            Some(address) => {
                engine.links.connecting(code);
                engine.metrics.connect_attempt(code);
                match self.dialer.open(engine, code, address.clone()).await {
                    Ok((name, wire)) => session::run(engine, name, engine.bureau(), wire).await,
                    Err(end) => end,
                }
            }
        };
        if end.was_up {
            // What was said of this link is known; only what comes from now on is news.
            let _ = changed.notified().now_or_never();
            let short = begun.elapsed() < SHORT_LIVED;
            self.short_lived = if short { self.short_lived.saturating_add(1) } else { 0 };
            return backoff(engine, self.short_lived);
        }
        self.turn = self.turn.wrapping_add(1);
        let attempts = engine.links.failed(code, &end.reason);
        let rounds = attempts / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let waiting = backoff(engine, rounds.max(self.short_lived));
        // The peer may have dialed meanwhile: then this attempt did not matter. A peer that stays
        // away is told of at the attempts 1, 2, 4, 8 and so on, not at each.
        if !engine.links.is_up(code) && attempts.is_power_of_two() {
            tracing::warn!(
                event = "link_attempt_failed",
                peer = %code, attempts, reason = %end.reason, detail = %end.detail
            );
            remember(engine, code, waiting).await;
        }
        waiting
    }
}

/// Keeps what is known of a peer that is away, so that a restart does not begin anew with it.
async fn remember(engine: &Engine, peer: BureauCode, waiting: Duration) {
    let Some(status) = engine.links.away(peer) else { return };
    let wait_ms = i64::try_from(waiting.as_millis()).unwrap_or(i64::MAX);
    let note = PeerNote {
        failed_attempts: status.failed_attempts,
        next_attempt: engine.clock.now().plus_ms(wait_ms),
        down_since: status.since,
        last_reason: status.last_reason,
    };
    note_peer(engine, peer, note).await;
}

/// Forgets that a peer was away.
pub(super) async fn forget(engine: &Engine, peer: BureauCode) {
    let now = engine.clock.now();
    let (next_attempt, last_reason) = (now, String::new());
    let note = PeerNote { failed_attempts: 0, next_attempt, down_since: now, last_reason };
    note_peer(engine, peer, note).await;
}

async fn note_peer(engine: &Engine, peer: BureauCode, note: PeerNote) {
    let noted = engine.store.commit(vec![Operation::NotePeer { peer, note }]).await;
    if let Err(error) = noted {
        // Only a restart would miss it; what is worse is told by the store itself.
        tracing::debug!(event = "peer_not_noted", peer = %peer, error = %error);
    }
}

/// Full jitter over a window that doubles with each failure up to a cap.
fn backoff(engine: &Engine, failures: u32) -> Duration {
    let links = &engine.config.links;
    Duration::from_millis(engine.machine.up_to(window_ms(links, failures)))
}

fn window_ms(links: &crate::config::Links, failures: u32) -> u64 {
    links.backoff_base_ms.saturating_mul(1 << failures.min(16)).min(links.backoff_max_ms)
}

/// Configured addresses, or else those of the roster.
fn addresses(engine: &Engine, peer: &Peer) -> Vec<String> {
    if !peer.addresses.is_empty() {
        return peer.addresses.clone();
    }
    let roster = engine.trust.roster();
    let member = roster.member(&peer.bureau);
    member.map(|member| member.nodes.values().flatten().cloned().collect()).unwrap_or_default()
}

async fn open(engine: &Engine, dialer: &Dialer, target: &Target) -> Result<(PeerName, Wire), End> {
    let channel = dialer.connect(target).await;
    let channel = channel.map_err(|error| failed(error.as_str(), error.to_string()))?;
    let Some(identity) = channel.peer() else {
        return Err(failed(Reason::Unauthenticated.as_str(), "the peer has no identity"));
    };
    let name = node_name(engine.bureau(), &identity.id, &engine.trust.roster())?;
    let (outbound, frames) = mpsc::channel::<Frame>(OUTBOUND_FRAMES_MAX);
    let frames = ReceiverStream::new(frames).map(|frame| OpenRequest { frame: Some(frame) });
    let mut client = LinkServiceClient::new(channel.channel())
        .max_decoding_message_size(bureau_net::server::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(bureau_net::server::MESSAGE_BYTES_MAX);
    let opened = tokio::time::timeout(
        Duration::from_millis(engine.config.links.connect_timeout_ms),
        client.open(frames),
    );
    let response = match opened.await {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => {
            // Below a bare transport error stands what happened to the connection.
            return Err(match channel.last_fault() {
                Some(fault) if status.details().is_empty() => {
                    failed(fault.as_str(), fault.to_string())
                }
                _ => end_of_status(&status),
            });
        }
        Err(_elapsed) => return Err(failed(Reason::Stalled.as_str(), "no answer in time")),
    };
    let inbound = response.into_inner().map(|response: Result<OpenResponse, _>| {
        response.map(|response| response.frame.unwrap_or_default())
    });
    Ok((name, Wire { inbound: Box::pin(inbound), outbound }))
}

/// The peer of a certificate, if the roster lists that node.
///
/// # Errors
/// Why it is no peer.
pub fn node_name(
    own: BureauCode,
    id: &bureau_net::SpiffeId,
    roster: &bureau_core::Roster,
) -> Result<PeerName, End> {
    let bureau: BureauCode = id.bureau;
    let bureau_net::Role::Node(node) = &id.role else {
        return Err(failed(Reason::NotPermitted.as_str(), "not a node's certificate"));
    };
    if bureau == own {
        return Err(failed(Reason::WrongBureau.as_str(), "a node links to other bureaus only"));
    }
    let member = roster.member(&bureau);
    let listed = member.map_err(|reason| failed(reason.as_str(), "not in the roster"))?;
    if !listed.nodes.contains_key(node) {
        let detail = format!("the roster lists no node {node} of {bureau}");
        return Err(failed(Reason::NotPermitted.as_str(), detail));
    }
    Ok(PeerName { bureau, node: node.clone() })
}

fn failed(reason: &str, detail: impl Into<String>) -> End {
    End { reason: reason.to_owned(), detail: detail.into(), was_up: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_up_to_a_cap_and_chance_takes_any_of_it() {
        let links = crate::config::Links::default();
        let windows = [0, 1, 2, 3, 4, 5, 100].map(|failures| window_ms(&links, failures));
        assert_eq!(windows, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        let machine = crate::engine::machine::Machine::simulated(7);
        let waits: Vec<u64> = (0..1000).map(|_| machine.up_to(windows[6])).collect();
        for part in 0..10 {
            let share = part * 3_000..(part + 1) * 3_000;
            let count = waits.iter().filter(|wait| share.contains(*wait)).count();
            assert!((60..140).contains(&count), "{share:?}: {count} of 1000");
        }
    }
}
