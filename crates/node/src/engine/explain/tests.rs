//! Every cause by a case of its own, and what is never claimed.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

fn code(text: &str) -> BureauCode {
    text.parse().unwrap()
}

/// A while after a moment that everything is counted from.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(1_800_000_000_000 + seconds * 1000)
}

fn hop(peer: &str) -> Hop {
    Hop {
        peer: code(peer),
        dials: true,
        state: LinkState::Up,
        since: at(10),
        next_attempt: None,
        failed_attempts: 0,
        last_reason: String::new(),
        rate: 8_000,
        round_trip: Duration::from_millis(600),
        held: None,
        bulk_from: None,
        doing: Doing::default(),
    }
}

fn waiting(peer: &str) -> Waiting {
    Waiting {
        since: at(20),
        size: 1_000,
        attachments: (0, 0),
        previous_hop: None,
        hop: Some(hop(peer)),
        others: vec![code("IPSG")],
        straight: Some(Straight { up: peer == "KE", metered: false }),
        ahead: Ahead::default(),
        messages_per_second: 1_000_000,
    }
}

fn facts(state: State) -> Facts {
    Facts {
        now: at(100),
        recipient: code("KE"),
        role: Role::Origin,
        state,
        expires: at(86_400),
        holder: None,
        said: Vec::new(),
        inbox: None,
        held: None,
        recalled: None,
        waiting: None,
    }
}

fn said(kind: ReceiptKind, signer: &str, seconds: i64) -> Said {
    let (signer, time) = (code(signer), at(seconds));
    Said { kind, signer, time, reason: String::new(), advice: String::new(), desk: String::new() }
}

fn waits(change: impl FnOnce(&mut Waiting)) -> Explanation {
    let mut waiting = waiting("KE");
    change(&mut waiting);
    explain(&Facts { waiting: Some(waiting), ..facts(State::Queued) })
}

fn with_hop(change: impl FnOnce(&mut Hop)) -> Explanation {
    waits(|waiting| change(waiting.hop.as_mut().unwrap()))
}

#[test]
fn what_waits_has_one_cause_each() {
    let down = |hop: &mut Hop| {
        hop.state = LinkState::Down;
        hop.next_attempt = Some(at(121));
    };
    let pause = Some((at(102), "BUSY".to_owned()));
    let cases: Vec<(Explanation, Cause, i64, &str)> = vec![
        (with_hop(down), Cause::LinkDown, 10, "the link to KE is down"),
        (
            with_hop(|hop| hop.state = LinkState::Connecting),
            Cause::LinkConnecting,
            10,
            "the link to KE is being dialed",
        ),
        (waits(|waiting| waiting.hop = None), Cause::NoRoute, 20, "no configured peer leads to KE"),
        (
            waits(|waiting| waiting.previous_hop = Some(code("KE"))),
            Cause::OnlyWayBack,
            20,
            "the only way on leads back to KE, which brought it here",
        ),
        (
            with_hop(|hop| hop.doing.sent = Some(at(99))),
            Cause::InFlight,
            99,
            "it is sent to KE, whose receipt is awaited",
        ),
        (
            with_hop(|hop| hop.doing.kept = Some(("UNKNOWN_KEY".to_owned(), at(50)))),
            Cause::KeptForLater,
            50,
            "KE does not take it now: UNKNOWN_KEY",
        ),
        (
            with_hop(|hop| hop.doing.pause = pause),
            Cause::PeerAskedToWait,
            20,
            "KE asked for patience: BUSY",
        ),
        (
            waits(|waiting| waiting.ahead.lanes = vec![(Lane::Flash, 2)]),
            Cause::AheadInQueue,
            20,
            "others go to KE before it",
        ),
        (waits(|_| ()), Cause::Next, 20, "it is the next to go to KE"),
    ];
    for (explanation, cause, since, sentence) in cases {
        assert_eq!(explanation.cause, cause);
        assert_eq!(explanation.place, Place::Here);
        assert_eq!((explanation.since, &*explanation.sentence), (Some(at(since)), sentence));
        assert!(!explanation.advice.is_empty(), "{cause:?} has no advice");
        assert!(!explanation.estimate_basis.is_empty(), "{cause:?} says nothing of time");
    }
    let down = with_hop(down);
    assert_eq!((down.next_try, down.estimate), (Some(at(121)), None));
    assert_eq!(down.estimate_basis, "unknown while the link is down");
}

