//! The faces of a running node: listeners, acceptors, servers, health.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bureau_net::{
    Acceptor, AcceptorLimits, Connections, Expectation, Incoming, TlsStore,
    server::{self, MESSAGE_BYTES_MAX},
};
use bureau_proto::{
    DESCRIPTORS, admin::v1::admin_service_server::AdminServiceServer,
    desk::v1::desk_service_server::DeskServiceServer,
    link::v1::link_service_server::LinkServiceServer,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Router;
use tonic_health::server::HealthReporter;

use super::{Engine, ServeError};
use crate::{
    Config,
    face::{access::Access, admin::AdminFace, desk::DeskFace, gate::Gate, link::LinkFace},
    telemetry::metrics::{self, Metrics},
};

type DeskGate = Gate<DeskServiceServer<DeskFace>>;
type LinkGate = Gate<LinkServiceServer<LinkFace>>;
type AdminGate = Gate<AdminServiceServer<AdminFace>>;

/// Sockets that listen, before anything else is begun.
pub(super) struct Listeners {
    desk: TcpListener,
    link: TcpListener,
    admin: TcpListener,
    metrics: Option<TcpListener>,
}

/// Where the faces are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) desk: SocketAddr,
    pub(super) link: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) metrics: Option<SocketAddr>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> Result<Self, ServeError> {
        Ok(Self {
            desk: bind("desk", config.desk.listen).await?,
            link: bind("link", config.link.listen).await?,
            admin: bind("admin", config.admin.listen).await?,
            metrics: match &config.metrics {
                Some(metrics) => Some(bind("metrics", metrics.listen).await?),
                None => None,
            },
        })
    }
}

async fn bind(face: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { face, address, source })
}

/// The faces while they run.
pub(super) struct Faces {
    pub(super) addresses: Addresses,
    pub(super) access: Arc<Access>,
    desk: DeskGate,
    link: LinkGate,
    admin: AdminGate,
    health: HealthReporter,
    acceptors: Vec<Acceptor>,
    servers: Vec<JoinHandle<()>>,
}

impl Faces {
    /// Starts to listen. Until [`Self::open`] every call is answered STARTING.
    pub(super) async fn start(
        config: &Config,
        listeners: Listeners,
        tls: &Arc<TlsStore>,
        connections: &Arc<Connections>,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, ServeError> {
        let (desk, link, admin) = (DeskGate::default(), LinkGate::default(), AdminGate::default());
        let (health, health_service) = tonic_health::server::health_reporter();
        // Until the engine is there; the reporter itself begins with SERVING.
        not_serving(&health).await;
        let desks = Expectation::desks(config.network.clone(), config.bureau);
        let nodes = Expectation::nodes(config.network.clone());
        let mut starter = Starter {
            config,
            tls,
            connections,
            metrics,
            stop,
            acceptors: Vec::new(),
            servers: Vec::new(),
        };

        let streams = config.limits.streams_per_connection;
        let limited = || server::builder().max_concurrent_streams(streams);
        let (v1, v1alpha) = reflection("bureau.desk.v1.DeskService")?;
        let router = limited()
            .add_service(health_service.clone())
            .add_service(v1)
            .add_service(v1alpha)
            .add_service(desk.clone());
        let desk_address = starter.serve("desk", listeners.desk, desks.clone(), router)?;

        let router = limited().add_service(link.clone());
        let link_address = starter.serve("link", listeners.link, nodes, router)?;

        let (v1, v1alpha) = reflection("bureau.admin.v1.AdminService")?;
        let router = limited()
            .add_service(health_service)
            .add_service(v1)
            .add_service(v1alpha)
            .add_service(admin.clone());
        let admin_address = starter.serve("admin", listeners.admin, desks, router)?;

        let metrics_address = match listeners.metrics {
            Some(listener) => {
                let address =
                    listener.local_addr().map_err(|source| bind_error("metrics", source))?;
                let serving = metrics::serve(listener, metrics.clone(), stop.clone());
                starter.servers.push(tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        tracing::error!(event = "task_failed", task = "metrics", error = %error);
                    }
                }));
                Some(address)
            }
            None => None,
        };
        let Starter { acceptors, servers, .. } = starter;
        let addresses = Addresses {
            desk: desk_address,
            link: link_address,
            admin: admin_address,
            metrics: metrics_address,
        };
        let access = Arc::new(Access::new(&config.clients));
        Ok(Self { addresses, access, desk, link, admin, health, acceptors, servers })
    }

    /// Puts the engine behind the faces and says so.
    pub(super) async fn open(
        &self,
        engine: &Arc<Engine>,
        tls: &Arc<TlsStore>,
        sessions: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let access = || Arc::clone(&self.access);
        let desk = DeskFace::new(Arc::clone(engine), access(), stop.clone());
        self.desk.open(
            DeskServiceServer::new(desk)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        );
        let link = LinkFace::new(Arc::clone(engine), sessions.clone(), stop.clone());
        self.link.open(
            LinkServiceServer::new(link)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        );
        let admin = AdminFace::new(Arc::clone(engine), access(), Arc::clone(tls));
        self.admin.open(AdminServiceServer::new(admin));
        self.health.set_serving::<DeskGate>().await;
        self.health.set_serving::<AdminGate>().await;
        self.health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    }

    /// Says that the node takes no more.
    pub(super) async fn closing(&self) {
        not_serving(&self.health).await;
    }

    /// Waits for the servers to end, after `stop` was cancelled; cuts what has not by then.
    pub(super) async fn stop(self, grace: Duration) {
        for acceptor in self.acceptors {
            drop(timeout(grace, acceptor.shutdown()).await);
        }
        for mut server in self.servers {
            if timeout(grace, &mut server).await.is_err() {
                server.abort();
            }
        }
    }
}

