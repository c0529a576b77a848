//! Explanations and the shape of the queue, as operators are shown them.

use bureau_core::{BureauCode, MessageId, Reason, Timestamp, ids::IdPrefix};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::{
    admin::v1::{
        ExplainMessageRequest, ExplainMessageResponse, Explanation, ExplanationCause,
        GetQueueShapeRequest, GetQueueShapeResponse, NodeRole, QueueAhead, QueueAheadLane,
        QueueShapeRow,
    },
    desk::v1::DeliveryState,
};
use bureau_store::contract::{Role, State};

use super::{AdminFace, wire_link_state};
use crate::engine::{
    explain::{self, Ahead, Cause, Explained, Place},
    shape, store_refusal,
};

impl AdminFace {
    pub(super) async fn explain(
        &self,
        request: ExplainMessageRequest,
    ) -> Result<ExplainMessageResponse, Refusal> {
        let recipient = code(&request.recipient)?;
        let message = self.find_any(&request.message_id).await?;
        let explained = explain::gather(&self.engine, message, recipient).await;
        let explained = explained.map_err(|error| store_refusal(&error))?.ok_or_else(unknown)?;
        if explained.explanations.is_empty() {
            return Err(Refusal::new(Reason::NotFound, "not for this recipient, as far as known"));
        }
        Ok(response(explained, self.engine.bureau()))
    }

    /// The one message that a text names, whatever this node is to it.
    async fn find_any(&self, text: &str) -> Result<MessageId, Refusal> {
        let prefix = text.parse::<IdPrefix>().map_err(|error| {
            malformed("message_id", format!("not a message id: {}", error.rule))
        })?;
        let mut found = Vec::new();
        for role in [Role::Origin, Role::Relay, Role::Recipient] {
            let some = self.engine.store.find(prefix.clone(), role).await;
            found.extend(some.map_err(|error| store_refusal(&error))?);
        }
        one_of(found)
    }

    pub(super) async fn shape(
        &self,
        request: GetQueueShapeRequest,
    ) -> Result<GetQueueShapeResponse, Refusal> {
        let recipient = code(&request.recipient)?;
        let busy = |_| {
            Refusal::new(Reason::Busy, "another asks for the shape of the queue; one at a time")
                .retry_after(std::time::Duration::from_secs(2))
        };
        let _permit = self.shaping.try_acquire().map_err(busy)?;
        let shape = shape::shape(&self.engine, recipient).await;
        let shape = shape.map_err(|error| store_refusal(&error))?;
        let rows = shape.rows.into_iter().map(|((recipient, lane), row)| QueueShapeRow {
            recipient: recipient.to_string(),
            lane: lane.to_wire(),
            messages: row.messages.to_vec(),
            bytes: row.bytes,
        });
        let bounds = shape::BOUNDS_MINUTES.iter();
        Ok(GetQueueShapeResponse {
            bounds_minutes: bounds.filter_map(|bound| u32::try_from(*bound).ok()).collect(),
            rows: rows.collect(),
            complete: shape.complete,
        })
    }
}

/// The one message that was found. To a message of several recipients a node may be several things.
fn one_of(mut found: Vec<MessageId>) -> Result<MessageId, Refusal> {
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Err(unknown()),
        [message] => Ok(*message),
        _ => Err(Refusal::new(Reason::AmbiguousId, "more than one message begins like this")),
    }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::NotFound, "nothing is known of such a message at this node")
}

/// A recipient that is asked for; `None`: all.
pub(super) fn code(text: &str) -> Result<Option<BureauCode>, Refusal> {
    match text {
        "" => Ok(None),
        text => match text.parse() {
            Ok(code) => Ok(Some(code)),
            Err(error) => Err(malformed("recipient", format!("{error}"))),
        },
    }
}

fn malformed(field: &str, description: String) -> Refusal {
    let (field, reason) = (field.to_owned(), Reason::Malformed);
    let violation = FieldViolation { field, description: description.clone(), reason };
    let refusal = Refusal::of_fields(vec![violation]);
    refusal.unwrap_or_else(|| Refusal::new(Reason::Malformed, description))
}

fn response(explained: Explained, bureau: BureauCode) -> ExplainMessageResponse {
    let manifest = explained.manifest.as_ref();
    let explanations = explained.explanations.into_iter();
    ExplainMessageResponse {
        message_id: explained.message.to_string(),
        origin: explained.origin.to_string(),
        lane: manifest.map(|manifest| manifest.lane.to_wire()).unwrap_or_default(),
        create_time: manifest.map(|manifest| manifest.created.to_wire()),
        expire_time: Some(explained.expires.to_wire()),
        explanations: explanations.map(|explanation| wire(explanation, bureau)).collect(),
    }
}

