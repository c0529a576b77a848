//! A message that a link brought: once for each (id, recipient), whoever brings it.

use bureau_core::{
    BureauCode,
    receipt::{ReceiptKind, stored_statement},
};
use bytes::Bytes;

use super::{Note, Writing};
use crate::{
    StoreError,
    contract::{Outcome, Receive, ReceiveAction, ReceiveSlip, Received, Role, State, TimerKind},
    keys,
    record::{InboxRecord, QueueRecord, TrackRecord, role_number, state_number},
};

impl Writing<'_, '_> {
    pub(super) fn receive(&mut self, receive: Receive) -> Result<Outcome, StoreError> {
        let id = receive.envelope.id();
        let mut received = Vec::with_capacity(receive.slips.len());
        let (mut fresh, mut content) = (false, false);
        let relayed = receive.slips.iter().filter(|slip| slip.action == ReceiveAction::Relay);
        let fan_out = u32::try_from(relayed.count()).unwrap_or(u32::MAX);
        if self.missing && self.is_new(&receive)? {
            return Ok(Outcome::AttachmentMissing);
        }
        for slip in &receive.slips {
            let recipient = slip.slip.label().recipient;
            let known = self.track(&id, &recipient)?;
            if let Some(track) = known.filter(|track| !is_sent_again(&receive, track)) {
                let answer = self.seen(&receive, recipient, &track)?;
                self.answer_bundle(&receive, recipient, track, &answer);
                received.push(answer);
                continue;
            }
            if slip.action == ReceiveAction::Deliver
                && let Some(first) = self.fork(&receive, &slip.slip)?
            {
                received.push(Received::Forked(first));
                continue;
            }
            fresh = true;
            content |= slip.action != ReceiveAction::Refuse;
            self.take(&receive, slip, recipient, fan_out)?;
            received.push(Received::Fresh);
        }
        if content {
            let manifest = receive.envelope.manifest();
            let signed = receive.envelope.signed_manifest();
            let body = receive.envelope.body();
            let message = self.keep_message(&id, signed, body, manifest);
            self.write(keys::message(&id), &message);
        }
        if fresh {
            let expires = receive.envelope.manifest().expires;
            self.set_timer(expires, TimerKind::Expire, id)?;
            self.notes.push(Note::Time(receive.now));
        }
        Ok(Outcome::Received(received))
    }

