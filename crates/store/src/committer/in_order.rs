//! The committer in a simulation: the same writer and applier, as tasks that take the time a
//! simulated disk takes. Between the two a group is durable and not answered.

use std::sync::{
    Arc,
    mpsc::{Receiver, TryRecvError},
};

use tokio::sync::{Notify, mpsc};

use super::{Applier, Health, Observer, Request, Resolved, Resolver, UNAPPLIED_MAX, Writer};
use crate::{StoreError, disk::Disk, index::Index, sim::Order};

/// Groups that one request may be written as: far more than any is, because nobody takes them out
/// meanwhile.
pub(super) const GROUPS_MAX: usize = 4096;

/// Starts both tasks. They end with the store, or with the order.
pub(super) fn start<D: Disk, I: Index, R: Resolver, O: Observer<R::Outcome>>(
    writer: Writer<D, I, R>,
    applier: Applier<I, O>,
    waiting: mpsc::Receiver<Request<R>>,
    unapplied: Receiver<Resolved<R>>,
    order: &Arc<Order>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let (written, room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let writing =
        write(writer, waiting, Arc::clone(order), Arc::clone(&written), Arc::clone(&room));
    let writing = tokio::spawn(writing);
    let applying = tokio::spawn(apply(applier, unapplied, Arc::clone(order), written, room));
    order.owns(&writing);
    order.owns(&applying);
    vec![writing, applying]
}

async fn write<D: Disk, I: Index, R: Resolver>(
    mut writer: Writer<D, I, R>,
    mut waiting: mpsc::Receiver<Request<R>>,
    order: Arc<Order>,
    written: Arc<Notify>,
    room: Arc<Notify>,
) {
    let most = UNAPPLIED_MAX as u64;
    while let Some(first) = waiting.recv().await {
        // What waits here is lost where the power goes now.
        order.sync_time().await;
        while writer.journal.last().saturating_sub(writer.overlay.applied()) >= most {
            room.notified().await;
        }
        let requests = Writer::<D, I, R>::gather(first, &mut waiting);
        if let Err(error) = writer.work(requests) {
            tracing::error!(event = "store_failed", error = %error);
            writer.unhealthy.send_replace(Health::Failed);
            waiting.close();
            while let Ok(request) = waiting.try_recv() {
                drop(request.reply.send(Err(StoreError::Failed)));
            }
            return;
        }
        written.notify_one();
    }
    drop(writer);
    written.notify_one();
}

async fn apply<I: Index, R: Resolver, O: Observer<R::Outcome>>(
    mut applier: Applier<I, O>,
    unapplied: Receiver<Resolved<R>>,
    order: Arc<Order>,
    written: Arc<Notify>,
    room: Arc<Notify>,
) {
    loop {
        let next = unapplied.try_recv();
        match next {
            Ok(resolved) => {
                // What waits here is durable, and nobody was told.
                order.apply_time().await;
                if !applier.apply(resolved) {
                    return;
                }
                room.notify_one();
            }
            Err(TryRecvError::Empty) => written.notified().await,
            Err(TryRecvError::Disconnected) => return,
        }
    }
}
