//! The peers, the one link to each, and which of them leads where.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bureau_core::{BureauCode, NodeName, Reason, Roster, Timestamp};
use bureau_net::Refusal;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Peer;

/// All peers.
#[derive(Debug)]
pub struct Links {
    bureau: BureauCode,
    peers: Mutex<BTreeMap<BureauCode, Link>>,
    closing: AtomicBool,
}

#[derive(Debug)]
struct Link {
    configured: Option<Peer>,
    status: LinkStatus,
    session: Option<Session>,
    /// Something is to be sent to this peer.
    work: Arc<Notify>,
    /// The link went down, or the peer was heard from.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    dialed_by: BureauCode,
    cancel: CancellationToken,
}

/// What is known of the link to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Up, being dialed, or down.
    pub state: LinkState,
    /// Since when.
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

/// A session's place: while it is held, the session is the one link to its peer.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The peer.
    pub peer: BureauCode,
    /// Cancelled where another session takes the place.
    pub cancel: CancellationToken,
    /// Something is to be sent.
    pub work: Arc<Notify>,
    number: u64,
}

impl Links {
    /// The configured peers, all down.
    #[must_use]
    pub fn new(bureau: BureauCode, peers: &[Peer], now: Timestamp) -> Self {
        let link = |peer: &Peer| (peer.bureau, Link::new(Some(peer.clone()), now));
        let peers = Mutex::new(peers.iter().map(link).collect());
        Self { bureau, peers, closing: AtomicBool::new(false) }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<BureauCode, Link>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a session the link to its peer.
    ///
    /// Where both sides dial at once, the session that the bureau with the lower code dialed stays;
    /// a second one from the same side replaces the first, whose connection is dead by then.
    ///
    /// # Errors
    /// DUPLICATE_LINK where another link stays.
    pub fn begin(
        &self,
        peer: BureauCode,
        node: NodeName,
        software: &str,
        dialed_by: BureauCode,
        now: Timestamp,
    ) -> Result<Slot, Refusal> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(Refusal::new(Reason::ShuttingDown, "the node is shutting down"));
        }
        let mut peers = self.peers();
        let link = peers.entry(peer).or_insert_with(|| Link::new(None, now));
        let mut number = 1;
        if let Some(session) = &link.session {
            let lower = self.bureau.min(peer);
            if session.dialed_by != dialed_by && session.dialed_by == lower {
                return Err(Refusal::new(Reason::DuplicateLink, "another link of this pair is up"));
            }
            session.cancel.cancel();
            number = session.number + 1;
        }
        let cancel = CancellationToken::new();
        link.session = Some(Session { number, dialed_by, cancel: cancel.clone() });
        link.status = LinkStatus {
            state: LinkState::Up,
            since: now,
            next_attempt: None,
            failed_attempts: 0,
            last_reason: String::new(),
            node: Some(node),
            software: software.to_owned(),
            in_flight: 0,
            round_trip: Duration::ZERO,
            rate_bytes_per_second: 0,
        };
        let slot = Slot { peer, cancel, work: Arc::clone(&link.work), number };
        link.changed.notify_one();
        // Routes may have changed: what waited for another peer may go here now.
        peers.values().for_each(|link| link.work.notify_one());
        Ok(slot)
    }

    /// Ends a session's time as the link. Where another took its place, nothing changes.
    pub fn end(&self, slot: &Slot, reason: &str, now: Timestamp) {
        let mut peers = self.peers();
        let Some(link) = peers.get_mut(&slot.peer) else { return };
        if link.session.as_ref().is_none_or(|session| session.number != slot.number) {
            return;
        }
        link.session = None;
        link.status.state = LinkState::Down;
        link.status.since = now;
        link.status.node = None;
        link.status.in_flight = 0;
        link.status.last_reason = reason.to_owned();
        link.changed.notify_one();
        peers.values().for_each(|link| link.work.notify_one());
    }

    /// Notes that a peer is being dialed.
    pub fn connecting(&self, peer: BureauCode, now: Timestamp) {
        self.with(peer, |link| {
            if link.session.is_none() {
                link.status.state = LinkState::Connecting;
                link.status.since = now;
                link.status.next_attempt = None;
            }
        });
    }

    /// Notes that an attempt failed, and how many in a row did.
    pub fn failed(&self, peer: BureauCode, reason: &str, now: Timestamp) -> u32 {
        let mut attempts = 0;
        self.with(peer, |link| {
            if link.session.is_none() {
                link.status.state = LinkState::Down;
                link.status.since = now;
                link.status.last_reason = reason.to_owned();
            }
            link.status.failed_attempts = link.status.failed_attempts.saturating_add(1);
            attempts = link.status.failed_attempts;
        });
        attempts
    }

    /// Notes when a peer is dialed next.
    pub fn next_attempt(&self, peer: BureauCode, at: Timestamp) {
        self.with(peer, |link| link.status.next_attempt = Some(at));
    }

    /// Notes what a running session measures.
    pub fn measured(
        &self,
        slot: &Slot,
        in_flight: Option<u32>,
        round_trip: Option<Duration>,
        rate: Option<u64>,
    ) {
        self.with(slot.peer, |link| {
            if let Some(in_flight) = in_flight {
                link.status.in_flight = in_flight;
            }
            if let Some(round_trip) = round_trip {
                link.status.round_trip = round_trip;
            }
            if let Some(rate) = rate {
                link.status.rate_bytes_per_second = rate;
            }
        });
    }

    fn with(&self, peer: BureauCode, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.peers().get_mut(&peer) {
            change(link);
        }
    }

    /// Whether the link to a peer is up.
    pub fn is_up(&self, peer: BureauCode) -> bool {
        self.peers().get(&peer).is_some_and(|link| link.session.is_some())
    }

    /// What tells that a configured peer's link changed.
    pub fn changed(&self, peer: BureauCode) -> Option<Arc<Notify>> {
        self.peers().get(&peer).map(|link| Arc::clone(&link.changed))
    }

    /// Wakes whoever sends to a destination.
    pub fn wake(&self, destinations: &[BureauCode], roster: &Roster) {
        let peers = self.peers();
        for destination in destinations {
            let hop = next_hop(&peers, self.bureau, *destination, roster);
            if let Some(link) = hop.and_then(|hop| peers.get(&hop)) {
                link.work.notify_one();
            }
        }
    }

    /// Wakes everybody who sends.
    pub fn wake_all(&self) {
        self.peers().values().for_each(|link| link.work.notify_one());
    }

    /// The peer that leads to a destination now: the destination itself if its link is up, else a
    /// hub whose link is up, else the one that is waited for. `None`: no configured peer leads there.
    pub fn next_hop(&self, destination: BureauCode, roster: &Roster) -> Option<BureauCode> {
        next_hop(&self.peers(), self.bureau, destination, roster)
    }

    /// Whether attachments may go to a peer at this time.
    pub fn may_send_bulk(&self, peer: BureauCode, now: Timestamp) -> bool {
        let peers = self.peers();
        let configured = peers.get(&peer).and_then(|link| link.configured.as_ref());
        configured.and_then(|peer| peer.bulk_hours).is_none_or(|hours| hours.contains(now))
    }

    /// Every peer and what is known of its link, by code.
    pub fn statuses(&self) -> Vec<(BureauCode, Option<Peer>, LinkStatus)> {
        let peers = self.peers();
        let status = |(code, link): (&BureauCode, &Link)| {
            (*code, link.configured.clone(), link.status.clone())
        };
        peers.iter().map(status).collect()
    }

    /// Why a session that was cancelled ends.
    pub fn cancel_reason(&self) -> Reason {
        if self.closing.load(Ordering::Relaxed) {
            Reason::ShuttingDown
        } else {
            Reason::DuplicateLink
        }
    }

    /// Ends every session, and lets none begin.
    pub fn cancel_all(&self) {
        self.closing.store(true, Ordering::Relaxed);
        for link in self.peers().values() {
            if let Some(session) = &link.session {
                session.cancel.cancel();
            }
        }
    }
}

