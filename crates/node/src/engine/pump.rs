//! What a link sends while it is up: what waits for destinations that this peer leads to, urgent
//! lanes first, within a window of what is not answered yet; and receipts on their way home.
//!
//! The queue itself is the store's: a cut costs nothing but what was in flight, and that comes
//! again on the next link.
//!
//! - `work`: what there is to send; `cursor`: how far each queue was read; `shares`: who goes next; `pace`: how much goes;
//! - `flight`: what was sent and is not answered; `verdict`: what a refusal means;
//! - `transfers`: attachments, below everything else; `drain`: how many messages a second;
//! - `turn`: what was held or recalled while it was read ahead;
//! - `waits`: what must be looked at, and when.

mod cursor;
mod drain;
mod flight;
mod pace;
mod shares;
mod statements;
mod transfers;
mod turn;
mod verdict;
mod waits;
mod work;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bureau_core::{BureauCode, MessageId, envelope};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{Operation, QueuePosition, Queued, QueuedSlip, ReceiptPosition};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::{
    cursor::Cursors,
    drain::Drain,
    flight::{Carried, Flight},
    pace::Pace,
    shares::{ATTACHMENTS, CLASSES, Room, Shares},
    transfers::Transfers,
    verdict::Kept,
    work::Leads,
};
use super::{
    Engine,
    links::Slot,
    outbound::{End, Outbound},
    transit::Departure,
};
pub use transfers::TRANSFERS_MAX;

/// Messages that are read from the store at one time.
const READ_MAX: usize = 64;
/// Bytes of messages that are read from the store at one time and lane: at least one of any size.
const READ_BYTES_MAX: usize = 512 * 1024;
/// Receipts in one batch.
const RECEIPTS_MAX: usize = 256;
/// A parcel of up to so many pieces' size goes whole.
const WHOLE_PIECES: usize = 2;

/// How much may be without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Parcels.
    pub parcels: usize,
    /// Bytes of parcels.
    pub bytes: usize,
}

/// Something that concerns what was sent.
#[derive(Debug)]
pub enum PumpEvent {
    /// These were answered by receipts that are durable here.
    Answered(Vec<(MessageId, BureauCode)>),
    /// The peer had these before, and will not take them again.
    PassedOn(Vec<(MessageId, BureauCode)>),
    /// The peer does not take a parcel, or a slip of it.
    Rejected(wire::Rejection),
    /// Receipt batches up to this number are durable at the peer.
    ReceiptsTaken(u64),
    /// A ping was answered.
    Pong(u64),
    /// From where on the peer needs an attachment.
    PartTaken(wire::PartTaken),
}

