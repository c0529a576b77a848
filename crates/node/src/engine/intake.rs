//! What a link brings: verified in bulk away from the reactor, decided, committed, answered. One
//! bad parcel is refused by itself; the line behind it moves on.

pub mod parts;
pub mod pieces;
pub mod receipts;

use std::{sync::Arc, time::Duration};

use bureau_core::{
    BundleId, BureauCode, Envelope, MessageId, Reason, Slip, Timestamp, Verified, Verifier, body,
    envelope::SealingSuite, limits::HOPS_MAX, slip::Count,
};
use bureau_net::Refusal;
use bureau_proto::{
    envelope::v1 as envelope_wire,
    link::v1::{self as wire, frame::Kind},
};
use bureau_store::contract::ReceiveAction;
use prost::Message as _;
use tokio::sync::mpsc;

use self::receipts::{RECEIPTS_PER_BATCH_MAX, take_receipts};
use super::{
    Engine,
    outbound::{End, Outbound},
    pump::PumpEvent,
    scribe::{Inbound, InboundSlip, ParcelAnswer},
};

/// Parcels and receipt batches that are verified and committed together.
const TOGETHER_MAX: usize = 256;
/// Slips in one parcel: no message has more recipients.
const SLIPS_PER_PARCEL_MAX: usize = 1024;

/// Something that a link brought.
#[derive(Debug)]
pub enum Brought {
    /// A message.
    Parcel(wire::Parcel),
    /// Receipts.
    Receipts(wire::ReceiptBatch),
}

/// Takes in what a session's reader hands over, until the session ends.
pub async fn run(
    engine: &Arc<Engine>,
    hop: BureauCode,
    mut brought: mpsc::Receiver<Brought>,
    outbound: &Outbound,
    events: &mpsc::Sender<PumpEvent>,
) -> End {
    let intake = Intake { engine, hop, outbound, events };
    let mut together = Vec::with_capacity(TOGETHER_MAX);
    loop {
        if brought.recv_many(&mut together, TOGETHER_MAX).await == 0 {
            return End::of_link(Reason::Stalled, "nothing more comes in");
        }
        let (mut parcels, mut batches) = (Vec::new(), Vec::new());
        for brought in together.drain(..) {
            match brought {
                Brought::Parcel(parcel) => parcels.push(parcel),
                Brought::Receipts(batch) => batches.push(batch),
            }
        }
        // Receipts first: they make room, here and at the peer.
        if !batches.is_empty()
            && let Err(end) = intake.receipts(batches).await
        {
            return end;
        }
        if !parcels.is_empty()
            && let Err(end) = intake.parcels(parcels).await
        {
            return end;
        }
    }
}

struct Intake<'a> {
    engine: &'a Arc<Engine>,
    hop: BureauCode,
    outbound: &'a Outbound,
    events: &'a mpsc::Sender<PumpEvent>,
}

/// A parcel after verification: what is taken, and what of it is not.
pub(super) struct Judged {
    pub(super) number: u64,
    pub(super) inbound: Option<Inbound>,
    pub(super) rejections: Vec<wire::Rejection>,
}

