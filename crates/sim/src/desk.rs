//! The desks: they send, try again with the same request where they do not know, read what arrives,
//! and take some of it over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bureau_core::{BureauCode, DeskName, Lane, Reason, Timestamp, envelope::Content};
use bureau_node::engine::{
    Engine,
    scribe::Takeover,
    submission::{self, Rules},
};
use bureau_proto::desk::v1::{AttachmentToSend, SubmitRequest};
use bureau_store::contract::{AttachmentHeld, Source};
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{World, book::Attempt, chance::Chance, node::Node};

/// How long a desk waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Piece of an upload.
const PIECE_BYTES: usize = 16 * 1024;

/// What a message is to be.
pub(crate) struct Wish {
    pub(crate) recipients: Vec<BureauCode>,
    pub(crate) lane: Lane,
    pub(crate) bytes: usize,
    pub(crate) attachment: Option<usize>,
    pub(crate) expires: Option<Timestamp>,
}

pub(crate) fn desk() -> Result<DeskName, String> {
    "desk".parse().map_err(|error| format!("{error}"))
}

/// What came of asking.
enum Answer {
    Accepted(bureau_core::MessageId),
    Later,
    Never(Reason),
}

/// Sends what a plan says a bureau sends, at times by chance.
pub(crate) async fn send_all(world: Arc<World>, node: Arc<Node>) {
    let mut chance = Chance::new(world.plan.seed, 100 + node.index as u64);
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..world.plan.messages {
        let most = world.plan.seconds * 1000 / world.plan.messages.max(1) * 3 / 2;
        // Sometimes several at one time.
        if !chance.one_in(3) {
            sleep(Duration::from_millis(chance.between(0, most))).await;
        }
        let wish = wish(&world, &node, &mut chance);
        let seed = chance.next();
        open.spawn(send(Arc::clone(&world), Arc::clone(&node), wish, seed));
    }
    while open.join_next().await.is_some() {}
}

fn wish(world: &World, node: &Node, chance: &mut Chance) -> Wish {
    let others: Vec<BureauCode> =
        world.plan.bureaus.iter().map(|b| b.code).filter(|code| *code != node.code).collect();
    let count = if chance.one_in(3) { chance.index(others.len()) + 1 } else { 1 };
    let first = chance.index(others.len());
    let recipients = (0..count).map(|n| others[(first + n) % others.len()]).collect();
    let lane = Lane::ALL[chance.index(4)];
    let bytes = match chance.index(10) {
        0..6 => chance.between(1, 600),
        6..8 => chance.between(600, 4000),
        8 => chance.between(4000, 20_000),
        _ => chance.between(20_000, 60_000),
    };
    let attachment = chance.one_in(8).then(|| chance.between(1, 60_000) as usize);
    let lifetime_ms = chance.between(2_000, 120_000) as i64;
    let expires = chance.one_in(6).then(|| node.true_time().plus_ms(lifetime_ms));
    Wish { recipients, lane, bytes: bytes as usize, attachment, expires }
}

/// Sends one message, and asks again until it is accepted or cannot be.
pub(crate) async fn send(world: Arc<World>, node: Arc<Node>, wish: Wish, seed: u64) {
    let mut chance = Chance::new(seed, 3);
    let id = uuid::Builder::from_random_bytes(chance.bytes(16).try_into().unwrap_or_default());
    let mut content = id.as_uuid().to_string().into_bytes();
    content.extend(chance.bytes(wish.bytes).iter().map(|byte| b'a' + byte % 26));
    let attachment = wish.attachment.map(|bytes| Bytes::from(chance.bytes(bytes)));
    let number = world.book.attempt(Attempt {
        origin: node.index,
        recipients: wish.recipients.clone(),
        lane: wish.lane,
        content: Bytes::from(content.clone()),
        attachment: attachment.clone(),
        short: wish.expires.is_some(),
        accepted: None,
        accepted_at: None,
    });
    let attachments = attachment.iter().map(|bytes| AttachmentToSend {
        digest: Bytes::copy_from_slice(&Content::of(bytes).digest),
        size: bytes.len() as u64,
        name: "file".to_owned(),
        media_type: "application/octet-stream".to_owned(),
    });
    let request = SubmitRequest {
        request_id: id.as_uuid().to_string(),
        recipients: wish.recipients.iter().map(ToString::to_string).collect(),
        lane: wish.lane.to_wire(),
        content: content.into(),
        expire_time: wish.expires.map(Timestamp::to_wire),
        attachments: attachments.collect(),
        ..SubmitRequest::default()
    };
    loop {
        match ask(&node, &request, attachment.as_ref()).await {
            Answer::Accepted(id) => {
                world.book.accepted(number, id);
                return;
            }
            Answer::Never(reason) => {
                world.book.note(&format!("request {number} is refused: {reason}"));
                return;
            }
            Answer::Later => sleep(Duration::from_millis(chance.between(200, 3000))).await,
        }
    }
}

