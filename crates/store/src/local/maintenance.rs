//! Beside the commits: checkpoints, snapshots, removal of what they make needless, and a look at
//! the room on the disk. On a thread of its own: a flush of sled takes as long as it takes.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::Parts;
use crate::{
    StoreError,
    contract::Room,
    disk::Disk,
    index::Index,
    journal,
    open::{self, OpenOptions},
    snapshot,
};

/// How often it is looked whether there is something to do.
const PERIOD: Duration = Duration::from_millis(500);
/// How often it is looked for attachments that nobody names.
const SWEEP: Duration = Duration::from_secs(3600);
/// Snapshots that are kept: the last, and the one before it should the last be damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// The state of maintenance.
pub(super) struct Maintenance {
    pub(super) low: AtomicBool,
    free_bytes: AtomicU64,
    options: OpenOptions,
    /// Position and first needed segment of each snapshot.
    snapshots: Mutex<Vec<(u64, u64)>>,
    last_snapshot_bytes: AtomicU64,
    snapshot_due: AtomicBool,
    /// What the journal took when it was opened: restarts leave segments, and they count too.
    journal_bytes: u64,
    stopping: Mutex<bool>,
    wake: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Maintenance {
    pub(super) fn new(
        options: &OpenOptions,
        snapshots: Vec<(u64, u64)>,
        snapshot_due: bool,
        journal_bytes: u64,
    ) -> Self {
        Self {
            low: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
            options: options.clone(),
            snapshots: Mutex::new(snapshots),
            last_snapshot_bytes: AtomicU64::new(0),
            snapshot_due: AtomicBool::new(snapshot_due),
            journal_bytes,
            stopping: Mutex::new(false),
            wake: Condvar::new(),
            thread: Mutex::new(None),
        }
    }

    pub(super) fn room(&self) -> Room {
        Room {
            free_bytes: self.free_bytes.load(Ordering::Relaxed),
            low: self.low.load(Ordering::Relaxed),
        }
    }

    /// What must be free for new work: the next snapshot, two segments, and the reserve.
    fn needed(&self) -> u64 {
        let snapshot = self.last_snapshot_bytes.load(Ordering::Relaxed);
        let segments = 2 * self.options.segment_bytes;
        snapshot.saturating_add(segments).saturating_add(self.options.reserve_bytes)
    }

    pub(super) fn stop(&self) {
        *lock(&self.stopping) = true;
        self.wake.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!(event = "task_failed", task = "maintenance");
        }
    }

