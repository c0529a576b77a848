//! What is stored, as desks and operators are shown it.

use bureau_core::{BureauCode, MessageId, Reason, Timestamp, envelope::SealingSuite, receipt};
use bureau_net::Refusal;
use bureau_proto::{desk::v1 as desk, envelope::v1::Body};
use bureau_store::contract::{
    Arrived, Held, HoldReason, KeptReceipt, State, Tracked, TrackedRecipient,
};
use bytes::Bytes;
use prost::Message as _;

/// An entry of the inbox, with its body where it was read.
pub(super) fn inbox_message(
    arrived: Arrived,
    quarantined: bool,
) -> Result<desk::InboxMessage, Refusal> {
    let body = body_of(arrived.manifest.suite, arrived.body.clone())?;
    let expires = arrived.manifest.expires;
    let id_text = |id: &Bytes| match MessageId::from_bytes(id) {
        Ok(id) => id.to_string(),
        Err(_) => String::new(),
    };
    let contents = arrived.manifest.attachments.iter();
    let attachments = contents.zip(&body.attachments).map(|(content, said)| desk::Attachment {
        name: said.name.clone(),
        media_type: said.media_type.clone(),
        size: content.size,
        digest: Bytes::copy_from_slice(&content.digest),
        quarantined,
    });
    Ok(desk::InboxMessage {
        attachments: attachments.collect(),
        content: body.content.clone(),
        media_type: match body.media_type.as_str() {
            "" => bureau_core::body::MEDIA_TYPE_DEFAULT.to_owned(),
            media_type => media_type.to_owned(),
        },
        purpose: body.purpose,
        case_reference: body.case_reference.clone(),
        in_reply_to: id_text(&body.in_reply_to),
        replaces: id_text(&body.replaces),
        visible_recipients: body.visible_recipients.clone(),
        expire_time: Some(expires.to_wire()),
        origin_desk: body.desk.clone(),
        entry: Some(inbox_entry(arrived, &body)),
    })
}

fn inbox_entry(arrived: Arrived, body: &Body) -> desk::InboxEntry {
    let manifest = arrived.manifest;
    let (acknowledge_time, acknowledge_desk) = match arrived.acknowledged {
        Some((time, desk)) => (Some(time.to_wire()), desk.to_string()),
        None => (None, String::new()),
    };
    desk::InboxEntry {
        number: arrived.number,
        message_id: arrived.message.to_string(),
        origin: manifest.origin.to_string(),
        lane: manifest.lane.to_wire(),
        kind: manifest.kind.into(),
        subject: body.subject.clone(),
        create_time: Some(manifest.created.to_wire()),
        deliver_time: Some(arrived.delivered.to_wire()),
        handling_code: manifest.handling.into(),
        exercise: manifest.exercise,
        content_size: body.content.len() as u64,
        acknowledge_time,
        acknowledge_desk,
        previous_hop: arrived.hop.to_string(),
        attachment_count: u32::try_from(manifest.attachments.len()).unwrap_or(u32::MAX),
    }
}

/// What became of a message.
pub(super) fn track(tracked: Tracked, bureau: BureauCode) -> Result<desk::TrackResponse, Refusal> {
    let subject = match &tracked.manifest {
        Some(manifest) => body_of(manifest.suite, tracked.body.clone())?.subject,
        None => String::new(),
    };
    let manifest = tracked.manifest.as_ref();
    let recipients = tracked.recipients.into_iter().map(|track| recipient(track, bureau));
    Ok(desk::TrackResponse {
        message_id: tracked.message.to_string(),
        lane: manifest.map(|manifest| manifest.lane.to_wire()).unwrap_or_default(),
        kind: manifest.map(|manifest| manifest.kind.into()).unwrap_or_default(),
        create_time: manifest.map(|manifest| manifest.created.to_wire()),
        expire_time: Some(tracked.expires.to_wire()),
        recipients: recipients.collect::<Result<_, _>>()?,
        subject,
        warn_time: tracked.warns.map(Timestamp::to_wire),
        send_time: tracked.send_at.map(Timestamp::to_wire),
    })
}

