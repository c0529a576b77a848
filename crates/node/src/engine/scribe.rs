//! Everything this node signs goes through here: in groups, each signed once and committed in the
//! order it was signed, so that counts and chains are durable in the order they were given out.
//! The next group is signed while the last ones are being written.

mod group;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bureau_core::{
    BundleId, BureauCode, DeskName, Envelope, Lane, MessageId, Reason, Slip, Timestamp, Verified,
    receipt::ReceiptKind,
};
use bureau_net::Refusal;
use bureau_store::contract::{Outcome, ReceiveAction, RequestKey, RequestMade, Store};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::group::Prepared;
use super::{machine::Machine, store_refusal, submission::Draft};
use crate::{clock::Clock, telemetry::metrics::Metrics, trust::Trust};

/// Jobs that may wait. Each holds a message of the size that [`WAITING_KIB_MAX`] bounds.
const WAITING_MAX: usize = 4096;
/// Memory that waiting messages may take.
const WAITING_KIB_MAX: usize = 128 * 1024;
/// Jobs in one group.
const GROUP_MAX: usize = 1024;
/// Things signed in one group: one tree.
const GROUP_SIGNATURES_MAX: usize = bureau_core::merkle::LEAVES_MAX;
/// Groups that are being written while the next is signed.
const GROUPS_IN_FLIGHT_MAX: usize = 4;

/// The way in.
#[derive(Debug, Clone)]
pub struct Scribe {
    jobs: mpsc::Sender<Job>,
    memory: Arc<Semaphore>,
}

/// A message was accepted and is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub message: MessageId,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it expires.
    pub expires: Timestamp,
    /// When it goes, where that is later.
    pub send_at: Option<Timestamp>,
    /// Whether this request was accepted before.
    pub repeated: bool,
}

/// A message that a link brought, verified, with what is to be done with each slip.
#[derive(Debug)]
pub struct Inbound {
    /// The message.
    pub envelope: Verified<Envelope>,
    /// Its slips.
    pub slips: Vec<InboundSlip>,
    /// The peer that brought it.
    pub hop: BureauCode,
    /// Nodes it passed.
    pub hops: u32,
    /// How often its origin sent it again because its recipient lost it.
    pub refills: u32,
    /// The bundle it came in; `None`: it came over a link.
    pub bundle: Option<BundleId>,
}

/// A slip that a link brought.
#[derive(Debug)]
pub struct InboundSlip {
    /// The slip.
    pub slip: Verified<Slip>,
    /// What is to be done.
    pub action: ReceiveAction,
    /// Why, where it is refused.
    pub reason: Option<Reason>,
}

/// The answer to a slip: a signed receipt for the hop, and whether it was seen before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlipAnswer {
    /// The receipt, encoded.
    pub receipt: Bytes,
    /// Whether the slip was new.
    pub fresh: bool,
    /// The message whose slip it contradicts: then the receipt refuses it.
    pub fork: Option<MessageId>,
}

/// The answer to each slip of a message; or why none was taken now.
pub type ParcelAnswer = Result<Vec<SlipAnswer>, Reason>;

/// A message that is given up here for one recipient.
#[derive(Debug, Clone)]
pub struct Farewell {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
    /// Digest of its slip.
    pub slip: [u8; 32],
    /// EXPIRED or REFUSED.
    pub kind: ReceiptKind,
    /// REFUSED: why, as the hop said.
    pub reason: String,
    /// REFUSED: what the sender can do.
    pub advice: String,
}

