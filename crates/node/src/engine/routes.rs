//! Which peer leads to a destination: by the roster, the links that are up, and what they cost.
//! Nothing here waits or remembers.
//!
//! A message goes straight, or down over a hub of its destination; a bureau that has no such peer
//! up gives it to a hub of its own, which knows more. A hub that has a way down waits for it and
//! never climbs: so hubs do not hand a message around while its recipient is away. Custody is given
//! to a node once, so that whatever links do, a message never walks in a circle; the hops limit
//! ends what a faulty relay does.

use std::collections::BTreeSet;

use bureau_core::{BureauCode, Roster, limits::HOPS_MAX};

/// What a node knows of a peer when it chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The link is up.
    pub(super) up: bool,
    /// Every byte costs.
    pub(super) metered: bool,
    /// It said that nobody leads to the destination from there.
    pub(super) no_route: bool,
}

/// The peer that leads to a destination now, or the one that is waited for. `None`: no peer does.
///
/// `avoid`: peers that had it already. `peer`: what is known of a peer; `None` for what is no peer.
pub(super) fn next_hop(
    own: BureauCode,
    destination: BureauCode,
    avoid: &[BureauCode],
    roster: &Roster,
    peer: impl Fn(BureauCode) -> Option<Way>,
) -> Option<BureauCode> {
    roster.member(&destination).ok()?;
    let way = |code: BureauCode| {
        let way = peer(code).filter(|_| !avoid.contains(&code))?;
        Some((code, way))
    };
    let mut ways: Vec<_> = down(own, destination, roster).into_iter().filter_map(way).collect();
    let own_member = roster.member(&own).ok();
    let relays = own_member.is_some_and(|member| member.relay);
    if ways.is_empty() || !relays {
        let hubs = own_member.map(|member| member.via.as_slice()).unwrap_or_default();
        let hubs = hubs.iter().copied().filter(|hub| is_relay(*hub, roster));
        let known: Vec<_> = ways.iter().map(|(code, _)| *code).collect();
        ways.extend(hubs.filter(|hub| *hub != own && !known.contains(hub)).filter_map(way));
    }
    // What is up before what is not; what costs nothing before what does; then the straightest.
    let cost = |(_, way): &&(BureauCode, Way)| (way.no_route, !way.up, way.up && way.metered);
    ways.iter().min_by_key(cost).map(|(code, _)| *code)
}

/// The destination, its hubs, their hubs and so on, the nearest first; up to this bureau, which
/// does not send through another what it is the hub for.
fn down(own: BureauCode, destination: BureauCode, roster: &Roster) -> Vec<BureauCode> {
    let mut found = vec![destination];
    let mut seen = BTreeSet::from([destination]);
    let mut level = vec![destination];
    for _ in 0..HOPS_MAX {
        let mut next = Vec::new();
        for member in level.iter().filter_map(|code| roster.member(code).ok()) {
            let new = member.via.iter().copied().filter(|hub| seen.insert(*hub));
            next.extend(new.filter(|hub| is_relay(*hub, roster)));
        }
        if next.is_empty() || next.contains(&own) {
            break;
        }
        found.extend(&next);
        level = next;
    }
    found
}

fn is_relay(code: BureauCode, roster: &Roster) -> bool {
    roster.member(&code).is_ok_and(|member| member.relay)
}

#[cfg(test)]
mod tests;
