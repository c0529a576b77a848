//! How a link comes up: dial, greet, run; after a failure wait longer and longer, each time a
//! random while, and not at all once the peer was heard from.
//!
//! When to dial is decided here; how a connection comes about is behind [`Connect`], so that a
//! simulation can give its own.

use std::{future::Future, sync::Arc, time::Duration};

use bureau_core::{BureauCode, Reason};
use bureau_net::{Dialer, Target};
use bureau_proto::link::v1::{
    Frame, OpenRequest, OpenResponse, link_service_client::LinkServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    outbound::End,
    session::{self, OUTBOUND_FRAMES_MAX, Peer as PeerName, Wire, end_of_status},
};
use crate::config::Peer;

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
    loop {
        // Up already: by the peer's own call.
        if engine.links.is_up(peer.bureau) {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = changed.notified() => continue,
            }
        }
        let end = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            end = attempt(&engine, &dialer, &peer, &cancel) => end,
        };
        if cancel.is_cancelled() {
            return;
        }
        let now = engine.clock.now();
        let attempts = if end.was_up {
            0
        } else {
            let attempts = engine.links.failed(peer.bureau, &end.reason, now);
            // The peer may have dialed meanwhile: then this attempt did not matter. A peer that
            // stays away is told of at the attempts 1, 2, 4, 8 and so on, not at each.
            if !engine.links.is_up(peer.bureau) && attempts.is_power_of_two() {
                tracing::warn!(
                    event = "link_attempt_failed",
                    peer = %peer.bureau, attempts, reason = %end.reason, detail = %end.detail
                );
            }
            attempts
        };
        let wait = backoff(&engine, attempts);
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        engine.links.next_attempt(peer.bureau, now.plus_ms(wait_ms));
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Full jitter over a window that doubles with each failure up to a cap, and a floor that keeps
/// attempts below one a second or so.
fn backoff(engine: &Engine, attempts: u32) -> Duration {
    let links = &engine.config.links;
    let base_ms = links.backoff_base_ms.max(1);
    let window_ms = base_ms.saturating_mul(1 << attempts.min(16)).min(links.backoff_max_ms);
    Duration::from_millis(engine.machine.up_to(window_ms).max(base_ms))
}

async fn attempt(
    engine: &Arc<Engine>,
    dialer: &impl Connect,
    peer: &Peer,
    cancel: &CancellationToken,
) -> End {
    let addresses = addresses(engine, peer);
    let mut end = failed(Reason::NoRoute.as_str(), "no address is known for this peer");
    for address in addresses {
        if cancel.is_cancelled() {
            break;
        }
        engine.links.connecting(peer.bureau, engine.clock.now());
        engine.metrics.connect_attempt(peer.bureau);
        end = match dialer.open(engine, peer.bureau, address).await {
            Ok((name, wire)) => session::run(engine, name, engine.bureau(), wire).await,
            Err(end) => end,
        };
        if end.was_up {
            break;
        }
    }
    end
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
