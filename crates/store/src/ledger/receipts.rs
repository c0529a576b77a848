//! What receipts do: at the origin they say what became of a message; at a relay they release it
//! and go on home.

use bureau_core::{
    BureauCode, Lane, Timestamp,
    limits::CLOCK_SKEW_MS_MAX,
    receipt::{ReceiptKind, Statement},
};
use bytes::Bytes;

use super::{Note, Writing};
use crate::{
    StoreError,
    contract::{Outcome, QueuePosition, ReceiptIgnored, ReceiptPosition, Role, State, TakeReceipt},
    keys,
    record::{MessageRecord, QueueRecord, TrackRecord},
};

/// Peers that decline a message and are remembered with it: relays only, of which a bureau has a
/// handful.
const DECLINED_MAX: usize = 16;

impl Writing<'_, '_> {
    pub(super) fn take_receipt(&mut self, take: TakeReceipt) -> Result<Outcome, StoreError> {
        let TakeReceipt { receipt, home, hop, now } = take;
        let statement = receipt.statement();
        let (message, recipient) = (&statement.message, &statement.recipient);
        let ignored = |why| Ok(Outcome::ReceiptIgnored(why));
        let Some(mut track) = self.track(message, recipient)? else {
            let Some(home) = home else { return ignored(ReceiptIgnored::UnknownMessage) };
            // Its message took another way than it does.
            self.send_home(home, receipt.encode(), now);
            self.notes.push(Note::Time(now));
            return Ok(Outcome::ReceiptTaken);
        };
        if track.slip() != statement.slip {
            return ignored(ReceiptIgnored::SlipMismatch);
        }
        let kept = keys::receipt(message, recipient, statement.kind, &statement.signer);
        // A message that was sent again is answered by the same receipt, and that one counts again.
        let hop_speaks = statement.signer == hop
            && matches!(statement.kind, ReceiptKind::Custody | ReceiptKind::PassedOn);
        let sent_again = track.reroutes > 0 || track.refills > 0;
        let again = sent_again
            && track.queue_number > 0
            && (hop_speaks || statement.signer == statement.recipient);
        if self.tx.get(&kept)?.is_some() && !again {
            return ignored(ReceiptIgnored::Repeated);
        }
        if track.role() == Role::Recipient || !may_give(statement, &track, hop) {
            return ignored(ReceiptIgnored::NotItsToGive);
        }
        let relayed = track.role() == Role::Relay;
        self.apply(statement, hop, &mut track, now)?;
        self.settle_dead(statement, &mut track, now)?;
        if statement.kind == ReceiptKind::PassedOn && statement.signer == hop {
            self.decline(*recipient, hop, &track)?;
        }
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
        // PASSED_ON answers this node alone; everything else is the origin's to know.
        if relayed && statement.kind != ReceiptKind::PassedOn {
            self.go_home(&track, encoded, now);
        }
        if relayed {
            self.release(message)?;
        } else {
            self.release_large_body(message)?;
        }
        self.notes.push(Note::Time(now));
        Ok(Outcome::ReceiptTaken)
    }

    /// What a receipt changes.
    fn apply(
        &mut self,
        statement: &Statement,
        hop: BureauCode,
        track: &mut TrackRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (message, recipient) = (&statement.message, statement.recipient);
        // What was recalled and never arrived stays recalled; that it arrived counts more.
        let stands =
            matches!(track.state(), State::Delivered | State::Acknowledged | State::Recalled);
        // A refusal says why; that time went by as well adds nothing.
        let decided =
            stands || statement.kind == ReceiptKind::Expired && track.state() == State::Refused;
        match statement.kind {
            ReceiptKind::Delivered => {
                self.dequeue(message, recipient, track)?;
                if track.state() != State::Acknowledged {
                    track.set_state(State::Delivered);
                }
            }
            ReceiptKind::Acknowledged => {
                self.dequeue(message, recipient, track)?;
                track.set_state(State::Acknowledged);
            }
            ReceiptKind::Refused | ReceiptKind::Expired if !decided => {
                self.dequeue(message, recipient, track)?;
                let refused = statement.kind == ReceiptKind::Refused;
                track.set_state(if refused { State::Refused } else { State::Expired });
            }
            ReceiptKind::Custody => {
                // Recalled while it was on its way: whoever took it may still deliver it.
                let waits = track.state() == State::Recalled
                    || statement.signer == hop && self.dequeue(message, recipient, track)?;
                if statement.signer == hop && waits {
                    track.set_state(State::Relayed);
                    self.watch_custody(statement.message, track, now)?;
                }
                if track.state() == State::Relayed {
                    track.holder = statement.signer.to_string();
                }
            }
            // Who says PASSED_ON has no custody of it: it goes on waiting here. But where an origin
            // sent it again, it has learned where the first one is, and waits for that.
            ReceiptKind::PassedOn => {
                let again = track.reroutes > 0 && statement.signer == hop;
                if again && self.dequeue(message, recipient, track)? {
                    track.set_state(State::Relayed);
                    self.watch_custody(statement.message, track, now)?;
                }
                if let (State::Relayed, Some(next)) = (track.state(), statement.next_hop) {
                    track.holder = next.to_string();
                }
            }
            ReceiptKind::Refused | ReceiptKind::Expired | ReceiptKind::Unspecified => {}
        }
        Ok(())
    }

