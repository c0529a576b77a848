//! The sentences of an explanation, without times: those are shown in the reader's own way.

use std::time::Duration;

use bureau_core::{Timestamp, receipt::ReceiptKind};
use bureau_store::contract::{Held, Role};

use super::{Cause, Explanation, Facts, Hop, Place, Waiting, last_said};

/// Why a message is where it is.
pub(super) fn sentence(facts: &Facts, explanation: &Explanation) -> String {
    let recipient = facts.recipient;
    let hop = explanation.hop.as_ref();
    let peer = hop.map(|hop| hop.peer.to_string()).unwrap_or_default();
    let doing = hop.map(|hop| hop.doing.clone()).unwrap_or_default();
    match explanation.cause {
        Cause::Delivered | Cause::Acknowledged | Cause::AttachmentsNotReleased => arrived(facts),
        Cause::Refused => match last_said(facts, ReceiptKind::Refused) {
            Some(said) => format!("{} refused it: {}", said.signer, or(&said.reason, "no reason")),
            None => "it was refused".to_owned(),
        },
        Cause::Expired if explanation.place == Place::Here => {
            "its time is over; it is given up within seconds".to_owned()
        }
        Cause::Expired => match last_said(facts, ReceiptKind::Expired) {
            Some(said) => format!("it was not delivered in time, says {}", said.signer),
            None => "it was not delivered in time".to_owned(),
        },
        Cause::Recalled => recalled(facts),
        Cause::HeldByOperator => held("it", facts.held.as_ref()),
        Cause::Scheduled => "its sender named a time before which it must not go".to_owned(),
        Cause::Quarantined => match facts.held.as_ref().map(|held| held.note.as_str()) {
            None | Some("") => "the node put it aside, so that the line behind moves on".to_owned(),
            Some(note) => format!("the node put it aside: {note}"),
        },
        Cause::PeerHeld => {
            held(&format!("all that goes over {peer}"), hop.and_then(|hop| hop.held.as_ref()))
        }
        Cause::WithRelay => match explanation.place {
            Place::Relay(holder) => format!("{holder} has custody of it, by its own receipt"),
            _ => "another node has custody of it".to_owned(),
        },
        Cause::NoRoute => format!("no configured peer leads to {recipient}"),
        Cause::OnlyWayBack => {
            format!("the only way on leads back to {peer}, which brought it here")
        }
        Cause::LinkDown => format!("the link to {peer} is down"),
        Cause::LinkConnecting => format!("the link to {peer} is being dialed"),
        Cause::InFlight if peer.is_empty() => "it is about to go".to_owned(),
        Cause::InFlight => format!("it is sent to {peer}, whose receipt is awaited"),
        Cause::AttachmentsUnderWay => {
            let (_, total, sent, _) = doing.going.unwrap_or((facts.now, 0, 0, 0));
            let (sent, total) = (bytes(sent), bytes(total));
            format!("its attachments are on their way to {peer}, {sent} of {total} sent")
        }
        Cause::AttachmentsWaitForHours => {
            format!("its attachments wait for the hours when such may go to {peer}")
        }
        Cause::AttachmentsAhead => {
            let others = doing.transfers_full.unwrap_or_default();
            format!("the attachments of {others} other messages go to {peer} first")
        }
        Cause::PeerAskedToWait => {
            let pause = doing.pause.or(doing.attachments_pause);
            let reason = pause.map(|(_, reason)| reason).unwrap_or_default();
            format!("{peer} asked for patience: {}", or(&reason, "no reason"))
        }
        Cause::KeptForLater => {
            let reason = doing.kept.map(|(reason, _)| reason).unwrap_or_default();
            format!("{peer} does not take it now: {}", or(&reason, "no reason"))
        }
        Cause::AheadInQueue => format!("others go to {peer} before it"),
        Cause::Next => format!("it is the next to go to {peer}"),
    }
}

