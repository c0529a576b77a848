//! A whole node: durable submissions over mutual TLS, and the way to the next node.

use std::time::{Duration, Instant};

use bureau_proto::desk::v1::DeliveryState;

use crate::{
    Load, desks,
    harness::Network,
    program,
    report::{Latencies, Report, Usage},
};

/// Submissions a second while the way to the next node is measured.
const PACE: u64 = 100;

pub(crate) async fn measure(load: Load, report: &mut Report) {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let text = "x".repeat(load.size);
    // Connected one after the other: the node bounds handshakes of one address.
    let desk = network.desk("FR");
    let before = Usage::of(network.pid("FR"));
    let started = Instant::now();
    let end = started + Duration::from_secs(load.seconds);
    let mut callers = Vec::new();
    for _ in 0..load.clients {
        callers.push(tokio::spawn(desks::flood(desk.clone(), text.clone(), end)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut latencies = Latencies::default();
    for caller in callers {
        latencies.add(&caller.await.unwrap().latencies);
    }
    let after = Usage::of(network.pid("FR"));
    let what = format!("node: Submit over mTLS, {} clients", load.clients);
    let row = report.add(&what, started.elapsed(), &latencies);
    let usage = Usage { cpu: after.cpu.saturating_sub(before.cpu), ..after };
    row.node(usage, latencies.count());

    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    network.desk("FR").linked("KE", true).await;
    forward(&network, load, &text, report).await;
}

/// From the call to Submit until the next node shows the message, verified and durable.
async fn forward(network: &Network, load: Load, text: &str, report: &mut Report) {
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let mut client = fr.client().await;
    let mut inbox = ke.watch(0).await;
    let mut latencies = Latencies::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(1000 / PACE));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(load.seconds) {
        ticks.tick().await;
        let begun = Instant::now();
        let response = client.submit(desks::request(text)).await.unwrap();
        let arrived = inbox.next().await.unwrap().entry.unwrap();
        latencies.note(begun.elapsed());
        assert_eq!(arrived.message_id, response.into_inner().message_id);
    }
    let what = format!("node: Submit until the next node shows it, {PACE}/s");
    report.add(&what, started.elapsed(), &latencies);
    let last = ke.inbox().await.pop().unwrap().1;
    fr.tracked(&last, "KE", DeliveryState::Delivered).await;
}
