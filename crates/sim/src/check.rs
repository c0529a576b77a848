//! What must hold: at every moment, and at the end when all is mended and nothing moves any more.
//! Each check has a name, so that it can be said which one caught what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bureau_core::{BureauCode, Lane, MessageId, envelope::Content, receipt::ReceiptKind};
use bureau_node::engine::{Engine, links::LinkState};
use bureau_proto::envelope::v1 as wire;
use bureau_store::contract::{Arrived, AttachmentHeld, Source, State, Tracked, TrackedRecipient};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep};

use crate::{World, book::Attempt, desk::desk, plan::Kind};

/// How often the moment is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long all may take to come to rest: a clock that was an hour ahead stands still for an hour.
const REST_MAX: Duration = Duration::from_secs(4 * 3600);
/// After this a parcel without an answer ends its link: by then none must be.
const STILL: Duration = Duration::from_secs(150);

/// Looks at every moment, for ever.
pub(crate) async fn watch(world: Arc<World>) {
    loop {
        sleep(LOOK).await;
        custody(&world).await;
    }
}

/// What a node knows of a message for a recipient.
async fn track(engine: &Arc<Engine>, id: MessageId, of: BureauCode) -> Option<TrackedRecipient> {
    let tracked = engine.store.track(id).await.ok()??;
    tracked.recipients.into_iter().find(|track| track.recipient == of)
}

/// Custody is never at nobody: what is accepted and not decided is at its origin, whole; and where
/// that relies on another, somebody has it.
async fn custody(world: &World) {
    let book = &world.book;
    let engines: Vec<_> = world.nodes.iter().map(|node| node.engine().map(|(e, _)| e)).collect();
    for attempt in book.attempts() {
        let (Some(id), Some(Some(origin))) = (attempt.accepted, engines.get(attempt.origin)) else {
            continue;
        };
        if world.decided().contains(&id) {
            continue;
        }
        let Ok(Some(tracked)) = origin.store.track(id).await else {
            book.violation("origin-keeps", &format!("{id} is not known at its origin"));
            continue;
        };
        let under_way =
            |track: &TrackedRecipient| matches!(track.state, State::Queued | State::Relayed);
        if !tracked.recipients.iter().any(under_way) {
            world.decided().insert(id);
        }
        for recipient in &attempt.recipients {
            let of = tracked.recipients.iter().find(|track| track.recipient == *recipient);
            let Some(of) = of else {
                let text = format!("{id} is not known at its origin for {recipient}");
                book.violation("origin-keeps", &text);
                continue;
            };
            if matches!(of.state, State::Queued | State::Relayed) {
                keeps_content(world, origin, &attempt, &tracked).await;
            }
            if of.state == State::Relayed && engines.iter().all(Option::is_some) {
                held_by_somebody(world, &engines, id, *recipient, attempt.origin).await;
            }
        }
    }
}

async fn keeps_content(world: &World, origin: &Arc<Engine>, attempt: &Attempt, tracked: &Tracked) {
    let body = wire::Body::decode(tracked.body.clone()).unwrap_or_default();
    let mut kept = body.content == attempt.content;
    if let (Some(bytes), Ok(desk)) = (&attempt.attachment, desk()) {
        let held = origin.store.attachment(Source::Desk(desk), Content::of(bytes).digest).await;
        kept &= matches!(held, Ok(AttachmentHeld::Whole(_)));
    }
    if !kept {
        let text = format!("{} waits, and its content is gone", tracked.message);
        world.book.violation("origin-keeps", &text);
    }
}

async fn held_by_somebody(
    world: &World,
    engines: &[Option<Arc<Engine>>],
    id: MessageId,
    recipient: BureauCode,
    origin: usize,
) {
    for (index, engine) in engines.iter().enumerate() {
        let Some(engine) = engine.as_ref().filter(|_| index != origin) else { continue };
        // Queued here, arrived, or given up with a receipt on its way home.
        match track(engine, id, recipient).await.map(|track| track.state) {
            None | Some(State::Relayed) => {}
            Some(_) => return,
        }
    }
    let text = format!("{id} for {recipient}: its origin relies on another, and nobody has it");
    world.book.violation("custody", &text);
}

/// Waits until nothing moves any more. What still does, where it takes too long.
pub(crate) async fn rest(world: &World) {
    let end = Instant::now() + REST_MAX;
    loop {
        let moving = moving(world).await;
        if moving.is_empty() {
            return;
        }
        if Instant::now() > end {
            for what in moving.iter().take(5) {
                world.book.violation("rest", what);
            }
            return;
        }
        sleep(LOOK).await;
    }
}

