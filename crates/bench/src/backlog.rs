//! A peer that was away: messages accepted meanwhile, the sender killed, and all must arrive once.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bureau_proto::desk::v1::DeliveryState;
use serde::Serialize;

use crate::{
    Format, desks,
    harness::{Network, desk::message},
    program,
};

#[derive(Debug, Serialize)]
struct Outcome {
    accepted: usize,
    arrived: usize,
    lost: usize,
    duplicated: usize,
    restart_ms: u128,
    drain_seconds: f64,
    drained_per_second: f64,
    receipts_of_sample: usize,
    sample: usize,
}

pub(crate) async fn run(queued: usize, output: Format) -> bool {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    eprintln!("{queued} messages are accepted while KE is down");
    let callers = 32;
    let each = queued.div_ceil(callers);
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let mut client = network.desk("FR").client().await;
        let count = each.min(queued.saturating_sub(caller * each));
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::with_capacity(count);
            for number in 0..count {
                let request = message(&["KE"], &format!("{caller} {number} {}", "x".repeat(1000)));
                ids.push(client.submit(request).await.unwrap().into_inner().message_id);
            }
            ids
        }));
    }
    let mut ids = Vec::with_capacity(queued);
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    eprintln!("FR is killed (-9) and started again; KE comes back");
    network.kill("FR");
    let begun = Instant::now();
    network.start("FR").await;
    let restart = begun.elapsed();
    let begun = Instant::now();
    network.start("KE").await;
    let fr = network.desk("FR");
    while fr.depths().await.iter().map(|depth| depth.messages).sum::<u64>() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(600), "it does not drain");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let drain = begun.elapsed();
    let inbox = network.desk("KE").inbox().await;
    let arrived: HashSet<&String> = inbox.iter().map(|(_, id)| id).collect();
    let sample: Vec<&String> = ids.iter().step_by((ids.len() / 50).max(1)).collect();
    for id in &sample {
        fr.tracked(id, "KE", DeliveryState::Delivered).await;
    }
    let outcome = Outcome {
        accepted: ids.len(),
        arrived: arrived.len(),
        lost: ids.iter().filter(|id| !arrived.contains(id)).count(),
        duplicated: inbox.len() - arrived.len() + ids.len() - desks::distinct(&ids),
        restart_ms: restart.as_millis(),
        drain_seconds: drain.as_secs_f64(),
        drained_per_second: ids.len() as f64 / drain.as_secs_f64(),
        receipts_of_sample: sample.len(),
        sample: sample.len(),
    };
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&outcome).unwrap()),
        Format::Table => println!("{outcome:#?}"),
    }
    outcome.lost == 0 && outcome.duplicated == 0
}
