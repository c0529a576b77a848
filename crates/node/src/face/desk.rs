//! The desk face: what an office or a case system says to its own bureau's node.

mod files;
mod inbox;
mod recall;
mod watch;

use std::{pin::Pin, sync::Arc, time::Instant};

use bureau_core::{DeskName, MessageId, Reason, ids::IdPrefix};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::desk::v1::{
    AcknowledgeRequest, AcknowledgeResponse, DownloadAttachmentRequest, DownloadAttachmentResponse,
    FieldViolation as WireViolation, GetInboxMessageRequest, GetInboxMessageResponse,
    GetUploadRequest, GetUploadResponse, ListInboxRequest, ListInboxResponse, RecallRequest,
    RecallResponse, ReleaseAttachmentsRequest, ReleaseAttachmentsResponse, SubmitError,
    SubmitManyRequest, SubmitManyResponse, SubmitRequest, SubmitResponse, TrackRequest,
    TrackResponse, UploadAttachmentRequest, UploadAttachmentResponse, WatchInboxRequest,
    WatchInboxResponse, desk_service_server::DeskService, submit_many_response::Outcome,
};
use bureau_store::contract::Role;
use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{access::Access, message};
use crate::{
    config::Permission,
    engine::{
        Engine,
        quota::Quotas,
        scribe::Accepted,
        store_refusal,
        submission::{self, Rules},
    },
};

/// Submissions of one stream that are under way at one time.
const STREAM_IN_FLIGHT_MAX: usize = 1024;

/// The desk service.
#[derive(Clone)]
pub struct DeskFace {
    engine: Arc<Engine>,
    access: Arc<Access>,
    quotas: Arc<Quotas>,
    shutdown: CancellationToken,
}

impl DeskFace {
    /// The face of an engine. Streams end when `shutdown` is cancelled.
    #[must_use]
    pub fn new(engine: Arc<Engine>, access: Arc<Access>, shutdown: CancellationToken) -> Self {
        let limits = &engine.config.limits;
        let quotas = Quotas::new(limits.desk_messages_per_second, limits.desk_bytes_per_second);
        Self { engine, access, quotas: Arc::new(quotas), shutdown }
    }

    /// Checks a submission, and has it signed and made durable.
    async fn accept(&self, desk: &DeskName, request: SubmitRequest) -> Result<Accepted, Refusal> {
        let started = Instant::now();
        self.quotas.take(desk, request.content.len(), started)?;
        let engine = &self.engine;
        let roster = engine.trust.roster();
        let rules = Rules {
            bureau: engine.bureau(),
            roster: &roster,
            limits: &engine.config.limits.message,
            now: engine.clock.now(),
        };
        let draft = submission::check(request, desk, rules)?;
        self.check_room(&draft)?;
        self.check_attachments(desk, &draft).await?;
        let (lane, recipients, bytes) = (draft.lane, draft.recipients.len(), draft.body.len());
        let accepted = engine.scribe.submit(draft).await?;
        if !accepted.repeated {
            engine.metrics.accepted(lane, started.elapsed());
            tracing::info!(
                event = "message_accepted",
                message = %accepted.message, desk = %desk, lane = %lane, recipients, bytes
            );
        }
        Ok(accepted)
    }

    /// Refuses where a peer's queue is full, or nobody leads to a recipient.
    fn check_room(&self, draft: &submission::Draft) -> Result<(), Refusal> {
        let engine = &self.engine;
        if engine.store.room().low {
            return Err(store_refusal(&bureau_store::StoreError::DiskLow));
        }
        let roster = engine.trust.roster();
        let unreachable = draft.recipients.iter().enumerate().filter_map(|(index, recipient)| {
            let nobody = engine.links.next_hop(*recipient, &roster).is_none();
            nobody.then(|| FieldViolation {
                field: format!("recipients[{index}]"),
                description: format!("no configured peer leads to {recipient}"),
                reason: Reason::NoRoute,
            })
        });
        if let Some(refusal) = Refusal::of_fields(unreachable.collect()) {
            return Err(refusal);
        }
        let limit = engine.config.limits.queued_messages_per_destination;
        for recipient in &draft.recipients {
            let depth = engine.store.depth(*recipient);
            if depth >= limit {
                let message =
                    format!("{depth} messages wait for {recipient}; the limit is {limit}");
                return Err(Refusal::new(Reason::QueueFull, message)
                    .retry_after(std::time::Duration::from_secs(60)));
            }
        }
        Ok(())
    }

