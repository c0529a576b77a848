//! What an operator does with messages and peers, and what he is shown of it.

use bureau_core::{BureauCode, DeskName, MessageId, Reason, Timestamp, ids::IdPrefix};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::admin::v1::{
    DeadLetter, Hold, HoldReason as WireReason, ListDeadLettersRequest, ListDeadLettersResponse,
    ListQueueResponse, MessageOutcome, MessageResult, QueueEntry,
};
use bureau_store::contract::{self, DeadPosition, Held, HeldEntry, HoldReason, Role, Turned};

use super::{AdminFace, bureau};
use crate::{
    engine::{
        lifecycle::{self, Done},
        store_refusal,
    },
    face::message,
};

/// Messages that one call may name.
const IDS_MAX: usize = 500;

/// What is done with messages.
pub(super) enum Deed {
    /// Held back, with a note.
    Hold(String),
    /// Let go.
    Release,
    /// Tried again.
    Retry,
    /// Sent anew.
    Requeue,
}

impl AdminFace {
    /// Does something with messages, each by itself.
    pub(super) async fn act(
        &self,
        desk: &DeskName,
        ids: &[String],
        recipient: &str,
        deed: &Deed,
    ) -> Result<Vec<MessageResult>, Refusal> {
        if ids.is_empty() || ids.len() > IDS_MAX {
            let description = format!("1 to {IDS_MAX} messages, not {}", ids.len());
            return Err(fault("message_ids", Reason::FieldInvalid, description));
        }
        let recipient = bureau("recipient", recipient)?;
        let mut results = Vec::with_capacity(ids.len());
        for text in ids {
            let nothing = |outcome: MessageOutcome| MessageResult {
                message_id: text.clone(),
                recipient: recipient.map(|code| code.to_string()).unwrap_or_default(),
                outcome: outcome.into(),
                ..MessageResult::default()
            };
            match self.find_carried(text).await?.as_slice() {
                [] => results.push(nothing(MessageOutcome::NotFound)),
                [message] => {
                    let deeds = self.act_on(desk, *message, recipient, deed).await?;
                    if deeds.is_empty() {
                        results.push(nothing(MessageOutcome::NotFound));
                    }
                    results.extend(deeds.into_iter().map(result));
                }
                _ => results.push(nothing(MessageOutcome::Ambiguous)),
            }
        }
        Ok(results)
    }

    async fn act_on(
        &self,
        desk: &DeskName,
        message: MessageId,
        recipient: Option<BureauCode>,
        deed: &Deed,
    ) -> Result<Vec<lifecycle::Deed>, Refusal> {
        let engine = &self.engine;
        match deed {
            Deed::Hold(note) => lifecycle::hold(engine, desk, message, recipient, note).await,
            Deed::Release => lifecycle::release(engine, desk, message, recipient).await,
            Deed::Retry => lifecycle::retry(engine, desk, message, recipient).await,
            Deed::Requeue => lifecycle::requeue(engine, desk, message, recipient).await,
        }
    }

    /// Up to two messages that this node sent or carries and that a text names.
    async fn find_carried(&self, text: &str) -> Result<Vec<MessageId>, Refusal> {
        let prefix: IdPrefix = text.parse().map_err(|error: bureau_core::ids::InvalidName| {
            fault("message_ids", Reason::Malformed, format!("not a message id: {}", error.rule))
        })?;
        let mut found = Vec::new();
        for role in [Role::Origin, Role::Relay] {
            let more = self.engine.store.find(prefix.clone(), role).await;
            found.extend(more.map_err(|error| store_refusal(&error))?);
        }
        found.sort_unstable_by_key(|id| id.0);
        found.dedup();
        Ok(found)
    }

    /// Holds a peer, or lets it go. Whether it stood like that, and how it is held now.
    pub(super) async fn turn_peer(
        &self,
        desk: &DeskName,
        peer: &str,
        note: Option<&str>,
    ) -> Result<(bool, Option<Hold>), Refusal> {
        let code = bureau("peer", peer)?;
        let nobody = || Refusal::new(Reason::NotFound, "no such peer");
        let code = code.ok_or_else(nobody)?;
        let turned = lifecycle::hold_peer(&self.engine, desk, code, note).await?;
        let turned = turned.ok_or_else(nobody)?;
        Ok((turned == Turned::Already, self.engine.links.held(code).map(hold)))
    }

    /// One page of what is held back.
    pub(super) async fn held(
        &self,
        destination: Option<BureauCode>,
        size: usize,
        token: &str,
    ) -> Result<ListQueueResponse, Refusal> {
        let after = match token {
            "" => None,
            token => Some(held_after(token).ok_or_else(no_token)?),
        };
        let page = self.engine.store.held_page(destination, after, size + 1).await;
        let mut page = page.map_err(|error| store_refusal(&error))?;
        let more = page.len() > size;
        page.truncate(size);
        let next_page_token = match page.last().filter(|_| more) {
            Some(last) => format!("{}.{}", last.recipient, last.message),
            None => String::new(),
        };
        let entries = page.into_iter().map(held_entry).collect();
        let (depths, held) = (self.depths(), self.held_depths());
        Ok(ListQueueResponse { entries, next_page_token, depths, held })
    }

