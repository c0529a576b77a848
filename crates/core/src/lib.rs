//! What a bureau signs and verifies: pure, without I/O, clock or async.
//!
//! The rooms, in the order data flows:
//! - [`ids`], [`time`], [`limits`], [`reason`]: the words everything else is said with;
//! - [`keys`], [`merkle`], [`signing`]: bytes in, signature out; one signature for a group;
//! - [`envelope`], [`slip`], [`receipt`], [`body`]: the things that are signed;
//! - [`seal`], [`bundle`]: bytes that one bureau alone can open, and what is carried by hand;
//! - [`roster`]: who may sign;
//! - [`verify`]: untrusted bytes in, [`Verified`] out. Store and engine accept nothing else.
#![forbid(unsafe_code)]

pub mod body;
pub mod bundle;
pub mod envelope;
pub mod high_water;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod merkle;
pub mod ranges;
pub mod reason;
pub mod receipt;
pub mod roster;
pub mod seal;
pub mod signing;
pub mod slip;
pub mod time;
pub mod verified;
pub mod verify;

pub use envelope::{Envelope, Manifest};
pub use ids::{
    BundleId, BureauCode, DeskName, Epoch, KeyId, Lane, MessageId, NetworkName, NodeName,
};
pub use keys::{PublicKey, SigningKey};
pub use limits::Limits;
pub use reason::Reason;
pub use receipt::Receipt;
pub use roster::Roster;
pub use seal::SealingKey;
pub use signing::{Context, Signer};
pub use slip::Slip;
pub use time::Timestamp;
pub use verified::Verified;
pub use verify::Verifier;