fn recalled(facts: &Facts) -> String {
    let Some(recalled) = &facts.recalled else { return "its sender took it back".to_owned() };
    let left = match recalled.may_have_left {
        true => format!("; it was offered before, and {} may have it", facts.recipient),
        false => String::new(),
    };
    format!("desk {} took it back{left}", recalled.desk)
}

fn held(what: &str, held: Option<&Held>) -> String {
    let by = held.and_then(|held| held.desk.as_ref());
    let by = by.map_or_else(|| "this node".to_owned(), |desk| format!("desk {desk}"));
    match held.map(|held| held.note.as_str()) {
        None | Some("") => format!("{by} holds {what} back"),
        Some(note) => format!("{by} holds {what} back: {note}"),
    }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn arrived(facts: &Facts) -> String {
    let recipient = facts.recipient;
    if let Some(inbox) = &facts.inbox {
        let number = inbox.number;
        let held = if inbox.quarantined { "; its attachments are not released yet" } else { "" };
        return match &inbox.acknowledged {
            Some((_, desk)) => {
                format!("it is in this inbox as number {number}, taken over by desk {desk}{held}")
            }
            None => {
                format!(
                    "it is in this inbox as number {number}, and no desk took it over yet{held}"
                )
            }
        };
    }
    match last_said(facts, ReceiptKind::Acknowledged) {
        Some(said) if !said.desk.is_empty() => {
            format!("desk {} of {recipient} has taken it over, by its own receipt", said.desk)
        }
        Some(_) => format!("a desk of {recipient} has taken it over, by its own receipt"),
        None => format!("{recipient} has it, by its own receipt; no desk there took it over yet"),
    }
}

/// Why a message goes over the peer it goes over.
pub(super) fn route(facts: &Facts, waiting: &Waiting) -> String {
    let Some(hop) = &waiting.hop else { return String::new() };
    let recipient = facts.recipient;
    let others: Vec<_> = waiting.others.iter().filter(|other| **other != hop.peer).collect();
    if hop.peer == recipient {
        let up = waiting.straight.is_some_and(|straight| straight.up);
        return match others.as_slice() {
            _ if up => "straight".to_owned(),
            [] => "straight; that link is waited for".to_owned(),
            [other] => format!("straight, or over {other} as soon as that link is up"),
            [first, ..] => {
                format!("straight, or over {first} or another hub as soon as one is up")
            }
        };
    }
    match waiting.straight {
        None => format!("{recipient} is no peer of this node"),
        Some(straight) if !straight.up => format!("the link to {recipient} itself is down"),
        Some(straight) if straight.metered => {
            format!("the link to {recipient} itself costs by the byte")
        }
        Some(_) => format!("the link to {recipient} itself is not to be used for it"),
    }
}

/// When it will be at the next hop, and how that was found, or why it cannot be known.
pub(super) fn estimate(
    facts: &Facts,
    waiting: &Waiting,
    cause: Cause,
) -> (Option<Timestamp>, String) {
    let unknown = |why: &str| (None, format!("unknown {why}"));
    let Some(hop) = &waiting.hop else { return unknown("without a way there") };
    match cause {
        Cause::Expired => return (None, String::new()),
        Cause::OnlyWayBack => return unknown("without a way on"),
        Cause::PeerHeld => return unknown("while the peer is held"),
        Cause::LinkDown | Cause::LinkConnecting => return unknown("while the link is down"),
        Cause::KeptForLater => return unknown("until the peer takes it"),
        Cause::PeerAskedToWait => return unknown("while the peer asks for patience"),
        Cause::AttachmentsWaitForHours => return unknown("until attachments may go"),
        Cause::AttachmentsAhead => return unknown("until other attachments are there"),
        _ => {}
    }
    if hop.rate == 0 {
        return unknown("until the link's rate is measured");
    }
    let left = bytes_left(waiting, hop);
    let time = time_for(left, waiting, hop);
    let rate = bytes(hop.rate);
    if waiting.ahead.more {
        let least = seconds(time);
        return unknown(&format!("but at least {least}: more is ahead than was counted"));
    }
    let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let basis = format!("{} at {rate}/s, as measured", bytes(left));
    // What was sent a while ago is not expected in the past.
    (Some(facts.now.plus_ms(time_ms)), basis)
}

fn bytes_left(waiting: &Waiting, hop: &Hop) -> u64 {
    let attachments = match hop.doing.going {
        Some((_, total, sent, before)) => before + total.saturating_sub(sent),
        None if hop.doing.sent.is_some() => 0,
        None => waiting.attachments.1,
    };
    // What is sent is ahead of nothing but itself.
    let ahead = if hop.doing.sent.is_some() { 0 } else { waiting.ahead.bytes };
    ahead.saturating_add(waiting.size).saturating_add(attachments)
}

fn time_for(left: u64, waiting: &Waiting, hop: &Hop) -> Duration {
    let by_rate = Duration::from_millis(left.saturating_mul(1000) / hop.rate.max(1));
    let messages = waiting.ahead.messages();
    let by_count = messages.saturating_mul(1000) / u64::from(waiting.messages_per_second.max(1));
    by_rate.max(Duration::from_millis(by_count)).saturating_add(hop.round_trip / 2)
}

/// What an operator or a desk can do.
pub(super) fn advice(facts: &Facts, explanation: &Explanation) -> String {
    let recipient = facts.recipient;
    let hop = explanation.hop.as_ref();
    let peer = hop.map(|hop| hop.peer.to_string()).unwrap_or_default();
    match explanation.cause {
        Cause::Delivered if facts.role == Role::Recipient => {
            "take it over at a desk: `bureau inbox ack`".to_owned()
        }
        Cause::Delivered => format!("ask {recipient}: a desk there must take it over"),
        Cause::Acknowledged => "nothing is left to do".to_owned(),
        Cause::AttachmentsNotReleased => {
            "release its attachments at a desk that may: `bureau inbox release`".to_owned()
        }
        Cause::Refused => match last_said(facts, ReceiptKind::Refused) {
            Some(said) if !said.advice.is_empty() => said.advice.clone(),
            _ => "correct it and send it anew".to_owned(),
        },
        Cause::Expired => "send it anew, with a later expiry".to_owned(),
        Cause::Recalled => "nothing is left to do".to_owned(),
        Cause::HeldByOperator => "release it, or ask who holds it back".to_owned(),
        Cause::Scheduled => "wait; its sender can recall it".to_owned(),
        Cause::Quarantined => {
            "see the log for this message; release it when its cause is mended".to_owned()
        }
        Cause::PeerHeld => format!("release {peer}, or ask who holds it"),
        Cause::WithRelay => match explanation.place {
            Place::Relay(holder) => {
                format!("ask the operators of {holder}: `bureau why` tells more there")
            }
            _ => String::new(),
        },
        Cause::NoRoute => {
            format!("configure {recipient}, or a hub that leads there, as a peer, and reload")
        }
        Cause::OnlyWayBack => {
            format!("see why {peer} does not reach {recipient}; another peer would be a way on")
        }
        Cause::LinkDown if hop.is_some_and(|hop| hop.dials) => {
            format!("see that {peer} can be reached; `bureau peers retry {peer}` dials at once")
        }
        Cause::LinkDown => format!("only {peer} dials this link: ask its operators"),
        Cause::LinkConnecting | Cause::InFlight | Cause::Next => "nothing need be done".to_owned(),
        Cause::AttachmentsUnderWay | Cause::AttachmentsAhead => {
            "wait; what has no attachment overtakes it".to_owned()
        }
        Cause::AttachmentsWaitForHours => {
            "wait, or change bulk_hours of that peer and reload".to_owned()
        }
        Cause::PeerAskedToWait => {
            format!("wait; if it goes on, ask {peer}: its disk may be low")
        }
        Cause::KeptForLater => {
            format!("compare clocks and rosters with {peer}; it is offered again on the next link")
        }
        Cause::AheadInQueue => "wait, or send what cannot wait in a higher lane".to_owned(),
    }
}

/// Bytes as people read them.
fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for larger in ["MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.1} {unit}")
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}
