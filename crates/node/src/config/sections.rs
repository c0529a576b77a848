//! The sections of numbers: what each is without being set, why, and how far it may be moved.

use super::{
    check::Checker,
    raw::{RawLimits, RawLinks, RawStore},
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What is too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Limits of a message:
    ///
    /// - `body_bytes`: Defaults to 1 MiB: text and forms fit, files are attachments. At most 2 MiB,
    ///   because a frame of 4 MiB also holds the slips.
    /// - `attachments`: Defaults to 32, the most there may be: their digests stand in the manifest.
    /// - `attachment_bytes`: Defaults to 256 MiB: a film of some minutes. At most 4 GiB.
    /// - `recipients`: Defaults to 300: every member of a network of 200, and room. At most 500,
    ///   for the same frame.
    /// - `lifetime_days`: Defaults to 30: longer than any outage that is still an outage; every id
    ///   is remembered for so long. At most 365.
    pub message: bureau_core::Limits,
    /// Defaults to 1,000,000: what a store holds at 2 GiB of 1 KiB messages; past that, desks are
    /// told instead of the disk filling for one bureau that is away.
    pub queued_messages_per_destination: u64,
    /// Defaults to 20,000: above what one node takes; lower it to keep one desk from the others.
    pub desk_messages_per_second: u32,
    /// Defaults to 64 MiB: half of what a gigabit network brings.
    pub desk_bytes_per_second: u64,
    /// Defaults to 256: at 2 ms each, a whole network is back within a second.
    pub handshakes: usize,
    /// Defaults to 32: many offices share one address, and one address cannot take all places.
    pub handshakes_per_address: usize,
    /// Defaults to 64: more calls than a client has at once, and a bound to what it can hold.
    pub streams_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: bureau_core::Limits::default(),
            queued_messages_per_destination: 1_000_000,
            desk_messages_per_second: 20_000,
            desk_bytes_per_second: 64 * MIB,
            handshakes: 256,
            handshakes_per_address: 32,
            streams_per_connection: 64,
        }
    }
}

impl Limits {
    pub(super) fn check(raw: &RawLimits, checker: &mut Checker<'_>) -> Self {
        let mut limits = Self::default();
        let Self { message, .. } = &mut limits;
        let mut days = message.lifetime_ms / DAY_MS;
        let mut set = checker.section("limits");
        set.number("body_bytes", raw.body_bytes, &mut message.body_bytes, KIB..=2 * MIB);
        set.number("attachments", raw.attachments, &mut message.attachments, 0..=32);
        set.number(
            "attachment_bytes",
            raw.attachment_bytes,
            &mut message.attachment_bytes,
            KIB..=4 * GIB,
        );
        set.number("recipients", raw.recipients, &mut message.recipients, 1..=500);
        set.number("lifetime_days", raw.lifetime_days, &mut days, 1..=365);
        message.lifetime_ms = days * DAY_MS;
        set.number(
            "queued_messages_per_destination",
            raw.queued_messages_per_destination,
            &mut limits.queued_messages_per_destination,
            1..=100_000_000,
        );
        set.number(
            "desk_messages_per_second",
            raw.desk_messages_per_second,
            &mut limits.desk_messages_per_second,
            1..=1_000_000,
        );
        set.number(
            "desk_bytes_per_second",
            raw.desk_bytes_per_second,
            &mut limits.desk_bytes_per_second,
            KIB..=64 * GIB,
        );
        set.number("handshakes", raw.handshakes, &mut limits.handshakes, 1..=65_536);
        set.number(
            "handshakes_per_address",
            raw.handshakes_per_address,
            &mut limits.handshakes_per_address,
            1..=65_536,
        );
        set.number(
            "streams_per_connection",
            raw.streams_per_connection,
            &mut limits.streams_per_connection,
            1..=1024,
        );
        if limits.handshakes_per_address > limits.handshakes {
            set.fault(
                "handshakes_per_address",
                format!("more than limits.handshakes ({})", limits.handshakes),
                "lower it, or raise the other",
            );
        }
        limits
    }
}

/// How the store uses the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Defaults to 16 MiB: a checkpoint comes with each, and replay after a crash stays short.
    pub journal_segment_bytes: u64,
    /// Defaults to 256 MiB: journal kept before a snapshot is taken, which costs as much again.
    pub snapshot_bytes: u64,
    /// Defaults to 64 MiB: keeps a million queued messages within 256 MiB of memory.
    pub cache_bytes: u64,
    /// Defaults to 256 MiB: below so much free disk submissions are refused, receipts are not.
    pub disk_reserve_bytes: u64,
    /// Defaults to 4 GiB: attachments that are coming in, or that no message names yet.
    pub staged_bytes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            journal_segment_bytes: 16 * MIB,
            snapshot_bytes: 256 * MIB,
            cache_bytes: 64 * MIB,
            disk_reserve_bytes: 256 * MIB,
            staged_bytes: 4 * GIB,
        }
    }
}

