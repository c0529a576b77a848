//! Mutual TLS, peer identity and the one table from error to gRPC status.
//!
//! The rooms, in the order a connection passes them:
//! - [`secret`], [`tls`]: key, certificates and revocation lists, from files, reloaded in place;
//! - [`acceptor`]: connections that come in, [`connector`]: those that go out;
//! - [`identity`]: who the other side is, proven by its certificate, handed to every rpc;
//! - [`connections`]: all that are open, so that a revoked or expired peer can be cut;
//! - [`server`]: the limits of HTTP/2 that every face has;
//! - [`status`]: refusals on their way to a client, and back.
//!
//! Nothing here knows envelopes, routes or the store. Transport identity proves the hop only;
//! who wrote a message is proven by its signature, elsewhere.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod connections;
pub mod connector;
pub mod identity;
pub mod secret;
pub mod server;
pub mod status;
pub mod stream;
pub mod tls;

pub use acceptor::{Acceptor, AcceptorCounters, AcceptorLimits, HandshakeRefusal, Incoming};
pub use connections::{Connections, CutCause};
pub use connector::{DialError, DialLimits, Dialer, PeerChannel, Target};
pub use identity::{PeerIdentity, Role, RoleKind, SpiffeId, peer};
pub use status::{FieldViolation, Refusal};
pub use stream::TlsConnection;
pub use tls::{Expectation, TlsError, TlsFiles, TlsStore};
