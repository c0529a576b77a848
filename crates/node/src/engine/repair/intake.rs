//! Statements that a link brought: verified, kept where they are for this bureau, passed on where it
//! relays, and answered where a recipient misses what this bureau sent.

use std::sync::Arc;

use bureau_core::{
    BureauCode, Reason, Timestamp, Verified,
    high_water::{HighWater, Need},
};
use bureau_proto::link::v1 as wire;
use bureau_store::contract::{Operation, Outcome};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Repair, Statement, put, repair_after_ms};
use crate::engine::{Engine, outbound::End};

/// Statements in one frame.
pub const STATEMENTS_PER_FRAME_MAX: usize = 64;
/// Frames of statements that wait to be verified: the reader waits then, and the peer with it.
pub const STATEMENT_FRAMES_MAX: usize = 4;
/// How old a request to send again may be: what is older was held back by somebody, and the
/// recipient has asked anew.
const NEED_AGE_MS_MAX: i64 = 15 * 60 * 1000;
/// Counts whose last request is remembered; then all are forgotten.
const REFILLS_MAX: usize = 8192;

/// Statements of one frame.
#[derive(Debug)]
pub enum Brought {
    /// What origins sent.
    Sent(wire::HighWaterBatch),
    /// What recipients miss.
    Missing(wire::ShortfallBatch),
}

impl Brought {
    fn statements(self) -> (Vec<Bytes>, bool) {
        match self {
            Self::Sent(batch) => (batch.high_waters, true),
            Self::Missing(batch) => (batch.shortfalls, false),
        }
    }
}

/// Takes in what a session's reader hands over, until the session ends.
pub async fn run(
    engine: &Arc<Engine>,
    peer: BureauCode,
    mut brought: mpsc::Receiver<Brought>,
) -> End {
    while let Some(brought) = brought.recv().await {
        if let Err(end) = take(engine, peer, brought).await {
            return end;
        }
    }
    End::part_ended()
}

/// What a frame holds, verified.
#[derive(Default)]
struct Heard {
    sent: Vec<Verified<HighWater>>,
    missing: Vec<Verified<Need>>,
    refused: Vec<Reason>,
}

async fn take(engine: &Engine, peer: BureauCode, brought: Brought) -> Result<(), End> {
    let (statements, of_origins) = brought.statements();
    let (verifier, now) = (engine.trust.verifier(), engine.clock.now());
    let heard = engine.machine.offload(move || {
        let mut heard = Heard::default();
        if statements.len() > STATEMENTS_PER_FRAME_MAX {
            heard.refused.push(Reason::TooLarge);
            return heard;
        }
        for statement in statements {
            let verified = if of_origins {
                verifier.high_water(statement, now).map(|sent| heard.sent.push(sent))
            } else {
                verifier.need(statement, now).map(|need| heard.missing.push(need))
            };
            heard.refused.extend(verified.err());
        }
        heard
    });
    let heard = heard.await.map_err(|error| {
        tracing::error!(event = "task_failed", task = "repair", error = %error);
        End::of_link(Reason::Internal, "a task failed")
    })?;
    for reason in heard.refused {
        engine.metrics.refused("link", reason.as_str());
        tracing::warn!(event = "statement_rejected", peer = %peer, reason = %reason);
    }
    for sent in heard.sent {
        take_sent(engine, sent).await?;
    }
    for need in heard.missing {
        take_missing(engine, need, now).await?;
    }
    Ok(())
}

/// What an origin sent: kept where it is for this bureau, passed on otherwise.
async fn take_sent(engine: &Engine, sent: Verified<HighWater>) -> Result<(), End> {
    let mark = sent.mark();
    if mark.count.recipient == engine.bureau() {
        let operations = vec![Operation::TakeMark(Box::new(sent))];
        let taken = engine.store.commit(operations).await;
        return taken.map(|_| ()).map_err(|error| End::of_store(&error));
    }
    if relays(engine) && mark.count.origin != engine.bureau() {
        put(engine, Statement::Sent(mark.count), mark.time, sent.encode());
    }
    Ok(())
}

/// What a recipient misses: sent again where it is this bureau's, passed on otherwise.
async fn take_missing(engine: &Engine, need: Verified<Need>, now: Timestamp) -> Result<(), End> {
    let said = need.shortfall();
    if said.count.origin == engine.bureau() {
        let every_ms = repair_after_ms(engine) / 2;
        let in_time = now.since(said.time) <= NEED_AGE_MS_MAX;
        if in_time && engine.repair.may_refill(&need, now, every_ms) {
            refill(engine, need, now).await?;
        }
        return Ok(());
    }
    if relays(engine) && said.count.recipient != engine.bureau() {
        put(engine, Statement::Missing(said.count), said.time, need.encode());
    }
    Ok(())
}

fn relays(engine: &Engine) -> bool {
    engine.trust.roster().member(&engine.bureau()).is_ok_and(|member| member.relay)
}

impl Repair {
    /// Whether a request is newer than the last one of its count, and not too soon after it.
    fn may_refill(&self, need: &Verified<Need>, now: Timestamp, every_ms: i64) -> bool {
        let count = need.shortfall().count;
        let mut refills = self.refills.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if refills.get(&count).is_some_and(|last| now.since(*last) < every_ms) {
            return false;
        }
        if refills.len() >= REFILLS_MAX {
            refills.clear();
        }
        refills.insert(count, now);
        true
    }
}

/// Sends again what is here of it.
async fn refill(engine: &Engine, need: Verified<Need>, now: Timestamp) -> Result<(), End> {
    let said = need.shortfall().clone();
    let (recipient, lane) = (said.count.recipient, said.count.lane);
    let (mut queued, mut gone, mut after) = (0, 0, 0);
    loop {
        let operation = Operation::Refill { need: Box::new(need.clone()), after, now };
        let outcomes = engine.store.commit(vec![operation]).await;
        let outcome = outcomes.map_err(|error| End::of_store(&error))?.into_iter().next();
        let Some(Outcome::Refilled(refilled)) = outcome else { break };
        queued += refilled.queued;
        gone += refilled.gone;
        after = refilled.last;
        if after == 0 {
            break;
        }
    }
    if queued > 0 {
        engine.metrics.refilled(queued);
        tracing::warn!(event = "refill_begun", recipient = %recipient, lane = %lane, messages = queued);
    }
    if gone > 0 {
        tracing::error!(
            event = "refill_impossible",
            recipient = %recipient, lane = %lane, messages = gone
        );
    }
    Ok(())
}
