//! The catalogue of stable reasons: in error details, in refusals and in logs. A reason once
//! released is never renamed. Which gRPC code each has is decided elsewhere.

use std::{fmt, str::FromStr};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why something was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its stable text, as programs compare it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The content or the body is larger than the limit.
    BodyTooLarge = "BODY_TOO_LARGE",
    /// There is no content.
    BodyEmpty = "BODY_EMPTY",
    /// More recipients than the limit.
    TooManyRecipients = "TOO_MANY_RECIPIENTS",
    /// No recipient.
    NoRecipient = "NO_RECIPIENT",
    /// A recipient stands twice.
    DuplicateRecipient = "DUPLICATE_RECIPIENT",
    /// The own bureau is a recipient.
    SelfRecipient = "SELF_RECIPIENT",
    /// A code that the roster does not list, or a suspended member.
    UnknownBureau = "UNKNOWN_BUREAU",
    /// From making to expiry is longer than the limit.
    LifetimeTooLong = "LIFETIME_TOO_LONG",
    /// It expires in the past.
    AlreadyExpired = "ALREADY_EXPIRED",
    /// It was made in the future.
    CreatedInFuture = "CREATED_IN_FUTURE",
    /// The bytes are not what they should be.
    Malformed = "MALFORMED",
    /// A text is not UTF-8.
    NotUtf8 = "NOT_UTF8",
    /// A text has control characters, or characters that reorder text.
    ControlCharacters = "CONTROL_CHARACTERS",
    /// A text is longer than the limit.
    FieldTooLong = "FIELD_TOO_LONG",
    /// A field that must be there is not.
    FieldMissing = "FIELD_MISSING",
    /// A field has a value that is not one of its values.
    FieldInvalid = "FIELD_INVALID",
    /// More attachments than the limit.
    TooManyAttachments = "TOO_MANY_ATTACHMENTS",
    /// An attachment is larger than the limit.
    AttachmentTooLarge = "ATTACHMENT_TOO_LARGE",
    /// An attachment is named that is not here, or not whole.
    AttachmentMissing = "ATTACHMENT_MISSING",
    /// An attachment that no desk has released yet.
    AttachmentQuarantined = "ATTACHMENT_QUARANTINED",
    /// Attachments that no message names yet take all the room they may.
    StagingFull = "STAGING_FULL",
    /// A signature or sealing suite that is not known.
    UnknownSuite = "UNKNOWN_SUITE",
    /// A kind of envelope or receipt that is not known.
    UnknownKind = "UNKNOWN_KIND",
    /// A lane that is not known.
    UnknownLane = "UNKNOWN_LANE",
    /// A format that is not known.
    UnknownFormat = "UNKNOWN_FORMAT",
    /// A sealing suite that this node does not allow.
    SuiteNotAllowed = "SUITE_NOT_ALLOWED",
    /// The caller's certificate is of another bureau than it must be.
    WrongBureau = "WRONG_BUREAU",
    /// The signer is not the origin.
    WrongOrigin = "WRONG_ORIGIN",
    /// It is not for this bureau, and this bureau does not relay it.
    WrongRecipient = "WRONG_RECIPIENT",
    /// A signature is wrong.
    BadSignature = "BAD_SIGNATURE",
    /// A key that the roster does not list for its bureau.
    UnknownKey = "UNKNOWN_KEY",
    /// A key outside its window, revoked, or not for this use.
    KeyNotValid = "KEY_NOT_VALID",
    /// The body is not the one the manifest names.
    DigestMismatch = "DIGEST_MISMATCH",
    /// A slip that belongs to another message.
    SlipMismatch = "SLIP_MISMATCH",
    /// Slip and manifest name different lanes.
    LaneMismatch = "LANE_MISMATCH",
    /// More nodes passed than allowed.
    TooManyHops = "TOO_MANY_HOPS",
    /// Another message stands under the same count of the same origin.
    Fork = "FORK",
    /// This caller may not do this.
    NotPermitted = "NOT_PERMITTED",
    /// The caller did not prove who it is.
    Unauthenticated = "UNAUTHENTICATED",
    /// Not held here, or not for the caller: one answer.
    NotFound = "NOT_FOUND",
    /// More than one message begins like this.
    AmbiguousId = "AMBIGUOUS_ID",
    /// The same request id with another content.
    RequestIdReused = "REQUEST_ID_REUSED",
    /// Not a UUID.
    RequestIdInvalid = "REQUEST_ID_INVALID",
    /// More requests in a second than this caller may make.
    RateLimited = "RATE_LIMITED",
    /// More messages wait than allowed.
    QueueFull = "QUEUE_FULL",
    /// More is under way than the node takes; try again.
    Busy = "BUSY",
    /// The disk is low; nothing new is accepted that could be lost.
    DiskLow = "DISK_LOW",
    /// The store failed; the node ends.
    StoreFailed = "STORE_FAILED",
    /// The disk failed while this was written; ask again with the same request id.
    OutcomeUnknown = "OUTCOME_UNKNOWN",
    /// The node is shutting down.
    ShuttingDown = "SHUTTING_DOWN",
    /// The node is starting.
    Starting = "STARTING",
    /// A clock is off by more than 5 minutes.
    ClockSkew = "CLOCK_SKEW",
    /// No protocol version is common.
    VersionUnsupported = "VERSION_UNSUPPORTED",
    /// No configured peer leads to this bureau.
    NoRoute = "NO_ROUTE",
    /// A request, frame or header list is larger than the limit.
    TooLarge = "TOO_LARGE",
    /// Another link of the same pair is up.
    DuplicateLink = "DUPLICATE_LINK",
    /// The peer was silent for too long.
    Stalled = "STALLED",
    /// The link to the peer is down.
    PeerDown = "PEER_DOWN",
    /// The peer broke the protocol.
    ProtocolViolation = "PROTOCOL_VIOLATION",
    /// Not a cursor of this inbox.
    InvalidCursor = "INVALID_CURSOR",
    /// Not a page token of this list.
    InvalidPageToken = "INVALID_PAGE_TOKEN",
    /// It is of another network.
    WrongNetwork = "WRONG_NETWORK",
    /// Not a bundle.
    NotABundle = "NOT_A_BUNDLE",
    /// A bundle that was changed, or did not survive its way.
    BundleDamaged = "BUNDLE_DAMAGED",
    /// A bundle of which the end is missing.
    BundleTruncated = "BUNDLE_TRUNCATED",
    /// There is no key to seal for a bureau, or to open what was sealed for it.
    NoSealingKey = "NO_SEALING_KEY",
    /// A fault of this software.
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no reason of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known reason")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_distinct_and_parse_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }
}
