//! What is known of the link to a peer.

use std::time::Duration;

use bureau_core::{BureauCode, NodeName, Reason, Timestamp};
use bureau_net::Refusal;

/// What is known of the link to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Up, being dialed, or down.
    pub state: LinkState,
    /// Since when it is up, or not.
    pub since: Timestamp,
    /// When it is dialed next.
    pub next_attempt: Option<Timestamp>,
    /// Attempts that failed since it was last up.
    pub failed_attempts: u32,
    /// Why the last link or attempt ended.
    pub last_reason: String,
    /// The node that is linked.
    pub node: Option<NodeName>,
    /// What it runs.
    pub software: String,
    /// Parcels sent and not yet answered.
    pub in_flight: u32,
    /// The last round trip.
    pub round_trip: Duration,
    /// Bytes that arrive at the peer in a second, as measured while there was enough to send; 0:
    /// not measured.
    pub rate_bytes_per_second: u64,
}

/// State of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// Frames flow.
    Up,
    /// Being dialed.
    Connecting,
    /// Waits for the next attempt, or for the peer to dial.
    Down,
}

impl LinkStatus {
    /// A link that was never up.
    pub(super) const fn down(now: Timestamp) -> Self {
        Self {
            state: LinkState::Down,
            since: now,
            next_attempt: None,
            failed_attempts: 0,
            last_reason: String::new(),
            node: None,
            software: String::new(),
            in_flight: 0,
            round_trip: Duration::ZERO,
            rate_bytes_per_second: 0,
        }
    }

    /// What is said where something is asked of a peer whose link is down.
    pub(super) fn refusal(&self, peer: BureauCode) -> Refusal {
        let mut text = format!("the link to {peer} is down since {}", self.since);
        if !self.last_reason.is_empty() {
            text = format!("{text}: {}", self.last_reason);
        }
        if let Some(next) = self.next_attempt {
            text = format!("{text}; next try at {next}");
        }
        Refusal::new(Reason::PeerDown, text)
    }
}
