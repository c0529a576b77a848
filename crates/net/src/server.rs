//! The limits of HTTP/2 and gRPC that every face has, and that the connector keeps too.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// Streams that one connection may have open.
pub const STREAMS_MAX: u32 = 64;
/// Largest header list that is taken. h2's own default is 16 MiB.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Largest message, either way: a body of 1 MiB with 300 slips of 1 KiB, and room.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What one stream may have in flight unread: a round trip of 500 ms at 16 Mbit/s.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// What one connection may have in flight unread.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// How often a connection is tried; with [`KEEPALIVE_TIMEOUT`] a dead one is found within 15 s.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer may take.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams that a client reset and this side has not seen yet: more is an attack (rapid reset).
const PENDING_RESETS_MAX: usize = 32;

/// A server builder with these limits. Message sizes are set on each service, see
/// [`MESSAGE_BYTES_MAX`].
#[must_use]
pub fn builder() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// The same limits on the side that dials.
pub(crate) fn limit_endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}
