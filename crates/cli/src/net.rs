//! A network made from nothing: authority, certificates, signing keys, roster, and a
//! configuration for each bureau's node and desk. For trying, for tests, and as a pattern; in a
//! real network each bureau makes its own keys, and nobody holds those of another.

mod certificates;
pub(crate) mod command;
mod configuration;
mod files;
mod plan;
mod roster;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bureau_core::{
    BureauCode, NetworkName, PublicKey, SealingKey, SigningKey, Timestamp, keys::KeyError,
    signing::SignError,
};

pub use self::plan::{Links, Member, Plan, PlanError, Ports};
use self::{certificates::Authority, files::Writer};

/// How long the certificates, the keys and the roster of a new network are good: a year.
const LIFETIME_DAYS: i64 = 365;
/// How long the authority is good: ten years.
const AUTHORITY_LIFETIME_DAYS: i64 = 3650;
/// Clocks of other machines may be this much behind.
const BACKDATE_MS: i64 = 5 * 60 * 1000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where.
    pub directory: PathBuf,
    /// The network's name.
    pub network: NetworkName,
    /// The key the roster is signed with.
    pub root_key: PublicKey,
    /// The bureaus, in the order of the plan, with the files of each.
    pub bureaus: Vec<MadeBureau>,
}

/// The files of one bureau.
#[derive(Debug, Clone)]
pub struct MadeBureau {
    /// Its code.
    pub code: BureauCode,
    /// Its node's configuration.
    pub node_config: PathBuf,
    /// Its desk's profile.
    pub desk_profile: PathBuf,
}

/// Why no network was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The plan cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The directory holds something already.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The system refused.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A signing key could not be made.
    #[error("cannot make a signing key: {0}")]
    Key(#[from] KeyError),
    /// The roster could not be signed.
    #[error("cannot sign the roster: {0}")]
    Roster(#[from] SignError),
}

impl InitError {
    pub(crate) const fn is_usage(&self) -> bool {
        matches!(self, Self::Plan(_))
    }

    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotEmpty(_) => Some("name a directory that does not exist yet"),
            _ => None,
        }
    }
}

/// Makes a network in a directory that is empty or not there. Blocking.
///
/// Everything is made before the first file is written. Directories have mode 0700, private keys
/// 0600.
///
/// # Errors
/// [`InitError`]; what was written until then stays.
pub fn init(directory: &Path, plan: &Plan, now: Timestamp) -> Result<Made, InitError> {
    let begin = now.plus_ms(-BACKDATE_MS);
    let end = now.plus_ms(LIFETIME_DAYS * DAY_MS);
    let authority =
        Authority::new(plan.network(), begin, now.plus_ms(AUTHORITY_LIFETIME_DAYS * DAY_MS))?;
    let root_key = SigningKey::generate()?;
    let root_public = root_key.public();
    let mut keys = BTreeMap::new();
    for member in plan.members() {
        let (signing, sealing) = (SigningKey::generate()?, SealingKey::generate()?);
        keys.insert(member.code, roster::Keys { signing, sealing });
    }

    let mut files = Vec::new();
    for member in plan.members() {
        let home = PathBuf::from(member.code.as_str());
        let name = plan.node(member);
        let node = authority.node(member.code, &name, begin, end)?;
        let desk = authority.desk(member.code, plan.desk(), begin, end)?;
        let desk_file =
            |ending: &str| home.join("tls").join(format!("desk-{}.{ending}", plan.desk()));
        files.push((home.join("bureau.toml"), configuration::node(plan, member, &root_public)));
        files.push((home.join("desk.toml"), configuration::desk(plan, member)));
        files.push((home.join("tls/ca.pem"), authority.pem().to_owned()));
        files.push((home.join("tls/node.pem"), node.certificate));
        files.push((home.join("tls/node.key"), node.key));
        files.push((desk_file("pem"), desk.certificate));
        files.push((desk_file("key"), desk.key));
        if let Some(keys) = keys.get(&member.code) {
            let signing = keys.signing.to_pkcs8_pem()?.to_string();
            files.push((home.join("keys/signing.pem"), signing));
            let sealing = keys.sealing.to_pkcs8_pem().to_string();
            files.push((home.join("keys/sealing.key"), sealing));
        }
    }
    files.push(("root/ca.pem".into(), authority.pem().to_owned()));
    files.push(("root/ca.key".into(), authority.key()));
    files.push(("root/roster-root.pem".into(), root_key.to_pkcs8_pem()?.to_string()));
    let window = roster::Window { begin, end };
    let roster = roster::signed(plan, &keys, root_key, now, window)?;

    let writer = Writer::new(directory)?;
    for (path, text) in files {
        writer.write(&path, text.as_bytes())?;
    }
    for member in plan.members() {
        writer.write(&Path::new(member.code.as_str()).join("roster.bin"), &roster)?;
    }
    writer.write(Path::new("root/roster.bin"), &roster)?;
    Ok(made(directory, plan, root_public))
}

fn made(directory: &Path, plan: &Plan, root_key: PublicKey) -> Made {
    let bureau = |member: &Member| {
        let home = directory.join(member.code.as_str());
        MadeBureau {
            code: member.code,
            node_config: home.join("bureau.toml"),
            desk_profile: home.join("desk.toml"),
        }
    };
    Made {
        directory: directory.to_owned(),
        network: plan.network().clone(),
        root_key,
        bureaus: plan.members().iter().map(bureau).collect(),
    }
}

#[cfg(test)]
#[path = "net/tests.rs"]
mod tests;
