//! Holding back and letting go, messages and peers; and taking back.

use bureau_core::{BureauCode, Lane, MessageId, Timestamp};

use super::{Note, Writing};
use crate::{
    StoreError,
    contract::{
        Held, Hold, HoldReason, Outcome, QueuePosition, Recall, Release, Role, State, TimerKind,
        Turned,
    },
    keys,
    record::{HeldRecord, QueueRecord, TrackRecord},
};

/// How an operation on one (message, recipient) ends.
const fn turned(turned: Turned) -> Outcome {
    Outcome::Turned(turned)
}

impl Writing<'_, '_> {
    pub(super) fn hold(&mut self, hold: Hold) -> Result<Outcome, StoreError> {
        let Hold { message, recipient, held, may_have_left } = hold;
        let Some(mut track) = self.track(&message, &recipient)? else {
            return Ok(turned(Turned::Unknown));
        };
        self.notes.push(Note::Time(held.since));
        if track.state() == State::Held {
            return self.hold_on(&message, recipient, held);
        }
        let offered = may_have_left || self.is_older_than_this_start(&track);
        let position = queue_position(recipient, &track);
        let queued = match &position {
            Some(position) => self.read::<QueueRecord>(&keys::queue(position))?,
            None => None,
        };
        let Some(mut queued) = queued.filter(|_| track.state() == State::Queued) else {
            return Ok(turned(Turned::NotHere(track.state(), track.holder())));
        };
        queued.may_have_left |= offered;
        self.dequeue(&message, recipient, &mut track)?;
        self.set_aside(&message, recipient, &held, &mut track, queued);
        self.write(keys::track(&message, &recipient), &track);
        Ok(turned(Turned::Done { may_have_left: offered }))
    }

    /// An operator's word on what is held already: it is not released by itself any more.
    fn hold_on(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        held: Held,
    ) -> Result<Outcome, StoreError> {
        let key = keys::held(&recipient, message);
        let Some(record) = self.read::<HeldRecord>(&key)? else {
            return Ok(turned(Turned::Unknown));
        };
        let before = record.held();
        if before.reason != HoldReason::Scheduled || held.reason == HoldReason::Scheduled {
            return Ok(turned(Turned::Already));
        }
        let held = Held { until: before.until, ..held };
        self.notes.push(Note::Unheld(recipient, before.reason));
        self.notes.push(Note::Held(recipient, held.reason));
        self.write(key, &HeldRecord::of(&held, record.lane, record.queued));
        Ok(turned(Turned::Done { may_have_left: false }))
    }

    /// Puts what would wait in the queue among what is held; the record of where it stands says so.
    pub(super) fn set_aside(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
        held: &Held,
        track: &mut TrackRecord,
        queued: QueueRecord,
    ) {
        let record = HeldRecord::of(held, track.lane, Some(queued));
        self.write(keys::held(&recipient, message), &record);
        self.notes.push(Note::Held(recipient, held.reason));
        track.set_state(State::Held);
        track.queue_number = 0;
    }

    pub(super) fn release_held(&mut self, release: Release) -> Result<Outcome, StoreError> {
        let Release { message, recipient, when_due, now } = release;
        let Some(mut track) = self.track(&message, &recipient)? else {
            return Ok(turned(Turned::Unknown));
        };
        let key = keys::held(&recipient, &message);
        let record = match track.state() {
            State::Held => self.read::<HeldRecord>(&key)?,
            State::Queued => return Ok(turned(Turned::Already)),
            state => return Ok(turned(Turned::NotHere(state, track.holder()))),
        };
        let Some(record) = record else { return Ok(turned(Turned::Unknown)) };
        let held = record.held();
        let early = held.until.is_some_and(|until| until > now);
        if when_due && (held.reason != HoldReason::Scheduled || early) {
            return Ok(turned(Turned::Already));
        }
        self.notes.push(Note::Time(now));
        if early && held.reason == HoldReason::Operator {
            // The operator lets go; the sender's word stands.
            let again = Held { reason: HoldReason::Scheduled, desk: None, ..held };
            self.notes.push(Note::Unheld(recipient, HoldReason::Operator));
            self.notes.push(Note::Held(recipient, HoldReason::Scheduled));
            self.write(key, &HeldRecord::of(&again, record.lane, record.queued));
            if let Some(until) = again.until {
                self.set_timer(until, TimerKind::Release, message)?;
            }
            return Ok(turned(Turned::Done { may_have_left: false }));
        }
        let (Some(mut queued), Some(lane)) = (record.queued, lane_of(record.lane)) else {
            return Ok(turned(Turned::Unknown));
        };
        self.dequeue(&message, recipient, &mut track)?;
        // From now on it waits for a link: what was before is no age that should alarm anybody.
        queued.enqueued_ms = now.as_ms();
        track.set_state(State::Queued);
        track.queue_number = self.enqueue(recipient, lane, &queued);
        self.write(keys::track(&message, &recipient), &track);
        Ok(turned(Turned::Done { may_have_left: queued.may_have_left }))
    }