async fn moving(world: &World) -> Vec<String> {
    let mut moving = Vec::new();
    for node in &world.nodes {
        let Some((engine, _)) = node.engine() else {
            moving.push(format!("{} is down", node.code));
            continue;
        };
        for depth in engine.store.depths() {
            let (to, lane) = (depth.destination, depth.lane);
            moving.push(format!("{}: {} for {to} {lane} wait", node.code, depth.messages));
        }
        for to in engine.store.receipt_destinations() {
            moving.push(format!("{}: receipts for {to} wait", node.code));
        }
        for (peer, _, status) in engine.links.statuses() {
            if status.state != LinkState::Up {
                moving.push(format!("{}: no link to {peer}: {}", node.code, status.last_reason));
            }
        }
    }
    if !moving.is_empty() {
        return moving;
    }
    for attempt in world.book.attempts() {
        let Some((engine, _)) = world.nodes.get(attempt.origin).and_then(|node| node.engine())
        else {
            continue;
        };
        let Some(id) = attempt.accepted.filter(|id| !world.decided().contains(id)) else {
            continue;
        };
        for recipient in &attempt.recipients {
            let state = track(&engine, id, *recipient).await.map(|track| track.state);
            if matches!(state, Some(State::Relayed | State::Queued)) {
                moving.push(format!("{id} for {recipient}: its sender does not know: {state:?}"));
            }
        }
    }
    moving
}

/// Everything that must hold at the end.
pub(crate) async fn end(world: &World) {
    still(world).await;
    let mut inboxes = Vec::new();
    for node in &world.nodes {
        let Some((engine, _)) = node.engine() else {
            world.book.violation("rest", &format!("{} is down at the end", node.code));
            return;
        };
        inboxes.push(inbox(world, node.index, &engine).await);
    }
    let attempts = world.book.attempts();
    phantoms(world, &attempts, &inboxes);
    for attempt in &attempts {
        if let Some(id) = attempt.accepted {
            decided(world, attempt, id, &inboxes).await;
        }
    }
    if world.plan.kind == Kind::Calm {
        order(world, &attempts, &inboxes);
    }
}

/// With nothing to send the links stay, and nothing is without an answer.
async fn still(world: &World) {
    let up = || {
        let engines = world.nodes.iter().filter_map(|node| node.engine());
        let of = |engine: &Arc<Engine>| {
            let statuses = engine.links.statuses().into_iter();
            statuses.map(|(peer, _, status)| (peer, status.state, status.since)).collect::<Vec<_>>()
        };
        engines.map(|(engine, _)| of(&engine)).collect::<Vec<_>>()
    };
    let before = up();
    sleep(STILL).await;
    if before != up() {
        world.book.violation("still", "a link ended, or came up late, while nothing was sent");
    }
    for node in &world.nodes {
        let Some((engine, _)) = node.engine() else { continue };
        for (peer, _, status) in engine.links.statuses() {
            if status.in_flight > 0 {
                let text = format!("{}: {} to {peer} in flight", node.code, status.in_flight);
                world.book.violation("window", &text);
            }
        }
    }
}

type Inbox = BTreeMap<MessageId, Arrived>;

async fn inbox(world: &World, index: usize, engine: &Arc<Engine>) -> Inbox {
    let mut inbox = Inbox::new();
    let mut after = 0;
    let mut numbers = BTreeMap::new();
    loop {
        let Ok(page) = engine.store.inbox(after, 64, true, true).await else { break };
        let Some(last) = page.last() else { break };
        after = last.number;
        for arrived in page {
            numbers.insert(arrived.number, arrived.message);
            let (number, id) = (arrived.number, arrived.message);
            if inbox.insert(id, arrived).is_some() {
                let text = format!("{id} is twice in the inbox of {index}, again as {number}");
                world.book.violation("duplicate", &text);
            }
        }
    }
    // What a desk was shown stays under its number.
    for (number, id) in world.book.numbers(index) {
        if numbers.get(&number) != Some(&id) {
            let text = format!("{number} of {index} was {id}, and is not any more");
            world.book.violation("inbox-kept", &text);
        }
    }
    inbox
}

