//! How far each queue was read on this link. Destinations of a lane take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bureau_core::{BureauCode, Lane};
use bureau_store::contract::QueuePosition;

/// Where reading goes on.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// The last number that was read.
    read: HashMap<(Lane, BureauCode), u64>,
    /// Queues that had no more when last looked at.
    drained: HashSet<(Lane, BureauCode)>,
    /// Queues that something waits in, by lane.
    work: BTreeMap<Lane, BTreeSet<BureauCode>>,
    /// Whose turn it was last.
    turn: HashMap<Lane, BureauCode>,
}

impl Cursors {
    /// Something may wait everywhere again.
    pub(super) fn look_again(&mut self) {
        self.drained.clear();
    }

    /// What something waits in now.
    pub(super) fn set_work(&mut self, waiting: impl Iterator<Item = (Lane, BureauCode)>) {
        self.work.clear();
        for (lane, destination) in waiting {
            if !self.drained.contains(&(lane, destination)) {
                self.work.entry(lane).or_default().insert(destination);
            }
        }
    }

    /// The next queue of a lane and where to go on in it.
    pub(super) fn next(&mut self, lane: Lane) -> Option<(BureauCode, u64)> {
        let queues = self.work.get(&lane)?;
        let after_last = self.turn.get(&lane).and_then(|last| {
            let later = (std::ops::Bound::Excluded(*last), std::ops::Bound::Unbounded);
            queues.range(later).next()
        });
        let destination = *after_last.or_else(|| queues.first())?;
        self.turn.insert(lane, destination);
        let after = self.read.get(&(lane, destination)).copied().unwrap_or(0);
        Some((destination, after))
    }

    /// Notes the last number that was read; `None`: there was no more.
    pub(super) fn advance(&mut self, lane: Lane, destination: BureauCode, last: Option<u64>) {
        let queue = (lane, destination);
        match last {
            Some(last) => {
                let read = self.read.entry(queue).or_insert(0);
                *read = last.max(*read);
            }
            None => {
                self.drained.insert(queue);
                if let Some(queues) = self.work.get_mut(&lane) {
                    queues.remove(&destination);
                }
            }
        }
    }

    /// Goes back to the beginning of every queue.
    pub(super) fn restart(&mut self) {
        self.read.clear();
        self.drained.clear();
    }

    /// Goes back so that a position is read again.
    pub(super) fn rewind(&mut self, position: QueuePosition) {
        let queue = (position.lane, position.destination);
        if let Some(read) = self.read.get_mut(&queue) {
            *read = (*read).min(position.number.saturating_sub(1));
        }
        self.drained.remove(&queue);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn destinations_take_turns_and_drained_ones_wait() {
        let codes: Vec<BureauCode> = ["BR", "FR", "KE"].map(|code| code.parse().unwrap()).into();
        let mut cursors = Cursors::default();
        let work = || codes.iter().map(|code| (Lane::Flash, *code));
        cursors.set_work(work());
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.push(cursors.next(Lane::Flash).unwrap().0);
        }
        assert_eq!(turns, [codes[0], codes[1], codes[2], codes[0]]);
        cursors.advance(Lane::Flash, codes[1], Some(7));
        cursors.advance(Lane::Flash, codes[1], None);
        assert_eq!(cursors.next(Lane::Flash), Some((codes[2], 0)));
        cursors.set_work(work());
        assert_eq!(cursors.next(Lane::Flash), Some((codes[0], 0)));
        cursors.look_again();
        cursors.set_work(work());
        assert_eq!(cursors.next(Lane::Flash), Some((codes[1], 7)));
        cursors.rewind(QueuePosition { destination: codes[1], lane: Lane::Flash, number: 3 });
        assert_eq!(cursors.next(Lane::Flash).unwrap().0, codes[2]);
        cursors.next(Lane::Flash);
        assert_eq!(cursors.next(Lane::Flash), Some((codes[1], 2)));
        cursors.restart();
        cursors.next(Lane::Flash);
        cursors.next(Lane::Flash);
        assert_eq!(cursors.next(Lane::Flash), Some((codes[1], 0)));
    }
}
