//! How it ends: given up, acknowledged, expired, forgotten.

use bureau_core::{
    BureauCode, DeskName, MessageId, Timestamp, limits::MEMORY_AFTER_EXPIRY_MS,
    receipt::ReceiptKind,
};
use bytes::Bytes;

use super::{Note, TICK_MS, Writing, dead::dead_position};
use crate::{
    StoreError,
    contract::{
        Acknowledge, GiveUp, OVERDUE_AFTER_EXPIRY_MS, Outcome, RequestKey, Role, State, Timer,
        TimerKind,
    },
    keys,
    record::{InboxRecord, MessageRecord, TimerRecord, TrackRecord},
};

/// How long a message that may not be forgotten yet is kept before the next look: a day.
const FORGET_LATER_MS: i64 = 24 * 3600 * 1000;

impl Writing<'_, '_> {
    pub(super) fn give_up(&mut self, give_up: GiveUp) -> Result<Outcome, StoreError> {
        let GiveUp { receipt, now } = give_up;
        let statement = receipt.statement();
        let (message, recipient) = (&statement.message, &statement.recipient);
        let Some(mut track) = self.track(message, recipient)? else {
            return Ok(Outcome::GivenUp(false));
        };
        // An origin may also give up what another took custody of and never answered for.
        let overdue = track.role() == Role::Origin && track.state() == State::Relayed;
        if !self.dequeue(message, *recipient, &mut track)? && !overdue {
            return Ok(Outcome::GivenUp(false));
        }
        let refused = statement.kind == ReceiptKind::Refused;
        track.set_state(if refused { State::Refused } else { State::Expired });
        self.settle_dead(statement, &mut track, now)?;
        let encoded = receipt.encode();
        self.keep_receipt(
            message,
            recipient,
            statement.kind,
            &statement.signer,
            encoded.clone(),
            now,
        );
        self.count_sent(recipient, &track)?;
        self.write(keys::track(message, recipient), &track);
        if track.role() == Role::Relay {
            if let Some(origin) = track.origin() {
                self.send_home(origin, encoded, now);
            }
            self.release(message)?;
        } else {
            self.release_large_body(message)?;
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::GivenUp(true))
    }

    pub(super) fn acknowledge(&mut self, acknowledge: Acknowledge) -> Result<Outcome, StoreError> {
        let Acknowledge { receipt, desk, now } = acknowledge;
        let statement = receipt.statement();
        let (message, recipient) = (&statement.message, &statement.recipient);
        let track = self.track(message, recipient)?.filter(|track| track.inbox_number > 0);
        let Some(mut track) = track else { return Ok(Outcome::NotFound) };
        let number = track.inbox_number;
        if let Some(first) = self.read::<InboxRecord>(&keys::acknowledged(number))? {
            let desk = first.acknowledged_desk.parse().unwrap_or(desk);
            let time = Timestamp::from_ms(first.acknowledged_ms);
            return Ok(Outcome::Acknowledged { time, desk, fresh: false });
        }
        let Some(mut arrived) = self.read::<InboxRecord>(&keys::inbox(number))? else {
            return Ok(Outcome::NotFound);
        };
        arrived.acknowledged_ms = now.as_ms();
        arrived.acknowledged_desk = desk.to_string();
        self.delete(keys::inbox(number));
        self.write(keys::acknowledged(number), &arrived);
        track.set_state(State::Acknowledged);
        self.write(keys::track(message, recipient), &track);
        if let Some(origin) = track.origin() {
            self.send_home(origin, receipt.encode(), now);
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::Acknowledged { time: now, desk, fresh: true })
    }

    pub(super) fn release_attachments(
        &mut self,
        message: &MessageId,
        recipient: &BureauCode,
        desk: DeskName,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let track = self.track(message, recipient)?.filter(|track| track.inbox_number > 0);
        let Some(track) = track else { return Ok(Outcome::NotFound) };
        for key in [keys::inbox(track.inbox_number), keys::acknowledged(track.inbox_number)] {
            let Some(mut arrived) = self.read::<InboxRecord>(&key)? else { continue };
            if arrived.released_ms > 0 {
                let desk = arrived.released_desk.parse().unwrap_or(desk);
                let time = Timestamp::from_ms(arrived.released_ms);
                return Ok(Outcome::Released { time, desk, fresh: false });
            }
            arrived.released_ms = now.as_ms();
            arrived.released_desk = desk.to_string();
            self.write(key, &arrived);
            self.notes.push(Note::Time(now));
            return Ok(Outcome::Released { time: now, desk, fresh: true });
        }
        Ok(Outcome::NotFound)
    }

