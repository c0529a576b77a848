//! Peers and the links to them, as an operator sees and moves them.

use std::time::Duration;

use bureau_core::{BureauCode, Reason, Timestamp};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::admin::v1::{
    Peer, PingPeerRequest, PingPeerResponse, QueueDepth, RetryPeerRequest, RetryPeerResponse,
};
use tokio::time::timeout;

use crate::{
    config,
    engine::{Engine, links::LinkStatus},
};

/// Pings of one call: enough for a mean, few enough for a deadline.
const PINGS_MAX: i32 = 100;

/// Every peer, by code.
pub(super) fn list(engine: &Engine, depths: &[QueueDepth]) -> Vec<Peer> {
    let roster = engine.trust.roster();
    let peer = |(code, configured, status): (BureauCode, Option<config::Peer>, LinkStatus)| {
        let hop = code.to_string();
        let queued = depths.iter().filter(|depth| depth.next_hop == hop);
        let configured = configured.as_ref();
        let bulk_hours = configured.and_then(|peer| peer.bulk_hours);
        let dialed = configured.filter(|peer| peer.dial);
        Peer {
            node: status.node.map(|node| node.to_string()).unwrap_or_default(),
            state: super::wire_link_state(status.state).into(),
            state_since_time: Some(status.since.to_wire()),
            next_attempt_time: status.next_attempt.map(Timestamp::to_wire),
            failed_attempts: status.failed_attempts,
            last_reason: status.last_reason,
            in_flight: status.in_flight,
            queued: queued.map(|depth| depth.messages).sum(),
            round_trip_micros: micros(status.round_trip),
            relay: roster.member(&code).is_ok_and(|member| member.relay),
            address: dialed.and_then(|peer| peer.addresses.first().cloned()).unwrap_or_default(),
            software: status.software,
            rate_bytes_per_second: status.rate_bytes_per_second,
            metered: configured.is_some_and(|peer| peer.metered),
            bulk_hours: bulk_hours.map(|hours| hours.to_string()).unwrap_or_default(),
            dials: dialed.is_some(),
            hold: engine.links.held(code).map(super::lifecycle::hold),
            bureau: hop,
        }
    };
    engine.links.statuses().into_iter().map(peer).collect()
}

/// Asks a peer whether it is there, so often.
pub(super) async fn ping(
    engine: &Engine,
    request: PingPeerRequest,
) -> Result<PingPeerResponse, Refusal> {
    let peer = code(&request.bureau)?;
    if !(0..=PINGS_MAX).contains(&request.count) {
        return Err(invalid("count", &format!("not from 0 to {PINGS_MAX}"), Reason::FieldInvalid));
    }
    let patience = Duration::from_millis(engine.config.links.stall_ms);
    let mut round_trip_micros = Vec::new();
    for _ in 0..request.count.max(1) {
        let answer = engine.links.ping(peer)?;
        match timeout(patience, answer).await {
            Ok(Ok(round_trip)) => round_trip_micros.push(micros(round_trip)),
            // The link ended; now there is a reason for that.
            Ok(Err(_)) => {
                engine.links.ping(peer)?;
                return Err(Refusal::new(Reason::PeerDown, "the link was cut and is up again"));
            }
            Err(_elapsed) => {
                let text = format!("{peer} did not answer within {} s", patience.as_secs());
                return Err(Refusal::new(Reason::Stalled, text));
            }
        }
    }
    Ok(PingPeerResponse { round_trip_micros })
}

/// Dials a peer now.
pub(super) fn retry(
    engine: &Engine,
    depths: &[QueueDepth],
    request: RetryPeerRequest,
) -> Result<RetryPeerResponse, Refusal> {
    let peer = code(&request.bureau)?;
    let unknown = || Refusal::new(Reason::NotFound, format!("{peer} is no peer of this node"));
    let dialed = engine.links.retry(peer).ok_or_else(unknown)?;
    let found = list(engine, depths).into_iter().find(|found| found.bureau == request.bureau);
    Ok(RetryPeerResponse { dialed, peer: found })
}

fn code(text: &str) -> Result<BureauCode, Refusal> {
    text.parse().map_err(|error: bureau_core::ids::InvalidName| {
        invalid("bureau", &error.to_string(), Reason::Malformed)
    })
}

fn invalid(field: &str, description: &str, reason: Reason) -> Refusal {
    let (field, description) = (field.to_owned(), description.to_owned());
    let violation = FieldViolation { field, description, reason };
    Refusal::of_fields(vec![violation]).unwrap_or_else(|| Refusal::new(reason, "invalid"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
