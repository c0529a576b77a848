//! The daemon as a library.
//!
//! The rooms, in the order a message passes them:
//! - [`config`]: one TOML file in, a checked configuration or every fault at once out;
//! - [`daemon`]: builds the rest, binds, serves, reloads, drains;
//! - [`face`]: desk, link and admin, as others see them. A face knows the engine;
//! - [`engine`]: submission, signing, queues, links, delivery, receipts, expiry. It knows no face;
//! - [`trust`]: roster, own key, verifier; [`clock`]: what time it is;
//! - [`telemetry`]: log and metrics.
//!
//! Three layers a request at most: face, check, store. What is on disk is the store's.
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod face;
pub mod telemetry;
pub mod trust;

pub use config::Config;
pub use daemon::{CheckReport, ServeError, check, serve};
