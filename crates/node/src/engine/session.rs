//! One link while it is up: greeting, reading, pings, and the end. What it sends is the pump's,
//! what it brings is the intake's.

use std::{pin::Pin, sync::Arc, time::Duration};

use bureau_core::{BureauCode, NodeName, Reason, Timestamp, limits::CLOCK_SKEW_MS_MAX};
use bureau_net::Refusal;
use bureau_proto::link::v1::{self as wire, Frame, frame::Kind};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, timeout},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};

use super::{
    Engine,
    intake::{self, Brought},
    links::Slot,
    pump::{self, PumpEvent},
};

/// The one protocol version there is.
const PROTOCOL_VERSION: u32 = 1;
/// Frames on their way into the connection. HTTP/2 holds more; this only decouples the tasks.
pub const OUTBOUND_FRAMES_MAX: usize = 32;
/// Receipt batches that a peer may send before they are confirmed.
pub const RECEIPT_BATCHES_MAX: usize = 4;
/// How long a peer may take to greet.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the parts of a session may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest frame that is sent or taken.
const FRAME_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// Frames that come in.
pub type Inbound = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// The two directions of a stream between two nodes, whoever dialed.
pub struct Wire {
    /// What the peer says.
    pub inbound: Inbound,
    /// What is said to the peer. Dropping it ends the stream.
    pub outbound: mpsc::Sender<Frame>,
}

/// Who the peer is, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its bureau.
    pub bureau: BureauCode,
    /// Its node.
    pub node: NodeName,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// A stable reason.
    pub reason: String,
    /// More for the operator.
    pub detail: String,
    /// Whether the link was up before.
    pub was_up: bool,
}

impl End {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_string(), detail: detail.into(), was_up: false }
    }
}

/// A frame of a kind.
#[must_use]
pub const fn frame(kind: Kind) -> Frame {
    Frame { kind: Some(kind) }
}

/// Greets, runs the session to its end, and says why it ended.
pub async fn run(engine: &Arc<Engine>, peer: Peer, dialed_by: BureauCode, mut wire: Wire) -> End {
    let end = match greet(engine, &peer, &mut wire).await {
        Ok(hello) => {
            let now = engine.clock.now();
            let node = peer.node.clone();
            match engine.links.begin(peer.bureau, node, &software(&hello), dialed_by, now) {
                Ok(slot) => return up(engine, slot, &hello, wire).await,
                Err(refusal) => End::new(refusal.reason, refusal.message),
            }
        }
        Err(end) => end,
    };
    say_bye(&wire.outbound, &end).await;
    end
}

/// What the peer says it runs, short and clean enough for a table.
fn software(hello: &wire::Hello) -> String {
    let clean = |c: &char| c.is_ascii_graphic() || *c == ' ';
    hello.software.chars().filter(clean).take(40).collect()
}

async fn greet(engine: &Engine, peer: &Peer, wire: &mut Wire) -> Result<wire::Hello, End> {
    let config = &engine.config;
    let hello = wire::Hello {
        protocol_version_max: PROTOCOL_VERSION,
        protocol_version_min: PROTOCOL_VERSION,
        bureau: config.bureau.to_string(),
        node: config.node.to_string(),
        epoch: Bytes::copy_from_slice(&engine.store.epoch().0),
        roster_serial: engine.trust.roster().serial(),
        time: Some(engine.clock.now().to_wire()),
        limits: Some(wire::LinkLimits {
            window_parcels: config.links.window_parcels,
            window_bytes: config.links.window_bytes,
            frame_bytes: FRAME_BYTES_MAX,
        }),
        software: concat!("bureau ", env!("CARGO_PKG_VERSION")).to_owned(),
        high_waters: Vec::new(),
    };
    let closed = |_| End::new(Reason::Stalled, "the stream closed before the greeting");
    wire.outbound.send(frame(Kind::Hello(hello))).await.map_err(closed)?;
    let first = match timeout(HELLO_TIMEOUT, wire.inbound.next()).await {
        Err(_elapsed) => return Err(End::new(Reason::Stalled, "no greeting in time")),
        Ok(None) => return Err(End::new(Reason::Stalled, "the peer closed before the greeting")),
        Ok(Some(Err(status))) => return Err(end_of_status(&status)),
        Ok(Some(Ok(frame))) => frame,
    };
    match first.kind {
        Some(Kind::Hello(hello)) => {
            check_hello(&hello, peer, engine.clock.now())?;
            Ok(hello)
        }
        Some(Kind::Bye(bye)) => Err(end_of_bye(&bye)),
        _ => Err(End::new(Reason::ProtocolViolation, "the first frame is no greeting")),
    }
}