impl Intake<'_> {
    async fn parcels(&self, parcels: Vec<wire::Parcel>) -> Result<(), End> {
        let judge = Judge::new(self.engine, self.hop);
        let judged = self.engine.machine.offload(move || {
            parcels.into_iter().map(|parcel| judge.parcel(parcel)).collect::<Vec<_>>()
        });
        let judged = judged.await.map_err(|error| task_failed(&error))?;
        let (mut numbers, mut inbound) = (Vec::new(), Vec::new());
        for judged in judged {
            for rejection in judged.rejections {
                self.reject(rejection).await?;
            }
            if let Some(taken) = judged.inbound {
                numbers.push(judged.number);
                inbound.push(taken);
            }
        }
        if inbound.is_empty() {
            return Ok(());
        }
        let seen: Vec<_> = inbound.iter().map(Seen::of).collect();
        match self.engine.scribe.receive(inbound).await {
            Ok(answers) => self.answer(&seen, &numbers, answers).await,
            Err(refusal) => {
                for number in numbers {
                    self.reject(retryable(number, &refusal)).await?;
                }
                Ok(())
            }
        }
    }

    async fn reject(&self, rejection: wire::Rejection) -> Result<(), End> {
        note_rejection(self.engine, self.hop, "link", &rejection);
        self.outbound.send(Kind::Rejection(rejection)).await.map(|_| ())
    }

    /// Logs what is new and sends the receipts.
    async fn answer(
        &self,
        seen: &[Seen],
        numbers: &[u64],
        answers: Vec<ParcelAnswer>,
    ) -> Result<(), End> {
        let mut receipts = Vec::new();
        for ((seen, number), answers) in seen.iter().zip(numbers).zip(answers) {
            let answers = match answers {
                Ok(answers) => answers,
                Err(reason) => {
                    let text = "an attachment has not come yet";
                    self.reject(retryable(*number, &Refusal::new(reason, text))).await?;
                    continue;
                }
            };
            for ((recipient, action), answer) in seen.slips.iter().zip(answers) {
                if answer.fresh {
                    seen.note(self.engine, self.hop, *recipient, *action);
                }
                if let Some(first) = answer.fork {
                    self.engine.metrics.fork();
                    tracing::error!(
                        event = "fork_found",
                        message = %seen.message, origin = %seen.origin, first = %first,
                        lane = %seen.lane, peer = %self.hop
                    );
                }
                receipts.push(answer.receipt);
            }
        }
        for receipts in receipts.chunks(RECEIPTS_PER_BATCH_MAX) {
            // Number 0: the parcel comes again where this answer is lost, so it is not confirmed.
            let (receipts, home) = (receipts.to_vec(), String::new());
            let batch = wire::ReceiptBatch { number: 0, receipts, home };
            self.outbound.send(Kind::Receipts(batch)).await?;
        }
        Ok(())
    }

    async fn receipts(&self, batches: Vec<wire::ReceiptBatch>) -> Result<(), End> {
        let number = batches.iter().map(|batch| batch.number).max();
        let taken = take_receipts(self.engine, self.hop, batches, "link").await?;
        if !taken.passed_on.is_empty() {
            let event = PumpEvent::PassedOn(taken.passed_on);
            self.events.send(event).await.map_err(|_| End::part_ended())?;
        }
        if !taken.answered.is_empty() {
            let event = PumpEvent::Answered(taken.answered);
            self.events.send(event).await.map_err(|_| End::part_ended())?;
        }
        if let Some(number) = number.filter(|number| *number > 0) {
            self.outbound.send(Kind::ReceiptsTaken(wire::ReceiptBatchTaken { number })).await?;
        }
        Ok(())
    }
}

/// Logs and counts what is not taken.
pub(super) fn note_rejection(
    engine: &Engine,
    hop: BureauCode,
    way: &'static str,
    rejection: &wire::Rejection,
) {
    engine.metrics.refused(way, &rejection.reason);
    tracing::warn!(
        event = "parcel_rejected",
        peer = %hop,
        parcel = rejection.parcel_number,
        recipient = %rejection.recipient,
        reason = %rejection.reason,
        detail = %rejection.detail,
        retryable = rejection.retryable
    );
}

/// What is logged of a message after it was handed over.
pub(super) struct Seen {
    message: MessageId,
    origin: BureauCode,
    lane: bureau_core::Lane,
    created: Timestamp,
    pub(super) slips: Vec<(BureauCode, ReceiveAction)>,
}

impl Seen {
    pub(super) fn of(inbound: &Inbound) -> Self {
        let manifest = inbound.envelope.manifest();
        let slip = |slip: &InboundSlip| (slip.slip.label().recipient, slip.action);
        Self {
            message: inbound.envelope.id(),
            origin: manifest.origin,
            lane: manifest.lane,
            created: manifest.created,
            slips: inbound.slips.iter().map(slip).collect(),
        }
    }

    /// Logs and counts what was new.
    pub(super) fn note(
        &self,
        engine: &Engine,
        peer: BureauCode,
        recipient: BureauCode,
        action: ReceiveAction,
    ) {
        let Self { message, origin, lane, .. } = *self;
        let metrics = &engine.metrics;
        match action {
            ReceiveAction::Deliver => {
                metrics.delivered(lane);
                let took_ms = engine.clock.now().since(self.created);
                metrics.forwarded(Duration::from_millis(u64::try_from(took_ms).unwrap_or(0)));
                tracing::info!(
                    event = "message_delivered",
                    message = %message, origin = %origin, lane = %lane, peer = %peer
                );
            }
            ReceiveAction::Relay => {
                metrics.relayed(lane);
                tracing::info!(
                    event = "message_relayed",
                    message = %message, origin = %origin, recipient = %recipient, lane = %lane,
                    peer = %peer
                );
            }
            ReceiveAction::Refuse => {
                tracing::warn!(
                    event = "message_refused",
                    message = %message, origin = %origin, lane = %lane, peer = %peer
                );
            }
        }
    }
}

/// Judges parcels; runs where it may block.
pub(super) struct Judge {
    engine: Arc<Engine>,
    verifier: Arc<Verifier>,
    now: Timestamp,
    hop: BureauCode,
    bundle: Option<BundleId>,
}

impl Judge {
    /// A judge of what a hop brings now.
    pub(super) fn new(engine: &Arc<Engine>, hop: BureauCode) -> Self {
        let (verifier, now) = (engine.trust.verifier(), engine.clock.now());
        Self { engine: Arc::clone(engine), verifier, now, hop, bundle: None }
    }

    /// A judge of what a hop's bundle brings now.
    pub(super) fn of_bundle(engine: &Arc<Engine>, hop: BureauCode, bundle: BundleId) -> Self {
        Self { bundle: Some(bundle), ..Self::new(engine, hop) }
    }

