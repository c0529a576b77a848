//! The desks that receive: each watches its inbox, enters what comes, and takes it over.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bureau_proto::desk::v1::{
    AcknowledgeRequest, InboxMessage, WatchInboxRequest, watch_inbox_response::Event,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant, time::sleep};
use tokio_util::sync::CancellationToken;

use super::ledger::{Arrived, Ledger};
use crate::{client::DeskFace, error::CommandError};

/// Before a desk watches again whose node went away.
const WATCH_AGAIN: Duration = Duration::from_millis(100);
/// Messages that wait for being taken over.
const UNACKNOWLEDGED_MAX: usize = 1024;
/// Messages taken over by one request.
const BATCH_MAX: usize = 100;

/// All watching desks.
pub(super) struct Inboxes {
    tasks: JoinSet<Result<(), CommandError>>,
    stop: CancellationToken,
}

impl Inboxes {
    pub(super) fn watch(desks: &[(&'static str, DeskFace)], ledger: &Arc<Ledger>) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for (bureau, face) in desks {
            let (sender, receiver) = mpsc::channel(UNACKNOWLEDGED_MAX);
            let (bureau, face, ledger) = (*bureau, face.clone(), Arc::clone(ledger));
            tasks.spawn(until(stop.clone(), acknowledge(face.clone(), receiver)));
            tasks.spawn(until(stop.clone(), watch(bureau, face, ledger, sender)));
        }
        Self { tasks, stop }
    }

    /// Ends the watching; an error that ended one of them before comes out here.
    pub(super) async fn stop(mut self) -> Result<(), CommandError> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|source| CommandError::Task { task: "watching", source })??;
        }
        Ok(())
    }
}

async fn until(
    stop: CancellationToken,
    work: impl Future<Output = Result<(), CommandError>>,
) -> Result<(), CommandError> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

async fn watch(
    bureau: &'static str,
    face: DeskFace,
    ledger: Arc<Ledger>,
    taken: mpsc::Sender<String>,
) -> Result<(), CommandError> {
    loop {
        match follow(bureau, &face, &ledger, &taken).await {
            Err(error) if error.is_transient() => sleep(WATCH_AGAIN).await,
            ended => return ended,
        }
    }
}

/// Always from the beginning: what was not taken over must come again under the same numbers.
async fn follow(
    bureau: &'static str,
    face: &DeskFace,
    ledger: &Ledger,
    taken: &mpsc::Sender<String>,
) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let mut stream = face.call(client.watch_inbox(WatchInboxRequest { after_number: 0 })).await?;
    loop {
        let response = stream.message().await.map_err(|status| face.refused(&status))?;
        let ended = || face.refused(&tonic::Status::unavailable("the node ended the stream"));
        let Some(Event::Message(message)) = response.ok_or_else(ended)?.event else { continue };
        let InboxMessage { entry: Some(entry), content, .. } = message else {
            return Err(CommandError::Incomplete("the entry"));
        };
        let arrived = Arrived {
            origin: entry.origin,
            subject: entry.subject,
            content,
            at: Instant::now(),
            hop: entry.previous_hop,
            numbers: BTreeSet::new(),
        };
        ledger.arrived(bureau, entry.message_id.clone(), entry.number, arrived);
        if taken.send(entry.message_id).await.is_err() {
            return Ok(());
        }
    }
}

async fn acknowledge(
    face: DeskFace,
    mut taken: mpsc::Receiver<String>,
) -> Result<(), CommandError> {
    let mut message_ids = Vec::with_capacity(BATCH_MAX);
    while taken.recv_many(&mut message_ids, BATCH_MAX).await > 0 {
        let mut client = face.client.clone();
        loop {
            let request = AcknowledgeRequest { message_ids: message_ids.clone() };
            match face.call(client.acknowledge(request)).await {
                Ok(_) => break,
                Err(error) if error.is_transient() => sleep(WATCH_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
        message_ids.clear();
    }
    Ok(())
}