    /// Waits a period. Whether to go on.
    fn wait(&self) -> bool {
        let stopping = lock(&self.stopping);
        let waited = self.wake.wait_timeout_while(stopping, PERIOD, |stopping| !*stopping);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts the thread. It ends with the store.
pub(super) fn start<D: Disk, I: Index>(parts: &Arc<Parts<D, I>>) -> Result<(), StoreError> {
    look_at_room(parts);
    let weak = Arc::downgrade(parts);
    #[cfg(any(test, feature = "sim"))]
    if let crate::hands::Hands::InOrder(order) = &parts.hands {
        order.owns(&tokio::spawn(run_in_order(weak)));
        return Ok(());
    }
    let thread = std::thread::Builder::new()
        .name("store-maintain".to_owned())
        .spawn(move || run(&weak))
        .map_err(StoreError::io("start", "store-maintain"))?;
    *lock(&parts.maintenance.thread) = Some(thread);
    Ok(())
}

fn run<D: Disk, I: Index>(weak: &Weak<Parts<D, I>>) {
    if let Some(parts) = weak.upgrade()
        && let Err(error) = parts.sweep_bodies()
    {
        // The files stay: space, not truth.
        tracing::error!(event = "body_not_removed", error = %error);
    }
    let mut rounds = Rounds::new();
    while let Some(parts) = weak.upgrade() {
        rounds.round(&parts);
        if !parts.maintenance.wait() {
            return;
        }
    }
}

/// The same in a simulation: a task, and rounds farther apart.
#[cfg(any(test, feature = "sim"))]
async fn run_in_order<D: Disk, I: Index>(weak: Weak<Parts<D, I>>) {
    let mut rounds = Rounds::new();
    while let Some(parts) = weak.upgrade() {
        rounds.round(&parts);
        drop(parts);
        tokio::time::sleep(4 * PERIOD).await;
    }
}

/// What was done when.
struct Rounds {
    checkpointed: u64,
    snapshotted: u64,
    swept: std::time::Instant,
    /// Bytes of journal from before this start that no snapshot has.
    before: Option<u64>,
}

impl Rounds {
    fn new() -> Self {
        let swept = std::time::Instant::now();
        Self { checkpointed: 0, snapshotted: 0, swept, before: None }
    }

    /// Does what there is to do.
    fn round<D: Disk, I: Index>(&mut self, parts: &Parts<D, I>) {
        let before = self.before.get_or_insert(parts.maintenance.journal_bytes);
        let appended = parts.committer.appended();
        look_at_room(parts);
        take_ballast(parts);
        if self.swept.elapsed() > SWEEP {
            self.swept = std::time::Instant::now();
            if let Err(error) = parts.attachments.sweep() {
                tracing::error!(event = "body_not_removed", error = %error);
            }
        }
        if appended - self.checkpointed >= parts.maintenance.options.checkpoint_bytes {
            self.checkpointed = appended;
            if let Err(error) = checkpoint(parts) {
                tracing::error!(event = "checkpoint_failed", error = %error);
            }
        }
        let last_bytes = parts.maintenance.last_snapshot_bytes.load(Ordering::Relaxed);
        let due = parts.maintenance.options.snapshot_bytes.max(last_bytes);
        let asked = parts.maintenance.snapshot_due.swap(false, Ordering::Relaxed);
        if asked || *before + appended - self.snapshotted >= due {
            *before = 0;
            self.snapshotted = appended;
            if let Err(error) = take_snapshot(parts) {
                tracing::error!(event = "snapshot_failed", error = %error);
            }
        }
    }
}

fn checkpoint<D: Disk, I: Index>(parts: &Parts<D, I>) -> Result<(), StoreError> {
    // Everything up to here is applied before the flush begins.
    let position = parts.index.position();
    parts.index.flush()?;
    open::write_checkpoint(&parts.disk, &parts.directory, position)?;
    tracing::debug!(event = "checkpointed", position);
    Ok(())
}

fn take_snapshot<D: Disk, I: Index>(parts: &Parts<D, I>) -> Result<(), StoreError> {
    // What is durable and not yet applied may stand one segment back.
    let segment = parts.committer.segment().saturating_sub(1);
    let directory = open::snapshot_directory(&parts.directory);
    let taken = snapshot::take(&parts.disk, &directory, &*parts.index)?;
    let maintenance = &parts.maintenance;
    maintenance.last_snapshot_bytes.store(taken.bytes, Ordering::Relaxed);
    tracing::info!(event = "snapshot_taken", position = taken.position, bytes = taken.bytes);

    let mut snapshots = lock(&maintenance.snapshots);
    snapshots.retain(|(position, _)| *position != taken.position);
    snapshots.insert(0, (taken.position, segment));
    let kept = snapshots.len().min(SNAPSHOTS_KEPT);
    let dropped = snapshots.split_off(kept);
    for (position, path) in snapshot::list(&parts.disk, &directory)? {
        if dropped.iter().any(|(dropped, _)| *dropped == position) {
            parts.disk.remove(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    if snapshots.len() == SNAPSHOTS_KEPT {
        let needed = snapshots.iter().map(|(_, segment)| *segment).min().unwrap_or(0);
        let journal_dir = open::journal_directory(&parts.directory);
        journal::remove_segments(&parts.disk, &journal_dir, needed)?;
    }
    Ok(())
}

/// Takes the room for the ballast while there is plenty.
fn take_ballast<D: Disk, I: Index>(parts: &Parts<D, I>) {
    let options = &parts.maintenance.options;
    let plenty = parts.maintenance.needed().saturating_add(2 * open::ballast_bytes(options));
    if parts.maintenance.room().free_bytes > plenty
        && let Err(error) = open::take_ballast(&parts.disk, options)
    {
        tracing::warn!(event = "ballast_not_taken", error = %error);
    }
}

fn look_at_room<D: Disk, I: Index>(parts: &Parts<D, I>) {
    let maintenance = &parts.maintenance;
    let free = match parts.disk.free_bytes(&parts.directory) {
        Ok(free) => free,
        Err(error) => {
            tracing::error!(event = "disk_unreadable", error = %error);
            return;
        }
    };
    let needed = maintenance.needed();
    maintenance.free_bytes.store(free, Ordering::Relaxed);

    let low = free < needed;
    if maintenance.low.swap(low, Ordering::Relaxed) != low {
        if low {
            tracing::error!(event = "disk_low", free_bytes = free, needed_bytes = needed);
        } else {
            tracing::info!(event = "disk_recovered", free_bytes = free, needed_bytes = needed);
        }
    }
}