    /// Whether anything of it must be kept that is not kept already.
    fn is_new(&self, receive: &Receive) -> Result<bool, StoreError> {
        let id = receive.envelope.id();
        for slip in &receive.slips {
            if slip.action == ReceiveAction::Refuse {
                continue;
            }
            let track = self.track(&id, &slip.slip.label().recipient)?;
            if track.is_none_or(|track| is_sent_again(receive, &track)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What came in a bundle is answered like what came from an origin: the answer waits for whatever
    /// goes there next. Once for each bundle, however often that is brought. PASSED_ON gives no custody
    /// and is not waited for.
    fn answer_bundle(
        &mut self,
        receive: &Receive,
        recipient: BureauCode,
        mut track: TrackRecord,
        answer: &Received,
    ) {
        let (Some(bundle), Received::Repeat(receipt)) = (receive.bundle, answer) else { return };
        if track.came_in != bundle.0.as_slice() {
            self.send_home(receive.hop, receipt.clone(), receive.now);
            track.came_in = Bytes::copy_from_slice(&bundle.0);
            self.write(keys::track(&receive.envelope.id(), &recipient), &track);
        }
    }

    /// Takes a slip that was not seen before.
    fn take(
        &mut self,
        receive: &Receive,
        slip: &ReceiveSlip,
        recipient: BureauCode,
        fan_out: u32,
    ) -> Result<(), StoreError> {
        let (id, manifest) = (receive.envelope.id(), receive.envelope.manifest());
        let given = slip.receipt.encode();
        let mut track = first_track(receive, slip, given.clone());
        if receive.bundle.is_some() {
            self.send_home(receive.hop, given.clone(), receive.now);
        }
        if slip.action != ReceiveAction::Relay {
            let kept = slip.action == ReceiveAction::Deliver;
            self.arrive(receive, &slip.slip, &mut track, kept)?;
        }
        match slip.action {
            ReceiveAction::Deliver => {
                self.ledger.counters.inbox += 1;
                let number = self.ledger.counters.inbox;
                let arrived = InboxRecord {
                    message: Bytes::copy_from_slice(&id.0),
                    slip: Bytes::copy_from_slice(&slip.slip.digest()),
                    hop: receive.hop.to_string(),
                    delivered_ms: receive.now.as_ms(),
                    ..InboxRecord::default()
                };
                self.write(keys::inbox(number), &arrived);
                self.notes.push(Note::Arrived(number));
                track.role = role_number(Role::Recipient);
                track.state = state_number(State::Delivered);
                track.inbox_number = number;
            }
            ReceiveAction::Relay => {
                let envelope = &receive.envelope;
                let size = envelope.signed_manifest().len() + envelope.body().len();
                let queued = QueueRecord {
                    message: Bytes::copy_from_slice(&id.0),
                    slip: slip.slip.encode(),
                    slip_digest: Bytes::copy_from_slice(&slip.slip.digest()),
                    origin: manifest.origin.to_string(),
                    enqueued_ms: receive.now.as_ms(),
                    expires_ms: manifest.expires.as_ms(),
                    size: size as u64,
                    hops: receive.hops.saturating_add(1),
                    fan_out,
                    attachments: u32::try_from(manifest.attachments.len()).unwrap_or(u32::MAX),
                    previous_hop: receive.hop.to_string(),
                    may_have_left: false,
                    declined: Vec::new(),
                    refills: receive.refills,
                    bundle: Bytes::new(),
                };
                track.role = role_number(Role::Relay);
                track.state = state_number(State::Queued);
                track.queue_number = self.enqueue(recipient, manifest.lane, &queued);
                // The hop gets it over the link; the origin learns too who holds its message.
                if receive.hop != manifest.origin {
                    self.send_home(manifest.origin, given, receive.now);
                }
            }
            ReceiveAction::Refuse => {
                track.role = role_number(Role::Recipient);
                track.state = state_number(State::Refused);
            }
        }
        self.write(keys::track(&id, &recipient), &track);
        Ok(())
    }

    /// Answers a slip that was seen before. Nothing changes.
    fn seen(
        &self,
        receive: &Receive,
        recipient: BureauCode,
        track: &TrackRecord,
    ) -> Result<Received, StoreError> {
        let id = receive.envelope.id();
        let same_hop = track.previous_hop == receive.hop.as_str();
        let given = || Ok(Received::Repeat(track.given.clone()));
        let queued = matches!(track.state(), State::Queued | State::Held);
        match track.role() {
            Role::Recipient => return given(),
            Role::Relay if same_hop && queued => return given(),
            Role::Relay | Role::Origin => {}
        }
        // Where the recipient has spoken, its word releases any hop.
        for kind in [ReceiptKind::Delivered, ReceiptKind::Refused, ReceiptKind::Acknowledged] {
            if let Some(receipt) = self.kept(&id, &recipient, kind)? {
                return Ok(Received::Repeat(receipt));
            }
        }
        // Custody was given once, to the hop that brought it first, and to that one it is given
        // again. Given to a second hop as well, a loop of relays and one lost answer would have
        // each of them rely on the next.
        if same_hop && !track.given.is_empty() {
            return given();
        }
        let holder = if queued { own_word(track) } else { track.holder() };
        Ok(Received::PassedOn(holder.unwrap_or(recipient)))
    }

    /// A receipt of the recipient itself that was kept.
    fn kept(
        &self,
        id: &bureau_core::MessageId,
        recipient: &BureauCode,
        kind: ReceiptKind,
    ) -> Result<Option<Bytes>, StoreError> {
        let key = keys::receipt(id, recipient, kind, recipient);
        let record = self.read::<crate::record::ReceiptRecord>(&key)?;
        Ok(record.map(|record| record.receipt))
    }
}

/// What is known of a slip when it comes.
fn first_track(receive: &Receive, slip: &ReceiveSlip, given: Bytes) -> TrackRecord {
    let manifest = receive.envelope.manifest();
    TrackRecord {
        slip: Bytes::copy_from_slice(&slip.slip.digest()),
        origin: manifest.origin.to_string(),
        expires_ms: manifest.expires.as_ms(),
        lane: manifest.lane as u32,
        previous_hop: receive.hop.to_string(),
        given,
        refills: receive.refills,
        came_in: receive.bundle.map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default(),
        ..TrackRecord::default()
    }
}

/// Whether a relay must carry on what it carried before, because the recipient lost it.
fn is_sent_again(receive: &Receive, track: &TrackRecord) -> bool {
    track.role() == Role::Relay && track.queue_number == 0 && receive.refills > track.refills
}

/// Who signed the receipt that was given here: this bureau.
fn own_word(track: &TrackRecord) -> Option<BureauCode> {
    stored_statement(track.given.clone()).ok().map(|statement| statement.signer)
}
