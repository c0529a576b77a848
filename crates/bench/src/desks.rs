//! Desks that send: each with a connection of its own, one request at a time.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bureau_proto::desk::v1::{SubmitRequest, desk_service_client::DeskServiceClient};
use tonic::transport::Channel;

use crate::{
    harness::{Desk, desk::message},
    report::Latencies,
};

/// A request with an id of its own.
pub(crate) fn request(text: &str) -> SubmitRequest {
    SubmitRequest { request_id: uuid::Uuid::now_v7().to_string(), ..message(&["KE"], text) }
}

/// What a desk got back.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) latencies: Latencies,
    pub(crate) ids: Vec<String>,
    pub(crate) attempts: u64,
    /// Request ids that gave two messages.
    pub(crate) forked: u64,
}

/// Sends as fast as answers come, until the time is over.
pub(crate) async fn flood(desk: Desk, text: String, end: Instant) -> Sent {
    let mut client = desk.client().await;
    let mut sent = Sent::default();
    while Instant::now() < end {
        let begun = Instant::now();
        let response = client.submit(request(&text)).await.unwrap();
        sent.latencies.note(begun.elapsed());
        sent.ids.push(response.into_inner().message_id);
    }
    sent
}

/// Sends at a pace whatever happens to the node, each request until it is answered; now and then
/// it asks again, and must get the same message.
pub(crate) async fn persist(
    desk: Desk,
    name: usize,
    period: Duration,
    stop: Arc<AtomicBool>,
) -> Sent {
    let mut sent = Sent::default();
    let mut client = None;
    let mut ticks = tokio::time::interval(period);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        sent.attempts += 1;
        let request = request(&format!("message {} of desk {name}", sent.attempts));
        let Some(id) = until_answered(&desk, &mut client, &request, &stop).await else { break };
        if sent.attempts.is_multiple_of(17)
            && let Some(again) = until_answered(&desk, &mut client, &request, &stop).await
            && again != id
        {
            sent.forked += 1;
        }
        sent.ids.push(id);
    }
    sent
}

type Client = Option<DeskServiceClient<Channel>>;

/// `None`: it was stopped while nobody answered.
async fn until_answered(
    desk: &Desk,
    client: &mut Client,
    request: &SubmitRequest,
    stop: &AtomicBool,
) -> Option<String> {
    loop {
        if client.is_none() {
            let channel = desk.channel().await.ok();
            *client = channel.map(|channel| DeskServiceClient::new(channel.channel()));
        }
        if let Some(connected) = client {
            match connected.submit(request.clone()).await {
                Ok(response) => return Some(response.into_inner().message_id),
                Err(_) => *client = None,
            }
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many different ids there are.
pub(crate) fn distinct(ids: &[String]) -> usize {
    ids.iter().collect::<HashSet<_>>().len()
}
