//! The figures over HTTP/1.1, one request a connection, on loopback.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::Metrics;

/// Connections at once; more wait in the kernel's queue. A host has one or two scrapers.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take, from its first byte to its last. It bounds slow heads, slow
/// readers and what a full house of them can hold up.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `GET /metrics` until it is told to stop. Everything else is not found.
///
/// # Errors
/// Where the listener has no address.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_within(listener, metrics, shutdown, CONNECTION_TIMEOUT).await
}

async fn serve_within(
    listener: TcpListener,
    metrics: Metrics,
    shutdown: CancellationToken,
    timeout: Duration,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
        .with_state(metrics.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let listener = Bounded { listener, places, timeout };
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
    let served = served.await;
    metrics.forget();
    served
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    let text = match spawn_blocking(move || metrics.encode()).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    // A connection lives for one answer, so that its time can be bounded without cutting a later
    // one short.
    let head: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CONNECTION, "close")];
    (head, text).into_response()
}

fn failed(error: &dyn fmt::Display) -> Response {
    tracing::error!(event = "scrape_failed", error = %error);
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Accepts only so many at once, each for only so long.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The place comes first: what cannot be answered yet waits in the kernel. The semaphore is
        // never closed, so there always is one, some time.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(sleep(self.timeout));
        (Connection { stream, deadline, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
    };

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start(metrics: &Metrics, timeout: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = serve_within(listener, metrics.clone(), stop.clone(), timeout);
        Server { address, stop, task: tokio::spawn(task) }
    }

    impl Server {
        async fn ask(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn figures_are_served_and_nothing_else_is_found() {
        let metrics = Metrics::new();
        metrics.acknowledged();
        let server = start(&metrics, CONNECTION_TIMEOUT).await;
        let answer = server.ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(CONTENT_TYPE), "{answer}");
        assert!(answer.contains("\nbureau_acknowledged_total 1\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        for line in ["GET /", "GET /metrics/x", "POST /metrics", "DELETE /metrics"] {
            let request = format!(
                "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
            let answer = server.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{line}: {answer}");
        }
        server.stop.cancel();
        server.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_refresh_that_panics_fails_its_scrape_alone() {
        let metrics = Metrics::new();
        let server = start(&metrics, CONNECTION_TIMEOUT).await;
        metrics.on_scrape(|_| std::panic::panic_any("broken"));
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(server.ask(request).await.starts_with("HTTP/1.1 500 "));
        metrics.on_scrape(|_| {});
        assert!(server.ask(request).await.starts_with("HTTP/1.1 200 "));
        // What the node lent is given back when it stops.
        let lent = Arc::new(());
        let held = Arc::clone(&lent);
        metrics.on_scrape(move |_| drop(Arc::clone(&held)));
        server.stop.cancel();
        server.task.await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&lent), 1);
    }

    #[tokio::test]
    async fn the_slow_and_the_silent_are_cut_and_hold_nobody_up_for_long() {
        let server = start(&Metrics::new(), Duration::from_millis(300)).await;
        let mut slow = Vec::new();
        for number in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.unwrap();
            }
            slow.push(stream);
        }
        // Every place is taken; this one gets its turn when they are cut.
        let answer = server.ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for mut stream in slow {
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            assert!(!rest.starts_with(b"HTTP/1.1 200"));
        }
    }
}
