//! Attachments at the desk's side: read from disk and brought to the node, fetched from it and
//! written to disk. Never held whole in memory; what broke off goes on where it was.

mod download;
mod name;
mod progress;
mod upload;

use std::time::Duration;

pub(crate) use self::{
    download::{Wanted, download},
    name::{media_type, safe},
    upload::{Prepared, prepare, upload},
};

/// Bytes read from disk, and sent, at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// How long nothing may move before a stream counts as broken.
const STALL: Duration = Duration::from_secs(60);
/// Tries without a byte gained.
const TRIES_MAX: u32 = 5;

/// A digest as people write it.
pub(crate) fn hex(digest: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest)
}
