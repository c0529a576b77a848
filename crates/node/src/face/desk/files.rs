//! Attachments at the desk: brought in, and given out, in pieces; never held whole in memory.

use bureau_core::{DeskName, Reason};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::desk::v1::{
    DownloadAttachmentRequest, DownloadAttachmentResponse, GetUploadResponse,
    ReleaseAttachmentsResponse, UploadAttachmentRequest, UploadAttachmentResponse, UploadHeader,
    upload_attachment_request::Piece,
};
use bureau_store::contract::{AttachmentHeld, Content, Operation, Outcome, Source};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Duration, Instant, sleep};
use tonic::{Status, Streaming};

use super::{DeskFace, Responses, not_found};
use crate::engine::{store_refusal, submission::Draft};

/// A piece that is given out.
const PIECE_BYTES: usize = 64 * 1024;
/// The largest piece that is taken.
const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// How long a piece may wait for the desk's quota: longer, and the desk is asked to come again.
const QUOTA_WAIT_MAX: Duration = Duration::from_secs(10);

fn invalid(field: &str, reason: Reason, description: impl Into<String>) -> Refusal {
    let violation =
        FieldViolation { field: field.to_owned(), description: description.into(), reason };
    let refusal = Refusal::of_fields(vec![violation]);
    refusal.unwrap_or_else(|| Refusal::new(reason, "the request is not right"))
}

fn digest_of(bytes: &Bytes, field: &str) -> Result<[u8; 32], Refusal> {
    let digest = bytes.as_ref().try_into();
    digest.map_err(|_| invalid(field, Reason::Malformed, "not a SHA-256 of 32 bytes"))
}

fn response(content: Content) -> UploadAttachmentResponse {
    let digest = Bytes::copy_from_slice(&content.digest);
    UploadAttachmentResponse { digest, size: content.size }
}

impl DeskFace {
    /// Takes an upload in.
    pub(super) async fn take_upload(
        &self,
        desk: &DeskName,
        mut pieces: Streaming<UploadAttachmentRequest>,
    ) -> Result<UploadAttachmentResponse, Refusal> {
        let first = next(&mut pieces).await?;
        let Some(Piece::Header(header)) = first else {
            return Err(invalid("header", Reason::FieldMissing, "the first piece is the header"));
        };
        let content = self.check_header(&header)?;
        let store = &self.engine.store;
        let source = Source::Desk(desk.clone());
        let held = self.engine.attachment_held(source.clone(), content).await;
        if let AttachmentHeld::Whole(size) = held.map_err(|error| store_refusal(&error))? {
            let content = Content { size, ..content };
            return Ok(response(content));
        }
        let mut offset = header.offset;
        loop {
            let data = match next(&mut pieces).await? {
                Some(Piece::Data(data)) => data,
                Some(Piece::Header(_)) => {
                    return Err(invalid("header", Reason::FieldInvalid, "a second header"));
                }
                None => {
                    let text = format!("{offset} of {} bytes came; go on from there", content.size);
                    return Err(invalid("data", Reason::FieldMissing, text));
                }
            };
            if data.is_empty() || data.len() > PIECE_BYTES_MAX {
                let text = format!("a piece has 1 to {PIECE_BYTES_MAX} bytes");
                return Err(invalid("data", Reason::FieldInvalid, text));
            }
            self.wait_for_quota(desk, data.len()).await?;
            let end = offset.saturating_add(data.len() as u64);
            if end > content.size {
                let text = format!("more than the {} bytes of the header", content.size);
                return Err(invalid("data", Reason::FieldInvalid, text));
            }
            let held = store.attachment_add(source.clone(), content, offset, data).await;
            match held.map_err(|error| store_refusal(&error))? {
                AttachmentHeld::Whole(_) => {
                    tracing::info!(event = "attachment_uploaded", desk = %desk, bytes = content.size);
                    return Ok(response(content));
                }
                AttachmentHeld::Part(length) if length == end => offset = end,
                AttachmentHeld::Part(length) => {
                    let text = format!("{length} bytes are here; go on from there");
                    return Err(invalid("header.offset", Reason::FieldInvalid, text));
                }
                AttachmentHeld::Mismatch => {
                    let text = "the bytes are not those of the digest; begin anew";
                    return Err(invalid("header.digest", Reason::DigestMismatch, text));
                }
            }
        }
    }

    /// A stream is slowed down where another call would be refused.
    async fn wait_for_quota(&self, desk: &DeskName, bytes: usize) -> Result<(), Refusal> {
        let deadline = Instant::now() + QUOTA_WAIT_MAX;
        loop {
            let refusal = match self.quotas.take(desk, bytes, std::time::Instant::now()) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            let pause = refusal.retry_after.unwrap_or(QUOTA_WAIT_MAX);
            if Instant::now() + pause > deadline {
                return Err(refusal);
            }
            sleep(pause).await;
        }
    }

    fn check_header(&self, header: &UploadHeader) -> Result<Content, Refusal> {
        let digest = digest_of(&header.digest, "header.digest")?;
        let limit = self.engine.config.limits.message.attachment_bytes;
        if header.size == 0 {
            let text = "an attachment has at least one byte";
            return Err(invalid("header.size", Reason::FieldInvalid, text));
        }
        if header.size > limit {
            let text = format!("{} bytes; the limit is {limit}", header.size);
            return Err(invalid("header.size", Reason::AttachmentTooLarge, text));
        }
        Ok(Content { digest, size: header.size })
    }

