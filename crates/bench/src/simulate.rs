//! Whole networks in one thread, by seeds: many of them on every core, or one with everything told.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bureau_sim::{Report, simulate};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Which seeds.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Seeds {
    /// How many.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// From which on.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This one alone.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Tell everything that happens, on standard error.
    #[arg(long, requires = "seed")]
    trace: bool,
}

/// Runs them. Whether all passed.
pub(crate) fn run(seeds: &Seeds) -> bool {
    if let Some(seed) = seeds.seed {
        if seeds.trace {
            trace();
        }
        let report = simulate(seed, seeds.trace);
        tell(&report);
        println!("seed {seed}: {}; hash {:016x}", report.summary, report.hash);
        return report.violations.is_empty();
    }
    let begun = Instant::now();
    let (next, end) = (AtomicU64::new(seeds.from), seeds.from.saturating_add(seeds.seeds));
    let (failed, told, frames) = (Mutex::new(0), Mutex::new(begun), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let report = simulate(seed, false);
            frames.fetch_add(report.frames, Ordering::Relaxed);
            tell(&report);
            let mut failed = failed.lock().unwrap();
            *failed += u64::from(!report.violations.is_empty());
            let mut told = told.lock().unwrap();
            if told.elapsed() > TELL_EVERY {
                *told = Instant::now();
                println!("{} of {} seeds, {failed} failed", seed + 1 - seeds.from, seeds.seeds);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let (failed, seconds) = (failed.into_inner().unwrap(), begun.elapsed().as_secs_f64());
    let (Seeds { seeds, from, .. }, frames) = (seeds, frames.into_inner());
    println!("{seeds} seeds from {from}, {frames} frames, {seconds:.1} s: {failed} failed");
    failed == 0
}

fn tell(report: &Report) {
    if report.violations.is_empty() {
        return;
    }
    let seed = report.seed;
    println!("seed {seed} failed: {}", report.summary);
    for violation in &report.violations {
        println!("  {violation}");
    }
    println!("  again: bureau-bench simulate --seed {seed} --trace");
}

/// The log of every node, on standard error.
fn trace() {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time();
    lines.with_max_level(tracing::Level::DEBUG).init();
}
