//! Figures for Prometheus: what is counted as it happens, and what is read when it is asked for.
//!
//! Labels take their values from fixed lists, the configuration and the roster alone, so that
//! nobody outside can make the number of series grow. Serving them stands in `http.rs`, the names
//! in `families.rs`.

mod families;
mod http;

use std::{
    fmt, fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bureau_core::{BureauCode, Lane, Reason, Timestamp, receipt::ReceiptKind};
use bureau_net::{AcceptorCounters, HandshakeRefusal};
use prometheus_client::{encoding::text::encode, registry::Registry};

use self::families::{
    FaceReason, Families, HeldBack, MethodCode, Peer, Queue, ReasonFace, code_name,
};

pub use http::serve;

/// The label of what is on no list.
const OTHER: &str = "OTHER";

type Refresh = Arc<dyn Fn(&Gauges<'_>) + Send + Sync>;

/// Every figure of a node; a clone is the same figures.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    families: Families,
    /// Held over a whole scrape, so that no two clear each other's gauges.
    scraped: Mutex<Scraped>,
}

#[derive(Default)]
struct Scraped {
    refresh: Option<Refresh>,
    faces: Vec<(&'static str, Arc<AcceptorCounters>)>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero. The start of the process is now.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("bureau");
        let families = Families::register(&mut registry);
        Self { inner: Arc::new(Inner { registry, families, scraped: Mutex::default() }) }
    }

    /// A desk's message is durable, so long after it came.
    pub fn accepted(&self, lane: Lane, took: Duration) {
        self.inner.families.accepted.get_or_create(&lane.into()).inc();
        self.inner.families.accept_seconds.observe(took.as_secs_f64());
    }

    /// A message for this bureau is in its inbox.
    pub fn delivered(&self, lane: Lane) {
        self.inner.families.delivered.get_or_create(&lane.into()).inc();
    }

    /// A message for another bureau is in this node's custody.
    pub fn relayed(&self, lane: Lane) {
        self.inner.families.relayed.get_or_create(&lane.into()).inc();
    }

    /// A desk took a message.
    pub fn acknowledged(&self) {
        self.inner.families.acknowledged.inc();
    }

    /// A message expired in this node's custody.
    pub fn expired(&self) {
        self.inner.families.expired.inc();
    }

    /// The sender of a message was warned that it is not delivered and expires before long.
    pub fn expiry_near(&self) {
        self.inner.families.expiry_near.inc();
    }

    /// A relay had custody of a message and the recipient's word is overdue.
    pub fn custody_overdue(&self, holder: &str) {
        let peer = Peer { peer: holder.to_owned() };
        self.inner.families.custody_overdue.get_or_create(&peer).inc();
    }

    /// An origin gave two slips for one place in a count.
    pub fn fork(&self) {
        self.inner.families.forks.inc();
    }

    /// What an origin sent is missing, and asking did not help.
    pub fn gap(&self) {
        self.inner.families.gaps.inc();
    }

    /// Messages are sent again because their recipient lost them.
    pub fn refilled(&self, messages: u64) {
        self.inner.families.refilled.inc_by(messages);
    }

    /// The store knows less than this bureau signed.
    pub fn went_back(&self) {
        self.inner.families.store_went_back.inc();
    }

    /// A face refused something. A reason that is not in the catalogue counts as `OTHER`: it may
    /// be a peer's own words.
    pub fn refused(&self, face: &'static str, reason: &str) {
        let reason = reason.parse::<Reason>().map_or(OTHER, Reason::as_str);
        self.inner.families.refused.get_or_create(&ReasonFace { reason, face }).inc();
    }

    /// A receipt came and counts.
    pub fn receipt(&self, kind: ReceiptKind) {
        self.inner.families.receipts.get_or_create(&kind.into()).inc();
    }

    /// A configured peer is dialed.
    pub fn connect_attempt(&self, peer: BureauCode) {
        let peer = Peer { peer: peer.to_string() };
        self.inner.families.connect_attempts.get_or_create(&peer).inc();
    }

    /// A method of the desk face was called.
    pub fn desk_request(&self, method: &'static str, code: tonic::Code) {
        let call = MethodCode { method, code: code_name(code) };
        self.inner.families.desk_requests.get_or_create(&call).inc();
    }

    /// A group was made durable in so long.
    pub fn committed(&self, took: Duration) {
        self.inner.families.commit_seconds.observe(took.as_secs_f64());
    }

    /// A message of this bureau was delivered so long after it was made.
    pub fn forwarded(&self, took: Duration) {
        self.inner.families.forward_seconds.observe(took.as_secs_f64());
    }

    /// Counts what a face refuses before any request, from the acceptor's own counters.
    pub fn watch_handshakes(&self, face: &'static str, counters: Arc<AcceptorCounters>) {
        self.scraped().faces.push((face, counters));
    }

    /// Says how the gauges are refreshed when they are asked for. It runs on a thread that may
    /// block. Let it hold what it reads weakly: the node holds its metrics, and the metrics this.
    pub fn on_scrape(&self, refresh: impl Fn(&Gauges<'_>) + Send + Sync + 'static) {
        self.scraped().refresh = Some(Arc::new(refresh));
    }

    /// All figures, in the text format of OpenMetrics 1.0. Reads the disk, so it may block.
    ///
    /// # Errors
    /// [`fmt::Error`] where a figure cannot be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let Inner { registry, families, .. } = &*self.inner;
        let scraped = self.scraped();
        // A peer or queue that is no more must not be told as it last was.
        families.clear_gauges();
        let refresh = scraped.refresh.clone();
        if let Some(refresh) = refresh {
            refresh(&Gauges { families });
        }
        for (face, counters) in &scraped.faces {
            for refusal in HandshakeRefusal::ALL {
                let labels = FaceReason { face, reason: refusal.as_str() };
                let counter = families.handshakes_refused.get_or_create(&labels);
                let count = counters.refused(*refusal);
                counter.inner().store(count, std::sync::atomic::Ordering::Relaxed);
            }
        }
        if let Some(bytes) = resident_bytes() {
            families.resident_bytes.set(bytes);
        }
        let mut text = String::new();
        encode(&mut text, registry)?;
        Ok(text)
    }

    /// Forgets how gauges are refreshed, and with it what that holds.
    fn forget(&self) {
        *self.scraped() = Scraped::default();
    }

    fn scraped(&self) -> MutexGuard<'_, Scraped> {
        // A refresh that panicked leaves nothing half done.
        self.inner.scraped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can be set while the figures are asked for. What is not set again is not told.
#[derive(Clone, Copy)]
pub struct Gauges<'a> {
    families: &'a Families,
}

impl fmt::Debug for Gauges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Gauges<'_> {
    /// How many messages wait for a destination of the roster in a lane, and how old the oldest is.
    pub fn queue(&self, destination: BureauCode, lane: Lane, messages: u64, oldest_age: Duration) {
        let queue = Queue { destination: destination.to_string(), lane: lane.as_str() };
        let Families { queue_messages, queue_oldest_age_seconds, .. } = self.families;
        queue_messages.get_or_create(&queue).set(signed(messages));
        queue_oldest_age_seconds.get_or_create(&queue).set(oldest_age.as_secs_f64());
    }

    /// How many messages are held back for a destination of the roster, and why.
    pub fn held(&self, destination: BureauCode, reason: &'static str, messages: u64) {
        let held = HeldBack { destination: destination.to_string(), reason };
        self.families.held_messages.get_or_create(&held).set(signed(messages));
    }

    /// The link to a peer: whether it is up, how many parcels are unanswered, the last round trip.
    pub fn link(&self, peer: BureauCode, up: bool, in_flight: u32, round_trip: Duration) {
        let peer = Peer { peer: peer.to_string() };
        let Families { link_up, link_in_flight, link_round_trip_seconds, .. } = self.families;
        link_up.get_or_create(&peer).set(i64::from(up));
        link_in_flight.get_or_create(&peer).set(i64::from(in_flight));
        // A link that is down has no round trip, and none is not a fast one.
        if up && !round_trip.is_zero() {
            link_round_trip_seconds.get_or_create(&peer).set(round_trip.as_secs_f64());
        }
    }

    /// When the node's certificate ends.
    pub fn certificate_expiry(&self, at: Timestamp) {
        self.families.certificate_expiry.set(seconds(at));
    }

    /// When the roster stops being fresh.
    pub fn roster_expiry(&self, at: Timestamp) {
        self.families.roster_expiry.set(seconds(at));
    }

    /// Free bytes on the store's disk.
    pub fn disk_free(&self, bytes: u64) {
        self.families.disk_free_bytes.set(signed(bytes));
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(at: Timestamp) -> f64 {
    // Exact: milliseconds to the year 9999 take 48 bits.
    at.as_ms() as f64 / 1000.0
}

/// Memory of this process that is in RAM (`proc(5)`); `None` where the system does not tell.
/// `status` tells kibibytes; `statm` tells pages, whose size is not told there.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests;
