//! `bureau peers`: the links, as the node sees them.

use std::path::Path;

use bureau_proto::admin::v1::{
    LinkState, ListPeersRequest, Peer, PingPeerRequest, RetryPeerRequest,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    client::{AdminFace, Desk},
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

/// See the peers and the link to each
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PeersCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    Ping(PingArgs),
    Retry(RetryArgs),
}

/// Ask a peer over its link whether it is there, and how long the answer takes
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The peer's code
    #[arg(value_name = "CODE")]
    pub(crate) peer: String,
    /// How often, one after the other
    #[arg(long, env = "BUREAU_PING_COUNT", value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(i32).range(1..=100))]
    pub(crate) count: i32,
}

/// Dial a peer now, as if no attempt had failed before
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The peer's code
    #[arg(value_name = "CODE")]
    pub(crate) peer: String,
}

#[derive(Serialize)]
struct PingView {
    peer: String,
    round_trip_micros: Vec<u64>,
}

#[derive(Serialize)]
struct RetryView {
    dialed: bool,
    peer: Option<PeerView>,
}

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
    rate_bytes_per_second: Option<u64>,
    metered: bool,
    bulk_hours: Option<String>,
    dials: bool,
}

pub(crate) async fn run(
    args: PeersArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    match args.command {
        None => {
            let mut client = face.client.clone();
            let listed = face.call(client.list_peers(ListPeersRequest {})).await?;
            show(listed.peers, output)
        }
        Some(PeersCommand::Ping(args)) => ping(&face, args, output).await,
        Some(PeersCommand::Retry(args)) => retry(&face, args, output).await,
    }
}

async fn ping(face: &AdminFace, args: PingArgs, output: &mut Output) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let request = PingPeerRequest { bureau: args.peer.clone(), count: args.count };
    let pinged = face.call(client.ping_peer(request)).await?;
    let micros = pinged.round_trip_micros;
    if output.is_json() {
        return output.document(&PingView { peer: args.peer, round_trip_micros: micros });
    }
    for (number, micros) in (1..).zip(&micros) {
        output.line(&format!("{} answered ping {number} in {}", args.peer, millis(*micros)))?;
    }
    let (least, most) = (micros.iter().min().copied(), micros.iter().max().copied());
    if let (Some(least), Some(most), true) = (least, most, micros.len() > 1) {
        let mean = micros.iter().sum::<u64>() / micros.len() as u64;
        let [least, mean, most] = [least, mean, most].map(millis);
        output.line(&format!("least {least}, mean {mean}, most {most}"))?;
    }
    Ok(())
}

async fn retry(face: &AdminFace, args: RetryArgs, output: &mut Output) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let request = RetryPeerRequest { bureau: args.peer.clone() };
    let retried = face.call(client.retry_peer(request)).await?;
    if output.is_json() {
        let peer = retried.peer.map(PeerView::from);
        return output.document(&RetryView { dialed: retried.dialed, peer });
    }
    let is_up = retried.peer.is_some_and(|peer| peer.state() == LinkState::Up);
    let done = match (retried.dialed, is_up) {
        (true, _) => "is dialed now",
        (false, true) => "is up; there is nothing to do",
        (false, false) => "is not dialed from here; only the peer dials",
    };
    output.line(&format!("{} {done}", args.peer))
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// A rate for people: in kbit/s, as links are sold.
fn rate(bytes_per_second: u64) -> String {
    match bytes_per_second.saturating_mul(8) / 1000 {
        0 if bytes_per_second == 0 => "-".to_owned(),
        kbit @ 0..10_000 => format!("{kbit} kbit/s"),
        kbit => format!("{} Mbit/s", kbit / 1000),
    }
}

fn show(peers: Vec<Peer>, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&View { peers: peers.into_iter().map(PeerView::from).collect() });
    }
    if peers.is_empty() {
        return output.line("no peer is configured");
    }
    let now = wire::now();
    let heads =
        ["PEER", "LINK", "SINCE", "#QUEUED", "#IN FLIGHT", "#ROUND TRIP", "#RATE", "REMARK"];
    let mut table = Table::new(&heads);
    for peer in &peers {
        let round_trip = match peer.round_trip_micros {
            0 => "-".to_owned(),
            micros => millis(micros),
        };
        table.row([
            &peer.bureau,
            &wire::link_state(peer.state),
            &wire::shown_distance(peer.state_since_time.as_ref(), now),
            &peer.queued.to_string(),
            &peer.in_flight.to_string(),
            &round_trip,
            &rate(peer.rate_bytes_per_second),
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
    if peer.metered {
        remarks.push("metered".to_owned());
    }
    if !peer.bulk_hours.is_empty() {
        remarks.push(format!("attachments {} UTC", peer.bulk_hours));
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
        } else if !peer.dials {
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
            rate_bytes_per_second: Some(peer.rate_bytes_per_second).filter(|rate| *rate > 0),
            metered: peer.metered,
            bulk_hours: wire::filled(&peer.bulk_hours),
            dials: peer.dials,
            bureau: peer.bureau,
        }
    }
}

#[cfg(test)]
#[path = "peers/tests.rs"]
mod tests;
