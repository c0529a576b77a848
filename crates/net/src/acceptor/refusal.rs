//! Why a connection was not taken, by name.

use std::{fmt, io};

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

use crate::{
    identity::{IdentityFault, SpiffeId},
    tls::IdentityRefusal,
};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a connection was refused before any request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum HandshakeRefusal {
            $($(#[$doc])* $name,)*
        }

        impl HandshakeRefusal {
            /// Every refusal, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its stable name, in logs and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refusals! {
    /// The client showed no certificate.
    NoCertificate = "NO_CERTIFICATE",
    /// Its certificate comes from another authority.
    UnknownCa = "UNKNOWN_CA",
    /// Its certificate has expired.
    CertificateExpired = "CERTIFICATE_EXPIRED",
    /// Its certificate is not valid yet.
    NotYetValid = "NOT_YET_VALID",
    /// Its certificate is revoked.
    Revoked = "REVOKED",
    /// There are revocation lists, but none of its issuer.
    RevocationUnknown = "REVOCATION_UNKNOWN",
    /// Its certificate is not fit: wrong use, wrong encoding, weak algorithm, not its key.
    BadCertificate = "BAD_CERTIFICATE",
    /// Its certificate names nobody: no SPIFFE name, several, or of another form.
    UnknownIdentity = "UNKNOWN_IDENTITY",
    /// Its certificate is of another network.
    WrongNetwork = "WRONG_NETWORK",
    /// A desk at a link face, or a node at a desk face.
    WrongRole = "WRONG_ROLE",
    /// A desk of another bureau.
    WrongBureau = "WRONG_BUREAU",
    /// It does not speak TLS 1.3.
    TlsVersion = "TLS_VERSION",
    /// It does not speak TLS.
    NotTls = "NOT_TLS",
    /// It broke the TLS protocol, or has no algorithm in common.
    TlsFailed = "TLS_FAILED",
    /// It refused this side's certificate, by an alert.
    RefusedByPeer = "REFUSED_BY_PEER",
    /// It left in the middle.
    ClosedEarly = "CLOSED_EARLY",
    /// It took too long, or said nothing.
    Timeout = "TIMEOUT",
    /// Too many handshakes from its address are under way.
    TooManyHandshakes = "TOO_MANY_HANDSHAKES",
    /// Too many connections are open, in all or with its identity.
    TooManyConnections = "TOO_MANY_CONNECTIONS",
}

impl fmt::Display for HandshakeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A refusal with what is known about it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: HandshakeRefusal,
    /// Whom its certificate names, where an authority of ours vouches for it.
    pub(super) peer: Option<SpiffeId>,
    /// For the log: what TLS or the system said.
    pub(super) detail: String,
}

impl Refused {
    pub(super) fn new(refusal: HandshakeRefusal) -> Self {
        Self { refusal, peer: None, detail: String::new() }
    }

    pub(super) fn known(refusal: HandshakeRefusal, peer: SpiffeId) -> Self {
        Self { refusal, peer: Some(peer), detail: String::new() }
    }

    pub(super) fn unknown(fault: IdentityFault) -> Self {
        Self { detail: fault.to_string(), ..Self::new(HandshakeRefusal::UnknownIdentity) }
    }

    /// Reads what a handshake failed with.
    pub(super) fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let Some(tls) = tls else {
            return Self {
                detail: error.kind().to_string(),
                ..Self::new(HandshakeRefusal::ClosedEarly)
            };
        };
        if let Error::InvalidCertificate(CertificateError::Other(other)) = tls
            && let Some(refusal) = other.0.downcast_ref::<IdentityRefusal>()
        {
            return Self::of_identity(refusal);
        }
        Self { detail: tls.to_string(), ..Self::new(of_tls(tls)) }
    }

    fn of_identity(refusal: &IdentityRefusal) -> Self {
        match refusal {
            IdentityRefusal::Unknown(fault) => Self::unknown(fault.clone()),
            IdentityRefusal::Network { found } => {
                Self::known(HandshakeRefusal::WrongNetwork, found.clone())
            }
            IdentityRefusal::Role { found } => {
                Self::known(HandshakeRefusal::WrongRole, found.clone())
            }
            IdentityRefusal::Bureau { found } => {
                Self::known(HandshakeRefusal::WrongBureau, found.clone())
            }
        }
    }
}

fn of_tls(error: &Error) -> HandshakeRefusal {
    match error {
        Error::NoCertificatesPresented => HandshakeRefusal::NoCertificate,
        Error::InvalidCertificate(fault) => of_certificate(fault),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        ) => HandshakeRefusal::TlsVersion,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge,
        ) => HandshakeRefusal::NotTls,
        Error::AlertReceived(_) => HandshakeRefusal::RefusedByPeer,
        _ => HandshakeRefusal::TlsFailed,
    }
}

fn of_certificate(fault: &CertificateError) -> HandshakeRefusal {
    match fault {
        CertificateError::UnknownIssuer => HandshakeRefusal::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            HandshakeRefusal::CertificateExpired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            HandshakeRefusal::NotYetValid
        }
        CertificateError::Revoked => HandshakeRefusal::Revoked,
        CertificateError::UnknownRevocationStatus => HandshakeRefusal::RevocationUnknown,
        _ => HandshakeRefusal::BadCertificate,
    }
}
