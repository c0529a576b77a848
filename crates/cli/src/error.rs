//! What went wrong in a command: for people a sentence, its reason and a hint; for programs an
//! exit code.

use std::{io, path::PathBuf, time::Duration};

use bureau_core::Reason;
use bureau_net::{DialError, TlsError, status::ReceivedRefusal};
use bureau_node::ServeError;
use tonic::Code;

use crate::{demo::DemoError, net::InitError, profile::ProfileError};

/// Failed.
const FAILED: u8 = 1;
/// What was typed cannot be meant.
const USAGE: u8 = 2;
/// Added to the gRPC code of a refusal.
const RPC: u8 = 64;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("no desk profile was given")]
    NoProfile,
    #[error(transparent)]
    Profile(Box<ProfileError>),
    #[error("the desk's certificate cannot be used: {0}")]
    Tls(Box<TlsError>),
    #[error("no connection to the node of {bureau} at {address}: {error}")]
    Dial { bureau: String, address: String, error: Box<DialError> },
    #[error("{}", .0.message)]
    Refused(Box<ReceivedRefusal>),
    #[error("{error} (the message may have been accepted all the same)")]
    Unsure { request_id: String, error: Box<CommandError> },
    #[error(transparent)]
    Node(Box<ServeError>),
    #[error(transparent)]
    Init(Box<InitError>),
    #[error(transparent)]
    Demo(Box<DemoError>),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is no bundle that this version can read", path.display())]
    NotABundle { path: PathBuf, reason: Reason },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{} has no bytes: there is nothing to attach", path.display())]
    Empty { path: PathBuf },
    #[error("{} has no file name that others could read", path.display())]
    NoName { path: PathBuf },
    #[error("{} changed while it was sent", path.display())]
    Changed { path: PathBuf },
    #[error("{} is there already", path.display())]
    Exists { path: PathBuf },
    #[error("what came of {name} is not what its sender signed")]
    Corrupt { name: String },
    #[error("{}", no_attachment(*number, *count))]
    NoSuchAttachment { number: u32, count: usize },
    #[error("{} is no folder", path.display())]
    NoFolder { path: PathBuf },
    #[error("the content is binary ({media_type}): not for a terminal")]
    Binary { media_type: String },
    #[error("the node answered without {0}")]
    Incomplete(&'static str),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("{task} ended: {source}")]
    Task { task: &'static str, source: tokio::task::JoinError },
}

/// Boxed, so that what is rare does not make every result large.
macro_rules! boxed {
    ($($variant:ident($error:ty);)*) => {
        $(
            impl From<$error> for CommandError {
                fn from(error: $error) -> Self {
                    Self::$variant(Box::new(error))
                }
            }
        )*
    };
}

boxed! {
    Profile(ProfileError);
    Tls(TlsError);
    Node(ServeError);
    Init(InitError);
    Demo(DemoError);
}

/// One fault of a request, with the field it is in.
pub(crate) struct Fault<'a> {
    pub(crate) field: &'a str,
    pub(crate) description: &'a str,
    pub(crate) reason: &'a str,
}