#[test]
fn attachments_have_causes_of_their_own() {
    let with_attachments = |change: &dyn Fn(&mut Hop)| {
        waits(|waiting| {
            waiting.attachments = (1, 300_000);
            change(waiting.hop.as_mut().unwrap());
        })
    };
    let going = Some((at(30), 300_000, 100_000, 40_000));
    let under_way = with_attachments(&|hop| hop.doing.going = going);
    assert_eq!(under_way.cause, Cause::AttachmentsUnderWay);
    assert_eq!(under_way.attachments, Some((300_000, 100_000)));
    // 40,000 of others, 200,000 of its own and 1,000 of its envelope at 8,000 a second.
    assert_eq!(under_way.estimate, Some(at(100).plus_ms(30_125 + 300)));
    let sentence = "its attachments are on their way to KE, 97.7 KiB of 293.0 KiB sent";
    assert_eq!(under_way.sentence, sentence);

    let hours = with_attachments(&|hop| {
        hop.doing.going = going;
        hop.bulk_from = Some(at(5_000));
    });
    assert_eq!((hours.cause, hours.estimate), (Cause::AttachmentsWaitForHours, None));
    assert_eq!(hours.next_try, Some(at(5_000)));
    let others = with_attachments(&|hop| hop.doing.transfers_full = Some(8));
    assert_eq!(others.cause, Cause::AttachmentsAhead);
    assert_eq!(others.sentence, "the attachments of 8 other messages go to KE first");
    let paused = with_attachments(&|hop| {
        hop.doing.going = going;
        hop.doing.attachments_pause = Some((at(102), "STAGING_FULL".to_owned()));
    });
    assert_eq!((paused.cause, paused.next_try), (Cause::PeerAskedToWait, Some(at(102))));
    assert_eq!(paused.sentence, "KE asked for patience: STAGING_FULL");
}

#[test]
fn a_time_is_given_only_where_it_follows_from_what_was_measured() {
    let ahead = |more| Ahead { lanes: vec![(Lane::Routine, 3)], bytes: 79_000, more };
    let known = waits(|waiting| waiting.ahead = ahead(false));
    assert_eq!(known.estimate, Some(at(110).plus_ms(300)));
    let basis = "78.1 KiB at 7.8 KiB/s, as measured";
    assert_eq!(known.estimate_basis, basis);
    let more = waits(|waiting| waiting.ahead = ahead(true));
    assert_eq!(more.estimate, None);
    let basis = "unknown but at least 10 s: more is ahead than was counted";
    assert_eq!(more.estimate_basis, basis);
    let unmeasured = with_hop(|hop| hop.rate = 0);
    assert_eq!(unmeasured.estimate, None);
    assert_eq!(unmeasured.estimate_basis, "unknown until the link's rate is measured");
    // A limit of messages a second may hold up longer than the bytes do.
    let counted = waits(|waiting| {
        waiting.ahead = ahead(false);
        waiting.messages_per_second = 1;
        waiting.hop.as_mut().unwrap().rate = 8_000_000;
    });
    assert_eq!(counted.estimate, Some(at(103).plus_ms(300)));
}

#[test]
fn the_way_is_said_and_why_that_one() {
    let route = |change: &dyn Fn(&mut Waiting)| waits(|waiting| change(waiting)).route;
    assert_eq!(route(&|_| ()), "straight");
    let down = Some(Straight { up: false, metered: false });
    let waits_straight = |waiting: &mut Waiting| waiting.straight = down;
    assert_eq!(route(&waits_straight), "straight, or over IPSG as soon as that link is up");
    let alone = |waiting: &mut Waiting| {
        waiting.straight = down;
        waiting.others.clear();
    };
    assert_eq!(route(&alone), "straight; that link is waited for");
    let over_hub = |straight: Option<Straight>| {
        route(&move |waiting| {
            waiting.hop = Some(hop("IPSG"));
            waiting.straight = straight;
        })
    };
    assert_eq!(over_hub(None), "KE is no peer of this node");
    assert_eq!(over_hub(down), "the link to KE itself is down");
    let metered = Some(Straight { up: true, metered: true });
    assert_eq!(over_hub(metered), "the link to KE itself costs by the byte");
}

#[test]
fn what_is_not_here_is_where_a_receipt_says() {
    let with_relay = explain(&Facts {
        holder: Some(code("IPSG")),
        said: vec![said(ReceiptKind::Custody, "IPSG", 40)],
        ..facts(State::Relayed)
    });
    assert_eq!((with_relay.cause, with_relay.since), (Cause::WithRelay, Some(at(40))));
    assert_eq!(with_relay.place, Place::Relay(code("IPSG")));
    assert_eq!(with_relay.sentence, "IPSG has custody of it, by its own receipt");
    assert_eq!(
        (with_relay.estimate, &*with_relay.estimate_basis),
        (None, "unknown here: IPSG knows")
    );

    let delivered = said(ReceiptKind::Delivered, "KE", 50);
    let arrived = explain(&Facts { said: vec![delivered.clone()], ..facts(State::Delivered) });
    assert_eq!((arrived.cause, arrived.place), (Cause::Delivered, Place::Recipient));
    let sentence = "KE has it, by its own receipt; no desk there took it over yet";
    assert_eq!((arrived.since, &*arrived.sentence), (Some(at(50)), sentence));
    let taken = Said { desk: "desk".to_owned(), ..said(ReceiptKind::Acknowledged, "KE", 60) };
    let taken = explain(&Facts { said: vec![delivered, taken], ..facts(State::Acknowledged) });
    let sentence = "desk desk of KE has taken it over, by its own receipt";
    assert_eq!((taken.since, &*taken.sentence), (Some(at(60)), sentence));
}

