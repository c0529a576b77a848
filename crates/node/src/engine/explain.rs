//! Where a message is for one recipient, and why it is not further: facts in, explanation out. Pure;
//! the facts are gathered in `facts`, the sentences stand in `words`.
//!
//! An explanation never guesses: a time of arrival is given only where it follows from what was
//! measured, and then with how.

mod facts;
mod words;

use std::time::Duration;

use bureau_core::{BureauCode, DeskName, Lane, Timestamp, receipt::ReceiptKind};
use bureau_store::contract::{Held, HoldReason, Recalled, Role, State};

use super::links::LinkState;

pub use facts::{Explained, gather};

/// What is known of a message for one recipient.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// For whom it is.
    pub recipient: BureauCode,
    /// What this node is to it.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// When it expires.
    pub expires: Timestamp,
    /// Who holds it, by the last custody receipt.
    pub holder: Option<BureauCode>,
    /// What receipts say, oldest first.
    pub said: Vec<Said>,
    /// Its place in the inbox of this bureau.
    pub inbox: Option<InInbox>,
    /// Why it is held back, while it is.
    pub held: Option<Held>,
    /// When and by whom it was recalled.
    pub recalled: Option<Recalled>,
    /// What is known while it waits here.
    pub waiting: Option<Waiting>,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What happened.
    pub kind: ReceiptKind,
    /// Who signed it.
    pub signer: BureauCode,
    /// When it happened.
    pub time: Timestamp,
    /// Why, where it was refused.
    pub reason: String,
    /// What its signer says can be done.
    pub advice: String,
    /// The desk that took it.
    pub desk: String,
}

/// A place in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InInbox {
    /// The number.
    pub number: u64,
    /// When it was delivered.
    pub delivered: Timestamp,
    /// When and by which desk it was acknowledged.
    pub acknowledged: Option<(Timestamp, DeskName)>,
    /// Its attachments wait for a desk to release them.
    pub quarantined: bool,
}

/// A message that waits here for a link.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Since when.
    pub since: Timestamp,
    /// Bytes of its envelope.
    pub size: u64,
    /// How many attachments it has, and their bytes.
    pub attachments: (u32, u64),
    /// The peer it came from.
    pub previous_hop: Option<BureauCode>,
    /// The peer it goes over, and the link to it.
    pub hop: Option<Hop>,
    /// Other peers that lead there, too.
    pub others: Vec<BureauCode>,
    /// The link to the recipient itself; `None` where it is no peer.
    pub straight: Option<Straight>,
    /// What goes before it over the same link.
    pub ahead: Ahead,
    /// Messages a second that may go over one link, at most.
    pub messages_per_second: u32,
}

/// The link to the recipient itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Straight {
    /// It is up.
    pub up: bool,
    /// Every byte costs.
    pub metered: bool,
}

/// The peer that is next, and the link to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The peer.
    pub peer: BureauCode,
    /// This side dials.
    pub dials: bool,
    /// Up, being dialed, or down.
    pub state: LinkState,
    /// Since when.
    pub since: Timestamp,
    /// When it is dialed next.
    pub next_attempt: Option<Timestamp>,
    /// Attempts that failed in a row.
    pub failed_attempts: u32,
    /// Why the last link or attempt ended.
    pub last_reason: String,
    /// Bytes that arrive in a second; 0: not measured.
    pub rate: u64,
    /// The last round trip.
    pub round_trip: Duration,
    /// An operator holds everything back that goes over this peer.
    pub held: Option<Held>,
    /// When attachments may go again; `None`: now.
    pub bulk_from: Option<Timestamp>,
    /// What the link does with this message.
    pub doing: Doing,
}

/// What a link does with a message, in the node's time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doing {
    /// Since when it is sent and not answered.
    pub sent: Option<Timestamp>,
    /// Its attachments are on their way: since when, their bytes, those that are sent, and what
    /// others take before them.
    pub going: Option<(Timestamp, u64, u64, u64)>,
    /// Attachments of so many other messages are on their way, and no place is free.
    pub transfers_full: Option<usize>,
    /// The peer did not take it on this link: why, and when.
    pub kept: Option<(String, Timestamp)>,
    /// The peer asked for patience: until when, and why.
    pub pause: Option<(Timestamp, String)>,
    /// The same for attachments.
    pub attachments_pause: Option<(Timestamp, String)>,
}

/// What goes before a message over the same link: higher lanes, and what is older in its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// How many, by lane, the most urgent first.
    pub lanes: Vec<(Lane, u64)>,
    /// Bytes of their envelopes.
    pub bytes: u64,
    /// There are more than were counted.
    pub more: bool,
}

impl Ahead {
    /// How many.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.lanes.iter().map(|(_, messages)| messages).sum()
    }
}

