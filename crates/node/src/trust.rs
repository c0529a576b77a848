//! Whom this node believes, and as whom it speaks: roster, verifier, own keys. Loaded from
//! files at start and again on SIGHUP; what is broken then leaves the old in force.

use std::{fs, io, path::PathBuf, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use bureau_core::{
    BureauCode, Reason, Roster, SealingKey, Signer, SigningKey, Timestamp, Verifier,
    keys::KeyError,
    roster::{Anchor, RosterError},
};
use bureau_net::secret::{SecretError, read_secret};
use bytes::Bytes;

use crate::Config;

/// Largest roster file: 1,000 members of 4 KiB.
const ROSTER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why roster or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The key file cannot be read, or others can read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The key file holds no key.
    #[error("{path}: {fault}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: KeyError,
    },
    /// The roster file cannot be read.
    #[error("{path}: {source}")]
    RosterFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The roster is not to be believed.
    #[error("{path}: {fault}")]
    Roster {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: RosterError,
    },
    /// The roster does not list this bureau.
    #[error("the roster does not list {bureau}")]
    NotAMember {
        /// This bureau.
        bureau: BureauCode,
    },
    /// The roster does not let this bureau sign with this key now.
    #[error("the roster does not let {bureau} sign with the key {key}: {reason}")]
    OwnKey {
        /// This bureau.
        bureau: BureauCode,
        /// The key's id.
        key: String,
        /// Why.
        reason: Reason,
    },
    /// The roster file is older than the roster in force.
    #[error("the roster in force has the serial {current}; the file has {found}")]
    RosterGoesBack {
        /// In force.
        current: u64,
        /// In the file.
        found: u64,
    },
}

/// Whom this node believes, and as whom it speaks.
#[derive(Debug)]
pub struct Trust {
    signer: ArcSwap<Signer>,
    verifier: ArcSwap<Verifier>,
    sealing: ArcSwapOption<SealingKey>,
}

impl Trust {
    /// Trust in what was verified elsewhere.
    #[must_use]
    pub fn new(signer: Signer, verifier: Verifier) -> Self {
        let (signer, verifier) = (ArcSwap::from_pointee(signer), ArcSwap::from_pointee(verifier));
        Self { signer, verifier, sealing: ArcSwapOption::empty() }
    }

    /// The same, with a key that opens what is sealed for this bureau.
    #[must_use]
    pub fn with_sealing_key(self, key: Option<SealingKey>) -> Self {
        self.sealing.store(key.map(Arc::new));
        self
    }

    /// Loads both.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn load(config: &Config, now: Timestamp) -> Result<Self, TrustError> {
        let (signer, verifier) = load(config, now)?;
        Ok(Self::new(signer, verifier).with_sealing_key(load_sealing_key(config)?))
    }

    /// Loads both again. Where that fails, the old stay in force.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn reload(&self, config: &Config, now: Timestamp) -> Result<(), TrustError> {
        let (signer, verifier) = load(config, now)?;
        let sealing = load_sealing_key(config)?;
        let current = self.roster().serial();
        let found = verifier.roster().serial();
        if found < current {
            return Err(TrustError::RosterGoesBack { current, found });
        }
        self.signer.store(Arc::new(signer));
        self.verifier.store(Arc::new(verifier));
        self.sealing.store(sealing.map(Arc::new));
        Ok(())
    }

    /// Who signs.
    pub fn signer(&self) -> Arc<Signer> {
        self.signer.load_full()
    }

    /// Who verifies.
    pub fn verifier(&self) -> Arc<Verifier> {
        self.verifier.load_full()
    }

    /// What opens what is sealed for this bureau; `None` where the configuration names no such key.
    pub fn sealing_key(&self) -> Option<Arc<SealingKey>> {
        self.sealing.load_full()
    }

    /// The roster in force.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(self.verifier.load().roster())
    }
}

fn load(config: &Config, now: Timestamp) -> Result<(Signer, Verifier), TrustError> {
    let path = &config.keys.signing_key;
    let pem = read_secret(path)?;
    let fault = |fault| TrustError::Key { path: path.clone(), fault };
    let pem = std::str::from_utf8(&pem).map_err(|_| fault(KeyError::NotPkcs8Pem))?;
    let key = SigningKey::from_pkcs8_pem(pem).map_err(fault)?;

    let path = &config.roster.file;
    let bytes = read_roster(path).map_err(|source| {
        let path = path.clone();
        TrustError::RosterFile { path, source }
    })?;
    let anchor =
        Anchor { keys: config.roster.root_keys.clone(), threshold: config.roster.threshold };
    let roster = Roster::verify(bytes, &config.network, &anchor)
        .map_err(|fault| TrustError::Roster { path: path.clone(), fault })?;

    let bureau = config.bureau;
    roster.member(&bureau).map_err(|_| TrustError::NotAMember { bureau })?;
    let key_id = key.public().id();
    roster.may_sign(&bureau, key_id, now).map_err(|reason| {
        let key = key_id.to_string();
        TrustError::OwnKey { bureau, key, reason }
    })?;
    let signer = Signer::new(config.network.clone(), bureau, key);
    let limits = config.limits.message.clone();
    Ok((signer, Verifier::new(Arc::new(roster), limits)))
}

fn load_sealing_key(config: &Config) -> Result<Option<SealingKey>, TrustError> {
    let Some(path) = &config.keys.sealing_key else { return Ok(None) };
    let pem = read_secret(path)?;
    let fault = |fault| TrustError::Key { path: path.clone(), fault };
    let pem = std::str::from_utf8(&pem).map_err(|_| fault(KeyError::NotSealingPem))?;
    SealingKey::from_pkcs8_pem(pem).map(Some).map_err(fault)
}

fn read_roster(path: &std::path::Path) -> io::Result<Bytes> {
    if fs::metadata(path)?.len() > ROSTER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    fs::read(path).map(Bytes::from)
}
