//! What goes wrong with a store.

use std::{io, path::PathBuf};

/// Why a store cannot be opened, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds what was never written, and no other copy makes up for it.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A record does not match its checksum.
    #[error("a record of kind '{kind}' does not match its checksum")]
    Record {
        /// The first letter of its key.
        kind: char,
    },
    /// The index failed.
    #[error("the index failed: {0}")]
    Index(String),
    /// Another process has the store open.
    #[error("{path}: another process has this store open")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The store was written by a newer version.
    #[error("the store has layout {found}; this version knows {known}")]
    NewerSchema {
        /// What was found.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// A value is larger than the index can hold safely.
    #[error("a value of {bytes} bytes; the limit is {limit}")]
    ValueTooLarge {
        /// How large.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Attachments that no message names yet take all the room they may: nothing new is taken, and
    /// nothing happened.
    #[error("attachments that no message names take all of {limit} bytes")]
    StagingFull {
        /// The limit.
        limit: u64,
    },
    /// The disk is low: nothing new is taken, and nothing happened.
    #[error("the disk is low")]
    DiskLow,
    /// Too much is under way: nothing happened.
    #[error("too much is under way")]
    Busy,
    /// The disk failed while this was written: whether it is durable is not known until the next
    /// start.
    #[error("the disk failed while this was written")]
    OutcomeUnknown,
    /// The store has failed or is closed: nothing happened.
    #[error("the store has failed or is closed")]
    Failed,
}

impl StoreError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}
