//! Turns: something was held, recalled or is to be tried again, and what was read ahead may not be
//! what is to be sent.

use std::time::Duration;

use bureau_core::{BureauCode, MessageId};
use tokio::time::Instant;

use super::{Pump, flight::Carried};
use crate::engine::{lifecycle, outbound::End, transit::Departure};

/// How long this side waits while something is being taken out of the queue.
const WITHDRAWN: Duration = Duration::from_millis(20);

impl Pump<'_> {
    /// Drops what was read ahead where there was a turn, and goes back to read it again. What waits
    /// for its attachments is looked at when they are there.
    pub(super) fn follow_turns(&mut self) {
        let Some(turn) = self.engine.links.transit().turned(self.as_of) else { return };
        self.as_of = turn.turn;
        for queued in self.ready.iter_mut().flat_map(std::mem::take) {
            self.cursors.rewind(queued.entry.position);
        }
        self.detoured = [None; 4];
        match turn.retries {
            Some(positions) => {
                if !positions.is_empty() {
                    self.paused_until = None;
                    self.transfers.paused_until = None;
                }
                positions.into_iter().for_each(|position| self.cursors.rewind(position));
            }
            None => self.cursors.restart(),
        }
        self.look_again();
    }

    /// Sets a message aside that cannot be sent, so that the line behind it moves on.
    pub(super) async fn set_aside(
        &self,
        message: MessageId,
        recipients: Vec<BureauCode>,
        why: &str,
    ) -> Result<(), End> {
        let done = lifecycle::quarantine(self.engine, message, recipients, why).await;
        done.map_err(|refusal| End::of_link(refusal.reason, refusal.message))
    }

    /// A parcel did not leave: its slips are read again, after the turn or in a moment.
    pub(super) fn stayed<'c>(
        &mut self,
        departure: Departure,
        slips: impl Iterator<Item = &'c Carried>,
    ) {
        for carried in slips {
            self.cursors.rewind(carried.position);
        }
        if departure == Departure::Wait {
            self.paused_until = Some(Instant::now() + WITHDRAWN);
        }
        self.look_again();
    }
}