fn next_hop(
    peers: &BTreeMap<BureauCode, Link>,
    bureau: BureauCode,
    destination: BureauCode,
    roster: &Roster,
) -> Option<BureauCode> {
    let member = roster.member(&destination).ok()?;
    let up = |code: &BureauCode| peers.get(code).is_some_and(|link| link.session.is_some());
    let metered = |code: &BureauCode| {
        let configured = peers.get(code).and_then(|link| link.configured.as_ref());
        configured.is_some_and(|peer| peer.metered)
    };
    if up(&destination) && !metered(&destination) {
        return Some(destination);
    }
    let relays = |code: &&BureauCode| {
        **code != destination
            && **code != bureau
            && peers.contains_key(code)
            && roster.member(code).is_ok_and(|member| member.relay)
    };
    // A hub passes on to members; it does not send through another what it is the hub for.
    let own_member = member.via.contains(&bureau);
    let mut hubs = member.via.iter().filter(relays).peekable();
    if !own_member {
        // A way that costs nothing before one that does, the straight one first among equals.
        if let Some(hub) = hubs.clone().find(|hub| up(hub) && !metered(hub)) {
            return Some(*hub);
        }
        if up(&destination) {
            return Some(destination);
        }
        if let Some(hub) = hubs.clone().find(|hub| up(hub)) {
            return Some(*hub);
        }
    }
    if peers.contains_key(&destination) {
        return Some(destination);
    }
    let first = hubs.peek().filter(|_| !own_member);
    first.map(|hub| **hub)
}

