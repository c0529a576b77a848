//! What must be looked at, and when: something new in the queues, a pause that is over, an answer
//! that does not come.

use std::time::Duration;

use bureau_core::Reason;
use tokio::time::Instant;

use super::Pump;
use crate::engine::outbound::End;

/// How long a parcel or an offer may be without an answer: the peer's disk may be slow, but not
/// that slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// A peer that says something but answers no ping for so many stalls is not there for this side. One
/// stall is too short: on the slowest links a ping stands behind other frames.
const PINGS_PATIENCE: u32 = 2;
/// How often it is asked for something new while there is always something to send: soon enough
/// for what is urgent, seldom enough to cost nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

impl Pump<'_> {
    /// While a long file goes, or a long line, the pump never waits; what came meanwhile must be
    /// seen all the same.
    pub(super) async fn look_if_notified(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) < LOOK_INTERVAL {
            return;
        }
        self.looked = now;
        tokio::select! {
            biased;
            () = self.slot.work.notified() => self.look_again(),
            () = std::future::ready(()) => {}
        }
    }

    pub(super) fn look_again(&mut self) {
        self.cursors.look_again();
        self.detoured = [None; 4];
        self.look = true;
    }

    /// When something must be looked at even if nothing happens.
    pub(super) fn deadline(&self) -> Instant {
        let asked = [self.flight.oldest_sent(), self.transfers.oldest_unanswered()];
        let answer = asked.into_iter().flatten().min().map(|asked| asked + ANSWER_TIMEOUT);
        let paused = [self.paused_until, self.transfers.paused_until];
        // What time alone would have given by now waits for something else: for an answer, mostly.
        let now = Instant::now();
        let room = [self.pace.room_at(), self.drain.filled_at()];
        let room = room.into_iter().map(|at| at.filter(|at| *at > now));
        let others = room.chain(paused).chain([answer, self.kept.due_at()]).flatten();
        others.min().unwrap_or(self.next_ping).min(self.next_ping)
    }

    /// What the peer asked patience for goes on.
    pub(super) fn go_on_if_due(&mut self) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.look_again();
        }
        if self.transfers.paused_until.is_some_and(|until| until <= now) {
            self.transfers.paused_until = None;
            self.read_put_off(None);
        }
        for position in self.kept.due(now) {
            self.cursors.rewind(position);
            self.look = true;
        }
        // What fills with time shows that it has.
        self.drain.is_empty(now);
    }

    pub(super) fn late(&self) -> Result<(), End> {
        let now = Instant::now();
        if self.flight.oldest_sent().is_some_and(|sent| sent + ANSWER_TIMEOUT <= now) {
            return Err(End::of_link(Reason::Stalled, "the peer does not answer a parcel"));
        }
        if self.transfers.oldest_unanswered().is_some_and(|moved| moved + ANSWER_TIMEOUT <= now) {
            return Err(End::of_link(Reason::Stalled, "the peer does not answer an offer"));
        }
        let patience = PINGS_PATIENCE * self.outbound.stall();
        if self.pace.oldest_mark().is_some_and(|sent| sent + patience <= now) {
            return Err(End::of_link(Reason::Stalled, "the peer does not answer a ping"));
        }
        Ok(())
    }
}
