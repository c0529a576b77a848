//! From what is written to what is meant: every option is checked, and every fault collected.

use std::{
    collections::BTreeSet,
    fmt::Display,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use bureau_core::{BureauCode, DeskName, PublicKey, envelope::SealingSuite, ids::InvalidName};

use super::{
    Client, Config, ConfigError, Face, Fault, Hours, Keys, Limits, Links, Log, LogFormat, LogLevel,
    Peer, Permission, Policy, Roster, Store, Tls,
    document::Document,
    raw::{Raw, RawClient, RawFace, RawKeys, RawLog, RawPeer, RawPolicy, RawRoster, RawTls},
};

/// Drain time without being set, and how far it may be moved.
const DRAIN_SECONDS: u64 = 10;
const DRAIN_SECONDS_MAX: u64 = 600;
/// More root keys than any ceremony has holders.
const ROOT_KEYS_MAX: usize = 32;
/// Entries of any other list: every bureau there could be.
const LIST_MAX: usize = 1024;

/// Checks the text of a file.
pub(super) fn check(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let failed = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        ConfigError { path: path.to_path_buf(), faults }
    };
    let (document, raw, faults) = Document::parse(text).map_err(failed)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut checker = Checker { document: &document, directory, faults };
    let config = checker.config(path, raw);
    match config {
        Some(config) if checker.faults.is_empty() => Ok(config),
        _ => Err(failed(checker.faults)),
    }
}

/// Collects faults. A check that gives `None` has told why, or the option was faulty before.
pub(super) struct Checker<'a> {
    document: &'a Document<'a>,
    directory: &'a Path,
    faults: Vec<Fault>,
}

/// The checker within one table of numbers.
pub(super) struct Section<'c, 'a> {
    checker: &'c mut Checker<'a>,
    name: &'static str,
}