fn wire(explanation: explain::Explanation, bureau: BureauCode) -> Explanation {
    let holder = match explanation.place {
        Place::Here => Some(bureau),
        Place::Relay(holder) => Some(holder),
        Place::Recipient => Some(explanation.recipient),
        Place::Nowhere => None,
    };
    let (attachment_bytes, attachment_sent_bytes) = explanation.attachments.unwrap_or_default();
    let time = |time: Option<Timestamp>| time.map(Timestamp::to_wire);
    let mut wire = Explanation {
        recipient: explanation.recipient.to_string(),
        role: role(explanation.role).into(),
        state: state(explanation.state).into(),
        holder: holder.map(|holder| holder.to_string()).unwrap_or_default(),
        cause: cause(explanation.cause).into(),
        sentence: explanation.sentence,
        since_time: time(explanation.since),
        enqueue_time: time(explanation.waits_since),
        route: explanation.route,
        next_attempt_time: time(explanation.next_try),
        ahead: explanation.ahead.map(ahead),
        estimate_time: time(explanation.estimate),
        estimate_basis: explanation.estimate_basis,
        attachment_bytes,
        attachment_sent_bytes,
        inbox_number: explanation.inbox_number.unwrap_or_default(),
        advice: explanation.advice,
        ..Explanation::default()
    };
    if let Some(hop) = explanation.hop {
        wire.next_hop = hop.peer.to_string();
        wire.link_state = wire_link_state(hop.state).into();
        wire.link_since_time = Some(hop.since.to_wire());
        wire.failed_attempts = hop.failed_attempts;
        wire.last_reason = hop.last_reason;
        wire.rate_bytes_per_second = hop.rate;
    }
    wire
}

fn ahead(ahead: Ahead) -> QueueAhead {
    let messages = ahead.messages();
    let lanes = ahead.lanes.into_iter();
    let lane = |(lane, messages): (bureau_core::Lane, u64)| QueueAheadLane {
        lane: lane.to_wire(),
        messages,
    };
    QueueAhead { messages, bytes: ahead.bytes, more: ahead.more, lanes: lanes.map(lane).collect() }
}

const fn role(role: Role) -> NodeRole {
    match role {
        Role::Origin => NodeRole::Origin,
        Role::Relay => NodeRole::Relay,
        Role::Recipient => NodeRole::Recipient,
    }
}

const fn state(state: State) -> DeliveryState {
    match state {
        State::Queued => DeliveryState::Queued,
        State::Relayed => DeliveryState::Relayed,
        State::Delivered => DeliveryState::Delivered,
        State::Acknowledged => DeliveryState::Acknowledged,
        State::Refused => DeliveryState::Refused,
        State::Expired => DeliveryState::Expired,
        State::Held => DeliveryState::Held,
        State::Recalled => DeliveryState::Recalled,
    }
}

const fn cause(cause: Cause) -> ExplanationCause {
    match cause {
        Cause::Delivered => ExplanationCause::Delivered,
        Cause::Acknowledged => ExplanationCause::Acknowledged,
        Cause::AttachmentsNotReleased => ExplanationCause::AttachmentsNotReleased,
        Cause::Refused => ExplanationCause::Refused,
        Cause::Expired => ExplanationCause::Expired,
        Cause::Recalled => ExplanationCause::Recalled,
        Cause::HeldByOperator => ExplanationCause::HeldByOperator,
        Cause::Scheduled => ExplanationCause::Scheduled,
        Cause::Quarantined => ExplanationCause::Quarantined,
        Cause::PeerHeld => ExplanationCause::PeerHeld,
        Cause::WithRelay => ExplanationCause::WithRelay,
        Cause::NoRoute => ExplanationCause::NoRoute,
        Cause::OnlyWayBack => ExplanationCause::OnlyWayBack,
        Cause::LinkDown => ExplanationCause::LinkDown,
        Cause::LinkConnecting => ExplanationCause::LinkConnecting,
        Cause::InFlight => ExplanationCause::InFlight,
        Cause::AttachmentsUnderWay => ExplanationCause::AttachmentsUnderWay,
        Cause::AttachmentsWaitForHours => ExplanationCause::AttachmentsWaitForHours,
        Cause::AttachmentsAhead => ExplanationCause::AttachmentsAhead,
        Cause::PeerAskedToWait => ExplanationCause::PeerAskedToWait,
        Cause::KeptForLater => ExplanationCause::KeptForLater,
        Cause::AheadInQueue => ExplanationCause::AheadInQueue,
        Cause::Next => ExplanationCause::Next,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_one_message_or_none() {
        let (one, other) = (MessageId([1; 32]), MessageId([2; 32]));
        assert_eq!(one_of(vec![one, one]).unwrap(), one);
        assert_eq!(one_of(vec![other, one]).unwrap_err().reason, Reason::AmbiguousId);
        assert_eq!(one_of(Vec::new()).unwrap_err().reason, Reason::NotFound);
    }
}
