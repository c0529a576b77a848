//! What a desk asks for, checked: every fault at once, before anything is signed or written.

use bureau_core::{
    BureauCode, DeskName, Lane, Limits, MessageId, Reason, Roster, Timestamp,
    body::{self, Violation},
    envelope::{Content, HandlingCode, Kind, SealingSuite},
};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::{
    desk::v1::{AttachmentToSend, SubmitRequest},
    envelope::v1 as wire,
};
use bureau_store::contract::RequestKey;
use bytes::Bytes;
use prost::Message as _;

/// When a message expires where its desk does not say: 7 days.
const LIFETIME_DEFAULT_MS: i64 = 7 * 24 * 3600 * 1000;

/// A message that may be signed and accepted.
#[derive(Debug, Clone)]
pub struct Draft {
    /// For whom.
    pub recipients: Vec<BureauCode>,
    /// How urgent.
    pub lane: Lane,
    /// What kind.
    pub kind: Kind,
    /// What recipients may do with it.
    pub handling: HandlingCode,
    /// Exercise traffic.
    pub exercise: bool,
    /// How it is sealed.
    pub suite: SealingSuite,
    /// When it is given up.
    pub expires: Timestamp,
    /// The body, encoded.
    pub body: Bytes,
    /// Digest and size of the body.
    pub content: Content,
    /// Digest and size of each attachment.
    pub attachments: Vec<Content>,
    /// Who asks.
    pub desk: DeskName,
    /// The request id and the digest of the request, if it has one.
    pub request: Option<(RequestKey, [u8; 32])>,
    /// Before this time it must not go.
    pub send_at: Option<Timestamp>,
    /// The message whose dead letters it is sent in place of.
    pub requeue_of: Option<MessageId>,
}

/// What a submission is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// This bureau.
    pub bureau: BureauCode,
    /// The members.
    pub roster: &'a Roster,
    /// What is too much.
    pub limits: &'a Limits,
    /// Now.
    pub now: Timestamp,
}

/// Checks a request of a desk.
///
/// # Errors
/// A [`Refusal`] that names every fault.
pub fn check(request: SubmitRequest, desk: &DeskName, rules: Rules<'_>) -> Result<Draft, Refusal> {
    let mut faults = Faults::default();
    // What a fault stands in for below is never used: any fault refuses the whole.
    let request_key = request_key(&request, desk, &mut faults);
    let recipients = recipients(&request, rules, &mut faults);
    let expires = expires(&request, rules, &mut faults);
    let send_at = send_at(&request, rules.now, expires, &mut faults);
    let lane = match request.lane {
        0 => Lane::Routine,
        number => Lane::from_wire(number).unwrap_or_else(|| {
            faults.add("lane", Reason::UnknownLane, "not a known lane");
            Lane::Routine
        }),
    };
    let kind = match Kind::try_from(request.kind) {
        Ok(Kind::Unspecified) => Kind::Message,
        Ok(kind) => kind,
        Err(_) => {
            faults.add("kind", Reason::UnknownKind, "not a known kind");
            Kind::Message
        }
    };
    let handling = match HandlingCode::try_from(request.handling_code) {
        Ok(HandlingCode::Unspecified) => HandlingCode::H1,
        Ok(code) => code,
        Err(_) => {
            faults.add("handling_code", Reason::FieldInvalid, "not a known handling code");
            HandlingCode::H1
        }
    };
    let exercise = request.exercise;
    let attachments = attachments(&request, rules.limits, &mut faults);
    let body = body_of(request, &recipients, desk, &mut faults);
    faults.list.extend(body::check(&body, rules.limits).into_iter().map(violation));
    if let Some(refusal) = Refusal::of_fields(faults.list) {
        return Err(refusal);
    }
    let body = Bytes::from(body.encode_to_vec());
    Ok(Draft {
        recipients,
        lane,
        kind,
        handling,
        exercise,
        suite: SealingSuite::Open,
        expires,
        content: Content::of(&body),
        attachments,
        body,
        desk: desk.clone(),
        request: request_key,
        send_at,
        requeue_of: None,
    })
}

#[derive(Default)]
struct Faults {
    list: Vec<FieldViolation>,
}

impl Faults {
    fn add(&mut self, field: impl Into<String>, reason: Reason, description: impl Into<String>) {
        let (field, description) = (field.into(), description.into());
        self.list.push(FieldViolation { field, description, reason });
    }
}

fn violation(violation: Violation) -> FieldViolation {
    let Violation { field, reason, description } = violation;
    FieldViolation { field, description, reason }
}

/// The request id, and the digest of everything else that was asked for.
fn request_key(
    request: &SubmitRequest,
    desk: &DeskName,
    faults: &mut Faults,
) -> Option<(RequestKey, [u8; 32])> {
    if request.request_id.is_empty() {
        return None;
    }
    let Ok(id) = uuid::Uuid::try_parse(&request.request_id) else {
        faults.add("request_id", Reason::RequestIdInvalid, "not a UUID");
        return None;
    };
    let content = SubmitRequest { request_id: String::new(), ..request.clone() };
    let digest = Content::of(&content.encode_to_vec()).digest;
    Some((RequestKey { desk: desk.clone(), id: *id.as_bytes() }, digest))
}

fn description(attachment: AttachmentToSend) -> wire::AttachmentDescription {
    let AttachmentToSend { name, media_type, size, .. } = attachment;
    wire::AttachmentDescription { name, media_type, size }
}

