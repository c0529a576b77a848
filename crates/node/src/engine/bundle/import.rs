//! Taking a bundle in: everything in it is judged as if its exporter's node had brought it over a link.
//! What is good is durable before the next is looked at, so that a bundle that breaks off is taken in
//! by beginning again.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bureau_core::{
    BundleId, BureauCode, Reason, Timestamp, Verified,
    bundle::{Fault, Header, Items, Reader, split_header},
    limits::MEMORY_AFTER_EXPIRY_MS,
};
use bureau_net::Refusal;
use bureau_proto::{
    bundle::v1::{BundleItem, BundleSummary, bundle_item::Kind},
    link::v1::{self as wire, frame},
};
use bureau_store::contract::{
    AttachmentHeld, BundleKept, BundleWay, Content, Operation, Outcome, ReceiveAction,
    Source as Attachments,
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio_stream::{Stream, StreamExt as _};

use super::{BUNDLE_BYTES_MAX, BUNDLES_MAX, internal};
use crate::engine::{
    Engine,
    intake::{Judge, Seen, note_rejection, receipts::take_receipts},
    store_refusal,
};

/// Parcels that are judged together.
const PARCELS_MAX: usize = 64;
/// Bytes of parcels that are judged together: at least one of any size.
const PARCEL_BYTES_MAX: usize = 1024 * 1024;
/// Refusals that are told one by one.
const REFUSALS_MAX: usize = 100;
/// Attachments on their way at one time: those of one message, twice.
const OFFERED_MAX: usize = 64;

/// The file as it comes.
pub type Source = Pin<Box<dyn Stream<Item = Result<Bytes, Refusal>> + Send>>;

/// What became of a bundle.
#[derive(Debug)]
pub struct Imported {
    /// Its header.
    pub header: Verified<Header>,
    /// Size of the file.
    pub bytes: u64,
    /// What its last item says is in it.
    pub summary: BundleSummary,
    /// What became of that.
    pub counts: Counts,
    /// When it was imported before: then nothing changed now.
    pub before: Option<Timestamp>,
}

/// What became of what was in a bundle.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages for this bureau that were new.
    pub delivered: u64,
    /// Slips for others that were new.
    pub relayed: u64,
    /// Slips that were here before.
    pub duplicates: u64,
    /// Messages and slips that were not taken.
    pub refused: u64,
    /// The first of those: number, recipient, reason.
    pub refusals: Vec<(u64, String, String)>,
    /// Receipts that counted.
    pub receipts: u64,
    /// Bundles of this bureau that were confirmed.
    pub confirmed: u64,
}

/// Takes a bundle in; or opens all of it and takes nothing.
///
/// # Errors
/// Why it is refused, or where it breaks off; what stands before that was taken in.
pub async fn import(
    engine: &Arc<Engine>,
    mut source: Source,
    inspect: bool,
) -> Result<Imported, Refusal> {
    let (header, header_bytes, rest) = beginning(engine, &mut source).await?;
    let label = header.label();
    let (peer, id) = (label.from, label.id);
    let reader = reader(engine, &header, header_bytes)?;
    let kept = engine.store.bundles(Some(BundleWay::Imported), Some(peer), BUNDLES_MAX).await;
    let kept = kept.map_err(|error| store_refusal(&error))?;
    if let Some(kept) = kept.iter().find(|kept| kept.id == id && !inspect) {
        while source.next().await.transpose()?.is_some() {}
        let (summary, counts) = (BundleSummary::default(), Counts::default());
        return Ok(Imported {
            header,
            bytes: kept.bytes,
            summary,
            counts,
            before: Some(kept.time),
        });
    }
    let mut taking = Taking {
        engine,
        peer,
        id,
        inspect,
        counts: Counts::default(),
        parcels: Vec::new(),
        parcel_bytes: 0,
        offered: HashMap::new(),
        confirmed: Vec::new(),
        summary: None,
        latest: engine.clock.now(),
    };
    let read = taking.read(reader, rest, &mut source).await;
    // What came before a fault is good.
    taking.flush().await?;
    match read {
        Ok(bytes) => taking.finish(header, bytes).await,
        Err(refusal) => Err(taking.broken(refusal)),
    }
}

