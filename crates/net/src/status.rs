//! Refusals on their way to a client, and back: the one place where a [`Reason`] becomes a gRPC
//! status with its details (`google.rpc.ErrorInfo`, `BadRequest`, `RetryInfo`, `QuotaFailure`).
//! The text goes to strangers: short, and without what happened inside; causes go to the log.

use std::{collections::HashMap, time::Duration};

use bureau_core::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every `ErrorInfo`: reasons are unique within it.
pub const DOMAIN: &str = "bureau";

/// Longest message to a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// Violations beyond this many bytes are counted, not listed: clients take 8 KiB of headers
/// at least, and details travel there in base64.
const VIOLATION_BYTES_MAX: usize = 4096;
/// What one violation costs beside its texts: tags and lengths.
const VIOLATION_OVERHEAD_BYTES: usize = 16;
/// Most metadata in an `ErrorInfo`, in bytes.
const METADATA_BYTES_MAX: usize = 1024;
/// Key of the metadata that says how many violations are not listed.
const OMITTED: &str = "violations_omitted";

/// A refusal, before it is a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence for people: what is wrong and what to do.
    pub message: String,
    /// Every fault of the request, each with its field.
    pub violations: Vec<FieldViolation>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// More for programs, such as the limit that was passed.
    pub metadata: Vec<(&'static str, String)>,
}

/// A fault of one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `recipients[3]`.
    pub field: String,
    /// What is wrong with it, for people.
    pub description: String,
    /// The stable reason.
    pub reason: Reason,
}

/// A refusal as a client received it: perhaps from a newer node, a proxy or the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRefusal {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason, if a node said one; perhaps unknown to this version.
    pub reason: Option<String>,
    /// The sentence for people.
    pub message: String,
    /// Every fault of the request.
    pub violations: Vec<ReceivedViolation>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// More for programs.
    pub metadata: HashMap<String, String>,
}

/// A fault of one field, as a client received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedViolation {
    /// The field's path.
    pub field: String,
    /// What is wrong with it, for people.
    pub description: String,
    /// The stable reason; empty if none was said.
    pub reason: String,
}

impl Refusal {
    /// A refusal without details.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            violations: Vec::new(),
            retry_after: None,
            metadata: Vec::new(),
        }
    }

    /// A refusal for what its fields have: named after the first, listing all.
    /// `None` where there is no violation.
    #[must_use]
    pub fn of_fields(violations: Vec<FieldViolation>) -> Option<Self> {
        let FieldViolation { field, description, reason } = violations.first()?;
        let message = match violations.len() {
            1 => format!("{field}: {description}"),
            count => format!("{field}: {description} (and {} more)", count - 1),
        };
        let refusal = Self::new(*reason, message);
        Some(Self { violations, ..refusal })
    }

    /// Says when trying again makes sense.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// The gRPC code that goes with the reason.
    #[must_use]
    pub const fn code(&self) -> Code {
        // Faults of fields are faults of the request, whatever the first of them is.
        if !self.violations.is_empty() {
            return Code::InvalidArgument;
        }
        code_of(self.reason)
    }

    /// Reads a status that a client received.
    #[must_use]
    pub fn from_status(status: &Status) -> ReceivedRefusal {
        ReceivedRefusal::from(status)
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        let (listed, omitted) = self.listed_violations();
        let mut metadata = bounded_metadata(&self.metadata);
        if omitted > 0 {
            metadata.insert(OMITTED.to_owned(), omitted.to_string());
        }
        details.set_error_info(self.reason.as_str(), DOMAIN, metadata);
        if !listed.is_empty() {
            details.set_bad_request(listed);
        }
        if self.retry_after.is_some() {
            details.set_retry_info(self.retry_after);
        }
        if matches!(self.reason, Reason::RateLimited | Reason::QueueFull | Reason::DiskLow) {
            details.add_quota_failure_violation(self.reason.as_str(), safe_text(&self.message));
        }
        details
    }

    fn listed_violations(&self) -> (Vec<tonic_types::FieldViolation>, usize) {
        let mut room = VIOLATION_BYTES_MAX;
        let mut listed = Vec::new();
        for violation in &self.violations {
            let description = safe_text(&violation.description);
            let reason = violation.reason.as_str();
            let bytes = violation.field.len() + description.len() + reason.len();
            match room.checked_sub(bytes + VIOLATION_OVERHEAD_BYTES) {
                Some(left) => room = left,
                None => break,
            }
            listed.push(tonic_types::FieldViolation {
                field: violation.field.clone(),
                description,
                reason: reason.to_owned(),
                localized_message: None,
            });
        }
        let omitted = self.violations.len() - listed.len();
        (listed, omitted)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = safe_text(&refusal.message);
        Self::with_error_details(refusal.code(), message, refusal.details())
    }
}