/// A state in the words of the contract.
pub(super) const fn delivery_state(state: State) -> desk::DeliveryState {
    use desk::DeliveryState;
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

fn recipient(
    track: TrackedRecipient,
    bureau: BureauCode,
) -> Result<desk::RecipientStatus, Refusal> {
    let holder = match track.state {
        State::Queued | State::Held => Some(bureau),
        State::Relayed => track.holder,
        State::Delivered | State::Acknowledged => Some(track.recipient),
        State::Refused | State::Expired | State::Recalled => None,
    };
    let state = delivery_state(track.state);
    let requeued = track.dead.and_then(|dead| dead.requeued);
    let recalled = track.recalled.as_ref().filter(|_| track.state == State::Recalled);
    let receipts = track.receipts.into_iter().map(receipt_entry);
    Ok(desk::RecipientStatus {
        recipient: track.recipient.to_string(),
        state: state.into(),
        holder: holder.map(|holder| holder.to_string()).unwrap_or_default(),
        reroutes: track.custody.reroutes,
        overdue_holder: track.custody.overdue_at.map(|code| code.to_string()).unwrap_or_default(),
        receipts: receipts.collect::<Result<_, _>>()?,
        hold: track.held.map(hold),
        recall_time: recalled.map(|recalled| recalled.time.to_wire()),
        recall_desk: recalled.map(|recalled| recalled.desk.to_string()).unwrap_or_default(),
        may_have_arrived: recalled.is_some_and(|recalled| recalled.may_have_left),
        requeued_as: requeued.map(|new| new.message.to_string()).unwrap_or_default(),
    })
}

fn hold(held: Held) -> desk::DeliveryHold {
    use desk::DeliveryHoldReason;
    desk::DeliveryHold {
        reason: match held.reason {
            HoldReason::Operator => DeliveryHoldReason::Operator,
            HoldReason::Scheduled => DeliveryHoldReason::Scheduled,
            HoldReason::Poison => DeliveryHoldReason::Poison,
        }
        .into(),
        since_time: Some(held.since.to_wire()),
        until_time: held.until.map(Timestamp::to_wire),
        desk: held.desk.map(|desk| desk.to_string()).unwrap_or_default(),
        note: held.note,
    }
}

fn receipt_entry(kept: KeptReceipt) -> Result<desk::ReceiptEntry, Refusal> {
    let statement = receipt::stored_statement(kept.receipt.clone()).map_err(unreadable)?;
    let text = |code: Option<BureauCode>| code.map(|code| code.to_string()).unwrap_or_default();
    Ok(desk::ReceiptEntry {
        kind: statement.kind.into(),
        signer: statement.signer.to_string(),
        time: Some(statement.time.to_wire()),
        receive_time: Some(kept.received.to_wire()),
        reason: statement.reason,
        advice: statement.advice,
        desk: statement.desk.map(|desk| desk.to_string()).unwrap_or_default(),
        previous_hop: text(statement.previous_hop),
        next_hop: text(statement.next_hop),
        signed_receipt: kept.receipt,
    })
}

/// The body of a stored message, which was checked before it was stored.
fn body_of(suite: SealingSuite, body: Bytes) -> Result<Body, Refusal> {
    match suite {
        SealingSuite::Open => Body::decode(body).map_err(|_| unreadable(Reason::Malformed)),
        SealingSuite::Unspecified => Err(unreadable(Reason::UnknownSuite)),
    }
}

fn unreadable(reason: Reason) -> Refusal {
    tracing::error!(event = "internal_fault", reason = %reason);
    Refusal::new(Reason::Internal, "a stored message cannot be read; the log has more")
}

/// The size of a page: what was asked for, within bounds.
///
/// # Errors
/// FIELD_INVALID where it is negative.
pub(super) fn page_size(asked: i32) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(50),
        Ok(size) => Ok(size.min(500)),
        Err(_) => Err(Refusal::new(Reason::FieldInvalid, "page_size must not be negative")),
    }
}
