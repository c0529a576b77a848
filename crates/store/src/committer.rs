//! The committer: one owner of all writes. One thread takes what waits as one group, has it
//! resolved, appends it to the journal and syncs; another applies it to the index and only then
//! answers. The next group is synced while the last one is applied.

#[cfg(any(test, feature = "sim"))]
mod in_order;
mod transaction;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use tokio::sync::{mpsc, oneshot, watch};

use self::transaction::Overlay;
pub(crate) use self::transaction::Transaction;
use crate::{
    StoreError,
    disk::Disk,
    hands::Hands,
    index::{Index, VALUE_BYTES_MAX},
    journal::{Journal, Write},
};

/// Requests that may wait.
const WAITING_MAX: usize = 1024;
/// Operations in one group, and bytes of writes.
const GROUP_OPERATIONS_MAX: usize = 4096;
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Groups that are durable and not yet applied.
const UNAPPLIED_MAX: usize = 4;

/// Decides operations. One thread owns it.
pub(crate) trait Resolver: Send + 'static {
    type Operation: Send + 'static;
    type Outcome: Send + 'static;

    /// Decides one operation against the state after everything before it. An error refuses this
    /// operation alone, and none of its writes count.
    fn resolve(
        &mut self,
        operation: Self::Operation,
        tx: &mut Transaction<'_>,
    ) -> Result<Self::Outcome, StoreError>;
}

/// Told of each group after it is durable and visible, before its callers are answered.
pub(crate) trait Observer<O>: Send + 'static {
    fn visible(&mut self, outcomes: &[O]);
}

type Outcomes<R> = Result<Vec<<R as Resolver>::Outcome>, StoreError>;
/// What was decided for each request, and who waits for it.
type Answers<R> = Vec<(Vec<<R as Resolver>::Outcome>, oneshot::Sender<Outcomes<R>>)>;

struct Request<R: Resolver> {
    operations: Vec<R::Operation>,
    reply: oneshot::Sender<Outcomes<R>>,
}

struct Resolved<R: Resolver> {
    /// 0: nothing was written.
    number: u64,
    writes: Vec<Write>,
    answers: Answers<R>,
}

/// What happened to the committer, for those who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    Failed,
}

/// The way in.
pub(crate) struct Committer<R: Resolver> {
    requests: std::sync::Mutex<Option<mpsc::Sender<Request<R>>>>,
    health: watch::Receiver<Health>,
    threads: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// In their place, in a simulation.
    #[cfg(any(test, feature = "sim"))]
    tasks: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    appended: Arc<AtomicU64>,
    segment: Arc<AtomicU64>,
}

impl<R: Resolver> Committer<R> {
    pub(crate) fn start<D: Disk, I: Index>(
        journal: Journal<D>,
        index: Arc<I>,
        resolver: R,
        observer: impl Observer<R::Outcome>,
        hands: &Hands,
    ) -> Result<Self, StoreError> {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let unapplied_max = match hands {
            Hands::Threads => UNAPPLIED_MAX,
            #[cfg(any(test, feature = "sim"))]
            Hands::InOrder(_) => in_order::GROUPS_MAX,
        };
        let (resolved, unapplied) = sync_channel(unapplied_max);
        let (unhealthy, health) = watch::channel(Health::Good);
        let (health_of_writer, health_of_applier) = (unhealthy.clone(), unhealthy.clone());
        let applied = Arc::new(AtomicU64::new(journal.last()));
        let appended = Arc::new(AtomicU64::new(0));
        let segment = Arc::new(AtomicU64::new(journal.segment()));
        // A group must fit into a segment, with the one operation that overshoots.
        let group_bytes_max =
            usize::try_from(journal.segment_bytes() / 2).unwrap_or(GROUP_BYTES_MAX);
        let writer = Writer {
            group_bytes_max: group_bytes_max.min(GROUP_BYTES_MAX),
            journal,
            index: Arc::clone(&index),
            resolver,
            overlay: Overlay::new(Arc::clone(&applied)),
            resolved,
            unhealthy: unhealthy.clone(),
            appended: Arc::clone(&appended),
            segment: Arc::clone(&segment),
        };
        let applier = Applier { index, observer, applied, unhealthy };
        #[cfg(any(test, feature = "sim"))]
        let mut tasks = Vec::new();
        let threads = match hands {
            Hands::Threads => vec![
                guarded("store-commit", &health_of_writer, move || writer.run(waiting))?,
                guarded("store-apply", &health_of_applier, move || applier.run(unapplied))?,
            ],
            #[cfg(any(test, feature = "sim"))]
            Hands::InOrder(order) => {
                tasks = in_order::start(writer, applier, waiting, unapplied, order);
                Vec::new()
            }
        };
        let requests = std::sync::Mutex::new(Some(requests));
        Ok(Self {
            requests,
            health,
            threads: std::sync::Mutex::new(threads),
            #[cfg(any(test, feature = "sim"))]
            tasks: std::sync::Mutex::new(tasks),
            appended,
            segment,
        })
    }