async fn ask(node: &Arc<Node>, request: &SubmitRequest, attachment: Option<&Bytes>) -> Answer {
    let Some((engine, died)) = node.engine() else { return Answer::Later };
    let asked = async {
        if let Some(bytes) = attachment {
            upload(&engine, bytes).await?;
        }
        submit(&engine, request.clone()).await
    };
    tokio::select! {
        biased;
        () = died.cancelled() => Answer::Later,
        answer = timeout(PATIENCE, asked) => match answer {
            Err(_elapsed) => Answer::Later,
            Ok(Ok(id)) => Answer::Accepted(id),
            // What may be different the next time, or may have happened all the same.
            Ok(Err(None)) => Answer::Later,
            Ok(Err(Some(reason))) => Answer::Never(reason),
        },
    }
}

async fn upload(engine: &Arc<Engine>, bytes: &Bytes) -> Result<(), Option<Reason>> {
    let content = Content::of(bytes);
    let from_desk = Source::Desk(desk().map_err(|_| Some(Reason::Internal))?);
    loop {
        let held =
            engine.store.attachment(from_desk.clone(), content.digest).await.map_err(|_| None)?;
        let offset = match held {
            AttachmentHeld::Whole(_) => return Ok(()),
            AttachmentHeld::Part(offset) => offset,
            AttachmentHeld::Mismatch => 0,
        };
        let from = usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
        let piece = bytes.slice(from..(from + PIECE_BYTES).min(bytes.len()));
        engine
            .store
            .attachment_add(from_desk.clone(), content, offset, piece)
            .await
            .map_err(|_| None)?;
    }
}

async fn submit(
    engine: &Arc<Engine>,
    request: SubmitRequest,
) -> Result<bureau_core::MessageId, Option<Reason>> {
    let roster = engine.trust.roster();
    let limits = &engine.config.limits.message;
    let rules = Rules { bureau: engine.bureau(), roster: &roster, limits, now: engine.clock.now() };
    let desk = desk().map_err(|_| Some(Reason::Internal))?;
    let draft = submission::check(request, &desk, rules);
    let draft = draft.map_err(|refusal| Some(refusal.reason))?;
    match engine.scribe.submit(draft).await {
        Ok(accepted) => Ok(accepted.message),
        Err(refusal) => Err(match refusal.reason {
            Reason::RequestIdReused | Reason::Internal => Some(refusal.reason),
            _ => None,
        }),
    }
}

/// Reads a bureau's inbox for ever, and takes some of it over.
pub(crate) async fn read_inbox(world: Arc<World>, node: Arc<Node>) {
    let mut chance = Chance::new(world.plan.seed, 200 + node.index as u64);
    let mut after = 0;
    let mut taken = BTreeMap::new();
    loop {
        sleep(Duration::from_millis(chance.between(300, 1500))).await;
        let Some((engine, died)) = node.engine() else { continue };
        let round = read_once(&world, &node, &engine, &mut after, &mut taken, &mut chance);
        cut_short(&died, round).await;
    }
}

async fn cut_short(died: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = died.cancelled() => {}
        _ = timeout(PATIENCE, work) => {}
    }
}

async fn read_once(
    world: &World,
    node: &Node,
    engine: &Arc<Engine>,
    after: &mut u64,
    taken: &mut BTreeMap<u64, Takeover>,
    chance: &mut Chance,
) {
    let Ok(arrived) = engine.store.inbox(*after, 64, true, false).await else { return };
    for arrived in arrived {
        world.book.arrived(node.index, arrived.number, arrived.message);
        *after = arrived.number;
        if let (true, Ok(desk)) = (chance.one_in(2), desk()) {
            let takeover = Takeover { message: arrived.message, slip: arrived.slip, desk };
            taken.insert(arrived.number, takeover);
        }
    }
    // Asked for until it is answered: who does not know, asks again.
    let open: Vec<_> = taken.iter().map(|(number, takeover)| (*number, takeover.clone())).collect();
    for (number, takeover) in open {
        if let Ok(answer) = engine.scribe.acknowledge(takeover).await {
            if answer.is_none() {
                let text = format!("{} does not know what it gave out: {number}", node.code);
                world.book.violation("inbox-kept", &text);
            }
            taken.remove(&number);
        }
    }
}
