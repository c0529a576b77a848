//! The link face: where other nodes dial in.

use std::{pin::Pin, sync::Arc};

use bureau_net::{Refusal, peer};
use bureau_proto::link::v1::{Frame, OpenRequest, OpenResponse, link_service_server::LinkService};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::engine::{
    Engine,
    dialer::node_name,
    session::{self, OUTBOUND_FRAMES_MAX, Wire},
};

/// The link service.
#[derive(Clone)]
pub struct LinkFace {
    engine: Arc<Engine>,
    sessions: TaskTracker,
    shutdown: CancellationToken,
}

impl LinkFace {
    /// The face of an engine. Sessions run in `sessions` and end when `shutdown` is cancelled.
    #[must_use]
    pub const fn new(
        engine: Arc<Engine>,
        sessions: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { engine, sessions, shutdown }
    }
}

#[tonic::async_trait]
impl LinkService for LinkFace {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<OpenResponse, Status>> + Send>>;

    async fn open(
        &self,
        request: Request<Streaming<OpenRequest>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        if self.shutdown.is_cancelled() {
            let refusal = Refusal::new(bureau_core::Reason::ShuttingDown, "shutting down");
            return Err(refusal.into());
        }
        let identity = peer(&request).map_err(Status::from)?;
        let name = node_name(self.engine.bureau(), &identity.id, &self.engine.trust.roster())
            .map_err(|end| {
                tracing::warn!(
                    event = "link_refused",
                    peer = %identity.id.bureau, address = %identity.address,
                    reason = %end.reason, detail = %end.detail
                );
                self.engine.metrics.refused("link", &end.reason);
                let reason = end.reason.parse().unwrap_or(bureau_core::Reason::NotPermitted);
                Status::from(Refusal::new(reason, end.detail))
            })?;
        let inbound = request
            .into_inner()
            .map(|request| request.map(|request| request.frame.unwrap_or_default()));
        let (outbound, frames) = mpsc::channel::<Frame>(OUTBOUND_FRAMES_MAX);
        let wire = Wire { inbound: Box::pin(inbound), outbound };
        let (engine, shutdown) = (Arc::clone(&self.engine), self.shutdown.clone());
        self.sessions.spawn(async move {
            let bureau = name.bureau;
            let end = tokio::select! {
                biased;
                end = session::run(&engine, name, bureau, wire) => end,
                () = session_cut(&shutdown) => return,
            };
            // Where the link is up by another call, both sides dialed at once: nobody's fault.
            if !end.was_up && !engine.links.is_up(bureau) {
                tracing::warn!(
                    event = "link_refused",
                    peer = %bureau, reason = %end.reason, detail = %end.detail
                );
                engine.metrics.refused("link", &end.reason);
            }
        });
        let responses =
            ReceiverStream::new(frames).map(|frame| Ok(OpenResponse { frame: Some(frame) }));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// At shutdown a session that is up is cancelled by its slot and says goodbye; one that hangs in
/// its greeting is cut after a while.
async fn session_cut(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
}