    /// The one message of a role that a text names.
    async fn find(&self, text: &str, role: Role) -> Result<MessageId, Refusal> {
        let invalid = |rule: &str| {
            let description = rule.to_owned();
            let field = "message_id".to_owned();
            let violation = FieldViolation { field, description, reason: Reason::Malformed };
            let refusal = Refusal::of_fields(vec![violation]);
            refusal.unwrap_or_else(|| Refusal::new(Reason::Malformed, rule))
        };
        let prefix: IdPrefix = text.parse().map_err(|error: bureau_core::ids::InvalidName| {
            invalid(&format!("not a message id: {}", error.rule))
        })?;
        let found = self.engine.store.find(prefix, role).await;
        match found.map_err(|error| store_refusal(&error))?.as_slice() {
            [] => Err(not_found()),
            [message] => Ok(*message),
            _ => Err(Refusal::new(Reason::AmbiguousId, "more than one message begins like this")),
        }
    }

    fn counted<T>(&self, method: &'static str, result: Result<T, Refusal>) -> Result<T, Status> {
        if let Err(refusal) = &result {
            self.engine.metrics.refused("desk", refusal.reason.as_str());
            tracing::info!(event = "request_refused", method, reason = %refusal.reason);
        }
        let result = result.map_err(Status::from);
        let code = result.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.engine.metrics.desk_request(method, code);
        result
    }
}

/// One answer for what is not held and for what is not the caller's.
fn not_found() -> Refusal {
    Refusal::new(Reason::NotFound, "no such message here")
}

fn submit_response(accepted: Accepted) -> SubmitResponse {
    SubmitResponse {
        send_time: accepted.send_at.map(bureau_core::Timestamp::to_wire),
        message_id: accepted.message.to_string(),
        accept_time: Some(accepted.accepted.to_wire()),
        expire_time: Some(accepted.expires.to_wire()),
        repeated_request: accepted.repeated,
    }
}

fn submit_error(refusal: Refusal) -> SubmitError {
    let violation = |violation: FieldViolation| WireViolation {
        field: violation.field,
        reason: violation.reason.to_string(),
        description: violation.description,
    };
    SubmitError {
        code: refusal.code() as i32,
        reason: refusal.reason.to_string(),
        message: refusal.message,
        violations: refusal.violations.into_iter().map(violation).collect(),
    }
}