impl<'a> Checker<'a> {
    /// Names the table that what follows is in.
    pub(super) fn section<'c>(&'c mut self, name: &'static str) -> Section<'c, 'a> {
        Section { checker: self, name }
    }

    fn config(&mut self, path: &Path, raw: Raw) -> Option<Config> {
        let network = self.name("network", raw.network, "network = \"example\"");
        let bureau = self.name("bureau", raw.bureau, "bureau = \"FR\"");
        let node = self.name("node", raw.node, "node = \"fr-1\"");
        let data_dir = self.path("data_dir", raw.data_dir, "data_dir = \"data\"");
        let mut drain_seconds = DRAIN_SECONDS;
        self.number("drain_seconds", raw.drain_seconds, &mut drain_seconds, 1..=DRAIN_SECONDS_MAX);
        let keys = self.keys(raw.keys.unwrap_or_default());
        let tls = self.tls(raw.tls.unwrap_or_default());
        let roster = self.roster(raw.roster.unwrap_or_default());
        let desk = self.face("desk", raw.desk.unwrap_or_default());
        let link = self.face("link", raw.link.unwrap_or_default());
        let admin = self.face("admin", raw.admin.unwrap_or_default());
        let metrics = raw.metrics.map(|raw| self.face("metrics", raw));
        let faces =
            [("desk", desk), ("link", link), ("admin", admin), ("metrics", metrics.flatten())];
        self.faces_apart(&faces);
        if let Some(Some(metrics)) = metrics
            && !metrics.listen.ip().is_loopback()
        {
            let problem = format!("{} is not a loopback address", metrics.listen.ip());
            let cure = "write 127.0.0.1 or [::1]: metrics are served without authentication";
            self.fault("metrics.listen", problem, cure);
        }
        let log = self.log(raw.log.unwrap_or_default());
        let policy = self.policy(raw.policy.unwrap_or_default());
        let limits = Limits::check(&raw.limits.unwrap_or_default(), self);
        let store = Store::check(&raw.store.unwrap_or_default(), self);
        let links = Links::check(&raw.links.unwrap_or_default(), self);
        let peers = self.peers(bureau, raw.peer.unwrap_or_default());
        let clients = self.clients(raw.client.unwrap_or_default());
        Some(Config {
            path: path.to_path_buf(),
            network: network?,
            bureau: bureau?,
            node: node?,
            data_dir: data_dir?,
            drain_seconds,
            keys: keys?,
            tls: tls?,
            roster: roster?,
            desk: desk?,
            link: link?,
            admin: admin?,
            metrics: metrics.flatten(),
            log,
            policy,
            limits,
            store,
            links,
            peers,
            clients,
        })
    }

    fn keys(&mut self, raw: RawKeys) -> Option<Keys> {
        let example = "signing_key = \"keys/signing.pem\"";
        let sealing = raw.sealing_key.map(|text| {
            let example = "sealing_key = \"keys/sealing.key\"";
            self.path("keys.sealing_key", Some(text), example)
        });
        let signing_key = self.path("keys.signing_key", raw.signing_key, example)?;
        let sealing_key = match sealing {
            Some(path) => Some(path?),
            None => None,
        };
        Some(Keys { signing_key, sealing_key })
    }

    fn tls(&mut self, raw: RawTls) -> Option<Tls> {
        let ca = self.path("tls.ca", raw.ca, "ca = \"tls/ca.pem\"");
        let certificate =
            self.path("tls.certificate", raw.certificate, "certificate = \"tls/node.pem\"");
        let key = self.path("tls.key", raw.key, "key = \"tls/node.key\"");
        let crls = self.list("tls.crls", raw.crls.unwrap_or_default(), LIST_MAX);
        let crls = crls.into_iter().enumerate().filter_map(|(index, crl)| {
            self.path(&format!("tls.crls[{index}]"), Some(crl), "crls = [\"tls/crl.pem\"]")
        });
        let crls = crls.collect();
        Some(Tls { ca: ca?, certificate: certificate?, key: key?, crls })
    }

    fn roster(&mut self, raw: RawRoster) -> Option<Roster> {
        let file = self.path("roster.file", raw.file, "file = \"roster.bin\"");
        let field = "roster.root_keys";
        let cure = "write the keys that the network's founders gave you, base64 of 32 bytes each";
        let texts = self.required(field, raw.root_keys, cure).map(|texts| {
            if texts.is_empty() {
                self.fault(field, "empty", cure);
            }
            self.list(field, texts, ROOT_KEYS_MAX)
        });
        let count = texts.as_ref().map_or(0, Vec::len);
        let mut root_keys: Vec<PublicKey> = Vec::new();
        for (index, text) in texts.iter().flatten().enumerate() {
            let field = format!("{field}[{index}]");
            let key = base64_key(text).map(|bytes| PublicKey::from_bytes(&bytes));
            match key {
                Some(Ok(key)) if root_keys.contains(&key) => {
                    self.fault(field, "listed twice", "list it once: a key signs only once");
                }
                Some(Ok(key)) => root_keys.push(key),
                Some(Err(fault)) => self.fault(field, fault.to_string(), cure),
                None => self.fault(field, "not the base64 of 32 bytes", cure),
            }
        }
        let field = "roster.threshold";
        let cure = "write how many of root_keys must have signed a roster";
        let threshold = self.required(field, raw.threshold, cure)?;
        let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
        if threshold == 0 || (count > 0 && threshold > count) {
            self.fault(field, format!("{threshold} of {count} root keys cannot be"), cure);
        }
        Some(Roster { file: file?, root_keys, threshold })
    }

    fn face(&mut self, name: &str, raw: RawFace) -> Option<Face> {
        let field = format!("{name}.listen");
        let cure = "write an address and a port, as in listen = \"127.0.0.1:7101\"";
        let text = self.required(&field, raw.listen, cure)?;
        match text.parse::<SocketAddr>() {
            Ok(listen) => Some(Face { listen }),
            Err(_) => {
                self.fault(field, format!("{text:?} is not an IP address and port"), cure);
                None
            }
        }
    }

    /// No two faces may want one port; port 0 is whatever is free.
    fn faces_apart(&mut self, faces: &[(&str, Option<Face>)]) {
        for (index, (name, face)) in faces.iter().enumerate() {
            let Some(face) = face else { continue };
            let wants_it = |other: &Face| overlap(other.listen, face.listen);
            let mut before = faces.iter().take(index);
            let taken = before.find(|(_, other)| other.as_ref().is_some_and(wants_it));
            if let Some((other, _)) = taken {
                let problem = format!("the same address as {other}.listen");
                self.fault(format!("{name}.listen"), problem, "give each face its own port");
            }
        }
    }

    fn log(&mut self, raw: RawLog) -> Log {
        let mut log = Log::default();
        if let Some(text) = raw.format {
            let known = LogFormat::ALL.map(|format| (format.as_str(), format));
            log.format = self.choice("log.format", &text, &known).unwrap_or(log.format);
        }
        if let Some(text) = raw.level {
            let known = LogLevel::ALL.map(|level| (level.as_str(), level));
            log.level = self.choice("log.level", &text, &known).unwrap_or(log.level);
        }
        log
    }

    fn policy(&mut self, raw: RawPolicy) -> Policy {
        let field = "policy.sealing_suites";
        let cure = "write sealing_suites = [\"OPEN\"] to allow what is not sealed; \
                    this version has no other suite";
        let texts = self.required(field, raw.sealing_suites, cure);
        if texts.as_ref().is_some_and(Vec::is_empty) {
            self.fault(field, "empty: nothing could be sent or taken", cure);
        }
        let texts = self.list(field, texts.unwrap_or_default(), LIST_MAX);
        let mut sealing_suites = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let suite = self.choice(&field, text, &[("OPEN", SealingSuite::Open)]);
            sealing_suites.extend(suite.filter(|suite| !sealing_suites.contains(suite)));
        }
        let quarantine_attachments = raw.quarantine_attachments.unwrap_or(false);
        Policy { sealing_suites, quarantine_attachments }
    }

    fn peers(&mut self, own: Option<BureauCode>, raw: Vec<RawPeer>) -> Vec<Peer> {
        let mut seen = BTreeSet::new();
        let mut peers = Vec::new();
        for (index, raw) in self.list("peer", raw, LIST_MAX).into_iter().enumerate() {
            let field = format!("peer[{index}].bureau");
            let bureau = self.name::<BureauCode>(&field, raw.bureau, "bureau = \"KE\"");
            let name = format!("peer[{index}].addresses");
            let addresses = self.list(&name, raw.addresses.unwrap_or_default(), LIST_MAX);
            for (index, address) in addresses.iter().enumerate() {
                if !is_host_and_port(address) {
                    let problem = format!("{address:?} is not host:port");
                    let cure = "write a name or IP address and a port, as in \"ke.example:7102\"";
                    self.fault(format!("{name}[{index}]"), problem, cure);
                }
            }
            let Some(bureau) = bureau else { continue };
            if own == Some(bureau) {
                self.fault(&field, format!("{bureau} is this bureau itself"), "remove this peer");
            }
            if !seen.insert(bureau) {
                let cure = "keep one table a bureau, with all its addresses";
                self.fault(&field, format!("{bureau} is a peer already"), cure);
            }
            let bulk_hours = raw.bulk_hours.as_deref().and_then(|text| {
                let hours = Hours::parse(text);
                if hours.is_none() {
                    let problem = format!("{text:?} is no daily time");
                    let cure = "write hours and minutes by UTC, as in \"22:00-05:30\"";
                    self.fault(format!("peer[{index}].bulk_hours"), problem, cure);
                }
                hours
            });
            peers.push(Peer {
                bureau,
                addresses,
                dial: raw.dial.unwrap_or(true),
                metered: raw.metered.unwrap_or(false),
                bulk_hours,
            });
        }
        peers
    }

    fn clients(&mut self, raw: Vec<RawClient>) -> Vec<Client> {
        let mut seen = BTreeSet::new();
        let mut clients = Vec::new();
        let known = Permission::ALL.map(|permission| (permission.as_str(), permission));
        for (index, raw) in self.list("client", raw, LIST_MAX).into_iter().enumerate() {
            let field = format!("client[{index}].permissions");
            let cure = "write what this desk may do, as in permissions = [\"submit\", \"receive\"]";
            let texts = self.required(&field, raw.permissions, cure);
            if texts.as_ref().is_some_and(Vec::is_empty) {
                self.fault(&field, "empty", "remove the desk, or allow it something");
            }
            let texts = self.list(&field, texts.unwrap_or_default(), LIST_MAX);
            let mut permissions = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                let permission = self.choice(&format!("{field}[{index}]"), text, &known);
                permissions.extend(permission.filter(|new| !permissions.contains(new)));
            }
            let field = format!("client[{index}].desk");
            let desk = self.name::<DeskName>(&field, raw.desk, "desk = \"trafficking\"");
            let Some(desk) = desk else { continue };
            if !seen.insert(desk.clone()) {
                let cure = "keep one table a desk, with all its permissions";
                self.fault(&field, format!("{desk} is listed already"), cure);
            }
            clients.push(Client { desk, permissions });
        }
        clients
    }

    fn name<T: FromStr<Err = InvalidName>>(
        &mut self,
        field: &str,
        text: Option<String>,
        example: &str,
    ) -> Option<T> {
        let text = self.required(field, text, &format!("write {example}"))?;
        match text.parse() {
            Ok(name) => Some(name),
            Err(InvalidName { what, rule }) => {
                self.fault(field, format!("{text:?} is no {what}"), format!("write {rule}"));
                None
            }
        }
    }

    fn path(&mut self, field: &str, text: Option<String>, example: &str) -> Option<PathBuf> {
        let cure = format!("write a path, as in {example}");
        let text = self.required(field, text, &cure)?;
        if text.is_empty() || text.contains('\0') {
            self.fault(field, format!("{text:?} is no path"), cure);
            return None;
        }
        Some(self.directory.join(text))
    }

    fn choice<T: Copy>(&mut self, field: &str, text: &str, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let cure = format!("write one of {}", names.join(", "));
            self.fault(field, format!("{text:?} is not known"), cure);
        }
        found.map(|(_, value)| *value)
    }

    fn number<T: TryFrom<u64> + Display>(
        &mut self,
        field: &str,
        written: Option<u64>,
        value: &mut T,
        bounds: RangeInclusive<u64>,
    ) {
        let Some(written) = written else { return };
        match T::try_from(written) {
            Ok(number) if bounds.contains(&written) => *value = number,
            _ => {
                let (low, high) = bounds.into_inner();
                let cure = format!("write {low} to {high}; {value} unless set");
                self.fault(field, format!("{written} is out of bounds"), cure);
            }
        }
    }

    fn list<T>(&mut self, field: &str, mut items: Vec<T>, most: usize) -> Vec<T> {
        if items.len() > most {
            self.fault(field, format!("{} entries", items.len()), format!("list at most {most}"));
            items.truncate(most);
        }
        items
    }

    fn required<T>(&mut self, field: &str, value: Option<T>, cure: &str) -> Option<T> {
        if value.is_none() && !self.document.is_pruned(field) {
            self.fault(field, "missing", cure);
        }
        value
    }

    fn fault(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let field = field.into();
        let line = self.document.line(&field);
        self.faults.push(Fault { line, field, problem: problem.into(), cure: cure.into() });
    }
}

