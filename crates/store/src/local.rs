//! The store on this machine's disk: journal, index and bodies behind the contract.

mod files;
mod maintenance;
mod reading;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use bureau_core::{BureauCode, Epoch, Lane, MessageId, Timestamp, ids::IdPrefix};
use bytes::Bytes;
use tokio::{
    sync::{broadcast, watch},
    task::spawn_blocking,
};

use self::{
    maintenance::Maintenance,
    reading::{Damage, Reading},
};
use crate::{
    StoreError,
    attachments::Attachments,
    bodies::Bodies,
    committer::{Committer, Health},
    contract::{
        Arrived, AttachmentHeld, BundleKept, BundleWay, Changes, Content, Counted, DeadLetter,
        DeadPosition, Depth, Head, Held, HeldDepth, HeldEntry, Operation, Outcome, OutgoingReceipt,
        PeerNote, QueuePosition, Queued, QueuedEntry, QueuedSlip, RequestKey, RequestMade, Role,
        Room, SentSoFar, Source, Store, Timer, Tracked,
    },
    disk::{Disk, RealDisk},
    hands::Hands,
    index::Index,
    journal::Write,
    keys,
    ledger::{
        Ledger, Ordered,
        depths::{CHANGES_MAX, Counts, Watcher},
    },
    open::{self, IndexHome, OpenOptions, Opened, Progress, SledHome},
    record::{self, CountersRecord, MetaRecord},
};

/// The layout this version writes.
const SCHEMA: u32 = 1;

/// A store of a disk and an index.
pub(crate) struct JournaledStore<D: Disk, I: Index> {
    parts: Arc<Parts<D, I>>,
}

/// What the store's threads share.
struct Parts<D: Disk, I: Index> {
    disk: D,
    directory: PathBuf,
    hands: Hands,
    index: Arc<I>,
    committer: Committer<Ledger>,
    counts: Arc<Counts>,
    bodies: Bodies<D>,
    attachments: Attachments<D>,
    changes: broadcast::Sender<Arc<Changes>>,
    maintenance: Maintenance,
    damage: Arc<Damage>,
    /// Held while the store is open; another process finds it locked.
    _lock: Option<std::fs::File>,
}

/// Opens the store in a directory of this machine, after a stop of any kind, and says what it is
/// at meanwhile.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::NewerSchema`], [`StoreError::Corrupt`] where no copy makes
/// up for what is damaged.
pub async fn open_local(
    options: OpenOptions,
    progress: watch::Sender<Progress>,
) -> Result<Arc<dyn Store>, StoreError> {
    let opened = spawn_blocking(move || {
        let disk = RealDisk;
        let directory = &options.directory;
        disk.create_directory(directory).map_err(StoreError::io("create", directory))?;
        let lock = lock(directory.join("lock"))?;
        let cache_bytes = options.cache_bytes;
        let home = SledHome { directory: directory.join("index"), cache_bytes };
        home.remove_old();
        JournaledStore::open(disk, &options, &home, &progress, Some(lock), Hands::Threads)
    });
    let opened = opened.await.unwrap_or_else(|error| Err(StoreError::Index(error.to_string())));
    opened.map(|store| Arc::new(store) as Arc<dyn Store>)
}

fn lock(path: PathBuf) -> Result<std::fs::File, StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::File::options().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(StoreError::io("open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path }),
        Err(error) => Err(StoreError::io("lock", path)(error.into())),
    }
}

impl<D: Disk, I: Index> JournaledStore<D, I> {
    pub(crate) fn open<H: IndexHome<Index = I>>(
        disk: D,
        options: &OpenOptions,
        home: &H,
        progress: &watch::Sender<Progress>,
        lock: Option<std::fs::File>,
        hands: Hands,
    ) -> Result<Self, StoreError> {
        let bodies = Bodies::open(disk.clone(), options.directory.join(files::DIRECTORY))?;
        let Opened { mut journal, index, snapshots, snapshot_due, journal_bytes } =
            open::open(&disk, options, home, progress, &hands)?;
        let index = Arc::new(index);
        let epoch = match meta(&*index, keys::EPOCH)? {
            Some(epoch) => {
                check_schema(&*index)?;
                Epoch::from_bytes(&epoch).map_err(|_| StoreError::Record { kind: 'z' })?
            }
            None => {
                let (epoch, writes) = first_records(&hands)?;
                let number = journal.append(&writes)?;
                index.apply(number, &writes)?;
                epoch
            }
        };
        let counters = match index.get(keys::COUNTERS)? {
            Some(value) => record::decode(keys::COUNTERS, &value)?,
            None => CountersRecord::default(),
        };
        let latest = Timestamp::from_ms(counters.latest_ms);
        let counts = Arc::new(Counts::read(&*index, latest, epoch)?);
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        let watcher = Watcher {
            index: Arc::clone(&index),
            counts: Arc::clone(&counts),
            changes: changes.clone(),
            bodies: bodies.clone(),
        };
        let attachments = Attachments::new(disk.clone(), bodies.clone(), options.staged_bytes);
        let ledger = Ledger::new(counters, options.custody_overdue_ms);
        let committer = Committer::start(journal, Arc::clone(&index), ledger, watcher, &hands)?;
        let maintenance = Maintenance::new(options, snapshots, snapshot_due, journal_bytes);
        let parts = Parts {
            disk,
            directory: options.directory.clone(),
            hands,
            index,
            committer,
            counts,
            bodies,
            attachments,
            changes,
            maintenance,
            damage: Arc::default(),
            _lock: lock,
        };
        let parts = Arc::new(parts);
        maintenance::start(&parts)?;
        progress.send_replace(Progress::Open);
        Ok(Self { parts })
    }

