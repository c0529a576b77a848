//! The admin face: what an operator asks a node. Explanations are in `explain`.

mod bundles;
mod explain;
mod lifecycle;
mod peers;

use std::{sync::Arc, time::SystemTime};

use bureau_core::{BureauCode, DeskName, Lane, Reason, Timestamp, high_water::CountOf};
use bureau_net::{FieldViolation, Refusal, TlsStore};
use bureau_proto::admin::v1::{
    ExplainMessageRequest, ExplainMessageResponse, ExportBundleRequest, Gap, GetQueueShapeRequest,
    GetQueueShapeResponse, GetStatusRequest, GetStatusResponse, HeldDepth, HoldMessagesRequest,
    HoldMessagesResponse, HoldPeerRequest, HoldPeerResponse, ImportBundleRequest,
    ImportBundleResponse, LinkState as WireState, ListBundlesRequest, ListBundlesResponse,
    ListDeadLettersRequest, ListDeadLettersResponse, ListGapsRequest, ListGapsResponse,
    ListPeersRequest, ListPeersResponse, ListQueueRequest, ListQueueResponse, PingPeerRequest,
    PingPeerResponse, QueueDepth, QueueEntry, ReleaseMessagesRequest, ReleaseMessagesResponse,
    ReleasePeerRequest, ReleasePeerResponse, RequeueMessagesRequest, RequeueMessagesResponse,
    RetryMessagesRequest, RetryMessagesResponse, RetryPeerRequest, RetryPeerResponse,
    admin_service_server::AdminService,
};
use bureau_store::contract::{QueuePosition, QueuedEntry};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{access::Access, message};
use crate::{
    config::Permission,
    engine::{Engine, links::LinkState, repair::gaps::Gap as MissingGap, store_refusal},
};

/// The admin service.
#[derive(Clone)]
pub struct AdminFace {
    engine: Arc<Engine>,
    access: Arc<Access>,
    tls: Arc<TlsStore>,
    started: Timestamp,
    /// The queue is read through for one caller at a time.
    shaping: Arc<Semaphore>,
    /// One bundle at a time: each takes memory and the disk's attention.
    bundles: Arc<Semaphore>,
}

impl AdminFace {
    /// The face of an engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, access: Arc<Access>, tls: Arc<TlsStore>) -> Self {
        let started = engine.clock.now();
        let shaping = Arc::new(Semaphore::new(1));
        let bundles = Arc::new(Semaphore::new(1));
        Self { engine, access, tls, started, shaping, bundles }
    }

    fn operate<T>(&self, request: &Request<T>) -> Result<DeskName, Status> {
        self.access.desk(request, Permission::Operate).map_err(|refusal| {
            self.engine.metrics.refused("admin", refusal.reason.as_str());
            Status::from(refusal)
        })
    }

    fn depths(&self) -> Vec<QueueDepth> {
        let roster = self.engine.trust.roster();
        let depth = |depth: bureau_store::contract::Depth| QueueDepth {
            recipient: depth.destination.to_string(),
            lane: depth.lane.to_wire(),
            messages: depth.messages,
            oldest_enqueue_time: Some(depth.oldest.to_wire()),
            next_hop: self
                .engine
                .links
                .next_hop(depth.destination, &roster)
                .map(|hop| hop.to_string())
                .unwrap_or_default(),
        };
        self.engine.store.depths().into_iter().map(depth).collect()
    }

    async fn queue(&self, request: ListQueueRequest) -> Result<ListQueueResponse, Refusal> {
        let size = message::page_size(request.page_size)?;
        let destination = bureau("recipient", &request.recipient)?;
        if request.held {
            return self.held(destination, size, &request.page_token).await;
        }
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(position(token).ok_or_else(|| {
                Refusal::new(Reason::InvalidPageToken, "not a page token of this list")
            })?),
        };
        let page = self.engine.store.queue_page(destination, after, size + 1).await;
        let mut page = page.map_err(|error| store_refusal(&error))?;
        let more = page.len() > size;
        page.truncate(size);
        let next_page_token = match page.last().filter(|_| more) {
            Some(last) => token(last.position),
            None => String::new(),
        };
        let entries = page.into_iter().map(entry).collect();
        let (depths, held) = (self.depths(), self.held_depths());
        Ok(ListQueueResponse { entries, next_page_token, depths, held })
    }

    fn held_depths(&self) -> Vec<HeldDepth> {
        let depth = |depth: bureau_store::contract::HeldDepth| HeldDepth {
            recipient: depth.destination.to_string(),
            reason: lifecycle::hold_reason(depth.reason).into(),
            messages: depth.messages,
        };
        self.engine.store.held_depths().into_iter().map(depth).collect()
    }
}