async fn not_serving(health: &HealthReporter) {
    health.set_not_serving::<DeskGate>().await;
    health.set_not_serving::<AdminGate>().await;
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
}

fn bind_error(face: &'static str, source: std::io::Error) -> ServeError {
    ServeError::Bind { face, address: SocketAddr::from(([0, 0, 0, 0], 0)), source }
}

struct Starter<'a> {
    config: &'a Config,
    tls: &'a Arc<TlsStore>,
    connections: &'a Arc<Connections>,
    metrics: &'a Metrics,
    stop: &'a CancellationToken,
    acceptors: Vec<Acceptor>,
    servers: Vec<JoinHandle<()>>,
}

impl Starter<'_> {
    fn serve(
        &mut self,
        face: &'static str,
        listener: TcpListener,
        expectation: Expectation,
        router: Router,
    ) -> Result<SocketAddr, ServeError> {
        let limits = AcceptorLimits {
            handshakes_max: self.config.limits.handshakes,
            handshakes_per_address_max: self.config.limits.handshakes_per_address,
            ..AcceptorLimits::default()
        };
        let (tls, connections) = (Arc::clone(self.tls), Arc::clone(self.connections));
        let (acceptor, incoming): (Acceptor, Incoming) =
            Acceptor::start(listener, face, expectation, limits, tls, connections)
                .map_err(|source| bind_error(face, source))?;
        let address = acceptor.local_address();
        self.metrics.watch_handshakes(face, acceptor.counters());
        self.acceptors.push(acceptor);
        let stop = self.stop.clone();
        self.servers.push(tokio::spawn(async move {
            let serving = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(event = "task_failed", task = face, error = %error);
            }
        }));
        Ok(address)
    }
}

type Reflection<S> = Result<S, ServeError>;

/// Reflection, v1 and v1alpha, that shows one service and health.
fn reflection(
    service: &str,
) -> Reflection<(
    tonic_reflection::server::v1::ServerReflectionServer<
        impl tonic_reflection::server::v1::ServerReflection,
    >,
    tonic_reflection::server::v1alpha::ServerReflectionServer<
        impl tonic_reflection::server::v1alpha::ServerReflection,
    >,
)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(service)
            .with_service_name("grpc.health.v1.Health")
    };
    let failed = |error: tonic_reflection::server::Error| ServeError::Task {
        task: "reflection",
        cause: error.to_string(),
    };
    let v1 = builder().build_v1().map_err(failed)?;
    let v1alpha = builder().build_v1alpha().map_err(failed)?;
    Ok((v1, v1alpha))
}
