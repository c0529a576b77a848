//! How many messages a second may go over a link, FLASH apart: a peer that was away must not drown
//! in what waited for it.

use std::time::Duration;

use tokio::time::Instant;

/// From this rate on nothing is counted.
const NO_LIMIT: u32 = 1_000_000;
/// What may go at one go, in messages: a tenth of a second's worth, and at least one.
const BURSTS_PER_SECOND: u32 = 10;

/// A bucket of messages.
#[derive(Debug)]
pub(super) struct Drain {
    per_second: u32,
    /// In millionths of a message.
    left: u64,
    at: Instant,
}

const ONE: u64 = 1_000_000;

impl Drain {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: ONE, at: now }
    }

    /// Whether nothing may go now.
    pub(super) fn is_empty(&mut self, now: Instant) -> bool {
        if self.per_second >= NO_LIMIT {
            return false;
        }
        let passed = now.saturating_duration_since(self.at).as_micros();
        let grown = u64::try_from(passed).unwrap_or(u64::MAX);
        let grown = grown.saturating_mul(u64::from(self.per_second));
        let most = (u64::from(self.per_second) * ONE / u64::from(BURSTS_PER_SECOND)).max(ONE);
        self.left = self.left.saturating_add(grown).min(most);
        self.at = now;
        self.left < ONE
    }

    /// Takes one out.
    pub(super) fn take(&mut self) {
        self.left = self.left.saturating_sub(ONE);
    }

    /// When one may go, where none may now.
    pub(super) fn filled_at(&self) -> Option<Instant> {
        if self.per_second >= NO_LIMIT || self.left >= ONE {
            return None;
        }
        let micros = (ONE - self.left).div_ceil(u64::from(self.per_second.max(1)));
        Some(self.at + Duration::from_micros(micros.max(1000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_burst_after_a_pause() {
        let begin = Instant::now();
        let mut drain = Drain::new(50, begin);
        let mut gone = 0;
        for milli in 60_000..62_000 {
            let now = begin + Duration::from_millis(milli);
            while !drain.is_empty(now) {
                drain.take();
                gone += 1;
            }
        }
        assert!((100..=106).contains(&gone), "{gone}");
        let mut free = Drain::new(NO_LIMIT, begin);
        free.take();
        free.take();
        assert!(!free.is_empty(begin) && free.filled_at().is_none());
    }
}
