//! What a link sends while it is up: what waits for destinations that this peer leads to, urgent
//! lanes first, within a window of what is not answered yet; and receipts on their way home.
//!
//! The queue itself is the store's: a cut costs nothing but what was in flight, and that comes
//! again on the next link.

mod cursor;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bureau_core::{BureauCode, Lane, MessageId, Reason, envelope, receipt::ReceiptKind};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{Operation, QueuePosition, Queued, QueuedSlip, ReceiptPosition};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use self::cursor::Cursors;
use super::{
    Engine,
    links::Slot,
    scribe::Farewell,
    session::{End, Outbound, RECEIPT_BATCHES_MAX},
    store_refusal,
};

/// Messages that are read from the store at one time.
const READ_MAX: usize = 64;
/// Bytes of messages that are read from the store at one time.
const READ_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Receipts in one batch.
const RECEIPTS_MAX: usize = 256;
/// How long a parcel may be without an answer: the peer's disk may be slow, but not that slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long this side waits after the peer said "later".
const LATER: Duration = Duration::from_secs(2);

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
    /// The peer does not take a parcel, or a slip of it.
    Rejected(wire::Rejection),
    /// Receipt batches up to this number are durable at the peer.
    ReceiptsTaken(u64),
}

/// Sends until the session ends.
pub async fn run(
    engine: &Arc<Engine>,
    slot: &Slot,
    window: Window,
    outbound: &Outbound,
    mut events: mpsc::Receiver<PumpEvent>,
) -> End {
    let mut pump = Pump {
        engine,
        slot,
        window,
        outbound,
        cursors: Cursors::default(),
        parcels: BTreeMap::new(),
        slips: HashMap::new(),
        bytes: 0,
        last_parcel: 0,
        batches: BTreeMap::new(),
        receipt_cursors: HashMap::new(),
        last_batch: 0,
        paused_until: None,
    };
    loop {
        while let Ok(event) = events.try_recv() {
            if let Err(end) = pump.take(event).await {
                return end;
            }
        }
        match pump.send_some().await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(end) => return end,
        }
        let deadline = pump.deadline();
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return ended() };
                if let Err(end) = pump.take(event).await {
                    return end;
                }
            }
            () = slot.work.notified() => pump.look_again(),
            () = sleep_until(deadline) => {
                if let Err(end) = pump.late() {
                    return end;
                }
            }
        }
    }
}

fn ended() -> End {
    End {
        reason: Reason::Internal.to_string(),
        detail: "a part of the session ended".to_owned(),
        was_up: true,
    }
}

struct Pump<'a> {
    engine: &'a Arc<Engine>,
    slot: &'a Slot,
    window: Window,
    outbound: &'a Outbound,
    cursors: Cursors,
    /// Sent and not answered, by parcel number.
    parcels: BTreeMap<u64, InFlight>,
    /// The same by slip: which parcel carries it.
    slips: HashMap<(MessageId, BureauCode), u64>,
    bytes: usize,
    last_parcel: u64,
    /// Receipt batches that are not confirmed.
    batches: BTreeMap<u64, Vec<ReceiptPosition>>,
    receipt_cursors: HashMap<BureauCode, u64>,
    last_batch: u64,
    paused_until: Option<Instant>,
}

struct InFlight {
    message: MessageId,
    slips: HashMap<BureauCode, Carried>,
    bytes: usize,
    sent: Instant,
}

struct Carried {
    position: QueuePosition,
    slip_digest: Option<[u8; 32]>,
}

