//! What it means that the peer does not take something.

use std::time::Duration;

use bureau_core::{BureauCode, MessageId, Reason, receipt::ReceiptKind};
use bureau_proto::link::v1 as wire;
use tokio::time::Instant;

use super::{Pump, flight::Carried};
use crate::engine::{outbound::End, scribe::Farewell};

/// How long this side waits after the peer said "later".
const LATER: Duration = Duration::from_secs(2);

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
            match verdict {
                Verdict::Later => {
                    if reason == Reason::AttachmentMissing.as_str() {
                        // What the peer had is gone again. Nothing else need wait for that.
                        self.transfers.pause(Instant::now());
                    } else {
                        self.paused_until = Some(Instant::now() + LATER);
                    }
                    self.cursors.rewind(carried.position);
                }
                // It stays in the queue, and is offered again on the next link.
                Verdict::Keep => {}
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
                self.transfers.put_off(entry.position);
                Ok(())
            }
            Verdict::Keep => Ok(()),
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
