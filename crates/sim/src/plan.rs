//! What a seed means: who is there, how they are linked, how much is sent, and what goes wrong.
//! Nothing here runs.

use std::{path::Path, sync::Arc};

use bureau_core::{
    BureauCode, Limits, NetworkName, Roster, SigningKey, Timestamp,
    roster::{self, Anchor},
};
use bureau_node::Config;
use bureau_proto::envelope::v1 as wire;
use bytes::Bytes;
use data_encoding::BASE64;

use crate::chance::Chance;

/// The moment a run begins.
pub(crate) const BEGIN_MS: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;
const NETWORK: &str = "simulated.example";

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything goes wrong.
    Storm,
    /// Nothing goes wrong: order must be kept too.
    Calm,
    /// Nothing goes wrong, and a slow link has far more to carry than it can.
    Pressure,
}

/// A way between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) latency_ms: u64,
    pub(crate) jitter_ms: u64,
    pub(crate) bytes_per_second: u64,
}

const LOCAL: Way = Way { latency_ms: 1, jitter_ms: 1, bytes_per_second: 10_000_000 };
const WIDE: Way = Way { latency_ms: 40, jitter_ms: 20, bytes_per_second: 1_000_000 };
const SATELLITE: Way = Way { latency_ms: 300, jitter_ms: 50, bytes_per_second: 64_000 };
const SLOW: Way = Way { latency_ms: 250, jitter_ms: 30, bytes_per_second: 8_000 };

impl Way {
    pub(crate) fn any(chance: &mut Chance) -> Self {
        [LOCAL, WIDE, WIDE, SATELLITE, SLOW][chance.index(5)]
    }

    /// What every link becomes when all is healed.
    pub(crate) const fn healed() -> Self {
        WIDE
    }
}

/// One bureau.
#[derive(Debug, Clone)]
pub(crate) struct Bureau {
    pub(crate) code: BureauCode,
    pub(crate) relay: bool,
    pub(crate) via: Vec<BureauCode>,
}

/// A configured link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) way: Way,
    pub(crate) low_dials: bool,
    pub(crate) high_dials: bool,
}

/// What a seed means.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) bureaus: Vec<Bureau>,
    pub(crate) pairs: Vec<Pair>,
    /// Messages that each bureau sends.
    pub(crate) messages: u64,
    /// How long things go wrong, in seconds.
    pub(crate) seconds: u64,
    pub(crate) window_parcels: u64,
}

