//! Repair: origins say what they sent, recipients find what is missing of it, ask for it, and get it
//! again; and who forgot what it once signed begins anew.
//!
//! - [`gaps`]: what is missing, and what is due about it;
//! - [`outbox`]: statements on their way; [`intake`]: statements that a link brought;
//! - [`epochs`]: what a greeting tells of the memory of both sides.

pub mod epochs;
pub mod gaps;
pub mod intake;
pub mod outbox;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bureau_core::{
    BureauCode, Lane, Timestamp, Verified,
    high_water::{CountOf, HighWater, Mark, Need, Shortfall, stored_mark},
    limits::SPANS_MAX,
    ranges::Ranges,
    signing::{SignError, Signable},
};
use bureau_net::Refusal;
use bureau_store::contract::SentSoFar;
use tokio_util::sync::CancellationToken;

use self::{
    gaps::{Gap, Gaps, Step},
    outbox::{Outbox, Statement},
};
use super::{Engine, store_refusal};

/// How often it is looked what was sent and what is missing.
const PERIOD: Duration = Duration::from_secs(2);
/// What is said of one count is said again, where it changed, at most so often.
const SAY_EVERY_MS: i64 = 60_000;

/// What repair knows; all of it in memory.
#[derive(Debug, Default)]
pub struct Repair {
    /// Statements on their way.
    pub outbox: Outbox,
    gaps: Mutex<Gaps>,
    refills: Mutex<BTreeMap<CountOf, Timestamp>>,
}

impl Repair {
    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is missing now, by count, the oldest first.
    pub fn missing(&self) -> Vec<(CountOf, Gap)> {
        self.gaps().all().map(|(count, gap)| (*count, gap.clone())).collect()
    }
}

/// What was said of own counts.
type Said = BTreeMap<(BureauCode, Lane), (Mark, Timestamp)>;

