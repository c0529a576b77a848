//! The desk profile: which desk of which bureau this is, where its node answers, and with which
//! certificate. All paths in it are relative to its own directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bureau_core::{BureauCode, DeskName, NetworkName, ids::InvalidName};
use bureau_net::{Role, SpiffeId, TlsFiles};
use serde::Deserialize;

/// Larger than any profile.
const PROFILE_BYTES_MAX: u64 = 64 * 1024;

/// A desk, and the way to its node.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) network: NetworkName,
    pub(crate) bureau: BureauCode,
    pub(crate) desk: DeskName,
    /// The desk face.
    pub(crate) address: String,
    /// The admin face; a desk without the permission to operate has none.
    pub(crate) admin_address: Option<String>,
    pub(crate) tls: TlsFiles,
}

/// Why a profile is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("cannot read the desk profile {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {PROFILE_BYTES_MAX} bytes: not a desk profile", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error("{}: {field}: {message}", path.display())]
    Field { path: PathBuf, field: String, message: String },
    #[error("{}: {field}: {source}", path.display())]
    Name { path: PathBuf, field: &'static str, source: InvalidName },
    #[error("{}: the certificate is for {found}, the profile is for {expected}", path.display())]
    OtherDesk { path: PathBuf, found: Box<SpiffeId>, expected: Box<SpiffeId> },
    #[error("{} has no admin_address: this desk does not operate the node", path.display())]
    NoAdmin { path: PathBuf },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    network: String,
    bureau: String,
    desk: String,
    address: String,
    admin_address: Option<String>,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Profile {
    /// Reads a profile. The files it names are read later, where they are needed.
    pub(crate) fn load(path: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::Read { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > PROFILE_BYTES_MAX {
            return Err(ProfileError::TooLarge { path: path.to_owned() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(path, &text)
    }

    /// The node would only say that it refuses; here it can be told why.
    pub(crate) fn check_certificate(&self, found: &SpiffeId) -> Result<(), ProfileError> {
        let expected = SpiffeId {
            network: self.network.clone(),
            bureau: self.bureau,
            role: Role::Desk(self.desk.clone()),
        };
        if *found == expected {
            return Ok(());
        }
        let (found, expected) = (Box::new(found.clone()), Box::new(expected));
        Err(ProfileError::OtherDesk { path: self.tls.certificates.clone(), found, expected })
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ProfileError> {
        let owned = || path.to_owned();
        let toml = toml::Deserializer::parse(text)
            .map_err(|source| ProfileError::Toml { path: owned(), source })?;
        let raw: Raw = serde_path_to_error::deserialize(toml).map_err(|error| {
            let field = error.path().to_string();
            let message = error.into_inner().message().to_owned();
            ProfileError::Field { path: owned(), field, message }
        })?;
        let named = |field| move |source| ProfileError::Name { path: owned(), field, source };
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            network: raw.network.parse().map_err(named("network"))?,
            bureau: raw.bureau.parse().map_err(named("bureau"))?,
            desk: raw.desk.parse().map_err(named("desk"))?,
            address: raw.address,
            admin_address: raw.admin_address,
            tls: TlsFiles {
                certificates: directory.join(raw.certificate),
                key: directory.join(raw.key),
                authorities: directory.join(raw.ca),
                revocations: Vec::new(),
            },
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        network = "example"
        bureau = "FR"
        desk = "trafficking"
        address = "127.0.0.1:7101"
        admin_address = "127.0.0.1:7103"
        ca = "tls/ca.pem"
        certificate = "tls/desk-trafficking.pem"
        key = "/etc/bureau/desk.key"
    "#;

    fn parse(text: &str) -> Result<Profile, ProfileError> {
        Profile::parse(Path::new("net/FR/desk.toml"), text)
    }

    #[test]
    fn paths_are_relative_to_the_profile() {
        let profile = parse(GOOD).unwrap();
        assert_eq!(profile.bureau.as_str(), "FR");
        assert_eq!(profile.tls.authorities, Path::new("net/FR/tls/ca.pem"));
        assert_eq!(profile.tls.key, Path::new("/etc/bureau/desk.key"));
        assert_eq!(profile.admin_address.as_deref(), Some("127.0.0.1:7103"));
    }

    #[test]
    fn faults_are_named() {
        for (old, new, said) in [
            (
                "bureau = \"FR\"",
                "bureau = \"fr\"",
                "net/FR/desk.toml: bureau: not a valid bureau code",
            ),
            ("desk = ", "desks = ", "unknown field `desks`"),
            ("address = \"127.0.0.1:7101\"", "address = 7101", "address: invalid type"),
            ("network = \"example\"", "", "missing field `network`"),
            ("key = ", "key ", "net/FR/desk.toml: TOML parse error"),
        ] {
            let error = parse(&GOOD.replacen(old, new, 1)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Profile::load(Path::new("nowhere/desk.toml")).unwrap_err().to_string();
        assert!(error.contains("nowhere/desk.toml"), "{error}");
    }
}
