//! Connections that come in: accept, bound, handshake, hand over. Each handshake has its own task
//! and its time, so that a silent peer delays nobody; what is refused is told by name, here, for
//! in TLS 1.3 a client often cannot know.

mod refusal;
mod report;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsStream, server};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{refusal::HandshakeRefusal, report::AcceptorCounters};
use self::{refusal::Refused, report::Reporter};
use crate::{
    connections::{Bounds, Connections},
    identity::PeerIdentity,
    stream::TlsConnection,
    tls::{Expectation, Material, TlsStore},
};

/// Verified connections that wait for HTTP/2 to take them.
const QUEUE: usize = 16;
/// How long a refused peer may read its alert before the socket goes.
const LINGER: Duration = Duration::from_millis(500);
/// What is read and thrown away meanwhile, so that no reset overtakes the alert.
const LINGER_BYTES_MAX: u64 = 64 * 1024;
/// First and longest pause after the system could not give a socket.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often refusals that were only counted are told.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

/// How much a face takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptorLimits {
    /// Handshakes at once; more wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Of those from one address (IPv6: one /64); more are refused.
    pub handshakes_per_address_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Verified connections at once.
    pub connections_max: usize,
    /// Of those with one identity.
    pub connections_per_identity_max: usize,
}

impl Default for AcceptorLimits {
    fn default() -> Self {
        Self {
            handshakes_max: 256,
            handshakes_per_address_max: 32,
            handshake_timeout: Duration::from_secs(5),
            connections_max: 1024,
            connections_per_identity_max: 256,
        }
    }
}

/// The accepting side of one face. Ends when dropped; [`Self::shutdown`] waits for it.
#[derive(Debug)]
pub struct Acceptor {
    address: SocketAddr,
    counters: Arc<AcceptorCounters>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Verified connections, for `serve_with_incoming_shutdown`. Ends with its [`Acceptor`].
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<TlsConnection>,
}

impl Acceptor {
    /// Begins to accept on a listener that the caller has bound. Must be called within a runtime.
    ///
    /// # Errors
    /// Where the listener has no address, or TLS refuses its configuration.
    pub fn start(
        listener: TcpListener,
        face: &'static str,
        expectation: Expectation,
        limits: AcceptorLimits,
        tls: Arc<TlsStore>,
        connections: Arc<Connections>,
    ) -> io::Result<(Self, Incoming)> {
        let address = listener.local_addr()?;
        let config = FaceConfig::new(&tls, expectation).map_err(io::Error::other)?;
        let counters = Arc::new(AcceptorCounters::default());
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            face,
            limits,
            connections,
            sender,
            addresses: Addresses::default(),
            reporter: Reporter::new(face, Arc::clone(&counters)),
            stop: stop.clone(),
        });
        let handshakes = tasks.clone();
        tasks.spawn(summaries(Arc::clone(&shared)));
        tasks.spawn(accept(listener, tls, config, shared, handshakes));
        tasks.close();
        Ok((Self { address, counters, stop, tasks }, Incoming { connections: receiver }))
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What it has counted; grows while it runs.
    #[must_use]
    pub fn counters(&self) -> Arc<AcceptorCounters> {
        Arc::clone(&self.counters)
    }

    /// Accepts no more, drops what is in a handshake, and waits until all its tasks have ended.
    /// Verified connections go on; they belong to [`Connections`] and to whoever serves them.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stream for Incoming {
    type Item = io::Result<TlsConnection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

/// What all tasks of one acceptor use.
#[derive(Debug)]
struct Shared {
    face: &'static str,
    limits: AcceptorLimits,
    connections: Arc<Connections>,
    sender: mpsc::Sender<TlsConnection>,
    addresses: Addresses,
    reporter: Reporter,
    stop: CancellationToken,
}

/// The face's TLS configuration, made anew when the files were loaded anew.
#[derive(Debug)]
struct FaceConfig {
    expectation: Expectation,
    material: Arc<Material>,
    config: Arc<ServerConfig>,
}

impl FaceConfig {
    fn new(tls: &TlsStore, expectation: Expectation) -> Result<Self, rustls::Error> {
        let material = tls.material();
        let config = material.server_config(expectation.clone())?;
        Ok(Self { expectation, material, config })
    }

