//! Promise 6: a link that is down for long. So many messages are accepted while it is; then it comes
//! back. How soon the first arrives, how fast the others, what that costs the traffic that goes on
//! all the time, and how much memory; the sender is killed and started again in between, with all
//! of it queued.

use std::time::{Duration, Instant};

use bureau_proto::{desk::v1::SubmitRequest, envelope::v1::Lane};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::{
    checker::{Checker, Tally},
    peak_mib, print,
};
use crate::{
    Format,
    harness::{Desk, Network, desk::message, proxy::Link},
    program,
};

/// Desks that fill the queue.
const CALLERS: usize = 32;
/// Memory that a node may take, in MiB.
const MEMORY_MIB: f64 = 256.0;
/// How long the queue may take to drain.
const DRAINING: Duration = Duration::from_secs(900);

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Outage {
    /// Messages of 1 KiB that are accepted while the link is down.
    #[arg(long, default_value_t = 100_000)]
    queued: usize,
    /// Messages in a second that are sent all the time, beside them.
    #[arg(long, default_value_t = 50)]
    rate: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    queued: usize,
    queued_per_second: f64,
    /// From the start of the killed sender until it serves.
    restart_ms: u128,
    /// From the return of the link until the first message has arrived.
    first_ms: u128,
    drain_seconds: f64,
    drained_per_second: f64,
    #[serde(flatten)]
    tally: Tally,
    peak_mib: Vec<(&'static str, f64)>,
}

pub(crate) async fn outage(outage: Outage, output: Format) -> bool {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let link = network.over("FR", "KE", |plan| plan.latency_ms(20)).await;
    network.start_all(&["FR", "KE"]).await;
    network.desk("FR").linked("KE", true).await;
    link.sever();
    let checker = Checker::begin(&network, outage.rate);
    let begun = Instant::now();
    let ids = fill(&network, outage.queued).await;
    let queued_per_second = ids.len() as f64 / begun.elapsed().as_secs_f64();
    eprintln!("{} messages are queued; FR is killed (-9) and started again", ids.len());
    let peak_before = peak_mib(network.pid("FR"));
    network.kill("FR");
    let begun = Instant::now();
    network.start("FR").await;
    let restart = begun.elapsed();
    let (first, drain) = drain(&network.desk("FR"), &link, &checker).await;
    let queued = ids.len();
    let tally = checker.end(ids).await;
    let peak_mib = vec![
        ("FR before the kill", peak_before),
        ("FR", peak_mib(network.pid("FR"))),
        ("KE", peak_mib(network.pid("KE"))),
    ];
    let outcome = Outcome {
        queued,
        queued_per_second,
        restart_ms: restart.as_millis(),
        first_ms: first.as_millis(),
        drain_seconds: drain.as_secs_f64(),
        drained_per_second: queued as f64 / drain.as_secs_f64(),
        tally,
        peak_mib,
    };
    print(&outcome, output);
    outcome.tally.is_good() && outcome.peak_mib.iter().all(|(_, mib)| *mib <= MEMORY_MIB)
}

async fn fill(network: &Network, queued: usize) -> Vec<String> {
    let each = queued.div_ceil(CALLERS);
    let mut tasks: Vec<JoinHandle<Vec<String>>> = Vec::new();
    for caller in 0..CALLERS {
        let mut client = network.desk("FR").client().await;
        let count = each.min(queued.saturating_sub(caller * each));
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::with_capacity(count);
            for number in 0..count {
                let text = format!("{caller} {number} {}", "x".repeat(1000));
                let lane = Lane::Routine.into();
                let request = SubmitRequest { lane, ..message(&["KE"], &text) };
                ids.push(client.submit(request).await.unwrap().into_inner().message_id);
            }
            ids
        }));
    }
    let mut ids = Vec::with_capacity(queued);
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids
}

/// Mends the link. How long the first message took from then on, and how long all that waited.
async fn drain(desk: &Desk, link: &Link, checker: &Checker) -> (Duration, Duration) {
    let before = checker.arrived();
    link.mend();
    let begun = Instant::now();
    while checker.arrived() == before {
        assert!(begun.elapsed() < DRAINING, "nothing arrives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = begun.elapsed();
    eprintln!("the link is back; the first message took {first:?}");
    // What is sent meanwhile waits, too: at its rate there is never more than a second's worth.
    while desk.depths().await.iter().map(|depth| depth.messages).sum::<u64>() > 100 {
        assert!(begun.elapsed() < DRAINING, "it does not drain");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (first, begun.elapsed())
}
