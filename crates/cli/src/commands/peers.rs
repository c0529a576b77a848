//! `bureau peers`: the links, as the node sees them.

use std::path::Path;

use bureau_proto::admin::v1::{LinkState, ListPeersRequest, Peer};
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

#[derive(Serialize)]
struct View {
    peers: Vec<PeerView>,
}

#[derive(Serialize)]
struct PeerView {
    bureau: String,
    node: Option<String>,
    state: String,
    state_since_time: Option<String>,
    next_attempt_time: Option<String>,
    failed_attempts: u32,
    last_reason: Option<String>,
    in_flight: u32,
    queued: u64,
    round_trip_micros: u64,
    relay: bool,
    address: Option<String>,
    software: Option<String>,
}

pub(crate) async fn run(profile: Option<&Path>, output: &mut Output) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let listed = face.call(client.list_peers(ListPeersRequest {})).await?;
    show(listed.peers, output)
}

fn show(peers: Vec<Peer>, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&View { peers: peers.into_iter().map(PeerView::from).collect() });
    }
    if peers.is_empty() {
        return output.line("no peer is configured");
    }
    let now = wire::now();
    let heads = ["PEER", "LINK", "SINCE", "#QUEUED", "#IN FLIGHT", "#ROUND TRIP", "REMARK"];
    let mut table = Table::new(&heads);
    for peer in &peers {
        let round_trip = match peer.round_trip_micros {
            0 => "-".to_owned(),
            micros => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        };
        table.row([
            &peer.bureau,
            &wire::link_state(peer.state),
            &wire::shown_distance(peer.state_since_time.as_ref(), now),
            &peer.queued.to_string(),
            &peer.in_flight.to_string(),
            &round_trip,
            &remark(peer, now),
        ]);
    }
    output.table(table)
}

fn remark(peer: &Peer, now: bureau_core::Timestamp) -> String {
    let mut remarks = Vec::new();
    if peer.relay {
        remarks.push("relay".to_owned());
    }
    if peer.state() != LinkState::Up {
        if !peer.last_reason.is_empty() {
            remarks.push(peer.last_reason.clone());
        }
        if peer.failed_attempts > 0 {
            remarks.push(format!("{} tries failed", peer.failed_attempts));
        }
        if peer.next_attempt_time.is_some() {
            let next = wire::shown_distance(peer.next_attempt_time.as_ref(), now);
            remarks.push(format!("next {next}"));
        } else if peer.address.is_empty() {
            remarks.push("only the peer dials".to_owned());
        }
    }
    remarks.join(", ")
}

impl From<Peer> for PeerView {
    fn from(peer: Peer) -> Self {
        Self {
            node: wire::filled(&peer.node),
            state: wire::link_state(peer.state),
            state_since_time: wire::time(peer.state_since_time.as_ref()),
            next_attempt_time: wire::time(peer.next_attempt_time.as_ref()),
            failed_attempts: peer.failed_attempts,
            last_reason: wire::filled(&peer.last_reason),
            in_flight: peer.in_flight,
            queued: peer.queued,
            round_trip_micros: peer.round_trip_micros,
            relay: peer.relay,
            address: wire::filled(&peer.address),
            software: wire::filled(&peer.software),
            bureau: peer.bureau,
        }
    }
}

#[cfg(test)]
#[path = "peers/tests.rs"]
mod tests;