fn recipients(request: &SubmitRequest, rules: Rules<'_>, faults: &mut Faults) -> Vec<BureauCode> {
    let given = &request.recipients;
    if given.is_empty() {
        faults.add("recipients", Reason::NoRecipient, "at least one recipient is needed");
    }
    if given.len() > rules.limits.recipients {
        let description =
            format!("{} recipients; the limit is {}", given.len(), rules.limits.recipients);
        faults.add("recipients", Reason::TooManyRecipients, description);
        return Vec::new();
    }
    let mut codes = Vec::with_capacity(given.len());
    let mut seen = std::collections::HashSet::with_capacity(given.len());
    for (index, text) in given.iter().enumerate() {
        let field = || format!("recipients[{index}]");
        let Ok(code) = text.parse::<BureauCode>() else {
            let rule = "not a bureau code: 2 to 12 of A-Z and 0-9";
            faults.add(field(), Reason::UnknownBureau, rule);
            continue;
        };
        if code == rules.bureau {
            faults.add(field(), Reason::SelfRecipient, "the own bureau cannot be a recipient");
        } else if rules.roster.member(&code).is_err() {
            let description = format!("{code} is not in the roster");
            faults.add(field(), Reason::UnknownBureau, description);
        }
        if !seen.insert(code) {
            faults.add(field(), Reason::DuplicateRecipient, format!("{code} stands twice"));
        }
        codes.push(code);
    }
    codes
}

fn expires(request: &SubmitRequest, rules: Rules<'_>, faults: &mut Faults) -> Timestamp {
    let default = rules.now.plus_ms(LIFETIME_DEFAULT_MS.min(rules.limits.lifetime_ms));
    let Some(wire) = &request.expire_time else { return default };
    let Some(expires) = Timestamp::from_wire(Some(wire)) else {
        faults.add("expire_time", Reason::Malformed, "not a time between 1970 and 9999");
        return default;
    };
    if expires <= rules.now {
        let description = format!("it is {} now", rules.now);
        faults.add("expire_time", Reason::AlreadyExpired, description);
    } else if expires.since(rules.now) > rules.limits.lifetime_ms {
        let days = rules.limits.lifetime_ms / (24 * 3600 * 1000);
        let description = format!("more than {days} days from now");
        faults.add("expire_time", Reason::LifetimeTooLong, description);
    }
    expires
}

/// The time before which it must not go. One that has come already is no different from none.
fn send_at(
    request: &SubmitRequest,
    now: Timestamp,
    expires: Timestamp,
    faults: &mut Faults,
) -> Option<Timestamp> {
    let wire = request.send_time.as_ref()?;
    let Some(at) = Timestamp::from_wire(Some(wire)) else {
        faults.add("send_time", Reason::Malformed, "not a time between 1970 and 9999");
        return None;
    };
    if at >= expires {
        let description = format!("it expires at {expires}, before it was to go");
        faults.add("send_time", Reason::FieldInvalid, description);
    }
    (at > now).then_some(at)
}

/// What is said of each attachment. Whether it is here the store will say.
fn attachments(request: &SubmitRequest, limits: &Limits, faults: &mut Faults) -> Vec<Content> {
    let mut contents = Vec::with_capacity(request.attachments.len().min(limits.attachments));
    let mut seen = std::collections::HashSet::new();
    for (index, attachment) in request.attachments.iter().take(limits.attachments).enumerate() {
        let field = |name: &str| format!("attachments[{index}].{name}");
        let Ok(digest) = <[u8; 32]>::try_from(attachment.digest.as_ref()) else {
            faults.add(field("digest"), Reason::Malformed, "not a SHA-256 of 32 bytes");
            continue;
        };
        if !seen.insert(digest) {
            faults.add(field("digest"), Reason::FieldInvalid, "the same attachment stands twice");
        }
        if attachment.size > limits.attachment_bytes {
            let description =
                format!("{} bytes; the limit is {}", attachment.size, limits.attachment_bytes);
            faults.add(field("size"), Reason::AttachmentTooLarge, description);
        } else if attachment.size == 0 {
            faults.add(field("size"), Reason::FieldInvalid, "an attachment has at least one byte");
        }
        contents.push(Content { digest, size: attachment.size });
    }
    contents
}

fn body_of(
    request: SubmitRequest,
    recipients: &[BureauCode],
    desk: &DeskName,
    faults: &mut Faults,
) -> wire::Body {
    let visible = if request.hide_recipients { &[] } else { recipients };
    let mut id = |field: &'static str, text: &str| -> Bytes {
        if text.is_empty() {
            return Bytes::new();
        }
        match text.parse::<MessageId>() {
            Ok(id) => Bytes::copy_from_slice(&id.0),
            Err(_) => {
                faults.add(field, Reason::Malformed, "not a message id of 52 characters");
                Bytes::new()
            }
        }
    };
    wire::Body {
        format: bureau_core::limits::FORMAT,
        in_reply_to: id("in_reply_to", &request.in_reply_to),
        replaces: id("replaces", &request.replaces),
        subject: request.subject,
        media_type: request.media_type,
        content: request.content,
        purpose: request.purpose,
        case_reference: request.case_reference,
        visible_recipients: visible.iter().map(ToString::to_string).collect(),
        attachments: request.attachments.into_iter().map(description).collect(),
        desk: desk.to_string(),
        padding: Bytes::new(),
    }
}
