//! The store tried: the contract over every engine, power cuts, damage.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod attachments;
mod committing;
mod contract_suite;
mod damage;
mod edges;
mod fixture;
mod lifecycle;
mod power_cut;
mod recovery;
mod repair;
