//! The two verifiers: webpki judges chain, time, use and revocation; then the SPIFFE name decides.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Expectation;
use crate::identity::{IdentityFault, SpiffeId};

/// Why a certificate of a good chain is not the one expected. Travels through rustls inside
/// [`CertificateError::Other`]; the peer's alert is `certificate_unknown`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityRefusal {
    /// It names nobody.
    #[error("{0}")]
    Unknown(#[from] IdentityFault),
    /// It is of another network.
    #[error("{found} is of another network")]
    Network { found: SpiffeId },
    /// A desk where a node is expected, or a node where a desk is.
    #[error("{found} is not what belongs here by its role")]
    Role { found: SpiffeId },
    /// It is of another bureau.
    #[error("{found} is of another bureau")]
    Bureau { found: SpiffeId },
}

/// Verifies who comes to a face.
#[derive(Debug)]
pub(super) struct FaceVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    expectation: Expectation,
}

/// Verifies whom a call reached. A node's certificate serves both ways (either side dials), so it
/// is judged as server and as client; the latter brings the revocation lists in.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    roots: Arc<RootCertStore>,
    chains: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
    expectation: Expectation,
}

impl FaceVerifier {
    pub(super) fn new(chains: Arc<dyn ClientCertVerifier>, expectation: Expectation) -> Self {
        Self { chains, expectation }
    }
}

impl NodeVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        chains: Arc<dyn ClientCertVerifier>,
        provider: Arc<CryptoProvider>,
        expectation: Expectation,
    ) -> Self {
        Self { roots, chains, provider, expectation }
    }
}

/// Judges chain, time, use as a client, and revocation.
pub(super) fn chain(
    chains: &dyn ClientCertVerifier,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    chains.verify_client_cert(leaf, intermediates, now).map(|_| ()).map_err(issuer_fault)
}

/// A chain that ends in another authority of the same name fails by its signature; what it means
/// is that the authority is not ours.
fn issuer_fault(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        }
        other => other,
    }
}

fn identity(expectation: &Expectation, leaf: &CertificateDer<'_>) -> Result<(), Error> {
    let judge = || {
        let found = SpiffeId::from_certificate(leaf)?;
        if found.network != expectation.network {
            return Err(IdentityRefusal::Network { found });
        }
        if found.role.kind() != expectation.role {
            return Err(IdentityRefusal::Role { found });
        }
        if expectation.bureau.is_some_and(|bureau| bureau != found.bureau) {
            return Err(IdentityRefusal::Bureau { found });
        }
        Ok(())
    };
    judge().map_err(|refusal: IdentityRefusal| {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    })
}

impl ClientCertVerifier for FaceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        chain(self.chains.as_ref(), end_entity, intermediates, now)?;
        identity(&self.expectation, end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )
        .map_err(issuer_fault)?;
        chain(self.chains.as_ref(), end_entity, intermediates, now)?;
        identity(&self.expectation, end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
