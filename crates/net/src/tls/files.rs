//! Reading and checking the PEM files, all of them before anything is used.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    crypto::aws_lc_rs::sign::any_supported_type,
    server::{VerifierBuilderError, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject},
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};
use zeroize::Zeroize;

use super::{Expectation, Material, TlsFiles, TlsSummary, provider};
use crate::{
    identity::{IdentityFault, SpiffeId, Validity, system_time},
    secret::{SecretError, read_secret},
};

/// Largest file of certificates: some 4,000 of them.
const CERTIFICATES_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest revocation list: some 400,000 entries.
const REVOCATIONS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why the files were not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key's file.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than any such file.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It is not PEM, or holds nothing of the kind that belongs there.
    #[error("{}: no usable PEM section: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The own certificate names nobody.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityFault,
    },
    /// A certificate or key that TLS does not take, or that do not belong together.
    #[error("{}: {source}", path.display())]
    Rejected {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Authorities or revocation lists that cannot be used.
    #[error("{}: {source}", path.display())]
    Verifier {
        /// The file of authorities.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
    /// A revocation list that cannot be read.
    #[error("{}: not a revocation list", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
    },
    /// The own certificate does not come from the authorities beside it, or is revoked by the
    /// lists: every peer would refuse it.
    #[error("{} does not hold against {}: {source}", path.display(), authorities.display())]
    OwnChain {
        /// The file of the own certificate.
        path: PathBuf,
        /// The file of authorities.
        authorities: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A reload brought a certificate of somebody else.
    #[error("the new certificate is of {found}, this is {expected}: restart to change that")]
    OtherIdentity {
        /// Who this is.
        expected: Box<SpiffeId>,
        /// Whom the certificate names.
        found: Box<SpiffeId>,
    },
    /// A reload brought a certificate that is not valid now.
    #[error("{}: expired, or not yet valid", path.display())]
    OutsideValidity {
        /// The file.
        path: PathBuf,
    },
}

pub(super) fn load(files: &TlsFiles, generation: u64) -> Result<Material, TlsError> {
    let chain = certificates(&files.certificates)?;
    let named = |source| TlsError::Identity { path: files.certificates.clone(), source };
    let leaf = chain.first().ok_or(IdentityFault::NoCertificate).map_err(named)?;
    let id = SpiffeId::from_certificate(leaf).map_err(named)?;
    let validity = Validity::of_chain(&chain).map_err(named)?;
    let own = Arc::new(own_key(&files.key, chain)?);

    let roots = Arc::new(authorities(&files.authorities)?);
    let (lists, revocations_due) = revocations(&files.revocations)?;
    let chains = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .with_crls(lists)
        .build()
        .map_err(|source| TlsError::Verifier { path: files.authorities.clone(), source })?;

    let summary = TlsSummary { id, validity, revocations_due, generation };
    let material = Material { summary, own, roots, chains };
    check(&material, files)?;
    Ok(material)
}

/// What would fail at the first handshake fails here, where a person sees it. Time apart: the
/// chain is judged at the moment of its validity that is nearest to now.
fn check(material: &Material, files: &TlsFiles) -> Result<(), TlsError> {
    let rejected = |source| TlsError::Rejected { path: files.certificates.clone(), source };
    let Validity { not_before, not_after } = material.summary.validity;
    let time = SystemTime::now().min(not_after).max(not_before);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    material.verify_chain(&material.own.cert, UnixTime::since_unix_epoch(since)).map_err(
        |source| TlsError::OwnChain {
            path: files.certificates.clone(),
            authorities: files.authorities.clone(),
            source,
        },
    )?;
    let expectation = Expectation::nodes(material.summary.id.network.clone());
    material.server_config(expectation.clone()).map_err(rejected)?;
    material.client_config(expectation).map_err(rejected)?;
    Ok(())
}

fn own_key(path: &Path, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, TlsError> {
    let rejected = |source| TlsError::Rejected { path: path.to_owned(), source };
    let pem = read_secret(path)?;
    let mut der = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    let key = any_supported_type(&der);
    der.zeroize();
    let own = CertifiedKey::new(chain, key.map_err(rejected)?);
    own.keys_match().map_err(rejected)?;
    Ok(own)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Rejected { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

type Lists = (Vec<CertificateRevocationListDer<'static>>, Option<SystemTime>);

fn revocations(paths: &[PathBuf]) -> Result<Lists, TlsError> {
    let mut lists = Vec::new();
    let mut due = None;
    for path in paths {
        let pem = read(path, REVOCATIONS_BYTES_MAX)?;
        // A file without a list would mean that nothing is revoked: not believed.
        for list in sections::<CertificateRevocationListDer<'static>>(path, &pem)? {
            let unreadable = || TlsError::Revocations { path: path.clone() };
            let (_, parsed) =
                CertificateRevocationList::from_der(&list).map_err(|_| unreadable())?;
            let next = parsed.next_update().map(system_time);
            due = match (due, next) {
                (Some(due), Some(next)) => Some(std::cmp::min::<SystemTime>(due, next)),
                (due, next) => due.or(next),
            };
            lists.push(list);
        }
    }
    Ok((lists, due))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(path, &read(path, CERTIFICATES_BYTES_MAX)?)
}

/// All sections of one kind; at least one, and all readable.
fn sections<T: PemObject>(path: &Path, pem: &[u8]) -> Result<Vec<T>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), source };
    let found = T::pem_slice_iter(pem).collect::<Result<Vec<T>, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(failed(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Io { path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > limit {
        return Err(TlsError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}