    /// Has operations decided, in one group where they fit. Returns when they are durable and
    /// visible.
    pub(crate) async fn commit(&self, operations: Vec<R::Operation>) -> Outcomes<R> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let requests = lock(&self.requests).clone().ok_or(StoreError::Failed)?;
        let (reply, outcome) = oneshot::channel();
        let request = Request { operations, reply };
        requests.send(request).await.map_err(|_| StoreError::Failed)?;
        // A thread that ended without an answer may have written.
        outcome.await.unwrap_or(Err(StoreError::OutcomeUnknown))
    }

    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Bytes appended to the journal since it was opened.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// The journal's segment that is written now.
    pub(crate) fn segment(&self) -> u64 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Takes no more, and waits for the tasks of a simulation to finish what waits.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) async fn finish(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        if tasks.is_empty() {
            return;
        }
        *lock(&self.requests) = None;
        for task in tasks {
            drop(task.await);
        }
    }

    /// Takes no more, finishes what waits, and ends the threads.
    pub(crate) fn close(&self) {
        *lock(&self.requests) = None;
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!(event = "task_failed", task = "committer");
            }
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Starts a thread. One that panics has failed like one that says so: nobody may wait for it.
fn guarded(
    name: &str,
    unhealthy: &watch::Sender<Health>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    struct Guard(watch::Sender<Health>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.send_replace(Health::Failed);
            }
        }
    }
    let guard = Guard(unhealthy.clone());
    let work = move || {
        let _guard = guard;
        work();
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(StoreError::io("start", name))
}

struct Writer<D: Disk, I: Index, R: Resolver> {
    group_bytes_max: usize,
    journal: Journal<D>,
    index: Arc<I>,
    resolver: R,
    overlay: Overlay,
    resolved: SyncSender<Resolved<R>>,
    unhealthy: watch::Sender<Health>,
    appended: Arc<AtomicU64>,
    segment: Arc<AtomicU64>,
}

/// What a key is to hold; `None`: it is deleted.
type Value = Option<Vec<u8>>;

/// A group while it is gathered. Keys that are written twice are written once.
struct Gathering<R: Resolver> {
    writes: BTreeMap<Vec<u8>, Value>,
    bytes: usize,
    /// What the keys of the request at hand were before it, latest last.
    undo: Vec<(Vec<u8>, Option<Value>)>,
    answers: Answers<R>,
}

impl<R: Resolver> Gathering<R> {
    const fn new() -> Self {
        Self { writes: BTreeMap::new(), bytes: 0, undo: Vec::new(), answers: Vec::new() }
    }

    fn put(&mut self, key: Vec<u8>, value: Value, undoable: bool) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        let undo = undoable.then(|| key.clone());
        let before = self.writes.insert(key, value);
        self.undo.extend(undo.map(|key| (key, before)));
    }

    /// Takes back what the request at hand wrote.
    fn undo(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(before) => self.writes.insert(key, before),
                None => self.writes.remove(&key),
            };
        }
    }
}

impl<D: Disk, I: Index, R: Resolver> Writer<D, I, R> {
    fn run(mut self, mut waiting: mpsc::Receiver<Request<R>>) {
        while let Some(first) = waiting.blocking_recv() {
            let requests = Self::gather(first, &mut waiting);
            if let Err(error) = self.work(requests) {
                self.fail(&error, waiting);
                return;
            }
        }
    }

    /// What waits behind the first, as far as it goes into one group.
    fn gather(first: Request<R>, waiting: &mut mpsc::Receiver<Request<R>>) -> Vec<Request<R>> {
        let mut operations = first.operations.len();
        let mut requests = vec![first];
        while operations < GROUP_OPERATIONS_MAX
            && let Ok(request) = waiting.try_recv()
        {
            operations += request.operations.len();
            requests.push(request);
        }
        requests
    }

    /// After a failure nothing is as it seems: nobody is answered but with that.
    fn fail(self, error: &StoreError, mut waiting: mpsc::Receiver<Request<R>>) {
        tracing::error!(event = "store_failed", error = %error);
        self.unhealthy.send_replace(Health::Failed);
        waiting.close();
        while let Some(request) = waiting.blocking_recv() {
            // Who waits for these was never begun with.
            drop(request.reply.send(Err(StoreError::Failed)));
        }
    }

