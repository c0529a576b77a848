//! Operators who ask whether a peer is there, over its link.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// Who may ask at one time; people do.
const ASKED_MAX: usize = 64;

/// Those who ask, and those whose ping is on its way.
#[derive(Debug, Default)]
pub(super) struct Pings {
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    waiting: Vec<oneshot::Sender<Duration>>,
    sent: BTreeMap<u64, Vec<oneshot::Sender<Duration>>>,
}

impl Pings {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks. `None`: too many do.
    pub(super) fn ask(&self) -> Option<oneshot::Receiver<Duration>> {
        let mut asked = self.asked();
        // Who went away asks no more.
        asked.waiting.retain(|asker| !asker.is_closed());
        asked.sent.retain(|_, askers| askers.iter().any(|asker| !asker.is_closed()));
        let sent: usize = asked.sent.values().map(Vec::len).sum();
        if asked.waiting.len() + sent >= ASKED_MAX {
            return None;
        }
        let (asker, answer) = oneshot::channel();
        asked.waiting.push(asker);
        Some(answer)
    }

    /// Whether somebody waits for a ping to be sent.
    pub(super) fn is_asked(&self) -> bool {
        !self.asked().waiting.is_empty()
    }

    /// Notes that a ping was sent for those who wait.
    pub(super) fn sent(&self, number: u64) {
        let mut asked = self.asked();
        let waiting = std::mem::take(&mut asked.waiting);
        if !waiting.is_empty() {
            asked.sent.insert(number, waiting);
        }
    }

    /// Tells those whose ping was answered.
    pub(super) fn answered(&self, number: u64, round_trip: Duration) {
        for asker in self.asked().sent.remove(&number).unwrap_or_default() {
            // Who went away needs no answer.
            let _ = asker.send(round_trip);
        }
    }

    /// The link ended: nobody is answered any more.
    pub(super) fn clear(&self) {
        *self.asked() = Asked::default();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_answered_once_or_learns_that_the_link_ended() {
        let pings = Pings::default();
        let mut first = pings.ask().unwrap();
        assert!(pings.is_asked());
        pings.sent(7);
        assert!(!pings.is_asked());
        let mut second = pings.ask().unwrap();
        pings.answered(7, Duration::from_millis(5));
        assert_eq!(first.try_recv(), Ok(Duration::from_millis(5)));
        assert!(second.try_recv().is_err());
        pings.clear();
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let waiting: Vec<_> = std::iter::from_fn(|| pings.ask()).take(1000).collect();
        assert_eq!(waiting.len(), ASKED_MAX);
        drop(waiting);
        assert!(pings.ask().is_some());
    }
}