/// A desk takes a message over.
#[derive(Debug, Clone)]
pub struct Takeover {
    /// The message.
    pub message: MessageId,
    /// Digest of its slip.
    pub slip: [u8; 32],
    /// The desk.
    pub desk: DeskName,
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

#[derive(Debug)]
enum Job {
    Submit { draft: Box<Draft>, reply: Reply<Accepted>, memory: OwnedSemaphorePermit },
    Receive { inbound: Vec<Inbound>, reply: Reply<Vec<ParcelAnswer>> },
    GiveUp { farewell: Box<Farewell>, reply: Reply<bool> },
    Acknowledge { takeover: Box<Takeover>, reply: Reply<Option<(Timestamp, DeskName, bool)>> },
}

impl Scribe {
    /// Signs and commits a message. Returns when it is durable.
    ///
    /// # Errors
    /// BUSY where too much waits; REQUEST_ID_REUSED; what the store refuses with.
    pub async fn submit(&self, draft: Draft) -> Result<Accepted, Refusal> {
        let kib = u32::try_from(draft.body.len() / 1024 + 1).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(kib).map_err(|_| busy())?;
        let (reply, answer) = oneshot::channel();
        let job = Job::Submit { draft: Box::new(draft), reply, memory };
        self.jobs.try_send(job).map_err(refused)?;
        answer.await.map_err(|_| shutting_down())?
    }

    /// Signs receipts for messages that a link brought and commits both. Returns when they are
    /// durable, with an answer for each message.
    ///
    /// # Errors
    /// What the store refuses with: then none was taken.
    pub async fn receive(&self, inbound: Vec<Inbound>) -> Result<Vec<ParcelAnswer>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Receive { inbound, reply }).await.map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }

    /// Gives a message up that waits here. `false`: it did not wait any more.
    ///
    /// # Errors
    /// What the store refuses with.
    pub async fn give_up(&self, farewell: Farewell) -> Result<bool, Refusal> {
        let (reply, answer) = oneshot::channel();
        let job = Job::GiveUp { farewell: Box::new(farewell), reply };
        self.jobs.send(job).await.map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }

    /// Acknowledges a message for a desk: since when, by whom, and whether by this call. `None`
    /// where there is no such message.
    ///
    /// # Errors
    /// BUSY; what the store refuses with.
    pub async fn acknowledge(
        &self,
        takeover: Takeover,
    ) -> Result<Option<(Timestamp, DeskName, bool)>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Acknowledge { takeover: Box::new(takeover), reply };
        self.jobs.try_send(job).map_err(refused)?;
        answer.await.map_err(|_| shutting_down())?
    }
}

fn busy() -> Refusal {
    Refusal::new(Reason::Busy, "too much is under way; nothing was accepted")
        .retry_after(Duration::from_millis(200))
}

fn shutting_down() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "the node is shutting down")
        .retry_after(Duration::from_secs(5))
}

fn refused(error: mpsc::error::TrySendError<Job>) -> Refusal {
    match error {
        mpsc::error::TrySendError::Full(_) => busy(),
        mpsc::error::TrySendError::Closed(_) => shutting_down(),
    }
}

/// The last slip given out in each count.
type Heads = HashMap<(BureauCode, Lane), (u64, [u8; 32])>;

/// The one task that signs.
pub struct Worker {
    jobs: mpsc::Receiver<Job>,
    store: Arc<dyn Store>,
    trust: Arc<Trust>,
    clock: Arc<Clock>,
    metrics: Metrics,
    bureau: BureauCode,
    machine: Arc<Machine>,
    heads: Heads,
    /// Requests that are being written: a repeat must wait until they are.
    requests: HashSet<RequestKey>,
    writing: JoinSet<Vec<RequestKey>>,
}

/// Makes the scribe and the task that must be run for it.
///
/// # Errors
/// What reading the heads fails with.
pub async fn scribe(
    store: Arc<dyn Store>,
    trust: Arc<Trust>,
    clock: Arc<Clock>,
    metrics: Metrics,
    bureau: BureauCode,
    machine: Arc<Machine>,
) -> Result<(Scribe, Worker), bureau_store::StoreError> {
    let heads = store.heads().await?;
    let heads = heads.iter().map(|head| ((head.recipient, head.lane), (head.sequence, head.slip)));
    let heads = heads.collect();
    let (sender, jobs) = mpsc::channel(WAITING_MAX);
    let scribe = Scribe { jobs: sender, memory: Arc::new(Semaphore::new(WAITING_KIB_MAX)) };
    let (requests, writing) = (HashSet::new(), JoinSet::new());
    let worker =
        Worker { jobs, store, trust, clock, metrics, bureau, machine, heads, requests, writing };
    Ok((scribe, worker))
}

