//! The faces: what desks, other nodes and operators see. Each turns requests into calls of the
//! engine, and what the engine says into answers; none knows another.

pub mod access;
pub mod admin;
pub mod desk;
pub mod gate;
pub mod link;

mod message;