    /// How much of an attachment is here.
    pub(super) async fn uploaded(
        &self,
        desk: &DeskName,
        digest: &Bytes,
    ) -> Result<GetUploadResponse, Refusal> {
        let digest = digest_of(digest, "digest")?;
        let held = self.engine.store.attachment(Source::Desk(desk.clone()), digest).await;
        Ok(match held.map_err(|error| store_refusal(&error))? {
            AttachmentHeld::Whole(received) => GetUploadResponse { received, complete: true },
            AttachmentHeld::Part(received) => GetUploadResponse { received, complete: false },
            AttachmentHeld::Mismatch => GetUploadResponse { received: 0, complete: false },
        })
    }

    /// Whether every attachment of a submission is here, and as large as it says.
    pub(super) async fn check_attachments(
        &self,
        desk: &DeskName,
        draft: &Draft,
    ) -> Result<(), Refusal> {
        let source = Source::Desk(desk.clone());
        let mut violations = Vec::new();
        for (index, content) in draft.attachments.iter().enumerate() {
            let held = self.engine.store.attachment(source.clone(), content.digest).await;
            let description = match held.map_err(|error| store_refusal(&error))? {
                AttachmentHeld::Whole(size) if size == content.size => continue,
                AttachmentHeld::Whole(size) => format!("{size} bytes are here"),
                AttachmentHeld::Part(bytes) => format!("{bytes} bytes are here; upload it first"),
                AttachmentHeld::Mismatch => "upload it first".to_owned(),
            };
            let field = format!("attachments[{index}]");
            let reason = Reason::AttachmentMissing;
            violations.push(FieldViolation { field, description, reason });
        }
        let Some(refusal) = Refusal::of_fields(violations) else { return Ok(()) };
        if let Some((key, _)) = &draft.request {
            // A request that was accepted before is answered as before; what it named may be gone.
            let made = self.engine.store.requests(vec![key.clone()]).await;
            if made.map_err(|error| store_refusal(&error))?.iter().any(Option::is_some) {
                return Ok(());
            }
        }
        Err(refusal)
    }

    /// Gives an attachment out.
    pub(super) async fn give_out(
        &self,
        desk: &DeskName,
        request: DownloadAttachmentRequest,
    ) -> Result<Responses<DownloadAttachmentResponse>, Refusal> {
        let arrived = self.arrived(&request.message_id).await?;
        let index = usize::try_from(request.index).unwrap_or(usize::MAX);
        let content = *arrived.manifest.attachments.get(index).ok_or_else(not_found)?;
        if self.engine.is_quarantined(&arrived) {
            let text = "a desk with the permission \"release\" must release it first";
            return Err(Refusal::new(Reason::AttachmentQuarantined, text));
        }
        if request.offset > content.size {
            let text = format!("it has {} bytes", content.size);
            return Err(invalid("offset", Reason::FieldInvalid, text));
        }
        tracing::info!(
            event = "attachment_read",
            message = %arrived.message, desk = %desk, index = request.index, bytes = content.size
        );
        let store = std::sync::Arc::clone(&self.engine.store);
        let pieces = stream::unfold(Some(request.offset), move |offset| {
            let store = std::sync::Arc::clone(&store);
            async move {
                let offset = offset.filter(|offset| *offset < content.size)?;
                match store.attachment_read(content.digest, offset, PIECE_BYTES).await {
                    Ok(Some(data)) if !data.is_empty() => {
                        let next = offset + data.len() as u64;
                        Some((Ok(DownloadAttachmentResponse { offset, data }), Some(next)))
                    }
                    Ok(_) => Some((Err(Status::from(not_found())), None)),
                    Err(error) => Some((Err(Status::from(store_refusal(&error))), None)),
                }
            }
        });
        Ok(Box::pin(pieces))
    }

    /// Releases the attachments of a message.
    pub(super) async fn release(
        &self,
        desk: &DeskName,
        text: &str,
    ) -> Result<ReleaseAttachmentsResponse, Refusal> {
        let message = self.arrived(text).await?.message;
        let operation = Operation::ReleaseAttachments {
            message,
            recipient: self.engine.bureau(),
            desk: desk.clone(),
            now: self.engine.clock.now(),
        };
        let outcomes = self.engine.store.commit(vec![operation]).await;
        let outcome = outcomes.map_err(|error| store_refusal(&error))?.pop();
        let Some(Outcome::Released { time, desk, fresh }) = outcome else {
            return Err(not_found());
        };
        if fresh {
            tracing::info!(event = "attachments_released", message = %message, desk = %desk);
        }
        Ok(ReleaseAttachmentsResponse {
            message_id: message.to_string(),
            release_time: Some(time.to_wire()),
            release_desk: desk.to_string(),
        })
    }
}

async fn next(pieces: &mut Streaming<UploadAttachmentRequest>) -> Result<Option<Piece>, Refusal> {
    match pieces.message().await {
        Ok(None) => Ok(None),
        Ok(Some(request)) => match request.piece {
            Some(piece) => Ok(Some(piece)),
            None => Err(invalid("piece", Reason::FieldMissing, "neither header nor data")),
        },
        Err(status) if status.code() == tonic::Code::OutOfRange => {
            Err(crate::face::gate::too_large())
        }
        // The stream broke: nobody is there to read the answer.
        Err(status) => Err(Refusal::new(Reason::Malformed, status.message().to_owned())),
    }
}
