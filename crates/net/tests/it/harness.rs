//! Authorities, certificates, faces and clients that misbehave, over real sockets.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bureau_net::{
    Acceptor, AcceptorCounters, AcceptorLimits, Connections, DialError, DialLimits, Dialer,
    Expectation, HandshakeRefusal, PeerChannel, PeerIdentity, Target, TlsFiles, TlsStore,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{Request, Status, service::interceptor::InterceptedService};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use x509_parser::time::ASN1Time;

pub(crate) const NETWORK: &str = "demo.example";
pub(crate) const DAY: i64 = 24 * 3600;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a certificate is made of; changed field by field from [`node`] or [`desk`].
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) uris: Vec<String>,
    /// Seconds from now.
    pub(crate) valid: (i64, i64),
    pub(crate) uses: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) serial: u64,
}

pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn node(bureau: &str) -> Wish {
    wish(format!("spiffe://{NETWORK}/bureau/{bureau}/node/n1"))
}

pub(crate) fn desk(bureau: &str) -> Wish {
    wish(format!("spiffe://{NETWORK}/bureau/{bureau}/desk/trafficking"))
}

pub(crate) fn wish(uri: String) -> Wish {
    Wish {
        uris: vec![uri],
        valid: (-DAY, DAY),
        uses: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        serial: 7,
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, wish: &Wish) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        for uri in &wish.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        params.not_before = from_now(wish.valid.0).to_datetime();
        params.not_after = from_now(wish.valid.1).to_datetime();
        params.extended_key_usages.clone_from(&wish.uses);
        params.serial_number = Some(SerialNumber::from(wish.serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: from_now(-60).to_datetime(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: from_now(-60).to_datetime(),
            next_update: from_now(DAY).to_datetime(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn from_now(seconds: i64) -> ASN1Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = i64::try_from(now).unwrap() + seconds;
    ASN1Time::from_timestamp(time).unwrap()
}

/// One party's files, and what is loaded of them.
pub(crate) struct Party {
    directory: TempDir,
    pub(crate) tls: Arc<TlsStore>,
    pub(crate) connections: Arc<Connections>,
}

impl Party {
    pub(crate) fn new(authority: &Authority, wish: &Wish) -> Self {
        Self::with(authority, &authority.issue(wish), None)
    }

    pub(crate) fn with(trusted: &Authority, own: &Issued, revoked: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory, "ca.pem", &trusted.pem);
        write(&directory, "own.pem", &own.certificate);
        write(&directory, "own.key", &own.key);
        if let Some(list) = revoked {
            write(&directory, "crl.pem", list);
        }
        let path = |name: &str| directory.path().join(name);
        let files = TlsFiles {
            certificates: path("own.pem"),
            key: path("own.key"),
            authorities: path("ca.pem"),
            revocations: revoked.iter().map(|_| path("crl.pem")).collect(),
        };
        let tls = Arc::new(TlsStore::open(files).unwrap());
        let connections = Connections::start(Arc::clone(&tls), Duration::from_millis(50));
        Self { directory, tls, connections }
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        write(&self.directory, name, content);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn replace(&self, own: &Issued) {
        self.write("own.pem", &own.certificate);
        self.write("own.key", &own.key);
    }

    pub(crate) fn dialer(&self) -> Dialer {
        let limits = DialLimits {
            connect_timeout: Duration::from_secs(3),
            verdict_timeout: Duration::from_secs(2),
        };
        Dialer::new(Arc::clone(&self.tls), Arc::clone(&self.connections), limits)
    }

    pub(crate) async fn call(&self, face: &Face, bureau: &str) -> Result<PeerChannel, DialError> {
        self.dialer().connect(&target(face.address, bureau)).await
    }
}

pub(crate) fn target(address: SocketAddr, bureau: &str) -> Target {
    Target {
        address: address.to_string(),
        network: NETWORK.parse().unwrap(),
        bureau: bureau.parse().unwrap(),
    }
}

fn write(directory: &TempDir, name: &str, content: &str) {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A running face with the health service, which notes whose requests it saw.
pub(crate) struct Face {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<AcceptorCounters>,
    pub(crate) seen: Arc<Mutex<Vec<Arc<PeerIdentity>>>>,
    pub(crate) party: Party,
    acceptor: Acceptor,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub(crate) fn links() -> Expectation {
    Expectation::nodes(NETWORK.parse().unwrap())
}

pub(crate) fn desks(bureau: &str) -> Expectation {
    Expectation::desks(NETWORK.parse().unwrap(), bureau.parse().unwrap())
}

impl Face {
    /// A link face of FR's node.
    pub(crate) async fn link(authority: &Authority) -> Self {
        let party = Party::new(authority, &node("FR"));
        Self::start(party, links(), AcceptorLimits::default()).await
    }

    pub(crate) async fn start(party: Party, taken: Expectation, limits: AcceptorLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = Arc::clone(&party.tls);
        let connections = Arc::clone(&party.connections);
        let (acceptor, incoming) =
            Acceptor::start(listener, "link", taken, limits, tls, connections).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let note = move |request: Request<()>| -> Result<Request<()>, Status> {
            notes.lock().unwrap().push(bureau_net::peer(&request).map_err(Status::from)?);
            Ok(request)
        };
        let (_reporter, health) = tonic_health::server::health_reporter();
        let service = InterceptedService::new(health, note);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = bureau_net::server::builder().add_service(service);
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serving.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        let (address, counters) = (acceptor.local_address(), acceptor.counters());
        Self { address, counters, seen, party, acceptor, stop, server }
    }

    /// Waits until a refusal has been counted so often, and nothing else was.
    pub(crate) async fn refused(&self, refusal: HandshakeRefusal, count: u64) {
        until(|| self.counters.refused(refusal) >= count, || self.counters.to_string()).await;
        for other in HandshakeRefusal::ALL {
            let expected = if *other == refusal { count } else { 0 };
            assert_eq!(self.counters.refused(*other), expected, "{other}: {}", self.counters);
        }
        assert!(self.seen.lock().unwrap().is_empty(), "a refused peer reached an rpc");
    }

    pub(crate) async fn end(self) {
        self.acceptor.shutdown().await;
        drop(self.stop);
        self.party.connections.shutdown().await;
        self.server.await.unwrap();
    }
}

/// One rpc over a channel.
pub(crate) async fn check(channel: &PeerChannel) -> Result<(), Status> {
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel.channel()).check(request).await.map(|_| ())
}

/// A stream over a channel, its first message taken.
pub(crate) async fn watch(
    channel: &PeerChannel,
) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let request = HealthCheckRequest { service: String::new() };
    let mut stream =
        HealthClient::new(channel.channel()).watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    stream
}

/// Waits for a condition; fails with what is true instead.
pub(crate) async fn until(condition: impl Fn() -> bool, told: impl Fn() -> String) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), waiting).await.is_err() {
        panic!("never came true: {}", told());
    }
}

/// A TCP connection from an address of this machine's own choice.
pub(crate) async fn tcp_from(last: u8, to: SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}
