//! Before a service: while the store is opening every call is answered STARTING, and health can
//! already say so. Behind it, what the transport refuses by itself gets a typed refusal too.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bureau_core::Reason;
use bureau_net::Refusal;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

/// A service that may not be there yet.
#[derive(Debug)]
pub struct Gate<S> {
    inner: Arc<OnceLock<S>>,
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> Default for Gate<S> {
    fn default() -> Self {
        Self { inner: Arc::default() }
    }
}

impl<S> Gate<S> {
    /// Opens the gate. A second time changes nothing.
    pub fn open(&self, service: S) {
        drop(self.inner.set(service));
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Services of this project are always ready: they bound their work themselves.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match self.inner.get() {
            Some(service) => {
                let answer = service.clone().call(request);
                Box::pin(async move { answer.await.map(typed) })
            }
            None => {
                let refusal = Refusal::new(Reason::Starting, "the node is starting")
                    .retry_after(Duration::from_secs(1));
                Box::pin(async move { Ok(Status::from(refusal).into_http()) })
            }
        }
    }
}

/// The transport refuses a message above its limit with a bare OUT_OF_RANGE.
fn typed(response: http::Response<Body>) -> http::Response<Body> {
    let bare = |status: &Status| status.code() == Code::OutOfRange && status.details().is_empty();
    match Status::from_header_map(response.headers()) {
        Some(status) if bare(&status) => Status::from(too_large()).into_http(),
        _ => response,
    }
}

/// What a message above the transport's limit is answered with.
#[must_use]
pub fn too_large() -> Refusal {
    let limit = bureau_net::server::MESSAGE_BYTES_MAX;
    Refusal::new(Reason::TooLarge, format!("the request is larger than {limit} bytes"))
        .with("limit_bytes", limit)
}
