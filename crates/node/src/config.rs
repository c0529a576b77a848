//! What an operator sets: one TOML file in, a checked [`Config`] or every fault at once out.
//!
//! Paths in the file are relative to it. What is unknown is refused, so that a misspelt option
//! cannot be silently without effect. Nothing here opens the files that it names: who reads them
//! also tells what is wrong with them. An annotated example is `deploy/bureau.toml`.

mod check;
mod document;
mod fault;
mod raw;
mod sections;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bureau_core::{
    BureauCode, DeskName, NetworkName, NodeName, PublicKey, Timestamp, envelope::SealingSuite,
};

pub use fault::{ConfigError, Fault};
pub use sections::{Limits, Links, Store};

/// Largest configuration file: a thousand peers and desks take under 200 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it came from; a reload reads it again.
    pub path: PathBuf,
    /// No default: it is the SPIFFE trust domain and stands under every signature.
    pub network: NetworkName,
    /// No default: the bureau that this node speaks and signs for.
    pub bureau: BureauCode,
    /// No default: must be the name in the node's certificate and in the roster.
    pub node: NodeName,
    /// No default: a store put at a guessed place is a store that nobody backs up.
    pub data_dir: PathBuf,
    /// Defaults to 10: most of what is under way ends in one, and a service manager waits 90.
    pub drain_seconds: u64,
    /// The bureau's own keys.
    pub keys: Keys,
    /// The node's certificate and whom it trusts.
    pub tls: Tls,
    /// The network's members.
    pub roster: Roster,
    /// The face that desks call.
    pub desk: Face,
    /// The face that other nodes call.
    pub link: Face,
    /// The face that operators call.
    pub admin: Face,
    /// Defaults to none: figures tell an outsider who writes to whom, so they are asked for.
    pub metrics: Option<Face>,
    /// The log.
    pub log: Log,
    /// What this bureau allows.
    pub policy: Policy,
    /// What is too much.
    pub limits: Limits,
    /// How the store uses the disk.
    pub store: Store,
    /// How links behave.
    pub links: Links,
    /// Defaults to none: a node alone accepts, and sends nothing.
    pub peers: Vec<Peer>,
    /// Defaults to none: a desk that is not named here may do nothing.
    pub clients: Vec<Client>,
}

/// The bureau's own keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// No default: PKCS#8 PEM of the Ed25519 key that signs for the bureau, mode 0600.
    pub signing_key: PathBuf,
    /// Defaults to none, and then no bundle can be imported. PKCS#8 PEM of the X25519 key that opens
    /// what is sealed for the bureau, mode 0600; the roster lists its public half for sealing.
    pub sealing_key: Option<PathBuf>,
}

/// The node's certificate and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// No default: the authorities whose certificates are taken, and no others are.
    pub ca: PathBuf,
    /// No default: the node's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// No default: the key of the certificate, PKCS#8 PEM, mode 0600.
    pub key: PathBuf,
    /// Defaults to none, and then nothing is ever revoked. With one, every issuer needs one.
    pub crls: Vec<PathBuf>,
}

/// The network's members, and who may say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// No default: the signed roster.
    pub file: PathBuf,
    /// No default: the keys that a roster must be signed with; they come by another way.
    pub root_keys: Vec<PublicKey>,
    /// No default: how many of those must have signed, so that one stolen key is not enough.
    pub threshold: usize,
}

/// Where a face listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Face {
    /// No default: an address that nobody chose is an exposure that nobody knows of.
    pub listen: SocketAddr,
}

/// The log, on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Defaults to "human": who starts a node by hand reads it; collectors want "json".
    pub format: LogFormat,
    /// Defaults to "info": every message's way, and nothing that only a developer reads.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: LogLevel::Info }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line an event, for eyes.
    Human,
    /// One JSON object an event, for machines.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Human, Self::Json];

    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something will be.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level, the most severe first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What this bureau allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// No default: OPEN hides nothing from a relay, so whoever allows it says so by name.
    pub sealing_suites: Vec<SealingSuite>,
    /// Defaults to false. True: attachments that arrive are given out only after a desk with the
    /// permission "release" has released them.
    pub quarantine_attachments: bool,
}

/// A bureau that this node has a link to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// No default: which bureau.
    pub bureau: BureauCode,
    /// Defaults to none, and then those of the roster are dialed. Each is `host:port`.
    pub addresses: Vec<String>,
    /// Defaults to true: with both dialing, a link is back as soon as either can reach the other.
    pub dial: bool,
    /// Defaults to false. True: every byte over this link costs, so another way is preferred where
    /// one is up.
    pub metered: bool,
    /// Defaults to any time: when attachments may go over this link.
    pub bulk_hours: Option<Hours>,
}

/// A daily time, by UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Its first minute, counted from midnight.
    pub from_minute: u32,
    /// The minute after its last; not after `from_minute`: it passes midnight.
    pub to_minute: u32,
}

impl fmt::Display for Hours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_minute: from, to_minute: to } = self;
        write!(formatter, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl Hours {
    /// Reads `HH:MM-HH:MM`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let minute = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let two = |text: &str| (text.len() == 2).then(|| text.parse::<u32>().ok()).flatten();
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            ((hours < 24 && minutes < 60) || (hours, minutes) == (24, 0))
                .then_some(hours * 60 + minutes)
        };
        let (from, to) = text.split_once('-')?;
        let hours = Self { from_minute: minute(from)?, to_minute: minute(to)? };
        let is_time = hours.from_minute < 24 * 60 && hours.from_minute != hours.to_minute;
        is_time.then_some(hours)
    }

    /// Whether a moment is within it.
    #[must_use]
    pub fn contains(self, now: Timestamp) -> bool {
        let minute = now.as_ms().div_euclid(60_000).rem_euclid(24 * 60);
        let (from, to) = (i64::from(self.from_minute), i64::from(self.to_minute));
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// A desk of this bureau and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// No default: the name in its certificate.
    pub desk: DeskName,
    /// No default: nothing is allowed that nobody allowed.
    pub permissions: Vec<Permission>,
}

/// Something that a desk may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// Send messages.
    Submit,
    /// Read and acknowledge the inbox.
    Receive,
    /// Publish notices.
    Publish,
    /// Release what a second officer must approve.
    Release,
    /// Search records.
    Lookup,
    /// Read the audit log.
    Audit,
    /// Look into queues and links, and act on them.
    Operate,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 7] = [
        Self::Submit,
        Self::Receive,
        Self::Publish,
        Self::Release,
        Self::Lookup,
        Self::Audit,
        Self::Operate,
    ];

    /// Its name in the file and in refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Receive => "receive",
            Self::Publish => "publish",
            Self::Release => "release",
            Self::Lookup => "lookup",
            Self::Audit => "audit",
            Self::Operate => "operate",
        }
    }
}

impl Config {
    /// Checks a text, as if it stood in a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault that was found.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::check(path, text)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        // A reload must find the file again, wherever the process is by then.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        match read(&path) {
            Ok(text) => check::check(&path, &text),
            Err(fault) => Err(ConfigError { path, faults: vec![fault] }),
        }
    }
}

fn read(path: &Path) -> Result<String, Fault> {
    use std::io::Read as _;

    let unreadable = |error: std::io::Error| {
        Fault::of_file(
            format!("cannot be read: {error}"),
            "name an existing file that this user may read",
        )
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // Not by its length: a pipe or a device tells none.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::of_file(
            format!("is larger than {FILE_BYTES_MAX} bytes"),
            "name a configuration file",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        Fault::of_file(format!("is not UTF-8 at byte {byte}"), "save it as UTF-8")
    })
}

#[cfg(test)]
mod tests;
