//! The names, labels and buckets of all figures.

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use bureau_core::{Lane, receipt::ReceiptKind};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};
use tonic::Code;

/// Seconds that an acceptance or a commit takes: from a group on a fast disk to a disk that fails.
const COMMIT_BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Seconds that a delivery takes: from a neighbor to a bureau that was away for a week.
const FORWARD_BUCKETS: [f64; 19] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    1800.0, 7200.0, 86_400.0, 604_800.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LaneLabel {
    lane: &'static str,
}

impl From<Lane> for LaneLabel {
    fn from(lane: Lane) -> Self {
        Self { lane: lane.as_str() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    kind: &'static str,
}

impl From<ReceiptKind> for KindLabel {
    fn from(kind: ReceiptKind) -> Self {
        Self { kind: kind_name(kind) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonFace {
    pub(super) reason: &'static str,
    pub(super) face: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FaceReason {
    pub(super) face: &'static str,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MethodCode {
    pub(super) method: &'static str,
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Peer {
    pub(super) peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Queue {
    pub(super) destination: String,
    pub(super) lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HeldBack {
    pub(super) destination: String,
    pub(super) reason: &'static str,
}

type Float = Gauge<f64, AtomicU64>;

pub(super) struct Families {
    pub(super) accepted: Family<LaneLabel, Counter>,
    pub(super) delivered: Family<LaneLabel, Counter>,
    pub(super) relayed: Family<LaneLabel, Counter>,
    pub(super) acknowledged: Counter,
    pub(super) expired: Counter,
    pub(super) expiry_near: Counter,
    pub(super) custody_overdue: Family<Peer, Counter>,
    pub(super) forks: Counter,
    pub(super) gaps: Counter,
    pub(super) refilled: Counter,
    pub(super) store_went_back: Counter,
    pub(super) refused: Family<ReasonFace, Counter>,
    pub(super) receipts: Family<KindLabel, Counter>,
    pub(super) connect_attempts: Family<Peer, Counter>,
    pub(super) handshakes_refused: Family<FaceReason, Counter>,
    pub(super) desk_requests: Family<MethodCode, Counter>,
    pub(super) accept_seconds: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) forward_seconds: Histogram,
    pub(super) queue_messages: Family<Queue, Gauge>,
    pub(super) queue_oldest_age_seconds: Family<Queue, Float>,
    pub(super) held_messages: Family<HeldBack, Gauge>,
    pub(super) link_up: Family<Peer, Gauge>,
    pub(super) link_in_flight: Family<Peer, Gauge>,
    pub(super) link_round_trip_seconds: Family<Peer, Float>,
    pub(super) certificate_expiry: Float,
    pub(super) roster_expiry: Float,
    pub(super) disk_free_bytes: Gauge,
    pub(super) resident_bytes: Gauge,
}

impl Families {
    /// Makes all families and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut make = Make { registry };
        make.process();
        let families = Self {
            accepted: make.plain("accepted", "Messages from desks, signed and durable"),
            delivered: make.plain("delivered", "Messages put into this bureau's inbox"),
            relayed: make.plain("relayed", "Messages for others taken into custody"),
            acknowledged: make.plain("acknowledged", "Messages that this bureau's desks took"),
            expired: make.plain("expired", "Messages that expired in custody"),
            expiry_near: make.plain("expiry_near", "Own messages that are late, with a warning"),
            custody_overdue: make.plain("custody_overdue", "Messages that a relay did not get on"),
            forks: make.plain("forks", "Messages refused as second in one place of a count"),
            gaps: make.plain("gaps", "Gaps in what origins sent that asking did not close"),
            refilled: make.plain("refilled", "Messages sent again that their recipient lost"),
            store_went_back: make.plain("store_went_back", "Times the store lost what it knew"),
            refused: make.plain("refused", "What a face refused"),
            receipts: make.plain("receipts", "Receipts that came and count"),
            connect_attempts: make.plain("links_connect_attempts", "Dials of configured peers"),
            handshakes_refused: make
                .plain("handshakes_refused", "Connections refused before any request"),
            desk_requests: make.plain("desk_requests", "Calls of the desk face, by gRPC code"),
            accept_seconds: make.times(
                "accept",
                "From a submission's arrival until it is durable",
                &COMMIT_BUCKETS,
            ),
            commit_seconds: make.times("commit", "Time of one group commit", &COMMIT_BUCKETS),
            forward_seconds: make.times(
                "forward",
                "From the making of a message to its DELIVERED receipt",
                &FORWARD_BUCKETS,
            ),
            queue_messages: make.plain("queue_messages", "Messages that wait"),
            queue_oldest_age_seconds: make.measured(
                "queue_oldest_age",
                "Age of the oldest message that waits; alarm on this",
                Unit::Seconds,
            ),
            held_messages: make.plain("held_messages", "Messages that are held back"),
            link_up: make.plain("link_up", "1 while the link to a peer is up"),
            link_in_flight: make.plain("link_in_flight", "Parcels sent and not yet answered"),
            link_round_trip_seconds: make.measured(
                "link_round_trip",
                "The last round trip on a link that is up",
                Unit::Seconds,
            ),
            certificate_expiry: make.measured(
                "certificate_expiry_timestamp",
                "When the node's certificate ends, in Unix time",
                Unit::Seconds,
            ),
            roster_expiry: make.measured(
                "roster_expiry_timestamp",
                "When the roster stops being fresh, in Unix time",
                Unit::Seconds,
            ),
            disk_free_bytes: make.measured(
                "disk_free",
                "Free bytes on the store's disk",
                Unit::Bytes,
            ),
            resident_bytes: make.measured(
                "process_resident_memory",
                "Memory of this process that is in RAM",
                Unit::Bytes,
            ),
        };
        families.begin();
        families
    }

    /// Begins what has few series at zero: its first event then shows as a rise.
    fn begin(&self) {
        for lane in Lane::ALL {
            for family in [&self.accepted, &self.delivered, &self.relayed] {
                drop(family.get_or_create(&lane.into()));
            }
        }
        for kind in KINDS {
            drop(self.receipts.get_or_create(&kind.into()));
        }
    }

    /// Forgets gauges that are set at each scrape.
    pub(super) fn clear_gauges(&self) {
        self.queue_messages.clear();
        self.queue_oldest_age_seconds.clear();
        self.held_messages.clear();
        self.link_up.clear();
        self.link_in_flight.clear();
        self.link_round_trip_seconds.clear();
    }
}

/// Makes figures and registers each. Counters get `_total` and figures with a unit its name after
/// theirs, all get `bureau_` before it.
struct Make<'r> {
    registry: &'r mut Registry,
}

impl Make<'_> {
    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.registry.register(name, help, metric.clone());
        metric
    }

    fn measured<M: Metric + Clone + Default>(&mut self, name: &str, help: &str, unit: Unit) -> M {
        let metric = M::default();
        self.registry.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    fn times(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let metric = Histogram::new(buckets.iter().copied());
        self.registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// What does not change while the process runs.
    fn process(&mut self) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry.register("build", "What runs", version);
        let started: Float = self.measured(
            "process_start_time",
            "When this process started, in Unix time",
            Unit::Seconds,
        );
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(since.as_secs_f64());
    }
}

const KINDS: [ReceiptKind; 6] = [
    ReceiptKind::Custody,
    ReceiptKind::PassedOn,
    ReceiptKind::Delivered,
    ReceiptKind::Acknowledged,
    ReceiptKind::Refused,
    ReceiptKind::Expired,
];

fn kind_name(kind: ReceiptKind) -> &'static str {
    kind.as_str_name().trim_start_matches("RECEIPT_KIND_")
}

/// The name of a code, as gRPC writes it.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
