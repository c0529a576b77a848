//! Connections below every client: any certificate, any face, any first bytes.

use std::{path::Path, sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Network;

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Certificate {
    /// One that `net init` wrote: `node` or `desk-desk`.
    pub fn of(network: &Network, bureau: &str, name: &str) -> Self {
        let file = |ending: &str| network.home(bureau).join(format!("tls/{name}.{ending}"));
        let read = |ending: &str| std::fs::read_to_string(file(ending)).unwrap();
        Self { chain: read("pem"), key: read("key") }
    }
}

/// An authority that issues what a test asks for.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The network's own.
    pub fn of(network: &Network) -> Self {
        let root = network.dir.path().join("net/root");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap() }
    }

    /// Another one of the same name: what only looks like the network's.
    pub fn foreign(network: &Network) -> Self {
        let root = network.dir.path().join("net/root/ca.pem");
        let certificate = std::fs::read_to_string(root).unwrap();
        let key = KeyPair::generate().unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&certificate, key).unwrap() }
    }

    /// A certificate for the names in these URIs, valid for the years given.
    pub fn issue(&self, names: &[&str], years: std::ops::Range<i32>) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "made by a test");
        let uri = |name: &&str| SanType::URI((*name).try_into().unwrap());
        params.subject_alt_names = names.iter().map(uri).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Certificate { chain, key: key.serialize_pem() }
    }
}

/// Where a bureau's face listens: `desk`, `link` or `admin`.
pub fn face(network: &Network, bureau: &str, face: &str) -> String {
    let text = std::fs::read_to_string(network.config(bureau)).unwrap();
    let config: toml::Table = text.parse().unwrap();
    config[face]["listen"].as_str().unwrap().to_owned()
}

/// Shakes hands, and gives the stream where the node has admitted it.
///
/// In TLS 1.3 a client may believe that it is connected before the node has looked at its
/// certificate; the node's first bytes of HTTP/2 say that it is.
pub async fn connect(
    network: &Network,
    address: &str,
    certificate: Option<&Certificate>,
) -> Option<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(config(&network.home("FR"), certificate)));
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, tcp).await.ok()?;
    // The client's preface and its empty SETTINGS.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.ok()?;
    // A frame's head of 9 bytes: the node's SETTINGS.
    let mut head = [0; 9];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut head)).await;
    read.expect("the node neither admits nor refuses").ok()?;
    Some(stream)
}

fn config(home: &Path, certificate: Option<&Certificate>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(home.join("tls/ca.pem")).unwrap() {
        roots.add(authority.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(Certificate { chain, key }) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap);
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Sends bytes to a face without TLS, and gives all it answers until it closes.
pub async fn plain(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer)).await;
    // A reset is an end, too.
    drop(read.expect("the node keeps the connection open"));
    answer
}

/// A ClientHello of TLS 1.2: an ECDHE suite, a curve, signatures, no supported versions.
pub fn client_hello_1_2() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // secp256r1
        0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04, // ECDSA, RSA-PSS
    ];
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    hello.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00, 0x00]);
    hello.push(u8::try_from(extensions.len()).unwrap());
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0x00, length + 4, 0x01, 0x00, 0x00, length];
    record.extend(hello);
    record
}

/// Writes a file that only its owner may read.
pub fn secret(path: &Path, content: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

/// Opens a link, and gives the reason that it is refused with.
pub async fn open_link(channel: tonic::transport::Channel) -> String {
    use bureau_proto::link::v1::link_service_client::LinkServiceClient;
    let opened = LinkServiceClient::new(channel).open(tokio_stream::pending()).await;
    let status = opened.expect_err("the link was opened");
    bureau_net::Refusal::from_status(&status).reason.unwrap_or_else(|| status.to_string())
}
