//! Peers that an operator holds, and what is on its way: what pumps look at before they send.

use bureau_core::BureauCode;
use bureau_store::contract::Held;

use super::Links;
use crate::engine::transit::Transit;

impl Links {
    /// What is on its way.
    pub const fn transit(&self) -> &Transit {
        &self.transit
    }

    /// Notes that an operator holds a peer, or no longer does: routes lead past it. `false`: there
    /// is no such peer.
    pub fn hold(&self, peer: BureauCode, held: Option<Held>) -> bool {
        let known = match self.peers().get_mut(&peer) {
            Some(link) => {
                link.held = held;
                true
            }
            None => false,
        };
        if known {
            self.rerouted();
            // What was read for one way may have to go another.
            self.transit.look_again();
            self.wake_all();
        }
        known
    }

    /// Why a peer is held by an operator, while it is.
    pub fn held(&self, peer: BureauCode) -> Option<Held> {
        self.peers().get(&peer).and_then(|link| link.held.clone())
    }

    /// Whether there is such a peer.
    pub fn knows(&self, peer: BureauCode) -> bool {
        self.peers().contains_key(&peer)
    }
}
