//! Faces and calls over real TLS and real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod connector;
mod harness;
mod lifetime;
mod log;
mod raw;
mod refusals;
