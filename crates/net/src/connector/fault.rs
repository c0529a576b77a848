//! What can go wrong between a call and its peer, by name.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{AlertDescription, CertificateError};

use super::Target;
use crate::{
    connections::CutCause,
    identity::{IdentityFault, SpiffeId},
    stream::Cut,
    tls::IdentityRefusal,
};

/// Why there is no connection, or none any more.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DialError {
    /// Not `host:port`.
    #[error("{address:?} is not host:port")]
    InvalidAddress {
        /// What was given.
        address: String,
    },
    /// No name, no route, nobody listening.
    #[error("unreachable: {kind}")]
    Unreachable {
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// It took too long.
    #[error("no connection within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The peer refuses the own certificate; its log says why.
    #[error("the peer refused this certificate ({alert:?}); its log says why")]
    Refused {
        /// The alert it sent.
        alert: AlertDescription,
    },
    /// The peer closed the connection without a word.
    #[error("the peer closed the connection ({kind})")]
    Closed {
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The peer's certificate is of an authority that is not ours.
    #[error("the peer's certificate comes from an unknown authority")]
    UnknownCa,
    /// The peer's certificate has expired.
    #[error("the peer's certificate has expired")]
    CertificateExpired,
    /// The peer's certificate is not valid yet; perhaps a clock is wrong.
    #[error("the peer's certificate is not valid yet")]
    NotYetValid,
    /// The peer's certificate is revoked.
    #[error("the peer's certificate is revoked")]
    Revoked,
    /// A revocation list is missing for an issuer of the peer's certificate.
    #[error("no revocation list says whether the peer's certificate is revoked")]
    RevocationUnknown,
    /// The peer's certificate is not fit for this.
    #[error("the peer's certificate is not fit: {0:?}")]
    BadCertificate(CertificateError),
    /// The peer is somebody else.
    #[error("wrong peer: expected a node of {expected}, found {found}")]
    WrongPeer {
        /// The bureau expected, with its network.
        expected: String,
        /// Whom its certificate names.
        found: SpiffeId,
    },
    /// The peer's certificate names nobody.
    #[error("the peer's certificate names nobody: {0}")]
    UnknownIdentity(#[from] IdentityFault),
    /// The peer does not speak TLS 1.3.
    #[error("the peer does not speak TLS 1.3")]
    TlsVersion,
    /// The peer does not speak TLS.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// Anything else in TLS.
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
    /// HTTP/2 did not begin.
    #[error("HTTP/2 did not begin")]
    Http2,
    /// Too many connections are open.
    #[error("too many connections are open")]
    TooManyConnections,
    /// This side ended it.
    #[error("cut by this side: {0}")]
    Cut(CutCause),
}

impl DialError {
    /// Its stable name, for logs, metrics and `bureau peers`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidAddress { .. } => "INVALID_ADDRESS",
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::Timeout { .. } => "TIMEOUT",
            Self::Refused { .. } => "REFUSED",
            Self::Closed { .. } => "CLOSED",
            Self::UnknownCa => "UNKNOWN_CA",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::NotYetValid => "NOT_YET_VALID",
            Self::Revoked => "REVOKED",
            Self::RevocationUnknown => "REVOCATION_UNKNOWN",
            Self::BadCertificate(_) => "BAD_CERTIFICATE",
            Self::WrongPeer { .. } => "WRONG_PEER",
            Self::UnknownIdentity(_) => "UNKNOWN_IDENTITY",
            Self::TlsVersion => "TLS_VERSION",
            Self::NotTls => "NOT_TLS",
            Self::Tls(_) => "TLS",
            Self::Http2 => "HTTP2",
            Self::TooManyConnections => "TOO_MANY_CONNECTIONS",
            Self::Cut(_) => "CUT",
        }
    }

    /// Reads what TLS said while connecting.
    pub(super) fn of_handshake(error: &io::Error, target: &Target) -> Self {
        let Some(tls) = inner::<rustls::Error>(error) else {
            return Self::Closed { kind: error.kind() };
        };
        match tls {
            rustls::Error::InvalidCertificate(fault) => Self::of_certificate(fault, target),
            other => Self::of_tls(other),
        }
    }

    fn of_certificate(fault: &CertificateError, target: &Target) -> Self {
        match fault {
            CertificateError::UnknownIssuer => Self::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(IdentityRefusal::Unknown(fault)) => Self::UnknownIdentity(fault.clone()),
                Some(
                    IdentityRefusal::Network { found }
                    | IdentityRefusal::Role { found }
                    | IdentityRefusal::Bureau { found },
                ) => Self::WrongPeer {
                    expected: format!("{} in {}", target.bureau, target.network),
                    found: found.clone(),
                },
                None => Self::BadCertificate(fault.clone()),
            },
            _ => Self::BadCertificate(fault.clone()),
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(_) => Self::TlsVersion,
            rustls::Error::AlertReceived(alert) => Self::Refused { alert: *alert },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Tls(other.clone()),
        }
    }

    /// Reads why an open connection ended.
    fn of_stream(error: &io::Error) -> Self {
        if let Some(Cut(cause)) = inner::<Cut>(error) {
            return Self::Cut(*cause);
        }
        inner::<rustls::Error>(error).map_or(Self::Closed { kind: error.kind() }, Self::of_tls)
    }
}

/// The last fault of a channel, shared by its connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultCell(Arc<Mutex<Option<DialError>>>);

impl FaultCell {
    pub(crate) fn record(&self, error: &io::Error) {
        self.set(DialError::of_stream(error));
    }

    pub(super) fn set(&self, error: DialError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn last(&self) -> Option<DialError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn inner<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    error.get_ref()?.downcast_ref()
}