impl Store {
    pub(super) fn check(raw: &RawStore, checker: &mut Checker<'_>) -> Self {
        let mut store = Self::default();
        let mut set = checker.section("store");
        set.number(
            "journal_segment_bytes",
            raw.journal_segment_bytes,
            &mut store.journal_segment_bytes,
            4 * MIB..=GIB,
        );
        set.number(
            "snapshot_bytes",
            raw.snapshot_bytes,
            &mut store.snapshot_bytes,
            4 * MIB..=64 * GIB,
        );
        set.number("cache_bytes", raw.cache_bytes, &mut store.cache_bytes, MIB..=64 * GIB);
        set.number(
            "disk_reserve_bytes",
            raw.disk_reserve_bytes,
            &mut store.disk_reserve_bytes,
            MIB..=1024 * GIB,
        );
        set.number("staged_bytes", raw.staged_bytes, &mut store.staged_bytes, MIB..=1024 * GIB);
        if store.snapshot_bytes < store.journal_segment_bytes {
            set.fault(
                "snapshot_bytes",
                format!("less than store.journal_segment_bytes ({})", store.journal_segment_bytes),
                "raise it, or lower the other",
            );
        }
        store
    }
}

/// How links behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Defaults to 256: as many as one group commit takes, so that neither side waits.
    pub window_parcels: u32,
    /// Defaults to 4 MiB: a satellite link of 600 ms is full at 50 Mbit/s.
    pub window_bytes: u64,
    /// Defaults to 5,000: three go unanswered before a link counts as stalled.
    pub ping_ms: u64,
    /// Defaults to 15,000: a dead link is found while an officer still waits.
    pub stall_ms: u64,
    /// Defaults to 1,000: a peer that restarts is back within so long, and no peer is dialed more
    /// than once a second whatever this says.
    pub backoff_base_ms: u64,
    /// Defaults to 30,000: a peer back after a day is found within half a minute.
    pub backoff_max_ms: u64,
    /// Defaults to 10,000: two satellite hops and a TLS handshake, with losses.
    pub connect_timeout_ms: u64,
    /// Defaults to 1,000,000: no limit. How many messages a second go over one link, FLASH apart:
    /// for a peer that a backlog would drown.
    pub messages_per_second: u32,
    /// Defaults to 600,000: how long an origin waits for a recipient's word after a relay took
    /// custody, before it looks for another way.
    pub custody_overdue_ms: u64,
    /// Defaults to 120,000: how long a recipient waits for what has left its origin before it asks
    /// for it, and again before it says that it is missing.
    pub repair_after_ms: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            window_parcels: 256,
            window_bytes: 4 * MIB,
            ping_ms: 5_000,
            stall_ms: 15_000,
            backoff_base_ms: 1_000,
            backoff_max_ms: 30_000,
            connect_timeout_ms: 10_000,
            messages_per_second: 1_000_000,
            custody_overdue_ms: bureau_store::CUSTODY_OVERDUE_MS,
            repair_after_ms: 120_000,
        }
    }
}

impl Links {
    pub(super) fn check(raw: &RawLinks, checker: &mut Checker<'_>) -> Self {
        let mut links = Self::default();
        let mut set = checker.section("links");
        set.number("window_parcels", raw.window_parcels, &mut links.window_parcels, 1..=4096);
        set.number("window_bytes", raw.window_bytes, &mut links.window_bytes, 64 * KIB..=64 * MIB);
        set.number("ping_ms", raw.ping_ms, &mut links.ping_ms, 100..=60_000);
        set.number("stall_ms", raw.stall_ms, &mut links.stall_ms, 200..=600_000);
        set.number("backoff_base_ms", raw.backoff_base_ms, &mut links.backoff_base_ms, 10..=60_000);
        set.number("backoff_max_ms", raw.backoff_max_ms, &mut links.backoff_max_ms, 10..=3_600_000);
        set.number(
            "connect_timeout_ms",
            raw.connect_timeout_ms,
            &mut links.connect_timeout_ms,
            100..=120_000,
        );
        set.number(
            "messages_per_second",
            raw.messages_per_second,
            &mut links.messages_per_second,
            1..=1_000_000,
        );
        set.number(
            "custody_overdue_ms",
            raw.custody_overdue_ms,
            &mut links.custody_overdue_ms,
            1_000..=86_400_000,
        );
        set.number(
            "repair_after_ms",
            raw.repair_after_ms,
            &mut links.repair_after_ms,
            1_000..=3_600_000,
        );
        if links.stall_ms < 2 * links.ping_ms {
            set.fault(
                "stall_ms",
                format!("less than twice links.ping_ms ({})", links.ping_ms),
                "raise it, or one lost ping cuts a good link",
            );
        }
        if links.backoff_max_ms < links.backoff_base_ms {
            set.fault(
                "backoff_max_ms",
                format!("less than links.backoff_base_ms ({})", links.backoff_base_ms),
                "raise it, or lower the other",
            );
        }
        links
    }
}
