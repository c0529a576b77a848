//! What arrived, as programs read it. A field once named is never renamed.

use bureau_proto::desk::v1::{Acknowledgment, Attachment, InboxEntry, InboxMessage};
use serde::Serialize;

use super::text_of;
use crate::{files, wire};

#[derive(Serialize)]
pub(super) struct InboxView {
    pub(super) entries: Vec<EntryView>,
    /// Whether there are more entries than these.
    pub(super) more: bool,
}

#[derive(Serialize)]
pub(super) struct EntryView {
    number: u64,
    message_id: String,
    origin: String,
    lane: String,
    kind: String,
    subject: String,
    create_time: Option<String>,
    deliver_time: Option<String>,
    handling_code: String,
    exercise: bool,
    content_size: u64,
    acknowledge_time: Option<String>,
    acknowledge_desk: Option<String>,
    previous_hop: Option<String>,
    attachment_count: u32,
}

#[derive(Serialize)]
pub(super) struct MessageView {
    #[serde(flatten)]
    entry: EntryView,
    origin_desk: Option<String>,
    media_type: String,
    purpose: Option<String>,
    case_reference: Option<String>,
    in_reply_to: Option<String>,
    replaces: Option<String>,
    visible_recipients: Vec<String>,
    expire_time: Option<String>,
    /// How `content` is written: `utf-8` or `base64`.
    content_encoding: &'static str,
    content: String,
    attachments: Vec<AttachmentView>,
}

#[derive(Serialize)]
pub(super) struct AttachmentView {
    /// Counted from 1.
    index: usize,
    name: String,
    media_type: Option<String>,
    pub(super) size: u64,
    sha256: String,
    /// Held back until a desk releases it.
    quarantined: bool,
}

pub(super) fn attachment_views(attachments: &[Attachment]) -> Vec<AttachmentView> {
    let view = |(index, attachment): (usize, &Attachment)| AttachmentView {
        index,
        name: attachment.name.clone(),
        media_type: wire::filled(&attachment.media_type),
        size: attachment.size,
        sha256: files::hex(&attachment.digest),
        quarantined: attachment.quarantined,
    };
    (1..).zip(attachments).map(view).collect()
}

#[derive(Serialize)]
pub(super) struct AcknowledgmentsView {
    pub(super) acknowledgments: Vec<AcknowledgmentView>,
}

#[derive(Serialize)]
pub(super) struct AcknowledgmentView {
    pub(super) message_id: String,
    pub(super) acknowledge_time: Option<String>,
    pub(super) acknowledge_desk: String,
}

impl From<InboxEntry> for EntryView {
    fn from(entry: InboxEntry) -> Self {
        Self {
            number: entry.number,
            lane: wire::lane(entry.lane),
            kind: wire::kind(entry.kind),
            create_time: wire::time(entry.create_time.as_ref()),
            deliver_time: wire::time(entry.deliver_time.as_ref()),
            handling_code: wire::handling(entry.handling_code),
            exercise: entry.exercise,
            content_size: entry.content_size,
            acknowledge_time: wire::time(entry.acknowledge_time.as_ref()),
            acknowledge_desk: wire::filled(&entry.acknowledge_desk),
            previous_hop: wire::filled(&entry.previous_hop),
            attachment_count: entry.attachment_count,
            message_id: entry.message_id,
            origin: entry.origin,
            subject: entry.subject,
        }
    }
}

impl From<InboxMessage> for MessageView {
    fn from(message: InboxMessage) -> Self {
        let (content_encoding, content) = match text_of(&message) {
            Some(text) => ("utf-8", text.to_owned()),
            None => ("base64", data_encoding::BASE64.encode(&message.content)),
        };
        Self {
            entry: message.entry.unwrap_or_default().into(),
            origin_desk: wire::filled(&message.origin_desk),
            purpose: (message.purpose != 0).then(|| wire::purpose(message.purpose)),
            case_reference: wire::filled(&message.case_reference),
            in_reply_to: wire::filled(&message.in_reply_to),
            replaces: wire::filled(&message.replaces),
            expire_time: wire::time(message.expire_time.as_ref()),
            media_type: message.media_type,
            visible_recipients: message.visible_recipients,
            content_encoding,
            content,
            attachments: attachment_views(&message.attachments),
        }
    }
}

impl From<Acknowledgment> for AcknowledgmentView {
    fn from(acknowledgment: Acknowledgment) -> Self {
        Self {
            acknowledge_time: wire::time(acknowledgment.acknowledge_time.as_ref()),
            message_id: acknowledgment.message_id,
            acknowledge_desk: acknowledgment.acknowledge_desk,
        }
    }
}
