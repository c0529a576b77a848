//! Making a bundle: FLASH first, then receipts, then the other lanes, until the stick is full. Nothing
//! is noted before the caller says that the file is safe.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bureau_core::{
    BundleId, BureauCode, KeyId, Lane, MessageId, Reason, Roster, Timestamp,
    bundle::{CHUNK_BYTES, Header, Label, Writer, sealer},
    envelope::{self, stored_manifest},
    limits::MEMORY_AFTER_EXPIRY_MS,
    seal::TAG_BYTES,
};
use bureau_net::Refusal;
use bureau_proto::{
    bundle::v1::{BundleItem, BundleSummary, BundlesTaken, bundle_item::Kind},
    link::v1::{self as wire, frame},
};
use bureau_store::contract::{
    BundleKept, BundleWay, Content, Operation, QueuePosition, Queued, QueuedEntry, ReceiptRange,
};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{BUNDLE_BYTES_MAX, BUNDLES_MAX, internal, leads_over};
use crate::engine::{Engine, store_refusal};

/// Slips in one bundle: their places are held in memory until they are noted.
const SLIPS_MAX: usize = 100_000;
/// Entries of a queue that are looked at together, and places that are noted together.
const TOGETHER: usize = 256;
/// Receipts in one item.
const RECEIPTS: usize = 256;
/// Bytes of an attachment in one item.
const PART_BYTES: usize = 64 * 1024;
/// What a part takes beside its bytes, an offer beside its manifest, a parcel beside its content.
const AROUND_BYTES: u64 = 128;
/// Kept free for the last item.
const RESERVE_BYTES: u64 = 512;

/// What a bundle is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// For whom it is.
    pub to: BureauCode,
    /// Also what is in an earlier bundle that was not confirmed.
    pub again: bool,
    /// At most so many bytes; 0: as many as there may be.
    pub max_bytes: u64,
}

/// A bundle that was made and is not noted.
#[derive(Debug)]
pub struct Exported {
    /// What is remembered of it.
    pub kept: BundleKept,
    /// Bytes of attachments in it.
    pub attachment_bytes: u64,
    positions: Vec<QueuePosition>,
}

/// Makes a bundle and hands it over piece by piece.
///
/// # Errors
/// UNKNOWN_BUREAU, SELF_RECIPIENT, NO_SEALING_KEY; what the store refuses with. Nothing was noted.
pub async fn export(
    engine: &Arc<Engine>,
    wanted: Wanted,
    out: &mpsc::Sender<Bytes>,
) -> Result<Exported, Refusal> {
    let (roster, now) = (engine.trust.roster(), engine.clock.now());
    if wanted.to == engine.bureau() {
        return Err(Refusal::new(Reason::SelfRecipient, "a bundle is for another bureau"));
    }
    let public = roster.sealing_key(&wanted.to, now).map_err(|reason| no_key(wanted.to, reason))?;
    let mut random = Zeroizing::new([0; 32]);
    let mut id = BundleId([0; 16]);
    let drawn = engine.machine.fill(random.as_mut()).and_then(|()| engine.machine.fill(&mut id.0));
    drawn.map_err(|error| internal(&error))?;
    let (sealer, encapsulated) = sealer(&public, &random)
        .map_err(|_| Refusal::new(Reason::NoSealingKey, "the listed key cannot be sealed with"))?;
    let label = Label {
        network: engine.config.network.clone(),
        from: engine.bureau(),
        to: wanted.to,
        recipient_key: KeyId::of(&public),
        encapsulated,
        id,
        created: now,
    };
    let signer = engine.trust.signer();
    let signed = engine.machine.offload(move || {
        let mut group = signer.group();
        let ticket = group.add(Header::new(label));
        group.sign().and_then(|mut signed| signed.take(ticket))
    });
    let header = signed.await.map_err(|error| internal(&error))?;
    let header = header.map_err(|error| internal(&error))?;
    let (writer, beginning) = Writer::new(&header, sealer);
    let limit = match wanted.max_bytes {
        0 => BUNDLE_BYTES_MAX,
        bytes => bytes.min(BUNDLE_BYTES_MAX),
    };
    let header_bytes = beginning.len() as u64;
    let made = begun(engine, id, wanted.to, now);
    let pack = Pack {
        engine,
        out,
        writer: Some(writer),
        plain: Vec::with_capacity(2 * CHUNK_BYTES),
        header_bytes,
        plain_bytes: 0,
        limit,
    };
    let earlier = engine.store.bundles(Some(BundleWay::Exported), Some(wanted.to), BUNDLES_MAX);
    let earlier = earlier.await.map_err(|error| store_refusal(&error))?;
    let open = earlier.into_iter().filter(|kept| kept.confirmed.is_none() && !wanted.again);
    let making = Making {
        pack,
        roster,
        wanted,
        open: open.collect(),
        made,
        taken: HashSet::new(),
        files: HashSet::new(),
        latest: now,
    };
    making.pack.send(beginning).await?;
    making.make().await
}

