//! Attachments that a link brings: nothing without a member's signed word that there is such a
//! message, and never more than its manifest says.

use std::{collections::HashMap, sync::Arc};

use bureau_core::{BureauCode, Manifest, MessageId, Reason, envelope::Content};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::AttachmentHeld;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::{
    Engine,
    outbound::{End, Outbound},
    store_refusal,
};

/// Attachments that may be on their way on one link: eight messages of the most there may be.
const OFFERED_MAX: usize = 256;
/// How often what comes may be something else than its digest says before the offer is refused.
const MISMATCHES_MAX: u32 = 2;

/// Something that concerns attachments.
#[derive(Debug)]
pub enum FileEvent {
    /// Attachments are about to come.
    Offer(wire::Offer),
    /// A piece of one.
    Part(wire::Part),
}

struct Offered {
    number: u64,
    content: Content,
    /// The peer was told from where to go on, and that has not come yet.
    asked: bool,
    mismatches: u32,
}

struct Files<'a> {
    engine: &'a Arc<Engine>,
    hop: BureauCode,
    outbound: &'a Outbound,
    offered: HashMap<[u8; 32], Offered>,
}

/// Takes attachments in, until the session ends.
pub async fn run(
    engine: &Arc<Engine>,
    hop: BureauCode,
    mut events: mpsc::Receiver<FileEvent>,
    outbound: &Outbound,
) -> End {
    let mut files = Files { engine, hop, outbound, offered: HashMap::new() };
    while let Some(event) = events.recv().await {
        let taken = match event {
            FileEvent::Offer(offer) => files.offer(offer).await,
            FileEvent::Part(part) => files.part(part).await,
        };
        if let Err(end) = taken {
            return end;
        }
    }
    End::of_link(Reason::Stalled, "nothing more comes in")
}

impl Files<'_> {
    async fn offer(&mut self, offer: wire::Offer) -> Result<(), End> {
        let number = offer.number;
        let (verifier, now) = (self.engine.trust.verifier(), self.engine.clock.now());
        let judged =
            self.engine.machine.offload(move || verifier.manifest(offer.signed_manifest, now));
        let judged = judged.await.map_err(|error| {
            tracing::error!(event = "task_failed", task = "offer", error = %error);
            End::of_link(Reason::Internal, "a task failed")
        })?;
        let (message, manifest) = match judged {
            Ok(judged) => judged,
            Err(reason) => return self.reject(number, reason, String::new(), false).await,
        };
        if self.offered.len() + manifest.attachments.len() > OFFERED_MAX {
            return self.reject(number, Reason::Busy, "too much is on its way".into(), true).await;
        }
        let known = self.is_known(message, &offer.recipients).await?;
        tracing::debug!(event = "attachments_offered", message = %message, peer = %self.hop);
        self.answer_offer(number, &manifest, known).await
    }

    async fn answer_offer(
        &mut self,
        number: u64,
        manifest: &Manifest,
        known: bool,
    ) -> Result<(), End> {
        for content in &manifest.attachments {
            let held = self.engine.store.attachment(content.digest).await;
            let offset = match held.map_err(|error| End::of_store(&error))? {
                // What is here for every recipient already needs no attachments any more.
                _ if known => content.size,
                AttachmentHeld::Whole(size) if size == content.size => size,
                AttachmentHeld::Whole(_) => {
                    // One digest has one size: this manifest is wrong about its own attachment.
                    return self.reject(number, Reason::DigestMismatch, String::new(), false).await;
                }
                AttachmentHeld::Part(offset) if offset <= content.size => offset,
                AttachmentHeld::Part(_) | AttachmentHeld::Mismatch => 0,
            };
            if offset < content.size || content.size == 0 && !known {
                let offered = Offered { number, content: *content, asked: false, mismatches: 0 };
                self.offered.insert(content.digest, offered);
            }
            self.tell(content.digest, offset).await?;
        }
        Ok(())
    }

    /// Whether a message was here before for each of some recipients.
    async fn is_known(&self, message: MessageId, recipients: &[String]) -> Result<bool, End> {
        let tracked = self.engine.store.track(message).await;
        let tracked = tracked.map_err(|error| End::of_store(&error))?;
        let tracks = tracked.map(|tracked| tracked.recipients).unwrap_or_default();
        let is_tracked = |code: &String| {
            code.parse::<BureauCode>()
                .is_ok_and(|code| tracks.iter().any(|track| track.recipient == code))
        };
        Ok(!recipients.is_empty() && recipients.iter().all(is_tracked))
    }

    async fn part(&mut self, part: wire::Part) -> Result<(), End> {
        let digest = <[u8; 32]>::try_from(part.digest.as_ref()).ok();
        let offered = digest.and_then(|digest| Some((digest, self.offered.get_mut(&digest)?)));
        // What was not offered, or is here already, is not looked at.
        let Some((digest, offered)) = offered else { return Ok(()) };
        let (content, end) = (offered.content, part.offset.saturating_add(part.data.len() as u64));
        let held = self.engine.store.attachment_add(content, part.offset, part.data).await;
        match held {
            Ok(AttachmentHeld::Part(length)) if length == end => offered.asked = false,
            Ok(AttachmentHeld::Part(length)) => {
                // The parts behind a gap come all the same; one word is enough.
                if !std::mem::replace(&mut offered.asked, true) {
                    self.tell(digest, length).await?;
                }
            }
            Ok(AttachmentHeld::Whole(size)) => {
                self.offered.remove(&digest);
                tracing::info!(event = "attachment_arrived", peer = %self.hop, bytes = size);
                self.tell(digest, size).await?;
            }
            Ok(AttachmentHeld::Mismatch) => {
                offered.mismatches += 1;
                let (number, often) = (offered.number, offered.mismatches > MISMATCHES_MAX);
                tracing::warn!(event = "attachment_mismatch", peer = %self.hop, bytes = end);
                if often {
                    self.offered.remove(&digest);
                    return self.reject(number, Reason::DigestMismatch, String::new(), false).await;
                }
                self.tell(digest, 0).await?;
            }
            Err(error) => {
                let number = offered.number;
                self.offered.retain(|_, offered| offered.number != number);
                let refusal = store_refusal(&error);
                self.reject(number, refusal.reason, refusal.message, true).await?;
            }
        }
        Ok(())
    }

    async fn tell(&self, digest: [u8; 32], offset: u64) -> Result<(), End> {
        let digest = Bytes::copy_from_slice(&digest);
        let taken = wire::PartTaken { digest, offset };
        self.outbound.send(Kind::PartTaken(taken)).await.map(|_| ())
    }

    async fn reject(
        &self,
        number: u64,
        reason: Reason,
        detail: String,
        retryable: bool,
    ) -> Result<(), End> {
        self.engine.metrics.refused("link", reason.as_str());
        tracing::warn!(event = "offer_rejected", peer = %self.hop, reason = %reason, retryable);
        let rejection = wire::Rejection {
            parcel_number: number,
            recipient: String::new(),
            reason: reason.to_string(),
            detail,
            retryable,
        };
        self.outbound.send(Kind::Rejection(rejection)).await.map(|_| ())
    }
}
