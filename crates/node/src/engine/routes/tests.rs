//! Ways by hand, and messages over random networks with links that come and go.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use bureau_core::{
    SigningKey, Timestamp,
    roster::{self, Anchor},
};
use bureau_proto::envelope::v1 as wire;
use proptest::prelude::*;

use super::*;

fn code(text: &str) -> BureauCode {
    text.parse().unwrap()
}

/// A roster of members, each with whether it relays and which hubs it has.
fn roster(members: &[(String, bool, Vec<String>)]) -> Roster {
    let now = Timestamp::from_ms(1_800_000_000_000);
    let network = "test".parse().unwrap();
    let mut members: Vec<_> = members
        .iter()
        .map(|(code, relay, via)| wire::Member {
            code: code.clone(),
            relay: *relay,
            via: via.clone(),
            ..wire::Member::default()
        })
        .collect();
    members.sort_by(|one, other| one.code.cmp(&other.code));
    let wire = wire::Roster {
        format: 1,
        network: "test".to_owned(),
        serial: 1,
        issue_time: Some(now.to_wire()),
        expire_time: Some(now.to_wire()),
        members,
        ..wire::Roster::default()
    };
    let key = SigningKey::from_seed(&[1; 32]);
    let anchor = Anchor { keys: vec![key.public()], threshold: 1 };
    let signed = roster::sign(&wire, &network, vec![key]).unwrap();
    Roster::verify(signed, &network, &anchor).unwrap()
}

fn of(members: &[(&str, bool, &[&str])]) -> Roster {
    let owned = |(code, relay, via): &(&str, bool, &[&str])| {
        ((*code).to_owned(), *relay, via.iter().map(|hub| (*hub).to_owned()).collect())
    };
    roster(&members.iter().map(owned).collect::<Vec<_>>())
}

const UP: Way = Way { up: true, metered: false, no_route: false };
const DOWN: Way = Way { up: false, metered: false, no_route: false };

/// The way from a bureau with peers.
fn way(roster: &Roster, own: &str, to: &str, avoid: &[&str], peers: &[(&str, Way)]) -> String {
    let avoid: Vec<_> = avoid.iter().map(|avoided| code(avoided)).collect();
    let peer =
        |asked: BureauCode| peers.iter().find(|(peer, _)| code(peer) == asked).map(|(_, way)| *way);
    let hop = next_hop(code(own), code(to), &avoid, roster, peer);
    hop.map_or_else(|| "nobody".to_owned(), |hop| hop.to_string())
}

#[test]
fn the_way_goes_up_over_the_own_hub_and_down_over_the_others() {
    let roster = of(&[
        ("FR", false, &["EUR"]),
        ("KE", false, &["AFR"]),
        ("EUR", true, &[]),
        ("AFR", true, &[]),
    ]);
    assert_eq!(way(&roster, "FR", "KE", &[], &[("EUR", UP)]), "EUR");
    assert_eq!(way(&roster, "EUR", "KE", &["FR"], &[("FR", UP), ("AFR", UP)]), "AFR");
    assert_eq!(way(&roster, "AFR", "KE", &["EUR"], &[("EUR", UP), ("KE", UP)]), "KE");
    // A bureau waits for its hub; a hub for the way down, and never sends back.
    assert_eq!(way(&roster, "FR", "KE", &[], &[("EUR", DOWN)]), "EUR");
    assert_eq!(way(&roster, "EUR", "KE", &["FR"], &[("FR", UP), ("AFR", DOWN)]), "AFR");
    assert_eq!(way(&roster, "AFR", "KE", &["EUR"], &[("EUR", UP), ("KE", DOWN)]), "KE");
    assert_eq!(way(&roster, "AFR", "KE", &["EUR"], &[("EUR", UP)]), "nobody");
    // A bureau that relays for nobody is no way, and a stranger is none.
    assert_eq!(way(&roster, "FR", "KE", &[], &[("KE", DOWN), ("EUR", UP)]), "EUR");
    assert_eq!(way(&roster, "FR", "EUR", &[], &[("KE", UP)]), "nobody");
    assert_eq!(way(&roster, "FR", "XX", &[], &[("EUR", UP)]), "nobody");
}

