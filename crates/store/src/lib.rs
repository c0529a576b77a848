//! What is on disk: journal, index and bodies; the only crate that names sled.
//!
//! The rooms, in the order a write passes them:
//! - [`contract`]: what any store must promise, in the words of the domain;
//! - `local`: the store on this machine's disk, behind the contract;
//! - `ledger`: the rules, over `keys` and `record`: an operation in, its writes and outcome out;
//! - `committer`: one owner of all writes, in groups: resolved, journaled and synced, then applied;
//! - `journal`: the promise; `index`: what can be found quickly; `snapshot`: the second copy;
//!   `bodies`: large content as files; `attachments`: files while they come in;
//! - `open`: what makes one state of them after a stop of any kind;
//! - `disk`: files as all of these need them; `hands`: who does the work;
//! - `sim`: the whole of it in memory, in order and by a seed, for simulations (feature `sim`).
#![forbid(unsafe_code)]

mod attachments;
mod bodies;
mod committer;
pub mod contract;
mod disk;
mod error;
mod hands;
mod index;
mod journal;
mod keys;
mod ledger;
mod local;
mod open;
mod record;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod snapshot;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use index::VALUE_BYTES_MAX;
pub use ledger::{CUSTODY_OVERDUE_MS, INLINE_BODY_BYTES_MAX};
pub use local::open_local;
pub use open::{OpenOptions, Progress};
