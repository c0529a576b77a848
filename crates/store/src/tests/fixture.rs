//! Signed things, and stores to try.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bureau_core::{
    BureauCode, Envelope, Epoch, Lane, Manifest, MessageId, NetworkName, Receipt, Signer,
    SigningKey, Slip, Timestamp, Verified,
    envelope::{Content, HandlingCode, Kind, SealingSuite},
    receipt::{ReceiptKind, Statement},
    slip::{Count, Label},
};
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    OpenOptions, Progress, StoreError,
    contract::{
        Accept, Acknowledge, GiveUp, Operation, Receive, ReceiveAction, ReceiveSlip, RequestKey,
        Store, TakeReceipt,
    },
    disk::{Disk as _, SimDisk},
    hands::Hands,
    index::MemoryHome,
    local::JournaledStore,
    open_local,
    sim::SimHome,
};

pub(super) const NOW_MS: i64 = 1_800_000_000_000;
pub(super) const HOUR_MS: i64 = 3_600_000;

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(NOW_MS + ms)
}

pub(super) fn code(text: &str) -> BureauCode {
    text.parse().unwrap()
}

pub(super) fn network() -> NetworkName {
    "test".parse().unwrap()
}

/// A bureau that signs.
pub(super) fn signer(bureau: &str) -> Signer {
    let mut seed = [0; 32];
    seed[..bureau.len()].copy_from_slice(bureau.as_bytes());
    Signer::new(network(), code(bureau), SigningKey::from_seed(&seed))
}

/// A message with its slips.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) envelope: Verified<Envelope>,
    pub(super) slips: Vec<Verified<Slip>>,
    pub(super) sequence: u64,
}

impl Sent {
    pub(super) fn id(&self) -> MessageId {
        self.envelope.id()
    }

    pub(super) fn slip(&self, recipient: &str) -> &Verified<Slip> {
        let recipient = code(recipient);
        self.slips.iter().find(|slip| slip.label().recipient == recipient).unwrap()
    }
}

pub(super) fn send_as(origin: &str, to: &[&str], lane: Lane, sequence: u64, body: &[u8]) -> Sent {
    send_with(origin, to, lane, sequence, body, &[])
}

/// Origin, recipient, lane and sequence of a slip.
type Place = (String, String, Lane, u64);

thread_local! {
    /// The slips of each count, so that the next one names the one before.
    static CHAIN: RefCell<BTreeMap<Place, [u8; 32]>> = RefCell::default();
}

fn chained(origin: &str, recipient: &str, lane: Lane, sequence: u64) -> Option<[u8; 32]> {
    let place = (origin.to_owned(), recipient.to_owned(), lane, sequence - 1);
    let known = || CHAIN.with_borrow(|chain| chain.get(&place).copied());
    (sequence > 1).then(|| known().unwrap_or([1; 32]))
}

pub(super) fn send_with(
    origin: &str,
    to: &[&str],
    lane: Lane,
    sequence: u64,
    body: &[u8],
    attachments: &[Content],
) -> Sent {
    let signer = signer(origin);
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&sequence.to_be_bytes());
    let manifest = Manifest {
        origin: code(origin),
        key_id: signer.public().id(),
        kind: Kind::Message,
        lane,
        created: at(0),
        expires: at(HOUR_MS),
        nonce,
        suite: SealingSuite::Open,
        exercise: false,
        handling: HandlingCode::H1,
        body: Content::of(body),
        attachments: attachments.to_vec(),
        key_commitment: Bytes::new(),
    };
    let mut group = signer.group();
    let body = Bytes::copy_from_slice(body);
    let envelope = group.add(Envelope::new(&network(), manifest, body));
    let message = envelope.item().id();
    let slips: Vec<_> = to
        .iter()
        .map(|recipient| {
            let previous = chained(origin, recipient, lane, sequence);
            let slip = Slip::new(
                &network(),
                Label {
                    message,
                    recipient: code(recipient),
                    lane,
                    origin_epoch: Epoch([1; 16]),
                    suite: SealingSuite::Open,
                    private: Count { sequence, previous }.encode(),
                    encapsulation: Bytes::new(),
                },
            );
            let place = (origin.to_owned(), (*recipient).to_owned(), lane, sequence);
            CHAIN.with_borrow_mut(|chain| chain.insert(place, slip.digest()));
            group.add(slip)
        })
        .collect();
    let mut signed = group.sign().unwrap();
    let envelope = signed.take(envelope).unwrap();
    let slips = slips.into_iter().map(|slip| signed.take(slip).unwrap()).collect();
    Sent { envelope, slips, sequence }
}

/// From FR, routine.
pub(super) fn send(to: &[&str], sequence: u64) -> Sent {
    send_as("FR", to, Lane::Routine, sequence, format!("body {sequence}").as_bytes())
}

