//! The inbox as a stream: what is not acknowledged from a cursor on, then what arrives.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bureau_net::Refusal;
use bureau_proto::desk::v1::{Heartbeat, WatchInboxResponse, watch_inbox_response::Event};
use bureau_store::contract::{Arrived, Changes};
use futures_util::{Stream, stream};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::message;
use crate::engine::{Engine, store_refusal};

/// Messages read at one time; with bodies of 1 MiB that is what a stream may hold in memory.
const READ_MAX: usize = 16;
/// Silence after which a sign of life is sent.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Streams until the client goes or the node shuts down.
pub(super) fn watch(
    engine: Arc<Engine>,
    after: u64,
    shutdown: CancellationToken,
) -> impl Stream<Item = Result<WatchInboxResponse, Refusal>> + Send {
    // Subscribed before the first read, so that nothing falls between.
    let changes = engine.store.changes();
    let watch = Watch { engine, after, changes, shutdown, read: VecDeque::new() };
    stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Some(Ok(response)) => Some((Ok(response), Some(watch))),
            Some(Err(refusal)) => Some((Err(refusal), None)),
            None => None,
        }
    })
}

struct Watch {
    engine: Arc<Engine>,
    after: u64,
    changes: broadcast::Receiver<Arc<Changes>>,
    shutdown: CancellationToken,
    read: VecDeque<Arrived>,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchInboxResponse, Refusal>> {
        loop {
            if let Some(arrived) = self.read.pop_front() {
                let quarantined = self.engine.is_quarantined(&arrived);
                let message = message::inbox_message(arrived, quarantined);
                return Some(message.map(|message| response(Event::Message(message))));
            }
            let read = self.engine.store.inbox(self.after, READ_MAX, false, true).await;
            match read {
                Err(error) => return Some(Err(store_refusal(&error))),
                Ok(read) if !read.is_empty() => {
                    self.after = read.last().map_or(self.after, |last| last.number);
                    self.read = read.into();
                }
                Ok(_) => match self.wait().await {
                    Wait::Arrived => {}
                    Wait::Silence => {
                        let time = Some(self.engine.clock.now().to_wire());
                        return Some(Ok(response(Event::Heartbeat(Heartbeat { time }))));
                    }
                    Wait::End => return None,
                },
            }
        }
    }

    async fn wait(&mut self) -> Wait {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Wait::End,
            arrived = timeout(HEARTBEAT, arrival(&mut self.changes, self.after)) => match arrived {
                Ok(true) => Wait::Arrived,
                Ok(false) => Wait::End,
                Err(_elapsed) => Wait::Silence,
            },
        }
    }
}

enum Wait {
    Arrived,
    Silence,
    End,
}

/// Waits until something with a higher number arrived. `false`: the store is gone.
async fn arrival(changes: &mut broadcast::Receiver<Arc<Changes>>, after: u64) -> bool {
    loop {
        match changes.recv().await {
            Ok(changes) if changes.inbox.is_some_and(|number| number > after) => return true,
            Ok(_) => {}
            // What was missed may have been an arrival: look.
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

const fn response(event: Event) -> WatchInboxResponse {
    WatchInboxResponse { event: Some(event) }
}