    fn reading(&self) -> Reading<D, I> {
        let (index, damage) = (Arc::clone(&self.parts.index), Arc::clone(&self.parts.damage));
        Reading { index, bodies: self.parts.bodies.clone(), damage }
    }

    /// Reads away from the reactor.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading<D, I>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reading = self.reading();
        self.parts.hands.offload(move || read(&reading)).await
    }

    /// Works on attachments away from the reactor.
    async fn with_attachments<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Attachments<D>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let attachments = self.parts.attachments.clone();
        self.parts.hands.offload(move || work(&attachments)).await
    }
}

fn meta(index: &dyn Index, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(value) = index.get(key)? else { return Ok(None) };
    Ok(Some(record::decode::<MetaRecord>(key, &value)?.value))
}

fn check_schema(index: &dyn Index) -> Result<(), StoreError> {
    let schema = meta(index, keys::SCHEMA)?.unwrap_or_default();
    let found = schema.as_ref().try_into().map(u32::from_be_bytes).unwrap_or(0);
    if found > SCHEMA {
        return Err(StoreError::NewerSchema { found, known: SCHEMA });
    }
    Ok(())
}

/// What a new store begins with.
fn first_records(hands: &Hands) -> Result<(Epoch, Vec<Write>), StoreError> {
    let mut epoch = [0; 16];
    hands.fill(&mut epoch).map_err(|error| StoreError::Index(error.to_string()))?;
    let write = |key: &[u8], value: Bytes| {
        let value = record::encode(key, &MetaRecord { value });
        Write { key: key.to_vec(), value: Some(value) }
    };
    let schema = Bytes::copy_from_slice(&SCHEMA.to_be_bytes());
    let writes =
        vec![write(keys::EPOCH, Bytes::copy_from_slice(&epoch)), write(keys::SCHEMA, schema)];
    Ok((Epoch(epoch), writes))
}

#[async_trait]
impl<D: Disk, I: Index> Store for JournaledStore<D, I> {
    async fn commit(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, StoreError> {
        let brings_work = |operation: &Operation| {
            matches!(operation, Operation::Accept(_) | Operation::Receive(_))
        };
        if self.parts.maintenance.low.load(Ordering::Relaxed) && operations.iter().any(brings_work)
        {
            return Err(StoreError::DiskLow);
        }
        let large = files::large_bodies(&operations);
        if !large.is_empty() || operations.iter().any(files::names_attachments) {
            return self.commit_with_files(operations, large).await;
        }
        let ordered = |operation| Ordered { operation, bodies: None, missing: false };
        let operations = operations.into_iter().map(ordered).collect();
        let decided = self.parts.committer.commit(operations).await?;
        Ok(decided.into_iter().map(|decided| decided.outcome).collect())
    }

    async fn requests(
        &self,
        keys: Vec<RequestKey>,
    ) -> Result<Vec<Option<RequestMade>>, StoreError> {
        self.read(move |reading| reading.requests(&keys)).await
    }

    async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        self.read(Reading::heads).await
    }

    async fn peer_notes(&self) -> Result<Vec<(BureauCode, PeerNote)>, StoreError> {
        self.read(Reading::peer_notes).await
    }

    async fn queued(
        &self,
        destination: BureauCode,
        lane: Lane,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Queued>, StoreError> {
        self.read(move |reading| reading.queued(destination, lane, after, limit, bytes)).await
    }

    async fn queued_slips(&self, message: MessageId) -> Result<Vec<QueuedSlip>, StoreError> {
        self.read(move |reading| reading.queued_slips(&message)).await
    }

    async fn queue_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<QueuePosition>,
        limit: usize,
    ) -> Result<Vec<QueuedEntry>, StoreError> {
        self.read(move |reading| reading.queue_page(destination, after, limit)).await
    }

    fn depths(&self) -> Vec<Depth> {
        self.parts.counts.depths()
    }

    fn depth(&self, destination: BureauCode) -> u64 {
        self.parts.counts.depth(destination)
    }

