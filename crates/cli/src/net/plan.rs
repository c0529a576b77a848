//! Who is to be in a network, on which ports, and who is linked with whom.

use std::{collections::BTreeMap, net::SocketAddr};

use bureau_core::{BureauCode, DeskName, NetworkName, roster::ROSTER_SIGNER};

/// A network to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    network: NetworkName,
    desk: DeskName,
    members: Vec<Member>,
    links: Links,
    /// Pairs that have a link whatever `links` says.
    straight: Vec<(BureauCode, BureauCode)>,
    /// Where a peer is dialed, if not at its own link face.
    detours: BTreeMap<(BureauCode, BureauCode), SocketAddr>,
}

/// A bureau to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its code.
    pub code: BureauCode,
    /// Whether it relays for others.
    pub hub: bool,
    /// Which of the hubs is its own where there are regions.
    region: usize,
    /// Where its node listens, on 127.0.0.1.
    pub ports: Ports,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Desk face.
    pub desk: u16,
    /// Link face.
    pub link: u16,
    /// Admin face.
    pub admin: u16,
    /// Metrics; `None` for none.
    pub metrics: Option<u16>,
}

/// Who is linked with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Links {
    /// Every bureau with every other, and with the hub
    #[default]
    Mesh,
    /// Every bureau with the hubs only
    Hub,
    /// Every bureau with one hub, in turn, and the hubs with each other
    Region,
}

/// Why a plan cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A bureau alone is no network.
    #[error("a network has two bureaus or more")]
    Alone,
    /// Too many for the ports there are.
    #[error("{bureaus} bureaus need the ports {base} to {last}, which go beyond 65535")]
    Ports {
        /// How many bureaus.
        bureaus: usize,
        /// The first port.
        base: u16,
        /// The last port.
        last: usize,
    },
    /// A code stands twice.
    #[error("{0} stands twice")]
    Twice(BureauCode),
    /// A code that roster signatures stand under.
    #[error("{0} is reserved")]
    Reserved(BureauCode),
    /// Links over a hub need one.
    #[error("links over a hub need a hub: name it by --hub")]
    NoHub,
}

/// Ports from one bureau's to the next one's.
const PORTS_EACH: usize = 10;