pub(super) fn accept(sent: &Sent, request: Option<u8>) -> Operation {
    let request = request.map(|id| (request_key(id), sent.envelope.manifest().body.digest));
    Operation::Accept(Box::new(Accept {
        envelope: sent.envelope.clone(),
        slips: sent.slips.iter().map(|slip| (slip.clone(), sent.sequence)).collect(),
        desk: "desk".parse().unwrap(),
        request,
        send_at: None,
        requeue_of: None,
        now: at(0),
    }))
}

pub(super) fn request_key(id: u8) -> RequestKey {
    RequestKey { desk: "desk".parse().unwrap(), id: [id; 16] }
}

pub(super) fn receipt(
    sent: &Sent,
    recipient: &str,
    kind: ReceiptKind,
    signed_by: &str,
    time: Timestamp,
) -> Verified<Receipt> {
    let signer = signer(signed_by);
    let mut group = signer.group();
    let ticket = group.add(Receipt::new(Statement {
        kind,
        message: sent.id(),
        recipient: code(recipient),
        slip: sent.slip(recipient).digest(),
        signer: code(signed_by),
        signer_epoch: Epoch([2; 16]),
        time,
        reason: String::new(),
        advice: String::new(),
        previous_hop: None,
        next_hop: None,
        desk: None,
    }));
    group.sign().unwrap().take(ticket).unwrap()
}

/// A message that arrives over a hop at a bureau, with one action for all slips.
pub(super) fn receive(sent: &Sent, hop: &str, here: &str, action: ReceiveAction) -> Operation {
    let kind = match action {
        ReceiveAction::Deliver => ReceiptKind::Delivered,
        ReceiveAction::Relay => ReceiptKind::Custody,
        ReceiveAction::Refuse => ReceiptKind::Refused,
    };
    let slip = |slip: &Verified<Slip>| ReceiveSlip {
        slip: slip.clone(),
        action,
        receipt: receipt(sent, slip.label().recipient.as_str(), kind, here, at(1)),
    };
    Operation::Receive(Box::new(Receive {
        envelope: sent.envelope.clone(),
        slips: sent.slips.iter().map(slip).collect(),
        hop: code(hop),
        hops: 1,
        refills: 0,
        bundle: None,
        now: at(1),
    }))
}

pub(super) fn take(receipt: Verified<Receipt>, hop: &str) -> Operation {
    Operation::TakeReceipt(Box::new(TakeReceipt {
        receipt,
        home: None,
        hop: code(hop),
        now: at(2),
    }))
}

pub(super) fn give_up(receipt: Verified<Receipt>) -> Operation {
    Operation::GiveUp(Box::new(GiveUp { receipt, now: at(HOUR_MS) }))
}

pub(super) fn acknowledge(sent: &Sent, here: &str, desk: &str) -> Operation {
    let receipt = receipt(sent, here, ReceiptKind::Acknowledged, here, at(3));
    let desk = desk.parse().unwrap();
    Operation::Acknowledge(Box::new(Acknowledge { receipt, desk, now: at(3) }))
}

/// Small segments and snapshots, so that a few messages turn them over.
pub(super) fn options(directory: impl Into<PathBuf>) -> OpenOptions {
    OpenOptions {
        segment_bytes: 64 * 1024,
        checkpoint_bytes: 64 * 1024,
        snapshot_bytes: 256 * 1024,
        cache_bytes: 4 * 1024 * 1024,
        reserve_bytes: 0,
        ..OpenOptions::new(directory)
    }
}

/// An engine whose store can be closed and opened again.
pub(super) trait Engine {
    async fn open(&self) -> Arc<dyn Store>;

    /// How many files hold bodies.
    fn body_files(&self) -> usize;
}

pub(super) struct Real {
    pub(super) directory: tempfile::TempDir,
}

impl Real {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let (progress, _) = watch::channel(Progress::Reading);
        open_local(options(self.directory.path()), progress).await
    }
}

impl Engine for Real {
    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    fn body_files(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("bodies")).unwrap().count()
    }
}

#[derive(Default)]
pub(super) struct Sim {
    pub(super) disk: SimDisk,
    pub(super) home: MemoryHome,
}

impl Sim {
    pub(super) fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let (progress, _) = watch::channel(Progress::Reading);
        let (disk, home) = (self.disk.clone(), &self.home);
        let hands = Hands::Threads;
        let store = JournaledStore::open(disk, &options("/store"), home, &progress, None, hands)?;
        Ok(Arc::new(store))
    }
}

impl Engine for Sim {
    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().unwrap()
    }

    fn body_files(&self) -> usize {
        self.disk.list(std::path::Path::new("/store/bodies")).unwrap().len()
    }
}

/// The store that simulations run.
pub(super) struct InOrder {
    pub(super) home: Mutex<SimHome>,
}

impl Default for InOrder {
    fn default() -> Self {
        Self { home: Mutex::new(SimHome::new(7)) }
    }
}

impl Engine for InOrder {
    async fn open(&self) -> Arc<dyn Store> {
        self.home.lock().unwrap().open().unwrap()
    }

    fn body_files(&self) -> usize {
        self.home.lock().unwrap().body_files()
    }
}
