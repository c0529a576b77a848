//! Messages that may not go the way that others to their destination go now: they came from that
//! peer, or it had them before. Whoever reads one on that way leaves it here, and the link that
//! leads there otherwise takes it up. In memory only: after a restart they are read again.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, Lane};
use bureau_store::contract::QueuePosition;

/// Messages that are noted at one time. Where more are, the rest stay where they wait until some
/// of these are gone.
const DETOURS_MAX: usize = 10_000;

/// Where they wait, and whom they avoid.
#[derive(Debug, Default)]
pub(super) struct Detours {
    waiting: Mutex<BTreeMap<QueuePosition, Vec<BureauCode>>>,
}

impl Detours {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<QueuePosition, Vec<BureauCode>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message and the peers that it avoids. `false`: there is no room.
    pub(super) fn note(&self, position: QueuePosition, avoid: &[BureauCode]) -> bool {
        let mut waiting = self.waiting();
        let fits = waiting.len() < DETOURS_MAX || waiting.contains_key(&position);
        if fits {
            waiting.insert(position, avoid.to_vec());
        }
        fits
    }

    /// The next of a lane after a position that a way suits, by its destination and whom it avoids.
    pub(super) fn next(
        &self,
        lane: Lane,
        after: Option<QueuePosition>,
        suits: impl Fn(BureauCode, &[BureauCode]) -> bool,
    ) -> Option<QueuePosition> {
        let waiting = self.waiting();
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = waiting.range((after, Bound::Unbounded));
        let found = later
            .find(|(position, avoid)| position.lane == lane && suits(position.destination, avoid));
        found.map(|(position, _)| *position)
    }

    /// Forgets one that does not wait any more.
    pub(super) fn gone(&self, position: &QueuePosition) {
        self.waiting().remove(position);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_next_of_a_lane_is_found_and_room_ends() {
        let [ke, za]: [BureauCode; 2] = ["KE", "ZA"].map(|code| code.parse().unwrap());
        let at = |destination, number| QueuePosition { destination, lane: Lane::Routine, number };
        let detours = Detours::default();
        assert!(detours.note(at(ke, 3), &[za]) && detours.note(at(za, 1), &[]));
        let all = |_: BureauCode, _: &[BureauCode]| true;
        assert_eq!(detours.next(Lane::Routine, None, all), Some(at(ke, 3)));
        assert_eq!(detours.next(Lane::Routine, Some(at(ke, 3)), all), Some(at(za, 1)));
        assert_eq!(detours.next(Lane::Flash, None, all), None);
        let avoids = |_: BureauCode, avoid: &[BureauCode]| avoid.is_empty();
        assert_eq!(detours.next(Lane::Routine, None, avoids), Some(at(za, 1)));
        detours.gone(&at(ke, 3));
        assert_eq!(detours.next(Lane::Routine, None, all), Some(at(za, 1)));
        for number in 1..DETOURS_MAX as u64 {
            assert!(detours.note(at(ke, number), &[]));
        }
        assert!(!detours.note(at(ke, DETOURS_MAX as u64), &[]));
        assert!(detours.note(at(ke, 1), &[za]), "known already");
    }
}
