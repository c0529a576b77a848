//! Calls to other nodes: from a node (a link) and from a desk (the commands). The peer must prove
//! that it is a node of the expected bureau; host names prove nothing here. What went wrong is
//! told by name: tonic alone would say "transport error".

mod fault;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bureau_core::ids::{BureauCode, NetworkName};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, TlsStream, client};
use tonic::transport::{Channel, Endpoint};

pub use self::fault::DialError;
pub(crate) use self::fault::FaultCell;
use crate::{
    connections::{Bounds, Connections},
    identity::PeerIdentity,
    server::limit_endpoint,
    stream::TlsConnection,
    tls::{Expectation, TlsStore},
};

/// The name under which dialled connections stand in the register.
pub const DIALLED: &str = "dial";
/// More than any node has peers, with room for those that hang.
const BOUNDS: Bounds = Bounds { total: 4096, per_identity: 64 };
/// What is read ahead to learn whether the peer took the certificate: its settings frame.
const FIRST_BYTES: usize = 1024;

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `host:port`; an IPv6 address in brackets.
    pub address: String,
    /// The network it must be of.
    pub network: NetworkName,
    /// The bureau whose node it must be.
    pub bureau: BureauCode,
}

/// How long a call may take to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialLimits {
    /// Name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Within that: how long the peer's first bytes are waited for. In TLS 1.3 a client is ready
    /// before its certificate was judged; the first bytes, or an alert, tell. A server that waits
    /// for the client to speak costs this time, and is no error.
    pub verdict_timeout: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), verdict_timeout: Duration::from_secs(3) }
    }
}

/// Makes channels to nodes, with the process's own certificate.
#[derive(Debug, Clone)]
pub struct Dialer {
    tls: Arc<TlsStore>,
    connections: Arc<Connections>,
    limits: DialLimits,
}

/// A channel to a node. Connects again by itself when a call finds the connection gone.
#[derive(Debug, Clone)]
pub struct PeerChannel {
    channel: Channel,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    peer: Mutex<Option<Arc<PeerIdentity>>>,
    faults: FaultCell,
}

impl Dialer {
    /// With the certificates of the store; connections stand in the register.
    #[must_use]
    pub const fn new(
        tls: Arc<TlsStore>,
        connections: Arc<Connections>,
        limits: DialLimits,
    ) -> Self {
        Self { tls, connections, limits }
    }

    /// Connects, and returns when the peer has proven itself and has taken the own certificate.
    ///
    /// # Errors
    /// [`DialError`] by name.
    pub async fn connect(&self, target: &Target) -> Result<PeerChannel, DialError> {
        let invalid = || DialError::InvalidAddress { address: target.address.clone() };
        let uri: Uri = format!("http://{}", target.address).parse().map_err(|_| invalid())?;
        if uri.port_u16().is_none() || uri.path() != "/" || uri.query().is_some() {
            return Err(invalid());
        }
        let state = Arc::new(State { peer: Mutex::new(None), faults: FaultCell::default() });
        let connector = Connector {
            dialer: self.clone(),
            target: Arc::new(target.clone()),
            state: Arc::clone(&state),
        };
        let endpoint = limit_endpoint(Endpoint::from(uri));
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => Ok(PeerChannel { channel, state }),
            Err(_) => Err(state.faults.last().unwrap_or(DialError::Http2)),
        }
    }

    async fn dial(&self, target: &Target, state: &State) -> Result<TlsConnection, DialError> {
        let after = self.limits.connect_timeout;
        timeout(after, self.dial_unbounded(target, state))
            .await
            .unwrap_or(Err(DialError::Timeout { after }))
    }

    async fn dial_unbounded(
        &self,
        target: &Target,
        state: &State,
    ) -> Result<TlsConnection, DialError> {
        let unreachable = |error: std::io::Error| DialError::Unreachable { kind: error.kind() };
        let tcp = TcpStream::connect(&target.address).await.map_err(unreachable)?;
        let address = tcp.peer_addr().map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;

        let material = self.tls.material();
        let expectation = Expectation::node_of(target.network.clone(), target.bureau);
        let config = material.client_config(expectation).map_err(DialError::Tls)?;
        let faulty = |error| DialError::of_handshake(&error, target);
        let connector = TlsConnector::from(config);
        let mut tls = connector.connect(unused_name()?, tcp).await.map_err(faulty)?;
        let unread = self.verdict(&mut tls).await.map_err(faulty)?;

        let (_, session) = tls.get_ref();
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        let peer = Arc::new(PeerIdentity::from_chain(&chain, address)?);
        let generation = material.summary.generation;
        let registration = self
            .connections
            .register(DIALLED, Arc::clone(&peer), chain, generation, BOUNDS)
            .ok_or(DialError::TooManyConnections)?;
        *state.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        let connection = TlsConnection::new(TlsStream::from(tls), registration);
        Ok(connection.dialled(unread, state.faults.clone()))
    }

    /// The peer's first bytes, if they come in time.
    async fn verdict(&self, tls: &mut client::TlsStream<TcpStream>) -> std::io::Result<Vec<u8>> {
        let mut first = vec![0; FIRST_BYTES];
        match timeout(self.limits.verdict_timeout, tls.read(&mut first)).await {
            Ok(Ok(0)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(count)) => {
                first.truncate(count);
                Ok(first)
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Ok(Vec::new()),
        }
    }
}

impl PeerChannel {
    /// The channel, for a generated client.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Who answered last.
    #[must_use]
    pub fn peer(&self) -> Option<Arc<PeerIdentity>> {
        self.state.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What went wrong last, below the calls: why a call ended as "transport error".
    #[must_use]
    pub fn last_fault(&self) -> Option<DialError> {
        self.state.faults.last()
    }
}

/// What tonic asks for a connection, at first and when one is gone.
#[derive(Debug, Clone)]
struct Connector {
    dialer: Dialer,
    target: Arc<Target>,
    state: Arc<State>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsConnection>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { dialer, target, state } = self.clone();
        Box::pin(async move {
            let result = dialer.dial(&target, &state).await;
            match &result {
                Ok(_) => state.faults.clear(),
                Err(error) => state.faults.set(error.clone()),
            }
            result.map(TokioIo::new)
        })
    }
}

/// rustls wants a name; it is neither sent nor checked.
fn unused_name() -> Result<ServerName<'static>, DialError> {
    ServerName::try_from("node.bureau.invalid").map_err(|_| DialError::Http2)
}
