//! The peers, the one link to each, and which of them leads where.

mod hold;
mod status;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bureau_core::{BureauCode, Lane, NodeName, Reason, Roster, Timestamp};
use bureau_net::Refusal;
use bureau_store::contract::{Held, PeerNote, QueuePosition};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::status::{LinkState, LinkStatus};
use super::{
    detours::Detours,
    doing::Doing,
    pings::Pings,
    routes::{self, Way},
    transit::Transit,
};
use crate::config::Peer;

/// How long a peer's word counts that nobody leads to a destination from there: its operator may
/// mend that, and its roster may change, without a new link.
const NO_ROUTE_FOR: Duration = Duration::from_secs(300);

/// All peers.
#[derive(Debug)]
pub struct Links {
    bureau: BureauCode,
    peers: Mutex<BTreeMap<BureauCode, Link>>,
    closing: AtomicBool,
    generation: AtomicU64,
    detours: Detours,
    transit: Transit,
}

#[derive(Debug)]
struct Link {
    configured: Option<Peer>,
    /// An operator holds it: nothing but receipts goes over it.
    held: Option<Held>,
    status: LinkStatus,
    session: Option<Session>,
    /// Something is to be sent to this peer.
    work: Arc<Notify>,
    /// The link went down, or the peer was heard from.
    changed: Arc<Notify>,
    /// What the session is doing.
    doing: Arc<Doing>,
    /// Those who ask whether it is there.
    pings: Arc<Pings>,
    /// The store has a note that it is away.
    noted: bool,
    /// Destinations that it said nobody leads to from there, and for how long that counts.
    no_route: BTreeMap<BureauCode, Instant>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    dialed_by: BureauCode,
    cancel: CancellationToken,
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
    /// What it is doing, for those who ask.
    pub doing: Arc<Doing>,
    /// Those who ask whether the peer is there.
    pub(super) pings: Arc<Pings>,
    /// The store has a note that it was away.
    pub was_away: bool,
    number: u64,
}

impl Links {
    /// The configured peers, all down.
    #[must_use]
    pub fn new(bureau: BureauCode, peers: &[Peer], now: Timestamp) -> Self {
        let link = |peer: &Peer| (peer.bureau, Link::new(Some(peer.clone()), now));
        let peers = Mutex::new(peers.iter().map(link).collect());
        let (closing, generation) = (AtomicBool::new(false), AtomicU64::new(0));
        let (detours, transit) = (Detours::default(), Transit::default());
        Self { bureau, peers, closing, generation, detours, transit }
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
        let was_away = std::mem::take(&mut link.noted);
        link.session = Some(Session { number, dialed_by, cancel: cancel.clone() });
        link.status = LinkStatus {
            state: LinkState::Up,
            node: Some(node),
            software: software.to_owned(),
            ..LinkStatus::down(now)
        };
        link.doing = Arc::default();
        link.no_route.clear();
        let (work, doing) = (Arc::clone(&link.work), Arc::clone(&link.doing));
        let pings = Arc::clone(&link.pings);
        let slot = Slot { peer, cancel, work, doing, pings, was_away, number };
        link.changed.notify_one();
        self.rerouted();
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
        link.doing = Arc::default();
        link.status.state = LinkState::Down;
        link.status.since = now;
        link.status.node = None;
        link.status.in_flight = 0;
        link.pings.clear();
        link.status.last_reason = reason.to_owned();
        link.changed.notify_one();
        self.rerouted();
        peers.values().for_each(|link| link.work.notify_one());
    }

    /// Notes that a peer is being dialed.
    pub fn connecting(&self, peer: BureauCode) {
        self.with(peer, |link| {
            if link.session.is_none() {
                link.status.state = LinkState::Connecting;
                link.status.next_attempt = None;
            }
        });
    }

    /// Notes that an attempt failed, and how many in a row did.
    pub fn failed(&self, peer: BureauCode, reason: &str) -> u32 {
        let mut attempts = 0;
        self.with(peer, |link| {
            if link.session.is_none() {
                link.status.state = LinkState::Down;
                link.status.last_reason = reason.to_owned();
            }
            link.status.failed_attempts = link.status.failed_attempts.saturating_add(1);
            attempts = link.status.failed_attempts;
        });
        attempts
    }

