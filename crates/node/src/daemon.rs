//! The life of the daemon: load, bind, open the store, serve, reload, drain.

mod faces;
mod reload;
mod supervise;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bureau_core::{BureauCode, KeyId, NodeName, Timestamp};
use bureau_net::{Connections, DialLimits, Dialer, TlsError, TlsFiles, TlsStore, connections};
use bureau_store::{OpenOptions, Progress, StoreError, contract::Store, open_local};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config,
    clock::{Clock, system_time},
    config::ConfigError,
    engine::{Engine, Parts, machine::Machine, scribe},
    telemetry::{log, metrics::Metrics},
    trust::{Trust, TrustError},
};

/// Why a node does not serve, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates or TLS key cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// Roster or signing key cannot be used.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// The certificate is not this node's.
    #[error("the certificate is for {found}, the configuration says {expected}")]
    WrongCertificate {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The log cannot be set up.
    #[error("log: {0}")]
    Log(String),
    /// An address cannot be bound.
    #[error("{face} face: cannot listen on {address}: {source}")]
    Bind {
        /// Which face.
        face: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened, or failed.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The store failed while serving; restart after looking at the disk.
    #[error("the store failed; the log has the cause")]
    StoreFailed,
    /// Something this node runs ended that must not.
    #[error("{task} ended: {cause}")]
    Task {
        /// What.
        task: &'static str,
        /// Why.
        cause: String,
    },
    /// Signals cannot be listened for.
    #[error("signals: {0}")]
    Signals(io::Error),
}

impl ServeError {
    /// The exit code: 78 where configuration, keys, certificates or roster are at fault
    /// (`EX_CONFIG`), else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Tls(_) | Self::Trust(_) | Self::WrongCertificate { .. } => 78,
            _ => 1,
        }
    }
}

/// What a configuration is, after a look at every file it names.
#[derive(Debug, Clone)]
pub struct CheckReport {
    /// The network's name.
    pub network: String,
    /// The bureau.
    pub bureau: BureauCode,
    /// The node.
    pub node: NodeName,
    /// When the certificate ends.
    pub certificate_expires: Timestamp,
    /// Serial of the roster.
    pub roster_serial: u64,
    /// When the roster stops being fresh.
    pub roster_expires: Timestamp,
    /// How many members it lists.
    pub members: usize,
    /// Configured peers.
    pub peers: usize,
    /// Configured desks.
    pub desks: usize,
    /// What is good but will not stay so.
    pub warnings: Vec<String>,
}

/// How long before the end of a certificate or roster an operator is warned: 30 days.
const WARN_BEFORE_MS: i64 = 30 * 24 * 3600 * 1000;

/// Checks a configuration file and every file it names, without opening the store or a port.
///
/// # Errors
/// [`ServeError`], as serving would.
pub fn check(path: &Path) -> Result<CheckReport, ServeError> {
    let config = Config::load(path)?;
    let tls = open_tls(&config)?;
    let now = system_time();
    let trust = Trust::load(&config, now)?;
    let roster = trust.roster();
    let certificate_expires = timestamp(tls.summary().validity.not_after);
    let mut warnings = Vec::new();
    for (what, expires) in
        [("the certificate", certificate_expires), ("the roster", roster.expires())]
    {
        if expires.since(now) < WARN_BEFORE_MS {
            warnings.push(format!("{what} ends at {expires}"));
        }
    }
    for peer in &config.peers {
        if roster.member(&peer.bureau).is_err() {
            warnings.push(format!("the peer {} is not in the roster", peer.bureau));
        }
    }
    warnings.extend(sealing_warning(&config, &trust, now));
    Ok(CheckReport {
        network: config.network.to_string(),
        bureau: config.bureau,
        node: config.node.clone(),
        certificate_expires,
        roster_serial: roster.serial(),
        roster_expires: roster.expires(),
        members: roster.members().count(),
        peers: config.peers.len(),
        desks: config.clients.len(),
        warnings,
    })
}

/// What keeps bundles from this bureau, or from being made for it.
fn sealing_warning(config: &Config, trust: &Trust, now: Timestamp) -> Option<String> {
    let Some(key) = trust.sealing_key() else {
        let text = "keys.sealing_key is not set: no bundle can be imported here";
        return Some(text.to_owned());
    };
    let listed = trust.roster().sealing_key(&config.bureau, now).map(|key| KeyId::of(&key));
    let text = "the roster does not list keys.sealing_key as the key to seal bundles with";
    (listed != Ok(key.id())).then(|| text.to_owned())
}