    pub(super) fn timer_handled(
        &mut self,
        timer: Timer,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let key = keys::timer(timer.tick, timer.kind, timer.number);
        let Some(record) = self.read::<TimerRecord>(&key)? else { return Ok(Outcome::Done) };
        // Messages are only added at the end. What came after the timer was read is still to do.
        let handled: Vec<_> =
            timer.messages.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect();
        let Some(rest) = record.messages.strip_prefix(handled.as_slice()) else {
            return Ok(Outcome::Done);
        };
        if rest.is_empty() {
            self.delete(key);
        } else {
            self.write(key, &TimerRecord { messages: rest.to_vec() });
        }
        self.ledger.open_timers.remove(&(timer.tick, timer.kind));
        let at = i64::try_from(timer.tick).unwrap_or(i64::MAX).saturating_mul(TICK_MS);
        let at = Timestamp::from_ms(at);
        for message in timer.messages {
            match timer.kind {
                TimerKind::Expire => {
                    self.tell_again(&message, now)?;
                    let overdue = at.plus_ms(OVERDUE_AFTER_EXPIRY_MS);
                    self.set_timer(overdue, TimerKind::Overdue, message)?;
                }
                TimerKind::Overdue => {
                    self.void_all(&message)?;
                    let forget = at.plus_ms(MEMORY_AFTER_EXPIRY_MS - OVERDUE_AFTER_EXPIRY_MS);
                    self.set_timer(forget, TimerKind::Forget, message)?;
                }
                TimerKind::Forget => self.forget(message, now)?,
                TimerKind::Warn => {
                    if let Some((_, track)) = self.tracks(&message)?.first() {
                        self.set_timer(track.expires(), TimerKind::Expire, message)?;
                    }
                }
                // What was to go by then was released, one by one.
                TimerKind::Release => {}
                // Custody that is given anew is watched anew.
                TimerKind::Reroute => {}
            }
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::Done)
    }

    /// What arrived and lies here is told to its sender once more when it expires: the answer may
    /// have been lost with its link, and from now on nobody offers the message again.
    fn tell_again(&mut self, message: &MessageId, now: Timestamp) -> Result<(), StoreError> {
        for (_, track) in self.tracks(message)? {
            let lies = track.role() == Role::Recipient && track.state() == State::Delivered;
            if let (true, Some(origin)) = (lies, track.origin()) {
                self.send_home(origin, track.given.clone(), now);
            }
        }
        Ok(())
    }

    /// Forgets a message that nobody here has anything more to do with; or looks again in a day.
    fn forget(&mut self, message: MessageId, now: Timestamp) -> Result<(), StoreError> {
        let tracks = self.tracks(&message)?;
        let mut waits = false;
        for (_, track) in &tracks {
            waits |= track.queue_number > 0 || track.state() == State::Held;
            let unread = track.inbox_number > 0 && track.state() == State::Delivered;
            waits |= unread;
        }
        if waits {
            return self.set_timer(now.plus_ms(FORGET_LATER_MS), TimerKind::Forget, message);
        }
        if let Some(record) = self.read::<MessageRecord>(&keys::message(&message))? {
            self.forget_request(&record);
        }
        for (recipient, track) in tracks {
            self.forget_track(&message, &recipient, &track)?;
        }
        self.drop_message(&message)
    }

    fn forget_track(
        &mut self,
        message: &MessageId,
        recipient: &bureau_core::BureauCode,
        track: &TrackRecord,
    ) -> Result<(), StoreError> {
        for (key, _) in self.tx.scan_prefix(&keys::receipts_of(message, recipient))? {
            self.delete(key);
        }
        if track.inbox_number > 0 {
            self.delete(keys::acknowledged(track.inbox_number));
        }
        if let Some(position) = dead_position(message, *recipient, track) {
            self.delete(keys::dead(&position));
        }
        match (track.role(), track.lane()) {
            (Role::Origin, Some(lane)) => {
                self.delete(keys::sent(recipient, lane, track.sequence));
            }
            (Role::Recipient, _) => self.forget_arrival(track)?,
            _ => {}
        }
        self.delete(keys::track(message, recipient));
        Ok(())
    }

    fn forget_request(&mut self, record: &MessageRecord) {
        let id: Result<[u8; 16], _> = <[u8; 16]>::try_from(Bytes::as_ref(&record.request_id));
        if let (Ok(id), Ok(desk)) = (id, record.request_desk.parse()) {
            self.delete(keys::request(&RequestKey { desk, id }));
        }
    }
}