    /// Each load was tried as a configuration before it was taken: a failure here cannot be, and
    /// would keep the configuration that works.
    fn refresh(&mut self, tls: &TlsStore) -> Result<(), rustls::Error> {
        let material = tls.material();
        if !Arc::ptr_eq(&material, &self.material) {
            self.config = material.server_config(self.expectation.clone())?;
            self.material = material;
        }
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    tls: Arc<TlsStore>,
    mut config: FaceConfig,
    shared: Arc<Shared>,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    let mut pause = ACCEPT_PAUSE.0;
    let stop = shared.stop.clone();
    loop {
        // The permit comes first: what cannot be served yet waits in the kernel, at no cost here.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            // Ending goes first, or a flood could keep this loop alive.
            biased;
            () = stop.cancelled() => return,
            next = next => next,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((tcp, address)) => {
                pause = ACCEPT_PAUSE.0;
                shared.reporter.accepted();
                if let Err(error) = config.refresh(&tls) {
                    shared.reporter.config_failed(&error);
                }
                begin(&shared, &tasks, &config, permit, tcp, address);
            }
            Err(error) if of_one_connection(&error) => shared.reporter.accept_failed(&error),
            Err(error) => {
                // No descriptor or no memory: trying at once would only spin.
                shared.reporter.accept_failed(&error);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE.1),
                }
            }
        }
    }
}

/// The connection died between the kernel and us; the listener is well.
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn begin(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    config: &FaceConfig,
    permit: OwnedSemaphorePermit,
    tcp: TcpStream,
    address: SocketAddr,
) {
    let most = shared.limits.handshakes_per_address_max;
    if !shared.addresses.enter(address.ip(), most) {
        let refused = Refused::new(HandshakeRefusal::TooManyHandshakes);
        return shared.reporter.refused(&refused, address);
    }
    let place = Place { shared: Arc::clone(shared), address, _permit: permit };
    let acceptor = TlsAcceptor::from(Arc::clone(&config.config));
    let generation = config.material.summary.generation;
    tasks.spawn(async move {
        let shared = Arc::clone(&place.shared);
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => {}
            () = admit(place, acceptor, generation, tcp) => {}
        }
    });
}

/// One connection, from its first byte until HTTP/2 has it.
async fn admit(place: Place, acceptor: TlsAcceptor, generation: u64, tcp: TcpStream) {
    let (shared, address) = (Arc::clone(&place.shared), place.address);
    match handshake(&shared, &acceptor, generation, tcp, address).await {
        Ok(connection) => {
            shared.reporter.established();
            // Fails only where the face ends.
            if shared.sender.send(connection).await.is_err() {
                tracing::debug!(event = "connection_dropped", face = shared.face);
            }
        }
        Err((refused, tcp)) => {
            shared.reporter.refused(&refused, address);
            if let Some(tcp) = tcp {
                linger(tcp).await;
            }
        }
    }
}

/// Gives the socket back where the peer should still be able to read why.
async fn handshake(
    shared: &Shared,
    acceptor: &TlsAcceptor,
    generation: u64,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<TlsConnection, (Refused, Option<TcpStream>)> {
    tcp.set_nodelay(true).map_err(|error| (Refused::of(&error), None))?;
    let limit = shared.limits.handshake_timeout;
    match timeout(limit, acceptor.accept(tcp).into_fallible()).await {
        Ok(Ok(tls)) => {
            register(shared, generation, tls, address).map_err(|refused| (refused, None))
        }
        Ok(Err((error, tcp))) => Err((Refused::of(&error), Some(tcp))),
        Err(_elapsed) => Err((Refused::new(HandshakeRefusal::Timeout), None)),
    }
}

fn register(
    shared: &Shared,
    generation: u64,
    tls: server::TlsStream<TcpStream>,
    address: SocketAddr,
) -> Result<TlsConnection, Refused> {
    let (_, session) = tls.get_ref();
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let peer = PeerIdentity::from_chain(&chain, address).map_err(Refused::unknown)?;
    let bounds = Bounds {
        total: shared.limits.connections_max,
        per_identity: shared.limits.connections_per_identity_max,
    };
    let id = peer.id.clone();
    let registration = shared
        .connections
        .register(shared.face, Arc::new(peer), chain, generation, bounds)
        .ok_or_else(|| Refused::known(HandshakeRefusal::TooManyConnections, id))?;
    Ok(TlsConnection::new(TlsStream::from(tls), registration))
}

/// A socket closed with unread bytes sends a reset, which may overtake the alert.
async fn linger(mut tcp: TcpStream) {
    let drained = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The peer is refused already; whether it read the alert changes nothing here.
    let _ = timeout(LINGER, drained).await;
}

async fn summaries(shared: Arc<Shared>) {
    let mut ticker = tokio::time::interval(SUMMARY_INTERVAL);
    while shared.stop.run_until_cancelled(ticker.tick()).await.is_some() {
        shared.reporter.summary();
    }
    shared.reporter.summary();
}

/// A handshake's share of both bounds; given back when dropped.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    address: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.addresses.leave(self.address.ip());
    }
}

/// Handshakes under way, by address. Holds no more entries than there are permits.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn enter(&self, address: IpAddr, most: usize) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network_of(address)).or_insert(0);
        let enters = *count < most;
        *count += usize::from(enters);
        enters
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network_of(address);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// Whoever has one IPv6 address has the /64 around it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
