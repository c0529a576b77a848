//! What is on its way over which link, so that what is taken back or held never leaves after that
//! was answered, and nobody is told that a message never left where it may have.
//!
//! Pumps read ahead. Every hold and recall is a *turn*: a pump that read before it must look again
//! before it sends. Departure and withdrawal exclude each other, so one of the two comes first.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, MessageId};
use bureau_store::contract::QueuePosition;

/// A message for one recipient.
pub type Slip = (MessageId, BureauCode);

/// Slips that were offered and never answered. Beyond that every slip is taken for one of them.
const UNANSWERED_MAX: usize = 100_000;
/// Positions to be looked at again that are remembered for pumps that are busy. A pump that is
/// further behind looks at all.
const RETRIES_MAX: usize = 1024;

/// What is on its way.
#[derive(Debug, Default)]
pub struct Transit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    turn: u64,
    /// How many links carry a slip now.
    flying: HashMap<Slip, u32>,
    unanswered: HashSet<Slip>,
    overrun: bool,
    /// Slips that are being taken out of the queue this moment.
    withdrawn: HashMap<Slip, u32>,
    retries: VecDeque<(u64, QueuePosition)>,
}

/// Whether something may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It is on its way from now on.
    Go,
    /// Something was held or recalled since it was read: read again.
    Look,
    /// It is being taken out of the queue this moment.
    Wait,
}

/// What a pump must do after turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// As of when it knows now.
    pub turn: u64,
    /// Where to go back to; `None`: to the beginning of every queue.
    pub retries: Option<Vec<QueuePosition>>,
}

impl Transit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the last turn.
    pub fn turn(&self) -> u64 {
        self.lock().turn
    }

    /// What there is to do for who knows of turns up to one; `None`: nothing.
    pub fn turned(&self, known: u64) -> Option<Turn> {
        let state = self.lock();
        if state.turn == known {
            return None;
        }
        let lost = state.retries.len() >= RETRIES_MAX
            && state.retries.front().is_some_and(|(turn, _)| *turn > known + 1);
        let later = state.retries.iter().filter(|(turn, _)| *turn > known);
        let retries = (!lost).then(|| later.map(|(_, position)| *position).collect());
        Some(Turn { turn: state.turn, retries })
    }

    /// Has positions looked at again by every pump.
    pub fn retry(&self, positions: &[QueuePosition]) {
        let mut state = self.lock();
        state.turn += 1;
        let turn = state.turn;
        for position in positions {
            if state.retries.len() >= RETRIES_MAX {
                state.retries.pop_front();
            }
            state.retries.push_back((turn, *position));
        }
    }

    /// Has every pump look again.
    pub fn look_again(&self) {
        self.lock().turn += 1;
    }

    /// Some slips of a message are about to leave that were read as of a turn.
    pub fn depart<'a>(
        &self,
        message: MessageId,
        recipients: impl Iterator<Item = &'a BureauCode> + Clone,
        as_of: u64,
    ) -> Departure {
        let mut state = self.lock();
        if state.turn != as_of {
            return Departure::Look;
        }
        if !state.withdrawn.is_empty()
            && recipients.clone().any(|to| state.withdrawn.contains_key(&(message, *to)))
        {
            return Departure::Wait;
        }
        for recipient in recipients {
            *state.flying.entry((message, *recipient)).or_insert(0) += 1;
        }
        Departure::Go
    }

    /// The peer answered for a slip.
    pub fn answered(&self, slip: Slip) {
        let mut state = self.lock();
        state.land(slip);
        if !state.unanswered.is_empty() {
            state.unanswered.remove(&slip);
        }
    }

    /// The link was cut before the peer answered for these.
    pub fn cut(&self, slips: impl Iterator<Item = Slip>) {
        let mut state = self.lock();
        for slip in slips {
            state.land(slip);
            if state.unanswered.len() >= UNANSWERED_MAX {
                state.overrun = true;
                state.unanswered.clear();
            }
            state.unanswered.insert(slip);
        }
    }

    /// Takes slips out of what may leave, until the withdrawal ends.
    pub fn withdraw(&self, slips: Vec<Slip>) -> Withdrawal<'_> {
        let mut state = self.lock();
        for slip in &slips {
            *state.withdrawn.entry(*slip).or_insert(0) += 1;
        }
        drop(state);
        Withdrawal { transit: self, slips }
    }
}

