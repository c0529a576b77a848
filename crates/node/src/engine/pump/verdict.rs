//! What it means that the peer does not take something.

use std::{collections::BTreeMap, time::Duration};

use bureau_core::{BureauCode, Lane, MessageId, Reason, receipt::ReceiptKind};
use bureau_proto::link::v1 as wire;
use bureau_store::contract::QueuePosition;
use tokio::time::Instant;

use super::{Pump, flight::Carried};
use crate::engine::{outbound::End, scribe::Farewell};

/// How long this side waits after the peer said "later".
const LATER: Duration = Duration::from_secs(2);

/// After so long it is tried again whether the peer takes what it did not take: operators mend
/// rosters and routes in minutes, and what is sent in vain costs the link.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Where reading must go back to for what the peer may take later.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The first of each queue.
    first: BTreeMap<(Lane, BureauCode), QueuePosition>,
    until: Option<Instant>,
}

impl Kept {
    fn note(&mut self, position: QueuePosition, now: Instant) {
        let queue = (position.lane, position.destination);
        let first = self.first.entry(queue).or_insert(position);
        first.number = first.number.min(position.number);
        self.until.get_or_insert(now + KEPT_FOR);
    }

    /// When the next try is due.
    pub(super) const fn due_at(&self) -> Option<Instant> {
        self.until
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<QueuePosition> {
        if self.until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        self.until = None;
        std::mem::take(&mut self.first).into_values().collect()
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

/// The reason, fit for a log and a receipt.
fn clean(rejection: &wire::Rejection) -> String {
    rejection.reason.chars().filter(char::is_ascii_graphic).take(64).collect()
}

impl Pump<'_> {
    /// The peer does not take a parcel, or a slip of it.
    pub(super) async fn rejected(&mut self, rejection: wire::Rejection) -> Result<(), End> {
        let Some((message, slips)) = self.flight.parcel(rejection.parcel_number) else {
            return self.rejected_offer(&rejection).await;
        };
        let concerned = match rejection.recipient.parse() {
            Ok(recipient) => vec![recipient],
            Err(_) => slips,
        };
        let peer = self.slot.peer;
        let reason = clean(&rejection);
        tracing::warn!(event = "parcel_refused_by_peer", message = %message, peer = %peer,
            reason = %reason, retryable = rejection.retryable);
        let verdict = Verdict::of(&rejection, &reason);
        for recipient in concerned {
            let Some(carried) = self.flight.release((message, recipient)) else { continue };
            self.slot.doing.answered(message, recipient);
            match verdict {
                Verdict::Later => {
                    if reason == Reason::AttachmentMissing.as_str() {
                        // What the peer had is gone again. Nothing else need wait for that.
                        self.transfers.pause(Instant::now());
                    } else {
                        let until = Instant::now() + LATER;
                        self.paused_until = Some(until);
                        self.slot.doing.paused(until, &reason, false);
                    }
                    self.cursors.rewind(carried.position);
                }
                Verdict::Keep => {
                    if reason == Reason::NoRoute.as_str() {
                        self.engine.links.no_route(peer, recipient);
                    }
                    self.slot.doing.kept(message, recipient, &reason);
                    self.kept.note(carried.position, Instant::now());
                }
                Verdict::Never => self.give_up(message, recipient, carried, &reason).await?,
            }
        }
        Ok(())
    }

    /// The peer does not take the attachments of a message.
    async fn rejected_offer(&mut self, rejection: &wire::Rejection) -> Result<(), End> {
        let Some(queued) = self.offer_rejected(rejection.parcel_number) else { return Ok(()) };
        let (entry, peer) = (&queued.entry, self.slot.peer);
        let reason = clean(rejection);
        tracing::warn!(event = "offer_refused_by_peer", message = %entry.message, peer = %peer,
            reason = %reason, retryable = rejection.retryable);
        match Verdict::of(rejection, &reason) {
            Verdict::Later => {
                // Only attachments wait: what has none goes on.
                self.transfers.pause(Instant::now());
                if let Some(until) = self.transfers.paused_until {
                    self.slot.doing.paused(until, &reason, true);
                }
                self.transfers.put_off(entry.position);
                Ok(())
            }
            Verdict::Keep => {
                self.slot.doing.kept(entry.message, entry.position.destination, &reason);
                self.kept.note(entry.position, Instant::now());
                Ok(())
            }
            Verdict::Never => {
                let others = self.engine.store.queued_slips(entry.message).await;
                let others = others.map_err(|error| End::of_store(&error))?;
                let roster = self.engine.trust.roster();
                for other in others {
                    let destination = other.position.destination;
                    if self.engine.links.next_hop(destination, &roster) == Some(peer) {
                        let carried = Carried { position: other.position, slip_digest: None };
                        self.give_up(entry.message, destination, carried, &reason).await?;
                    }
                }
                Ok(())
            }
        }
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
                let tracked = tracked.map_err(|error| End::of_store(&error))?;
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
        let gone = gone.map_err(|refusal| End::of_link(refusal.reason, refusal.message))?;
        if gone {
            tracing::warn!(event = "message_given_up", message = %message, recipient = %recipient,
                reason, peer = %self.slot.peer);
        }
        Ok(())
    }
}