/// Reads and verifies the header; gives it, its length in the file, and what was read beyond.
async fn beginning(
    engine: &Arc<Engine>,
    source: &mut Source,
) -> Result<(Verified<Header>, usize, BytesMut), Refusal> {
    let mut read = BytesMut::new();
    let (signed, length) = loop {
        match split_header(&read) {
            Ok(Some(found)) => break found,
            Ok(None) => {}
            Err(reason) => return Err(Refusal::new(reason, unreadable(reason))),
        }
        match source.next().await.transpose()? {
            Some(data) => read.extend_from_slice(&data),
            None if read.is_empty() => return Err(Refusal::new(Reason::NotABundle, "it is empty")),
            None => {
                let text = format!("it ends at byte {}, within the header", read.len());
                return Err(Refusal::new(Reason::BundleTruncated, text));
            }
        }
    };
    let (verifier, now) = (engine.trust.verifier(), engine.clock.now());
    let verified = engine.machine.offload(move || verifier.bundle(signed, now)).await;
    let verified = verified.map_err(|error| internal(&error))?;
    let header =
        verified.map_err(|reason| Refusal::new(reason, "the header is not to be believed"))?;
    let rest = read.split_off(length);
    Ok((header, length, rest))
}

fn unreadable(reason: Reason) -> &'static str {
    match reason {
        Reason::VersionUnsupported => "a bundle of another version than this node reads",
        Reason::TooLarge => "the header is larger than any",
        _ => "this is no bundle",
    }
}

fn reader(engine: &Engine, header: &Header, header_bytes: usize) -> Result<Reader, Refusal> {
    let label = header.label();
    if label.to != engine.bureau() {
        let text = format!("it is for {}; only that bureau can open it", label.to);
        return Err(Refusal::new(Reason::WrongRecipient, text));
    }
    if label.from == engine.bureau() {
        return Err(Refusal::new(Reason::WrongOrigin, "it was made by this bureau itself"));
    }
    let Some(key) = engine.trust.sealing_key() else {
        let text = "this node has no keys.sealing_key, so it can open no bundle";
        return Err(Refusal::new(Reason::NoSealingKey, text));
    };
    if key.id() != label.recipient_key {
        let text = format!(
            "it is sealed for the key {}; keys.sealing_key of this node is {}",
            label.recipient_key,
            key.id()
        );
        return Err(Refusal::new(Reason::NoSealingKey, text));
    }
    Reader::new(header, &key, header_bytes)
        .map_err(|reason| Refusal::new(reason, "the header names a key that is none"))
}

fn at_fault(fault: Fault) -> Refusal {
    let text = match fault.reason {
        Reason::BundleTruncated => format!("it ends too early, after byte {}", fault.offset),
        _ => format!("it is damaged at byte {}, or within the 64 KiB after", fault.offset),
    };
    Refusal::new(fault.reason, text)
}

/// An attachment that a message in the bundle has.
struct Offered {
    content: Content,
    /// What is here of it; `None`: nothing of it is wanted.
    held: Option<u64>,
}

/// A bundle while it is taken in.
struct Taking<'a> {
    engine: &'a Arc<Engine>,
    peer: BureauCode,
    id: BundleId,
    inspect: bool,
    counts: Counts,
    parcels: Vec<wire::Parcel>,
    parcel_bytes: usize,
    offered: HashMap<[u8; 32], Offered>,
    confirmed: Vec<BundleId>,
    summary: Option<BundleSummary>,
    /// When the last message in it expires.
    latest: Timestamp,
}

