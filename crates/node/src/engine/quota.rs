//! How much one desk may ask for: a token bucket of messages and one of bytes for each desk, so
//! that a flood from one is refused to that one alone.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bureau_core::{DeskName, Reason};
use bureau_net::Refusal;

/// Buckets for each desk.
#[derive(Debug)]
pub struct Quotas {
    messages_per_second: f64,
    bytes_per_second: f64,
    desks: Mutex<HashMap<DeskName, Buckets>>,
}

#[derive(Debug, Clone, Copy)]
struct Buckets {
    messages: f64,
    bytes: f64,
    filled: Instant,
}

/// A bucket holds so many seconds of its rate: what may come at once.
const BURST_SECONDS: f64 = 2.0;

impl Quotas {
    /// Quotas of so many messages and bytes a second for each desk.
    #[must_use]
    pub fn new(messages_per_second: u32, bytes_per_second: u64) -> Self {
        Self {
            messages_per_second: f64::from(messages_per_second),
            // Exact up to 2^53 bytes a second.
            bytes_per_second: bytes_per_second as f64,
            desks: Mutex::default(),
        }
    }

    /// Takes one message of so many bytes out of a desk's buckets.
    ///
    /// # Errors
    /// RATE_LIMITED with the time after which it would be taken.
    pub fn take(&self, desk: &DeskName, bytes: usize, now: Instant) -> Result<(), Refusal> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        // Desks come from the configuration, so the map stays as small as that.
        let buckets = desks.entry(desk.clone()).or_insert(Buckets {
            messages: self.messages_per_second * BURST_SECONDS,
            bytes: self.bytes_per_second * BURST_SECONDS,
            filled: now,
        });
        let elapsed = now.saturating_duration_since(buckets.filled).as_secs_f64();
        let refill = |level: f64, rate: f64| (level + elapsed * rate).min(rate * BURST_SECONDS);
        buckets.messages = refill(buckets.messages, self.messages_per_second);
        buckets.bytes = refill(buckets.bytes, self.bytes_per_second);
        buckets.filled = now;
        // One message larger than the bucket passes when the bucket is full.
        let bytes = (bytes as f64).min(self.bytes_per_second * BURST_SECONDS);
        let wait_messages = (1.0 - buckets.messages) / self.messages_per_second;
        let wait_bytes = (bytes - buckets.bytes) / self.bytes_per_second;
        let wait_seconds = wait_messages.max(wait_bytes);
        if wait_seconds > 0.0 {
            let wait = Duration::from_secs_f64(wait_seconds.min(60.0));
            return Err(Refusal::new(Reason::RateLimited, "this desk asks for too much at once")
                .retry_after(wait.max(Duration::from_millis(1))));
        }
        buckets.messages -= 1.0;
        buckets.bytes -= bytes;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_refused_to_its_desk_alone_and_ends() {
        let quotas = Quotas::new(10, 1000);
        let (flood, calm): (DeskName, DeskName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let start = Instant::now();
        for _ in 0..20 {
            quotas.take(&flood, 1, start).unwrap();
        }
        let refusal = quotas.take(&flood, 1, start).unwrap_err();
        assert_eq!(refusal.reason, Reason::RateLimited);
        let wait = refusal.retry_after.unwrap();
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        quotas.take(&calm, 1, start).unwrap();
        quotas.take(&flood, 1, start + Duration::from_millis(101)).unwrap();
    }

    #[test]
    fn bytes_count_too_and_a_large_message_passes_a_full_bucket() {
        let quotas = Quotas::new(1000, 1000);
        let desk: DeskName = "a".parse().unwrap();
        let start = Instant::now();
        quotas.take(&desk, 1_000_000, start).unwrap();
        assert!(quotas.take(&desk, 100, start).is_err());
        quotas.take(&desk, 100, start + Duration::from_millis(101)).unwrap();
    }
}