    fn work(&mut self, requests: Vec<Request<R>>) -> Result<(), StoreError> {
        let mut gathering = Gathering::new();
        for Request { operations, reply } in requests {
            match self.resolve_all(operations, &mut gathering)? {
                Ok(outcomes) => gathering.answers.push((outcomes, reply)),
                // A caller that went away needs no answer.
                Err(refused) => drop(reply.send(Err(refused))),
            }
        }
        self.write(&mut gathering)
    }

    /// Decides a request. The inner error refuses it alone, with all it wrote, where it fits into
    /// one group; the outer one is the store's.
    fn resolve_all(
        &mut self,
        operations: Vec<R::Operation>,
        gathering: &mut Gathering<R>,
    ) -> Result<Outcomes<R>, StoreError> {
        let mut outcomes = Vec::with_capacity(operations.len());
        let undoable = operations.len() > 1;
        gathering.undo.clear();
        let mut written = false;
        for operation in operations {
            match self.resolve(operation, gathering, undoable) {
                Ok(outcome) => outcomes.push(outcome),
                Err(StoreError::ValueTooLarge { .. }) if written => {
                    gathering.undo();
                    return Ok(Err(StoreError::OutcomeUnknown));
                }
                Err(refused @ StoreError::ValueTooLarge { .. }) => {
                    gathering.undo();
                    return Ok(Err(refused));
                }
                Err(error) => return Err(error),
            }
            if gathering.bytes > self.group_bytes_max {
                self.write(gathering)?;
                written = true;
            }
        }
        Ok(Ok(outcomes))
    }

    /// Decides one operation. An error here is the index's or a damaged record: the store has
    /// failed, and the next start rebuilds it. But for a value that is too large: that one is the
    /// operation's, and nothing of it was written.
    fn resolve(
        &mut self,
        operation: R::Operation,
        gathering: &mut Gathering<R>,
        undoable: bool,
    ) -> Result<R::Outcome, StoreError> {
        let index: &I = &self.index;
        let mut tx = Transaction::new(index, &self.overlay, &gathering.writes);
        let outcome = self.resolver.resolve(operation, &mut tx)?;
        let writes = tx.into_writes();
        for value in writes.values().flatten() {
            let (bytes, limit) = (value.len(), VALUE_BYTES_MAX);
            if bytes > limit {
                return Err(StoreError::ValueTooLarge { bytes, limit });
            }
        }
        for (key, value) in writes {
            gathering.put(key, value, undoable);
        }
        Ok(outcome)
    }

    /// Makes what was gathered durable and hands it on.
    fn write(&mut self, gathering: &mut Gathering<R>) -> Result<(), StoreError> {
        let gathered = std::mem::replace(gathering, Gathering::new());
        let writes: Vec<Write> =
            gathered.writes.into_iter().map(|(key, value)| Write { key, value }).collect();
        let mut number = 0;
        if !writes.is_empty() {
            number = self.journal.append(&writes)?;
            self.appended.store(self.journal.appended(), Ordering::Relaxed);
            self.segment.store(self.journal.segment(), Ordering::Relaxed);
            self.overlay.add(number, &writes);
        }
        let resolved = Resolved { number, writes, answers: gathered.answers };
        self.resolved.send(resolved).map_err(|_| StoreError::Failed)
    }
}

struct Applier<I: Index, O> {
    index: Arc<I>,
    observer: O,
    applied: Arc<AtomicU64>,
    unhealthy: watch::Sender<Health>,
}

impl<I: Index, O> Applier<I, O> {
    fn run<R: Resolver>(mut self, unapplied: Receiver<Resolved<R>>)
    where
        O: Observer<R::Outcome>,
    {
        for resolved in unapplied {
            if !self.apply(resolved) {
                return;
            }
        }
    }

    /// Makes a group visible and answers. `false`: that failed.
    fn apply<R: Resolver>(&mut self, resolved: Resolved<R>) -> bool
    where
        O: Observer<R::Outcome>,
    {
        let Resolved { number, writes, answers } = resolved;
        if number > 0 {
            if let Err(error) = self.index.apply(number, &writes) {
                // It is durable, but cannot be shown: the next start does that.
                tracing::error!(event = "store_failed", error = %error);
                self.unhealthy.send_replace(Health::Failed);
                return false;
            }
            self.applied.store(number, Ordering::Release);
        }
        for (outcomes, _) in &answers {
            self.observer.visible(outcomes);
        }
        for (outcomes, reply) in answers {
            // A caller that went away needs no answer.
            drop(reply.send(Ok(outcomes)));
        }
        true
    }
}
