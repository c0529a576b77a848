//! Who does the store's work: threads of its own; or, in a simulation, whoever asks, in order, so
//! that a run can be repeated. The work itself is the same.

#[cfg(any(test, feature = "sim"))]
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::StoreError;
#[cfg(any(test, feature = "sim"))]
use crate::sim::Order;

/// Who works.
#[derive(Debug, Clone)]
pub(crate) enum Hands {
    /// Threads, and the system's chance.
    Threads,
    /// One after the other, at the times that a simulation sets.
    #[cfg(any(test, feature = "sim"))]
    InOrder(Arc<Order>),
}

impl Hands {
    /// Does blocking work away from the reactor.
    ///
    /// # Errors
    /// What the work fails with; [`StoreError::Index`] where it panicked.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self {
            Self::Threads => {
                let done = spawn_blocking(work).await;
                done.unwrap_or_else(|error| Err(StoreError::Index(error.to_string())))
            }
            #[cfg(any(test, feature = "sim"))]
            Self::InOrder(_) => work(),
        }
    }

    /// Fills bytes by chance.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub(crate) fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        match self {
            Self::Threads => getrandom::fill(bytes),
            #[cfg(any(test, feature = "sim"))]
            Self::InOrder(order) => {
                order.fill(bytes);
                Ok(())
            }
        }
    }
}