/// Says what was sent and asks for what is missing, until it is cancelled.
pub async fn run(engine: Arc<Engine>, cancel: CancellationToken) {
    let mut said = Said::new();
    loop {
        for done in [say(&engine, &mut said).await, look(&engine).await] {
            if let Err(refusal) = done {
                tracing::warn!(event = "repair_failed", reason = %refusal.reason);
            }
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Says of each own count what left, where that changed.
async fn say(engine: &Engine, said: &mut Said) -> Result<(), Refusal> {
    let (now, epoch) = (engine.clock.now(), engine.store.epoch());
    let sent = engine.store.sent().await.map_err(|error| store_refusal(&error))?;
    let every_ms = SAY_EVERY_MS.min(repair_after_ms(engine) / 2);
    let mut due = Vec::new();
    for sent in sent {
        let queue = (sent.recipient, sent.lane);
        let count =
            CountOf { origin: engine.bureau(), recipient: sent.recipient, epoch, lane: sent.lane };
        let mark = mark(count, sent, now);
        let fresh = match said.get(&queue) {
            Some((before, at)) => {
                let same = Mark { time: before.time, ..mark.clone() } == *before;
                !same && now.since(*at) >= every_ms
            }
            None => true,
        };
        if fresh {
            said.insert(queue, (mark.clone(), now));
            due.push(HighWater::new(mark));
        }
    }
    for statement in sign(engine, due).await? {
        let mark = statement.mark();
        tracing::debug!(
            event = "high_water_said",
            recipient = %mark.count.recipient, lane = %mark.count.lane, sequence = mark.last
        );
        put(engine, Statement::Sent(mark.count), mark.time, statement.encode());
    }
    Ok(())
}

/// The statement of a count. What does not fit is left out so that nobody misses what may come.
fn mark(count: CountOf, sent: SentSoFar, time: Timestamp) -> Mark {
    let SentSoFar { first, last, slip, handed, mut voided, .. } = sent;
    voided.bound(SPANS_MAX);
    let all = handed.missing(first, last).without(&voided);
    let mut pending = Ranges::default();
    all.spans().take(SPANS_MAX).for_each(|(from, to)| pending.insert_span(from, to));
    // Nothing is said from the first on that would be one span too many.
    let cut = all.spans().nth(SPANS_MAX).map(|(from, _)| from.saturating_sub(1));
    let slip = slip.filter(|_| cut.is_none());
    Mark { count, first, last: cut.unwrap_or(last).max(first), slip, voided, pending, time }
}

/// Looks what is missing of the counts of others, and does what is due.
async fn look(engine: &Engine) -> Result<(), Refusal> {
    let counted = engine.store.counted().await.map_err(|error| store_refusal(&error))?;
    let mut missing = BTreeMap::new();
    for counted in counted {
        // It was verified before it was kept.
        let Ok(mark) = stored_mark(counted.statement) else { continue };
        let ranges = mark.missing(&counted.arrived);
        if !ranges.is_empty() {
            missing.insert(mark.count, ranges);
        }
    }
    let now = engine.clock.now();
    let steps = engine.repair.gaps().look(now, repair_after_ms(engine), &missing);
    let mut needs = Vec::new();
    for (count, step) in steps {
        match step {
            Step::Ask(missing) => needs.push(Need::new(Shortfall { count, missing, time: now })),
            Step::Open(gap) => opened(engine, &count, &gap),
            Step::Close { since, messages, open, asked } => {
                closed(&count, since, messages, (open, asked));
            }
        }
    }
    for need in sign(engine, needs).await? {
        let said = need.shortfall();
        tracing::warn!(
            event = "refill_asked",
            origin = %said.count.origin, lane = %said.count.lane,
            first = said.missing.first(), last = said.missing.last(),
            messages = said.missing.count()
        );
        put(engine, Statement::Missing(said.count), said.time, need.encode());
    }
    Ok(())
}

fn opened(engine: &Engine, count: &CountOf, gap: &Gap) {
    engine.metrics.gap();
    tracing::error!(
        event = "gap_open",
        origin = %count.origin, lane = %count.lane, epoch = %count.epoch,
        first = gap.missing.first(), last = gap.missing.last(), messages = gap.missing.count(),
        since = %gap.since
    );
}

fn closed(count: &CountOf, since: Timestamp, messages: u64, (open, asked): (bool, bool)) {
    if open {
        tracing::warn!(
            event = "gap_closed",
            origin = %count.origin, lane = %count.lane, messages, since = %since
        );
    }
    if asked {
        tracing::info!(
            event = "refill_done",
            origin = %count.origin, lane = %count.lane, messages, since = %since
        );
    }
}

/// Signs statements as one group, away from the reactor.
async fn sign<T: Signable + Send + 'static>(
    engine: &Engine,
    statements: Vec<T>,
) -> Result<Vec<Verified<T>>, Refusal> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let signer = engine.trust.signer();
    let signed = engine.machine.offload(move || {
        let mut group = signer.group();
        let tickets: Vec<_> = statements.into_iter().map(|one| group.add(one)).collect();
        let mut signed = group.sign()?;
        tickets.into_iter().map(|ticket| signed.take(ticket)).collect::<Result<_, SignError>>()
    });
    let signed = signed.await.map_err(|error| failed(&error))?;
    signed.map_err(|error| {
        tracing::error!(event = "sign_failed", error = %error);
        Refusal::new(bureau_core::Reason::Internal, "nothing can be signed now")
    })
}

fn failed(error: &tokio::task::JoinError) -> Refusal {
    tracing::error!(event = "task_failed", task = "repair", error = %error);
    Refusal::new(bureau_core::Reason::Internal, "a task failed")
}

/// Puts a statement on its way.
fn put(engine: &Engine, statement: Statement, time: Timestamp, signed: bytes::Bytes) {
    if engine.repair.outbox.put(statement, time, signed, engine.clock.now()) {
        engine.links.wake(&[statement.destination()], &engine.trust.roster());
    }
}

fn repair_after_ms(engine: &Engine) -> i64 {
    i64::try_from(engine.config.links.repair_after_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::Epoch;

    use super::*;

    #[test]
    fn what_does_not_fit_into_a_statement_is_missed_by_nobody() {
        let (mut handed, mut voided) = (Ranges::default(), Ranges::default());
        for number in 1..=500 {
            match number % 3 {
                0 => handed.insert(number),
                1 => voided.insert(number),
                _ => {}
            }
        }
        let count = CountOf {
            origin: "FR".parse().unwrap(),
            recipient: "KE".parse().unwrap(),
            epoch: Epoch([1; 16]),
            lane: Lane::Routine,
        };
        let sent = SentSoFar {
            recipient: count.recipient,
            lane: count.lane,
            first: 1,
            last: 498,
            slip: Some([1; 32]),
            handed: handed.clone(),
            voided,
        };
        let mark = mark(count, sent, Timestamp::from_ms(1));
        assert!(mark.voided.len() <= SPANS_MAX && mark.pending.len() <= SPANS_MAX);
        let missing = mark.missing(&Ranges::default());
        assert!(missing.without(&handed).is_empty(), "{missing:?}");
        assert!(!missing.is_empty());
    }
}