impl Link {
    fn new(configured: Option<Peer>, now: Timestamp) -> Self {
        Self {
            configured,
            status: LinkStatus {
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
            },
            session: None,
            work: Arc::default(),
            changed: Arc::default(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::Arc;

    use bureau_core::{
        SigningKey,
        roster::{self, Anchor},
    };
    use bureau_proto::envelope::v1 as wire;

    use super::*;

    fn code(text: &str) -> BureauCode {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_ms(1_800_000_000_000)
    }

    /// FR and KE, reached through the hub IPSG; ZA through nobody.
    fn roster() -> Arc<Roster> {
        let member = |code: &str, via: &[&str]| wire::Member {
            code: code.to_owned(),
            relay: code == "IPSG",
            via: via.iter().map(|hub| (*hub).to_owned()).collect(),
            ..wire::Member::default()
        };
        let network = "test".parse().unwrap();
        let wire = wire::Roster {
            format: 1,
            network: "test".to_owned(),
            serial: 1,
            issue_time: Some(now().to_wire()),
            expire_time: Some(now().to_wire()),
            members: vec![
                member("FR", &["IPSG"]),
                member("IPSG", &[]),
                member("KE", &["IPSG"]),
                member("ZA", &[]),
            ],
            ..wire::Roster::default()
        };
        let key = SigningKey::from_seed(&[1; 32]);
        let anchor = Anchor { keys: vec![key.public()], threshold: 1 };
        let signed = roster::sign(&wire, &network, vec![key]).unwrap();
        Arc::new(Roster::verify(signed, &network, &anchor).unwrap())
    }

    fn links(bureau: &str, peers: &[&str]) -> Links {
        let peer = |bureau: &&str| Peer {
            bureau: code(bureau),
            addresses: Vec::new(),
            dial: true,
            metered: false,
            bulk_hours: None,
        };
        Links::new(code(bureau), &peers.iter().map(peer).collect::<Vec<_>>(), now())
    }

    fn begin(links: &Links, peer: &str, dialed_by: &str) -> Result<Slot, Refusal> {
        links.begin(code(peer), "node-1".parse().unwrap(), "test", code(dialed_by), now())
    }

    #[test]
    fn the_way_leads_straight_or_over_a_hub_that_is_up() {
        let (roster, links) = (roster(), links("FR", &["IPSG", "KE"]));
        let hop = |destination| links.next_hop(code(destination), &roster);
        assert_eq!(hop("KE"), Some(code("KE")), "waited for");
        let hub = begin(&links, "IPSG", "FR").unwrap();
        assert_eq!(hop("KE"), Some(code("IPSG")), "a detour");
        let _ke = begin(&links, "KE", "FR").unwrap();
        assert_eq!(hop("KE"), Some(code("KE")), "straight");
        assert_eq!((hop("ZA"), hop("XX")), (None, None));
        links.end(&hub, "STALLED", now());
        assert_eq!(hop("IPSG"), Some(code("IPSG")));
    }

    #[test]
    fn a_hub_does_not_send_through_another_what_it_is_the_hub_for() {
        let (roster, links) = (roster(), links("IPSG", &["FR", "KE"]));
        let _fr = begin(&links, "FR", "FR").unwrap();
        assert_eq!(links.next_hop(code("KE"), &roster), Some(code("KE")));
        assert_eq!(links.next_hop(code("ZA"), &roster), None);
    }

    #[test]
    fn of_two_links_dialed_at_once_both_sides_keep_the_same() {
        for (here, peer) in [("FR", "KE"), ("KE", "FR")] {
            let links = links(here, &[peer]);
            // FR has the lower code: what it dialed stays, in whatever order they come.
            let of_ke = begin(&links, peer, "KE").unwrap();
            let of_fr = begin(&links, peer, "FR").unwrap();
            assert!(of_ke.cancel.is_cancelled() && !of_fr.cancel.is_cancelled());
            let refused = begin(&links, peer, "KE").unwrap_err();
            assert_eq!(refused.reason, Reason::DuplicateLink);
            // The one that was replaced ends late, and changes nothing.
            links.end(&of_ke, "DUPLICATE_LINK", now());
            assert!(links.is_up(code(peer)));
            // A second call of the same side: its first connection is dead.
            let again = begin(&links, peer, "FR").unwrap();
            assert!(of_fr.cancel.is_cancelled());
            links.end(&again, "STALLED", now());
            assert!(!links.is_up(code(peer)));
        }
    }

    #[test]
    fn failures_count_until_the_peer_is_heard_from() {
        let links = links("FR", &["KE"]);
        assert_eq!(links.failed(code("KE"), "UNREACHABLE", now()), 1);
        assert_eq!(links.failed(code("KE"), "UNREACHABLE", now()), 2);
        begin(&links, "KE", "KE").unwrap();
        assert_eq!(links.statuses()[0].2.failed_attempts, 0);
        links.cancel_all();
        assert_eq!(begin(&links, "KE", "KE").unwrap_err().reason, Reason::ShuttingDown);
    }
}
