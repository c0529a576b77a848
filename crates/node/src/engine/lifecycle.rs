//! What operators and senders do with a message on its way: hold it back, release it, have it tried
//! again, take it back, send it anew; and hold a peer. What each did is logged with its desk.

use bureau_core::{BureauCode, DeskName, MessageId, Reason, envelope::Content};
use bureau_net::Refusal;
use bureau_proto::envelope::v1::Body;
use bureau_store::contract::{
    Held, Hold, HoldReason, NOTE_BYTES_MAX, Operation, Outcome, Recall, Release, Role, State,
    Tracked, TrackedRecipient, Turned,
};
use bytes::Bytes;
use prost::Message as _;

use super::{Engine, store_refusal, submission::Draft, transit::Slip};

/// What was done for one (message, recipient).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub recipient: BureauCode,
    /// What.
    pub done: Done,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// What the store did.
    Turned(Turned),
    /// It is held back: it must be released first.
    Held,
    /// It was sent anew under this id, by this call.
    Requeued(MessageId),
    /// It was sent anew under this id before.
    RequeuedBefore(MessageId),
    /// Its content is not here any more.
    Gone,
}

/// It waits here, and is tried now.
const TRIED: Done = Done::Turned(Turned::Done { may_have_left: false });

/// Holds back what waits here of a message, for one recipient or for all.
///
/// # Errors
/// What the store refuses with.
pub async fn hold(
    engine: &Engine,
    by: &DeskName,
    message: MessageId,
    recipient: Option<BureauCode>,
    note: &str,
) -> Result<Vec<Deed>, Refusal> {
    let held = Held {
        reason: HoldReason::Operator,
        since: engine.clock.now(),
        until: None,
        desk: Some(by.clone()),
        note: cut(note),
    };
    let recipients = recipients(engine, message, recipient, is_carried).await?;
    let deeds = hold_as(engine, message, recipients, held).await?;
    log(&deeds, |deed| {
        tracing::info!(event = "message_held", message = %message, recipient = %deed.recipient,
            reason = HoldReason::Operator.as_str(), desk = %by);
    });
    Ok(deeds)
}

/// Sets a message aside that links end over or that cannot be read: the line behind it moves on.
///
/// # Errors
/// What the store refuses with.
pub async fn quarantine(
    engine: &Engine,
    message: MessageId,
    recipients: Vec<BureauCode>,
    why: &str,
) -> Result<(), Refusal> {
    let held = Held {
        reason: HoldReason::Poison,
        since: engine.clock.now(),
        until: None,
        desk: None,
        note: cut(why),
    };
    let deeds = hold_as(engine, message, recipients, held).await?;
    log(&deeds, |deed| {
        tracing::error!(event = "message_quarantined", message = %message,
            recipient = %deed.recipient, reason = %why);
    });
    Ok(())
}

async fn hold_as(
    engine: &Engine,
    message: MessageId,
    recipients: Vec<BureauCode>,
    held: Held,
) -> Result<Vec<Deed>, Refusal> {
    let slips: Vec<Slip> = recipients.iter().map(|recipient| (message, *recipient)).collect();
    let withdrawal = engine.links.transit().withdraw(slips);
    let operation = |recipient: &BureauCode| {
        let (held, recipient) = (held.clone(), *recipient);
        let may_have_left = withdrawal.may_have_left((message, recipient));
        Operation::Hold(Box::new(Hold { message, recipient, held, may_have_left }))
    };
    let operations = recipients.iter().map(operation).collect();
    commit(engine, message, &recipients, operations).await
}

/// Lets go what is held back of a message, for one recipient or for all.
///
/// # Errors
/// What the store refuses with.
pub async fn release(
    engine: &Engine,
    by: &DeskName,
    message: MessageId,
    recipient: Option<BureauCode>,
) -> Result<Vec<Deed>, Refusal> {
    let now = engine.clock.now();
    let recipients = recipients(engine, message, recipient, is_carried).await?;
    let operation = |recipient: &BureauCode| {
        let (recipient, when_due) = (*recipient, false);
        Operation::Release(Box::new(Release { message, recipient, when_due, now }))
    };
    let operations = recipients.iter().map(operation).collect();
    let deeds = commit(engine, message, &recipients, operations).await?;
    log(&deeds, |deed| {
        tracing::info!(event = "message_released", message = %message,
            recipient = %deed.recipient, reason = HoldReason::Operator.as_str(), desk = %by);
    });
    Ok(deeds)
}