    pub(super) fn parcel(&self, parcel: wire::Parcel) -> Judged {
        let number = parcel.number;
        let mut judged = Judged { number, inbound: None, rejections: Vec::new() };
        let whole = |reason| vec![rejection(number, None, reason)];
        if parcel.hops > HOPS_MAX {
            judged.rejections = whole(Reason::TooManyHops);
            return judged;
        }
        if parcel.slips.is_empty() || parcel.slips.len() > SLIPS_PER_PARCEL_MAX {
            judged.rejections = whole(Reason::Malformed);
            return judged;
        }
        let envelope = match self.verifier.envelope(parcel.envelope, self.now) {
            Ok(envelope) => envelope,
            Err(refusal) => {
                judged.rejections = whole(refusal.reason);
                return judged;
            }
        };
        let mut slips = Vec::with_capacity(parcel.slips.len());
        for bytes in parcel.slips {
            match self.verifier.slip(bytes, &envelope, self.now) {
                Err(reason) => {
                    // Only a faulty origin signs such a parcel: nothing of it is taken.
                    judged.rejections = whole(reason);
                    return judged;
                }
                Ok(slip) => {
                    let recipient = slip.label().recipient;
                    match self.action(&envelope, &slip) {
                        Ok((action, reason)) => slips.push(InboundSlip { slip, action, reason }),
                        Err(reason) => {
                            judged.rejections.push(rejection(number, Some(recipient), reason));
                        }
                    }
                }
            }
        }
        if !slips.is_empty() {
            let (hop, hops, refills, bundle) = (self.hop, parcel.hops, parcel.refills, self.bundle);
            judged.inbound = Some(Inbound { envelope, slips, hop, hops, refills, bundle });
        }
        judged
    }

    /// What is done with a slip, and why where it is refused by a signed receipt. `Err`: only the
    /// hop is answered.
    fn action(
        &self,
        envelope: &Verified<Envelope>,
        slip: &Verified<Slip>,
    ) -> Result<(ReceiveAction, Option<Reason>), Reason> {
        let (bureau, recipient) = (self.engine.bureau(), slip.label().recipient);
        let manifest = envelope.manifest();
        if recipient == bureau {
            return Ok(match self.check_body(envelope, slip) {
                Ok(()) => (ReceiveAction::Deliver, None),
                Err(reason) => (ReceiveAction::Refuse, Some(reason)),
            });
        }
        let roster = self.verifier.roster();
        let relays = roster.member(&bureau).is_ok_and(|member| member.relay);
        if !relays && manifest.origin != bureau {
            return Err(Reason::WrongRecipient);
        }
        // Back to where it came from is no way: that hop keeps custody and finds another.
        let links = &self.engine.links;
        if links.next_hop_avoiding(recipient, &[self.hop], roster).is_none() {
            return Err(Reason::NoRoute);
        }
        Ok((ReceiveAction::Relay, None))
    }

    /// The rules a desk's submission had to pass hold here again: nobody is trusted for them.
    fn check_body(
        &self,
        envelope: &Verified<Envelope>,
        slip: &Verified<Slip>,
    ) -> Result<(), Reason> {
        let suite = envelope.manifest().suite;
        if !self.engine.config.policy.sealing_suites.contains(&suite) {
            return Err(Reason::SuiteNotAllowed);
        }
        match suite {
            SealingSuite::Open => {
                Count::decode(slip.label().private.clone())?;
                let body = envelope_wire::Body::decode(envelope.body().clone());
                let body = body.map_err(|_| Reason::Malformed)?;
                let limits = &self.engine.config.limits.message;
                let said = body.attachments.iter().map(|attachment| attachment.size);
                let named = envelope.manifest().attachments.iter().map(|content| content.size);
                if !said.eq(named) {
                    return Err(Reason::DigestMismatch);
                }
                body::check(&body, limits).first().map_or(Ok(()), |fault| Err(fault.reason))
            }
            SealingSuite::Unspecified => Err(Reason::UnknownSuite),
        }
    }
}

fn rejection(number: u64, recipient: Option<BureauCode>, reason: Reason) -> wire::Rejection {
    wire::Rejection {
        parcel_number: number,
        recipient: recipient.map(|code| code.to_string()).unwrap_or_default(),
        reason: reason.to_string(),
        detail: String::new(),
        retryable: false,
    }
}

fn retryable(number: u64, refusal: &Refusal) -> wire::Rejection {
    wire::Rejection {
        parcel_number: number,
        recipient: String::new(),
        reason: refusal.reason.to_string(),
        detail: refusal.message.clone(),
        retryable: true,
    }
}

fn task_failed(error: &tokio::task::JoinError) -> End {
    tracing::error!(event = "task_failed", task = "intake", error = %error);
    End::of_link(Reason::Internal, "a task failed")
}