impl Section<'_, '_> {
    /// Takes a number of this table, if it is set and within bounds.
    pub(super) fn number<T: TryFrom<u64> + Display>(
        &mut self,
        option: &str,
        written: Option<u64>,
        value: &mut T,
        bounds: RangeInclusive<u64>,
    ) {
        self.checker.number(&format!("{}.{option}", self.name), written, value, bounds);
    }

    /// Tells a fault of this table.
    pub(super) fn fault(&mut self, option: &str, problem: String, cure: &str) {
        self.checker.fault(format!("{}.{option}", self.name), problem, cure);
    }
}

/// Whether two addresses cannot be listened on at once.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || everywhere)
}

/// `host:port` with a DNS name, an IPv4 address or an IPv6 address in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().unwrap_or(0) == 0 {
        return false;
    }
    if host.starts_with('[') {
        return text.parse::<SocketAddr>().is_ok();
    }
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    // A name of digits and dots alone is meant as an address.
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return text.parse::<SocketAddr>().is_ok();
    }
    host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}

/// 32 bytes from base64 (RFC 4648, section 4): 43 symbols and one filler, unused bits zero, so that
/// a key has one text.
fn base64_key(text: &str) -> Option<[u8; 32]> {
    let symbols = text.strip_suffix('=').filter(|symbols| symbols.len() == 43)?;
    let (mut bytes, mut position) = ([0; 32], 0);
    let (mut bits, mut held) = (0u32, 0u32);
    for symbol in symbols.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            *bytes.get_mut(position)? = (bits >> held & 0xff) as u8;
            position += 1;
            bits &= (1 << held) - 1;
        }
    }
    (position == 32 && bits == 0).then_some(bytes)
}
