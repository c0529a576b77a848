//! How long to wait before something is tried again.

use std::time::Duration;

/// The first pause is at most this, each further one twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(400);
/// No pause is longer, whatever the node asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Full jitter below a limit that doubles with each try, from the first; at least what the node
/// asks for.
pub(crate) fn pause(tries: u32, asked: Option<Duration>) -> Duration {
    let limit = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
    let mut random = [0; 4];
    // Without random bytes there is no jitter, which is no reason not to try.
    let fraction = match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    let jittered = limit.mul_f64(fraction);
    asked.map_or(jittered, |asked| asked.max(jittered)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for tries in 1..40 {
            assert!(pause(tries, None) <= PAUSE_MAX);
            assert!(pause(tries, None) <= PAUSE_FIRST * 2_u32.saturating_pow(tries.min(20)));
        }
        assert!(pause(1, Some(Duration::from_secs(3))) >= Duration::from_secs(3));
        assert_eq!(pause(1, Some(Duration::from_secs(3600))), PAUSE_MAX);
    }
}