impl State {
    fn land(&mut self, slip: Slip) {
        if let Some(count) = self.flying.get_mut(&slip) {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(&slip);
            }
        }
    }
}

/// While it lasts, none of its slips leaves. At its end every pump reads again what it had read.
#[derive(Debug)]
pub struct Withdrawal<'a> {
    transit: &'a Transit,
    slips: Vec<Slip>,
}

impl Withdrawal<'_> {
    /// Whether a slip is on its way, or was once without an answer.
    pub fn may_have_left(&self, slip: Slip) -> bool {
        let state = self.transit.lock();
        state.overrun || state.flying.contains_key(&slip) || state.unanswered.contains(&slip)
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let mut state = self.transit.lock();
        state.turn += 1;
        for slip in &self.slips {
            if let Some(count) = state.withdrawn.get_mut(slip) {
                *count -= 1;
                if *count == 0 {
                    state.withdrawn.remove(slip);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::Lane;

    use super::*;

    fn slip(number: u8) -> Slip {
        (MessageId([number; 32]), "KE".parse().unwrap())
    }

    fn depart(transit: &Transit, slip: Slip, as_of: u64) -> Departure {
        transit.depart(slip.0, [slip.1].iter(), as_of)
    }

    #[test]
    fn departure_and_withdrawal_exclude_each_other() {
        let transit = Transit::default();
        let (first, other, as_of) = (slip(1), slip(2), transit.turn());
        {
            let withdrawal = transit.withdraw(vec![first]);
            assert!(!withdrawal.may_have_left(first));
            assert_eq!(depart(&transit, first, as_of), Departure::Wait);
            assert_eq!(depart(&transit, other, as_of), Departure::Go);
        }
        assert_eq!(depart(&transit, first, as_of), Departure::Look, "it is gone from the queue");
        let as_of = transit.turned(as_of).unwrap().turn;
        assert_eq!(transit.turned(as_of), None);
        assert_eq!(depart(&transit, first, as_of), Departure::Go);
        assert!(transit.withdraw(vec![first]).may_have_left(first), "on its way");
    }

    #[test]
    fn what_was_cut_without_an_answer_may_have_arrived() {
        let transit = Transit::default();
        let (cut, answered) = (slip(1), slip(2));
        for slip in [cut, answered] {
            assert_eq!(depart(&transit, slip, 0), Departure::Go);
        }
        transit.answered(answered);
        transit.cut([cut].into_iter());
        let withdrawal = transit.withdraw(vec![cut, answered]);
        assert!(withdrawal.may_have_left(cut) && !withdrawal.may_have_left(answered));
        drop(withdrawal);
        transit.answered(cut);
        assert!(!transit.withdraw(vec![cut]).may_have_left(cut));
        transit.cut((0..=UNANSWERED_MAX).map(|number| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            (MessageId(id), cut.1)
        }));
        assert!(transit.withdraw(vec![slip(9)]).may_have_left(slip(9)), "nobody knows any more");
    }

    #[test]
    fn who_is_far_behind_looks_at_all() {
        let transit = Transit::default();
        let at = |number| QueuePosition { destination: slip(1).1, lane: Lane::Flash, number };
        transit.retry(&[at(1), at(2)]);
        transit.look_again();
        transit.retry(&[at(3)]);
        let known = |known| transit.turned(known).unwrap().retries;
        assert_eq!(known(0), Some(vec![at(1), at(2), at(3)]));
        assert_eq!(known(1), Some(vec![at(3)]));
        (0..2000).for_each(|number| transit.retry(&[at(number)]));
        assert_eq!(known(0), None);
        assert_eq!(known(2002), Some(vec![at(1999)]));
    }
}