#[test]
fn what_is_held_back_says_by_whom_and_until_when() {
    let held = |reason, until, note: &str| Held {
        reason,
        since: at(30),
        until,
        desk: Some("duty".parse().unwrap()),
        note: note.to_owned(),
    };
    let back = |held| explain(&Facts { held: Some(held), ..facts(State::Held) });
    let operator = back(held(HoldReason::Operator, None, "await the judge"));
    assert_eq!((operator.cause, operator.place), (Cause::HeldByOperator, Place::Here));
    assert_eq!(operator.sentence, "desk duty holds it back: await the judge");
    assert_eq!((operator.since, operator.next_try), (Some(at(30)), None));
    let scheduled = back(held(HoldReason::Scheduled, Some(at(900)), ""));
    assert_eq!((scheduled.cause, scheduled.next_try), (Cause::Scheduled, Some(at(900))));
    let poison = back(held(HoldReason::Poison, None, "ATTACHMENT_MISSING"));
    assert_eq!(poison.cause, Cause::Quarantined);
    assert_eq!(poison.sentence, "the node put it aside: ATTACHMENT_MISSING");

    let peer = with_hop(|hop| hop.held = Some(held(HoldReason::Operator, None, "")));
    assert_eq!((peer.cause, peer.estimate), (Cause::PeerHeld, None));
    assert_eq!(peer.sentence, "desk duty holds all that goes over KE back");

    let desk = "desk".parse().unwrap();
    let recalled = Recalled { time: at(40), desk, may_have_left: true };
    let recalled = explain(&Facts { recalled: Some(recalled), ..facts(State::Recalled) });
    assert_eq!((recalled.cause, recalled.place), (Cause::Recalled, Place::Nowhere));
    let sentence = "desk desk took it back; it was offered before, and KE may have it";
    assert_eq!(recalled.sentence, sentence);
}

#[test]
fn an_end_has_its_reason_and_what_to_do() {
    let refusal = Said {
        reason: "BODY_TOO_LARGE".to_owned(),
        advice: "send it in parts".to_owned(),
        ..said(ReceiptKind::Refused, "KE", 50)
    };
    let refused = explain(&Facts { said: vec![refusal], ..facts(State::Refused) });
    assert_eq!((refused.cause, refused.place), (Cause::Refused, Place::Nowhere));
    assert_eq!(refused.sentence, "KE refused it: BODY_TOO_LARGE");
    assert_eq!(refused.advice, "send it in parts");
    let expired = said(ReceiptKind::Expired, "IPSG", 70);
    let expired = explain(&Facts { said: vec![expired], ..facts(State::Expired) });
    assert_eq!(expired.sentence, "it was not delivered in time, says IPSG");
    assert_eq!((expired.since, expired.estimate), (Some(at(70)), None));
    // Over before the timer came to it.
    let late =
        explain(&Facts { expires: at(99), waiting: Some(waiting("KE")), ..facts(State::Queued) });
    assert_eq!((late.cause, late.place), (Cause::Expired, Place::Here));
}

#[test]
fn the_recipient_knows_its_inbox() {
    let inbox = |acknowledged, quarantined| {
        let inbox = InInbox { number: 12, delivered: at(50), acknowledged, quarantined };
        let role = Role::Recipient;
        explain(&Facts { role, inbox: Some(inbox), ..facts(State::Delivered) })
    };
    let there = inbox(None, false);
    assert_eq!((there.cause, there.inbox_number), (Cause::Delivered, Some(12)));
    let sentence = "it is in this inbox as number 12, and no desk took it over yet";
    assert_eq!((there.since, &*there.sentence), (Some(at(50)), sentence));
    let taken = inbox(Some((at(60), "desk".parse().unwrap())), false);
    assert_eq!(taken.since, Some(at(60)));
    assert_eq!(taken.sentence, "it is in this inbox as number 12, taken over by desk desk");
    let held = inbox(None, true);
    assert_eq!(held.cause, Cause::AttachmentsNotReleased);
    assert!(held.sentence.ends_with("its attachments are not released yet"), "{}", held.sentence);
}