/// Sends until the session ends.
pub async fn run(
    engine: &Arc<Engine>,
    slot: &Slot,
    window: Window,
    outbound: &Outbound,
    mut events: mpsc::Receiver<PumpEvent>,
) -> End {
    let mut pump = Pump::new(engine, slot, window, outbound);
    let end = pump.run(&mut events).await;
    match end {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

struct Pump<'a> {
    engine: &'a Arc<Engine>,
    slot: &'a Slot,
    window: Window,
    outbound: &'a Outbound,
    leads: Leads,
    cursors: Cursors,
    /// The last message of each lane that came here by a detour.
    detoured: [Option<QueuePosition>; 4],
    /// What was read of each lane and not sent.
    ready: [VecDeque<Queued>; 4],
    /// The parcel of each lane that is being sent piece by piece.
    pieces: [Option<Pieces>; 4],
    flight: Flight,
    transfers: Transfers,
    last_parcel: u64,
    /// The last turn that what was read ahead knows of.
    as_of: u64,
    /// Receipt batches that are not confirmed.
    batches: BTreeMap<u64, Vec<ReceiptPosition>>,
    receipt_cursors: HashMap<BureauCode, u64>,
    last_batch: u64,
    pace: Pace,
    shares: Shares,
    drain: Drain,
    next_ping: Instant,
    paused_until: Option<Instant>,
    /// What the peer did not take, and may take later.
    kept: Kept,
    /// What was told of what was sent and what is missing.
    told: statements::Told,
    /// What waits may lead elsewhere than when last looked at.
    look: bool,
    /// When that was last asked while something was sent.
    looked: Instant,
}

/// An encoded parcel, as far as it is not sent.
struct Pieces {
    number: u64,
    parcel: Bytes,
    sent: usize,
}

enum Never {}

impl<'a> Pump<'a> {
    fn new(
        engine: &'a Arc<Engine>,
        slot: &'a Slot,
        window: Window,
        outbound: &'a Outbound,
    ) -> Self {
        let now = Instant::now();
        Self {
            engine,
            slot,
            window,
            outbound,
            leads: Leads::default(),
            cursors: Cursors::default(),
            detoured: [None; 4],
            ready: Default::default(),
            pieces: Default::default(),
            flight: Flight::new(Arc::clone(&engine.links)),
            transfers: Transfers::default(),
            last_parcel: 0,
            as_of: engine.links.transit().turn(),
            batches: BTreeMap::new(),
            receipt_cursors: HashMap::new(),
            last_batch: 0,
            pace: Pace::new(now),
            shares: Shares::default(),
            drain: Drain::new(engine.config.links.messages_per_second, now),
            next_ping: now,
            paused_until: None,
            kept: Kept::default(),
            told: statements::Told::default(),
            look: true,
            looked: now,
        }
    }

    async fn run(&mut self, events: &mut mpsc::Receiver<PumpEvent>) -> Result<Never, End> {
        loop {
            while let Ok(event) = events.try_recv() {
                self.take(event).await?;
            }
            self.look_if_notified().await;
            self.go_on_if_due();
            self.ping_if_due().await?;
            if self.send_receipts().await? | self.send_statements().await? | self.send_one().await?
            {
                continue;
            }
            // Now that nothing more goes, a mark shows when it has arrived.
            self.ping_if_due().await?;
            let deadline = self.deadline();
            tokio::select! {
                biased;
                // First, because work and events may never end.
                () = sleep_until(deadline) => self.late()?,
                happened = events.recv() => {
                    self.take(happened.ok_or_else(End::part_ended)?).await?;
                }
                () = self.slot.work.notified() => self.look_again(),
            }
        }
    }

    /// Pings mark what was sent; where nothing is, they show that the peer is there. On an idle
    /// link either side's ping shows it to both, and every byte costs: there it is enough to ask
    /// twice before the link counts as stalled.
    async fn ping_if_due(&mut self) -> Result<(), End> {
        let (sent, now) = (self.outbound.sent_bytes(), Instant::now());
        let asked = self.slot.pings.is_asked();
        if now < self.next_ping && !asked && !self.pace.wants_mark(sent, now) {
            return Ok(());
        }
        if now >= self.next_ping {
            // Rosters and hours change without a word; so often they are looked at.
            self.leads.forget();
            self.look = true;
        }
        if !asked && !self.pace.wants_mark(sent, now) {
            let due = self.outbound.heard() + self.outbound.stall() / 2;
            if self.is_idle() && now < due && !self.pace.is_fresh() {
                self.next_ping = due;
                return Ok(());
            }
        }
        let number = self.pace.mark(sent, now);
        self.slot.pings.sent(number);
        self.next_ping = now + Duration::from_millis(self.engine.config.links.ping_ms.max(1));
        self.outbound.send(Kind::Ping(wire::Ping { number })).await?;
        Ok(())
    }

    /// Whether nothing is under way to the peer.
    fn is_idle(&self) -> bool {
        self.flight.parcels() == 0 && self.batches.is_empty() && self.transfers.is_empty()
    }

    /// Sends the next parcel, or a piece of one. Whether something was sent or there may be more.
    async fn send_one(&mut self) -> Result<bool, End> {
        self.follow_turns();
        if self.look {
            self.withdraw_what_leads_elsewhere().await?;
        }
        self.find_work();
        let mut work = [false; CLASSES];
        for (index, work) in work.iter_mut().enumerate().take(4) {
            *work = self.has_work(index).await?;
        }
        if let Some(work) = work.get_mut(ATTACHMENTS) {
            let now = self.engine.clock.now();
            *work = self.transfers.has_work()
                && self.engine.links.may_send_bulk(self.slot.peer, now)
                && self.engine.links.held(self.slot.peer).is_none();
        }
        let sent = self.outbound.sent_bytes();
        let room = Room {
            ordinary: self.pace.has_room(sent, Instant::now()),
            urgent: self.pace.has_urgent_room(sent),
        };
        let piece_bytes = self.pace.piece_bytes();
        let Some(class) = self.shares.next(work, room, piece_bytes) else { return Ok(false) };
        let bytes = match class {
            ATTACHMENTS => self.send_part(piece_bytes).await?,
            lane => self.send_of_lane(lane, piece_bytes).await?,
        };
        self.shares.sent(class, bytes, work);
        self.show_flight();
        Ok(true)
    }

    /// Says what is on its way now: also when less is.
    fn show_flight(&self) {
        let in_flight = u32::try_from(self.flight.parcels()).ok();
        self.engine.links.measured(self.slot, in_flight, None, self.pace.rate());
    }

    /// Sends a lane's next parcel, or the next piece of it. Gives its bytes.
    async fn send_of_lane(&mut self, index: usize, piece_bytes: usize) -> Result<usize, End> {
        if let Some(Some(pieces)) = self.pieces.get_mut(index) {
            let end = (pieces.sent + piece_bytes).min(pieces.parcel.len());
            let piece = wire::ParcelPiece {
                number: pieces.number,
                size: u32::try_from(pieces.parcel.len()).unwrap_or(u32::MAX),
                offset: u32::try_from(pieces.sent).unwrap_or(u32::MAX),
                data: pieces.parcel.slice(pieces.sent..end),
            };
            let (number, done) = (pieces.number, end == pieces.parcel.len());
            pieces.sent = end;
            if done && let Some(pieces) = self.pieces.get_mut(index) {
                *pieces = None;
            }
            self.flight.sent_now(number);
            return self.outbound.send(Kind::ParcelPiece(piece)).await;
        }
        let next = self.ready.get_mut(index).and_then(VecDeque::pop_front);
        let Some(queued) = next else { return Ok(0) };
        if !self.may_go(&queued) {
            self.transfers.forget(queued.entry.message);
            return Ok(0);
        }
        let Some(queued) = self.is_cleared(index, queued).await? else { return Ok(0) };
        let Some(parcel) = self.parcel(queued).await? else { return Ok(0) };
        if parcel.encoded_len() <= WHOLE_PIECES * piece_bytes {
            return self.outbound.send(Kind::Parcel(parcel)).await;
        }
        let (number, parcel) = (parcel.number, Bytes::from(parcel.encode_to_vec()));
        if let Some(pieces) = self.pieces.get_mut(index) {
            *pieces = Some(Pieces { number, parcel, sent: 0 });
        }
        Ok(0)
    }

    /// One message with every slip of it that leads over this peer, noted as in flight.
    async fn parcel(&mut self, queued: Queued) -> Result<Option<wire::Parcel>, End> {
        let entry = &queued.entry;
        let (message, peer) = (entry.message, self.slot.peer);
        let carried = Carried { position: entry.position, slip_digest: Some(entry.slip_digest) };
        let mut slips = BTreeMap::from([(entry.position.destination, carried)]);
        let mut encoded = vec![queued.slip.clone()];
        if entry.fan_out > 1 {
            let others = self.engine.store.queued_slips(message);
            let others = others.await.map_err(|error| End::of_store(&error))?;
            for QueuedSlip { position, slip, .. } in self.same_way(message, others, &slips) {
                encoded.push(slip);
                slips.insert(position.destination, Carried { position, slip_digest: None });
            }
        }
        let envelope = match envelope::assemble(queued.signed_manifest, queued.body) {
            Ok(envelope) => envelope,
            Err(reason) => {
                self.set_aside(message, slips.into_keys().collect(), reason.as_str()).await?;
                return Ok(None);
            }
        };
        let bytes = envelope.len() + encoded.iter().map(Bytes::len).sum::<usize>();
        self.last_parcel += 1;
        let number = self.last_parcel;
        let departure = self.flight.begin(number, message, slips.clone(), (bytes, self.as_of));
        if departure != Departure::Go {
            self.stayed(departure, slips.values());
            return Ok(None);
        }
        tracing::debug!(event = "parcel_sent", message = %message, peer = %peer, parcel = number,
            slips = encoded.len(), bytes);
        self.slot.doing.sent(message, slips.keys().copied());
        self.drain.take();
        Ok(Some(wire::Parcel {
            number,
            envelope,
            slips: encoded,
            hops: entry.hops,
            refills: entry.refills,
        }))
    }

    async fn take(&mut self, event: PumpEvent) -> Result<(), End> {
        match event {
            PumpEvent::Answered(answered) => {
                for slip in answered {
                    self.flight.release(slip);
                    self.slot.doing.answered(slip.0, slip.1);
                }
                self.show_flight();
                Ok(())
            }
            PumpEvent::PassedOn(slips) => {
                for slip in slips {
                    if let Some(carried) = self.flight.release(slip) {
                        // Read again, it is seen to avoid this peer.
                        self.cursors.rewind(carried.position);
                        self.look = true;
                    }
                }
                self.show_flight();
                Ok(())
            }
            PumpEvent::ReceiptsTaken(number) => {
                let later = self.batches.split_off(&number.saturating_add(1));
                let taken = std::mem::replace(&mut self.batches, later);
                let positions: Vec<_> = taken.into_values().flatten().collect();
                if positions.is_empty() {
                    return Ok(());
                }
                let operations = vec![Operation::ReceiptsTaken(positions)];
                let taken = self.engine.store.commit(operations).await;
                taken.map(|_| ()).map_err(|error| End::of_store(&error))
            }
            PumpEvent::Pong(number) => {
                let round_trip = self.pace.answered(number, Instant::now());
                if let Some(round_trip) = round_trip {
                    self.slot.pings.answered(number, round_trip);
                }
                self.engine.links.measured(self.slot, None, round_trip, self.pace.rate());
                Ok(())
            }
            PumpEvent::PartTaken(taken) => {
                self.part_taken(&taken);
                Ok(())
            }
            PumpEvent::Rejected(rejection) => {
                let taken = self.rejected(rejection).await;
                self.show_flight();
                taken
            }
        }
    }
}