impl Worker {
    /// Works until it is stopped; what waits then is still written.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waiting = Vec::with_capacity(GROUP_MAX);
        loop {
            tokio::select! {
                // What was written makes room, so it goes first.
                biased;
                () = stop.cancelled(), if !self.jobs.is_closed() => self.jobs.close(),
                Some(written) = self.writing.join_next() => self.settle(written),
                taken = self.jobs.recv_many(&mut waiting, GROUP_MAX),
                    if self.writing.len() < GROUPS_IN_FLIGHT_MAX =>
                {
                    if taken == 0 {
                        break;
                    }
                    let jobs = std::mem::take(&mut waiting);
                    self.work(jobs).await;
                }
            }
        }
        self.drain().await;
    }

    fn settle(&mut self, written: Result<Vec<RequestKey>, tokio::task::JoinError>) {
        match written {
            Ok(requests) => {
                for request in requests {
                    self.requests.remove(&request);
                }
            }
            Err(error) => tracing::error!(event = "task_failed", task = "commit", error = %error),
        }
    }

    async fn drain(&mut self) {
        while let Some(written) = self.writing.join_next().await {
            self.settle(written);
        }
    }

    async fn work(&mut self, jobs: Vec<Job>) {
        let mut rest = jobs;
        while !rest.is_empty() {
            let later = split_off_overweight(&mut rest);
            if self.store.room().low {
                rest = without_new_work(rest);
            }
            let (group, repeats) = self.without_repeats(rest).await;
            if !group.is_empty() {
                self.sign_and_commit(group).await;
            }
            rest = repeats;
            rest.extend(later);
        }
    }

    /// Answers requests that were made before, and puts off those whose first is still being
    /// written: first this group, then the rest.
    async fn without_repeats(&mut self, jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
        let key_of = |job: &Job| match job {
            Job::Submit { draft, .. } => draft.request.as_ref().map(|(key, _)| key.clone()),
            _ => None,
        };
        let keys: Vec<RequestKey> = jobs.iter().filter_map(key_of).collect();
        if keys.is_empty() {
            return (jobs, Vec::new());
        }
        if keys.iter().any(|key| self.requests.contains(key)) {
            self.drain().await;
        }
        let made = match self.store.requests(keys).await {
            Ok(made) => made,
            Err(error) => {
                let refusal = store_refusal(&error);
                for job in jobs {
                    job.fail(&refusal);
                }
                return (Vec::new(), Vec::new());
            }
        };
        let mut made = made.into_iter();
        let (mut group, mut later) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            let Some(key) = key_of(&job) else {
                group.push(job);
                continue;
            };
            match made.next().flatten() {
                Some(made) => job.answer_repeated(&made),
                None if self.requests.insert(key) => group.push(job),
                None => later.push(job),
            }
        }
        (group, later)
    }

    async fn sign_and_commit(&mut self, jobs: Vec<Job>) {
        let (signer, epoch) = (self.trust.signer(), self.store.epoch());
        let (now, bureau) = (self.clock.now(), self.bureau);
        let mut heads = std::mem::take(&mut self.heads);
        let machine = Arc::clone(&self.machine);
        let signed = self.machine.offload(move || {
            let scene = group::Scene { signer: &signer, bureau, epoch, now, machine: &machine };
            let prepared = group::prepare(jobs, scene, &mut heads);
            (heads, prepared)
        });
        let prepared = match signed.await {
            Ok((heads, prepared)) => {
                self.heads = heads;
                prepared
            }
            Err(error) => {
                // The heads went with it. Nothing of the group was written; start over from disk.
                tracing::error!(event = "task_failed", task = "sign", error = %error);
                self.reload_heads().await;
                return;
            }
        };
        let Some(Prepared { operations, answers, requests, large }) = prepared else {
            // Without random bytes nothing can be signed; the callers were told.
            self.reload_heads().await;
            return;
        };
        let store = Arc::clone(&self.store);
        let mut commit = Box::pin(async move { store.commit(operations).await });
        // Polled once here, so that groups enter the store in the order they were signed.
        let first = commit.as_mut().now_or_never();
        let (trust, metrics) = (Arc::clone(&self.trust), self.metrics.clone());
        let begun = Instant::now();
        self.writing.spawn(async move {
            let outcome = match first {
                Some(outcome) => outcome,
                None => commit.await,
            };
            metrics.committed(begun.elapsed());
            answers.give(outcome, &trust.signer());
            requests
        });
        if large {
            // A large body is written before its group enters the store: let no other overtake it.
            self.drain().await;
        }
    }

    /// After a group that never reached the store, counting goes on from what is durable.
    async fn reload_heads(&mut self) {
        self.drain().await;
        self.requests.clear();
        match self.store.heads().await {
            Ok(heads) => {
                let heads = heads.iter();
                let pair = |head: &bureau_store::contract::Head| {
                    ((head.recipient, head.lane), (head.sequence, head.slip))
                };
                self.heads = heads.map(pair).collect();
            }
            Err(error) => tracing::error!(event = "store_failed", error = %error),
        }
    }
}