    pub(super) async fn dead_letters(
        &self,
        request: ListDeadLettersRequest,
    ) -> Result<ListDeadLettersResponse, Refusal> {
        let size = message::page_size(request.page_size)?;
        let recipient = bureau("recipient", &request.recipient)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(dead_after(token).ok_or_else(no_token)?),
        };
        let page = self.engine.store.dead_page(recipient, after, size + 1).await;
        let mut page = page.map_err(|error| store_refusal(&error))?;
        let more = page.len() > size;
        page.truncate(size);
        let next_page_token = match page.last().filter(|_| more) {
            Some(contract::DeadLetter { position, .. }) => {
                let DeadPosition { ended, message, recipient } = position;
                format!("{}.{message}.{recipient}", ended.as_ms())
            }
            None => String::new(),
        };
        let letters = page.into_iter().map(dead_letter).collect();
        Ok(ListDeadLettersResponse { letters, next_page_token })
    }
}

fn fault(field: &str, reason: Reason, description: String) -> Refusal {
    let violation =
        FieldViolation { field: field.to_owned(), description: description.clone(), reason };
    Refusal::of_fields(vec![violation]).unwrap_or_else(|| Refusal::new(reason, description))
}

fn no_token() -> Refusal {
    Refusal::new(Reason::InvalidPageToken, "not a page token of this list")
}

fn held_after(token: &str) -> Option<(BureauCode, MessageId)> {
    let (recipient, message) = token.split_once('.')?;
    Some((recipient.parse().ok()?, message.parse().ok()?))
}

fn dead_after(token: &str) -> Option<DeadPosition> {
    let mut parts = token.split('.');
    let ended = Timestamp::from_ms(parts.next()?.parse().ok()?);
    let (message, recipient) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(DeadPosition { ended, message, recipient })
}

/// Why something is held back, in the words of the contract.
pub(super) const fn hold_reason(reason: HoldReason) -> WireReason {
    match reason {
        HoldReason::Operator => WireReason::Operator,
        HoldReason::Scheduled => WireReason::Scheduled,
        HoldReason::Poison => WireReason::Poison,
    }
}

/// A hold, in the words of the contract.
pub(super) fn hold(held: Held) -> Hold {
    Hold {
        reason: hold_reason(held.reason).into(),
        since_time: Some(held.since.to_wire()),
        until_time: held.until.map(Timestamp::to_wire),
        desk: held.desk.map(|desk| desk.to_string()).unwrap_or_default(),
        note: held.note,
    }
}

fn held_entry(entry: HeldEntry) -> QueueEntry {
    QueueEntry {
        message_id: entry.message.to_string(),
        recipient: entry.recipient.to_string(),
        origin: entry.origin.to_string(),
        lane: entry.lane.to_wire(),
        enqueue_time: Some(entry.enqueued.to_wire()),
        expire_time: Some(entry.expires.to_wire()),
        size: entry.size,
        hold: Some(hold(entry.held)),
    }
}

fn dead_letter(letter: contract::DeadLetter) -> DeadLetter {
    let requeued = letter.requeued;
    DeadLetter {
        message_id: letter.position.message.to_string(),
        recipient: letter.position.recipient.to_string(),
        lane: letter.lane.to_wire(),
        state: letter.state.as_str().to_owned(),
        end_time: Some(letter.position.ended.to_wire()),
        signer: letter.signer.to_string(),
        reason: letter.reason,
        advice: letter.advice,
        requeue_time: requeued.as_ref().map(|new| new.time.to_wire()),
        requeue_desk: requeued.as_ref().map(|new| new.desk.to_string()).unwrap_or_default(),
        requeued_as: requeued.map(|new| new.message.to_string()).unwrap_or_default(),
    }
}

fn result(deed: lifecycle::Deed) -> MessageResult {
    let mut result = MessageResult {
        message_id: deed.message.to_string(),
        recipient: deed.recipient.to_string(),
        ..MessageResult::default()
    };
    let outcome = match deed.done {
        Done::Turned(Turned::Done { .. }) => MessageOutcome::Done,
        Done::Turned(Turned::Already) => MessageOutcome::Already,
        Done::Turned(Turned::Unknown) => MessageOutcome::NotFound,
        Done::Turned(Turned::NotHere(state, holder)) => {
            state.as_str().clone_into(&mut result.state);
            result.holder = holder.map(|holder| holder.to_string()).unwrap_or_default();
            MessageOutcome::NotHere
        }
        Done::Held => MessageOutcome::Held,
        Done::Gone => MessageOutcome::Gone,
        Done::Requeued(new) => {
            result.new_message_id = new.to_string();
            MessageOutcome::Requeued
        }
        Done::RequeuedBefore(new) => {
            result.new_message_id = new.to_string();
            MessageOutcome::AlreadyRequeued
        }
    };
    result.outcome = outcome.into();
    result
}