/// Has what waits here of a message offered again at once, whatever put it off.
///
/// # Errors
/// What the store refuses with.
pub async fn retry(
    engine: &Engine,
    by: &DeskName,
    message: MessageId,
    recipient: Option<BureauCode>,
) -> Result<Vec<Deed>, Refusal> {
    let tracked = tracks(engine, message).await?;
    let (mut deeds, mut positions) = (Vec::new(), Vec::new());
    for track in tracked.iter().flat_map(|tracked| &tracked.recipients) {
        if !is_carried(track) || recipient.is_some_and(|only| only != track.recipient) {
            continue;
        }
        let done = match (track.state, track.position) {
            (State::Queued, Some(position)) => {
                positions.push(position);
                tracing::info!(event = "message_retried", message = %message,
                    recipient = %track.recipient, desk = %by);
                TRIED
            }
            (State::Held, _) => Done::Held,
            (state, _) => Done::Turned(Turned::NotHere(state, track.holder)),
        };
        deeds.push(Deed { message, recipient: track.recipient, done });
    }
    if !positions.is_empty() {
        engine.links.transit().retry(&positions);
        engine.links.wake_all();
    }
    Ok(deeds)
}

/// Takes an own message back where it waits here, for some recipients or, where none is named, for
/// all. What is answered as done never leaves.
///
/// # Errors
/// What the store refuses with.
pub async fn recall(
    engine: &Engine,
    by: &DeskName,
    message: MessageId,
    only: &[BureauCode],
) -> Result<Vec<Deed>, Refusal> {
    let now = engine.clock.now();
    let named = |track: &TrackedRecipient| {
        track.role == Role::Origin && (only.is_empty() || only.contains(&track.recipient))
    };
    let mut recipients = recipients(engine, message, None, named).await?;
    // Who is named and no recipient is answered all the same.
    let strangers: Vec<_> = only.iter().filter(|code| !recipients.contains(code)).collect();
    recipients.extend(strangers);
    let slips: Vec<Slip> = recipients.iter().map(|recipient| (message, *recipient)).collect();
    let withdrawal = engine.links.transit().withdraw(slips);
    let operation = |recipient: &BureauCode| {
        let (recipient, desk) = (*recipient, by.clone());
        let may_have_left = withdrawal.may_have_left((message, recipient));
        Operation::Recall(Box::new(Recall { message, recipient, desk, may_have_left, now }))
    };
    let operations = recipients.iter().map(operation).collect();
    let deeds = commit(engine, message, &recipients, operations).await?;
    log(&deeds, |deed| {
        tracing::info!(event = "message_recalled", message = %message,
            recipient = %deed.recipient, desk = %by);
    });
    Ok(deeds)
}

/// Holds a peer, or lets it go. `None`: there is no such peer.
///
/// # Errors
/// What the store refuses with.
pub async fn hold_peer(
    engine: &Engine,
    by: &DeskName,
    peer: BureauCode,
    note: Option<&str>,
) -> Result<Option<Turned>, Refusal> {
    if !engine.links.knows(peer) {
        return Ok(None);
    }
    let held = note.map(|note| Held {
        reason: HoldReason::Operator,
        since: engine.clock.now(),
        until: None,
        desk: Some(by.clone()),
        note: cut(note),
    });
    let operation = Operation::HoldPeer { peer, held: held.clone().map(Box::new) };
    let outcome = engine.store.commit(vec![operation]).await;
    let outcome = outcome.map_err(|error| store_refusal(&error))?.pop();
    let Some(Outcome::Turned(turned)) = outcome else { return Err(fault()) };
    if matches!(turned, Turned::Done { .. }) {
        match &held {
            Some(_) => tracing::warn!(event = "peer_held", peer = %peer, desk = %by),
            None => tracing::info!(event = "peer_released", peer = %peer, desk = %by),
        }
        engine.links.hold(peer, held);
    }
    Ok(Some(turned))
}