    async fn held_page(
        &self,
        destination: Option<BureauCode>,
        after: Option<(BureauCode, MessageId)>,
        limit: usize,
    ) -> Result<Vec<HeldEntry>, StoreError> {
        self.read(move |reading| reading.held_page(destination, after, limit)).await
    }

    fn held_depths(&self) -> Vec<HeldDepth> {
        self.parts.counts.held_depths()
    }

    async fn held_peers(&self) -> Result<Vec<(BureauCode, Held)>, StoreError> {
        self.read(Reading::held_peers).await
    }

    async fn dead_page(
        &self,
        recipient: Option<BureauCode>,
        after: Option<DeadPosition>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(move |reading| reading.dead_page(recipient, after, limit)).await
    }

    async fn dead_letters(&self, message: MessageId) -> Result<Vec<DeadLetter>, StoreError> {
        self.read(move |reading| reading.dead_letters(&message)).await
    }

    async fn receipts(
        &self,
        destination: BureauCode,
        after: u64,
        limit: usize,
    ) -> Result<Vec<OutgoingReceipt>, StoreError> {
        self.read(move |reading| reading.receipts(destination, after, limit)).await
    }

    async fn attachment(
        &self,
        source: Source,
        digest: [u8; 32],
    ) -> Result<AttachmentHeld, StoreError> {
        self.with_attachments(move |attachments| attachments.held(&digest, &source)).await
    }

    async fn attachment_add(
        &self,
        source: Source,
        content: Content,
        offset: u64,
        data: Bytes,
    ) -> Result<AttachmentHeld, StoreError> {
        if self.parts.maintenance.low.load(Ordering::Relaxed) {
            return Err(StoreError::DiskLow);
        }
        let add =
            move |attachments: &Attachments<D>| attachments.append(&source, content, offset, &data);
        self.with_attachments(add).await
    }

    async fn attachment_read(
        &self,
        digest: [u8; 32],
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        self.with_attachments(move |attachments| attachments.read(&digest, offset, limit)).await
    }

    fn receipt_destinations(&self) -> Vec<BureauCode> {
        self.parts.counts.receipt_destinations()
    }

    async fn bundles(
        &self,
        way: Option<BundleWay>,
        peer: Option<BureauCode>,
        limit: usize,
    ) -> Result<Vec<BundleKept>, StoreError> {
        self.read(move |reading| reading.bundles(way, peer, limit)).await
    }

    async fn inbox(
        &self,
        after: u64,
        limit: usize,
        acknowledged: bool,
        content: bool,
    ) -> Result<Vec<Arrived>, StoreError> {
        self.read(move |reading| reading.inbox(after, limit, acknowledged, content)).await
    }

    async fn inbox_number(&self, number: u64) -> Result<Option<Arrived>, StoreError> {
        self.read(move |reading| reading.inbox_number(number, true)).await
    }

    async fn inbox_message(&self, message: MessageId) -> Result<Option<Arrived>, StoreError> {
        self.read(move |reading| reading.inbox_message(&message)).await
    }

    async fn track(&self, message: MessageId) -> Result<Option<Tracked>, StoreError> {
        self.read(move |reading| reading.track(message)).await
    }

    async fn find(&self, prefix: IdPrefix, role: Role) -> Result<Vec<MessageId>, StoreError> {
        self.read(move |reading| reading.find(&prefix, role)).await
    }

    async fn sent(&self) -> Result<Vec<SentSoFar>, StoreError> {
        self.read(Reading::sent).await
    }

    async fn counted(&self) -> Result<Vec<Counted>, StoreError> {
        self.read(Reading::counted).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Timer>, StoreError> {
        self.read(move |reading| reading.due(now, limit)).await
    }

    fn epoch(&self) -> Epoch {
        self.parts.counts.epoch()
    }

    fn latest_time(&self) -> Timestamp {
        self.parts.counts.latest()
    }

    fn changes(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.parts.changes.subscribe()
    }

    fn room(&self) -> Room {
        self.parts.maintenance.room()
    }

    async fn failed(&self) {
        let mut health = self.parts.committer.health();
        // Closed on purpose is no failure; then this never returns.
        if health.wait_for(|health| *health == Health::Failed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "sim"))]
        self.parts.committer.finish().await;
        let parts = Arc::clone(&self.parts);
        self.parts.hands.offload(move || parts.close()).await
    }
}

impl<D: Disk, I: Index> Parts<D, I> {
    fn close(&self) -> Result<(), StoreError> {
        self.committer.close();
        self.maintenance.stop();
        if *self.committer.health().borrow() == Health::Failed {
            return Err(StoreError::Failed);
        }
        self.index.flush()?;
        open::write_checkpoint(&self.disk, &self.directory, self.index.position())?;
        open::write_clean_mark(&self.disk, &self.directory)
    }
}
