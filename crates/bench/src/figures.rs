//! Numbers: latencies, rates, and what the system says of a process.

use std::{fs, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::fault::BenchError;

/// Ticks of /proc in a second: what Linux shows to user space on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Durations, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Durations(Histogram<u64>);

/// What a person reads of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// How fast something went.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rate {
    /// Records or messages.
    pub(crate) per_second: f64,
    /// Of one call.
    #[serde(flatten)]
    pub(crate) latency: Latency,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_mib: f64,
}

impl Durations {
    pub(crate) fn new() -> Self {
        // Three digits; the range grows with what is recorded.
        Self(Histogram::new_with_max(60_000_000, 3).unwrap_or_else(|_| Histogram::from(&empty())))
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(microseconds);
    }
}