/// Why a message is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The recipient has it; no desk has taken it.
    Delivered,
    /// A desk of the recipient has taken it.
    Acknowledged,
    /// It is in this bureau's inbox, and its attachments wait for a desk to release them.
    AttachmentsNotReleased,
    /// It was refused for good.
    Refused,
    /// Its time is over.
    Expired,
    /// Its sender took it back.
    Recalled,
    /// An operator holds it back here.
    HeldByOperator,
    /// Its sender named a time before which it must not go.
    Scheduled,
    /// It cannot be read from the disk: it is held so that the line behind moves on.
    Quarantined,
    /// An operator holds everything back that goes over the next hop.
    PeerHeld,
    /// Another node has custody of it.
    WithRelay,
    /// No configured peer leads to the recipient.
    NoRoute,
    /// The only way on leads back to the peer that brought it.
    OnlyWayBack,
    /// The link to the next hop is down.
    LinkDown,
    /// The link to the next hop is being dialed.
    LinkConnecting,
    /// It is sent, and the receipt is awaited.
    InFlight,
    /// Its attachments are on their way; the message follows them.
    AttachmentsUnderWay,
    /// Its attachments wait for the hours when such may go over this link.
    AttachmentsWaitForHours,
    /// The attachments of other messages go first.
    AttachmentsAhead,
    /// The next hop asked for patience.
    PeerAskedToWait,
    /// The next hop did not take it on this link; it is offered again on the next one.
    KeptForLater,
    /// Others go before it.
    AheadInQueue,
    /// It is the next to go.
    Next,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At this node, on its way.
    Here,
    /// At another node, which has custody.
    Relay(BureauCode),
    /// At the recipient.
    Recipient,
    /// Nowhere: it is at its end.
    Nowhere,
}

/// Why a message is where it is, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// For whom it is.
    pub recipient: BureauCode,
    /// What this node is to it.
    pub role: Role,
    /// Where it stands.
    pub state: State,
    /// Where it is.
    pub place: Place,
    /// Why it is not further.
    pub cause: Cause,
    /// The same as a sentence without times.
    pub sentence: String,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// Since when it waits here.
    pub waits_since: Option<Timestamp>,
    /// The link it waits for, or goes over.
    pub hop: Option<Hop>,
    /// Why over that one.
    pub route: String,
    /// When something happens next: a dial, the end of a pause, the hours for attachments.
    pub next_try: Option<Timestamp>,
    /// What goes before it.
    pub ahead: Option<Ahead>,
    /// When it will be at the next hop, where that can be known.
    pub estimate: Option<Timestamp>,
    /// How that was found, or why it cannot be.
    pub estimate_basis: String,
    /// Bytes of its attachments, and those that are sent.
    pub attachments: Option<(u64, u64)>,
    /// Its number in this bureau's inbox.
    pub inbox_number: Option<u64>,
    /// What an operator or a desk can do about it.
    pub advice: String,
    /// When it expires.
    pub expires: Timestamp,
}

/// Explains.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    let mut explanation = Explanation {
        recipient: facts.recipient,
        role: facts.role,
        state: facts.state,
        place: Place::Nowhere,
        cause: Cause::Expired,
        sentence: String::new(),
        since: None,
        waits_since: None,
        hop: None,
        route: String::new(),
        next_try: None,
        ahead: None,
        estimate: None,
        estimate_basis: String::new(),
        attachments: None,
        inbox_number: None,
        advice: String::new(),
        expires: facts.expires,
    };
    match facts.state {
        State::Queued => waits(facts, &mut explanation),
        State::Relayed => with_relay(facts, &mut explanation),
        State::Delivered | State::Acknowledged => arrived(facts, &mut explanation),
        State::Refused => ended(facts, Cause::Refused, ReceiptKind::Refused, &mut explanation),
        State::Expired => ended(facts, Cause::Expired, ReceiptKind::Expired, &mut explanation),
        State::Held => held_back(facts, &mut explanation),
        State::Recalled => {
            explanation.cause = Cause::Recalled;
            explanation.since = facts.recalled.as_ref().map(|recalled| recalled.time);
        }
    }
    explanation.sentence = words::sentence(facts, &explanation);
    explanation.advice = words::advice(facts, &explanation);
    explanation
}

fn last_said(facts: &Facts, kind: ReceiptKind) -> Option<&Said> {
    facts.said.iter().rfind(|said| said.kind == kind)
}

fn ended(facts: &Facts, cause: Cause, kind: ReceiptKind, explanation: &mut Explanation) {
    explanation.cause = cause;
    explanation.since = last_said(facts, kind).map(|said| said.time);
}

fn held_back(facts: &Facts, explanation: &mut Explanation) {
    explanation.place = Place::Here;
    let held = facts.held.as_ref();
    explanation.cause = match held.map(|held| held.reason) {
        Some(HoldReason::Scheduled) => Cause::Scheduled,
        Some(HoldReason::Poison) => Cause::Quarantined,
        Some(HoldReason::Operator) | None => Cause::HeldByOperator,
    };
    explanation.since = held.map(|held| held.since);
    explanation.next_try = held.and_then(|held| held.until);
    explanation.estimate_basis = "unknown while it is held back".to_owned();
}