impl Plan {
    /// A network of bureaus and perhaps hubs, which come last. `ports` is asked for each, by its
    /// place.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(
        network: NetworkName,
        bureaus: &[BureauCode],
        hubs: &[BureauCode],
        links: Links,
        desk: DeskName,
        mut ports: impl FnMut(usize) -> Ports,
    ) -> Result<Self, PlanError> {
        let codes = bureaus.iter().map(|code| (*code, false));
        let codes = codes.chain(hubs.iter().map(|code| (*code, true)));
        let member = |(place, (code, hub)): (usize, (BureauCode, bool))| {
            let turn = if hub { place - bureaus.len() } else { place };
            Member { code, hub, region: turn % hubs.len().max(1), ports: ports(place) }
        };
        let members: Vec<Member> = codes.enumerate().map(member).collect();
        if members.len() < 2 {
            return Err(PlanError::Alone);
        }
        for (place, member) in members.iter().enumerate() {
            if member.code.as_str() == ROSTER_SIGNER {
                return Err(PlanError::Reserved(member.code));
            }
            if members[..place].iter().any(|earlier| earlier.code == member.code) {
                return Err(PlanError::Twice(member.code));
            }
        }
        if links != Links::Mesh && hubs.is_empty() {
            return Err(PlanError::NoHub);
        }
        let (straight, detours) = (Vec::new(), BTreeMap::new());
        Ok(Self { network, desk, members, links, straight, detours })
    }

    /// Ports by a rule one can remember: of the bureau at place i, beginning at 0, `base + 10 i`
    /// plus 1 for the desk face, 2 for the link face, 3 for the admin face, 4 for the metrics.
    ///
    /// # Errors
    /// [`PlanError::Ports`] where they go beyond 65535.
    pub fn ports_from(base: u16, bureaus: usize) -> Result<impl Fn(usize) -> Ports, PlanError> {
        let last = usize::from(base) + PORTS_EACH * bureaus.saturating_sub(1) + 4;
        if last > usize::from(u16::MAX) {
            return Err(PlanError::Ports { bureaus, base, last });
        }
        Ok(move |place: usize| {
            // The last one fits, so they all do.
            let step = u16::try_from(PORTS_EACH * place).unwrap_or(u16::MAX);
            let port = |offset: u16| base.saturating_add(step).saturating_add(offset);
            Ports { desk: port(1), link: port(2), admin: port(3), metrics: Some(port(4)) }
        })
    }

    /// Gives two bureaus a link of their own, where they would have none.
    #[must_use]
    pub fn straight(mut self, one: BureauCode, other: BureauCode) -> Self {
        self.straight.push((one, other));
        self
    }

    /// Lets `from` dial `to` at another address than its link face.
    #[must_use]
    pub fn detour(mut self, from: BureauCode, to: BureauCode, address: SocketAddr) -> Self {
        self.detours.insert((from, to), address);
        self
    }

    /// The network's name.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The name of each bureau's one desk.
    #[must_use]
    pub const fn desk(&self) -> &DeskName {
        &self.desk
    }

    /// The bureaus, the hubs last.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The hubs that lead to a bureau; none to a hub.
    pub fn hubs_of(&self, of: &Member) -> impl Iterator<Item = BureauCode> {
        let hubs = self.members.iter().filter(|member| member.hub && !of.hub);
        let (regions, region) = (self.links == Links::Region, of.region);
        hubs.filter(move |hub| !regions || hub.region == region).map(|hub| hub.code)
    }

    /// The name of a bureau's one node: `fr-1`.
    #[must_use]
    pub fn node(&self, member: &Member) -> String {
        format!("{}-1", member.code.as_str().to_ascii_lowercase())
    }

    /// Whom a bureau has a link to, and where it dials each.
    pub fn peers(&self, of: &Member) -> impl Iterator<Item = (BureauCode, SocketAddr)> {
        let (own, links) = (*of, self.links);
        let linked = move |other: &&Member| {
            let straight = |pair: &(BureauCode, BureauCode)| {
                *pair == (own.code, other.code) || *pair == (other.code, own.code)
            };
            let hub = own.hub || other.hub;
            let by_plan = match links {
                Links::Mesh => true,
                Links::Hub => hub,
                Links::Region => hub && (own.hub && other.hub || own.region == other.region),
            };
            other.code != own.code && (by_plan || self.straight.iter().any(straight))
        };
        self.members.iter().filter(linked).map(move |other| {
            let own_face = SocketAddr::from(([127, 0, 0, 1], other.ports.link));
            let address = self.detours.get(&(own.code, other.code)).copied().unwrap_or(own_face);
            (other.code, address)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::NodeName;

    use super::*;

    fn codes(texts: &[&str]) -> Vec<BureauCode> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn plan(bureaus: &[&str], hub: Option<&str>, links: Links) -> Result<Plan, PlanError> {
        let ports = Plan::ports_from(7100, bureaus.len() + 1)?;
        let hubs: Vec<_> = hub.iter().flat_map(|hubs| hubs.split(',')).collect();
        let hubs = codes(&hubs);
        let (network, desk) = ("example".parse().unwrap(), "desk".parse().unwrap());
        Plan::new(network, &codes(bureaus), &hubs, links, desk, ports)
    }

    fn peers(plan: &Plan, place: usize) -> Vec<(String, u16)> {
        let peers = plan.peers(&plan.members()[place]);
        peers.map(|(code, address)| (code.to_string(), address.port())).collect()
    }

    #[test]
    fn ports_follow_the_order_given() {
        let plan = plan(&["FR", "KE"], Some("IPSG"), Links::Mesh).unwrap();
        let ports = |place: usize| plan.members()[place].ports;
        assert_eq!(ports(0), Ports { desk: 7101, link: 7102, admin: 7103, metrics: Some(7104) });
        assert_eq!(ports(2), Ports { desk: 7121, link: 7122, admin: 7123, metrics: Some(7124) });
        let hubs = |place: usize| plan.hubs_of(&plan.members()[place]).collect::<Vec<_>>();
        assert_eq!((hubs(0), hubs(2)), (codes(&["IPSG"]), Vec::new()));
        let node: NodeName = plan.node(&plan.members()[2]).parse().unwrap();
        assert_eq!(node.as_str(), "ipsg-1");
    }

    #[test]
    fn links_are_all_with_all_or_over_the_hub() {
        let own = |code: &str, port| (code.to_owned(), port);
        let mesh = plan(&["FR", "KE"], Some("IPSG"), Links::Mesh).unwrap();
        assert_eq!(peers(&mesh, 0), [own("KE", 7112), own("IPSG", 7122)]);
        let hub = plan(&["FR", "KE"], Some("IPSG"), Links::Hub).unwrap();
        assert_eq!(peers(&hub, 0), [own("IPSG", 7122)]);
        assert_eq!(peers(&hub, 2), [own("FR", 7102), own("KE", 7112)]);
        let [ke, ipsg] = [hub.members()[1].code, hub.members()[2].code];
        let detour = hub.detour(ipsg, ke, SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(peers(&detour, 2), [own("FR", 7102), own("KE", 9)]);
        assert_eq!(peers(&detour, 1), [own("IPSG", 7122)]);
    }

    #[test]
    fn regions_have_a_hub_each() {
        let ports = Plan::ports_from(7100, 5).unwrap();
        let (network, desk) = ("example".parse().unwrap(), "desk".parse().unwrap());
        let (bureaus, hubs) = (codes(&["FR", "KE", "IT"]), codes(&["EUR", "AFR"]));
        let plan = Plan::new(network, &bureaus, &hubs, Links::Region, desk, ports).unwrap();
        let linked = |place: usize| {
            peers(&plan, place).into_iter().map(|(code, _)| code).collect::<Vec<_>>()
        };
        assert_eq!(
            (linked(0), linked(1), linked(2)),
            (vec!["EUR".to_owned()], vec!["AFR".to_owned()], vec!["EUR".to_owned()])
        );
        assert_eq!(linked(3), ["FR", "IT", "AFR"]);
        assert_eq!(linked(4), ["KE", "EUR"]);
        let via = |place: usize| plan.hubs_of(&plan.members()[place]).collect::<Vec<_>>();
        assert_eq!((via(0), via(1), via(3)), (codes(&["EUR"]), codes(&["AFR"]), Vec::new()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let fault = |bureaus: &[&str], hub, links| plan(bureaus, hub, links).unwrap_err();
        assert_eq!(fault(&["FR"], None, Links::Mesh), PlanError::Alone);
        assert_eq!(fault(&["FR", "KE"], None, Links::Hub), PlanError::NoHub);
        assert_eq!(fault(&["FR", "KE"], None, Links::Region), PlanError::NoHub);
        let [fr, roster] = codes(&["FR", "ROSTER"])[..] else { unreachable!() };
        assert_eq!(fault(&["FR", "KE"], Some("FR"), Links::Mesh), PlanError::Twice(fr));
        assert_eq!(fault(&["FR", "ROSTER"], None, Links::Mesh), PlanError::Reserved(roster));
        assert!(Plan::ports_from(65_500, 4).is_ok());
        let beyond = PlanError::Ports { bureaus: 5, base: 65_500, last: 65_544 };
        assert_eq!(Plan::ports_from(65_500, 5).err(), Some(beyond));
    }
}