fn check_hello(hello: &wire::Hello, peer: &Peer, now: Timestamp) -> Result<(), End> {
    let versions = hello.protocol_version_min..=hello.protocol_version_max;
    if !versions.contains(&PROTOCOL_VERSION) {
        let detail = format!("the peer speaks {versions:?}, this node {PROTOCOL_VERSION}");
        return Err(End::new(Reason::VersionUnsupported, detail));
    }
    if hello.bureau != peer.bureau.as_str() || hello.node != peer.node.as_str() {
        return Err(End::new(Reason::WrongBureau, "greeting and certificate name different nodes"));
    }
    if hello.epoch.len() != 16 {
        return Err(End::new(Reason::Malformed, "an epoch must have 16 bytes"));
    }
    let Some(time) = Timestamp::from_wire(hello.time.as_ref()) else {
        return Err(End::new(Reason::Malformed, "the greeting has no time"));
    };
    let skew_ms = time.since(now);
    if skew_ms.abs() > CLOCK_SKEW_MS_MAX {
        let detail = format!("the peer's clock is off by {} s", skew_ms / 1000);
        tracing::error!(event = "clock_skew", peer = %peer.bureau, skew_ms);
        return Err(End::new(Reason::ClockSkew, detail));
    }
    Ok(())
}

async fn up(engine: &Arc<Engine>, slot: Slot, hello: &wire::Hello, wire: Wire) -> End {
    let (peer, node) = (slot.peer, hello.node.as_str());
    tracing::info!(event = "link_up", peer = %peer, node, roster_serial = hello.roster_serial);
    let links = &engine.config.links;
    let limits = hello.limits.unwrap_or_default();
    let window = pump::Window {
        parcels: limits.window_parcels.clamp(1, links.window_parcels) as usize,
        bytes: usize::try_from(limits.window_bytes.clamp(1, links.window_bytes))
            .unwrap_or(usize::MAX),
    };
    // The peer's window of parcels, an answer for each of this side's, and receipts: with an
    // honest peer the reader never waits for room, so the two sides cannot wait for each other.
    let room = 2 * links.window_parcels as usize + RECEIPT_BATCHES_MAX;
    let (brought, taken_in) = mpsc::channel(room);
    let (events, pump_events) = mpsc::channel(1024);
    let stall = Duration::from_millis(links.stall_ms);
    let outbound = Outbound { frames: wire.outbound, stall };

    let mut end = {
        let reading = read(engine, &slot, wire.inbound, &outbound, brought, &events);
        let taking = intake::run(engine, peer, taken_in, &outbound, &events);
        let pumping = pump::run(engine, &slot, window, &outbound, pump_events);
        let pinging = ping(links.ping_ms, &outbound);
        tokio::select! {
            // The order is that of how much the reason tells.
            biased;
            () = slot.cancel.cancelled() =>
                End::new(engine.links.cancel_reason(), "ended by this node"),
            end = reading => end,
            end = taking => end,
            end = pumping => end,
            end = pinging => end,
        }
    };
    end.was_up = true;
    say_bye(&outbound.frames, &end).await;
    engine.links.end(&slot, &end.reason, engine.clock.now());
    tracing::info!(event = "link_down", peer = %peer, reason = %end.reason, detail = %end.detail);
    end
}

/// The way out of a session, with the time a frame may take.
pub struct Outbound {
    frames: mpsc::Sender<Frame>,
    stall: Duration,
}