impl Pump<'_> {
    fn look_again(&mut self) {
        self.cursors.look_again();
    }

    /// When something must be looked at even if nothing happens.
    fn deadline(&self) -> Instant {
        let answer = self.parcels.values().next().map(|parcel| parcel.sent + ANSWER_TIMEOUT);
        let idle = Instant::now() + ANSWER_TIMEOUT;
        [answer, self.paused_until].into_iter().flatten().min().unwrap_or(idle)
    }

    fn late(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.look_again();
        }
        let oldest = self.parcels.values().next();
        if oldest.is_some_and(|parcel| parcel.sent + ANSWER_TIMEOUT <= now) {
            return Err(End {
                reason: Reason::Stalled.to_string(),
                detail: "the peer does not answer a parcel".to_owned(),
                was_up: true,
            });
        }
        Ok(())
    }

    /// Sends what there is room for. Whether there may be more.
    async fn send_some(&mut self) -> Result<bool, End> {
        let receipts = self.send_receipts().await?;
        if self.paused_until.is_some() {
            return Ok(receipts);
        }
        let mut sent = false;
        let lanes = self.lanes_with_work();
        for (index, lane) in lanes.iter().enumerate() {
            // Each lower lane that has work keeps a sixteenth of the window.
            let lower = lanes.len() - index - 1;
            let kept = (self.window.parcels / 16) * lower;
            let room = self.window.parcels.saturating_sub(self.parcels.len() + kept);
            if room > 0 && self.bytes < self.window.bytes {
                sent |= self.send_lane(*lane, room).await?;
            }
        }
        self.engine.links.measured(self.slot, u32::try_from(self.parcels.len()).ok(), None);
        Ok(sent || receipts)
    }

    /// Lanes in which something waits that leads over this peer, the most urgent first.
    fn lanes_with_work(&mut self) -> Vec<Lane> {
        let roster = self.engine.trust.roster();
        let (links, peer) = (&self.engine.links, self.slot.peer);
        let mut leads: HashMap<BureauCode, bool> = HashMap::new();
        let depths = self.engine.store.depths();
        let mut lead = |destination: BureauCode| {
            *leads
                .entry(destination)
                .or_insert_with(|| links.next_hop(destination, &roster) == Some(peer))
        };
        let waiting = depths
            .into_iter()
            .filter(|depth| depth.messages > 0 && lead(depth.destination))
            .map(|depth| (depth.lane, depth.destination));
        self.cursors.set_work(waiting);
        self.cursors.lanes()
    }

    async fn send_lane(&mut self, lane: Lane, mut room: usize) -> Result<bool, End> {
        let mut sent = false;
        while room > 0 && self.bytes < self.window.bytes {
            let Some((destination, after)) = self.cursors.next(lane) else { break };
            let limit = room.min(READ_MAX);
            let read_bytes = READ_BYTES_MAX.min(self.window.bytes - self.bytes);
            let queued = self.engine.store.queued(destination, lane, after, limit, read_bytes);
            let queued = queued.await.map_err(|error| store_end(&error))?;
            self.cursors.advance(lane, destination, queued.last().map(|q| q.entry.position.number));
            for queued in queued {
                if self.send_parcel(queued).await? {
                    sent = true;
                    room = room.saturating_sub(1);
                }
            }
        }
        Ok(sent)
    }

    /// Sends one message with every slip of it that leads over this peer.
    async fn send_parcel(&mut self, queued: Queued) -> Result<bool, End> {
        let entry = &queued.entry;
        let (message, peer) = (entry.message, self.slot.peer);
        let known = self.slips.contains_key(&(message, entry.position.destination));
        // What came from this peer does not go back to it; what expired is the timers' to give up.
        let expired = entry.expires <= self.engine.clock.now();
        if known || expired || entry.previous_hop == Some(peer) {
            return Ok(false);
        }
        let carried = Carried { position: entry.position, slip_digest: Some(entry.slip_digest) };
        let mut slips = HashMap::from([(entry.position.destination, carried)]);
        let mut encoded = vec![queued.slip.clone()];
        if entry.fan_out > 1 {
            let others = self.engine.store.queued_slips(message);
            let others = others.await.map_err(|error| store_end(&error))?;
            for QueuedSlip { position, slip } in self.same_way(message, others, &slips) {
                encoded.push(slip);
                slips.insert(position.destination, Carried { position, slip_digest: None });
            }
        }
        let envelope = match envelope::assemble(queued.signed_manifest, queued.body) {
            Ok(envelope) => envelope,
            Err(reason) => {
                // The store checks what it reads, so this is a fault of this software.
                tracing::error!(event = "message_unreadable", message = %message, reason = %reason);
                return Ok(false);
            }
        };
        let bytes = envelope.len() + encoded.iter().map(bytes::Bytes::len).sum::<usize>();
        self.last_parcel += 1;
        let number = self.last_parcel;
        tracing::debug!(event = "parcel_sent", message = %message, peer = %peer, parcel = number,
            slips = encoded.len(), bytes);
        let parcel = wire::Parcel { number, envelope, slips: encoded, hops: entry.hops };
        for destination in slips.keys() {
            self.slips.insert((message, *destination), number);
        }
        let sent = Instant::now();
        self.parcels.insert(number, InFlight { message, slips, bytes, sent });
        self.bytes += bytes;
        self.outbound.send(Kind::Parcel(parcel)).await?;
        Ok(true)
    }

    /// The slips among others that lead over this peer too and are not under way.
    fn same_way(
        &self,
        message: MessageId,
        others: Vec<QueuedSlip>,
        taken: &HashMap<BureauCode, Carried>,
    ) -> Vec<QueuedSlip> {
        let roster = self.engine.trust.roster();
        let fits = |other: &QueuedSlip| {
            let destination = other.position.destination;
            !taken.contains_key(&destination)
                && !self.slips.contains_key(&(message, destination))
                && self.engine.links.next_hop(destination, &roster) == Some(self.slot.peer)
        };
        others.into_iter().filter(fits).collect()
    }

    async fn send_receipts(&mut self) -> Result<bool, End> {
        let roster = self.engine.trust.roster();
        let mut sent = false;
        for destination in self.engine.store.receipt_destinations() {
            if self.batches.len() >= RECEIPT_BATCHES_MAX {
                break;
            }
            if self.engine.links.next_hop(destination, &roster) != Some(self.slot.peer) {
                continue;
            }
            let after = self.receipt_cursors.get(&destination).copied().unwrap_or(0);
            let receipts = self.engine.store.receipts(destination, after, RECEIPTS_MAX);
            let receipts = receipts.await.map_err(|error| store_end(&error))?;
            let Some(last) = receipts.last() else { continue };
            self.receipt_cursors.insert(destination, last.position.number);
            self.last_batch += 1;
            let positions = receipts.iter().map(|receipt| receipt.position).collect();
            self.batches.insert(self.last_batch, positions);
            let receipts = receipts.into_iter().map(|receipt| receipt.receipt).collect();
            let batch = wire::ReceiptBatch { number: self.last_batch, receipts };
            self.outbound.send(Kind::Receipts(batch)).await?;
            sent = true;
        }
        Ok(sent)
    }

    async fn take(&mut self, event: PumpEvent) -> Result<(), End> {
        match event {
            PumpEvent::Answered(answered) => {
                for slip in answered {
                    self.release(slip);
                }
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
                self.engine.store.commit(operations).await.map_err(|error| store_end(&error))?;
                Ok(())
            }
            PumpEvent::Rejected(rejection) => self.rejected(rejection).await,
        }
    }

    /// Takes a slip out of the window; with its last slip the parcel goes.
    fn release(&mut self, slip: (MessageId, BureauCode)) -> Option<Carried> {
        let number = self.slips.remove(&slip)?;
        let parcel = self.parcels.get_mut(&number)?;
        let carried = parcel.slips.remove(&slip.1);
        if parcel.slips.is_empty() {
            self.bytes = self.bytes.saturating_sub(parcel.bytes);
            self.parcels.remove(&number);
        }
        carried
    }

    async fn rejected(&mut self, rejection: wire::Rejection) -> Result<(), End> {
        let Some(parcel) = self.parcels.get(&rejection.parcel_number) else { return Ok(()) };
        let message = parcel.message;
        let concerned: HashSet<BureauCode> = match rejection.recipient.parse() {
            Ok(recipient) => HashSet::from([recipient]),
            Err(_) => parcel.slips.keys().copied().collect(),
        };
        let peer = self.slot.peer;
        let reason: String =
            rejection.reason.chars().filter(char::is_ascii_graphic).take(64).collect();
        tracing::warn!(event = "parcel_refused_by_peer", message = %message, peer = %peer,
            reason = %reason, retryable = rejection.retryable);
        let verdict = Verdict::of(&rejection, &reason);
        for recipient in concerned {
            let Some(carried) = self.release((message, recipient)) else { continue };
            match verdict {
                Verdict::Later => {
                    self.paused_until = Some(Instant::now() + LATER);
                    self.cursors.rewind(carried.position);
                }
                // It stays in the queue, and is offered again on the next link.
                Verdict::Keep => {}
                Verdict::Never => self.give_up(message, recipient, carried, &reason).await?,
            }
        }
        Ok(())
    }

    async fn give_up(
        &self,
        message: MessageId,
        recipient: BureauCode,
        carried: Carried,
        reason: &str,
    ) -> Result<(), End> {
        let slip = match carried.slip_digest {
            Some(digest) => Some(digest),
            None => {
                let tracked = self.engine.store.track(message).await;
                let tracked = tracked.map_err(|error| store_end(&error))?;
                let recipients = tracked.map(|tracked| tracked.recipients).unwrap_or_default();
                recipients.iter().find(|track| track.recipient == recipient).map(|track| track.slip)
            }
        };
        let Some(slip) = slip else { return Ok(()) };
        let farewell = Farewell {
            message,
            recipient,
            slip,
            kind: ReceiptKind::Refused,
            reason: reason.to_owned(),
            advice: format!("{} will not take it; correct it and send it anew", self.slot.peer),
        };
        let gone = self.engine.scribe.give_up(farewell).await;
        let gone = gone.map_err(|refusal| End {
            reason: refusal.reason.to_string(),
            detail: refusal.message,
            was_up: true,
        })?;
        if gone {
            tracing::warn!(event = "message_given_up", message = %message, recipient = %recipient,
                reason, peer = %self.slot.peer);
        }
        Ok(())
    }
}

/// What a rejection means for what was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The peer asks for patience.
    Later,
    /// Clocks or rosters differ between the nodes: time or an operator will mend that.
    Keep,
    /// It will never be taken.
    Never,
}

impl Verdict {
    fn of(rejection: &wire::Rejection, reason: &str) -> Self {
        if rejection.retryable {
            return Self::Later;
        }
        match reason.parse() {
            Ok(
                Reason::AlreadyExpired
                | Reason::CreatedInFuture
                | Reason::UnknownBureau
                | Reason::UnknownKey
                | Reason::KeyNotValid
                | Reason::NoRoute,
            ) => Self::Keep,
            _ => Self::Never,
        }
    }
}

fn store_end(error: &bureau_store::StoreError) -> End {
    let refusal = store_refusal(error);
    End { reason: refusal.reason.to_string(), detail: refusal.message, was_up: true }
}
