//! What the engine asks of the machine it runs on beside its store and its clock: a place for work
//! that takes long, and chance. A simulation gives its own, so that a run can be repeated.

use std::sync::{Mutex, PoisonError};

use tokio::task::{JoinError, spawn_blocking};

/// The machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// `None`: the system's chance, and threads of their own for long work.
    seed: Option<Mutex<u64>>,
}

impl Machine {
    /// A machine whose chance is known beforehand and that does everything in order.
    #[must_use]
    pub const fn simulated(seed: u64) -> Self {
        Self { seed: Some(Mutex::new(seed)) }
    }

    /// Does work that takes long, away from the reactor.
    ///
    /// # Errors
    /// Where the work panicked.
    pub async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if self.seed.is_some() {
            return Ok(work());
        }
        spawn_blocking(work).await
    }

    /// Fills bytes by chance.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        let Some(seed) = &self.seed else { return getrandom::fill(bytes) };
        let mut seed = seed.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            let drawn = splitmix(&mut seed).to_le_bytes();
            chunk.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = drawn);
        }
        Ok(())
    }

    /// A number from 0 to a bound, both included. Without chance it is the bound.
    pub fn up_to(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        match self.fill(&mut bytes) {
            Ok(()) => bound.checked_add(1).map_or(0, |range| u64::from_le_bytes(bytes) % range),
            Err(_) => bound,
        }
    }
}

/// The next number of a seed (splitmix64, S. Vigna).
fn splitmix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again_and_stays_below_its_bound() {
        let draw = |seed| {
            let machine = Machine::simulated(seed);
            (0..100).map(|_| machine.up_to(9)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((0..10).all(|wanted| draw(7).contains(&wanted)));
        assert!(draw(7).iter().all(|drawn| *drawn < 10));
    }
}
