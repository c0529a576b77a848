//! Attachments that a link brings: nothing without a member's signed word that there is such a
//! message, and never more than its manifest says.

use std::{collections::HashMap, sync::Arc};

use bureau_core::{BureauCode, Manifest, MessageId, Reason, envelope::Content};
use bureau_proto::link::v1::{self as wire, frame::Kind};
use bureau_store::contract::{AttachmentHeld, Source};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::{
    Engine,
    outbound::{End, Outbound},
    pump::TRANSFERS_MAX,
    store_refusal,
};

/// Attachments that may be on their way on one link: those of as many messages as the other side
/// has on their way, at the most there may be.
const OFFERED_MAX: usize = TRANSFERS_MAX * 32;
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
    /// The offers that name it.
    numbers: Vec<u64>,
    content: Content,
    /// Where it began on this link.
    from: u64,
    /// Bytes that this link has brought of it, those that were not needed too.
    brought: u64,
    /// From where on the peer was told to go on, where that has not come yet.
    told: Option<u64>,
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
        for withdrawn in offer.withdrawn {
            self.forget(withdrawn);
        }
        let (verifier, now) = (self.engine.trust.verifier(), self.engine.clock.now());
        let judged =
            self.engine.machine.offload(move || verifier.manifest(offer.signed_manifest, now));
        let judged = judged.await.map_err(|error| {
            tracing::error!(event = "task_failed", task = "offer", error = %error);
            End::of_link(Reason::Internal, "a task failed")
        })?;
        let (message, manifest) = match judged {
            Ok(judged) => judged,
            Err(reason) => return self.reject(&[number], reason, String::new(), false).await,
        };
        if self.offered.len() + manifest.attachments.len() > OFFERED_MAX {
            let text = "too much is on its way".to_owned();
            return self.reject(&[number], Reason::Busy, text, true).await;
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
        let mut answers = Vec::with_capacity(manifest.attachments.len());
        for content in &manifest.attachments {
            if known {
                // What is here for every recipient already needs no attachments any more.
                answers.push((*content, content.size));
                continue;
            }
            if self.offered.get(&content.digest).is_some_and(|other| other.content != *content) {
                // One digest has one size, so one of two manifests is wrong; which, is seen when
                // the other has come.
                let text = "another message says another size".to_owned();
                return self.reject(&[number], Reason::Busy, text, true).await;
            }
            let held = self.engine.attachment_held(Source::Peer(self.hop), *content).await;
            let offset = match held {
                Ok(AttachmentHeld::Whole(size)) if size == content.size => size,
                Ok(AttachmentHeld::Whole(_)) => {
                    // What is here was checked: this manifest is wrong about its own attachment.
                    let text = String::new();
                    return self.reject(&[number], Reason::DigestMismatch, text, false).await;
                }
                Ok(AttachmentHeld::Part(offset)) if offset < content.size => offset,
                Ok(AttachmentHeld::Part(_) | AttachmentHeld::Mismatch) => 0,
                Err(error) => {
                    let refusal = store_refusal(&error);
                    return self.reject(&[number], refusal.reason, refusal.message, true).await;
                }
            };
            answers.push((*content, offset));
        }
        for (content, offset) in answers {
            if offset < content.size {
                let offered = self.offered.entry(content.digest).or_insert_with(|| Offered {
                    numbers: Vec::new(),
                    content,
                    from: offset,
                    brought: 0,
                    told: None,
                    mismatches: 0,
                });
                offered.numbers.push(number);
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
        offered.brought += part.data.len() as u64;
        let source = Source::Peer(self.hop);
        let held = self.engine.store.attachment_add(source, content, part.offset, part.data).await;
        match held {
            Ok(AttachmentHeld::Part(length)) if length == end => offered.told = None,
            Ok(AttachmentHeld::Part(length)) => {
                // The parts behind a gap come all the same; one word is enough.
                if offered.told.replace(length) != Some(length) {
                    self.tell(digest, length).await?;
                }
            }
            Ok(AttachmentHeld::Whole(size)) => {
                let (from, brought) = (offered.from, offered.brought);
                self.offered.remove(&digest);
                tracing::info!(
                    event = "attachment_arrived",
                    peer = %self.hop, bytes = size, from, brought
                );
                self.tell(digest, size).await?;
            }
            Ok(AttachmentHeld::Mismatch) => {
                offered.mismatches += 1;
                offered.told = Some(0);
                tracing::warn!(event = "attachment_mismatch", peer = %self.hop, bytes = end);
                if offered.mismatches > MISMATCHES_MAX {
                    let numbers = self.forget_all_with(digest);
                    let text = "the bytes are not those of the digest".to_owned();
                    return self.reject(&numbers, Reason::DigestMismatch, text, false).await;
                }
                self.tell(digest, 0).await?;
            }
            Err(error) => {
                let numbers = self.forget_all_with(digest);
                let refusal = store_refusal(&error);
                self.reject(&numbers, refusal.reason, refusal.message, true).await?;
            }
        }
        Ok(())
    }

    /// An offer comes to nothing: what only it named is not awaited any more.
    fn forget(&mut self, number: u64) {
        self.offered.retain(|_, offered| {
            offered.numbers.retain(|other| *other != number);
            !offered.numbers.is_empty()
        });
    }

    /// Forgets every offer that names an attachment. Gives their numbers.
    fn forget_all_with(&mut self, digest: [u8; 32]) -> Vec<u64> {
        let numbers = self.offered.remove(&digest).map(|offered| offered.numbers);
        let numbers = numbers.unwrap_or_default();
        for number in &numbers {
            self.forget(*number);
        }
        numbers
    }

    async fn tell(&self, digest: [u8; 32], offset: u64) -> Result<(), End> {
        let digest = Bytes::copy_from_slice(&digest);
        let taken = wire::PartTaken { digest, offset };
        self.outbound.send(Kind::PartTaken(taken)).await.map(|_| ())
    }

    async fn reject(
        &self,
        numbers: &[u64],
        reason: Reason,
        detail: String,
        retryable: bool,
    ) -> Result<(), End> {
        for number in numbers {
            self.engine.metrics.refused("link", reason.as_str());
            tracing::warn!(event = "offer_rejected", peer = %self.hop, reason = %reason, retryable);
            let rejection = wire::Rejection {
                parcel_number: *number,
                recipient: String::new(),
                reason: reason.to_string(),
                detail: detail.clone(),
                retryable,
            };
            self.outbound.send(Kind::Rejection(rejection)).await?;
        }
        Ok(())
    }
}
