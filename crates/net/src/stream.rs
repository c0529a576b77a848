//! A verified TLS connection, as the HTTP/2 layers above take it: bytes both ways, who is at the
//! other end, and an end at once when the peer is cut.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::{
    connections::{CutCause, Registration},
    connector::FaultCell,
    identity::PeerIdentity,
};

/// A connection whose peer is verified. Every request that comes over it carries the peer's
/// [`PeerIdentity`], see [`crate::peer`].
pub struct TlsConnection {
    io: TlsStream<TcpStream>,
    /// Read ahead by the connector, not yet by HTTP/2.
    unread: Vec<u8>,
    registration: Registration,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Where a caller looks why its connection ended.
    faults: Option<FaultCell>,
}

/// This side ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection cut: {0}")]
pub struct Cut(pub CutCause);

impl TlsConnection {
    pub(crate) fn new(io: TlsStream<TcpStream>, registration: Registration) -> Self {
        let cut = Box::pin(registration.token().clone().cancelled_owned());
        Self { io, unread: Vec::new(), registration, cut, faults: None }
    }

    /// With what the connector has read already, and where to report to.
    pub(crate) fn dialled(mut self, unread: Vec<u8>, faults: FaultCell) -> Self {
        self.unread = unread;
        self.faults = Some(faults);
        self
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> &Arc<PeerIdentity> {
        self.registration.peer()
    }

    fn cut_error(&self) -> Option<io::Error> {
        let cause = self.registration.cut_cause()?;
        Some(io::Error::new(io::ErrorKind::ConnectionAborted, Cut(cause)))
    }

    fn observed<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let (Err(error), Some(faults)) = (&result, &self.faults) {
            faults.record(error);
        }
        result
    }
}

impl fmt::Debug for TlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnection").field("peer", self.peer()).finish_non_exhaustive()
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = Arc<PeerIdentity>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(self.peer())
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always reads, so that the cut is noticed here, on an idle connection too.
        if self.cut.as_mut().poll(context).is_ready()
            && let Some(error) = self.cut_error()
        {
            return Poll::Ready(self.observed(Err(error)));
        }
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread[..count]);
            self.unread.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        Poll::Ready(self.observed(result))
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.cut_error() {
            return Poll::Ready(self.observed(Err(error)));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        Poll::Ready(self.observed(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.cut_error() {
            return Poll::Ready(self.observed(Err(error)));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(context, slices));
        Poll::Ready(self.observed(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.cut_error() {
            return Poll::Ready(self.observed(Err(error)));
        }
        let result = ready!(Pin::new(&mut self.io).poll_flush(context));
        Poll::Ready(self.observed(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