impl Taking<'_> {
    /// Reads to the end. Gives the size of the file.
    async fn read(
        &mut self,
        mut reader: Reader,
        rest: BytesMut,
        source: &mut Source,
    ) -> Result<u64, Refusal> {
        let mut items = Items::default();
        let mut next = Some(rest.freeze());
        while let Some(data) = next {
            let opened = self.engine.machine.offload(move || {
                reader.push(&data);
                let mut chunks = Vec::new();
                let fault = loop {
                    match reader.next_chunk() {
                        Ok(Some(chunk)) => chunks.push(chunk),
                        Ok(None) => break None,
                        Err(fault) => break Some(fault),
                    }
                };
                (reader, chunks, fault)
            });
            let (again, chunks, fault) = opened.await.map_err(|error| internal(&error))?;
            reader = again;
            for chunk in chunks {
                items.push(&chunk);
                self.items(&mut items).await?;
            }
            if let Some(fault) = fault {
                return Err(at_fault(fault));
            }
            if reader.offset() > BUNDLE_BYTES_MAX {
                return Err(Refusal::new(Reason::TooLarge, "it is larger than any bundle may be"));
            }
            next = source.next().await.transpose()?;
        }
        reader.finish().map_err(at_fault)?;
        if !items.is_empty() || self.summary.is_none() {
            return Err(Refusal::new(Reason::Malformed, "its content ends in the middle"));
        }
        Ok(reader.offset())
    }

    async fn items(&mut self, items: &mut Items) -> Result<(), Refusal> {
        let fault = |reason| Refusal::new(reason, "its content is no bundle's");
        while let Some(item) = items.next_item().map_err(fault)? {
            if self.summary.is_some() {
                return Err(fault(Reason::Malformed));
            }
            let Ok(item) = BundleItem::decode(item) else {
                self.refuse(0, String::new(), Reason::Malformed.as_str());
                continue;
            };
            match item.kind {
                Some(Kind::Summary(summary)) => self.summary = Some(summary),
                Some(Kind::Taken(taken)) => {
                    let ids =
                        taken.bundle_ids.iter().filter_map(|id| BundleId::from_bytes(id).ok());
                    self.confirmed.extend(ids.take(BUNDLES_MAX));
                    self.confirmed.truncate(BUNDLES_MAX);
                }
                Some(Kind::Frame(frame)) if !self.inspect => self.frame(frame).await?,
                Some(Kind::Frame(_)) | None => {}
            }
        }
        Ok(())
    }

    async fn frame(&mut self, frame: wire::Frame) -> Result<(), Refusal> {
        match frame.kind {
            Some(frame::Kind::Offer(offer)) => self.offer(offer).await,
            Some(frame::Kind::Part(part)) => self.part(part).await,
            Some(frame::Kind::Parcel(parcel)) => {
                self.parcel_bytes += parcel.envelope.len();
                self.parcels.push(parcel);
                let full = self.parcels.len() >= PARCELS_MAX;
                if full || self.parcel_bytes >= PARCEL_BYTES_MAX {
                    self.flush().await?;
                }
                Ok(())
            }
            Some(frame::Kind::Receipts(batch)) => {
                let taken = take_receipts(self.engine, self.peer, vec![batch], "bundle").await;
                let taken = taken.map_err(|end| {
                    let reason = end.reason.parse().unwrap_or(Reason::Internal);
                    Refusal::new(reason, end.detail)
                })?;
                self.counts.receipts += taken.counted;
                Ok(())
            }
            // What only a link says, or a newer version.
            _ => Ok(()),
        }
    }

    /// Nothing is taken in without a member's word that there is such a message.
    async fn offer(&mut self, offer: wire::Offer) -> Result<(), Refusal> {
        let number = offer.number;
        let (verifier, now) = (self.engine.trust.verifier(), self.engine.clock.now());
        let judged =
            self.engine.machine.offload(move || verifier.manifest(offer.signed_manifest, now));
        let (message, manifest) = match judged.await.map_err(|error| internal(&error))? {
            Ok(judged) => judged,
            // Its parcel is refused for the same reason, and told then.
            Err(reason) => {
                tracing::warn!(event = "offer_rejected", peer = %self.peer, reason = %reason,
                    retryable = false, parcel = number);
                return Ok(());
            }
        };
        let tracked = self.engine.store.track(message).await;
        let tracked = tracked.map_err(|error| store_refusal(&error))?;
        let tracks = tracked.map(|tracked| tracked.recipients).unwrap_or_default();
        let is_known = |code: &String| tracks.iter().any(|t| t.recipient.as_str() == code);
        let known = !offer.recipients.is_empty() && offer.recipients.iter().all(is_known);
        if self.offered.len() >= OFFERED_MAX {
            self.offered.clear();
        }
        for content in manifest.attachments {
            let held =
                self.engine.store.attachment(Attachments::Peer(self.peer), content.digest).await;
            let held = match held.map_err(|error| store_refusal(&error))? {
                _ if known => None,
                AttachmentHeld::Whole(_) => None,
                AttachmentHeld::Part(length) => Some(length),
                AttachmentHeld::Mismatch => Some(0),
            };
            self.offered.insert(content.digest, Offered { content, held });
        }
        Ok(())
    }

    async fn part(&mut self, part: wire::Part) -> Result<(), Refusal> {
        let digest = <[u8; 32]>::try_from(part.digest.as_ref()).ok();
        let offered = digest.and_then(|digest| self.offered.get_mut(&digest));
        let Some(Offered { content, held }) = offered else { return Ok(()) };
        let Some(length) = *held else { return Ok(()) };
        // What an import that broke off has brought is here already.
        let known = usize::try_from(length.saturating_sub(part.offset)).unwrap_or(usize::MAX);
        if part.offset > length || known >= part.data.len() {
            return Ok(());
        }
        let (source, data) = (Attachments::Peer(self.peer), part.data.slice(known..));
        let added = self.engine.store.attachment_add(source, *content, length, data);
        match added.await.map_err(|error| store_refusal(&error))? {
            AttachmentHeld::Part(length) => *held = Some(length),
            AttachmentHeld::Whole(bytes) => {
                *held = None;
                tracing::info!(event = "attachment_arrived", peer = %self.peer, bytes);
            }
            AttachmentHeld::Mismatch => {
                *held = None;
                tracing::warn!(event = "attachment_mismatch", peer = %self.peer, bytes = content.size);
            }
        }
        Ok(())
    }

    /// Judges the parcels that were read.
    async fn flush(&mut self) -> Result<(), Refusal> {
        let parcels = std::mem::take(&mut self.parcels);
        self.parcel_bytes = 0;
        if parcels.is_empty() {
            return Ok(());
        }
        let judge = Judge::of_bundle(self.engine, self.peer, self.id);
        let judged = self.engine.machine.offload(move || {
            parcels.into_iter().map(|parcel| judge.parcel(parcel)).collect::<Vec<_>>()
        });
        let (mut numbers, mut inbound) = (Vec::new(), Vec::new());
        for judged in judged.await.map_err(|error| internal(&error))? {
            for rejection in judged.rejections {
                note_rejection(self.engine, self.peer, "bundle", &rejection);
                self.refuse(rejection.parcel_number, rejection.recipient, &rejection.reason);
            }
            if let Some(taken) = judged.inbound {
                self.latest = self.latest.max(taken.envelope.manifest().expires);
                numbers.push(judged.number);
                inbound.push(taken);
            }
        }
        if inbound.is_empty() {
            return Ok(());
        }
        let seen: Vec<_> = inbound.iter().map(Seen::of).collect();
        let answers = self.engine.scribe.receive(inbound).await?;
        for ((seen, number), answers) in seen.iter().zip(numbers).zip(answers) {
            let answers = match answers {
                Ok(answers) => answers,
                Err(reason) => {
                    self.refuse(number, String::new(), reason.as_str());
                    continue;
                }
            };
            for ((recipient, action), answer) in seen.slips.iter().zip(answers) {
                if !answer.fresh {
                    self.counts.duplicates += 1;
                    continue;
                }
                seen.note(self.engine, self.peer, *recipient, *action);
                match action {
                    ReceiveAction::Deliver => self.counts.delivered += 1,
                    ReceiveAction::Relay => self.counts.relayed += 1,
                    // Its sender is told by a signed receipt.
                    ReceiveAction::Refuse => self.refuse(number, recipient.to_string(), "REFUSED"),
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, number: u64, recipient: String, reason: &str) {
        self.counts.refused += 1;
        if self.counts.refusals.len() < REFUSALS_MAX {
            self.counts.refusals.push((number, recipient, reason.to_owned()));
        }
    }

    /// All of it was judged: now it is remembered, so that it changes nothing another time.
    async fn finish(mut self, header: Verified<Header>, bytes: u64) -> Result<Imported, Refusal> {
        let summary = self.summary.take().unwrap_or_default();
        let (peer, now) = (self.peer, self.engine.clock.now());
        if self.inspect {
            return Ok(Imported { header, bytes, summary, counts: self.counts, before: None });
        }
        let kept = BundleKept {
            way: BundleWay::Imported,
            id: self.id,
            peer,
            time: now,
            messages: summary.messages,
            attachments: summary.attachments,
            receipts: summary.receipts,
            bytes,
            left_out: self.counts.refused,
            confirmed: None,
            forget: self.latest.plus_ms(MEMORY_AFTER_EXPIRY_MS),
            ranges: Vec::new(),
        };
        let confirm = Operation::ConfirmBundles { peer, bundles: self.confirmed, now };
        let operations = vec![confirm, Operation::KeepBundle(Box::new(kept))];
        let outcomes = self.engine.store.commit(operations).await;
        if let Some(Outcome::BundlesConfirmed(confirmed)) =
            outcomes.map_err(|error| store_refusal(&error))?.first()
        {
            self.counts.confirmed = *confirmed;
        }
        let Counts { delivered, relayed, duplicates, refused, receipts, confirmed, .. } =
            self.counts;
        tracing::info!(event = "bundle_imported", peer = %peer, bundle = %self.id, delivered,
            relayed, duplicates, refused, receipts, confirmed);
        Ok(Imported { header, bytes, summary, counts: self.counts, before: None })
    }

    /// Says what was taken in before a fault.
    fn broken(self, refusal: Refusal) -> Refusal {
        let Counts { delivered, relayed, receipts, .. } = self.counts;
        if self.inspect {
            return refusal;
        }
        let text = format!(
            "{}; before that, {delivered} messages were delivered, {relayed} relayed and {receipts} \
             receipts taken: import a whole copy for the rest",
            refusal.message
        );
        Refusal { message: text, ..refusal }
    }
}