fn arrived(facts: &Facts, explanation: &mut Explanation) {
    let acknowledged = facts.state == State::Acknowledged;
    explanation.place = Place::Recipient;
    explanation.cause = if acknowledged { Cause::Acknowledged } else { Cause::Delivered };
    let kind = if acknowledged { ReceiptKind::Acknowledged } else { ReceiptKind::Delivered };
    explanation.since = last_said(facts, kind).map(|said| said.time);
    let Some(inbox) = &facts.inbox else { return };
    explanation.inbox_number = Some(inbox.number);
    explanation.since = match &inbox.acknowledged {
        Some((time, _)) => Some(*time),
        None => Some(inbox.delivered),
    };
    if inbox.quarantined {
        explanation.cause = Cause::AttachmentsNotReleased;
    }
}

fn with_relay(facts: &Facts, explanation: &mut Explanation) {
    explanation.cause = Cause::WithRelay;
    let Some(holder) = facts.holder else { return };
    explanation.place = Place::Relay(holder);
    let custody = |said: &&Said| said.kind == ReceiptKind::Custody && said.signer == holder;
    let since = facts.said.iter().rfind(custody).map(|said| said.time);
    explanation.since = since.or_else(|| facts.said.last().map(|said| said.time));
    explanation.estimate_basis = format!("unknown here: {holder} knows");
}

fn waits(facts: &Facts, explanation: &mut Explanation) {
    explanation.place = Place::Here;
    let Some(waiting) = &facts.waiting else {
        // Between two readings it left the queue: the next answer says where to.
        explanation.cause = Cause::InFlight;
        explanation.estimate_basis = "it left the queue while this was read; ask again".to_owned();
        return;
    };
    explanation.waits_since = Some(waiting.since);
    explanation.since = Some(waiting.since);
    explanation.ahead = Some(waiting.ahead.clone());
    explanation.route = words::route(facts, waiting);
    if waiting.attachments.0 > 0 {
        let sent = waiting.hop.as_ref().and_then(|hop| hop.doing.going);
        explanation.attachments = Some((waiting.attachments.1, sent.map_or(0, |going| going.2)));
    }
    let (cause, since, next) = cause(facts, waiting);
    explanation.cause = cause;
    explanation.since = Some(since);
    explanation.next_try = next;
    explanation.hop.clone_from(&waiting.hop);
    let (estimate, basis) = words::estimate(facts, waiting, cause);
    explanation.estimate = estimate;
    explanation.estimate_basis = basis;
}

/// Why it waits, since when, and when something happens.
fn cause(facts: &Facts, waiting: &Waiting) -> (Cause, Timestamp, Option<Timestamp>) {
    let since = waiting.since;
    if facts.expires <= facts.now {
        return (Cause::Expired, facts.expires, None);
    }
    let Some(hop) = &waiting.hop else { return (Cause::NoRoute, since, None) };
    if waiting.previous_hop == Some(hop.peer) {
        return (Cause::OnlyWayBack, since, None);
    }
    if let Some(held) = &hop.held {
        return (Cause::PeerHeld, held.since, held.until);
    }
    match hop.state {
        LinkState::Down => return (Cause::LinkDown, hop.since, hop.next_attempt),
        LinkState::Connecting => return (Cause::LinkConnecting, hop.since, None),
        LinkState::Up => {}
    }
    let doing = &hop.doing;
    if let Some(sent) = doing.sent {
        return (Cause::InFlight, sent, None);
    }
    if let Some((_, at)) = &doing.kept {
        return (Cause::KeptForLater, *at, None);
    }
    if let Some((until, _)) = &doing.pause {
        return (Cause::PeerAskedToWait, since, Some(*until));
    }
    if waiting.attachments.0 > 0 {
        if let Some((begun, total, sent, _)) = doing.going {
            if let Some((until, _)) = &doing.attachments_pause {
                return (Cause::PeerAskedToWait, begun, Some(*until));
            }
            if let Some(from) = hop.bulk_from.filter(|_| sent < total) {
                return (Cause::AttachmentsWaitForHours, begun, Some(from));
            }
            return (Cause::AttachmentsUnderWay, begun, None);
        }
        if let Some((until, _)) = &doing.attachments_pause {
            return (Cause::PeerAskedToWait, since, Some(*until));
        }
        if doing.transfers_full.is_some() {
            return (Cause::AttachmentsAhead, since, None);
        }
    }
    match waiting.ahead.messages() {
        0 => (Cause::Next, since, None),
        _ => (Cause::AheadInQueue, since, None),
    }
}

#[cfg(test)]
mod tests;
