//! What is new in the store is told to the links that lead there.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Engine;

/// Tells the links what new there is to send, until it is cancelled.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut changes = engine.store.changes();
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(change) if change.destinations.is_empty() => {}
            Ok(change) => engine.links.wake(&change.destinations, &engine.trust.roster()),
            Err(RecvError::Lagged(_)) => engine.links.wake_all(),
            Err(RecvError::Closed) => return,
        }
    }
}