/// Responses of a stream.
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DeskService for DeskFace {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let accepted = match self.access.desk(&request, Permission::Submit) {
            Ok(desk) => self.accept(&desk, request.into_inner()).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("Submit", accepted.map(submit_response)).map(Response::new)
    }

    type SubmitManyStream = Responses<SubmitManyResponse>;

    async fn submit_many(
        &self,
        request: Request<Streaming<SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        let desk = self.access.desk(&request, Permission::Submit);
        let desk = Arc::new(self.counted("SubmitMany", desk)?);
        let face = self.clone();
        let shutdown = self.shutdown.clone();
        let requests = request.into_inner().take_until(shutdown.cancelled_owned());
        let responses = requests
            .map(move |request| {
                let (face, desk) = (face.clone(), Arc::clone(&desk));
                async move {
                    let request = match request {
                        Ok(request) => request.request.unwrap_or_default(),
                        Err(status) if status.code() == tonic::Code::OutOfRange => {
                            return Err(super::gate::too_large().into());
                        }
                        Err(status) => return Err(status),
                    };
                    let outcome = match face.accept(&desk, request).await {
                        Ok(accepted) => Outcome::Accepted(submit_response(accepted)),
                        Err(refusal) => {
                            face.engine.metrics.refused("desk", refusal.reason.as_str());
                            Outcome::Error(submit_error(refusal))
                        }
                    };
                    Ok(SubmitManyResponse { outcome: Some(outcome) })
                }
            })
            .buffered(STREAM_IN_FLIGHT_MAX);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn list_inbox(
        &self,
        request: Request<ListInboxRequest>,
    ) -> Result<Response<ListInboxResponse>, Status> {
        let listed = match self.access.desk(&request, Permission::Receive) {
            Ok(_) => self.list(request.into_inner()).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("ListInbox", listed).map(Response::new)
    }

    async fn get_inbox_message(
        &self,
        request: Request<GetInboxMessageRequest>,
    ) -> Result<Response<GetInboxMessageResponse>, Status> {
        let shown = match self.access.desk(&request, Permission::Receive) {
            Ok(desk) => self.show(&desk, &request.into_inner().message_id).await,
            Err(refusal) => Err(refusal),
        };
        let response = |message| GetInboxMessageResponse { message: Some(message) };
        self.counted("GetInboxMessage", shown.map(response)).map(Response::new)
    }

    type WatchInboxStream = Responses<WatchInboxResponse>;

    async fn watch_inbox(
        &self,
        request: Request<WatchInboxRequest>,
    ) -> Result<Response<Self::WatchInboxStream>, Status> {
        let desk = self.access.desk(&request, Permission::Receive);
        let desk = self.counted("WatchInbox", desk)?;
        tracing::info!(event = "watch_opened", desk = %desk);
        let after = request.into_inner().after_number;
        let watched = watch::watch(Arc::clone(&self.engine), after, self.shutdown.clone());
        let responses = stream::StreamExt::map(watched, |item| item.map_err(Status::from));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeResponse>, Status> {
        let taken = match self.access.desk(&request, Permission::Receive) {
            Ok(desk) => self.take_over(&desk, request.into_inner().message_ids).await,
            Err(refusal) => Err(refusal),
        };
        let response = |acknowledgments| AcknowledgeResponse { acknowledgments };
        self.counted("Acknowledge", taken.map(response)).map(Response::new)
    }

    async fn upload_attachment(
        &self,
        request: Request<Streaming<UploadAttachmentRequest>>,
    ) -> Result<Response<UploadAttachmentResponse>, Status> {
        let taken = match self.access.desk(&request, Permission::Submit) {
            Ok(desk) => self.take_upload(&desk, request.into_inner()).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("UploadAttachment", taken).map(Response::new)
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> Result<Response<GetUploadResponse>, Status> {
        let held = match self.access.desk(&request, Permission::Submit) {
            Ok(desk) => self.uploaded(&desk, &request.into_inner().digest).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("GetUpload", held).map(Response::new)
    }

    type DownloadAttachmentStream = Responses<DownloadAttachmentResponse>;

    async fn download_attachment(
        &self,
        request: Request<DownloadAttachmentRequest>,
    ) -> Result<Response<Self::DownloadAttachmentStream>, Status> {
        let given = match self.access.desk(&request, Permission::Receive) {
            Ok(desk) => self.give_out(&desk, request.into_inner()).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("DownloadAttachment", given).map(Response::new)
    }

    async fn release_attachments(
        &self,
        request: Request<ReleaseAttachmentsRequest>,
    ) -> Result<Response<ReleaseAttachmentsResponse>, Status> {
        let released = match self.access.desk(&request, Permission::Release) {
            Ok(desk) => self.release(&desk, &request.into_inner().message_id).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("ReleaseAttachments", released).map(Response::new)
    }

    async fn track(
        &self,
        request: Request<TrackRequest>,
    ) -> Result<Response<TrackResponse>, Status> {
        let tracked = match self.access.desk(&request, Permission::Submit) {
            Ok(_) => self.track_sent(&request.into_inner().message_id).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("Track", tracked).map(Response::new)
    }

    async fn recall(
        &self,
        request: Request<RecallRequest>,
    ) -> Result<Response<RecallResponse>, Status> {
        let recalled = match self.access.desk(&request, Permission::Submit) {
            Ok(desk) => self.take_back(&desk, request.into_inner()).await,
            Err(refusal) => Err(refusal),
        };
        self.counted("Recall", recalled).map(Response::new)
    }
}

impl DeskFace {
    async fn track_sent(&self, text: &str) -> Result<TrackResponse, Refusal> {
        let id = self.find(text, Role::Origin).await?;
        let tracked = self.engine.store.track(id).await.map_err(|error| store_refusal(&error))?;
        message::track(tracked.ok_or_else(not_found)?, self.engine.bureau())
    }
}
