//! What an acceptor counts and tells. Each refusal is counted; each is one log line, as long as
//! there are few: a flood of them must not fill the disk.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tracing::{error, warn};

use super::refusal::{HandshakeRefusal, Refused};

/// Lines a second, and lines at once.
const LINES_PER_SECOND: f64 = 20.0;
const KINDS: usize = HandshakeRefusal::ALL.len();

/// Counts since the start, for metrics.
#[derive(Debug)]
pub struct AcceptorCounters {
    accepted: AtomicU64,
    established: AtomicU64,
    accept_failures: AtomicU64,
    refused: [AtomicU64; KINDS],
}

impl Default for AcceptorCounters {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            established: AtomicU64::new(0),
            accept_failures: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl AcceptorCounters {
    /// TCP connections that came.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections whose peer was verified.
    #[must_use]
    pub fn established(&self) -> u64 {
        self.established.load(Ordering::Relaxed)
    }

    /// Times that the system gave no connection.
    #[must_use]
    pub fn accept_failures(&self) -> u64 {
        self.accept_failures.load(Ordering::Relaxed)
    }

    /// Connections refused for one reason.
    #[must_use]
    pub fn refused(&self, refusal: HandshakeRefusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }
}

/// Counts and tells for one face.
#[derive(Debug)]
pub(super) struct Reporter {
    face: &'static str,
    counters: Arc<AcceptorCounters>,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    lines: f64,
    filled: Instant,
    untold: u64,
}

impl Reporter {
    pub(super) fn new(face: &'static str, counters: Arc<AcceptorCounters>) -> Self {
        let bucket = Bucket { lines: LINES_PER_SECOND, filled: Instant::now(), untold: 0 };
        Self { face, counters, bucket: Mutex::new(bucket) }
    }

    pub(super) fn accepted(&self) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn established(&self) {
        self.counters.established.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accept_failed(&self, error: &std::io::Error) {
        self.counters.accept_failures.fetch_add(1, Ordering::Relaxed);
        if self.may_tell() {
            warn!(event = "accept_failed", face = self.face, detail = %error);
        }
    }

    pub(super) fn config_failed(&self, error: &rustls::Error) {
        if self.may_tell() {
            error!(event = "tls_config_failed", face = self.face, detail = %error);
        }
    }

    pub(super) fn refused(&self, refused: &Refused, address: SocketAddr) {
        let Refused { refusal, peer, detail } = refused;
        self.counters.refused[*refusal as usize].fetch_add(1, Ordering::Relaxed);
        if self.may_tell() {
            warn!(
                event = "handshake_refused",
                face = self.face,
                peer_address = %address,
                reason = refusal.as_str(),
                peer = peer.as_ref().map(tracing::field::display),
                detail = Some(detail.as_str()).filter(|detail| !detail.is_empty()),
            );
        }
    }

    /// Tells how many were only counted since it was last told.
    pub(super) fn summary(&self) {
        let untold = std::mem::take(&mut self.lock().untold);
        self.tell_untold(untold);
    }

    fn may_tell(&self) -> bool {
        let (may, untold) = self.lock().take(Instant::now());
        self.tell_untold(untold);
        may
    }

    fn tell_untold(&self, count: u64) {
        if count > 0 {
            warn!(event = "handshakes_refused_untold", face = self.face, count);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    /// Whether a line may be written, and how many were not before it.
    fn take(&mut self, now: Instant) -> (bool, u64) {
        let gone = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.lines = (self.lines + gone * LINES_PER_SECOND).min(LINES_PER_SECOND);
        if self.lines < 1.0 {
            self.untold += 1;
            return (false, 0);
        }
        self.lines -= 1.0;
        (true, std::mem::take(&mut self.untold))
    }
}

impl fmt::Display for AcceptorCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {} established {}", self.accepted(), self.established())?;
        let refusals = HandshakeRefusal::ALL.iter().map(|kind| (kind, self.refused(*kind)));
        refusals
            .filter(|(_, count)| *count > 0)
            .try_for_each(|(kind, count)| write!(f, " {kind} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_not_told() {
        let start = Instant::now();
        let mut bucket = Bucket { lines: LINES_PER_SECOND, filled: start, untold: 0 };
        let told = (0..1000).filter(|_| bucket.take(start).0).count();
        assert_eq!(told, 20);
        assert_eq!(bucket.untold, 980);
        // Summaries ride on the first line that may be written again.
        assert_eq!(bucket.take(start + Duration::from_millis(100)), (true, 980));
        assert_eq!(bucket.untold, 0);
        // A long silence does not save up lines.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|_| bucket.take(later).0).count(), 20);
    }

    #[test]
    fn each_refusal_has_its_own_count() {
        let counters = Arc::new(AcceptorCounters::default());
        let reporter = Reporter::new("link", Arc::clone(&counters));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for (number, refusal) in HandshakeRefusal::ALL.iter().enumerate() {
            for _ in 0..=number {
                reporter.refused(&Refused::new(*refusal), address);
            }
        }
        for (number, refusal) in HandshakeRefusal::ALL.iter().enumerate() {
            assert_eq!(counters.refused(*refusal), number as u64 + 1, "{refusal}");
        }
    }
}