/// A bundle with nothing in it yet.
fn begun(engine: &Engine, id: BundleId, peer: BureauCode, time: Timestamp) -> Exported {
    let lifetime_ms = engine.config.limits.message.lifetime_ms;
    let kept = BundleKept {
        way: BundleWay::Exported,
        id,
        peer,
        time,
        messages: 0,
        attachments: 0,
        receipts: 0,
        bytes: 0,
        left_out: 0,
        confirmed: None,
        forget: time.plus_ms(lifetime_ms + MEMORY_AFTER_EXPIRY_MS),
        ranges: Vec::new(),
    };
    Exported { kept, attachment_bytes: 0, positions: Vec::new() }
}

/// Notes what went into a bundle whose file is safe.
///
/// # Errors
/// What the store refuses with: then some of it goes into the next bundle again.
pub async fn note(engine: &Engine, exported: Exported) -> Result<(), Refusal> {
    let Exported { kept, positions, .. } = exported;
    let (bundle, peer, now) = (kept.id, kept.peer, engine.clock.now());
    let (messages, receipts, bytes, left_out) =
        (kept.messages, kept.receipts, kept.bytes, kept.left_out);
    let commit = async |operation| {
        let noted = engine.store.commit(vec![operation]).await;
        noted.map(drop).map_err(|error| store_refusal(&error))
    };
    commit(Operation::KeepBundle(Box::new(kept))).await?;
    for positions in positions.chunks(TOGETHER) {
        let positions = positions.to_vec();
        commit(Operation::NoteBundled { bundle, peer, positions, now }).await?;
    }
    tracing::info!(event = "bundle_exported", peer = %peer, bundle = %bundle, messages, receipts,
        bytes, left_out);
    Ok(())
}

fn no_key(to: BureauCode, reason: Reason) -> Refusal {
    let text = match reason {
        Reason::NoSealingKey => format!("the roster lists no key to seal with for {to}"),
        _ => format!("{to} is not in the roster"),
    };
    Refusal::new(reason, text)
}

/// The way into the file.
struct Pack<'a> {
    engine: &'a Engine,
    out: &'a mpsc::Sender<Bytes>,
    /// Away while a chunk is being sealed.
    writer: Option<Writer>,
    /// What is not sealed yet.
    plain: Vec<u8>,
    header_bytes: u64,
    plain_bytes: u64,
    limit: u64,
}

impl Pack<'_> {
    /// The size of the file with so many bytes more.
    const fn size_with(&self, more: u64) -> u64 {
        let plain = self.plain_bytes + more;
        let chunks = plain / CHUNK_BYTES as u64 + 1;
        self.header_bytes + plain + chunks * (TAG_BYTES as u64 + 4)
    }

    const fn has_room(&self, more: u64) -> bool {
        self.size_with(more + RESERVE_BYTES) <= self.limit
    }

    async fn put(&mut self, kind: Kind) -> Result<(), Refusal> {
        let item = BundleItem { kind: Some(kind) }.encode_length_delimited_to_vec();
        self.plain_bytes += item.len() as u64;
        self.plain.extend_from_slice(&item);
        while self.plain.len() > CHUNK_BYTES {
            let rest = self.plain.split_off(CHUNK_BYTES);
            let chunk = std::mem::replace(&mut self.plain, rest);
            self.seal(chunk, false).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, kind: frame::Kind) -> Result<(), Refusal> {
        self.put(Kind::Frame(wire::Frame { kind: Some(kind) })).await
    }

    async fn seal(&mut self, plain: Vec<u8>, last: bool) -> Result<(), Refusal> {
        let Some(mut writer) = self.writer.take() else {
            return Err(internal(&"the writer of a bundle is away"));
        };
        let sealed = self.engine.machine.offload(move || {
            let chunk = writer.chunk(&plain, last);
            (writer, chunk)
        });
        let (writer, chunk) = sealed.await.map_err(|error| internal(&error))?;
        self.writer = Some(writer);
        self.send(chunk.map_err(|error| internal(&error))?).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Refusal> {
        let gone = |_| Refusal::new(Reason::Stalled, "nobody takes the bundle any more");
        self.out.send(bytes).await.map_err(gone)
    }
}

/// A bundle while it is made.
struct Making<'a> {
    pack: Pack<'a>,
    roster: Arc<Roster>,
    wanted: Wanted,
    /// Earlier bundles that are not confirmed: what is in them is left out.
    open: Vec<BundleKept>,
    made: Exported,
    /// Slips that are in.
    taken: HashSet<(MessageId, BureauCode)>,
    /// Attachments that are in.
    files: HashSet<[u8; 32]>,
    /// When the last message in it expires.
    latest: Timestamp,
}

