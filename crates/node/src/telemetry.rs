//! What the node tells its operators: [`log`] for what happened, [`metrics`] for how it goes.
//!
//! Neither ever tells a subject, a body or a person: names here are of bureaus, desks and messages.

pub mod log;
pub mod metrics;