impl Outbound {
    /// Sends a frame; waits while the connection takes none.
    ///
    /// # Errors
    /// Why the session ends: STALLED where the connection takes nothing for too long.
    pub async fn send(&self, kind: Kind) -> Result<(), End> {
        match timeout(self.stall, self.frames.send(frame(kind))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::new(Reason::Stalled, "the connection is closed")),
            Err(_) => Err(End::new(Reason::Stalled, "the connection takes no more frames")),
        }
    }
}

async fn read(
    engine: &Engine,
    slot: &Slot,
    mut inbound: Inbound,
    outbound: &Outbound,
    brought: mpsc::Sender<Brought>,
    events: &mpsc::Sender<PumpEvent>,
) -> End {
    let overrun = || End::new(Reason::ProtocolViolation, "the peer sends more than its window");
    let ended = || End::new(Reason::Internal, "a part of the session ended");
    loop {
        let frame = match timeout(outbound.stall, inbound.next()).await {
            Err(_elapsed) => return End::new(Reason::Stalled, "the peer is silent"),
            Ok(None) => return End::new(Reason::Stalled, "the peer closed the stream"),
            Ok(Some(Err(status))) => return end_of_status(&status),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.kind {
            Some(Kind::Parcel(parcel)) => {
                if brought.try_send(Brought::Parcel(parcel)).is_err() {
                    return overrun();
                }
            }
            Some(Kind::Receipts(batch)) => {
                if brought.try_send(Brought::Receipts(batch)).is_err() {
                    return overrun();
                }
            }
            Some(Kind::ReceiptsTaken(taken)) => {
                if events.send(PumpEvent::ReceiptsTaken(taken.number)).await.is_err() {
                    return ended();
                }
            }
            Some(Kind::Rejection(rejection)) => {
                if events.send(PumpEvent::Rejected(rejection)).await.is_err() {
                    return ended();
                }
            }
            Some(Kind::Ping(ping)) => {
                let pong = Kind::Pong(wire::Pong { number: ping.number });
                if let Err(end) = outbound.send(pong).await {
                    return end;
                }
            }
            Some(Kind::Pong(pong)) => {
                // The number is this node's own clock in microseconds when it asked.
                let micros = micros_now().saturating_sub(pong.number);
                let round_trip = Duration::from_micros(micros);
                engine.links.measured(slot, None, Some(round_trip));
            }
            Some(Kind::Bye(bye)) => return end_of_bye(&bye),
            Some(Kind::Hello(_)) => {
                return End::new(Reason::ProtocolViolation, "a second greeting");
            }
            // Attachments, repair and rosters over links: a peer that offers them is not answered.
            Some(
                Kind::Part(_)
                | Kind::PartTaken(_)
                | Kind::Need(_)
                | Kind::Roster(_)
                | Kind::HighWaters(_),
            )
            | None => {}
        }
    }
}

async fn ping(ping_ms: u64, outbound: &Outbound) -> End {
    let period = Duration::from_millis(ping_ms.max(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    loop {
        ticks.tick().await;
        if let Err(end) = outbound.send(Kind::Ping(wire::Ping { number: micros_now() })).await {
            return end;
        }
    }
}

/// Microseconds of a clock that only this process reads.
fn micros_now() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn say_bye(outbound: &mpsc::Sender<Frame>, end: &End) {
    let bye = wire::Bye { reason: end.reason.clone(), detail: end.detail.clone() };
    // The peer may be gone already; then there is nobody to tell.
    drop(timeout(END_TIMEOUT, outbound.send(frame(Kind::Bye(bye)))).await);
}

fn end_of_bye(bye: &wire::Bye) -> End {
    let detail = format!("said by the peer: {}", clean_text(&bye.detail));
    End { reason: clean_text(&bye.reason), detail, was_up: false }
}

fn clean_text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Why a stream ended, from its status.
#[must_use]
pub fn end_of_status(status: &Status) -> End {
    let received = Refusal::from_status(status);
    let reason = received.reason.unwrap_or_else(|| match received.code {
        // What the transport says by itself of a frame above its limit.
        Code::OutOfRange => Reason::TooLarge.to_string(),
        code => format!("{code:?}").to_uppercase(),
    });
    End { reason, detail: clean_text(&received.message), was_up: false }
}
