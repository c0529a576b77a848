//! A machine in memory for simulations: the real ledger, committer, journal and recovery over a disk
//! that forgets what was not synced, without threads, at times and with luck that a seed decides.
//! Nothing here is built into a node.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::sleep,
};

use crate::{
    OpenOptions, Progress, StoreError,
    contract::Store,
    disk::{SimDisk, Unsynced},
    hands::Hands,
    index::MemoryHome,
    local::JournaledStore,
};

/// Small enough that a short run turns segments over, takes checkpoints and snapshots.
const SEGMENT_BYTES: u64 = 128 * 1024;
const SNAPSHOT_BYTES: u64 = 512 * 1024;
const RESERVE_BYTES: u64 = 1024 * 1024;
/// Enough for new work, and too little to put some aside.
const FREE_BYTES: u64 = 8 * 1024 * 1024;
/// How long a sync takes at most where nothing else is said, in milliseconds.
const SYNC_MS: u64 = 4;

/// In which order and time a store works, while it is open.
#[derive(Debug)]
pub(crate) struct Order {
    seed: Mutex<u64>,
    sync_ms: Arc<AtomicU64>,
    tasks: Mutex<Vec<AbortHandle>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Order {
    /// The next number of the seed (splitmix64).
    fn next(&self) -> u64 {
        let mut seed = lock(&self.seed);
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = drawn);
        }
    }

    /// Waits as long as a write and its sync take.
    pub(crate) async fn sync_time(&self) {
        let most = self.sync_ms.load(Ordering::Relaxed);
        sleep(Duration::from_millis(self.next() % (most + 1))).await;
    }

    /// Waits as long as it takes until a durable group is visible.
    pub(crate) async fn apply_time(&self) {
        sleep(Duration::from_millis(self.next() % 2)).await;
    }

    /// Ends a task where the power goes.
    pub(crate) fn owns(&self, task: &JoinHandle<()>) {
        lock(&self.tasks).push(task.abort_handle());
    }
}

/// A machine whose store can lose its power, and comes back with what was synced.
#[derive(Debug)]
pub struct SimHome {
    seed: u64,
    disk: SimDisk,
    index: MemoryHome,
    sync_ms: Arc<AtomicU64>,
    order: Option<Arc<Order>>,
}

impl SimHome {
    /// An empty machine.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        disk.set_free_bytes(FREE_BYTES);
        let sync_ms = Arc::new(AtomicU64::new(SYNC_MS));
        Self { seed, disk, index: MemoryHome::default(), sync_ms, order: None }
    }

    /// Opens its store, in a runtime of one thread.
    ///
    /// # Errors
    /// What opening any store fails with.
    pub fn open(&mut self) -> Result<Arc<dyn Store>, StoreError> {
        self.seed = self.seed.wrapping_add(1);
        let order = Arc::new(Order {
            seed: Mutex::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            sync_ms: Arc::clone(&self.sync_ms),
            tasks: Mutex::default(),
        });
        self.order = Some(Arc::clone(&order));
        let options = OpenOptions {
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: SEGMENT_BYTES,
            snapshot_bytes: SNAPSHOT_BYTES,
            reserve_bytes: RESERVE_BYTES,
            ..OpenOptions::new("/store")
        };
        let (progress, _) = watch::channel(Progress::Reading);
        let (disk, hands) = (self.disk.clone(), Hands::InOrder(order));
        let store = JournaledStore::open(disk, &options, &self.index, &progress, None, hands)?;
        Ok(Arc::new(store))
    }

    /// The power goes: what was not synced is kept or lost by chance, and nothing goes on.
    pub fn crash(&mut self, seed: u64) {
        if let Some(order) = self.order.take() {
            lock(&order.tasks).iter().for_each(AbortHandle::abort);
        }
        self.disk = self.disk.crash(Unsynced::ByChance(seed));
        self.index = self.index.crash();
    }

    /// How long a sync takes at most from now on, in milliseconds; `None`: as at first.
    pub fn set_sync_ms(&self, most: Option<u64>) {
        self.sync_ms.store(most.unwrap_or(SYNC_MS), Ordering::Relaxed);
    }

    /// Whether the disk is low from now on.
    pub fn set_low(&self, low: bool) {
        self.disk.set_free_bytes(if low { 0 } else { FREE_BYTES });
    }

    /// From now on every sync fails, until the power went and came back.
    pub fn fail_syncs(&self) {
        self.disk.fail_syncs_after(0);
    }

    /// How many files hold bodies and attachments.
    #[must_use]
    pub fn body_files(&self) -> usize {
        use crate::disk::Disk as _;
        self.disk.list(std::path::Path::new("/store/bodies")).map_or(0, |names| names.len())
    }
}
