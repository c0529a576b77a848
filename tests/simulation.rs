//! Whole networks in one thread, by seeds. A failure names its seed:
//! `bureau-bench simulate --seed N --trace` runs it again and tells everything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use bureau_sim::simulate;

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 24;

#[test]
fn every_seed_keeps_every_promise() {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let report = simulate(seed, false);
            if !report.violations.is_empty() {
                failed.lock().unwrap().push(report);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "replay with bureau-bench simulate --seed N --trace: {failed:#?}");
}

#[test]
fn a_seed_is_the_same_run_again() {
    for seed in [1, 3] {
        let (first, again) = (simulate(seed, false), simulate(seed, false));
        assert_eq!(first, again);
        assert!(first.frames > 100, "{first:?}");
    }
    assert_ne!(simulate(1, false).hash, simulate(2, false).hash);
}