fn timestamp(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn open_tls(config: &Config) -> Result<TlsStore, ServeError> {
    let tls = TlsStore::open(TlsFiles {
        certificates: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
        authorities: config.tls.ca.clone(),
        revocations: config.tls.crls.clone(),
    })?;
    let found = tls.summary().id;
    let expected = bureau_net::SpiffeId {
        network: config.network.clone(),
        bureau: config.bureau,
        role: bureau_net::Role::Node(config.node.clone()),
    };
    if found != expected {
        let (found, expected) = (found.to_string(), expected.to_string());
        return Err(ServeError::WrongCertificate { found, expected });
    }
    Ok(tls)
}

/// Runs a node until SIGTERM or SIGINT, or until it fails.
///
/// # Errors
/// [`ServeError`]; its exit code tells a bad configuration from a failure.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    log::init(&config.log).map_err(|error| ServeError::Log(error.to_string()))?;
    tracing::info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"), bureau = %config.bureau, node = %config.node
    );
    let outcome = run(config).await;
    match &outcome {
        Ok(()) => tracing::info!(event = "stopped"),
        Err(error) => tracing::error!(event = "stopped", error = %error),
    }
    outcome
}

async fn run(config: Config) -> Result<(), ServeError> {
    let mut signals = supervise::Signals::new().map_err(ServeError::Signals)?;
    let config = Arc::new(config);
    let listeners = faces::Listeners::bind(&config).await?;
    let (tls, trust) = load(&config).await?;
    let tls = Arc::new(tls);
    let connections = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();

    let faces =
        faces::Faces::start(&config, listeners, &tls, &connections, &metrics, &stop).await?;
    tracing::info!(
        event = "listening",
        desk = %faces.addresses.desk, link = %faces.addresses.link, admin = %faces.addresses.admin,
        metrics = faces.addresses.metrics.map(tracing::field::display)
    );
    supervise::notify_status("opening the store");
    let (progress, observed) = watch::channel(Progress::Reading);
    let store = tokio::select! {
        opened = open_local(store_options(&config), progress) => opened?,
        () = supervise::tell_progress(observed) => return Err(ServeError::StoreFailed),
        () = signals.stop() => {
            stop.cancel();
            faces.stop(Duration::from_secs(1)).await;
            return Ok(());
        }
    };
    let (engine, worker) = build(&config, Arc::new(trust), store, metrics).await?;
    let scribe = tokio::spawn(worker.run(stop.clone()));
    let dialer = Dialer::new(
        Arc::clone(&tls),
        Arc::clone(&connections),
        DialLimits {
            connect_timeout: Duration::from_millis(config.links.connect_timeout_ms),
            ..DialLimits::default()
        },
    );
    let serving = supervise::Serving { engine, tls, connections, faces, tasks, stop };
    serving.spawn(dialer);
    serving.faces.open(&serving.engine, &serving.tls, &serving.tasks, &serving.stop).await;
    supervise::notify_ready();
    tracing::info!(event = "ready", epoch = %serving.engine.store.epoch());
    let outcome = serving.watch(&mut signals).await;
    serving.drain(scribe).await;
    outcome
}

fn store_options(config: &Config) -> OpenOptions {
    OpenOptions {
        segment_bytes: config.store.journal_segment_bytes,
        checkpoint_bytes: config.store.journal_segment_bytes,
        snapshot_bytes: config.store.snapshot_bytes,
        cache_bytes: config.store.cache_bytes,
        reserve_bytes: config.store.disk_reserve_bytes,
        staged_bytes: config.store.staged_bytes,
        custody_overdue_ms: config.links.custody_overdue_ms,
        ..OpenOptions::new(&config.data_dir)
    }
}

async fn load(config: &Arc<Config>) -> Result<(TlsStore, Trust), ServeError> {
    let config = Arc::clone(config);
    let loaded = spawn_blocking(move || {
        let tls = open_tls(&config)?;
        let trust = Trust::load(&config, system_time())?;
        Ok((tls, trust))
    });
    loaded
        .await
        .unwrap_or_else(|error| Err(ServeError::Task { task: "loading", cause: error.to_string() }))
}

async fn build(
    config: &Arc<Config>,
    trust: Arc<Trust>,
    store: Arc<dyn Store>,
    metrics: Metrics,
) -> Result<(Arc<Engine>, scribe::Worker), ServeError> {
    let clock = Clock::new(store.latest_time());
    if clock.behind_ms() > bureau_core::limits::CLOCK_SKEW_MS_MAX {
        tracing::error!(event = "clock_behind", behind_ms = clock.behind_ms());
    }
    let (config, machine) = (Arc::clone(config), Arc::new(Machine::default()));
    let parts = Parts { config, clock, trust, store, metrics, machine };
    Ok(parts.assemble().await?)
}