/// Sends anew what ended undelivered: one new message to those recipients, of the same content,
/// that replaces the old one. What is held back is released instead. Asked again, it says what was
/// sent before.
///
/// # Errors
/// What accepting a message is refused with.
pub async fn requeue(
    engine: &Engine,
    by: &DeskName,
    message: MessageId,
    recipient: Option<BureauCode>,
) -> Result<Vec<Deed>, Refusal> {
    let Some(tracked) = tracks(engine, message).await? else { return Ok(Vec::new()) };
    let (mut deeds, mut dead) = (Vec::new(), Vec::new());
    for track in &tracked.recipients {
        if !is_carried(track) || recipient.is_some_and(|only| only != track.recipient) {
            continue;
        }
        let recipient = track.recipient;
        match &track.dead {
            _ if track.state == State::Held => {
                deeds.extend(release(engine, by, message, Some(recipient)).await?);
            }
            Some(letter) => match &letter.requeued {
                Some(new) => {
                    let done = Done::RequeuedBefore(new.message);
                    deeds.push(Deed { message, recipient, done });
                }
                None => dead.push(recipient),
            },
            None => {
                let done = Done::Turned(Turned::NotHere(track.state, track.holder));
                deeds.push(Deed { message, recipient, done });
            }
        }
    }
    if !dead.is_empty() {
        let done = match draft(engine, by, &tracked, &dead) {
            Some(draft) => Done::Requeued(engine.scribe.submit(draft).await?.message),
            None => Done::Gone,
        };
        if let Done::Requeued(new) = done {
            tracing::info!(event = "message_requeued", message = %message, new = %new,
                recipients = dead.len(), desk = %by);
        }
        deeds.extend(dead.into_iter().map(|recipient| Deed { message, recipient, done }));
    }
    deeds.sort_by_key(|deed| deed.recipient);
    Ok(deeds)
}

/// What is sent anew lives at least so long, however short the first did.
const REQUEUED_LIFETIME_MS: i64 = 3600 * 1000;

/// The same content once more, for those it did not reach, with as long to live as it had, or an
/// hour.
fn draft(
    engine: &Engine,
    by: &DeskName,
    tracked: &Tracked,
    recipients: &[BureauCode],
) -> Option<Draft> {
    let manifest = tracked.manifest.as_ref()?;
    let body = tracked.body.clone();
    if body.len() as u64 != manifest.body.size {
        return None;
    }
    let body =
        Body { replaces: Bytes::copy_from_slice(&tracked.message.0), ..Body::decode(body).ok()? };
    let body = Bytes::from(body.encode_to_vec());
    let lifetime_ms = manifest.expires.since(manifest.created).max(REQUEUED_LIFETIME_MS);
    let lifetime_ms = lifetime_ms.min(engine.config.limits.message.lifetime_ms);
    Some(Draft {
        recipients: recipients.to_vec(),
        lane: manifest.lane,
        kind: manifest.kind,
        handling: manifest.handling,
        exercise: manifest.exercise,
        suite: manifest.suite,
        expires: engine.clock.now().plus_ms(lifetime_ms),
        content: Content::of(&body),
        attachments: manifest.attachments.clone(),
        body,
        desk: by.clone(),
        request: None,
        send_at: None,
        requeue_of: Some(tracked.message),
    })
}

/// What a node carries, and does not merely receive.
fn is_carried(track: &TrackedRecipient) -> bool {
    track.role != Role::Recipient
}

async fn tracks(engine: &Engine, message: MessageId) -> Result<Option<Tracked>, Refusal> {
    engine.store.track(message).await.map_err(|error| store_refusal(&error))
}

async fn recipients(
    engine: &Engine,
    message: MessageId,
    only: Option<BureauCode>,
    wanted: impl Fn(&TrackedRecipient) -> bool,
) -> Result<Vec<BureauCode>, Refusal> {
    if let Some(only) = only {
        return Ok(vec![only]);
    }
    let tracked = tracks(engine, message).await?;
    let all = tracked.map(|tracked| tracked.recipients).unwrap_or_default();
    Ok(all.iter().filter(|track| wanted(track)).map(|track| track.recipient).collect())
}

async fn commit(
    engine: &Engine,
    message: MessageId,
    recipients: &[BureauCode],
    operations: Vec<Operation>,
) -> Result<Vec<Deed>, Refusal> {
    let outcomes = engine.store.commit(operations).await;
    let outcomes = outcomes.map_err(|error| store_refusal(&error))?;
    let deed = |(recipient, outcome): (&BureauCode, Outcome)| match outcome {
        Outcome::Turned(turned) => {
            Ok(Deed { message, recipient: *recipient, done: Done::Turned(turned) })
        }
        _ => Err(fault()),
    };
    recipients.iter().zip(outcomes).map(deed).collect()
}

fn log(deeds: &[Deed], write: impl Fn(&Deed)) {
    let done = |deed: &&Deed| matches!(deed.done, Done::Turned(Turned::Done { .. }));
    deeds.iter().filter(done).for_each(write);
}

fn fault() -> Refusal {
    tracing::error!(event = "internal_fault", outcome = "no turn");
    Refusal::new(Reason::Internal, "a fault of this software; the log has more")
}

/// A note that fits, on one line.
fn cut(note: &str) -> String {
    let mut short: String = note.chars().filter(|c| !c.is_control()).collect();
    while short.len() > NOTE_BYTES_MAX {
        short.pop();
    }
    short
}