#[test]
fn what_costs_nothing_goes_first_and_a_word_that_nobody_leads_there_counts() {
    let roster = of(&[
        ("FR", false, &["EUR", "SAT"]),
        ("KE", false, &["AFR", "EUR"]),
        ("EUR", true, &[]),
        ("AFR", true, &[]),
        ("SAT", true, &[]),
    ]);
    let metered = Way { metered: true, ..UP };
    let no_route = Way { no_route: true, ..UP };
    let from = |peers: &[(&str, Way)]| way(&roster, "FR", "KE", &[], peers);
    assert_eq!(from(&[("KE", metered), ("EUR", UP)]), "EUR");
    assert_eq!(from(&[("KE", metered), ("EUR", metered)]), "KE");
    assert_eq!(from(&[("KE", metered), ("EUR", DOWN)]), "KE");
    assert_eq!(from(&[("AFR", DOWN), ("EUR", UP)]), "EUR", "the other hub of KE");
    assert_eq!(from(&[("AFR", UP), ("EUR", UP)]), "AFR", "in the order of the roster");
    assert_eq!(from(&[("EUR", no_route), ("SAT", UP)]), "SAT");
    assert_eq!(from(&[("EUR", no_route)]), "EUR", "there is no other");
    assert_eq!(way(&roster, "FR", "KE", &["EUR"], &[("EUR", UP), ("SAT", UP)]), "SAT");
    // EUR is a hub of KE: it waits for KE and asks no other.
    let peers = [("KE", DOWN), ("AFR", UP), ("SAT", UP)];
    assert_eq!(way(&roster, "EUR", "KE", &["FR"], &peers), "KE");
}

#[test]
fn hubs_have_hubs() {
    let roster = of(&[
        ("FR", false, &["EUR"]),
        ("KE", false, &["EAST"]),
        ("EAST", true, &["AFR"]),
        ("AFR", true, &["EUR"]),
        ("EUR", true, &["AFR"]),
    ]);
    assert_eq!(way(&roster, "FR", "KE", &[], &[("EUR", UP)]), "EUR");
    assert_eq!(way(&roster, "EUR", "KE", &["FR"], &[("AFR", UP)]), "AFR");
    assert_eq!(way(&roster, "AFR", "KE", &["EUR"], &[("EAST", UP), ("EUR", UP)]), "EAST");
    assert_eq!(way(&roster, "EAST", "KE", &["AFR"], &[("KE", UP), ("AFR", UP)]), "KE");
    assert_eq!(way(&roster, "EAST", "FR", &["KE"], &[("KE", UP), ("AFR", UP)]), "AFR");
}

/// A network: hubs, bureaus with hubs of their own, and links between some.
#[derive(Debug, Clone)]
struct World {
    members: Vec<(String, bool, Vec<String>)>,
    links: BTreeSet<(usize, usize)>,
    metered: BTreeSet<(usize, usize)>,
    /// Links that change, step by step.
    changes: Vec<usize>,
}

fn world() -> impl Strategy<Value = World> {
    let picks = prop::collection::vec((any::<u8>(), any::<u8>()), 10);
    let pairs = prop::collection::vec(any::<(u8, u8, bool)>(), 0..12);
    let changes = prop::collection::vec(any::<usize>(), 0..60);
    (1_usize..5, 2_usize..6, picks, pairs, changes).prop_map(
        |(hubs, bureaus, picks, pairs, changes)| {
            let hub = |pick: u8| format!("HUB{}", usize::from(pick) % hubs);
            let (mut members, mut links, mut metered) =
                (Vec::new(), BTreeSet::new(), BTreeSet::new());
            for (number, (whether, which)) in picks.iter().enumerate().take(hubs) {
                let via = if whether % 3 == 0 { vec![hub(*which)] } else { vec![] };
                let own = format!("HUB{number}");
                members.push((
                    own.clone(),
                    true,
                    via.into_iter().filter(|hub| *hub != own).collect(),
                ));
                // Hubs know each other.
                links.extend((0..number).map(|other| (other, number)));
            }
            for number in 0..bureaus {
                let (one, other) = picks[4 + number];
                let mut via = vec![hub(one)];
                if other % 2 == 0 && hub(other) != via[0] {
                    via.push(hub(other));
                }
                let place = hubs + number;
                for hub in &via {
                    let hub: usize = hub[3..].parse().unwrap();
                    links.insert((hub, place));
                }
                members.push((format!("B{number}"), false, via));
            }
            let count = hubs + bureaus;
            for (one, other, costs) in pairs {
                let (one, other) = (usize::from(one) % count, usize::from(other) % count);
                let pair = (one.min(other), one.max(other));
                if one != other {
                    links.insert(pair);
                }
                if costs {
                    metered.insert(pair);
                }
            }
            World { members, links, metered, changes }
        },
    )
}