/// Nothing arrived that nobody sent, or at one for whom it was not, or under a second id.
fn phantoms(world: &World, attempts: &[Attempt], inboxes: &[Inbox]) {
    let by_content: BTreeMap<&Bytes, &Attempt> =
        attempts.iter().map(|attempt| (&attempt.content, attempt)).collect();
    let mut ids: BTreeMap<Bytes, BTreeSet<MessageId>> = BTreeMap::new();
    for (node, inbox) in world.nodes.iter().zip(inboxes) {
        for (id, arrived) in inbox {
            let body = wire::Body::decode(arrived.body.clone()).unwrap_or_default();
            let attempt = by_content.get(&body.content);
            if attempt.is_none_or(|attempt| !attempt.recipients.contains(&node.code)) {
                world.book.violation("phantom", &format!("{id} at {}", node.code));
            }
            ids.entry(body.content).or_default().insert(*id);
        }
    }
    for ids in ids.values().filter(|ids| ids.len() > 1) {
        world.book.violation("duplicate", &format!("one request arrived as {ids:?}"));
    }
}

/// What became of an accepted message, and that its sender knows just that.
async fn decided(world: &World, attempt: &Attempt, id: MessageId, inboxes: &[Inbox]) {
    let Some((origin, _)) = world.nodes.get(attempt.origin).and_then(|node| node.engine()) else {
        return;
    };
    for recipient in &attempt.recipients {
        let Some(index) = world.plan.index_of(*recipient) else { continue };
        let Some(track) = track(&origin, id, *recipient).await else {
            world.book.violation("lost", &format!("{id} for {recipient}: not known any more"));
            continue;
        };
        let said = |kind| track.receipts.iter().any(|receipt| receipt.kind == kind);
        let arrived = inboxes.get(index).and_then(|inbox| inbox.get(&id));
        let ok = match (arrived, track.state) {
            (Some(arrived), state) => {
                whole(world, attempt, arrived, index).await;
                match &arrived.acknowledged {
                    Some(_) => state == State::Acknowledged && said(ReceiptKind::Acknowledged),
                    None => state == State::Delivered && said(ReceiptKind::Delivered),
                }
            }
            // Only what could not wait may have been given up.
            (None, State::Expired) if attempt.short => said(ReceiptKind::Expired),
            (None, _) => {
                let text = format!("{id} for {recipient}: {:?}, and not there", track.state);
                world.book.violation("lost", &text);
                true
            }
        };
        if !ok {
            let text = format!(
                "{id} for {recipient} arrived (acknowledged: {}), and its sender has {:?}",
                arrived.is_some_and(|arrived| arrived.acknowledged.is_some()),
                track.state
            );
            world.book.violation("sender-learns", &text);
        }
    }
}

/// What arrived is what was sent.
async fn whole(world: &World, attempt: &Attempt, arrived: &Arrived, index: usize) {
    let body = wire::Body::decode(arrived.body.clone()).unwrap_or_default();
    let mut whole = body.content == attempt.content;
    if let Some(bytes) = &attempt.attachment {
        let engine = world.nodes.get(index).and_then(|node| node.engine());
        let Some((engine, _)) = engine else { return };
        let read =
            engine.store.attachment_read(Content::of(bytes).digest, 0, bytes.len() + 1).await;
        whole &= matches!(read, Ok(Some(read)) if read == *bytes);
    }
    if !whole {
        world.book.violation("content", &format!("{} is not what was sent", arrived.message));
    }
}

/// Where nothing went wrong, what a desk sends to one bureau in one lane arrives in its order; what
/// waits for its attachments may be overtaken.
fn order(world: &World, attempts: &[Attempt], inboxes: &[Inbox]) {
    let mut last: BTreeMap<(usize, BureauCode, Lane), (Instant, u64)> = BTreeMap::new();
    let mut accepted: Vec<&Attempt> = attempts.iter().filter(|a| a.attachment.is_none()).collect();
    accepted.sort_by_key(|attempt| attempt.accepted_at);
    for attempt in accepted {
        let (Some(id), Some(at)) = (attempt.accepted, attempt.accepted_at) else { continue };
        for recipient in &attempt.recipients {
            let index = world.plan.index_of(*recipient);
            let arrived = index.and_then(|index| inboxes.get(index)?.get(&id));
            let Some(arrived) = arrived else { continue };
            let lane = (attempt.origin, *recipient, attempt.lane);
            // Those of one moment have no order that a desk could know of.
            if let Some((before, number)) = last.insert(lane, (at, arrived.number))
                && before < at
                && number > arrived.number
            {
                world.book.violation("order", &format!("{id} overtook another of its lane"));
            }
        }
    }
}