/// A bureau's code that may be left out.
fn bureau(field: &str, text: &str) -> Result<Option<BureauCode>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<BureauCode>().map(Some).map_err(|error| {
        let (field, description) = (field.to_owned(), error.to_string());
        let violation = FieldViolation { field, description, reason: Reason::Malformed };
        Refusal::of_fields(vec![violation])
            .unwrap_or_else(|| Refusal::new(Reason::Malformed, error.to_string()))
    })
}

fn entry(entry: QueuedEntry) -> QueueEntry {
    QueueEntry {
        message_id: entry.message.to_string(),
        recipient: entry.position.destination.to_string(),
        origin: entry.origin.to_string(),
        lane: entry.position.lane.to_wire(),
        enqueue_time: Some(entry.enqueued.to_wire()),
        expire_time: Some(entry.expires.to_wire()),
        size: entry.size,
        hold: None,
    }
}

fn gap((count, gap): (CountOf, MissingGap)) -> Gap {
    Gap {
        origin: count.origin.to_string(),
        epoch: count.epoch.to_string(),
        lane: count.lane.to_wire(),
        first: gap.missing.first().unwrap_or(0),
        last: gap.missing.last().unwrap_or(0),
        messages: gap.missing.count(),
        since_time: Some(gap.since.to_wire()),
        ask_time: gap.asked.map(|(_, last)| last.to_wire()),
        open: gap.open,
    }
}

fn token(position: QueuePosition) -> String {
    let QueuePosition { destination, lane, number } = position;
    format!("{destination}.{}.{number}", lane.to_wire())
}

fn position(token: &str) -> Option<QueuePosition> {
    let mut parts = token.split('.');
    let destination = parts.next()?.parse().ok()?;
    let lane = Lane::from_wire(parts.next()?.parse().ok()?)?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(QueuePosition { destination, lane, number })
}

fn wire_system_time(time: SystemTime) -> Option<prost_types::Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_ms(i64::try_from(since.as_millis()).ok()?).to_wire())
}

const fn wire_link_state(state: LinkState) -> WireState {
    match state {
        LinkState::Up => WireState::Up,
        LinkState::Connecting => WireState::Connecting,
        LinkState::Down => WireState::Down,
    }
}

#[tonic::async_trait]
impl AdminService for AdminFace {
    async fn explain_message(
        &self,
        request: Request<ExplainMessageRequest>,
    ) -> Result<Response<ExplainMessageResponse>, Status> {
        self.operate(&request)?;
        self.explain(request.into_inner()).await.map(Response::new).map_err(Status::from)
    }

    async fn get_queue_shape(
        &self,
        request: Request<GetQueueShapeRequest>,
    ) -> Result<Response<GetQueueShapeResponse>, Status> {
        self.operate(&request)?;
        self.shape(request.into_inner()).await.map(Response::new).map_err(Status::from)
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.operate(&request)?;
        let engine = &self.engine;
        let roster = engine.trust.roster();
        let room = engine.store.room();
        Ok(Response::new(GetStatusResponse {
            bureau: engine.config.bureau.to_string(),
            node: engine.config.node.to_string(),
            network: engine.config.network.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: engine.store.epoch().to_string(),
            roster_serial: roster.serial(),
            roster_expire_time: Some(roster.expires().to_wire()),
            certificate_expire_time: wire_system_time(self.tls.summary().validity.not_after),
            start_time: Some(self.started.to_wire()),
            queued: engine.store.depths().iter().map(|depth| depth.messages).sum(),
            disk_free_bytes: room.free_bytes,
            disk_low: room.low,
        }))
    }

    async fn list_queue(
        &self,
        request: Request<ListQueueRequest>,
    ) -> Result<Response<ListQueueResponse>, Status> {
        self.operate(&request)?;
        let listed = self.queue(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(listed))
    }

    async fn list_peers(
        &self,
        request: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        self.operate(&request)?;
        let peers = peers::list(&self.engine, &self.depths());
        Ok(Response::new(ListPeersResponse { peers }))
    }

    async fn ping_peer(
        &self,
        request: Request<PingPeerRequest>,
    ) -> Result<Response<PingPeerResponse>, Status> {
        self.operate(&request)?;
        let pinged = peers::ping(&self.engine, request.into_inner()).await;
        Ok(Response::new(pinged.map_err(Status::from)?))
    }

