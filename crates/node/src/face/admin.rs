//! The admin face: what an operator asks a node.

use std::{sync::Arc, time::SystemTime};

use bureau_core::{BureauCode, Lane, Reason, Timestamp};
use bureau_net::{FieldViolation, Refusal, TlsStore};
use bureau_proto::admin::v1::{
    GetStatusRequest, GetStatusResponse, LinkState as WireState, ListPeersRequest,
    ListPeersResponse, ListQueueRequest, ListQueueResponse, Peer, QueueDepth, QueueEntry,
    admin_service_server::AdminService,
};
use bureau_store::contract::{QueuePosition, QueuedEntry};
use tonic::{Request, Response, Status};

use super::{access::Access, message};
use crate::{
    config::Permission,
    engine::{Engine, links::LinkState, store_refusal},
};

/// The admin service.
#[derive(Clone)]
pub struct AdminFace {
    engine: Arc<Engine>,
    access: Arc<Access>,
    tls: Arc<TlsStore>,
    started: Timestamp,
}

impl AdminFace {
    /// The face of an engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, access: Arc<Access>, tls: Arc<TlsStore>) -> Self {
        let started = engine.clock.now();
        Self { engine, access, tls, started }
    }

    fn operate<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.access.desk(request, Permission::Operate).map(|_| ()).map_err(|refusal| {
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
        let destination = match request.recipient.as_str() {
            "" => None,
            text => Some(text.parse::<BureauCode>().map_err(|error| {
                let (field, description) = ("recipient".to_owned(), error.to_string());
                let violation = FieldViolation { field, description, reason: Reason::Malformed };
                Refusal::of_fields(vec![violation])
                    .unwrap_or_else(|| Refusal::new(Reason::Malformed, error.to_string()))
            })?),
        };
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
        Ok(ListQueueResponse { entries, next_page_token, depths: self.depths() })
    }
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

#[tonic::async_trait]
impl AdminService for AdminFace {
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
        let roster = self.engine.trust.roster();
        let depths = self.depths();
        let peer = |(code, configured, status): (
            BureauCode,
            Option<crate::config::Peer>,
            crate::engine::links::LinkStatus,
        )| {
            let hop = code.to_string();
            let queued = depths.iter().filter(|depth| depth.next_hop == hop);
            Peer {
                node: status.node.map(|node| node.to_string()).unwrap_or_default(),
                state: match status.state {
                    LinkState::Up => WireState::Up,
                    LinkState::Connecting => WireState::Connecting,
                    LinkState::Down => WireState::Down,
                }
                .into(),
                state_since_time: Some(status.since.to_wire()),
                next_attempt_time: status.next_attempt.map(Timestamp::to_wire),
                failed_attempts: status.failed_attempts,
                last_reason: status.last_reason,
                in_flight: status.in_flight,
                queued: queued.map(|depth| depth.messages).sum(),
                round_trip_micros: u64::try_from(status.round_trip.as_micros()).unwrap_or(u64::MAX),
                relay: roster.member(&code).is_ok_and(|member| member.relay),
                address: configured
                    .filter(|peer| peer.dial)
                    .and_then(|peer| peer.addresses.first().cloned())
                    .unwrap_or_default(),
                software: status.software,
                bureau: hop,
            }
        };
        let peers = self.engine.links.statuses().into_iter().map(peer).collect();
        Ok(Response::new(ListPeersResponse { peers }))
    }
}
