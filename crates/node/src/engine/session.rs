//! One link while it is up: greeting, reading, pings, and the end. What it sends is the pump's,
//! what it brings is the intake's.

use std::{pin::Pin, sync::Arc, time::Duration};

use bureau_core::{BureauCode, NodeName, Reason, Timestamp, limits::CLOCK_SKEW_MS_MAX};
use bureau_net::Refusal;
use bureau_proto::link::v1::{self as wire, Frame, frame::Kind};
use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Status};

use super::{
    Engine, dialer,
    intake::{
        self, Brought,
        parts::{self, FileEvent},
        pieces::Assembly,
    },
    links::Slot,
    outbound::{End, Outbound, frame},
    pump::{self, PumpEvent},
    repair::{epochs, intake as statements},
    squeeze,
};

/// The one protocol version there is.
const PROTOCOL_VERSION: u32 = 1;
/// Frames on their way into the connection. HTTP/2 holds more; this only decouples the tasks.
pub const OUTBOUND_FRAMES_MAX: usize = 32;
/// Receipt batches that a peer may send before they are confirmed.
pub const RECEIPT_BATCHES_MAX: usize = 4;
/// Parts of attachments that wait for the disk: 64 KiB each.
const FILE_EVENTS_MAX: usize = 16;
/// How long a peer may take to greet.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the parts of a session may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest frame that is sent or taken.
pub const FRAME_BYTES_MAX: u32 = 4 * 1024 * 1024;

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

/// Greets, runs the session to its end, and says why it ended.
pub async fn run(engine: &Arc<Engine>, peer: Peer, dialed_by: BureauCode, mut wire: Wire) -> End {
    let end = match greet(engine, &peer, &mut wire).await {
        Ok(hello) => {
            if let Err(end) = epochs::greeted(engine, peer.bureau, &hello).await {
                say_bye(&wire.outbound, &end).await;
                return end;
            }
            let now = engine.clock.now();
            let node = peer.node.clone();
            match engine.links.begin(peer.bureau, node, &software(&hello), dialed_by, now) {
                Ok(slot) => {
                    if slot.was_away {
                        dialer::forget(engine, slot.peer).await;
                    }
                    return up(engine, slot, &hello, wire).await;
                }
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
            zstd: true,
        }),
        software: concat!("bureau ", env!("CARGO_PKG_VERSION")).to_owned(),
        high_waters: epochs::statements_of(engine, peer.bureau).await?,
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
    let outbound = Outbound::new(wire.outbound, stall, limits.zstd);

    let mut end = {
        let assembly = Assembly::default();
        let (files, file_events) = mpsc::channel(FILE_EVENTS_MAX);
        let (said, heard) = mpsc::channel(statements::STATEMENT_FRAMES_MAX);
        let mut reader = Reader {
            outbound: &outbound,
            brought,
            events: &events,
            files,
            statements: said,
            assembly,
        };
        let hearing = statements::run(engine, peer, heard);
        let filing = parts::run(engine, peer, file_events, &outbound);
        let reading = reader.run(wire.inbound);
        let taking = intake::run(engine, peer, taken_in, &outbound, &events);
        let pumping = pump::run(engine, &slot, window, &outbound, pump_events);
        tokio::select! {
            // The order is that of how much the reason tells.
            biased;
            () = slot.cancel.cancelled() =>
                End::new(engine.links.cancel_reason(), "ended by this node"),
            end = reading => end,
            end = taking => end,
            end = pumping => end,
            end = filing => end,
            end = hearing => end,
        }
    };
    end.was_up = true;
    say_bye(outbound.frames(), &end).await;
    engine.links.end(&slot, &end.reason, engine.clock.now());
    tracing::info!(event = "link_down", peer = %peer, reason = %end.reason, detail = %end.detail);
    end
}

/// Reads until the session ends.
struct Reader<'a> {
    outbound: &'a Outbound,
    brought: mpsc::Sender<Brought>,
    events: &'a mpsc::Sender<PumpEvent>,
    files: mpsc::Sender<FileEvent>,
    statements: mpsc::Sender<statements::Brought>,
    assembly: Assembly,
}

