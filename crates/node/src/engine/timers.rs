//! What happens by itself at its time: messages that were to go later go, senders are warned of
//! what is about to expire, and told of what did; nothing waits for ever.

use std::{sync::Arc, time::Duration};

use bureau_core::{Timestamp, receipt::ReceiptKind};
use bureau_net::Refusal;
use bureau_store::contract::{
    HoldReason, Operation, Outcome, Release, Role, State, Timer, TimerKind, Tracked,
    TrackedRecipient, Turned,
};
use tokio_util::sync::CancellationToken;

use super::{Engine, scribe::Farewell, store_refusal};

/// How often due timers are looked for. Timers are kept by the minute.
const PERIOD: Duration = Duration::from_secs(5);
/// Timers that are handled before the next look.
const TIMERS_MAX: usize = 16;

/// Handles timers until it is cancelled.
pub async fn run(engine: Arc<Engine>, cancel: CancellationToken) {
    loop {
        let more = match round(&engine).await {
            Ok(more) => more,
            Err(refusal) => {
                tracing::warn!(event = "timers_failed", reason = %refusal.reason);
                false
            }
        };
        let wait = if more { Duration::ZERO } else { PERIOD };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Handles what is due. Whether there may be more.
async fn round(engine: &Engine) -> Result<bool, Refusal> {
    let now = engine.clock.now();
    let due = engine.store.due(now, TIMERS_MAX).await.map_err(|error| store_refusal(&error))?;
    let more = due.len() == TIMERS_MAX;
    for timer in due {
        match timer.kind {
            TimerKind::Expire | TimerKind::Overdue => give_up_all(engine, &timer).await?,
            TimerKind::Warn => warn_all(engine, &timer, now).await?,
            TimerKind::Release => release_all(engine, &timer, now).await?,
            TimerKind::Forget => {}
            TimerKind::Reroute => reroute_all(engine, &timer, now).await?,
        }
        let handled = vec![Operation::TimerHandled { timer, now }];
        engine.store.commit(handled).await.map_err(|error| store_refusal(&error))?;
    }
    Ok(more)
}

/// Warns of own messages that are not delivered. What is scheduled for later waits as it should.
async fn warn_all(engine: &Engine, timer: &Timer, now: Timestamp) -> Result<(), Refusal> {
    for message in &timer.messages {
        let tracked = engine.store.track(*message).await.map_err(|error| store_refusal(&error))?;
        // Past expiry, after a long stop, there is nothing left to warn of.
        let Some(tracked) = tracked.filter(|tracked| tracked.expires > now) else { continue };
        for track in tracked.recipients.iter().filter(|track| is_late(track)) {
            engine.metrics.expiry_near();
            tracing::warn!(
                event = "expiry_near",
                message = %tracked.message, recipient = %track.recipient,
                state = track.state.as_str(), expires = %tracked.expires
            );
        }
    }
    Ok(())
}

fn is_late(track: &TrackedRecipient) -> bool {
    let scheduled = track.held.as_ref().is_some_and(|held| held.reason == HoldReason::Scheduled);
    let waits = matches!(track.state, State::Queued | State::Held | State::Relayed);
    track.role == Role::Origin && waits && !scheduled
}

/// Lets go what was scheduled for a time that has come.
async fn release_all(engine: &Engine, timer: &Timer, now: Timestamp) -> Result<(), Refusal> {
    for message in &timer.messages {
        let tracked = engine.store.track(*message).await.map_err(|error| store_refusal(&error))?;
        let recipients = tracked.map(|tracked| tracked.recipients).unwrap_or_default();
        let held = recipients.iter().filter(|track| track.state == State::Held);
        let release = |track: &TrackedRecipient| {
            let (message, recipient) = (*message, track.recipient);
            Operation::Release(Box::new(Release { message, recipient, when_due: true, now }))
        };
        let operations: Vec<_> = held.map(release).collect();
        let released = engine.store.commit(operations).await;
        let released = released.map_err(|error| store_refusal(&error))?;
        let done = |outcome: &&Outcome| matches!(outcome, Outcome::Turned(Turned::Done { .. }));
        let count = released.iter().filter(done).count();
        if count > 0 {
            tracing::info!(
                event = "message_released",
                message = %message, recipients = count, reason = HoldReason::Scheduled.as_str()
            );
        }
    }
    Ok(())
}

/// Sends again what another took custody of so long ago that the recipient's word is overdue.
async fn reroute_all(engine: &Engine, timer: &Timer, now: Timestamp) -> Result<(), Refusal> {
    for message in &timer.messages {
        let tracked = engine.store.track(*message).await.map_err(|error| store_refusal(&error))?;
        let Some(tracked) = tracked else { continue };
        let relayed =
            |track: &&TrackedRecipient| track.role == Role::Origin && track.state == State::Relayed;
        let recipients: Vec<_> =
            tracked.recipients.iter().filter(relayed).map(|track| track.recipient).collect();
        let operation =
            |recipient: &_| Operation::Reroute { message: *message, recipient: *recipient, now };
        let operations = recipients.iter().map(operation).collect();
        let outcomes = engine.store.commit(operations).await;
        let outcomes = outcomes.map_err(|error| store_refusal(&error))?;
        for (recipient, outcome) in recipients.iter().zip(outcomes) {
            let Outcome::Rerouted(Some(rerouted)) = outcome else { continue };
            // Who had it, where the last word on that was lost, is not known.
            let holder = rerouted.holder.map(|holder| holder.to_string()).unwrap_or_default();
            engine.metrics.custody_overdue(&holder);
            tracing::warn!(
                event = "custody_overdue",
                message = %message, recipient = %recipient, holder, since = %rerouted.since,
                reroutes = rerouted.reroutes
            );
        }
    }
    Ok(())
}

async fn give_up_all(engine: &Engine, timer: &Timer) -> Result<(), Refusal> {
    for message in &timer.messages {
        let tracked = engine.store.track(*message).await.map_err(|error| store_refusal(&error))?;
        let Some(tracked) = tracked else { continue };
        for track in &tracked.recipients {
            if is_due(track, timer.kind) {
                give_up(engine, &tracked, track).await?;
            }
        }
    }
    Ok(())
}

/// Whether this node must say that a message expired: it waits here; or, a while later, this is its
/// origin and whoever took custody did not say.
fn is_due(track: &TrackedRecipient, kind: TimerKind) -> bool {
    match track.state {
        State::Queued | State::Held => true,
        State::Relayed => kind == TimerKind::Overdue && track.role == Role::Origin,
        _ => false,
    }
}

async fn give_up(
    engine: &Engine,
    tracked: &Tracked,
    track: &TrackedRecipient,
) -> Result<(), Refusal> {
    let farewell = Farewell {
        message: tracked.message,
        recipient: track.recipient,
        slip: track.slip,
        kind: ReceiptKind::Expired,
        reason: String::new(),
        advice: String::new(),
    };
    if engine.scribe.give_up(farewell).await? {
        engine.metrics.expired();
        tracing::warn!(
            event = "message_expired",
            message = %tracked.message, origin = %tracked.origin, recipient = %track.recipient
        );
    }
    Ok(())
}