impl Making<'_> {
    async fn make(mut self) -> Result<Exported, Refusal> {
        self.confirmations().await?;
        let waiting: BTreeSet<_> =
            self.pack.engine.store.depths().into_iter().map(|depth| depth.destination).collect();
        let destinations: Vec<_> = waiting.into_iter().filter(|code| self.leads(*code)).collect();
        for lane in Lane::ALL {
            for destination in &destinations {
                self.queue(*destination, lane).await?;
            }
            if lane == Lane::Flash {
                self.receipts().await?;
            }
        }
        let kept = &mut self.made.kept;
        kept.forget = kept.forget.max(self.latest.plus_ms(MEMORY_AFTER_EXPIRY_MS));
        let summary = BundleSummary {
            messages: kept.messages,
            attachments: kept.attachments,
            attachment_bytes: self.made.attachment_bytes,
            receipts: kept.receipts,
            latest_expire_time: Some(self.latest.to_wire()),
        };
        self.pack.put(Kind::Summary(summary)).await?;
        let rest = std::mem::take(&mut self.pack.plain);
        self.pack.seal(rest, true).await?;
        self.made.kept.bytes = self.pack.size_with(0);
        Ok(self.made)
    }

    fn leads(&self, destination: BureauCode) -> bool {
        leads_over(self.pack.engine, &self.roster, self.wanted.to, destination)
    }

    /// Says which of the other bureau's bundles were imported here, every time while they are remembered:
    /// this bundle may be lost as well.
    async fn confirmations(&mut self) -> Result<(), Refusal> {
        let store = &self.pack.engine.store;
        let kept = store.bundles(Some(BundleWay::Imported), Some(self.wanted.to), BUNDLES_MAX);
        let kept = kept.await.map_err(|error| store_refusal(&error))?;
        let ids = kept.iter().map(|kept| Bytes::copy_from_slice(&kept.id.0));
        let bundle_ids: Vec<_> = ids.collect();
        if bundle_ids.is_empty() {
            return Ok(());
        }
        self.pack.put(Kind::Taken(BundlesTaken { bundle_ids })).await
    }

    async fn receipts(&mut self) -> Result<(), Refusal> {
        let store = Arc::clone(&self.pack.engine.store);
        for destination in store.receipt_destinations() {
            if !self.leads(destination) {
                continue;
            }
            let ranges = self.open.iter().flat_map(|kept| &kept.ranges);
            let ranges = ranges.filter(|range| range.destination == destination);
            let mut after = ranges.map(|range| range.last).max().unwrap_or(0);
            let mut range = None;
            loop {
                let batch = store.receipts(destination, after, RECEIPTS).await;
                let batch = batch.map_err(|error| store_refusal(&error))?;
                let (Some(first), Some(last)) = (batch.first(), batch.last()) else { break };
                let (first, last) = (first.position.number, last.position.number);
                let bytes = batch.iter().map(|one| one.receipt.len() as u64 + 8).sum::<u64>();
                if !self.pack.has_room(bytes + AROUND_BYTES) {
                    break;
                }
                self.made.kept.receipts += batch.len() as u64;
                let receipts = batch.into_iter().map(|one| one.receipt).collect();
                let batch = wire::ReceiptBatch { number: 0, receipts, home: String::new() };
                self.pack.frame(frame::Kind::Receipts(batch)).await?;
                let begin = range.map_or(first, |range: ReceiptRange| range.first);
                range = Some(ReceiptRange { destination, first: begin, last });
                after = last;
            }
            self.made.kept.ranges.extend(range);
        }
        Ok(())
    }

    /// Puts in what waits for a destination in a lane.
    async fn queue(&mut self, destination: BureauCode, lane: Lane) -> Result<(), Refusal> {
        let store = Arc::clone(&self.pack.engine.store);
        let mut number = 0;
        loop {
            let after = Some(QueuePosition { destination, lane, number });
            let page = store.queue_page(Some(destination), after, TOGETHER).await;
            let page = page.map_err(|error| store_refusal(&error))?;
            let full = page.len() == TOGETHER;
            for entry in page {
                if entry.position.lane != lane {
                    return Ok(());
                }
                number = entry.position.number;
                if !self.may_go(&entry) {
                    continue;
                }
                if !self.message(&entry).await? {
                    self.made.kept.left_out += 1;
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn may_go(&self, entry: &QueuedEntry) -> bool {
        let is_open = |id: BundleId| self.open.iter().any(|kept| kept.id == id);
        entry.expires > self.pack.engine.clock.now()
            && entry.previous_hop != Some(self.wanted.to)
            && !entry.bundle.is_some_and(is_open)
            && !self.taken.contains(&(entry.message, entry.position.destination))
    }

    /// Puts a message in, with every slip of it that goes the same way. Whether there was room.
    async fn message(&mut self, entry: &QueuedEntry) -> Result<bool, Refusal> {
        let QueuePosition { destination, lane, number } = entry.position;
        if self.made.positions.len() >= SLIPS_MAX || !self.pack.has_room(entry.size) {
            return Ok(false);
        }
        let store = Arc::clone(&self.pack.engine.store);
        let queued = store.queued(destination, lane, number - 1, 1, 1).await;
        let queued = queued.map_err(|error| store_refusal(&error))?.pop();
        // What is there no more went over a link meanwhile.
        let Some(queued) = queued.filter(|queued| queued.entry.message == entry.message) else {
            return Ok(true);
        };
        let mut slips = vec![(queued.entry.position, queued.slip.clone())];
        if entry.fan_out > 1 {
            let others = store.queued_slips(entry.message).await;
            let others = others.map_err(|error| store_refusal(&error))?;
            let others = others.into_iter().filter(|other| {
                other.position.destination != destination && self.leads(other.position.destination)
            });
            slips.extend(others.map(|other| (other.position, other.slip)));
        }
        let contents = match stored_manifest(queued.signed_manifest.clone()) {
            Ok(manifest) => manifest.attachments,
            Err(reason) => {
                tracing::error!(event = "message_unreadable", message = %entry.message, reason = %reason);
                return Ok(false);
            }
        };
        let new = |content: &&Content| !self.files.contains(&content.digest);
        let files: u64 = contents.iter().filter(new).map(|content| content.size).sum();
        let parts = files / PART_BYTES as u64 + contents.len() as u64;
        let labels = slips.iter().map(|(_, slip)| slip.len() as u64 + 24).sum::<u64>();
        let text = (2 * queued.signed_manifest.len() + queued.body.len()) as u64;
        if !self.pack.has_room(files + (parts + 4) * AROUND_BYTES + labels + text) {
            return Ok(false);
        }
        self.write(queued, slips, contents).await
    }

    async fn write(
        &mut self,
        queued: Queued,
        slips: Vec<(QueuePosition, Bytes)>,
        contents: Vec<Content>,
    ) -> Result<bool, Refusal> {
        let number = self.made.kept.messages + 1;
        let QueuedEntry { message, expires, hops, refills, .. } = queued.entry;
        if !contents.is_empty() {
            let recipients = slips.iter().map(|(position, _)| position.destination.to_string());
            let offer = wire::Offer {
                number,
                signed_manifest: queued.signed_manifest.clone(),
                recipients: recipients.collect(),
                withdrawn: Vec::new(),
            };
            self.pack.frame(frame::Kind::Offer(offer)).await?;
        }
        for content in contents {
            if !self.attachment(content).await? {
                return Ok(false);
            }
        }
        let Ok(envelope) = envelope::assemble(queued.signed_manifest, queued.body) else {
            tracing::error!(event = "message_unreadable", message = %message, reason = "MALFORMED");
            return Ok(false);
        };
        let (positions, slips): (Vec<_>, Vec<_>) = slips.into_iter().unzip();
        let parcel = wire::Parcel { number, envelope, slips, hops, refills };
        self.pack.frame(frame::Kind::Parcel(parcel)).await?;
        self.taken.extend(positions.iter().map(|position| (message, position.destination)));
        self.made.positions.extend(positions);
        self.made.kept.messages += 1;
        self.latest = self.latest.max(expires);
        Ok(true)
    }

    /// Puts an attachment in, once. `false`: it went away meanwhile.
    async fn attachment(&mut self, content: Content) -> Result<bool, Refusal> {
        if self.files.contains(&content.digest) {
            return Ok(true);
        }
        let store = Arc::clone(&self.pack.engine.store);
        let mut offset = 0;
        while offset < content.size {
            let data = store.attachment_read(content.digest, offset, PART_BYTES).await;
            let data = data.map_err(|error| store_refusal(&error))?;
            let Some(data) = data.filter(|data| !data.is_empty()) else { return Ok(false) };
            let (digest, begin) = (Bytes::copy_from_slice(&content.digest), offset);
            offset += data.len() as u64;
            let part = wire::Part { digest, offset: begin, data };
            self.pack.frame(frame::Kind::Part(part)).await?;
        }
        self.files.insert(content.digest);
        self.made.kept.attachments += 1;
        self.made.attachment_bytes += content.size;
        Ok(true)
    }
}
