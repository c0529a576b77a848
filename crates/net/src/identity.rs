//! Who is at the other end of a connection, read from its certificate, strictly: one SPIFFE URI of
//! one of two forms, and nothing else counts (no common name, no DNS name). What a peer may do is
//! decided elsewhere.

use std::{
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bureau_core::{
    Reason,
    ids::{BureauCode, DeskName, InvalidName, NetworkName, NodeName},
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{extensions::GeneralName, prelude::X509Certificate, time::ASN1Time};

use crate::status::Refusal;

/// What a certificate names: `spiffe://NETWORK/bureau/FR/node/NAME` or `…/desk/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The network: the SPIFFE trust domain.
    pub network: NetworkName,
    /// The bureau it belongs to.
    pub bureau: BureauCode,
    /// Node or desk, with its name.
    pub role: Role,
}

/// What a certificate's holder is to its bureau.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// A running node.
    Node(NodeName),
    /// A client of the bureau's node.
    Desk(DeskName),
}

/// [`Role`] without the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// A running node.
    Node,
    /// A client of the bureau's node.
    Desk,
}

/// A peer whose certificate was verified, on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// What its certificate names.
    pub id: SpiffeId,
    /// Which certificate it showed.
    pub fingerprint: Fingerprint,
    /// When the first certificate of the chain it showed expires; the connection ends with it.
    pub not_after: SystemTime,
    /// Where it is.
    pub address: SocketAddr,
}

/// SHA-256 of a certificate; shown as its first 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    /// The bytes are no X.509 certificate.
    #[error("not an X.509 certificate")]
    NotACertificate,
    /// No certificate was shown.
    #[error("no certificate")]
    NoCertificate,
    /// There is no URI among the subject alternative names, or there is more than one.
    #[error("the certificate has {count} URI names; it must have exactly one")]
    UriCount {
        /// How many there are.
        count: usize,
    },
    /// The URI is not of one of the two forms.
    #[error("not of the form spiffe://NETWORK/bureau/CODE/node/NAME or .../desk/NAME")]
    Form,
    /// A part of the URI is outside its alphabet.
    #[error("{0}")]
    Name(#[from] InvalidName),
}

/// The verified peer of a request.
///
/// # Errors
/// [`Reason::Unauthenticated`] where the connection did not come through this crate's acceptor.
pub fn peer<T>(request: &tonic::Request<T>) -> Result<Arc<PeerIdentity>, Refusal> {
    request.extensions().get::<Arc<PeerIdentity>>().cloned().ok_or_else(|| {
        Refusal::new(Reason::Unauthenticated, "no client certificate came with this connection")
    })
}

impl PeerIdentity {
    /// Reads the chain that a peer showed. Does not verify it: TLS did.
    ///
    /// # Errors
    /// [`IdentityFault`] where the first certificate names nobody or one cannot be read.
    pub fn from_chain(
        chain: &[CertificateDer<'_>],
        address: SocketAddr,
    ) -> Result<Self, IdentityFault> {
        let leaf = chain.first().ok_or(IdentityFault::NoCertificate)?;
        Ok(Self {
            id: SpiffeId::from_certificate(leaf)?,
            fingerprint: Fingerprint::of(leaf),
            not_after: Validity::of_chain(chain)?.not_after,
            address,
        })
    }

    /// The peer's bureau.
    #[must_use]
    pub const fn bureau(&self) -> BureauCode {
        self.id.bureau
    }

    /// The desk's name, if it is one.
    #[must_use]
    pub const fn desk(&self) -> Option<&DeskName> {
        match &self.id.role {
            Role::Desk(name) => Some(name),
            Role::Node(_) => None,
        }
    }

    /// The node's name, if it is one.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeName> {
        match &self.id.role {
            Role::Node(name) => Some(name),
            Role::Desk(_) => None,
        }
    }
}

impl SpiffeId {
    /// Reads the one URI name of a certificate.
    ///
    /// # Errors
    /// [`IdentityFault`] where there is not exactly one, of one of the two forms.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityFault> {
        let certificate = parse(certificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityFault::NotACertificate)?
            .ok_or(IdentityFault::UriCount { count: 0 })?;
        let uris: Vec<&str> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse(),
            _ => Err(IdentityFault::UriCount { count: uris.len() }),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityFault;

    /// Splits and compares; decodes nothing. The alphabets of the parts leave no room for
    /// percent-encoding, ports, queries, fragments, dots or empty segments.
    fn from_str(uri: &str) -> Result<Self, IdentityFault> {
        let path = uri.strip_prefix("spiffe://").ok_or(IdentityFault::Form)?;
        let mut segments = path.split('/');
        let mut next = || segments.next().ok_or(IdentityFault::Form);
        let (network, word, code, role, name) = (next()?, next()?, next()?, next()?, next()?);
        if word != "bureau" || segments.next().is_some() {
            return Err(IdentityFault::Form);
        }
        Ok(Self {
            network: network.parse()?,
            bureau: code.parse()?,
            role: match role {
                "node" => Role::Node(name.parse()?),
                "desk" => Role::Desk(name.parse()?),
                _ => return Err(IdentityFault::Form),
            },
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.role {
            Role::Node(name) => name.as_str(),
            Role::Desk(name) => name.as_str(),
        };
        let Self { network, bureau, role } = self;
        write!(f, "spiffe://{network}/bureau/{bureau}/{}/{name}", role.kind())
    }
}

impl Role {
    /// The role without the name.
    #[must_use]
    pub const fn kind(&self) -> RoleKind {
        match self {
            Self::Node(_) => RoleKind::Node,
            Self::Desk(_) => RoleKind::Desk,
        }
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Desk => "desk",
        })
    }
}

impl fmt::Display for PeerIdentity {
    /// As a log line names it: `FR/node/n1` or `FR/desk/trafficking`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bureau = self.id.bureau;
        match &self.id.role {
            Role::Node(name) => write!(f, "{bureau}/node/{name}"),
            Role::Desk(name) => write!(f, "{bureau}/desk/{name}"),
        }
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When all certificates of a chain are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when, inclusive.
    pub not_before: SystemTime,
    /// Until when, inclusive.
    pub not_after: SystemTime,
}

impl Validity {
    /// The time in which every certificate of the chain is valid.
    ///
    /// # Errors
    /// [`IdentityFault`] where one cannot be read, or there is none.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Self, IdentityFault> {
        let mut whole: Option<Self> = None;
        for certificate in chain {
            let certificate = parse(certificate)?;
            let not_before = system_time(certificate.validity().not_before);
            let not_after = system_time(certificate.validity().not_after);
            whole = Some(whole.map_or(Self { not_before, not_after }, |whole| Self {
                not_before: whole.not_before.max(not_before),
                not_after: whole.not_after.min(not_after),
            }));
        }
        whole.ok_or(IdentityFault::NoCertificate)
    }

    /// Whether the chain is valid at a time.
    #[must_use]
    pub fn contains(&self, time: SystemTime) -> bool {
        self.not_before <= time && time <= self.not_after
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityFault> {
    match x509_parser::parse_x509_certificate(certificate.as_ref()) {
        Ok(([], certificate)) => Ok(certificate),
        // Bytes after the certificate: what another parser would read, this one would not.
        Ok(_) | Err(_) => Err(IdentityFault::NotACertificate),
    }
}

/// Times before 1970 count as 1970: nothing valid is that old.
pub(crate) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
#[path = "identity/tests.rs"]
mod tests;