impl Reader<'_> {
    async fn run(&mut self, mut inbound: Inbound) -> End {
        loop {
            let frame = match timeout(self.outbound.stall(), inbound.next()).await {
                Err(_elapsed) => return End::new(Reason::Stalled, "the peer is silent"),
                Ok(None) => return End::new(Reason::Stalled, "the peer closed the stream"),
                Ok(Some(Err(status))) => return end_of_status(&status),
                Ok(Some(Ok(frame))) => frame,
            };
            self.outbound.note_heard();
            let taken = match frame.kind {
                Some(Kind::Zstd(squeezed)) => match squeeze::unsqueeze(&squeezed) {
                    Ok(frame) => self.take(frame.kind).await,
                    Err(reason) => Err(End::new(reason, "a compressed frame that is none")),
                },
                kind => self.take(kind).await,
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn take(&mut self, kind: Option<Kind>) -> Result<(), End> {
        match kind {
            Some(Kind::Parcel(parcel)) => self.bring(Brought::Parcel(parcel)),
            Some(Kind::ParcelPiece(piece)) => match self.assembly.take(&piece) {
                Ok(None) => Ok(()),
                Ok(Some(parcel)) => self.bring(Brought::Parcel(parcel)),
                Err(reason) => Err(End::new(reason, "pieces of a parcel that do not fit")),
            },
            Some(Kind::Receipts(batch)) => self.bring(Brought::Receipts(batch)),
            Some(Kind::ReceiptsTaken(taken)) => {
                self.tell(PumpEvent::ReceiptsTaken(taken.number)).await
            }
            Some(Kind::Rejection(rejection)) => self.tell(PumpEvent::Rejected(rejection)).await,
            Some(Kind::Ping(ping)) => {
                let pong = Kind::Pong(wire::Pong { number: ping.number });
                self.outbound.send(pong).await.map(|_| ())
            }
            Some(Kind::Offer(offer)) => self.bring_file(FileEvent::Offer(offer)).await,
            Some(Kind::Part(part)) => self.bring_file(FileEvent::Part(part)).await,
            Some(Kind::PartTaken(taken)) => self.tell(PumpEvent::PartTaken(taken)).await,
            Some(Kind::Pong(pong)) => self.tell(PumpEvent::Pong(pong.number)).await,
            Some(Kind::HighWaters(batch)) => {
                self.bring_statements(statements::Brought::Sent(batch)).await
            }
            Some(Kind::Shortfalls(batch)) => {
                self.bring_statements(statements::Brought::Missing(batch)).await
            }
            Some(Kind::Bye(bye)) => Err(end_of_bye(&bye)),
            Some(Kind::Hello(_)) => Err(End::new(Reason::ProtocolViolation, "a second greeting")),
            // Repair and rosters over links: a peer that offers them is not answered.
            Some(Kind::Need(_) | Kind::Roster(_) | Kind::Zstd(_)) | None => Ok(()),
        }
    }

    fn bring(&self, brought: Brought) -> Result<(), End> {
        let overrun =
            |_| End::new(Reason::ProtocolViolation, "the peer sends more than its window");
        self.brought.try_send(brought).map_err(overrun)
    }

    /// Parts wait for the disk, and what is behind them with them: the sender has few on their way.
    async fn bring_file(&self, event: FileEvent) -> Result<(), End> {
        self.files.send(event).await.map_err(|_| End::part_ended())
    }

    /// Statements wait to be verified, and what is behind them with them: an honest peer has few.
    async fn bring_statements(&self, brought: statements::Brought) -> Result<(), End> {
        self.statements.send(brought).await.map_err(|_| End::part_ended())
    }

    async fn tell(&self, event: PumpEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::part_ended())
    }
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
