//! Every connection that is open, both ways, so that a peer can be cut: TLS judges a certificate
//! once, when a connection begins, but connections live for weeks. A patrol judges again: at each
//! tick what has expired, after each reload what is revoked or no longer trusted.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use crate::{
    identity::PeerIdentity,
    tls::{Material, TlsStore},
};

/// How often the patrol goes round: a peer is cut well within a minute.
pub const PATROL_INTERVAL: Duration = Duration::from_secs(15);

/// Why an open connection was ended by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutCause {
    /// A certificate of its chain has expired.
    CertificateExpired,
    /// A revocation list names it.
    Revoked,
    /// It no longer holds against the authorities and lists that are loaded now.
    NotTrusted,
    /// The peer may no longer connect: suspended, removed, or an operator's word.
    NotPermitted,
    /// This node ends.
    ShuttingDown,
}

impl CutCause {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::Revoked => "REVOKED",
            Self::NotTrusted => "NOT_TRUSTED",
            Self::NotPermitted => "NOT_PERMITTED",
            Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }
}

impl fmt::Display for CutCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The register, one a process, and its patrol.
#[derive(Debug)]
pub struct Connections {
    entries: Arc<Entries>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Entries {
    open: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    face: &'static str,
    peer: Arc<PeerIdentity>,
    chain: Arc<[CertificateDer<'static>]>,
    /// The load of certificates and lists that the chain was last judged by.
    generation: u64,
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    token: CancellationToken,
    cause: OnceLock<CutCause>,
}

/// How many a face may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) total: usize,
    pub(crate) per_identity: usize,
}

/// A connection's place in the register; given back when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    id: u64,
    peer: Arc<PeerIdentity>,
    signal: Arc<Signal>,
    entries: Arc<Entries>,
}

impl Connections {
    /// An empty register, with its patrol begun. Must be called within a runtime.
    #[must_use]
    pub fn start(tls: Arc<TlsStore>, patrol_interval: Duration) -> Arc<Self> {
        let connections = Arc::new(Self {
            entries: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let entries = Arc::clone(&connections.entries);
        let stop = connections.stop.clone();
        connections.tasks.spawn(patrol(entries, tls, patrol_interval, stop));
        connections.tasks.close();
        connections
    }

    /// Ends every connection whose peer is chosen, with its streams; how many they were.
    /// New connections of the same peer are another question, answered by the handshake.
    pub fn cut(&self, cause: CutCause, chosen: impl Fn(&PeerIdentity) -> bool) -> usize {
        self.entries.cut(cause, |_, entry| chosen(&entry.peer))
    }

    /// The peers of all open connections.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<PeerIdentity>> {
        self.entries.lock().values().map(|entry| Arc::clone(&entry.peer)).collect()
    }

    /// How many connections of a face are open. What was dialled counts under `dial`.
    #[must_use]
    pub fn open(&self, face: &str) -> usize {
        self.entries.lock().values().filter(|entry| entry.face == face).count()
    }

    /// Ends all connections and the patrol, and waits for the latter.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.entries.cut(CutCause::ShuttingDown, |_, _| true);
        self.tasks.wait().await;
    }

    /// Takes a connection in, or `None` where there are too many.
    pub(crate) fn register(
        &self,
        face: &'static str,
        peer: Arc<PeerIdentity>,
        chain: Vec<CertificateDer<'static>>,
        generation: u64,
        bounds: Bounds,
    ) -> Option<Registration> {
        let mut open = self.entries.lock();
        let mine = open.values().filter(|entry| entry.face == face);
        let (total, same) = mine.fold((0, 0), |(total, same), entry| {
            (total + 1, same + usize::from(entry.peer.id == peer.id))
        });
        if total >= bounds.total || same >= bounds.per_identity {
            return None;
        }
        let id = self.entries.next.fetch_add(1, Ordering::Relaxed);
        let signal = Arc::new(Signal::default());
        let entry = Entry {
            face,
            peer: Arc::clone(&peer),
            chain: chain.into(),
            generation,
            signal: Arc::clone(&signal),
        };
        open.insert(id, entry);
        Some(Registration { id, peer, signal, entries: Arc::clone(&self.entries) })
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Registration {
    pub(crate) const fn peer(&self) -> &Arc<PeerIdentity> {
        &self.peer
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.signal.token
    }

    pub(crate) fn cut_cause(&self) -> Option<CutCause> {
        self.signal.cause.get().copied()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.entries.lock().remove(&self.id);
    }
}

impl Entries {
    /// Nothing that holds the lock can panic half-way; a poisoned one is as good.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self, cause: CutCause, chosen: impl Fn(u64, &Entry) -> bool) -> usize {
        let open = self.lock();
        let mut count = 0;
        for (id, entry) in open.iter() {
            if chosen(*id, entry) && entry.signal.cause.set(cause).is_ok() {
                entry.signal.token.cancel();
                count += 1;
                warn!(
                    event = "connection_cut",
                    face = entry.face,
                    peer = %entry.peer,
                    peer_address = %entry.peer.address,
                    certificate = %entry.peer.fingerprint,
                    reason = cause.as_str(),
                );
            }
        }
        count
    }

    /// The chains that were not yet judged by this load.
    fn outdated(&self, generation: u64) -> Vec<(u64, Arc<[CertificateDer<'static>]>)> {
        let open = self.lock();
        let outdated = open.iter().filter(|(_, entry)| entry.generation < generation);
        outdated.map(|(id, entry)| (*id, Arc::clone(&entry.chain))).collect()
    }

    fn judged(&self, id: u64, generation: u64) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.generation = generation;
        }
    }
}

async fn patrol(
    entries: Arc<Entries>,
    tls: Arc<TlsStore>,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut generations = tls.generations();
    let mut ticker = tokio::time::interval(interval);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Ending goes first: judging what is cut anyway would only delay it.
            biased;
            () = stop.cancelled() => return,
            Ok(()) = generations.changed() => {}
            _ = ticker.tick() => {}
        }
        round(&entries, &tls.material()).await;
    }
}

async fn round(entries: &Entries, material: &Material) {
    let now = SystemTime::now();
    entries.cut(CutCause::CertificateExpired, |_, entry| entry.peer.not_after < now);
    let Ok(since_epoch) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        error!(event = "clock_before_1970", face = "all");
        return;
    };
    let now = UnixTime::since_unix_epoch(since_epoch);
    let generation = material.summary.generation;
    for (id, chain) in entries.outdated(generation) {
        match material.verify_chain(&chain, now) {
            Ok(()) => entries.judged(id, generation),
            Err(error) => {
                let cause = cause_of(&error);
                entries.cut(cause, |entry_id, _| entry_id == id);
            }
        }
        // A chain takes some 100 µs: a thousand of them must not hold the others up.
        tokio::task::yield_now().await;
    }
}

const fn cause_of(error: &rustls::Error) -> CutCause {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => CutCause::Revoked,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => CutCause::CertificateExpired,
        _ => CutCause::NotTrusted,
    }
}
