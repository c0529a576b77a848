//! The engine: what a node does with messages. It knows no face.
//!
//! - [`submission`]: what a desk asks for, checked, as a [`submission::Draft`];
//! - [`scribe`]: everything this node signs, signed in groups and committed in order;
//! - [`intake`]: what a link brings, verified, decided and answered;
//! - [`links`]: the peers and their links; `routes`: which one leads where; `detours`: what may not
//!   go that way;
//! - [`session`]: one link while it is up; [`pump`]: what it sends; [`outbound`]: its way out;
//! - [`bundle`]: what is carried by hand where there is no link;
//! - [`dialer`]: how a link comes up; [`doing`]: what it is doing, for those who ask; `pings`: those
//!   who ask whether a peer is there;
//! - [`timers`]: expiry and forgetting; [`wake`]: what is new is told to the links;
//! - [`explain`]: where a message is and why it is not further; [`shape`]: how long what waits has;
//! - [`lifecycle`]: what operators and senders do with a message; [`transit`]: what is on its way
//!   meanwhile;
//! - [`repair`]: what is missing is found, asked for and sent again;
//! - [`quota`]: how much one desk may ask for;
//! - [`machine`]: chance, and a place for long work.

pub mod bundle;
mod detours;
pub mod dialer;
pub mod doing;
pub mod explain;
pub mod intake;
pub mod lifecycle;
pub mod links;
pub mod machine;
pub mod outbound;
mod pings;
pub mod pump;
pub mod quota;
pub mod repair;
mod routes;
pub mod scribe;
pub mod session;
pub mod shape;
mod squeeze;
pub mod submission;
pub mod timers;
pub mod transit;
pub mod wake;

use std::{pin::Pin, sync::Arc};

use bureau_core::{BureauCode, Reason, envelope::Content};
use bureau_net::Refusal;
use bureau_store::{
    StoreError,
    contract::{Arrived, AttachmentHeld, Source, Store},
};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{Config, clock::Clock, telemetry::metrics::Metrics, trust::Trust};

/// Something that runs while a node serves.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a node is made of, before it runs.
pub struct Parts {
    /// The configuration it is started with.
    pub config: Arc<Config>,
    /// What time it is.
    pub clock: Clock,
    /// Whom it believes, and as whom it speaks.
    pub trust: Arc<Trust>,
    /// What is on disk.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where it runs.
    pub machine: Arc<machine::Machine>,
}

impl Parts {
    /// Puts the engine together, with the task that must be run for its scribe.
    ///
    /// # Errors
    /// What reading the store fails with.
    pub async fn assemble(self) -> Result<(Arc<Engine>, scribe::Worker), StoreError> {
        let Self { config, clock, trust, store, metrics, machine } = self;
        let clock = Arc::new(clock);
        let (scribe, worker) = scribe::scribe(
            Arc::clone(&store),
            Arc::clone(&trust),
            Arc::clone(&clock),
            metrics.clone(),
            config.bureau,
            Arc::clone(&machine),
        )
        .await?;
        let links = Arc::new(links::Links::new(config.bureau, &config.peers, clock.now()));
        links.remember(store.peer_notes().await?);
        for (peer, held) in store.held_peers().await? {
            // Of a peer that is configured no more only the word is left.
            links.hold(peer, Some(held));
        }
        let repair = repair::Repair::default();
        let engine =
            Engine { config, clock, trust, store, scribe, links, repair, metrics, machine };
        Ok((Arc::new(engine), worker))
    }
}

/// What every part of the engine needs.
pub struct Engine {
    /// The configuration it was started with.
    pub config: Arc<Config>,
    /// What time it is.
    pub clock: Arc<Clock>,
    /// Whom it believes, and as whom it speaks.
    pub trust: Arc<Trust>,
    /// What is on disk.
    pub store: Arc<dyn Store>,
    /// What it signs.
    pub scribe: scribe::Scribe,
    /// The peers.
    pub links: Arc<links::Links>,
    /// What was sent, what is missing.
    pub repair: repair::Repair,
    /// What is counted.
    pub metrics: Metrics,
    /// Where it runs.
    pub machine: Arc<machine::Machine>,
}

impl Engine {
    /// This bureau.
    #[must_use]
    pub fn bureau(&self) -> BureauCode {
        self.config.bureau
    }

    /// Everything that runs while the node serves, beside its scribe and the links that others
    /// dial. Each ends when `stop` is cancelled.
    pub fn tasks<C>(self: &Arc<Self>, connect: &C, stop: &CancellationToken) -> Vec<Task>
    where
        C: dialer::Connect + Clone + 'static,
    {
        let engine = || Arc::clone(self);
        let mut tasks: Vec<Task> = vec![
            Box::pin(timers::run(engine(), stop.clone())),
            Box::pin(repair::run(engine(), stop.clone())),
            Box::pin(wake::run(engine(), stop.clone())),
        ];
        for peer in self.config.peers.iter().filter(|peer| peer.dial) {
            let dialing = dialer::run(engine(), connect.clone(), peer.clone(), stop.clone());
            tasks.push(Box::pin(dialing));
        }
        tasks
    }

    /// What is here of an attachment that is about to come. Reads what there is of it already, so
    /// that the first piece need not wait for that.
    ///
    /// # Errors
    /// Why the store cannot tell, or take more.
    pub async fn attachment_held(
        &self,
        source: Source,
        content: Content,
    ) -> Result<AttachmentHeld, StoreError> {
        let held = self.store.attachment(source.clone(), content.digest).await?;
        match held {
            AttachmentHeld::Part(length) if length > 0 && length <= content.size => {
                // All of it, where the end of the process came between the last piece and the check.
                self.store.attachment_add(source, content, length, Bytes::new()).await
            }
            held => Ok(held),
        }
    }

    /// Whether the attachments of a message that arrived wait for a desk to release them.
    #[must_use]
    pub fn is_quarantined(&self, arrived: &Arrived) -> bool {
        self.config.policy.quarantine_attachments && arrived.released.is_none()
    }
}

/// What a store's failure is to a caller.
#[must_use]
pub fn store_refusal(error: &StoreError) -> Refusal {
    use std::time::Duration;
    match error {
        StoreError::Busy => {
            Refusal::new(Reason::Busy, "the store has too much under way; nothing was accepted")
                .retry_after(Duration::from_millis(200))
        }
        StoreError::DiskLow => Refusal::new(
            Reason::DiskLow,
            "the disk is low; nothing new is accepted that could be lost",
        )
        .retry_after(Duration::from_secs(30)),
        StoreError::StagingFull { .. } => Refusal::new(
            Reason::StagingFull,
            "attachments that no message names yet take all the room they may",
        )
        .retry_after(Duration::from_secs(60)),
        StoreError::OutcomeUnknown => Refusal::new(
            Reason::OutcomeUnknown,
            "the disk failed while this was written; ask again with the same request_id",
        ),
        error => {
            tracing::error!(event = "store_failed", error = %error);
            Refusal::new(Reason::StoreFailed, "the store failed; nothing was accepted")
        }
    }
}