/// One message on its way: who holds it, who had it from whom, and who said no to whom.
struct Walk<'a> {
    world: &'a World,
    roster: Roster,
    up: BTreeSet<(usize, usize)>,
    holder: usize,
    had: BTreeMap<usize, usize>,
    avoid: BTreeMap<usize, BTreeSet<usize>>,
    no_route: BTreeSet<(usize, usize)>,
    moves: usize,
}

impl Walk<'_> {
    fn place(&self, code: BureauCode) -> usize {
        self.world.members.iter().position(|(member, ..)| *member == code.as_str()).unwrap()
    }

    fn code(&self, place: usize) -> BureauCode {
        code(&self.world.members[place].0)
    }

    fn hop(&self, from: usize, to: usize, avoid: &[usize]) -> Option<usize> {
        let avoid: Vec<_> = avoid.iter().map(|place| self.code(*place)).collect();
        let peer = |asked: BureauCode| {
            let place = self.place(asked);
            let pair = (from.min(place), from.max(place));
            self.world.links.contains(&pair).then(|| Way {
                up: self.up.contains(&pair),
                metered: self.world.metered.contains(&pair),
                no_route: self.no_route.contains(&(from, place)),
            })
        };
        let hop = next_hop(self.code(from), self.code(to), &avoid, &self.roster, peer)?;
        Some(self.place(hop))
    }

    /// Hands it on until nothing moves, as links and stores do.
    fn run(&mut self, to: usize) {
        for _ in 0..200 {
            if self.holder == to {
                return;
            }
            let avoid: Vec<_> =
                self.avoid.get(&self.holder).into_iter().flatten().copied().collect();
            let Some(hop) = self.hop(self.holder, to, &avoid) else { return };
            let pair = (hop.min(self.holder), hop.max(self.holder));
            if !self.up.contains(&pair) || hop != to && self.no_route.contains(&(self.holder, hop))
            {
                return;
            }
            assert!(!avoid.contains(&hop), "back to where it was");
            if self.had.contains_key(&hop) {
                // PASSED_ON: this node keeps it and looks for another way.
                self.avoid.entry(self.holder).or_default().insert(hop);
            } else if hop != to && self.hop(hop, to, &[self.holder]).is_none() {
                self.no_route.insert((self.holder, hop));
            } else {
                self.had.insert(hop, self.holder);
                self.avoid.entry(hop).or_default().insert(self.holder);
                self.holder = hop;
                self.moves += 1;
            }
        }
        panic!("it never comes to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever links do, a message comes to rest, passes no node twice, and arrives when every
    /// link is up at last.
    #[test]
    fn no_message_walks_in_a_circle_and_each_arrives(world in world(), ends in any::<(u8, u8)>()) {
        let hubs = world.members.iter().filter(|(_, relay, _)| *relay).count();
        let bureaus = world.members.len() - hubs;
        let from = hubs + usize::from(ends.0) % bureaus;
        let to = hubs + usize::from(ends.1) % bureaus;
        prop_assume!(from != to);
        let roster = roster(&world.members);
        let all: Vec<_> = world.links.iter().copied().collect();
        let mut walk = Walk {
            world: &world, roster, up: BTreeSet::new(), holder: from,
            had: BTreeMap::from([(from, from)]), avoid: BTreeMap::new(),
            no_route: BTreeSet::new(), moves: 0,
        };
        for change in &world.changes {
            let link = all[change % all.len()];
            if !walk.up.remove(&link) {
                walk.up.insert(link);
            }
            walk.run(to);
        }
        walk.up = world.links.clone();
        // What a peer said once does not count for ever.
        walk.no_route.clear();
        walk.run(to);
        prop_assert_eq!(walk.holder, to, "stuck at {}", world.members[walk.holder].0);
        prop_assert!(walk.moves <= HOPS_MAX as usize, "{} hops", walk.moves);
    }
}
