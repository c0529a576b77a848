//! Generated types of `proto/`, nothing else: the messages, and behind the feature `rpc` the
//! clients, the servers and the codec that gives undecodable requests a typed refusal.
//!
//! The comments in `proto/` are the reference; they come through as documentation here.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code; its documentation is the lint-checked comments of proto/"
)]

#[cfg(feature = "rpc")]
pub mod codec;

/// What a bureau signs: envelope, slip, receipt, roster.
pub mod envelope {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bureau.envelope.v1.rs"));
    }
}

/// What nodes say to each other.
pub mod link {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bureau.link.v1.rs"));
    }
}

/// What is carried from node to node by hand.
pub mod bundle {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bureau.bundle.v1.rs"));
    }
}

/// What desks say to their node.
pub mod desk {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bureau.desk.v1.rs"));
    }
}

/// What operators ask a node.
pub mod admin {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bureau.admin.v1.rs"));
    }
}

/// The descriptors of all files above, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
