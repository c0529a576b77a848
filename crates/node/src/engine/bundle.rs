//! Bundles: what waits for a bureau, put into a file that is carried by hand, and the way back in.
//! Custody and receipts are those of a link; only time passes between.
//!
//! - [`export`]: what goes in, the most urgent first; [`import`]: what comes out, judged as a link's.

pub mod export;
pub mod import;

use bureau_core::{BureauCode, Reason, Roster};
use bureau_net::Refusal;

use super::Engine;

/// Bundles that are remembered and looked at: years of sticks.
pub const BUNDLES_MAX: usize = 1024;
/// A file that is larger is taken for a mistake: the largest stick that is carried.
pub const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// Whether what waits for a destination may go to it through a bureau by hand: that one itself, or a
/// hub of its, as long as no link that leads there is up.
fn leads_over(engine: &Engine, roster: &Roster, to: BureauCode, destination: BureauCode) -> bool {
    if destination == to {
        return true;
    }
    let (Ok(hub), Ok(member)) = (roster.member(&to), roster.member(&destination)) else {
        return false;
    };
    if !hub.relay || member.via.contains(&engine.bureau()) {
        return false;
    }
    let next = engine.links.next_hop(destination, roster);
    if next.is_some_and(|hop| hop != to && engine.links.is_up(hop)) {
        return false;
    }
    next == Some(to) || member.via.contains(&to)
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(event = "task_failed", task = "bundle", error = %error);
    Refusal::new(Reason::Internal, "a fault of this software; the log has more")
}
