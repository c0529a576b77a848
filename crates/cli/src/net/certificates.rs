//! Certificates: ECDSA P-256, with the SPIFFE name that tells node from desk.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use bureau_core::{BureauCode, DeskName, NetworkName, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use super::InitError;

/// The authority of a network.
pub(super) struct Authority {
    network: NetworkName,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its private key, both PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(
        network: &NetworkName,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Self, InitError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&format!("{network} authority"), begin, end);
        // It signs certificates of nodes and desks, never another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { network: network.clone(), issuer: Issuer::new(params, key), certificate })
    }

    pub(super) fn pem(&self) -> &str {
        &self.certificate
    }

    /// Its private key, for a file of mode 0600.
    pub(super) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A node serves its faces and dials others.
    pub(super) fn node(
        &self,
        bureau: BureauCode,
        node: &str,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Identity, InitError> {
        let mut params = params(&format!("{bureau} node {node}"), begin, end);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // The names below are for clients that insist on checking host names.
        params.subject_alt_names = vec![
            self.name(bureau, "node", node)?,
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        self.issue(params)
    }

    /// A desk only calls.
    pub(super) fn desk(
        &self,
        bureau: BureauCode,
        desk: &DeskName,
        begin: Timestamp,
        end: Timestamp,
    ) -> Result<Identity, InitError> {
        let mut params = params(&format!("{bureau} desk {desk}"), begin, end);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![self.name(bureau, "desk", desk.as_str())?];
        self.issue(params)
    }

    fn name(&self, bureau: BureauCode, role: &str, name: &str) -> Result<SanType, InitError> {
        let uri = format!("spiffe://{}/bureau/{bureau}/{role}/{name}", self.network);
        Ok(SanType::URI(uri.try_into()?))
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity, InitError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

fn params(common_name: &str, begin: Timestamp, end: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let moment = |time: Timestamp| {
        let ms = u64::try_from(time.as_ms()).unwrap_or(0);
        date_time_ymd(1970, 1, 1) + Duration::from_secs(ms / 1000)
    };
    params.not_before = moment(begin);
    params.not_after = moment(end);
    params
}