impl Job {
    /// How many things are signed for it.
    fn signatures(&self) -> usize {
        match self {
            Self::Submit { draft, .. } => 1 + draft.recipients.len(),
            Self::Receive { inbound, .. } => {
                inbound.iter().map(|inbound| inbound.slips.len()).sum()
            }
            Self::GiveUp { .. } | Self::Acknowledge { .. } => 1,
        }
    }

    fn fail(self, refusal: &Refusal) {
        // A caller that went away needs no answer: what it asked for is decided all the same.
        match self {
            Self::Submit { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::Receive { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::GiveUp { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::Acknowledge { reply, .. } => drop(reply.send(Err(refusal.clone()))),
        }
    }

    fn answer_repeated(self, made: &RequestMade) {
        if let Self::Submit { draft, reply, .. } = self {
            let same = draft.request.as_ref().is_some_and(|(_, digest)| *digest == made.digest);
            let send_at = draft.send_at;
            drop(reply.send(if same { Ok(repeated(made, send_at)) } else { Err(reused()) }));
        }
    }
}

/// The same request asked for the same time.
fn repeated(made: &RequestMade, send_at: Option<Timestamp>) -> Accepted {
    let RequestMade { message, accepted, expires, .. } = *made;
    Accepted { message, accepted, expires, send_at, repeated: true }
}

fn reused() -> Refusal {
    Refusal::new(Reason::RequestIdReused, "this request_id was used for another content")
}

/// Refuses what brings new work while the disk is low, and keeps what makes room: acknowledging,
/// giving up.
fn without_new_work(jobs: Vec<Job>) -> Vec<Job> {
    let brings_work = |job: &Job| matches!(job, Job::Submit { .. } | Job::Receive { .. });
    let (refused, kept): (Vec<_>, Vec<_>) = jobs.into_iter().partition(brings_work);
    let refusal = store_refusal(&bureau_store::StoreError::DiskLow);
    refused.into_iter().for_each(|job| job.fail(&refusal));
    kept
}

/// Keeps the first jobs of so many signatures and gives back the others: a thousand messages to three
/// hundred bureaus each are no group.
fn split_off_overweight(jobs: &mut Vec<Job>) -> Vec<Job> {
    let mut signatures = 0;
    let fits = |job: &Job| {
        signatures += job.signatures();
        signatures <= GROUP_SIGNATURES_MAX
    };
    let count = jobs.iter().map(fits).take_while(|fits| *fits).count().max(1);
    jobs.split_off(count.min(jobs.len()))
}

/// What a commit gave, for a job of one operation.
fn unexpected(outcome: &Outcome) -> Refusal {
    tracing::error!(event = "internal_fault", outcome = ?std::mem::discriminant(outcome));
    Refusal::new(Reason::Internal, "a fault of this software; the log has more")
}
