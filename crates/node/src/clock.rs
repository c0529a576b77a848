//! What time it is for this node.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use bureau_core::Timestamp;
use tokio::time::Instant;

/// The system's clock, that never goes behind what the node has already written down: a clock that
/// was set back cannot make an expired message fresh again.
#[derive(Debug)]
pub struct Clock {
    latest_ms: AtomicI64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    System,
    /// The runtime's own time, which a simulation lets run as it likes.
    Simulated {
        began: Instant,
        at: Timestamp,
        /// How far this clock is off.
        skew_ms: AtomicI64,
    },
}

impl Source {
    fn now(&self) -> Timestamp {
        match self {
            Self::System => system_time(),
            Self::Simulated { began, at, skew_ms } => {
                let passed = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
                at.plus_ms(passed).plus_ms(skew_ms.load(Ordering::Relaxed))
            }
        }
    }
}

impl Clock {
    /// A clock that starts not before a moment.
    #[must_use]
    pub const fn new(latest: Timestamp) -> Self {
        Self { latest_ms: AtomicI64::new(latest.as_ms()), source: Source::System }
    }

    /// A clock that runs with the runtime's time, from a moment on.
    #[must_use]
    pub fn simulated(latest: Timestamp, now: Timestamp) -> Self {
        let source =
            Source::Simulated { began: Instant::now(), at: now, skew_ms: AtomicI64::new(0) };
        Self { latest_ms: AtomicI64::new(latest.as_ms()), source }
    }

    /// Sets a simulated clock off by so much.
    pub fn set_skew_ms(&self, by: i64) {
        if let Source::Simulated { skew_ms, .. } = &self.source {
            skew_ms.store(by, Ordering::Relaxed);
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let system_ms = self.source.now().as_ms();
        let before_ms = self.latest_ms.fetch_max(system_ms, Ordering::Relaxed);
        Timestamp::from_ms(before_ms.max(system_ms))
    }

    /// How far the system's clock is behind what was already written down, in milliseconds.
    pub fn behind_ms(&self) -> i64 {
        (self.latest_ms.load(Ordering::Relaxed) - self.source.now().as_ms()).max(0)
    }
}

/// The system's clock, as it is.
#[must_use]
pub fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_behind_what_was_written() {
        let future = system_time().plus_ms(60_000);
        let clock = Clock::new(future);
        assert_eq!(clock.now(), future);
        assert!(clock.behind_ms() > 59_000);
        let clock = Clock::new(Timestamp::from_ms(0));
        assert!(clock.now() > Timestamp::from_ms(1_700_000_000_000));
        assert_eq!(clock.behind_ms(), 0);
    }
}