    async fn retry_peer(
        &self,
        request: Request<RetryPeerRequest>,
    ) -> Result<Response<RetryPeerResponse>, Status> {
        self.operate(&request)?;
        let retried = peers::retry(&self.engine, &self.depths(), request.into_inner());
        Ok(Response::new(retried.map_err(Status::from)?))
    }

    async fn hold_messages(
        &self,
        request: Request<HoldMessagesRequest>,
    ) -> Result<Response<HoldMessagesResponse>, Status> {
        let desk = self.operate(&request)?;
        let HoldMessagesRequest { message_ids, recipient, note } = request.into_inner();
        let deed = lifecycle::Deed::Hold(note);
        let results = self.act(&desk, &message_ids, &recipient, &deed).await?;
        Ok(Response::new(HoldMessagesResponse { results }))
    }

    async fn release_messages(
        &self,
        request: Request<ReleaseMessagesRequest>,
    ) -> Result<Response<ReleaseMessagesResponse>, Status> {
        let desk = self.operate(&request)?;
        let ReleaseMessagesRequest { message_ids, recipient } = request.into_inner();
        let deed = lifecycle::Deed::Release;
        let results = self.act(&desk, &message_ids, &recipient, &deed).await?;
        Ok(Response::new(ReleaseMessagesResponse { results }))
    }

    async fn retry_messages(
        &self,
        request: Request<RetryMessagesRequest>,
    ) -> Result<Response<RetryMessagesResponse>, Status> {
        let desk = self.operate(&request)?;
        let RetryMessagesRequest { message_ids, recipient } = request.into_inner();
        let deed = lifecycle::Deed::Retry;
        let results = self.act(&desk, &message_ids, &recipient, &deed).await?;
        Ok(Response::new(RetryMessagesResponse { results }))
    }

    async fn requeue_messages(
        &self,
        request: Request<RequeueMessagesRequest>,
    ) -> Result<Response<RequeueMessagesResponse>, Status> {
        let desk = self.operate(&request)?;
        let RequeueMessagesRequest { message_ids, recipient } = request.into_inner();
        let deed = lifecycle::Deed::Requeue;
        let results = self.act(&desk, &message_ids, &recipient, &deed).await?;
        Ok(Response::new(RequeueMessagesResponse { results }))
    }

    async fn hold_peer(
        &self,
        request: Request<HoldPeerRequest>,
    ) -> Result<Response<HoldPeerResponse>, Status> {
        let desk = self.operate(&request)?;
        let HoldPeerRequest { peer, note } = request.into_inner();
        let (already, hold) = self.turn_peer(&desk, &peer, Some(&note)).await?;
        Ok(Response::new(HoldPeerResponse { hold, already }))
    }

    async fn release_peer(
        &self,
        request: Request<ReleasePeerRequest>,
    ) -> Result<Response<ReleasePeerResponse>, Status> {
        let desk = self.operate(&request)?;
        let (already, _) = self.turn_peer(&desk, &request.into_inner().peer, None).await?;
        Ok(Response::new(ReleasePeerResponse { already }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        self.operate(&request)?;
        let listed = self.dead_letters(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(listed))
    }

    type ExportBundleStream = bundles::Exporting;

    async fn export_bundle(
        &self,
        request: Request<Streaming<ExportBundleRequest>>,
    ) -> Result<Response<Self::ExportBundleStream>, Status> {
        self.operate(&request)?;
        let answers = self.make_bundle(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(answers))
    }

    async fn import_bundle(
        &self,
        request: Request<Streaming<ImportBundleRequest>>,
    ) -> Result<Response<ImportBundleResponse>, Status> {
        self.operate(&request)?;
        // Boxed: it holds the judge and the reader of the file.
        let taken = Box::pin(self.take_bundle(request.into_inner())).await;
        Ok(Response::new(taken.map_err(Status::from)?))
    }

    async fn list_bundles(
        &self,
        request: Request<ListBundlesRequest>,
    ) -> Result<Response<ListBundlesResponse>, Status> {
        self.operate(&request)?;
        let listed = self.bundle_list(request.into_inner()).await.map_err(Status::from)?;
        Ok(Response::new(listed))
    }

    async fn list_gaps(
        &self,
        request: Request<ListGapsRequest>,
    ) -> Result<Response<ListGapsResponse>, Status> {
        self.operate(&request)?;
        let gaps = self.engine.repair.missing().into_iter().map(gap).collect();
        Ok(Response::new(ListGapsResponse { gaps }))
    }
}