    /// Notes when a peer is dialed next.
    pub fn next_attempt(&self, peer: BureauCode, at: Timestamp) {
        self.with(peer, |link| {
            if link.session.is_none() {
                link.status.next_attempt = Some(at);
            }
        });
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

    /// What is remembered of peers that were away before this node was started.
    pub fn remember(&self, notes: Vec<(BureauCode, PeerNote)>) {
        for (peer, note) in notes {
            self.with(peer, |link| {
                link.noted = true;
                link.status.failed_attempts = note.failed_attempts;
                link.status.next_attempt = Some(note.next_attempt);
                link.status.since = note.down_since;
                link.status.last_reason = note.last_reason;
            });
        }
    }

    /// Notes that the store now knows that a peer is away. `None`: it is not; else what is known.
    pub fn away(&self, peer: BureauCode) -> Option<LinkStatus> {
        let mut peers = self.peers();
        let link = peers.get_mut(&peer).filter(|link| link.session.is_none())?;
        link.noted = true;
        Some(link.status.clone())
    }

    /// What is known of the link to a peer.
    pub fn status(&self, peer: BureauCode) -> Option<LinkStatus> {
        self.peers().get(&peer).map(|link| link.status.clone())
    }

    /// Lets a peer be dialed now, as if it had not failed before. `None`: it is no peer. `false`:
    /// there is nothing to do, because its link is up or only the peer dials.
    pub fn retry(&self, peer: BureauCode) -> Option<bool> {
        let mut peers = self.peers();
        let link = peers.get_mut(&peer)?;
        let dials = link.configured.as_ref().is_some_and(|peer| peer.dial);
        if link.session.is_some() || !dials {
            return Some(false);
        }
        link.status.failed_attempts = 0;
        link.changed.notify_one();
        Some(true)
    }

    /// Asks a peer over its link whether it is there: how long the answer took.
    ///
    /// # Errors
    /// NOT_FOUND where it is no peer, PEER_DOWN while its link is down, BUSY where too many ask.
    pub fn ping(&self, peer: BureauCode) -> Result<oneshot::Receiver<Duration>, Refusal> {
        let peers = self.peers();
        let unknown = || Refusal::new(Reason::NotFound, format!("{peer} is no peer of this node"));
        let link = peers.get(&peer).ok_or_else(unknown)?;
        if link.session.is_none() {
            return Err(link.status.refusal(peer));
        }
        let busy = || Refusal::new(Reason::Busy, "too many ping this peer");
        let answer = link.pings.ask().ok_or_else(busy)?;
        link.work.notify_one();
        Ok(answer)
    }

    /// Whether the link to a peer is up.
    pub fn is_up(&self, peer: BureauCode) -> bool {
        self.peers().get(&peer).is_some_and(|link| link.session.is_some())
    }

    /// What the link to a peer is doing; nothing while it is down.
    pub fn doing(&self, peer: BureauCode) -> Arc<Doing> {
        self.peers().get(&peer).map(|link| Arc::clone(&link.doing)).unwrap_or_default()
    }

    /// What tells that a configured peer's link changed.
    pub fn changed(&self, peer: BureauCode) -> Option<Arc<Notify>> {
        self.peers().get(&peer).map(|link| Arc::clone(&link.changed))
    }

    /// Wakes whoever sends to a destination.
    pub fn wake(&self, destinations: &[BureauCode], roster: &Roster) {
        let peers = self.peers();
        for destination in destinations {
            let hop = next_hop(&peers, self.bureau, *destination, &[], roster);
            if let Some(link) = hop.and_then(|hop| peers.get(&hop)) {
                link.work.notify_one();
            }
        }
    }

    /// Wakes everybody who sends.
    pub fn wake_all(&self) {
        self.peers().values().for_each(|link| link.work.notify_one());
    }

    /// The peer that leads to a destination now, or the one that is waited for. `None`: no
    /// configured peer leads there.
    pub fn next_hop(&self, destination: BureauCode, roster: &Roster) -> Option<BureauCode> {
        self.next_hop_avoiding(destination, &[], roster)
    }

    /// The same for what some peers had already: it does not go to them again.
    pub fn next_hop_avoiding(
        &self,
        destination: BureauCode,
        avoid: &[BureauCode],
        roster: &Roster,
    ) -> Option<BureauCode> {
        next_hop(&self.peers(), self.bureau, destination, avoid, roster)
    }

    /// Notes that a peer leads nowhere where a destination is concerned; other ways go first for a
    /// while.
    pub fn no_route(&self, peer: BureauCode, destination: BureauCode) {
        self.with(peer, |link| {
            link.no_route.insert(destination, Instant::now() + NO_ROUTE_FOR);
        });
        self.rerouted();
        self.wake_all();
    }

    /// Changes with every change that may lead somewhere else.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn rerouted(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a message that must not go where others for its destination go, and wakes who leads
    /// there otherwise. `false`: no room for more.
    pub(super) fn detour(
        &self,
        position: QueuePosition,
        avoid: &[BureauCode],
        roster: &Roster,
    ) -> bool {
        let noted = self.detours.note(position, avoid);
        let peers = self.peers();
        let hop = next_hop(&peers, self.bureau, position.destination, avoid, roster);
        if let Some(link) = hop.and_then(|hop| peers.get(&hop)).filter(|_| noted) {
            link.work.notify_one();
        }
        noted
    }

    /// The next of those messages in a lane that leads over a peer now, after a position.
    pub(super) fn next_detour(
        &self,
        peer: BureauCode,
        lane: Lane,
        after: Option<QueuePosition>,
        roster: &Roster,
    ) -> Option<QueuePosition> {
        self.detours.next(lane, after, |destination, avoid| {
            self.next_hop_avoiding(destination, avoid, roster) == Some(peer)
        })
    }

    /// Messages that may not go where others for their destination go.
    pub(super) const fn detours(&self) -> &Detours {
        &self.detours
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

/// The peer that leads to a destination, of those that had not what goes there.
fn next_hop(
    peers: &BTreeMap<BureauCode, Link>,
    bureau: BureauCode,
    destination: BureauCode,
    avoid: &[BureauCode],
    roster: &Roster,
) -> Option<BureauCode> {
    routes::next_hop(bureau, destination, avoid, roster, |code| {
        let link = peers.get(&code)?;
        let until = link.no_route.get(&destination);
        Some(Way {
            up: link.session.is_some() && link.held.is_none(),
            metered: link.configured.as_ref().is_some_and(|peer| peer.metered),
            no_route: until.is_some_and(|until| *until > Instant::now()),
        })
    })
}

impl Link {
    fn new(configured: Option<Peer>, now: Timestamp) -> Self {
        Self {
            configured,
            held: None,
            status: LinkStatus::down(now),
            session: None,
            work: Arc::default(),
            changed: Arc::default(),
            doing: Arc::default(),
            pings: Arc::default(),
            noted: false,
            no_route: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests;