fn code(text: &str) -> Option<BureauCode> {
    text.parse().ok()
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, 1);
        let kind = match seed % 40 {
            3 | 13 | 23 | 33 => Kind::Calm,
            7 => Kind::Pressure,
            _ => Kind::Storm,
        };
        let (members, hubs) = match kind {
            Kind::Pressure => (2, 0),
            _ => (chance.between(2, 4), chance.between(1, 2)),
        };
        let hubs: Vec<BureauCode> =
            ["HUB1", "HUB2"].iter().take(hubs as usize).filter_map(|text| code(text)).collect();
        let member = |text: &&str| {
            let code = code(text)?;
            Some(Bureau { code, relay: false, via: hubs.clone() })
        };
        let mut bureaus: Vec<Bureau> =
            ["AT", "BE", "CH", "DE"].iter().take(members as usize).filter_map(member).collect();
        let direct = bureaus.len();
        for hub in &hubs {
            bureaus.push(Bureau { code: *hub, relay: true, via: Vec::new() });
        }
        let star = kind == Kind::Storm && chance.one_in(2);
        let mut pairs = Vec::new();
        for low in 0..bureaus.len() {
            for high in low + 1..bureaus.len() {
                let both_members = high < direct;
                if star && both_members {
                    continue;
                }
                let way = match kind {
                    Kind::Pressure => {
                        Way { latency_ms: 100, jitter_ms: 5, bytes_per_second: 8_000 }
                    }
                    _ => Way::any(&mut chance),
                };
                let low_dials = !chance.one_in(3);
                let high_dials = !low_dials || chance.one_in(2);
                pairs.push(Pair { low, high, way, low_dials, high_dials });
            }
        }
        let messages = match kind {
            Kind::Pressure => 0,
            _ => chance.between(4, 12),
        };
        let seconds = chance.between(60, 180);
        let window_parcels = if chance.one_in(3) { chance.between(1, 16) } else { 256 };
        Self { seed, kind, bureaus, pairs, messages, seconds, window_parcels }
    }

    /// The key of a bureau.
    pub(crate) fn key(index: usize) -> SigningKey {
        SigningKey::from_seed(&[u8::try_from(index).unwrap_or(u8::MAX).wrapping_add(1); 32])
    }

    pub(crate) fn network() -> Result<NetworkName, String> {
        NETWORK.parse().map_err(|error| format!("{error}"))
    }

    /// The roster that everybody has.
    pub(crate) fn roster(&self) -> Result<Arc<Roster>, String> {
        let at = |ms| Some(Timestamp::from_ms(BEGIN_MS + ms).to_wire());
        let member = |(index, bureau): (usize, &Bureau)| wire::Member {
            code: bureau.code.to_string(),
            name: bureau.code.to_string(),
            keys: vec![wire::MemberKey {
                public_key: Bytes::copy_from_slice(Self::key(index).public().as_bytes()),
                suite: wire::SignatureSuite::Ed25519.into(),
                r#use: wire::KeyUse::Sign.into(),
                valid_from_time: at(-DAY_MS),
                valid_until_time: at(365 * DAY_MS),
                revoke_time: None,
                kem_suite: 0,
            }],
            nodes: vec![wire::MemberNode { name: "node-1".to_owned(), addresses: Vec::new() }],
            relay: bureau.relay,
            via: bureau.via.iter().map(ToString::to_string).collect(),
            ..wire::Member::default()
        };
        let roster = wire::Roster {
            format: 1,
            network: NETWORK.to_owned(),
            serial: 1,
            issue_time: at(-DAY_MS),
            expire_time: at(365 * DAY_MS),
            members: self.bureaus.iter().enumerate().map(member).collect(),
            ..wire::Roster::default()
        };
        let (network, root) = (Self::network()?, SigningKey::from_seed(&[200; 32]));
        let anchor = Anchor { keys: vec![root.public()], threshold: 1 };
        let signed = roster::sign(&roster, &network, vec![root]).map_err(|e| e.to_string())?;
        let roster = Roster::verify(signed, &network, &anchor).map_err(|e| e.to_string())?;
        Ok(Arc::new(roster))
    }

    /// The configuration of a node: read as a node reads its own, so that defaults are the real ones.
    pub(crate) fn config(&self, index: usize) -> Result<Config, String> {
        use std::fmt::Write as _;
        let root = BASE64.encode(SigningKey::from_seed(&[200; 32]).public().as_bytes());
        let bureau = self.bureaus.get(index).ok_or("no such bureau")?.code;
        let mut text = format!(
            "network = \"{NETWORK}\"\nbureau = \"{bureau}\"\nnode = \"node-1\"\ndata_dir = \"d\"\n\
             [keys]\nsigning_key = \"k\"\n[tls]\nca = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n\
             [roster]\nfile = \"r\"\nroot_keys = [\"{root}\"]\nthreshold = 1\n\
             [desk]\nlisten = \"127.0.0.1:1\"\n[link]\nlisten = \"127.0.0.1:2\"\n\
             [admin]\nlisten = \"127.0.0.1:3\"\n[policy]\nsealing_suites = [\"OPEN\"]\n\
             [links]\nwindow_parcels = {}\n",
            self.window_parcels
        );
        for pair in &self.pairs {
            let (peer, dial) = match index {
                _ if index == pair.low => (pair.high, pair.low_dials),
                _ if index == pair.high => (pair.low, pair.high_dials),
                _ => continue,
            };
            let peer = self.bureaus.get(peer).ok_or("no such peer")?.code;
            let _ = write!(
                text,
                "[[peer]]\nbureau = \"{peer}\"\naddresses = [\"x:1\"]\ndial = {dial}\n"
            );
        }
        Config::parse(Path::new("/simulated/node.toml"), &text).map_err(|error| format!("{error}"))
    }

    pub(crate) fn limits() -> Limits {
        Limits::default()
    }

    /// The place of a bureau.
    pub(crate) fn index_of(&self, code: BureauCode) -> Option<usize> {
        self.bureaus.iter().position(|bureau| bureau.code == code)
    }
}