impl ReceivedRefusal {
    /// The reason, if this version knows it.
    #[must_use]
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.as_deref()?.parse().ok()
    }

    /// Whether it was refused for this reason.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.known_reason() == Some(reason)
    }
}

impl From<&Status> for ReceivedRefusal {
    fn from(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unzip();
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
        Self {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            violations: violations
                .unwrap_or_default()
                .into_iter()
                .map(|violation| ReceivedViolation {
                    field: violation.field,
                    description: violation.description,
                    reason: violation.reason,
                })
                .collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            metadata: metadata.unwrap_or_default(),
        }
    }
}

/// The table: which gRPC code each reason has. Clients retry by code, so it says whose turn it is:
/// the request must change, the caller may not, try later, or ask what became of it.
#[must_use]
pub const fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::BodyTooLarge
        | Reason::BodyEmpty
        | Reason::TooManyRecipients
        | Reason::NoRecipient
        | Reason::DuplicateRecipient
        | Reason::SelfRecipient
        | Reason::LifetimeTooLong
        | Reason::AlreadyExpired
        | Reason::CreatedInFuture
        | Reason::Malformed
        | Reason::NotUtf8
        | Reason::ControlCharacters
        | Reason::FieldTooLong
        | Reason::FieldMissing
        | Reason::FieldInvalid
        | Reason::TooManyAttachments
        | Reason::AttachmentTooLarge
        | Reason::UnknownSuite
        | Reason::UnknownKind
        | Reason::UnknownLane
        | Reason::UnknownFormat
        | Reason::DigestMismatch
        | Reason::SlipMismatch
        | Reason::LaneMismatch
        | Reason::AmbiguousId
        | Reason::RequestIdInvalid
        | Reason::TooLarge
        | Reason::ProtocolViolation
        | Reason::NotABundle
        | Reason::BundleDamaged
        | Reason::BundleTruncated
        | Reason::InvalidCursor
        | Reason::InvalidPageToken => Code::InvalidArgument,
        Reason::UnknownBureau
        | Reason::SuiteNotAllowed
        | Reason::WrongBureau
        | Reason::WrongNetwork
        | Reason::WrongOrigin
        | Reason::WrongRecipient
        | Reason::BadSignature
        | Reason::UnknownKey
        | Reason::KeyNotValid
        | Reason::NotPermitted => Code::PermissionDenied,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::NotFound => Code::NotFound,
        Reason::RequestIdReused | Reason::DuplicateLink => Code::AlreadyExists,
        Reason::RateLimited
        | Reason::QueueFull
        | Reason::Busy
        | Reason::DiskLow
        | Reason::StagingFull => Code::ResourceExhausted,
        Reason::TooManyHops
        | Reason::AttachmentMissing
        | Reason::AttachmentQuarantined
        | Reason::Fork
        | Reason::ClockSkew
        | Reason::VersionUnsupported
        | Reason::NoSealingKey
        | Reason::NoRoute => Code::FailedPrecondition,
        Reason::StoreFailed
        | Reason::OutcomeUnknown
        | Reason::ShuttingDown
        | Reason::Starting
        | Reason::Stalled
        | Reason::PeerDown => Code::Unavailable,
        Reason::Internal => Code::Internal,
    }
}

/// What strangers wrote may stand in a message; it must not steer the terminal that shows it.
fn safe_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(MESSAGE_BYTES_MAX));
    for character in text.chars() {
        let character = if steers(character) { '\u{fffd}' } else { character };
        if safe.len() + character.len_utf8() > MESSAGE_BYTES_MAX {
            break;
        }
        safe.push(character);
    }
    safe
}

/// Control characters, and those that reorder or hide text.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn bounded_metadata(metadata: &[(&'static str, String)]) -> HashMap<String, String> {
    let mut room = METADATA_BYTES_MAX;
    let mut bounded = HashMap::new();
    for (key, value) in metadata {
        let value = safe_text(value);
        let Some(left) = room.checked_sub(key.len() + value.len()) else { break };
        room = left;
        bounded.insert((*key).to_owned(), value);
    }
    bounded
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
