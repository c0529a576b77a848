//! Certificates, key and revocation lists from files, and the TLS configurations made of them.
//! Reloading swaps them for the next handshake; what is open is judged anew by
//! [`crate::connections`]. Whom a face or a call expects is stated here, and checked in
//! `verify` while the handshake runs, so that a refused peer gets an alert.
//!
//! TLS 1.3 only, no early data, no resumption: a resumed session would skip the verifier, and
//! with it the revocation lists.

mod files;
mod verify;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use bureau_core::ids::{BureauCode, NetworkName};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

pub use self::files::TlsError;
pub(crate) use self::verify::IdentityRefusal;
use self::verify::{FaceVerifier, NodeVerifier};
use crate::identity::{RoleKind, SpiffeId, Validity};

/// The one application protocol: HTTP/2.
const ALPN: &[u8] = b"h2";

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, followed by its intermediates.
    pub certificates: PathBuf,
    /// The own private key; a secret file.
    pub key: PathBuf,
    /// The certificates of the authorities that are trusted, and no others are.
    pub authorities: PathBuf,
    /// Revocation lists. None: nothing is ever revoked. One or more: every issuer in every
    /// chain needs one, or its certificates are refused.
    pub revocations: Vec<PathBuf>,
}

/// What the own certificate says, and the lists beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSummary {
    /// The own identity.
    pub id: SpiffeId,
    /// When the own chain is valid.
    pub validity: Validity,
    /// When the first revocation list should have been replaced. It is used beyond that: a late
    /// list must not cut the network; an alarm says so instead.
    pub revocations_due: Option<SystemTime>,
    /// Counts successful loads, from 1.
    pub generation: u64,
}

/// Whom a side takes at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Of this network.
    pub network: NetworkName,
    /// Of this bureau; `None` for any.
    pub bureau: Option<BureauCode>,
    /// In this role.
    pub role: RoleKind,
}

impl Expectation {
    /// What a link face takes: nodes of any bureau of the network.
    #[must_use]
    pub const fn nodes(network: NetworkName) -> Self {
        Self { network, bureau: None, role: RoleKind::Node }
    }

    /// What a desk or admin face takes: desks of the own bureau.
    #[must_use]
    pub const fn desks(network: NetworkName, bureau: BureauCode) -> Self {
        Self { network, bureau: Some(bureau), role: RoleKind::Desk }
    }

    /// What a caller takes: a node of one bureau.
    #[must_use]
    pub const fn node_of(network: NetworkName, bureau: BureauCode) -> Self {
        Self { network, bureau: Some(bureau), role: RoleKind::Node }
    }
}

/// The one owner of a process's certificates. Cheap to read, swapped whole.
#[derive(Debug)]
pub struct TlsStore {
    files: TlsFiles,
    current: ArcSwap<Material>,
    generation: watch::Sender<u64>,
}

/// One load of the files: consistent in itself, never changed.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) summary: TlsSummary,
    own: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    /// Chain, time, use and revocation; not yet whose certificate it is.
    chains: Arc<dyn ClientCertVerifier>,
}

impl TlsStore {
    /// Loads the files. Blocking. A certificate outside its time is taken, for a clock may be set
    /// later; [`Self::summary`] tells.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let material = files::load(&files, 1)?;
        Ok(Self {
            files,
            current: ArcSwap::from_pointee(material),
            generation: watch::Sender::new(1),
        })
    }

    /// Loads the files again, for handshakes from now on. Blocking; one caller at a time.
    ///
    /// # Errors
    /// [`TlsError`], also where the new certificate is of another identity or not valid now. What
    /// was loaded before stays in use then.
    pub fn reload(&self) -> Result<TlsSummary, TlsError> {
        let before = self.current.load();
        let material = files::load(&self.files, before.summary.generation + 1)?;
        let summary = material.summary.clone();
        if summary.id != before.summary.id {
            let (expected, found) = (Box::new(before.summary.id.clone()), Box::new(summary.id));
            return Err(TlsError::OtherIdentity { expected, found });
        }
        if !summary.validity.contains(SystemTime::now()) {
            return Err(TlsError::OutsideValidity { path: self.files.certificates.clone() });
        }
        self.current.store(Arc::new(material));
        self.generation.send_replace(summary.generation);
        Ok(summary)
    }

    /// What is loaded now.
    #[must_use]
    pub fn summary(&self) -> TlsSummary {
        self.current.load().summary.clone()
    }

    pub(crate) fn material(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// Tells of each successful reload.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Material {
    /// For a face that takes what is expected.
    pub(crate) fn server_config(
        &self,
        expectation: Expectation,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let verifier = Arc::new(FaceVerifier::new(Arc::clone(&self.chains), expectation));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }

    /// For a call to a node that is expected.
    pub(crate) fn client_config(
        &self,
        expectation: Expectation,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let chains = Arc::clone(&self.chains);
        let verifier =
            Arc::new(NodeVerifier::new(Arc::clone(&self.roots), chains, provider(), expectation));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.own))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The node is known by its identity, not by a host name: there is none to send.
        config.enable_sni = false;
        Ok(Arc::new(config))
    }

    /// Judges again a chain that an open connection showed when it began.
    pub(crate) fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, intermediates) =
            chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        verify::chain(self.chains.as_ref(), leaf, intermediates, now)
    }
}

/// aws-lc-rs with the hybrid group first. Always passed explicitly: the process default belongs
/// to nobody.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        // Clients of desks that know no hybrid group yet (grpcio, Java) take one of the others.
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ];
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(make))
}