impl CommandError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::NoProfile | Self::Profile(_) | Self::Tls(_) => USAGE,
            Self::TooLarge { .. } | Self::NotABundle { .. } => rpc(Code::InvalidArgument),
            Self::NoSuchAttachment { .. } => rpc(Code::NotFound),
            Self::Corrupt { .. } => rpc(Code::DataLoss),
            Self::Dial { .. } => rpc(Code::Unavailable),
            Self::Refused(refusal) => rpc(refusal.code),
            Self::Unsure { error, .. } => error.exit_code(),
            Self::Node(error) => error.exit_code(),
            Self::Init(error) if error.is_usage() => USAGE,
            _ => FAILED,
        }
    }

    /// The stable reason, where there is one.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Dial { error, .. } => Some(error.as_str()),
            Self::Refused(refusal) => Some(refusal.reason.as_deref().unwrap_or_else(|| {
                // What came from below the node has no reason of its own.
                code_name(refusal.code)
            })),
            Self::TooLarge { .. } => Some(Reason::BodyTooLarge.as_str()),
            Self::NoSuchAttachment { .. } => Some(Reason::NotFound.as_str()),
            Self::Corrupt { .. } => Some(Reason::DigestMismatch.as_str()),
            Self::NotABundle { reason, .. } => Some(reason.as_str()),
            Self::Unsure { error, .. } => error.reason(),
            _ => None,
        }
    }

    /// Every fault of the request.
    pub(crate) fn faults(&self) -> Vec<Fault<'_>> {
        let Self::Refused(refusal) = self else { return Vec::new() };
        refusal
            .violations
            .iter()
            .map(|violation| Fault {
                field: &violation.field,
                description: &violation.description,
                reason: &violation.reason,
            })
            .collect()
    }

    /// What may help.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoProfile => Some(
                "name one by --desk FILE or BUREAU_DESK, such as DIR/FR/desk.toml of `bureau net \
                 init DIR`"
                    .to_owned(),
            ),
            Self::Dial { error, .. } => dial_hint(error).map(str::to_owned),
            Self::Tls(error) if matches!(**error, TlsError::OwnChain { .. }) => Some(
                "`ca` in the desk profile must hold the authority that signed `certificate`"
                    .to_owned(),
            ),
            Self::Refused(refusal) => refusal_hint(refusal),
            Self::Unsure { request_id, .. } => Some(format!(
                "send it again with --request-id {request_id}: it is accepted once at most"
            )),
            Self::Binary { .. } => {
                Some("send it to a file: bureau inbox show ID --content > FILE".to_owned())
            }
            Self::TooLarge { .. } => Some("send it along as a file: --attach FILE".to_owned()),
            Self::Changed { .. } => Some("send it again when nobody writes to it".to_owned()),
            Self::Exists { .. } => Some("replace it with --force, or choose --into".to_owned()),
            Self::Corrupt { .. } => Some(
                "nothing was saved; save it again, and if it stays so, have the node's disk \
                 looked at"
                    .to_owned(),
            ),
            Self::NoFolder { .. } => {
                Some("make it first; a file is for one attachment: --index N".to_owned())
            }
            Self::Init(error) => error.hint().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether the same request may succeed by itself a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Dial { error, .. } => matches!(
                **error,
                DialError::Unreachable { .. }
                    | DialError::Timeout { .. }
                    | DialError::Closed { .. }
                    | DialError::Http2
            ),
            Self::Refused(refusal) => {
                matches!(refusal.code, Code::Unavailable | Code::DeadlineExceeded)
                    || (refusal.code == Code::ResourceExhausted && refusal.is(Reason::RateLimited))
            }
            _ => false,
        }
    }

    /// Whether a refusal is about a field of the request.
    pub(crate) fn is_about(&self, field: &str) -> bool {
        self.faults().iter().any(|fault| fault.field == field)
    }

    /// When the node wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// Whether the request may have been carried out although no answer came.
    pub(crate) fn leaves_outcome_open(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal.code, Code::Unavailable | Code::DeadlineExceeded)
                    && !refusal.is(Reason::Starting)
                    && !refusal.is(Reason::ShuttingDown)
            }
            _ => false,
        }
    }
}

fn no_attachment(number: u32, count: usize) -> String {
    match count {
        0 => "the message has no attachments".to_owned(),
        count => format!("there is no attachment {number}; the message has {count}"),
    }
}

fn rpc(code: Code) -> u8 {
    // gRPC codes are 0 to 16.
    u8::try_from(code as i32).map_or(FAILED, |code| RPC + code)
}

fn dial_hint(error: &DialError) -> Option<&'static str> {
    match error {
        DialError::Unreachable { .. } | DialError::Timeout { .. } => Some(
            "is the node running (bureau serve --config .../bureau.toml), and is `address` in the \
             desk profile its desk or admin face?",
        ),
        DialError::UnknownCa => Some(
            "`ca` in the desk profile must hold the authority that signed the node's certificate",
        ),
        DialError::Refused { .. } | DialError::Closed { .. } => Some(
            "a certificate of another authority or bureau, an expired or revoked one, or the link \
             face, which takes no desks",
        ),
        DialError::WrongPeer { .. } => {
            Some("`address` in the desk profile leads to the node of another bureau")
        }
        DialError::NotTls | DialError::TlsVersion | DialError::Http2 => {
            Some("`address` in the desk profile leads to something that is no node")
        }
        DialError::NotYetValid | DialError::CertificateExpired => {
            Some("are the clocks right? if so, the node needs a new certificate")
        }
        _ => None,
    }
}

fn refusal_hint(refusal: &ReceivedRefusal) -> Option<String> {
    let has = |reason: Reason| {
        refusal.is(reason) || refusal.violations.iter().any(|fault| fault.reason == reason.as_str())
    };
    let hint = if has(Reason::NotPermitted) {
        "the node's bureau.toml says what each desk may do: `permissions` of its [[client]]"
    } else if has(Reason::UnknownBureau) {
        "`bureau peers` lists the bureaus this node has links to; the roster says who is a member"
    } else if has(Reason::RequestIdReused) {
        "the same --request-id needs the same content and expiry; give --expires as a time, not a \
         duration"
    } else if has(Reason::NotUtf8) {
        "text must be UTF-8; for anything else give --media-type, such as application/pdf"
    } else if has(Reason::AttachmentQuarantined) {
        "bureau inbox release ID, as a desk with the permission \"release\""
    } else if has(Reason::AmbiguousId) {
        "give more characters of the id"
    } else if let Some(after) = refusal.retry_after {
        return Some(format!("try again in {} s", after.as_secs().max(1)));
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
#[path = "error/tests.rs"]
mod tests;
