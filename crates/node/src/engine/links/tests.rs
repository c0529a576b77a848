//! One link a peer, and what is known of each.

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
    assert_eq!(hop("ZA"), Some(code("IPSG")), "the own hub may know more");
    assert_eq!(hop("XX"), None);
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
    assert_eq!(links.failed(code("KE"), "UNREACHABLE"), 1);
    assert_eq!(links.failed(code("KE"), "UNREACHABLE"), 2);
    begin(&links, "KE", "KE").unwrap();
    assert_eq!(links.statuses()[0].2.failed_attempts, 0);
    links.cancel_all();
    assert_eq!(begin(&links, "KE", "KE").unwrap_err().reason, Reason::ShuttingDown);
}

#[test]
fn what_was_known_of_a_peer_outlives_a_restart_until_it_is_heard_from() {
    let links = links("FR", &["KE"]);
    let (since, next) = (now().plus_ms(-86_400_000), now().plus_ms(20_000));
    let last_reason = "UNREACHABLE".to_owned();
    let note = PeerNote { failed_attempts: 17, next_attempt: next, down_since: since, last_reason };
    links.remember(vec![(code("ZA"), note.clone()), (code("KE"), note)]);
    let status = links.status(code("KE")).unwrap();
    assert_eq!((status.failed_attempts, status.since), (17, since));
    assert_eq!((status.next_attempt, status.last_reason.as_str()), (Some(next), "UNREACHABLE"));
    assert_eq!(links.status(code("ZA")), None, "a peer no more");
    assert_eq!(links.failed(code("KE"), "UNREACHABLE"), 18);
    assert_eq!(links.status(code("KE")).unwrap().since, since, "still the same outage");
    assert!(begin(&links, "KE", "KE").unwrap().was_away);
    assert!(!begin(&links, "KE", "KE").unwrap().was_away);
    // What is said of the next try while the link is up is late.
    links.next_attempt(code("KE"), next);
    assert_eq!(links.status(code("KE")).unwrap().next_attempt, None);
}

#[test]
fn an_operator_lets_a_peer_be_dialed_now() {
    let links = links("FR", &["KE"]);
    links.failed(code("KE"), "UNREACHABLE");
    assert!(links.away(code("KE")).is_some());
    assert_eq!(links.retry(code("KE")), Some(true));
    assert_eq!(links.status(code("KE")).unwrap().failed_attempts, 0);
    let ke = begin(&links, "KE", "KE").unwrap();
    assert!(ke.was_away && links.away(code("KE")).is_none(), "the note is to be taken back");
    assert_eq!((links.retry(code("KE")), links.retry(code("ZA"))), (Some(false), None));
}

#[test]
fn a_ping_needs_a_link_and_ends_with_it() {
    let links = links("FR", &["KE"]);
    assert_eq!(links.ping(code("ZA")).unwrap_err().reason, Reason::NotFound);
    links.failed(code("KE"), "UNREACHABLE");
    let refusal = links.ping(code("KE")).unwrap_err();
    assert_eq!(refusal.reason, Reason::PeerDown);
    assert!(refusal.message.contains("UNREACHABLE"), "{}", refusal.message);
    let slot = begin(&links, "KE", "KE").unwrap();
    let mut answer = links.ping(code("KE")).unwrap();
    assert!(slot.pings.is_asked());
    links.end(&slot, "STALLED", now());
    assert!(answer.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
}

#[test]
fn a_peer_that_leads_nowhere_is_passed_over_for_a_while() {
    let (roster, links) = (roster(), links("FR", &["IPSG", "KE"]));
    let _hub = begin(&links, "IPSG", "FR").unwrap();
    let before = links.generation();
    links.no_route(code("IPSG"), code("KE"));
    assert_ne!(links.generation(), before);
    assert_eq!(links.next_hop(code("KE"), &roster), Some(code("KE")), "waited for");
    let _again = begin(&links, "IPSG", "FR").unwrap();
    assert_eq!(links.next_hop(code("KE"), &roster), Some(code("IPSG")), "a new link, a new word");
}

#[test]
fn what_avoids_a_peer_goes_over_another() {
    let (roster, links) = (roster(), links("FR", &["IPSG", "KE"]));
    let _hub = begin(&links, "IPSG", "FR").unwrap();
    let _ke = begin(&links, "KE", "FR").unwrap();
    let at = |number| QueuePosition { destination: code("KE"), lane: Lane::Routine, number };
    assert!(links.detour(at(1), &[code("KE")], &roster));
    assert!(links.detour(at(2), &[code("KE"), code("IPSG")], &roster));
    let next = |peer, after| links.next_detour(code(peer), Lane::Routine, after, &roster);
    assert_eq!(next("IPSG", None), Some(at(1)));
    assert_eq!((next("IPSG", Some(at(1))), next("KE", None)), (None, None));
}

#[test]
fn the_way_leads_past_a_peer_that_is_held() {
    use bureau_store::contract::HoldReason;
    let (roster, links) = (roster(), links("FR", &["IPSG", "KE"]));
    let hop = || links.next_hop(code("KE"), &roster);
    let _hub = begin(&links, "IPSG", "FR").unwrap();
    let _ke = begin(&links, "KE", "FR").unwrap();
    let (reason, since, note) = (HoldReason::Operator, now(), String::new());
    let held = Held { reason, since, until: None, desk: None, note };
    assert!(links.hold(code("KE"), Some(held.clone())));
    assert_eq!(hop(), Some(code("IPSG")), "over the hub");
    assert!(links.hold(code("IPSG"), Some(held.clone())));
    assert_eq!(hop(), Some(code("KE")), "waited for");
    assert!(links.hold(code("KE"), None) && links.held(code("IPSG")).is_some());
    assert_eq!(hop(), Some(code("KE")));
    assert!(!links.hold(code("ZA"), Some(held)), "no such peer");
}