    pub(super) fn recall(&mut self, recall: Recall) -> Result<Outcome, StoreError> {
        let Recall { message, recipient, desk, may_have_left, now } = recall;
        let track = self.track(&message, &recipient)?;
        let Some(mut track) = track.filter(|track| track.role() == Role::Origin) else {
            return Ok(turned(Turned::Unknown));
        };
        match track.state() {
            State::Queued | State::Held => {}
            State::Recalled => return Ok(turned(Turned::Already)),
            state => return Ok(turned(Turned::NotHere(state, track.holder()))),
        }
        let offered = may_have_left
            || self.is_older_than_this_start(&track)
            || self.was_offered(&message, recipient, &track)?;
        self.dequeue(&message, recipient, &mut track)?;
        self.notes.push(Note::Time(now));
        if let Some(holder) = track.holder() {
            // It waited here a second time: whoever took custody first may still deliver it.
            track.set_state(State::Relayed);
            self.watch_custody(message, &mut track, now)?;
            self.count_sent(&recipient, &track)?;
            self.write(keys::track(&message, &recipient), &track);
            return Ok(turned(Turned::NotHere(State::Relayed, Some(holder))));
        }
        track.set_state(State::Recalled);
        track.recalled_ms = now.as_ms();
        track.recalled_desk = desk.to_string();
        track.may_have_left = offered;
        self.count_sent(&recipient, &track)?;
        self.write(keys::track(&message, &recipient), &track);
        self.release_large_body(&message)?;
        Ok(turned(Turned::Done { may_have_left: offered }))
    }

    /// Whether it waited here when this process began: what the one before offered, nobody knows.
    fn is_older_than_this_start(&self, track: &TrackRecord) -> bool {
        track.queue_number > 0 && track.queue_number <= self.ledger.queue_at_start
    }

    /// Whether what waits, or is held, was offered to a peer before it was held back once.
    fn was_offered(
        &self,
        message: &MessageId,
        recipient: BureauCode,
        track: &TrackRecord,
    ) -> Result<bool, StoreError> {
        if let Some(position) = queue_position(recipient, track) {
            let queued = self.read::<QueueRecord>(&keys::queue(&position))?;
            return Ok(queued.is_some_and(|queued| queued.may_have_left));
        }
        let held = self.read::<HeldRecord>(&keys::held(&recipient, message))?;
        Ok(held.and_then(|held| held.queued).is_some_and(|queued| queued.may_have_left))
    }

    /// Takes what is held back out of there.
    pub(super) fn unhold(
        &mut self,
        message: &MessageId,
        recipient: BureauCode,
    ) -> Result<(), StoreError> {
        let key = keys::held(&recipient, message);
        if let Some(record) = self.read::<HeldRecord>(&key)? {
            self.notes.push(Note::Unheld(recipient, record.held().reason));
        }
        self.delete(key);
        Ok(())
    }

    pub(super) fn hold_peer(
        &mut self,
        peer: BureauCode,
        held: Option<&Held>,
    ) -> Result<Outcome, StoreError> {
        let key = keys::held_peer(&peer);
        let before = self.read::<HeldRecord>(&key)?;
        if before.is_some() == held.is_some() {
            return Ok(turned(Turned::Already));
        }
        match held {
            Some(held) => self.write(key, &HeldRecord::of(held, 0, None)),
            None => self.delete(key),
        }
        Ok(turned(Turned::Done { may_have_left: false }))
    }
}

fn lane_of(number: u32) -> Option<Lane> {
    i32::try_from(number).ok().and_then(Lane::from_wire)
}

fn queue_position(destination: BureauCode, track: &TrackRecord) -> Option<QueuePosition> {
    let (lane, number) = (lane_of(track.lane)?, track.queue_number);
    (number > 0).then_some(QueuePosition { destination, lane, number })
}

/// A message's own record that its sender named a time, for those who read it.
pub(super) fn scheduled(until: Timestamp, now: Timestamp) -> Held {
    Held {
        reason: HoldReason::Scheduled,
        since: now,
        until: Some(until),
        desk: None,
        note: String::new(),
    }
}