    /// Notes that a hop had what waits here and will not take it again: it must go another way.
    fn decline(
        &mut self,
        recipient: BureauCode,
        hop: BureauCode,
        track: &TrackRecord,
    ) -> Result<(), StoreError> {
        let lane = i32::try_from(track.lane).ok().and_then(Lane::from_wire);
        let (Some(lane), true) = (lane, track.queue_number > 0) else { return Ok(()) };
        let position = QueuePosition { destination: recipient, lane, number: track.queue_number };
        let key = keys::queue(&position);
        let Some(mut record) = self.read::<QueueRecord>(&key)? else { return Ok(()) };
        if record.declined.len() < DECLINED_MAX && !record.avoid().contains(&hop) {
            record.declined.push(hop.to_string());
            self.write(key, &record);
        }
        Ok(())
    }

    fn go_home(&mut self, track: &TrackRecord, receipt: Bytes, now: Timestamp) {
        if let Some(origin) = track.origin() {
            self.send_home(origin, receipt, now);
        }
    }

    /// Drops a message's content where this node has nothing more to do with it.
    pub(super) fn release(&mut self, message: &bureau_core::MessageId) -> Result<(), StoreError> {
        if !Self::is_held(&self.tracks(message)?) {
            self.drop_message(message)?;
        }
        Ok(())
    }

    /// Gives an own message's large body and its attachments back once every recipient has it, or
    /// never will. Small bodies stay beside their manifests until they are forgotten, and so does
    /// all of what may still be requeued.
    pub(super) fn release_large_body(
        &mut self,
        message: &bureau_core::MessageId,
    ) -> Result<(), StoreError> {
        let key = keys::message(message);
        let Some(mut record) = self.read::<MessageRecord>(&key)? else { return Ok(()) };
        if record.file().is_none() && record.attachments == 0 {
            return Ok(());
        }
        for (recipient, track) in self.tracks(message)? {
            let under_way = matches!(track.state(), State::Queued | State::Held | State::Relayed);
            if under_way || self.may_be_requeued(message, recipient, &track)? {
                return Ok(());
            }
        }
        self.drop_files(message, &record);
        record.body_digest = Bytes::new();
        record.attachments = 0;
        self.write(key, &record);
        Ok(())
    }

    pub(super) fn receipts_taken(
        &mut self,
        positions: Vec<ReceiptPosition>,
    ) -> Result<Outcome, StoreError> {
        for position in positions {
            let key = keys::outgoing(&position);
            if self.tx.get(&key)?.is_some() {
                self.delete(key);
                self.notes.push(Note::ReceiptDequeued(position.destination));
            }
        }
        Ok(Outcome::Done)
    }
}

/// Whether a signer may give such a receipt. That DELIVERED and ACKNOWLEDGED are the recipient's was
/// verified before.
fn may_give(statement: &Statement, track: &TrackRecord, hop: BureauCode) -> bool {
    let from_recipient = statement.signer == statement.recipient;
    // Whoever has, or was just offered, the message: the holder, or the hop that answers while it
    // waits here. One that was offered it once and never had custody has nothing to give back.
    let waits = track.queue_number > 0 || track.state() == State::Held;
    let offered = waits && hop == statement.signer;
    // Who had custody and did not get it on has no say while it waits for another way.
    let holds = track.queue_number == 0 && track.holder() == Some(statement.signer);
    let custodian = offered || holds;
    match statement.kind {
        ReceiptKind::Delivered | ReceiptKind::Acknowledged => from_recipient,
        ReceiptKind::Refused => from_recipient || custodian,
        ReceiptKind::Expired => {
            let in_time = statement.time < track.expires().plus_ms(-CLOCK_SKEW_MS_MAX);
            (from_recipient || custodian) && !in_time
        }
        ReceiptKind::Custody | ReceiptKind::PassedOn => !from_recipient,
        ReceiptKind::Unspecified => false,
    }
}
